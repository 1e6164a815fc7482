"""COPY stores the rows that the statement stores, whatever is in the lines: each example goes both ways, into the same
tables, and what is there then is compared row by row, in both directions (as EXCEPT ALL does)."""

from __future__ import annotations

import json
import os
from collections import Counter
from typing import Any

import psycopg2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from postgres import TABLES, Database, backend, by_copy
from pytest_twisted import ensureDeferred

from wafermon.backends.timescaledb.failures import failure_of
from wafermon.backends.timescaledb.loading import Loader, shaped
from wafermon.backends.timescaledb.statements import KINDS, store
from wafermon.contract import one_of_each
from wafermon.model.messages import TS_MAX, TS_MIN

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "300"))
MOVE = b"UPDATE deliveries SET moved = 'epoch' WHERE sidecar = 'x'"
COMPARED = (*TABLES, "job_states")
TIES = """
    SELECT FROM progress GROUP BY job_id, trace_id, time, coalesce(seq, 0) HAVING count(*) > 1
"""
"""Jobs of which two messages have the same time and number."""

T0 = 1_795_500_000_000_000
TEXTS = st.one_of(
    st.text(max_size=12),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
    st.sampled_from([
        "", "\0", "a\0b", "\ud83d", "\ude80\ud83d", "\\u0000", "\\", '"', "\n\t\r\b\f\x7f\x1f", "é", "😀", "\u2028", "NaN", "null",
        "$w$", "\\N", "\\.", "'; DROP TABLE events; --", "x" * 300, "-Infinity", "wafermon",
    ]),
)  # fmt: skip
NUMBERS = st.one_of(
    st.integers(-10, 10), st.integers(), st.floats(), st.integers(0, 2**53),
    st.sampled_from([2**53, 2**53 + 1, 2**63, 2**64, -(2**63), 10**400, 1e308, 5e-324, 2.2e-308, -0.0, 0.1, 1e22, 1e23, 123456.789]),
)  # fmt: skip
STAMPS = st.one_of(
    st.integers(T0, T0 + 10**9), st.sampled_from([TS_MIN, TS_MAX, TS_MIN - 1, 0, 1, -1, 2**53, 2**53 + 1, 2**62, 2**63, -(2**63)])
)  # fmt: skip
LEAVES = st.one_of(st.none(), st.booleans(), TEXTS, NUMBERS)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=8
)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"k": [value]}
    return value


OBJECTS = st.one_of(
    st.dictionaries(TEXTS, VALUES, max_size=4), st.sampled_from([{}, nested(15), nested(120), {"a": 10**400, "b": 1.5}])
)
LAWFUL: dict[str, st.SearchStrategy[Any]] = {
    "ts": st.integers(TS_MIN, TS_MAX), "service": st.sampled_from(["a", "b", "wafermon"]), "host": TEXTS, "pid": st.integers(0, 2**53),
    "trace_id": st.sampled_from(["job-1", "t"]), "span_id": st.just("00f067aa0ba902b7"), "client": st.just("9f2c6b1d00e4a873"),
    "seq": st.integers(1, 2**53), "truncated": st.booleans(), "level": st.sampled_from(["info", "error"]), "message": TEXTS,
    "context": OBJECTS, "name": TEXTS, "value": NUMBERS | st.sampled_from(["NaN", "Infinity", "-Infinity", "0.5", "1e5"]),
    "unit": TEXTS, "kind": st.sampled_from(["gauge", "counter"]), "tags": OBJECTS, "job_id": st.sampled_from(["job-1", "job-2"]),
    "percent": st.floats(0, 100), "status": st.sampled_from(["ok", "error", "done", "running"]), "cpu": NUMBERS, "mem": NUMBERS,
    "disk": NUMBERS, "net": NUMBERS, "parent_id": st.just("00f067aa0ba902b8"), "start": STAMPS, "duration": NUMBERS,
}  # fmt: skip
NEEDED = {
    "event": ("level", "message"), "metric": ("name", "value"), "progress": ("job_id", "percent"), "resource": (),
    "span_start": ("trace_id", "span_id", "name"), "span_end": ("trace_id", "span_id", "name", "status", "start", "duration"),
}  # fmt: skip


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """One line of JSON that mostly is a message, with whatever in its fields, in any order and layout."""
    kind = draw(st.sampled_from(list(NEEDED)))
    names = draw(st.sets(st.sampled_from(sorted(LAWFUL)), max_size=10)) | {"ts", "service", *NEEDED[kind]}
    fields: list[tuple[str, Any]] = [("type", kind), *((name, draw(LAWFUL[name])) for name in sorted(names))]
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        name = draw(st.sampled_from([*LAWFUL, "type", "unknown", "extra\n"]))
        fields.append((name, draw(STAMPS if name == "ts" else VALUES)))
    fields = draw(st.permutations(fields))
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", " :\r")]))
    ascii_only = draw(st.booleans())

    def text(value: Any) -> str:
        return json.dumps(value, ensure_ascii=ascii_only, separators=separators)

    body = separators[0].join(f"{text(name)}{separators[1]}{text(value)}" for name, value in fields)
    for word in ("NaN", "Infinity", "-Infinity"):  # which Python writes bare, and is no JSON
        body = body.replace(f"{separators[1]}{word}", f"{separators[1]}0")
    return b"{" + body.encode("utf-8", "replace") + b"}\n"


