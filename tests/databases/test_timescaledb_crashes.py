"""Whoever fails under load, the sidecar, the server or the network between them: every acknowledged message is stored
once. `WAFERMON_TEST_ROUNDS` says how often they fail."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from daemon import Daemon, Load, until
from postgres import TABLES, Database, Postgres, by_copy
from proxy import Proxy, at_random

ROUNDS = int(os.environ.get("WAFERMON_TEST_ROUNDS", "5"))
CONFIG = """
listen: ["tcp:{{port}}:interface=127.0.0.1"]
http: false
reload: signal
journal: {{{{dir: journal, segment_bytes: 1MiB, max_bytes: 0, spill_dir: false}}}}
backends:
  db: {{{{plugin: timescaledb, dsn: "{dsn}", batch: {{{{age: 20ms}}}}, retry: {{{{max: 200ms}}}}}}}}
routes: [{{{{to: [db]}}}}]
dead_letters: {{{{dir: dead-letters}}}}
"""

TRACED = {"trace_id": "job-1", "span_id": "00f067aa0ba902b7", "name": "step"}
KINDS: tuple[dict[str, Any], ...] = (
    {}, {}, {"type": "metric", "name": "rate", "value": 1.5, "tags": {"tool": "x"}}, {"type": "resource", "cpu": 12.5},
    {"type": "progress", "job_id": "job-1", "trace_id": "job-1", "percent": 50}, {"type": "span_start", **TRACED},
    {"type": "span_end", **TRACED, "status": "ok", "start": 1_795_500_000_000_000, "duration": 5},
)  # fmt: skip
"""What the messages are, in turn: most tables, so that a batch that is stored in part would be seen."""
SENT = " UNION ALL ".join(f"SELECT client, seq, service FROM {table}" for table in TABLES if table != "traces")


def sidecar(directory: Path, dsn: str) -> Daemon:
    return Daemon(directory, CONFIG.format(dsn=dsn))


@contextmanager
def loaded(daemon: Daemon, database: Database) -> Iterator[list[Load]]:
    """Under load; at the end of it, what was acknowledged must be stored, each once."""
    by_copy()
    loads = [Load(daemon, number, KINDS) for number in range(1, 4)]
    try:
        until(lambda: moved(database), "tables")
        watch(database)
        until(lambda: all(load.acked for load in loads), "some load")
        yield loads
        before = [load.acked for load in loads]
        until(lambda: all(load.acked > acked for load, acked in zip(loads, before, strict=True)), "load after it all")
    finally:
        for load in loads:
            load.join()
    check(database, {load.name: load.acked for load in loads})
    assert database.one("SELECT count(*) FROM ways WHERE way = 'COPY'") > 0, "nothing went by COPY"
    rows = database.one("SELECT count(*) FROM progress")
    assert database.one("SELECT sum(messages) FROM jobs") == rows
    assert daemon.letters() == []
    log = daemon.log()
    assert "Traceback" not in log, log


def watch(database: Database) -> None:
    """Note down how each batch came."""
    database.query(
        "CREATE TABLE ways (way text);"
        "CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO ways VALUES (left(current_query(), 4)); RETURN NULL; END $$;"
        "CREATE TRIGGER watch AFTER INSERT ON events EXECUTE FUNCTION watch()"
    )


def check(database: Database, acked: dict[str, int]) -> None:
    """Of each client: as many rows as different seqs, and without a gap all that was acknowledged."""
    total = sum(acked.values())
    until(lambda: moved(database) >= total, "everything in the database", patience=300)
    reached = f"SELECT client, max(seq) FROM ({SENT}) AS sent WHERE service <> 'wafermon' GROUP BY client"
    until(lambda: all(dict(database.query(reached)).get(name, 0) >= seq for name, seq in acked.items()), "all of it")
    counted = (
        f"SELECT client, count(*), count(DISTINCT seq), max(seq) FROM ({SENT}) AS sent"
        " WHERE service <> 'wafermon' GROUP BY client"
    )
    rows = database.query(counted)
    assert {client for client, *_ in rows} == set(acked)
    for client, count, distinct, last in rows:
        assert count == distinct == last >= acked[client], f"{client}: {count} rows, {distinct} messages of {last}"


def moved(database: Database) -> int:
    """How many messages the cursors have moved over."""
    if not database.query("SELECT 1 FROM pg_tables WHERE tablename = 'deliveries'"):
        return 0
    return int(database.one("SELECT coalesce(sum(messages), 0) FROM deliveries"))


def test_sigkill_of_the_sidecar(tmp_path: Path, database: Database) -> None:
    with sidecar(tmp_path, database.dsn) as daemon, loaded(daemon, database):
        for _ in range(ROUNDS):
            time.sleep(random.uniform(0.05, 0.6))
            daemon.kill()
            daemon.start()


def test_crashes_of_the_server(tmp_path: Path, database: Database) -> None:
    with sidecar(tmp_path, database.dsn) as daemon, loaded(daemon, database):
        for _ in range(ROUNDS):
            time.sleep(random.uniform(0.05, 0.6))
            database.server.restart(immediate=True)
        assert daemon.process is not None and daemon.process.poll() is None


def test_a_network_that_cuts(tmp_path: Path, database: Database) -> None:
    with Proxy(database.server.socket) as proxy:
        dsn = f"host=127.0.0.1 port={proxy.port} dbname={database.name} user=wafermon"
        with sidecar(tmp_path, dsn) as daemon, loaded(daemon, database):
            until(database.stored, "rows")
            proxy.rule = at_random(0.1, seed=1)
            until(lambda: proxy.cuts >= 4 * ROUNDS, "cuts", patience=300)
            proxy.rule = lambda pair, chunk, from_client: "pass"


def test_everything_at_once(tmp_path: Path, database: Database) -> None:
    with Proxy(database.server.socket) as proxy:
        proxy.rule = at_random(0.02, seed=2)
        dsn = f"host=127.0.0.1 port={proxy.port} dbname={database.name} user=wafermon"
        with sidecar(tmp_path, dsn) as daemon, loaded(daemon, database):
            for _ in range(ROUNDS):
                time.sleep(random.uniform(0.05, 0.3))
                database.server.restart(immediate=True)
                time.sleep(random.uniform(0.05, 0.3))
                daemon.kill()
                daemon.start()
            proxy.rule = lambda pair, chunk, from_client: "pass"


def test_an_outage_from_before_the_start(tmp_path: Path, postgres: Postgres) -> None:
    """It is told in one line, costs nobody anything, and ends by itself."""
    database = postgres.create()
    try:
        with sidecar(tmp_path, database.dsn) as daemon:
            with postgres.down():
                daemon.stop()
                (tmp_path / "daemon.log").write_text("")
                daemon.start()
                client = daemon.client()
                client.send(range(1, 20_001))
                client.until_acked(20_000)
                time.sleep(1)
            check(database, {client.client: 20_000})
            client.drop()
        told = [line for line in daemon.log().splitlines() if "db can't" in line or "db works again" in line]
        assert len([line for line in told if "see that the server runs" in line]) == 1, told
        assert "works again" in told[-1]
    finally:
        database.drop()


def test_what_the_server_refuses_becomes_dead_letters(tmp_path: Path, database: Database) -> None:
    with sidecar(tmp_path, database.dsn) as daemon:
        client = daemon.client()
        bad = (7, 8, 400)
        for seq in range(1, 501):
            metric = {"type": "metric", "service": "test", "name": "x", "client": client.client, "seq": seq, "value": 1}
            text = json.dumps(metric)
            client.send_line((text.replace('"value": 1', '"value": 1e-400') if seq in bad else text).encode())
        client.until_acked(500)
        until(lambda: len(database.stored()) == 497, "the rest")
        until(lambda: len(daemon.letters()) == len(bad), "dead letters")
        letters = daemon.letters()
        assert [letter["seq"] for letter in letters] == list(bad)
        assert all("out of range" in letter["reason"] and letter["backend"] == "db" for letter in letters)
        assert [seq for _, seq in database.stored() if seq in bad] == []
        client.drop()
