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
from postgres import TABLES, Database, backend
from pytest_twisted import ensureDeferred

from wafermon.backends.timescaledb import timescaledb
from wafermon.backends.timescaledb.schema import HYPERTABLES
from wafermon.contract import CLIENT, JOURNAL, BackendContract, batch, line
from wafermon.interfaces import Position

DSN = os.environ.get("WAFERMON_TEST_TIMESCALEDB_DSN", "")
START = Position(JOURNAL, 1, 0)
extension = pytest.mark.skipif(not DSN, reason="WAFERMON_TEST_TIMESCALEDB_DSN names no server with the extension")


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


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.query(f"DROP SCHEMA IF EXISTS {server.schema} CASCADE")


@extension
class TestContract(BackendContract):
    factory = timescaledb

    @pytest.fixture(autouse=True)
    def _server(self, server: Server) -> None:
        self.server = server

    def options(self) -> dict[str, Any]:
        return {"dsn": DSN, "schema": self.server.schema, "keep": "36500d", "compress_after": "7d"}

    def read_back(self) -> Iterable[tuple[str, int]]:
        tables = [f"{self.server.schema}.{table}" for table in TABLES]
        if not self.server.query(f"SELECT 1 FROM pg_namespace WHERE nspname = '{self.server.schema}'"):
            return []
        return self.server.query(" UNION ALL ".join(f"SELECT client, seq FROM {table}" for table in tables))


@extension
@ensureDeferred
async def test_the_tables_are_hypertables_with_policies(server: Server) -> None:
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
async def test_late_rows_go_into_compressed_chunks(server: Server) -> None:
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
