"""Lines as rows for COPY: what is taken, what is left to the statement, and that nothing is lost or read beyond its end.

Whether the rows are those that the statement makes is seen on a server: tests/databases/test_timescaledb_same_rows.py."""

from __future__ import annotations

import json
import os
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wafermon.backends.timescaledb.loading import AVAILABLE, shaped
from wafermon.backends.timescaledb.statements import TABLES

if AVAILABLE:
    from wafermon.backends.timescaledb._rows import COLUMNS, shape
elif os.environ.get("CI"):
    pytest.fail("wafermon.backends.timescaledb._rows is not built: it needs a C compiler and python3-dev")
else:
    pytest.skip("wafermon.backends.timescaledb._rows is not built", allow_module_level=True)

EVENT = {"type": "event", "ts": 1_795_500_000_000_000, "service": "s", "level": "info", "message": "m"}
SPAN = {"ts": 1_795_500_000_000_000, "service": "s", "trace_id": "t", "span_id": "0" * 16, "name": "n"}


def encoded(*messages: dict[str, Any], **how: Any) -> bytes:
    return b"".join(json.dumps(message, **how).encode() + b"\n" for message in messages)


def rows(data: bytes) -> list[list[bytes | None]]:
    """COPY's binary form, read by its description in PostgreSQL's manual."""
    assert data[:19] == b"PGCOPY\n\xff\r\n\0" + bytes(8)
    at, found = 19, []
    while (count := struct.unpack_from("!h", data, at)[0]) != -1:
        at += 2
        row: list[bytes | None] = []
        for _ in range(count):
            [length] = struct.unpack_from("!i", data, at)
            at += 4
            row.append(None if length < 0 else data[at : at + length])
            at += max(length, 0)
        found.append(row)
    assert at + 2 == len(data)
    return found


def taken(raw: bytes) -> dict[str, dict[str, bytes | None]]:
    """Of each type the first row, by column."""
    found = shape(raw)
    return {
        kind: dict(zip(COLUMNS[kind], rows(data)[0], strict=True))
        for kind, (data, count) in found.items()
        if kind in COLUMNS and count
    }


def test_the_columns_are_those_of_the_statement() -> None:
    for kind, columns in COLUMNS.items():
        assert set(columns) == set(TABLES[kind].columns)


def test_an_event() -> None:
    message = {**EVENT, "pid": 7, "seq": 2**53, "truncated": True, "context": {"a": [1, "}"]}, "more": {"level": 1}}
    row = taken(encoded(message))["event"]
    assert row["time"] == struct.pack("!q", 1_795_500_000_000_000 - 946_684_800_000_000)
    assert (row["service"], row["level"], row["message"]) == (b"s", b"info", b"m")
    assert (row["pid"], row["seq"], row["truncated"]) == (struct.pack("!q", 7), struct.pack("!q", 2**53), b"\x01")
    assert row["context"] == b"\x01" + json.dumps({"a": [1, "}"]}).encode()
    assert row["host"] is None and row["trace_id"] is None


@pytest.mark.parametrize(
    "value", [0, -0.0, 1, 0.1, -1.5, 123456789012345, 1e22, 1e-300, 5e-300, 1 / 3, 2**53 + 2, 1e23]
)
def test_numbers_are_rounded_as_python_rounds_them(value: float) -> None:
    row = taken(encoded({**EVENT, "type": "metric", "name": "n", "value": value}))["metric"]
    assert row["value"] == struct.pack("!d", value)
    assert row["kind"] == b"gauge"


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(["%r", "%.17g", "%e", "%.30f"]))
def test_any_number(value: float, form: str) -> None:
    text = form % value
    raw = encoded({**EVENT, "type": "metric", "name": "n", "value": "@"}).replace(b'"@"', text.encode())
    found = taken(raw)
    assert not found or found["metric"]["value"] == struct.pack("!d", float(text))


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=50), st.booleans())
def test_any_text(text: str, escaped: bool) -> None:
    row = taken(encoded({**EVENT, "message": text, "context": {text: text}}, ensure_ascii=escaped))["event"]
    assert row["message"] == text.encode()
    assert json.loads((row["context"] or b"")[1:]) == {text: text}


