"""One partition of Kafka: its records as entries of the journal."""

from __future__ import annotations

import json
from typing import Any

from wafermon.journal import Entry, Stream
from wafermon.receivers.kafka.partition import SLICE_BYTES, Figures, Partition, Place, State

NOW = 1_795_500_000_000_000


def partition(mark: int = 0) -> tuple[Partition, Figures]:
    figures = Figures()
    return Partition(Place("fab", 3), "id", Stream("kafka:c", "id/3", mark), figures), figures


def line(**fields: Any) -> bytes:
    return json.dumps({"type": "event", "service": "s", "level": "info", "message": "m", **fields}).encode()


def entries(one: Partition, offsets: list[int], values: list[bytes | None]) -> list[Entry]:
    return list(one.entries(offsets, values, 1000, NOW))


def test_the_mark_is_the_offset_after_the_last_record() -> None:
    one, figures = partition()
    (entry,) = entries(one, [4, 5, 9], [line(), line(), line()])
    assert entry.block is not None and entry.block.count == 3
    assert (entry.stream, entry.seq) == (one.stream, 10)
    assert one.next == 10
    assert figures == Figures(messages=3)


def test_a_record_of_very_many_lines_that_are_none_is_one_dead_letter() -> None:
    one, figures = partition()
    bad, entry = entries(one, [1, 2, 3], [b"\n" * 1_000_000, line(), b"x\n" * 10])
    assert [one.code for one in bad.rejected] == ["bad_record"] and bad.seq == 2
    assert "1000000 lines" in bad.rejected[0].detail and len(bad.rejected[0].line) == 1000
    assert entry.block is not None and entry.block.count == 1 and entry.seq == 4
    assert len(entry.rejected) == 10
    assert figures == Figures(messages=1, rejected=11)


def test_what_came_before_is_dropped() -> None:
    one, figures = partition(6)
    (entry,) = entries(one, [4, 5, 6], [line(), line(), line()])
    assert entry.block is not None and entry.block.count == 1
    assert entries(one, [4, 5, 6], [line(), line(), line()]) == []
    assert figures.messages == 1


def test_records_without_a_value_move_the_mark() -> None:
    one, figures = partition()
    (entry,) = entries(one, [0, 1], [None, None])
    assert entry.block is None and entry.seq == 2
    assert figures == Figures(skipped=2)


def test_what_can_not_be_taken_is_rejected_with_its_offset() -> None:
    one, figures = partition()
    (entry,) = entries(one, [0, 1, 2, 3], [line(), b"x" * 1001, b"no JSON", line()])
    assert entry.block is not None and entry.block.count == 2
    found = {rejected.peer: (rejected.code, rejected.line) for rejected in entry.rejected}
    assert found == {"kafka:fab/3@1": ("line_too_long", b"x" * 1000), "kafka:fab/3@2": ("bad_json", b"no JSON")}
    assert figures == Figures(messages=2, rejected=2)


def test_a_value_of_several_lines() -> None:
    one, _ = partition()
    (entry,) = entries(one, [7], [line() + b"\n" + line() + b"\n"])
    assert entry.block is not None and entry.block.count == 2
    assert entry.seq == 8


def test_many_records_are_cut_into_blocks() -> None:
    one, figures = partition()
    value = line(message="m" * 900)
    count = 3 * SLICE_BYTES // len(value)
    found = entries(one, list(range(count)), [value] * count)
    assert len(found) > 2
    assert sum(entry.block.count for entry in found if entry.block) == count == figures.messages
    assert [entry.seq for entry in found] == sorted(entry.seq for entry in found)


def test_what_is_not_ours_any_more_is_not_taken() -> None:
    one, figures = partition()
    value = line(message="m" * 900)
    walk = one.entries(list(range(1000)), [value] * 1000, 1000, NOW)
    first = next(walk)
    one.state = State.GONE
    assert list(walk) == []
    assert one.next == first.seq
    assert figures.messages == first.seq


def test_a_sidecars_own_messages_are_taken_as_they_are() -> None:
    one, _ = partition()
    value = line(service="wafermon", client="9f2c6b1d00e4a873", seq=5, ts=NOW, v=2)
    (entry,) = entries(one, [0], [value])
    assert entry.block is not None and entry.block.raw == value + b"\n"


def test_the_lag_counts_markers_only_until_the_end_is_reached() -> None:
    one, _ = partition()
    assert one.lag is None
    entries(one, [0], [line()])
    one.high = 12
    assert one.lag == 11
    one.ended(12)
    assert one.lag == 0
    assert one.next == 1
