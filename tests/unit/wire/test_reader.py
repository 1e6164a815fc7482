"""Whole blocks: each line has the answer that it has by itself, whatever its neighbours are."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from columns import check
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from sent_lines import BAD, GOOD, NOW, ORIGIN, event, line, nested

from wafermon.model.messages import Message, decode_all
from wafermon.wire import reader as wire_reader
from wafermon.wire import scanned as scan_reader
from wafermon.wire.lines import LineError, LineReader, Origin
from wafermon.wire.reader import BlockReader
from wafermon.wire.scanned import ScannedReader, compiled

Reader = BlockReader | ScannedReader
Answer = tuple[bytes, Message] | tuple[str, str, str | None, int | None]
BARE = Origin("bare", "somewhere", 4711)
NAMELESS = Origin()
REFUSED = ("unauthorized", "not yours")


def unless_allowed(service: str) -> tuple[str, str] | None:
    return REFUSED if service == "forbidden" else None


def one_by_one(lines: list[bytes], origin: Origin) -> list[Answer]:
    """The answer of the exact way to each line."""
    answers: list[Answer] = []
    for data in lines:
        try:
            stored, message = LineReader(origin).read_line(data, NOW)
            if unless_allowed(message.service or ""):
                raise LineError(*REFUSED, message.client or None, message.seq or None)
            answers.append((stored, message))
        except LineError as error:
            answers.append((error.code, error.detail, error.client, error.seq))
    return answers


def at_once(lines: list[bytes], reader: Reader, most: int = wire_reader.ALL) -> list[Answer]:
    """The answer to each line of a block, up to where it was read."""
    read = reader.read(b"".join(data + b"\n" for data in lines), NOW, most)
    block = read.block
    count = block.count + len(read.refused)
    assert read.size == sum(len(data) + 1 for data in lines[:count])
    assert all(one.line == lines[at] for at, one in read.refused.items())
    assert list(read.refused) == sorted(read.refused)
    assert [number or UNSET for number in read.numbers] == [message.seq for message in block.messages]
    check(block, block.raw)
    good = iter(zip(block.lines, block.messages, strict=True))
    errors = {at: (one.code, one.detail, one.client, one.seq) for at, (_, one) in read.refused.items()}
    return [errors[at] if at in errors else next(good) for at in range(count)]


Make = Callable[[Origin], Reader]


def pure(origin: Origin) -> Reader:
    return BlockReader(origin, unless_allowed)


def scanned(origin: Origin) -> Reader:
    return ScannedReader(compiled(), origin, unless_allowed)


MAKES: list[Make] = [pure, scanned] if compiled() else [pure]
both = pytest.mark.parametrize("make", MAKES)


def progress(**fields: Any) -> bytes:
    return json.dumps({"type": "progress", "job_id": "j-1", "percent": 5, **fields}).encode()


def bare(**fields: Any) -> bytes:
    return json.dumps({"type": "event", "level": "info", "message": "m", **fields}).encode()


ODD = [
    event(colour="blue", nested={"a": [1.50]}),
    event(colour="1e999"),
    event(colour=0).replace(b'"colour": 0', b'"colour": 1e999'),
    event(colour=0).replace(b'"colour": 0', b'"colour":[1E+0400]'),
    event(colour=0).replace(b'"colour": 0', b'"colour":' + b"1" * 400),
    event(colour=0).replace(b'"colour": 0', b'"colour":' + b"1" * 400 + b".0"),
    event(colour=0).replace(b'"colour": 0', b'"colour":' + b"1" * 250 + b"e70"),
    event(colour=0).replace(b'"colour": 0', b'"colour":' + b"1" * 5000),
    event(colour=0).replace(b'"colour": 0', b'"colour":1e-999'),
    event(colour="x").replace(b'"x"', b'"\xff"'),
    event(colour="x").replace(b"colour", b"\xff"),
    event(colour="x").replace(b'"x"', rb'"\u0000"'),
    event(colour="x").replace(b'"x"', rb'"\\u0000"'),
    event(colour="x").replace(b"colour", rb"\u0000"),
    event(colour="x").replace(b'"x"', rb'"\ud800"'),
    event(colour="x").replace(b'"x"', nested(33).encode()),
    event(colour="x").replace(b'"x"', nested(31, "[", "]").encode()),
    event(context={"x": "[" * 50}),
    event(context={"x": [{}] * 50}),
    event(context={"x": "ü\U0001f680"}, colour="ü"),
    b'{"type":"metric",' + event()[1:],
    b'{"type":"event","type":"metric","name":"n","value":1,"service":"s","ts":1795500000000000}',
    b'{"level":"loud",' + event(level="error")[1:],
    event(service="forbidden"),
    event(service="forbidden", client="0" * 16),
    b" " + event(),
    b'\t{ "type":"event", "level":"info", "message":"m" }\r',
    bare(),
    bare(ts=NOW),
    bare(service="svc", ts=NOW, client="0" * 16),
    bare(pid=7),
    bare(service="forbidden"),
    bare(ts=None),
    bare(colour="blue"),
    progress(),
    progress(ts=NOW, service="s", host="h", pid=0),
    progress(trace_id="t"),
    progress(job_id="a b"),
    progress(job_id="a b", trace_id="t"),
    progress(job_id=None),
    bare(message="e9999", context={"a": "1e12345"}),
]
LINES = [case[1] for case in BAD] + GOOD + ODD
ORIGINS = [ORIGIN, BARE, NAMELESS, Origin(service="forbidden"), Origin(client="9f2c9f2c9f2c9f2c", numbered=True)]
lines = st.lists(st.sampled_from([one for one in LINES if len(one) < 10_000]), min_size=1, max_size=30)


@both
@pytest.mark.parametrize("origin", ORIGINS, ids=range(len(ORIGINS)))
def test_each_line_has_the_answer_that_it_has_alone(make: Make, origin: Origin) -> None:
    for data in LINES:
        assert at_once([data], make(origin)) == one_by_one([data], origin)


@both
@pytest.mark.parametrize("origin", ORIGINS, ids=range(len(ORIGINS)))
def test_neighbours_change_nothing(make: Make, origin: Origin) -> None:
    assert at_once(LINES, make(origin)) == one_by_one(LINES, origin)


@given(st.sampled_from(MAKES), lines, st.sampled_from(ORIGINS))
def test_neighbours_change_nothing_in_any_order(make: Make, lines: list[bytes], origin: Origin) -> None:
    reader = make(origin)
    for _ in range(2):  # the second time it knows their shapes
        assert at_once(lines, reader) == one_by_one(lines, origin)


LACKING = [
    bare(),
    bare(level="error"),
    bare(colour="blue"),
    progress(trace_id="t"),
    progress(),
    bare(ts=NOW - 5),
    bare(host="h"),
]


@given(
    st.sampled_from(MAKES),
    st.lists(st.sampled_from(LACKING[:4]), min_size=3),
    st.lists(st.sampled_from([*LACKING[4:], b" " + bare(), bare(service="svc"), b"{", b""]), max_size=2),
    st.sampled_from([BARE, NAMELESS, Origin("svc", "", 0), Origin("svc", client="9f2c9f2c9f2c9f2c", numbered=True)]),
)
def test_lines_that_lack_the_same_are_completed_as_each_alone(
    make: Make, alike: list[bytes], others: list[bytes], origin: Origin
) -> None:
    number = b'{"client":"9f2c9f2c9f2c9f2c","seq":1,' if origin.numbered else b"{"
    for lines in (alike, [*alike, *others], [*others, *alike]):
        sent = [data.replace(b"{", number, 1) for data in lines]
        assert at_once(sent, make(origin)) == one_by_one(sent, origin)


@both
def test_a_trace_is_counted_for_each_of_its_clients(make: Make) -> None:
    sent = [
        bare(trace_id="t", client="9f2c9f2c9f2c9f2c", ts=NOW - 5),
        bare(trace_id="t", ts=NOW + 5),
        bare(trace_id="t"),
    ]
    assert at_once(sent, make(BARE)) == one_by_one(sent, BARE)
    assert at_once([*sent, b"{"], make(BARE)) == one_by_one([*sent, b"{"], BARE)


@pytest.mark.skipif(compiled() is None, reason="the scanner was not built")
def test_what_is_spliced_fits_together() -> None:
    def splice(block: bytes, *numbers: int, prefixes: Any = (b"", b'{"a":1,')) -> bytes:
        column = b"".join(number.to_bytes(4, sys.byteorder) for number in numbers)
        return compiled().splice(block, column, list(prefixes))  # type: ignore[no-any-return]

    assert splice(b' {"b":{}}\nnull\n {"c":2}\n', 1, 0, 0) == b'{"a":1,"b":{}}\nnull\n {"c":2}\n'
    assert splice(b"") == b""
    for block, numbers in ((b"{}", [0]), (b"{}\n", []), (b"{}\n", [2]), (b"null\n", [1])):
        with pytest.raises(ValueError, match="expected"):
            splice(block, *numbers)
    with pytest.raises(TypeError):
        splice(b"{}\n", 0, prefixes=("",))


pieces = st.sampled_from(
    [b"\xff", b'"', b"{", b"}", b",", b":", b"1e999", b"null", rb"\u0000", b" ", b"0", b'"seq":5,', b""]
)


@given(
    st.sampled_from(MAKES),
    lines,
    st.lists(st.tuples(st.integers(0, 29), st.integers(0, 300), st.integers(0, 4), pieces)),
    st.sampled_from(ORIGINS),
)
def test_neighbours_change_nothing_in_a_block_that_somebody_changed(
    make: Make, lines: list[bytes], changes: list[tuple[int, int, int, bytes]], origin: Origin
) -> None:
    for which, at, length, new in changes:
        data = lines[which % len(lines)]
        lines[which % len(lines)] = data[:at] + new + data[at + length :]
    assert at_once(lines, make(origin)) == one_by_one(lines, origin)


@given(st.sampled_from(MAKES), lines, st.integers(1, 5))
def test_reading_stops_after_so_many_errors(make: Make, lines: list[bytes], most: int) -> None:
    wanted, errors = [], 0
    for answer in one_by_one(lines, ORIGIN):
        wanted.append(answer)
        errors += len(answer) == 4
        if errors == most:
            break
    reader = make(ORIGIN)
    got = at_once(lines, reader, most)
    while len(got) < len(wanted):  # it may stop earlier, where too many lines had to be read one by one
        assert got
        got += at_once(lines[len(got) :], reader, most)
    assert got[: len(wanted)] == wanted


@both
def test_a_block_of_nothing_but_rubbish_is_left_early(make: Make) -> None:
    read = make(ORIGIN).read(b"x\n" * 100_000, NOW, 100)
    assert (read.size, len(read.refused), read.block.count) == (200, 100, 0)


@both
def test_what_nobody_follows_is_not_kept(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [event(message="a"), line(type="progress", job_id="j", trace_id="j", percent=5), event(message="b")]
    block = make(ORIGIN).read(b"".join(one + b"\n" for one in lines), NOW).block
    asked: list[int] = []

    def decode(lines: Sequence[bytes]) -> list[Message]:
        asked.append(len(lines))
        return decode_all(lines)

    monkeypatch.setattr("wafermon.model.blocks.decode_all", decode)
    assert [one.type for one in block.followed] == ["progress"]
    assert asked in ([], [1])
    assert len(block.messages) == asked[-1] == 3


@both
def test_no_line_but_the_odd_ones_is_read_by_itself(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    alone: list[bytes] = []
    exactly = LineReader.read_line

    def read_line(self: LineReader, data: bytes, now: int) -> tuple[bytes, Message]:
        alone.append(data)
        return exactly(self, data, now)

    monkeypatch.setattr(LineReader, "read_line", read_line)
    good = [bare(), bare(ts=NOW, pid=1), bare(colour="blue"), bare(service="other"), progress()] * 20
    bad = bare(ts="x")
    read = make(BARE).read(b"\n".join([*good, bad, *good, b""]), NOW)
    assert (alone, read.block.count, list(read.refused)) == ([bad], 200, [100])


@both
def test_shapes_are_forgotten_where_there_are_too_many(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire_reader, "KNOWN_SHAPES", 5)
    monkeypatch.setattr(scan_reader, "MAX_SHAPES", 5)
    reader = make(BARE)
    for start in range(0, 60, 3):
        some = [bare(service=f"s{number}") for number in range(start, start + 4)] + [bare(), event()]
        assert at_once(some, reader) == one_by_one(some, BARE)


@both
def test_a_line_without_a_number_is_one_error_among_others(make: Make) -> None:
    lines = [line(type="resource"), line(type="resource", seq=None), line(type="resource").replace(b', "seq": 7', b"")]
    assert [len(answer) for answer in at_once(lines, make(ORIGIN))] == [2, 4, 4]


@both
def test_a_connection_of_many_services_is_read_to_its_end(make: Make) -> None:
    reader = make(NAMELESS)
    some = [bare(service=f"s{number}", ts=NOW) for number in range(10_000)]
    for start in range(0, 10_000, 2_500):
        read = reader.read(b"".join(data + b"\n" for data in some[start : start + 2_500]), NOW)
        assert read.block.lines == some[start : start + 2_500]
        assert len(read.block.kinds) == 2_500