@pytest.mark.parametrize("line", [
    b"{}", b"", b"[]", b"null", b'{"type":"event"}', b'{"type":5}', b"{" * 1000, b"\xff", b'{"type":"event",}',
    encoded({**EVENT, "service": "wafermon"})[:-1], encoded({**EVENT, "type": "stats"})[:-1],
    encoded({**EVENT, "type": "progress", "job_id": "j\\", "percent": 1})[:-1],
    encoded({**EVENT, "type": "trace"})[:-1],
    encoded({**EVENT, "message": None})[:-1], encoded({**EVENT, "message": 5})[:-1], encoded({**EVENT, "context": []})[:-1],
    encoded({**EVENT, "pid": 1.5})[:-1], encoded({**EVENT, "pid": "1"})[:-1], encoded({**EVENT, "pid": 10**18})[:-1],
    encoded({**EVENT, "ts": -1})[:-1], encoded({**EVENT, "ts": 2**53 + 1})[:-1], encoded({**EVENT, "truncated": 1})[:-1],
    encoded(EVENT)[:-1].replace(b'"m"', rb'"\u0000"'), encoded(EVENT)[:-1].replace(b'"m"', rb'"\ud83d"'),
    encoded(EVENT)[:-1].replace(b'"m"', rb'"\ude80\ud83d"'), encoded(EVENT)[:-1].replace(b'"m"', b'"\t"'),
    encoded(EVENT)[:-1].replace(b'"m"', rb'"\x"'), encoded(EVENT)[:-1].replace(b'"m"', rb'"\u00g0"'),
    encoded(EVENT)[:-1].replace(b'"level"', rb'"\u006cevel"'), encoded(EVENT)[:-1] + b"}", encoded(EVENT)[:-2],
    encoded({**EVENT, "x": {"y": "@"}})[:-1].replace(b"@", rb"\u0000"),
    encoded({**EVENT, **{f"f{n}": n for n in range(70)}})[:-1],
    encoded({**EVENT, "type": "metric", "name": "n", "value": "fast"})[:-1],
    encoded({**EVENT, "type": "metric", "name": "n", "value": "@"})[:-1].replace(b'"@"', b"1e-400"),
    encoded({**EVENT, "type": "metric", "name": "n", "value": "@"})[:-1].replace(b'"@"', b"1e400"),
    encoded({**EVENT, "type": "metric", "name": "n", "value": "@"})[:-1].replace(b'"@"', b"01"),
    encoded({**EVENT, "type": "metric", "name": "n", "value": "@"})[:-1].replace(b'"@"', b"NaN"),
    encoded({**SPAN, "type": "span_end", "status": "ok", "start": 1, "duration": 5e-324})[:-1],
])  # fmt: skip
def test_what_is_left_to_the_statement(line: bytes) -> None:
    good = encoded(EVENT)
    found = shape(good + line + b"\n" + good)
    assert found["rest"] == (line + b"\n", 1)
    assert found["event"][1] == 2 and len(rows(found["event"][0])) == 2


def test_of_two_fields_of_one_name_the_last_one_counts() -> None:
    twice = encoded(EVENT).replace(b'"level": "info"', b'"level": "info", "level": "error"')
    assert taken(twice)["event"]["level"] == b"error"
    assert "span_start" in taken(encoded({**SPAN, "type": "event"}).replace(b"}", b', "type": "span_start"}'))


def progress(seq: int | None, ts: int, job: str = "j", **fields: Any) -> dict[str, Any]:
    number = {} if seq is None else {"seq": seq}
    return {**EVENT, "type": "progress", "ts": ts, "job_id": job, "trace_id": "t", "percent": ts, **number, **fields}


