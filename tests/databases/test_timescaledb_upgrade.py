"""A database that an older version has written: it is brought up to date, and nothing of it is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from postgres import Database, backend
from pytest_twisted import ensureDeferred

from wafermon.backends.timescaledb import reading
from wafermon.backends.timescaledb.schema import HYPERTABLES, migrations
from wafermon.contract import batch, line
from wafermon.interfaces import Position
from wafermon.model.asking import JobFilter, Page

VERSION_3 = (Path(__file__).parent / "version_3.sql").read_text()
SIDECAR = "09372850328d7364"
"""The one that wrote it."""
REACHED = Position.parse("5af1c0de5af1c0de:1:4535")
JOBS = "SELECT job_id, trace_id, percent, status, service, first, last_progress, messages, stalled FROM jobs ORDER BY 1"


@pytest.fixture
def old(database: Database) -> Database:
    database.query(VERSION_3)
    assert database.one("SELECT max(version) FROM schema_versions") == 3
    return database


def named(writer: Any, sidecar: str) -> None:
    """Make it the sidecar of this id."""
    (writer._context.state_dir / "sidecar").write_text(sidecar)


@ensureDeferred
async def test_the_cursor_and_the_rows_stay(old: Database) -> None:
    before = old.stored()
    with backend(old) as writer:
        named(writer, SIDECAR)
        assert await writer.open() == REACHED
        await writer.write(batch(REACHED, [line(n) for n in range(101, 111)]))
    assert old.one("SELECT max(version) FROM schema_versions") == migrations()[-1].version
    assert len(before) == 22 and len(old.stored()) == 32


@ensureDeferred
async def test_the_views_say_the_same_as_before(old: Database) -> None:
    views = {
        JOBS: 2,
        "SELECT * FROM completeness": 1,
        "SELECT * FROM error_counts ORDER BY 1, 2, 3": 3,
        "SELECT * FROM resource_use": 1,
        "SELECT * FROM slow_spans ORDER BY 1, 2": 3,
        "SELECT trace_id, span_id, parent_id, name, start, duration, status FROM all_spans ORDER BY start": 3,
    }
    before = {sql: old.query(sql) for sql in views}
    with backend(old) as writer:
        await writer.open()
    for sql, rows in views.items():
        assert len(before[sql]) == rows
        assert old.query(sql) == before[sql], sql
    assert [job["stalled"] for job in reading.Reader(old.dsn).jobs(JobFilter(), Page()).records] == [False, True]


@ensureDeferred
async def test_jobs_of_an_older_sidecar_beside_a_newer_one(old: Database) -> None:
    """It does not keep them; they are added when it is upgraded itself."""
    with backend(old) as newer:
        await newer.open()
    old.query(
        "INSERT INTO progress (time, service, trace_id, job_id, percent, seq)"
        " VALUES ('2026-11-25', 'older', 'job-3', 'job-3', 7, 1), ('2026-11-25', 'older', 'job-1', 'job-1', 70, 2)"
    )
    assert [job["job_id"] for job in reading.Reader(old.dsn).jobs(JobFilter(), Page()).records] == ["job-1", "job-2"]
    with backend(old) as upgraded:
        named(upgraded, SIDECAR)
        await upgraded.open()
    found = {
        job["job_id"]: (job["percent"], job["service"])
        for job in reading.Reader(old.dsn).jobs(JobFilter(), Page()).records
    }
    assert found["job-3"] == (7.0, "older") and found["job-1"] == (70.0, "older")
    assert old.query("SELECT messages FROM jobs WHERE job_id = 'job-1'") == [(4,)]


@ensureDeferred
async def test_no_index_makes_the_server_log_statements(old: Database) -> None:
    with backend(old) as writer:
        await writer.open()
    options = dict(old.query("SELECT relname, reloptions FROM pg_class WHERE relname LIKE '%_time' AND relkind = 'i'"))
    for table in HYPERTABLES:
        assert "pages_per_range=32" in options[f"{table}_time"]
        assert "autosummarize=on" not in options[f"{table}_time"]


@ensureDeferred
async def test_a_batch_is_not_written_into_the_servers_log(database: Database) -> None:
    """As `autosummarize` did, for a user who is no superuser, once more ranges were full than it can note down."""
    if not database.query("SELECT 1 FROM pg_roles WHERE rolname = 'plain'"):
        database.query("CREATE ROLE plain LOGIN")
    database.query("GRANT CREATE ON SCHEMA public TO plain")
    with backend(database.server.dsn(database.name, user="plain")) as writer:
        await writer.open()
        database.query("ALTER INDEX events_time SET (pages_per_range = 1)")
        database.query("REINDEX INDEX events_time")
        secret = "not for the log"
        await writer.write(
            batch(Position("5af1c0de5af1c0de", 1, 0), [line(n, message=secret * 50) for n in range(1, 6001)])
        )
    assert database.one("SELECT pg_relation_size('events') / 8192") > 300
    assert secret not in database.server.log()
