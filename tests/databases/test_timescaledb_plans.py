"""What each view and each panel reads, beside what it is asked for: on WAFERMON_TEST_ROWS rows, by EXPLAIN (ANALYZE).

Rows that are read are counted, not seconds: a plan that reads the whole table is found on any machine. `make plans` has
3,000,000 rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
import pytest
from daemon import until
from grafana import QUERIES, ranged
from postgres import EXTENSION, Database, Postgres, backend
from pytest_twisted import ensureDeferred

from wafermon.backends.timescaledb import reading
from wafermon.backends.timescaledb.schema import HYPERTABLES
from wafermon.model.asking import ErrorFilter, EventFilter, Page

ROWS = int(os.environ.get("WAFERMON_TEST_ROWS", "150000"))
DAYS = 30
LINES = 100
"""Of each trace, events alone."""
EVENTS = ROWS // 2
TRACES = EVENTS // LINES
END = "timestamptz '2026-11-24 06:00+00'"
TRACE = f"job-{TRACES // 2}"
HOURS = 6
SHARE = HOURS / 24 / DAYS
"""How much of all rows lies within the range that is asked for."""


def when(number: str, count: int) -> str:
    """The time of a row: evenly over the days."""
    return f"{END} - interval '{DAYS} days' * (1 - {number}::float8 / {count})"


def filling() -> Iterator[str]:
    """The rows: half of them events, each trace's one after the other, and a tenth of each other table's."""
    yield f"""
        INSERT INTO events (time, service, host, pid, trace_id, client, seq, level, message, context)
        SELECT {when("n", EVENTS)}, 'service-' || n % 7, 'fab1', n % 50, 'job-' || n / {LINES}, '9f2c6b1d00e4a873', n,
            CASE WHEN n % 500 = 0 THEN 'error' WHEN n % 100 = 0 THEN 'warning' ELSE 'info' END,
            'wafer ' || n || ' of the lot was measured', jsonb_build_object('wafer', n % 25, 'file', 'lot-' || n || '.csv')
        FROM generate_series(1, {EVENTS}) AS n"""
    tenth = ROWS // 10
    of = {
        "metrics (name, value, kind, ": "'rate-' || n % 10, n, 'gauge', ",
        "progress (job_id, percent, status, ": f"'job-' || n * {TRACES}::bigint / {tenth}, n % 100, 'running', ",
        "resources (cpu, mem, ": "n % 100, n, ",
        "span_starts (span_id, name, ": "lpad(to_hex(n), 16, '0'), 'step-' || n % 9, ",
        "spans (span_id, name, status, start, duration, ": (
            f"lpad(to_hex(n), 16, '0'), 'step-' || n % 9, 'ok', {when('n', tenth)}, 0.5, "
        ),
    }
    for names, values in of.items():
        yield f"""
            INSERT INTO {names} time, service, host, pid, trace_id, client, seq)
            SELECT {values} {when("n", tenth)}, 'service-' || n % 7, 'fab1', n % 50,
                'job-' || n * {TRACES}::bigint / {tenth}, '9f2c6b1d00e4a873', n
            FROM generate_series(1, {tenth}) AS n""".replace(",  time", ", time")
    yield """
        INSERT INTO traces (time, service, trace_id, first, last, services, counts, errors, status, part)
        SELECT max(time), 'wafermon', trace_id, min(time), max(time), array_agg(DISTINCT service),
            jsonb_build_object('event', count(*)), 0, 'done', 1 FROM events GROUP BY trace_id"""
    yield "SELECT refresh_jobs()"


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    made = Postgres(shared_buffers="256MB", autovacuum="off", jit="on", max_wal_size="1GB")
    try:
        made.start()
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="module")
def empty(server: Postgres) -> Database:
    return server.create()


_filled: set[str] = set()


async def filled(database: Database) -> Database:
    """Made once for the module."""
    if database.name not in _filled:
        with backend(database) as writer:
            await writer.open()
            await writer.close()
        for sql in filling():
            database.query(sql)
        database.query("VACUUM ANALYZE")
        _filled.add(database.name)
    return database


def explained(database: Database, sql: str) -> dict[str, Any]:
    """Its plan, as it was run with the settings that Grafana's role is to have."""
    connection = psycopg2.connect(database.dsn)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SET jit = off; SET timezone = 'UTC'")
            cursor.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + sql)
            [[[plan]]] = cursor.fetchall()
            return dict(plan)
    finally:
        connection.close()


