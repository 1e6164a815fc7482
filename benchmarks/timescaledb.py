"""How fast messages come to PostgreSQL through the whole sidecar, beside COPY of the same rows, in one run.

    python benchmarks/timescaledb.py [--messages 300000] [--rounds 3] [--outage 0]

A server of the benchmark's own on this machine's disk, with its safety on. Each round, of events alone and of mixed types:
the messages through a sidecar into the database, from the first byte on a socket to the last committed row; the same rows
by psql's COPY into equal tables; and the same messages through a sidecar into JSONL files, for what they cost the daemon.
What counts are the ratios. `--outage N`: N messages while the database
is away, and how they are caught up with afterwards. With WAFERMON_TEST_EXTENSION=1 the server has the TimescaleDB extension,
and all tables are hypertables.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psycopg2
from load import Process, senders, sidecar
from suite.processes import cpu_seconds

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

from ports import free_port
from postgres import EXTENSION, Database, Postgres

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
ROWS = ("events", "metrics", "progress", "resources", "span_starts", "spans")
FILES = 'plugin: filesystem, path: "logs/{service}.jsonl"'


def until_stored(database: Database, count: int, patience: float = 600.0) -> None:
    """By what the cursor says, which is cheaper than counting rows; on one connection, since each new one costs the server
    as much as a thousand rows."""
    deadline = time.monotonic() + patience
    while not database.query("SELECT 1 FROM pg_tables WHERE tablename = 'deliveries'"):
        time.sleep(0.1)
    connection = psycopg2.connect(database.dsn)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            while True:
                cursor.execute("SELECT coalesce(sum(messages), 0) FROM deliveries")
                [stored] = cursor.fetchone()
                if stored >= count:
                    return
                if time.monotonic() > deadline:
                    raise SystemExit(f"only {stored} of {count} messages came to the database")
                time.sleep(0.02)
    finally:
        connection.close()


@dataclass(frozen=True)
class Cost:
    """Of so many messages."""

    seconds: float
    daemon: float
    """CPU seconds."""
    server: float
    """CPU seconds, of all its processes."""


def server_cpu(server: Postgres) -> float:
    assert server.process is not None
    return cpu_seconds(server.process.pid)


def through_sidecar(database: Database, messages: int, mixed: bool) -> Cost:
    """From the first byte to the last row."""
    with tempfile.TemporaryDirectory(dir=".") as directory:
        config = CONFIG.format(port=PORT, backend=f'plugin: timescaledb, dsn: "{database.dsn}"')
        daemon = sidecar(Path(directory), config)
        senders(PORT, 1, 1000, mixed=mixed)
        until_stored(database, 1000)
        database.query("CHECKPOINT")
        daemon_cpu, cpu, begun = daemon.cpu, server_cpu(database.server), time.monotonic()
        senders(PORT, 2, messages // 2, mixed=mixed)
        until_stored(database, messages + 1000)
        seconds = time.monotonic() - begun
        cost = Cost(seconds, daemon.cpu - daemon_cpu, server_cpu(database.server) - cpu)
        daemon.stop()
    counted = database.one(
        f"SELECT count(*) FROM ({' UNION ALL '.join(f'SELECT service FROM {table}' for table in ROWS)}) AS stored"
        " WHERE service <> 'wafermon'"
    )
    assert counted == messages + 1000, counted
    return cost


def by_copy(database: Database, messages: int) -> Cost:
    """What psql needs to COPY as many of these rows into empty tables of the same columns and indexes."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        commands = []
        for table in ROWS:
            count = database.one(f"SELECT count(*) FROM {table}")
            if count:
                rows = Path(directory) / f"{table}.copy"
                share = (
                    messages
                    * count
                    // database.one(" + ".join(f"(SELECT count(*) FROM {one})" for one in ROWS).join(("SELECT ", "")))
                )
                psql(database, f"\\copy (SELECT * FROM {table} LIMIT {share}) TO '{rows}'")
                database.query(f"CREATE TABLE copied_{table} (LIKE {table} INCLUDING ALL)")
                if EXTENSION:
                    database.query(
                        f"SELECT create_hypertable('copied_{table}', 'time', chunk_time_interval => interval '7 days')"
                    )
                commands.append(f"\\copy copied_{table} FROM '{rows}'")
        database.query("CHECKPOINT")
        cpu, begun = server_cpu(database.server), time.monotonic()
        psql(database, *commands)
        return Cost(time.monotonic() - begun, 0.0, server_cpu(database.server) - cpu)


def psql(database: Database, *commands: str) -> None:
    arguments = [str(database.server.binaries / "psql"), "-q", "-d", database.dsn]
    subprocess.run([*arguments, *(word for command in commands for word in ("-c", command))], check=True)


def through_files(messages: int, mixed: bool) -> float:
    """CPU seconds of the daemon."""
    with tempfile.TemporaryDirectory(dir=".") as directory:
        here = Path(directory)
        daemon = sidecar(here, CONFIG.format(port=PORT, backend=FILES))
        senders(PORT, 1, 1000, mixed=mixed)
        cpu = daemon.cpu
        senders(PORT, 2, messages // 2, mixed=mixed)
        while sum(path.read_bytes().count(b"\n") for path in here.glob("logs/f*.jsonl")) < messages + 1000:
            time.sleep(0.05)
        cpu = daemon.cpu - cpu
        daemon.stop()
        return cpu


def measure(server: Postgres, messages: int, mixed: bool) -> tuple[float, float, float]:
    """Rate beside COPY, the daemon's CPU beside files, and the server's CPU seconds per 100,000 rows."""
    database = server.create()
    stored = through_sidecar(database, messages, mixed)
    copied = by_copy(database, messages)
    files = through_files(messages, mixed)
    database.drop()
    per = 1e5 / messages
    print(
        f"{'mixed ' if mixed else 'events'} sidecar {messages / stored.seconds:8,.0f} rows/s, COPY {messages / copied.seconds:8,.0f}: "
        f"{copied.seconds / stored.seconds:.2f}; per 100,000 rows: daemon {stored.daemon * per:.2f} s CPU, files {files * per:.2f}: "
        f"{stored.daemon / files:.2f}; server {stored.server * per:.2f} s CPU, with COPY {copied.server * per:.2f}",
        flush=True,
    )
    return copied.seconds / stored.seconds, stored.daemon / files, stored.server * per


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
        for mixed in (False, True):
            ratios = [measure(server, options.messages, mixed) for _ in range(options.rounds)]
            if ratios:
                rows, cpu, server_seconds = (statistics.median(each) for each in zip(*ratios, strict=True))
                print(
                    f"{'mixed ' if mixed else 'events'} median of {len(ratios)}: sidecar / COPY {rows:.2f}, "
                    f"CPU database / files {cpu:.2f}, server {server_seconds:.2f} s per 100,000 rows"
                )
        if options.outage:
            outage(server, options.outage)
    finally:
        server.remove()


if __name__ == "__main__":
    main()