def test_progress_is_added_up_by_job() -> None:
    """By time and then by number, in whatever order it comes; what has no number is before what has one."""
    said = [
        progress(3, 20, status="running"), progress(9, 10, status="begun"), progress(4, 20, service="x"), progress(None, 20),
        progress(1, 15, job="k"), {**progress(1, 16, job="k"), "trace_id": "u"},
    ]  # fmt: skip
    found = shape(encoded(*said))
    jobs = {(job["job_id"], job["trace_id"]): job for job in map(json.loads, found["jobs"][0].splitlines())}
    assert found["progress"][1] == 6 and found["jobs"][1] == 3
    assert jobs["j", "t"] == {
        "job_id": "j", "trace_id": "t", "first": 10, "last": 20, "last_seq": 4, "percent": 20, "service": "x",
        "status": "running", "status_time": 20, "status_seq": 3, "messages": 4,
    }  # fmt: skip
    assert jobs["k", "t"]["last"] == 15 and jobs["k", "u"]["status"] is None


def test_more_jobs_than_are_added_up_are_left_to_the_statement() -> None:
    raw = encoded(*(progress(n, n, job=f"job-{n % 1500}") for n in range(1, 3001)))
    found = shape(raw)
    assert found["jobs"][1] == 1024 and found["progress"][1] + found["rest"][1] == 3000
    assert found["rest"][1] == 2 * (1500 - 1024)


def test_lines_without_a_newline_at_the_end() -> None:
    with pytest.raises(ValueError, match="newline"):
        shape(b"{}")
    assert shape(b"") == {"rest": (b"", 0), "jobs": (b"", 0)}


@given(st.lists(st.sampled_from(["event", "metric", "resource", "span_start", "progress", "odd"]), max_size=30))
def test_every_line_is_somewhere(kinds: list[str]) -> None:
    made = {
        "event": EVENT, "metric": {**EVENT, "type": "metric", "name": "n", "value": 1}, "resource": {**EVENT, "type": "resource"},
        "span_start": {**SPAN, "type": "span_start"}, "odd": {**EVENT, "pid": None},
        "progress": {**EVENT, "type": "progress", "job_id": "j", "percent": 1},
    }  # fmt: skip
    raw = encoded(*(made[kind] for kind in kinds))
    assert shaped(raw).count == len(kinds)
    assert shaped(raw).rest_count == kinds.count("odd")


LINES = encoded(
    {**EVENT, "context": {"k": ['a\\"b', {"x": 1.5e10}], "\u20ac": None}, "trace_id": "t"},
    {**EVENT, "type": "metric", "name": "n", "value": -1.25e-7, "tags": {"a": "b"}},
    {**SPAN, "type": "span_end", "status": "ok", "start": 1, "duration": 1.5, "parent_id": "0" * 16},
    {**EVENT, "type": "progress", "job_id": "job-1", "percent": 1.5, "status": "a", "seq": 4, "trace_id": "t"},
)


@given(st.lists(st.tuples(st.integers(0, len(LINES) - 1), st.binary(max_size=3), st.integers(0, 4)), max_size=6))
@settings(max_examples=int(os.environ.get("FUZZ_EXAMPLES", "400")), deadline=None)
def test_damaged_lines_do_no_harm(changes: list[tuple[int, bytes, int]]) -> None:
    """What is taken of them is well formed, and what is left is as it was. (`make rows` runs it with a sanitizer.)"""
    damaged = bytearray(LINES)
    for at, inserted, removed in changes:
        damaged[at : at + removed] = inserted
    raw = bytes(damaged) + b"\n"
    found = shape(raw)
    count = 0
    for kind, (data, number) in found.items():
        if kind in COLUMNS:
            assert len(rows(data)) == number
        count += number if kind != "jobs" else 0
    assert count == raw.count(b"\n")
    left = found["rest"][0].split(b"\n")
    assert set(left) <= set(raw.split(b"\n"))