def scans(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Its nodes that read a table."""
    if "Relation Name" in plan:
        yield plan
    for inner in plan.get("Plans", ()):
        yield from scans(inner)


def read(plan: dict[str, Any]) -> int:
    """How many rows it has looked at."""
    kinds = ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck")
    return sum(
        int(node["Actual Loops"]) * sum(int(node.get(kind, 0)) for kind in kinds) for node in scans(plan["Plan"])
    )


def tell(what: str, plan: dict[str, Any]) -> None:
    print(f"{plan['Execution Time']:9.1f} ms, planned in {plan['Planning Time']:5.1f} ms, {read(plan):9,} rows  {what}")


LAST = f"{END} - interval '{HOURS} hours', {END}"
VIEWS = {
    "jobs": f"SELECT * FROM jobs WHERE last_progress >= {END} - interval '{HOURS} hours'",
    "jobs, latest": "SELECT * FROM jobs ORDER BY last_progress DESC LIMIT 100",
    "error_counts_between": f"SELECT * FROM error_counts_between({LAST})",
    "resource_use_between": f"SELECT * FROM resource_use_between({LAST})",
    "slow_spans_between": f"SELECT * FROM slow_spans_between({LAST})",
    "spans_between": f"SELECT * FROM spans_between({LAST})",
    "timeline in a range": f"SELECT * FROM timeline WHERE time >= {END} - interval '{HOURS} hours' AND time < {END}",
}
OF_A_TRACE = {
    "timeline": f"SELECT * FROM timeline WHERE trace_id = '{TRACE}' ORDER BY time, seq",
    "all_spans": f"SELECT * FROM all_spans WHERE trace_id = '{TRACE}' ORDER BY start",
    "completeness": f"SELECT * FROM completeness WHERE trace_id = '{TRACE}'",
    "jobs of a trace": f"SELECT * FROM jobs WHERE trace_id = '{TRACE}'",
}
SLACK = 6 * 32 * 80
"""BRIN reads whole ranges of 32 pages, of up to 80 rows each: one too many of each table."""


@ensureDeferred
@pytest.mark.parametrize("name", VIEWS)
async def test_a_range_of_time_reads_what_lies_in_it(empty: Database, name: str) -> None:
    plan = explained(await filled(empty), VIEWS[name])
    tell(name, plan)
    assert read(plan) < 2.5 * SHARE * ROWS + SLACK


@ensureDeferred
@pytest.mark.parametrize("name", OF_A_TRACE)
async def test_a_trace_reads_its_own_rows(empty: Database, name: str) -> None:
    plan = explained(await filled(empty), OF_A_TRACE[name])
    tell(name, plan)
    assert 0 < read(plan) < 10 * LINES


@ensureDeferred
@pytest.mark.parametrize("name", QUERIES)
async def test_a_panel_reads_what_lies_in_its_range(empty: Database, name: str) -> None:
    database = await filled(empty)
    sql = ranged(QUERIES[name], f"{END} - interval '{HOURS} hours'", END)
    sql = sql.replace("'job-1'", f"'job-{TRACES - 2}'").replace(
        "'receiver','parser','loader'", "'service-1','service-2'"
    )
    plan = explained(database, sql.replace("'rows'", "'rate-3'"))
    tell(name, plan)
    assert read(plan) < 2.5 * SHARE * ROWS + SLACK


@ensureDeferred
async def test_a_trace_is_read_in_milliseconds(empty: Database) -> None:
    found = reading.Reader((await filled(empty)).dsn).trace(TRACE, 10_000)
    assert found is not None and found["counts"]["event"] == LINES and len(found["events"]) == LINES


@contextmanager
def by_week(database: Database, end: str) -> Iterator[list[str]]:
    """The rows in tables of a week each, which have a check on their time, as chunks of a hypertable have."""
    made = []
    for table in HYPERTABLES:
        for week in range(6):
            child = f"{table}_w{week}"
            first = f"{end} - interval '{6 - week} weeks'"
            [(low, high)] = database.query(f"SELECT ({first})::text, ({first} + interval '1 week')::text")
            last = f"time < '{high}'" if week < 5 else "true"
            database.query(f"CREATE TABLE {child} (LIKE {table} INCLUDING ALL, CHECK (time >= '{low}' AND {last}))")
            database.query(f"INSERT INTO {child} SELECT * FROM {table} WHERE time >= '{low}' AND {last}")
            made.append(child)
        database.query(f"TRUNCATE {table}")
        for week in range(6):
            database.query(f"ALTER TABLE {table}_w{week} INHERIT {table}")
    database.query("VACUUM ANALYZE")
    yield made


def touched(database: Database) -> set[str]:
    """Tables of one week that were looked into, so far."""
    rows = database.query(
        "SELECT relname FROM pg_stat_user_tables WHERE relname ~ '_w[0-9]$' AND coalesce(seq_scan, 0) + coalesce(idx_scan, 0) > 0"
    )
    return {name for (name,) in rows}


def forgotten(database: Database) -> bool:
    """Whether nothing is counted any more: what an earlier connection did may be told after its end."""
    database.query("SELECT pg_stat_reset()")
    return not touched(database)


plain = pytest.mark.skipif(EXTENSION, reason="tables that stand for chunks, where there are no chunks")


@plain
@ensureDeferred
async def test_a_trace_is_looked_for_in_its_own_chunks(postgres: Postgres) -> None:
    """By its summary; or, without one, from the latest back."""
    database = postgres.create()
    with backend(database) as writer:
        await writer.open()
        await writer.close()
    count, end = 6000, f"timestamptz '{database.one('SELECT now()::text')}'"
    database.query(
        "INSERT INTO events (time, service, trace_id, seq, level, message)"
        f" SELECT {end} - interval '40 days' * (1 - n::float8 / {count}), 's', 'job-' || n / 100, n, 'info', 'x'"
        f" FROM generate_series(1, {count}) AS n"
    )
    database.query(
        "INSERT INTO traces (time, service, trace_id, first, last, services, counts, errors, status, part)"
        " SELECT max(time), 'wafermon', trace_id, min(time), max(time), '{s}', jsonb_build_object('event', count(*)), 0,"
        " 'done', 1 FROM events GROUP BY trace_id"
    )
    with by_week(database, end):
        for trace, summed in (("job-30", True), ("job-55", False)):
            if not summed:
                database.query("DELETE FROM traces")
            week = database.one(
                f"SELECT 5 - floor(extract(epoch FROM {end} - min(time)) / 604800)::int FROM events WHERE trace_id = '{trace}'"
            )
            until(lambda: forgotten(database), "no scans")
            found = reading.Reader(database.dsn).trace(trace, 10_000)
            assert found is not None and found["counts"]["event"] == 100
            until(lambda: f"events_w{week}" in touched(database), "the statistics")  # noqa: B023
            looked = {int(name[-1]) for name in touched(database) if name.startswith("events")}
            assert looked <= ({week - 1, week, week + 1, 5} if summed else {1, 2, 3, 4, 5}), looked
    database.drop()


@plain
@ensureDeferred
async def test_a_question_about_a_time_looks_into_the_chunks_of_that_time(postgres: Postgres) -> None:
    """Of each kind of question that takes one; and what is asked about a trace's jobs."""
    database = postgres.create()
    with backend(database) as writer:
        await writer.open()
        await writer.close()
    count, end = 6000, f"timestamptz '{database.one('SELECT now()::text')}'"
    rows = f"SELECT {end} - interval '40 days' * (1 - n::float8 / {count}), 's', 'job-' || n / 100, n"
    database.query(
        f"INSERT INTO events (time, service, trace_id, seq, level, message) {rows}, 'error', 'x' FROM generate_series(1, {count}) AS n"
    )
    database.query(
        "INSERT INTO progress (time, service, trace_id, seq, job_id, percent, status)"
        f" {rows}, 'job-' || n / 100, n % 100, 'running' FROM generate_series(1, {count}) AS n"
    )
    database.query("SELECT refresh_jobs()")
    database.query(
        "INSERT INTO traces (time, service, trace_id, first, last, services, counts, errors, status, part)"
        " SELECT max(time), 'wafermon', trace_id, min(time), max(time), '{s}', jsonb_build_object('event', count(*)), 0,"
        " 'done', 1 FROM events GROUP BY trace_id"
    )
    with by_week(database, end):
        [(first, last, week)] = database.query(
            "SELECT (extract(epoch FROM min(time)) * 1000000)::bigint, (extract(epoch FROM max(time)) * 1000000)::bigint,"
            f" 5 - floor(extract(epoch FROM {end} - min(time)) / 604800)::int FROM events WHERE trace_id = 'job-30'"
        )
        reader = reading.Reader(database.dsn)
        asked: dict[str, Callable[[], int]] = {
            "events": lambda: len(reader.events(EventFilter(since=first, until=last + 1), Page(limit=500)).records),
            "errors": lambda: reader.errors(ErrorFilter(since=first, until=last + 1), Page()).records[0]["count"],
            "services": lambda: len(reader.services(first, last + 1)),
            "jobs of a trace": lambda: len((reader.trace("job-30", 0) or {"jobs": []})["jobs"]),
        }
        for name, ask in asked.items():
            until(lambda: forgotten(database), "no scans")
            assert ask() == {"events": 100, "errors": 100}.get(name, 1), name
            until(lambda: touched(database), "the statistics")
            until(
                lambda: not database.query("SELECT FROM pg_stat_activity WHERE application_name = 'wafermon'"),
                "the end",
            )
            kind = "progress" if "jobs" in name else "events"
            looked = {int(one[-1]) for one in touched(database) if one.startswith(kind)}
            assert looked and looked <= {week - 1, week, week + 1, *([5] if "jobs" in name else [])}, (name, looked)
    database.drop()