def is_json(line: bytes) -> bool:
    """Whether it is, to the letter: what a journal holds."""

    def bare(word: str) -> Any:
        raise ValueError(word)

    try:
        json.loads(line, parse_constant=bare)
    except ValueError:
        return False
    return True


class Both:
    """The two ways, on two connections to one database."""

    def __init__(self, dsn: str) -> None:
        self.connection = psycopg2.connect(dsn)
        self.connection.autocommit = True
        settings_ = "SET timezone = 'UTC'; SET search_path = public"
        self.loader = Loader({"dsn": dsn}, settings_, 60, 10)
        self.loader.connect()
        with self.connection.cursor() as cursor:
            cursor.execute(settings_)
            cursor.execute("INSERT INTO deliveries (sidecar, backend, writer) VALUES ('x', 'x', 'x')")

    def close(self) -> None:
        self.loader.close()
        self.connection.close()

    def emptied(self) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute(f"TRUNCATE {', '.join(COMPARED)}")

    def rows(self) -> Counter[tuple[str, str]]:
        with self.connection.cursor() as cursor:
            cursor.execute(" UNION ALL ".join(f"SELECT '{table}', x::text FROM {table} AS x" for table in COMPARED))
            found = Counter(cursor.fetchall())
            cursor.execute(TIES)
            if cursor.fetchone() is not None:  # it has no columns; either may be called the latest
                found = Counter({row: count for row, count in found.items() if row[0] != "job_states"})
            return found

    def by_statement(self, raw: bytes, count: int) -> Counter[tuple[str, str]] | None:
        """The rows; None where the server refuses them."""
        self.emptied()
        try:
            with self.connection.cursor() as cursor:
                cursor.execute(store(raw, count, KINDS, MOVE))
        except psycopg2.Error as error:
            assert failure_of(error, "").permanent or error.pgcode == "54001", error
            return None
        return self.rows()

    def by_copy(self, raw: bytes) -> Counter[tuple[str, str]] | None:
        """The rows; None where it goes by the statement after all."""
        self.emptied()
        try:
            assert self.loader.load(shaped(raw), KINDS, MOVE) == 1
        except psycopg2.Error as error:
            assert failure_of(error, "").permanent or error.pgcode == "54001", error
            assert not self.rows()
            return None
        return self.rows()


@given(st.lists(lines().filter(is_json), min_size=1, max_size=8))
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def check(both: Both, given_lines: list[bytes]) -> None:
    raw = b"".join(given_lines)
    copied = both.by_copy(raw)
    if copied is not None:
        assert copied == both.by_statement(raw, len(given_lines))


@ensureDeferred
async def test_the_same_rows(database: Database) -> None:
    by_copy()
    with backend(database) as writer:
        await writer.open()
        await writer.close()
    both = Both(database.dsn)
    try:
        check(both)
        raw = b"".join(line + b"\n" for line in one_of_each(1))
        assert shaped(raw).copies
        copied = both.by_copy(raw)
        assert copied is not None and copied == both.by_statement(raw, raw.count(b"\n"))
        assert {table for table, _ in copied} == set(COMPARED)
    finally:
        both.close()
