"""The timescaledb backend on a real PostgreSQL: the contract, and what stands in which column."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager
from datetime import datetime, timezone
from typing import Any

import pytest
from daemon import ROOT
from postgres import Database, backend
from pytest_twisted import ensureDeferred

from wafermon.backends.timescaledb import timescaledb
from wafermon.backends.timescaledb.statements import clean, store
from wafermon.contract import CLIENT, JOURNAL, BackendContract, batch, line, one_of_each
from wafermon.interfaces import Position, configure
from wafermon.model.errors import ConfigError
from wafermon.model.messages import TS_MAX, TS_MIN, dumps

pytestmark = pytest.mark.usefixtures("way")


class TestContract(BackendContract):
    factory = timescaledb

    @pytest.fixture(autouse=True)
    def _database(self, database: Database) -> None:
        self.database = database

    def options(self) -> dict[str, Any]:
        return {"dsn": self.database.dsn}

    def read_back(self) -> Iterable[tuple[str, int]]:
        return self.database.stored()

    def unreachable(self) -> AbstractContextManager[None]:
        return self.database.server.down()

    def poison(self, seq: int) -> bytes:
        """The parser takes it as 0; PostgreSQL says that it is out of range."""
        return line(seq, type="metric", name="x", value=1).replace(b'"value":1', b'"value":1e-400')


TS = 1_795_500_000_123_457
"""2026-11-24 06:00:00.123457 UTC"""


async def stored(database: Database, lines: Iterable[bytes], **options: Any) -> None:
    """Have the backend write these lines."""
    with backend(database, **options) as writer:
        await writer.open()
        await writer.write(batch(Position(JOURNAL, 1, 0), lines))
        await writer.close()


@ensureDeferred
async def test_an_event(database: Database) -> None:
    context = {"file": "größe \\ \" ' $$ %s.csv", "nested": {"deep": [1, None, True]}}
    await stored(
        database, [line(7, ts=TS, context=context, trace_id="job-1", span_id="00f067aa0ba902b7", truncated=True)]
    )
    [row] = database.query(
        "SELECT time, service, host, pid, trace_id, span_id, client, seq, truncated, level, message, context FROM events"
    )
    when = datetime(2026, 11, 24, 6, 0, 0, 123457, timezone.utc)
    assert row == (
        when, "queue-service", "fab1", 4711, "job-1", "00f067aa0ba902b7", CLIENT, 7, True, "info", "wafer 7", context,
    )  # fmt: skip


@ensureDeferred
async def test_what_is_absent_is_null(database: Database) -> None:
    bare = {"type": "event", "ts": TS, "service": "s", "level": "info", "message": ""}
    await stored(database, [dumps(bare).encode()])
    row = database.query("SELECT host, pid, trace_id, span_id, client, seq, truncated, context FROM events")
    assert row == [(None,) * 8]


@ensureDeferred
async def test_metrics(database: Database) -> None:
    values = [0.1, -1e300, 5e-324, 2**53, 1e22, "NaN", "Infinity", "-Infinity"]
    lines = [line(n, type="metric", name="rate", value=value) for n, value in enumerate(values, 1)]
    lines += [line(9, type="metric", name="n", value=1, unit="1/s", kind="counter", tags={"tool": "x", "n": 1.5})]
    await stored(database, lines)
    found = [value for (value,) in database.query("SELECT value FROM metrics WHERE name = 'rate' ORDER BY seq")]
    assert list(map(repr, found)) == [repr(float(value)) for value in values]  # type: ignore[arg-type]
    assert database.query("SELECT unit, kind, tags FROM metrics ORDER BY seq LIMIT 1") == [(None, "gauge", None)]
    [row] = database.query("SELECT unit, kind, tags FROM metrics WHERE name = 'n'")
    assert row == ("1/s", "counter", {"tool": "x", "n": 1.5})


@ensureDeferred
async def test_the_other_types(database: Database) -> None:
    ids = {"trace_id": "job-1", "span_id": "00f067aa0ba902b7"}
    await stored(database, [
        line(1, type="progress", job_id="job-1", trace_id="job-1", percent=42.5, status="running"),
        line(2, type="resource", cpu=12.5, mem=1 << 40, disk=3),
        line(3, type="span_start", name="load", parent_id="00f067aa0ba902b8", tags={"a": 1}, **ids),
        line(4, type="span_end", name="load", status="error", start=TS, duration=1500.5, tags={"a": 1}, **ids),
    ])  # fmt: skip
    assert database.query("SELECT job_id, percent, status FROM progress") == [("job-1", 42.5, "running")]
    assert database.query("SELECT cpu, mem, disk, net FROM resources") == [(12.5, float(1 << 40), 3.0, None)]
    assert database.query("SELECT name, parent_id, tags FROM span_starts") == [("load", "00f067aa0ba902b8", {"a": 1})]
    [row] = database.query("SELECT name, parent_id, status, start, duration, tags FROM spans")
    assert row == ("load", None, "error", datetime(2026, 11, 24, 6, 0, 0, 123457, timezone.utc), 0.0015005, {"a": 1})


@ensureDeferred
async def test_times_are_exact_from_2000_to_2200(database: Database) -> None:
    stamps = [TS_MIN, TS_MAX, *(random.Random(1).randint(TS_MIN, TS_MAX) for _ in range(2000))]
    await stored(database, [line(n, ts=ts) for n, ts in enumerate(stamps, 1)])
    assert [
        int(value) for (value,) in database.query("SELECT extract(epoch FROM time) * 1000000 FROM events ORDER BY seq")
    ] == stamps


@ensureDeferred
async def test_a_field_that_only_other_types_have_may_hold_anything(database: Database) -> None:
    await stored(database, [
        line(1, value="fast", start={"a": 1}, percent=[1], tags=3, services="all", part="one"),
        *one_of_each(2),
    ])  # fmt: skip
    assert len(database.stored()) == 14


@ensureDeferred
async def test_of_two_fields_of_one_name_the_last_one_counts(database: Database) -> None:
    twice = line(1).replace(b'"level":"info"', b'"level":"info","level":"error"')
    await stored(database, [twice])
    assert database.query("SELECT level FROM events") == [("error",)]


@pytest.mark.parametrize(("escape", "kept"), [
    (r"\u0000", "�"), (r"\ud800", "�"), (r"\uDFFF", "�"), (r"\ud800\ud800", "��"), (r"\udc00\ud83d", "��"),
    (r"\ud83d\ude80", "🚀"), (r"\ud83d\ude80\ude80", "🚀�"), (r"\\u0000", r"\u0000"), (r"\\\u0000", "\\�"),
    (r"\\ud800", r"\ud800"), (r"\\\\ud800", r"\\ud800"), (r"\u00e9\u2028\n", "é\u2028\n"), (r"\ud83dx\u0000", "�x�"),
])  # fmt: skip
@ensureDeferred
async def test_escapes_that_postgresql_refuses(database: Database, escape: str, kept: str) -> None:
    odd = line(1, message="@", context={"@": "@"}).replace(b"@", escape.encode())
    raw = clean(odd + b"\n")
    await stored(database, [line(2)])
    # No parser of ours takes these, so that they can't come by a batch: the statement alone is tried.
    move = b"UPDATE deliveries SET moved = now()"
    assert database.query(store(raw, 1, {"event"}, move).decode()) == [(1,)]
    assert database.query("SELECT message, context FROM events WHERE seq = 1") == [(kept, {kept: kept})]


@ensureDeferred
async def test_sql_in_a_message_stays_a_message(database: Database) -> None:
    text = "'; DROP TABLE events; -- $$ $w$ $1 %s \\'"
    await stored(database, [line(1, message=text, service="s", host=text)])
    assert database.query("SELECT message, host FROM events") == [(text, text)]


class TestTraces:
    """One row per trace, added up over its parts."""

    @staticmethod
    def part(n: int, **fields: Any) -> bytes:
        body = {
            "v": 2, "type": "trace", "ts": TS + n, "service": "wafermon", "client": CLIENT, "trace_id": "job-1", "first": TS,
            "last": TS + 10 * n, "services": ["a", "b"], "counts": {"event": 3, "level.error": 1}, "errors": 1,
            "status": "done", "part": n,
        }  # fmt: skip
        return dumps(body | fields).encode()

    async def row(self, database: Database, *batches: list[bytes]) -> dict[str, Any]:
        with backend(database) as writer:
            await writer.open()
            at = Position(JOURNAL, 1, 0)
            for lines in batches:
                next_batch = batch(at, lines)
                await writer.write(next_batch)
                at = next_batch.end
            await writer.close()
        names = ("first", "last", "services", "counts", "errors", "status", "part")
        [row] = database.query(f"SELECT {', '.join(names)} FROM traces WHERE trace_id = 'job-1'")
        return dict(zip(names, row, strict=True))

    @ensureDeferred
    async def test_one_part(self, database: Database) -> None:
        row = await self.row(database, [self.part(1)])
        assert row == {
            "first": datetime(2026, 11, 24, 6, 0, 0, 123457, timezone.utc),
            "last": datetime(2026, 11, 24, 6, 0, 0, 123467, timezone.utc),
            "services": ["a", "b"], "counts": {"event": 3, "level.error": 1}, "errors": 1, "status": "done", "part": 1,
        }  # fmt: skip

    @pytest.mark.parametrize("together", [True, False])
    @ensureDeferred
    async def test_parts_are_added(self, database: Database, together: bool) -> None:
        lines = [
            self.part(1, trace_id="job-2"),
            self.part(1, status="failed"),
            self.part(2, services=["b", "c"], counts={"event": 1, "metric": 5}, errors=0, status="idle"),
        ]
        row = await self.row(database, *([lines] if together else [[one] for one in lines]))
        assert row["services"] == ["a", "b", "c"]
        assert row["counts"] == {"event": 4, "level.error": 1, "metric": 5}
        assert (row["errors"], row["status"], row["part"]) == (1, "failed", 2)
        assert row["last"] == datetime(2026, 11, 24, 6, 0, 0, 123477, timezone.utc)
        assert database.one("SELECT count(*) FROM traces") == 2

    @pytest.mark.parametrize(("first", "second", "sum_"), [
        ("idle", "done", "done"), ("done", "idle", "done"), ("failed", "done", "failed"), ("done", "cancelled", "cancelled"),
        ("idle", "idle", "idle"),
    ])  # fmt: skip
    @ensureDeferred
    async def test_statuses(self, database: Database, first: str, second: str, sum_: str) -> None:
        row = await self.row(database, [self.part(1, status=first)], [self.part(2, status=second)])
        assert row["status"] == sum_


def test_faults_are_named_all_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        configure(timescaledb, {
            "dsn": "host=x bogus=1", "schema": "Wafer-mon", "keep": "long", "compress_after": 1, "chunk": 0,
            "dns": "x", "password_file": 3,
        })  # fmt: skip
    found = {fault.path: fault.problem for fault in caught.value.faults}
    assert set(found) == {"dsn", "schema", "keep", "chunk", "dns", "password_file"}
    assert "bogus" in found["dsn"] and "did you mean 'dsn'?" in found["dns"]


@pytest.mark.parametrize(("options", "path"), [
    ({}, "dsn"),
    ({"dsn": "password=x", "password_file": "y"}, "password_file"),
    ({"dsn": "host=x", "keep": "1d", "compress_after": "2d"}, "compress_after"),
    ({"dsn": "connect_timeout=soon"}, "dsn"),
])  # fmt: skip
def test_faults(options: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configure(timescaledb, options)
    assert [fault.path for fault in caught.value.faults] == [path]


def test_without_its_libraries_it_says_what_to_install() -> None:
    code = """
import sys
class Blind:
    def __init__(self, finder): self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name in ("psycopg2", "txpostgres") else self.finder.find_spec(name, path, target)
sys.meta_path[:] = map(Blind, sys.meta_path)
from wafermon.backends import find_plugins
from wafermon.interfaces import ConfigError, configure
found = find_plugins()
assert not found.broken, found.broken
try:
    configure(found.factories["timescaledb"], {"dsn": "host=x"})
except ConfigError as error:
    print(error)
"""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environ)
    assert done.stdout == "plugin: needs psycopg2 and txpostgres: pip install 'wafermon[timescaledb]'\n", done.stderr


def test_no_password_is_shown() -> None:
    options = configure(timescaledb, {"dsn": "postgresql://me:secret@db.fab:5433/wafers"})
    assert options.target == "wafers at db.fab:5433"
