"""With the TimescaleDB extension, on a server that `WAFERMON_TEST_TIMESCALEDB_DSN` names (a superuser's, with the extension
installed); and what is said where a build of it lacks something, or where it is not there at all."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

import psycopg2
import pytest
from daemon import until
from postgres import TABLES, Database, backend
from pytest_twisted import ensureDeferred

from wafermon.backends.timescaledb import timescaledb
from wafermon.backends.timescaledb.schema import HYPERTABLES
from wafermon.contract import CLIENT, JOURNAL, BackendContract, batch, line
from wafermon.interfaces import Position, configure

DSN = os.environ.get("WAFERMON_TEST_TIMESCALEDB_DSN", "")
START = Position(JOURNAL, 1, 0)
extension = pytest.mark.skipif(not DSN, reason="WAFERMON_TEST_TIMESCALEDB_DSN names no server with the extension")


@pytest.fixture(scope="session")
def license() -> str:
    """What the build of the extension may do: ``timescale``, or ``apache``, which has no policies and no compression."""
    connection = psycopg2.connect(DSN)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
            cursor.execute("SELECT current_setting('timescaledb.license', true)")
            return str((cursor.fetchone() or ("",))[0])
    finally:
        connection.close()


@pytest.fixture
def policies(license: str) -> None:
    """Skips where the build has none."""
    if license != "timescale":
        pytest.skip(f"this build's license is {license!r}: it has no policies and no compression")


@ensureDeferred
async def test_without_the_extension_it_is_said_what_has_no_effect(database: Database) -> None:
    with backend(database, keep="90d", compress_after="7d") as writer:
        await writer.open()
        assert writer.health().state == "ok"
        assert writer.health().detail == "without the timescaledb extension keep and compress_after have no effect"
    with backend(database) as writer:
        await writer.open()
        assert writer.health().detail == ""


@ensureDeferred
async def test_an_extension_that_has_nothing_is_told_and_does_no_harm(database: Database) -> None:
    database.query(
        "SET allow_system_table_mods = on; INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable,"
        " extversion) VALUES (99999, 'timescaledb', 10, 'public'::regnamespace, false, '0.0')"
    )
    with backend(database, keep="90d", compress_after="7d") as writer:
        await writer.open()
        detail = writer.health().detail
        assert detail.startswith(
            "TimescaleDB 0.0 does not do all that the config asks for: function create_hypertable("
        )
        assert "add_retention_policy" in detail or "remove_retention_policy" in detail
        await writer.write(batch(START, [line(1)]))
    assert database.stored() == [(CLIENT, 1)]


@ensureDeferred
async def test_what_of_timescaledb_fails_is_said_by_health_and_doctor(database: Database) -> None:
    """Read from the views that the extension has, which here are tables of the same columns."""
    with backend(database) as writer:
        await writer.open()
        database.query(
            "CREATE SCHEMA timescaledb_information;"
            "CREATE TABLE timescaledb_information.jobs"
            " (job_id int, proc_schema text, proc_name text, hypertable_schema text, hypertable_name text);"
            "CREATE TABLE timescaledb_information.job_stats (job_id int, last_run_status text, total_failures bigint);"
            "INSERT INTO timescaledb_information.jobs VALUES"
            " (1, '_timescaledb_functions', 'policy_compression', 'public', 'events'),"
            " (2, '_timescaledb_functions', 'policy_compression', 'other', 'events'),"
            " (3, 'public', 'forget_summaries', NULL, NULL), (4, '_timescaledb_functions', 'policy_retention', 'public', 'spans');"
            "INSERT INTO timescaledb_information.job_stats VALUES"
            " (1, 'Failed', 12), (2, 'Failed', 1), (3, 'Failed', 2), (4, 'Success', 3)"
        )
        options = configure(timescaledb, {"dsn": database.dsn})
        await writer.open()
        said = "policy_compression of events (12 times), forget_summaries of traces (2 times)"
        assert said in writer.health().detail and writer.health().state == "ok"
        [problem] = timescaledb.examine(options)
        assert said in problem
        database.query("UPDATE timescaledb_information.job_stats SET last_run_status = 'Success'")
        await writer.open()
        assert writer.health().detail == "" and list(timescaledb.examine(options)) == []


@ensureDeferred
async def test_summaries_that_are_old_are_forgotten(database: Database) -> None:
    """The procedure that TimescaleDB calls for `keep`."""
    with backend(database) as writer:
        await writer.open()
    database.query(
        "INSERT INTO traces (time, service, trace_id, first, last, services, counts, errors, status, part)"
        " SELECT t, 'wafermon', t::text, t, t, '{}', '{}', 0, 'done', 1 FROM unnest(ARRAY[now(), now() - interval '100 days']) AS t;"
        "INSERT INTO job_states (job_id, last, stalled) VALUES ('new', now(), NULL), ('old', now() - interval '100 days', NULL),"
        " ('stalled', now() - interval '100 days', now())"
    )
    database.query("""CALL forget_summaries(1, '{"keep": "2160:00:00"}')""")
    assert database.one("SELECT count(*) FROM traces") == 1
    assert database.query("SELECT job_id FROM job_states ORDER BY 1") == [("new",), ("stalled",)]


class Server:
    """The server that is named, with a schema for each test."""

    def __init__(self) -> None:
        self.schema = f"wafermon_{time.time_ns()}"
        self.query("CREATE EXTENSION IF NOT EXISTS timescaledb")

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        connection = psycopg2.connect(DSN)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def jobs(self) -> set[tuple[str, str]]:
        """(table, kind of policy)."""
        found = self.query(
            f"SELECT hypertable_name, proc_name FROM timescaledb_information.jobs WHERE hypertable_schema = '{self.schema}'"
        )
        return {(table, name) for table, name in found}

    def indexes(self) -> set[str]:
        """Those by time that hypertables have."""
        found = self.query(
            f"SELECT indexname FROM pg_indexes WHERE schemaname = '{self.schema}' AND indexname LIKE '%_latest'"
        )
        return {name for (name,) in found}


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.query(f"DROP SCHEMA IF EXISTS {server.schema} CASCADE")


@extension
@pytest.mark.usefixtures("way")
class TestContract(BackendContract):
    factory = timescaledb

    @pytest.fixture(autouse=True)
    def _server(self, server: Server, license: str) -> None:
        self.server = server
        self.license = license

    def options(self) -> dict[str, Any]:
        wishes = {"keep": "36500d", "compress_after": "7d"} if self.license == "timescale" else {}
        return {"dsn": DSN, "schema": self.server.schema, **wishes}

    def read_back(self) -> Iterable[tuple[str, int]]:
        tables = [f"{self.server.schema}.{table}" for table in TABLES]
        if not self.server.query(f"SELECT 1 FROM pg_namespace WHERE nspname = '{self.server.schema}'"):
            return []
        return self.server.query(" UNION ALL ".join(f"SELECT client, seq FROM {table}" for table in tables))


@extension
@ensureDeferred
async def test_an_apache_build_has_hypertables_alone_and_says_so(server: Server, license: str) -> None:
    if license != "apache":
        pytest.skip("this build has all")
    with backend(DSN, schema=server.schema, keep="90d", compress_after="7d") as writer:
        await writer.open()
        assert "does not do all that the config asks for" in writer.health().detail
        await writer.write(batch(START, [line(1)]))
    assert len(server.indexes()) == len(HYPERTABLES)


@extension
@ensureDeferred
async def test_hypertables_have_an_index_by_time_that_is_no_brin(server: Server) -> None:
    with backend(DSN, schema=server.schema) as writer:
        await writer.open()
        await writer.open()
    assert server.indexes() == {f"{table}_latest" for table in HYPERTABLES}
    brin = f"SELECT count(*) FROM pg_indexes WHERE schemaname = '{server.schema}' AND indexdef LIKE '%brin%'"
    assert server.query(brin) == [(0,)]


@extension
@ensureDeferred
async def test_a_policy_that_fails_is_said(server: Server, policies: None) -> None:
    with backend(DSN, schema=server.schema, keep="90d") as writer:
        await writer.open()
        server.query(
            f"CREATE OR REPLACE PROCEDURE {server.schema}.forget_summaries(job_id integer, config jsonb)"
            " LANGUAGE plpgsql AS $$ BEGIN RAISE 'broken'; END $$"
        )
        [(job,)] = server.query(
            "SELECT job_id FROM timescaledb_information.jobs"
            f" WHERE proc_schema = '{server.schema}' AND proc_name = 'forget_summaries'"
        )
        server.query(f"SELECT alter_job({job}, next_start => now())")
        failed = f"SELECT 1 FROM timescaledb_information.job_stats WHERE job_id = {job} AND last_run_status = 'Failed'"
        until(lambda: server.query(failed), "the job's failure")
        await writer.open()
        assert "forget_summaries of traces" in writer.health().detail


@extension
@ensureDeferred
async def test_summaries_are_kept_as_long_as_the_rest(server: Server, policies: None) -> None:
    with backend(DSN, schema=server.schema, keep="90d") as writer:
        await writer.open()
    server.query(
        f"INSERT INTO {server.schema}.traces (time, service, trace_id, first, last, services, counts, errors, status, part)"
        " SELECT t, 'wafermon', t::text, t, t, '{}', '{}', 0, 'done', 1"
        " FROM unnest(ARRAY[now(), now() - interval '100 days']) AS t"
    )
    [(job,)] = server.query(
        "SELECT job_id FROM timescaledb_information.jobs"
        f" WHERE proc_schema = '{server.schema}' AND proc_name = 'forget_summaries'"
    )
    server.query(f"CALL run_job({job})")
    assert server.query(f"SELECT count(*) FROM {server.schema}.traces") == [(1,)]


@extension
@ensureDeferred
async def test_the_tables_are_hypertables_with_policies(server: Server, policies: None) -> None:
    for days in ("90d", "60d"):
        with backend(DSN, schema=server.schema, keep=days, compress_after="7d") as writer:
            await writer.open()
            assert writer.health().detail == ""
    made = server.query(
        f"SELECT hypertable_name FROM timescaledb_information.hypertables WHERE hypertable_schema = '{server.schema}'"
    )
    assert {name for (name,) in made} == set(HYPERTABLES)
    assert server.jobs() == {
        (table, kind) for table in HYPERTABLES for kind in ("policy_retention", "policy_compression")
    }
    dropped = server.query(
        "SELECT DISTINCT config ->> 'drop_after' FROM timescaledb_information.jobs"
        f" WHERE hypertable_schema = '{server.schema}' AND proc_name = 'policy_retention'"
    )
    assert len(dropped) == 1


@extension
@ensureDeferred
async def test_a_start_leaves_policies_alone_that_are_what_the_config_says(server: Server, policies: None) -> None:
    """Those that are made anew run at once, and whether they failed before is forgotten."""
    jobs = (
        "SELECT job_id, proc_name FROM timescaledb_information.jobs"
        f" WHERE coalesce(hypertable_schema, proc_schema) = '{server.schema}' ORDER BY 1"
    )
    made = []
    for keep, compress_after in (("90d", "7d"), ("90d", "7d"), ("60d", "7d"), ("60d", "6d")):
        with backend(DSN, schema=server.schema, keep=keep, compress_after=compress_after) as writer:
            await writer.open()
            assert writer.health().detail == ""
        made.append({name: {job for job, of in server.query(jobs) if of == name} for _, name in server.query(jobs)})
    assert made[0] == made[1]
    assert {name for name in made[1] if made[1][name] != made[2][name]} == {"policy_retention", "forget_summaries"}
    assert {name for name in made[2] if made[2][name] != made[3][name]} == {"policy_compression"}


@extension
@pytest.mark.usefixtures("way")
@ensureDeferred
async def test_late_rows_go_into_compressed_chunks(server: Server, policies: None) -> None:
    with backend(DSN, schema=server.schema, compress_after="7d") as writer:
        await writer.open()
        first = batch(START, map(line, range(1, 1001)))
        await writer.write(first)
        server.query(f"SELECT compress_chunk(chunk) FROM show_chunks('{server.schema}.events') AS chunk")
        await writer.open()
        await writer.write(batch(first.end, map(line, range(1001, 2001))))
    assert server.query(f"SELECT count(*), count(DISTINCT seq) FROM {server.schema}.events") == [(2000, 2000)]


@extension
@ensureDeferred
async def test_tables_with_rows_become_hypertables_when_the_extension_comes(server: Server) -> None:
    name = f"plain_{time.time_ns()}"
    server.query(f"CREATE DATABASE {name} TEMPLATE template0")
    separator = "&" if "?" in DSN else "?"
    dsn = f"{DSN}{separator}dbname={quote(name)}" if "://" in DSN else f"{DSN} dbname={name}"
    try:
        with backend(dsn) as writer:
            await writer.open()
            await writer.write(batch(START, map(line, range(1, 101))))
            connection = psycopg2.connect(dsn)
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("CREATE EXTENSION timescaledb")
            connection.close()
            await writer.open()
            assert writer.health().detail == ""
        connection = psycopg2.connect(dsn)
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM events")
            assert cursor.fetchone() == (100,)
            cursor.execute("SELECT count(*) FROM show_chunks('events')")
            [chunks] = cursor.fetchone() or (0,)
            assert chunks >= 1
        connection.close()
    finally:
        server.query(f"DROP DATABASE {name} WITH (FORCE)")
