"""Frames of other sidecars: what is taken, known, refused, and how far the mark is then."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wafermon.journal import Stream
from wafermon.model.messages import Trace, dumps
from wafermon.net.principals import Principal
from wafermon.receivers.forward.taking import Forwarding, Overlap, TakenFrame
from wafermon.wire.frames import Head, Stretch

NOW = 1_795_500_000_000_000
LONGEST = 65_536


def line(seq: int, **fields: object) -> bytes:
    said = {
        "type": "event",
        "ts": NOW,
        "service": "test",
        "level": "info",
        "message": "m",
        "client": "a" * 16,
        "seq": seq,
    }
    return dumps({**said, **fields}).encode() + b"\n"


def frame(start: int, end: int, *lines: bytes) -> tuple[Head, bytes]:
    raw = b"".join(lines)
    return Head("none", len(raw), len(raw), len(lines), Stretch(start, end)), raw


def forwarding(mark: int = 0, principal: Principal | None = None) -> Forwarding:
    return Forwarding(Stream("forward:edge", "e" * 16, mark), principal or Principal(), LONGEST, "edge")


def take(one: Forwarding, head: Head, raw: bytes) -> TakenFrame | None:
    return one.take(head, raw, NOW)


def test_a_frame_moves_the_mark_to_its_end() -> None:
    one = forwarding()
    taken = take(one, *frame(5, 900, line(7), line(3), line(7)))
    assert taken is not None and taken.block is not None
    assert taken.block.raw == line(7) + line(3) + line(7), "numbers are the programs' affair"
    assert (one.stream.appended, one.stream.synced, taken.skipped) == (900, 0, 0)


def test_what_came_before_is_known() -> None:
    one = forwarding(900)
    assert take(one, *frame(5, 900, line(1))) is None
    assert take(one, *frame(900, 900)) is None
    assert one.stream.appended == 900


def test_a_frame_that_the_mark_lies_within_is_not_taken() -> None:
    one = forwarding(500)
    with pytest.raises(Overlap, match="500"):
        take(one, *frame(5, 900, line(1)))
    assert one.stream.appended == 500


def test_a_frame_without_lines_moves_the_mark() -> None:
    one = forwarding(500)
    taken = take(one, *frame(500, 700))
    assert taken == TakenFrame() and one.stream.appended == 700


def test_what_is_left_out_is_told() -> None:
    taken = take(forwarding(500), *frame(600, 700, line(1)))
    assert taken is not None and taken.skipped == 100


def test_refused_lines_are_dead_letters_with_client_and_number() -> None:
    one = forwarding()
    unknown = line(2, type="of-tomorrow")
    long = line(3, message="x" * LONGEST)
    taken = take(one, *frame(0, 900, line(1), unknown, long, b"{}\n", line(4)))
    assert taken is not None and taken.block is not None
    assert taken.block.raw == line(1) + line(4)
    told = {(one.code, one.client, one.seq) for one in taken.rejected}
    assert told == {("unknown_type", "a" * 16, 2), ("line_too_long", "", 0), ("bad_message", "", 0)}
    assert all(one.peer == "edge" for one in taken.rejected)
    assert one.stream.appended == 900


def test_a_service_that_the_token_may_not_name_is_refused() -> None:
    one = forwarding(principal=Principal("token:1", ("test",)))
    taken = take(one, *frame(0, 900, line(1), line(2, service="other"), line(3, service="wafermon")))
    assert taken is not None and taken.block is not None
    assert [one.code for one in taken.rejected] == ["unauthorized"]
    assert taken.block.raw == line(1) + line(3, service="wafermon"), "what sidecars derive is of no service of theirs"


def test_what_the_other_derived_is_kept_as_it_came() -> None:
    trace = Trace(
        v=2, ts=NOW, service="wafermon", client="e" * 16, trace_id="job", first=NOW, last=NOW, services=["a"], counts={"event": 1},
        errors=0, status="done", part=1,
    )  # fmt: skip
    stored = msgspec.json.encode(trace) + b"\n"
    taken = take(forwarding(), *frame(0, 900, line(1, trace_id="job"), stored))
    assert taken is not None and taken.block is not None and not taken.rejected
    assert taken.block.raw == line(1, trace_id="job") + stored
    assert [tally.count for tally in taken.block.tallies()] == [1], "what is a sidecar's own does not count"


def test_a_program_s_trace_is_refused() -> None:
    taken = take(forwarding(), *frame(0, 900, line(1, type="trace")))
    assert taken is not None and [one.code for one in taken.rejected] == ["unknown_type"]


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)).map(sorted), max_size=30))
def test_whatever_comes_each_place_is_taken_once(stretches: list[list[int]]) -> None:
    one, covered = forwarding(), set[int]()
    for start, end in stretches:
        before = one.stream.appended
        try:
            taken = take(one, *frame(start, end))
        except Overlap:
            assert start < before < end and one.stream.appended == before
            continue
        if taken is None:
            assert end <= before and one.stream.appended == before
        else:
            assert covered.isdisjoint(range(start, end))
            covered.update(range(start, end))
            assert one.stream.appended == end > before
