"""The columns of a block say what its messages say, however it was made and cut."""

from __future__ import annotations

import json

import pytest
from columns import check
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from wafermon.journal.groups import Mark, Span, Stamp, decode_group, encode_blocks, encode_commit, scan
from wafermon.model import blocks as module
from wafermon.model.blocks import Block, melted
from wafermon.model.messages import OWN_SERVICE, Metric

T = 1_700_000_000_000_000
BODIES: list[dict[str, object]] = [
    {"type": "event", "level": "info", "message": "m"},
    {"type": "event", "level": "error", "message": "m", "unknown": 1},
    {"type": "metric", "name": "n", "value": 1},
    {"type": "progress", "job_id": "j", "percent": 5, "trace_id": "j"},
    {"type": "span_start", "name": "n", "span_id": "a" * 16, "trace_id": "t"},
]


def line(body: int, ts: int, service: str, trace: str, host: str, client: str = "") -> bytes:
    head = {"ts": T + ts, "service": service, "trace_id": trace, "host": host, "client": client}
    return json.dumps({**BODIES[body], **{name: value for name, value in head.items() if value}}).encode() + b"\n"


lines = st.lists(
    st.builds(
        line,
        st.integers(0, len(BODIES) - 1),
        st.integers(0, 1000),
        st.sampled_from(["a", "b", OWN_SERVICE]),
        st.sampled_from(["", "t1", "t2"]),
        st.sampled_from(["", "h"]),
        st.sampled_from(["", "c" * 16]),
    ),
    max_size=30,
) | st.integers(0, 40).map(lambda count: [line(0, n, "a", "t1", "") for n in range(count)])


@given(lines, st.data())
def test_what_is_cut_and_picked_keeps_its_columns(lines: list[bytes], data: st.DataObject) -> None:
    block = Block.parse(b"".join(lines))
    if data.draw(st.booleans()):
        block.columns  # noqa: B018  # they are there
        block.release()
    check(block, b"".join(lines))
    start = data.draw(st.integers(0, len(lines)))
    stop = data.draw(st.integers(start, len(lines)))
    if data.draw(st.booleans()):
        block.release()
    check(block.cut(start, stop), b"".join(lines[start:stop]))
    head, rest = block.split(start)
    check(head, b"".join(lines[:start]))
    check(rest, b"".join(lines[start:]))
    chosen = data.draw(st.sets(st.integers(0, max(0, len(lines) - 1)))) if lines else set()
    check(block.pick(sorted(chosen)), b"".join(lines[place] for place in sorted(chosen)))


@given(st.lists(lines, max_size=5), st.booleans(), st.sampled_from([1, 8, 64]))
def test_what_is_joined_keeps_its_columns(parts: list[list[bytes]], released: bool, small: int) -> None:
    blocks = [Block.parse(b"".join(part)) for part in parts if part]
    if released:
        for block in blocks:
            block.tallies()
            block.followed  # noqa: B018  # they are there
            block.release()
    raw = b"".join(block.raw for block in blocks)
    check(Block.join(blocks), raw)
    check(Block.melt(blocks), raw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SMALL", small)
        again = melted(blocks)
    assert b"".join(block.raw for block in again) == raw
    for block in again:
        check(block, block.raw)


@given(st.lists(lines, max_size=4))
def test_the_journal_keeps_columns(parts: list[list[bytes]]) -> None:
    blocks = [Block.parse(b"".join(part)) for part in parts if part]
    body = [encode_blocks(blocks), *(block.raw for block in blocks)]
    data = b"".join([*body, encode_commit(body, Stamp(T, 1), [Mark("", "c", 1)])])
    [span] = scan(data)
    assert isinstance(span, Span)
    group = decode_group(data, span, "j", 1, "")
    assert b"".join(block.raw for _, block in group.blocks) == b"".join(block.raw for block in blocks)
    for offset, block in group.blocks:
        assert data[offset : offset + len(block.raw)] == block.raw
        check(block, block.raw)


def test_a_block_of_many_kinds_keeps_its_columns() -> None:
    raw = b"".join(line(number % 3, number, f"s{number}", "", "") for number in range(600))
    block = Block.parse(raw)
    block.release()
    check(block, raw)
    check(block.split(300)[1], b"".join(raw.splitlines(keepends=True)[300:]))


def test_what_the_journal_told_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = b"".join(line(number % 3, number, f"s{number % 50}", "", "") for number in range(200))
    blocks = [Block.parse(raw)]
    body = [encode_blocks(blocks), raw]
    data = b"".join([*body, encode_commit(body, Stamp(T, 1), [])])
    monkeypatch.setattr(module, "decode_all", lambda lines: pytest.fail("parsed"))
    [(_, block)] = decode_group(data, next(scan(data)), "j", 1, "").blocks
    assert len(block.kinds) == 150
    assert block.places({kind for kind in block.kinds if kind[1] == "metric"}) == list(range(2, 200, 3))
    assert block.pick([5, 6]).split(1)[0].kinds == {("s5", "metric", "", UNSET, UNSET)}


@given(lines, st.sampled_from(["parsed", "counted", "neither"]))
def test_traces_and_metrics_are_the_same_however_much_is_known(lines: list[bytes], known: str) -> None:
    parsed = Block.parse(b"".join(lines))
    block = Block(parsed.raw, parsed.count, parsed.kinds, parsed.first, parsed.last, columns=parsed.columns)
    if known == "parsed":
        block.messages  # noqa: B018  # they are there
    elif known == "counted":
        block.tallies()
        block._messages = None
    assert block.trace_ids() == {one.trace_id for one in parsed.messages if one.trace_id}
    found = [(one.trace_id, one.service, one.name, one.unit, one.value) for one in block.metrics()]
    metrics = [one for one in parsed.messages if isinstance(one, Metric)]
    assert found == [(one.trace_id, one.service, one.name, one.unit, one.value) for one in metrics]


def test_keys_that_are_there_twice_do_not_keep_a_line_from_being_read() -> None:
    raw = b'{"type":"metric","ts":%d,"service":"a","trace_id":7,"trace_id":"t","name":1,"name":"n","value":2}\n' % T
    parsed = Block.parse(raw)
    block = Block(raw, 1, parsed.kinds, T, T)
    assert block.trace_ids() == {"t"}
    assert [one.name for one in block.metrics()] == ["n"]


def test_what_was_counted_stays_where_it_is_small() -> None:
    few = Block.parse(b"".join(line(0, n, "a", "t1", "") for n in range(40)))
    many = Block.parse(b"".join(line(3, n, "a", f"t{n}", "") for n in range(40)))
    for block in (few, many):
        block.tallies()
        block.followed  # noqa: B018  # they are there
        block.release()
    assert few._tallies is not None
    assert few._followed is not None
    assert many._tallies is None
    assert many._followed is None
    assert few._messages is many._messages is None
