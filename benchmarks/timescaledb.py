"""How fast messages come to PostgreSQL through the whole sidecar, beside COPY of the same rows, in one run.

    python benchmarks/timescaledb.py [--messages 300000] [--rounds 3] [--outage 0]

A server of the benchmark's own on this machine's disk, with its safety on. Each round: the messages through a sidecar
into the database, from the first byte on a socket to the last committed row; the same rows by psql's COPY into an equal
table; and the same messages through a sidecar into JSONL files, for what they cost the daemon. What counts are the
ratios. `--outage N`: N messages while the database is away, and how they are caught up with afterwards.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from load import Process, senders, sidecar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

from daemon import free_port
from postgres import Database, Postgres

PORT = free_port()  # another's sidecar would take the messages, and they would never come here
CONFIG = """
listen: [tcp:{port}:interface=127.0.0.1]
http: false
reload: signal
journal: {{dir: journal, max_bytes: 0, spill_dir: false}}
backends:
  one: {{{backend}}}
routes: [{{to: [one]}}]
"""
FILES = 'plugin: filesystem, path: "logs/{service}.jsonl"'


def until_stored(database: Database, count: int, patience: float = 600.0) -> None:
    deadline = time.monotonic() + patience
    while stored(database) < count:
        if time.monotonic() > deadline:
            raise SystemExit(f"only {stored(database)} of {count} messages came to the database")
        time.sleep(0.02)


def stored(database: Database) -> int:
    """What the cursor says: cheaper than counting rows."""
    if not database.query("SELECT 1 FROM pg_tables WHERE tablename = 'deliveries'"):
        return 0
    return int(database.one("SELECT coalesce(sum(messages), 0) FROM deliveries"))


def through_sidecar(database: Database, messages: int) -> tuple[float, float, int]:
    """Seconds from the first byte to the last row, CPU seconds of the daemon, and bytes of the table."""
    with tempfile.TemporaryDirectory(dir=".") as directory:
        config = CONFIG.format(port=PORT, backend=f'plugin: timescaledb, dsn: "{database.dsn}"')
        server = sidecar(Path(directory), config)
        senders(PORT, 1, 1000)
        until_stored(database, 1000)
        cpu, begun = server.cpu, time.monotonic()
        senders(PORT, 2, messages // 2)
        until_stored(database, messages + 1000)
        seconds, cpu = time.monotonic() - begun, server.cpu - cpu
        server.stop()
    counted = database.one("SELECT count(*) FROM events WHERE service <> 'wafermon'")
    assert counted == messages + 1000, counted
    return seconds, cpu, database.one("SELECT pg_total_relation_size('events')")


def by_copy(database: Database, messages: int) -> float:
    """Seconds that psql takes to COPY as many of these rows into an empty table of the same columns and indexes."""
    database.query("CREATE TABLE copied (LIKE events INCLUDING ALL)")
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        rows = Path(directory) / "rows.copy"
        psql(database, f"\\copy (SELECT * FROM events WHERE seq IS NOT NULL LIMIT {messages}) TO '{rows}'")
        database.query("CHECKPOINT")
        begun = time.monotonic()
        psql(database, f"\\copy copied FROM '{rows}'")
        return time.monotonic() - begun


def psql(database: Database, command: str) -> None:
    arguments = [str(database.server.binaries / "psql"), "-q", "-d", database.dsn, "-c", command]
    subprocess.run(arguments, check=True)


def through_files(messages: int) -> float:
    """CPU seconds of the daemon."""
    with tempfile.TemporaryDirectory(dir=".") as directory:
        here = Path(directory)
        server = sidecar(here, CONFIG.format(port=PORT, backend=FILES))
        senders(PORT, 1, 1000)
        cpu = server.cpu
        senders(PORT, 2, messages // 2)
        while sum(path.read_bytes().count(b"\n") for path in here.glob("logs/f*.jsonl")) < messages + 1000:
            time.sleep(0.05)
        cpu = server.cpu - cpu
        server.stop()
        return cpu


def measure(server: Postgres, messages: int) -> tuple[float, float]:
    """The two ratios."""
    database = server.create()
    server.query("CHECKPOINT")
    seconds, cpu, size = through_sidecar(database, messages)
    copy = by_copy(database, messages)
    files = through_files(messages)
    database.drop()
    print(
        f"sidecar {messages / seconds:8,.0f} rows/s, {cpu / messages * 1e5:.2f} s CPU per 100,000 rows, "
        f"{size / messages:.0f} bytes a row; COPY {messages / copy:8,.0f} rows/s; files {files / messages * 1e5:.2f} s CPU; "
        f"sidecar / COPY {copy / seconds:.2f}, CPU database / files {cpu / files:.2f}"
    )
    return copy / seconds, cpu / files


def outage(server: Postgres, messages: int) -> None:
    """The database is away while they are sent."""
    database = server.create()
    with tempfile.TemporaryDirectory(dir=".") as directory:
        daemon = sidecar(
            Path(directory), CONFIG.format(port=PORT, backend=f'plugin: timescaledb, dsn: "{database.dsn}"')
        )
        live = messages // 5
        begun = time.monotonic()
        senders(PORT, 2, live // 2)
        until_stored(database, live)
        rate = live / (time.monotonic() - begun)
        server.stop()
        sizes = [daemon.rss]
        for _ in range(10):
            senders(PORT, 2, messages // 20)
            sizes.append(daemon.rss)
        server.start()
        begun = time.monotonic()
        until_stored(database, live + messages)
        caught = messages / (time.monotonic() - begun)
        report(daemon, database, live + messages, sizes)
        daemon.stop()
    print(f"live {rate:,.0f} rows/s, catching up {caught:,.0f} rows/s: {caught / rate:.2f}")


def report(daemon: Process, database: Database, expected: int, sizes: list[float]) -> None:
    query = "SELECT count(*), count(DISTINCT (client, seq)) FROM events WHERE service <> 'wafermon'"
    [(count, distinct)] = database.query(query)
    print(f"{expected:,} sent, {count:,} rows, {distinct:,} different ones")
    print(f"resident MiB during the outage: {', '.join(f'{size:.0f}' for size in sizes)}; peak {daemon.peak:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--messages", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--outage", type=int, default=0, metavar="N")
    options = parser.parse_args()
    server = Postgres(fsync="on", max_wal_size="4GB", shared_buffers="256MB")
    try:
        server.start()
        ratios = [measure(server, options.messages) for _ in range(options.rounds)]
        if ratios:
            rows, cpu = (statistics.median(each) for each in zip(*ratios, strict=True))
            print(f"median of {len(ratios)}: sidecar / COPY {rows:.2f}, CPU database / files {cpu:.2f}")
        if options.outage:
            outage(server, options.outage)
    finally:
        server.remove()


if __name__ == "__main__":
    main()
