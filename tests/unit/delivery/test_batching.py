"""How groups become batches, and how a batch is divided."""

from __future__ import annotations

import json

import pytest
from deliveries import number_of
from hypothesis import given
from hypothesis import strategies as st
from journals import block, line
from memory_journal import ID

from wafermon.delivery.backoff import Backoff
from wafermon.delivery.batching import Gathered, Gatherer, select
from wafermon.interfaces import Position
from wafermon.journal import Group
from wafermon.model.blocks import Block
from wafermon.model.settings import BatchLimits
from wafermon.routing import Table
from wafermon.routing.rules import Rule

ALL = Table([Rule(("one",))])
ODD = Table([Rule(("one",), service=("odd",)), Rule(("other",))])
START = Position(ID, 1, 1000)


def mixed(numbers: range) -> Block:
    """Messages of which every second one is for `one`, by the table ODD."""
    lines = [line(n, service="odd" if n % 2 else "even") for n in numbers]
    return Block.parse(b"".join(one + b"\n" for one in lines))


def gathered(content: Block, table: Table = ALL, time: int = 7) -> Gathered:
    piece = select(START, content, table, "one", time)
    assert piece is not None
    return Gathered(piece.start, piece.end, [piece])


def numbers(one: Gathered) -> list[int]:
    return [number_of(line) for line in one.batch().lines]


def group(content: Block, at: Position = START, time: int = 7) -> Group:
    return Group(at, at._replace(offset=at.offset + len(content.raw) + 10), time, "", [(at.offset, content)])


def test_what_is_not_for_a_backend_is_left_out() -> None:
    assert numbers(gathered(mixed(range(1, 8)), ODD)) == [1, 3, 5, 7]
    assert select(START, mixed(range(2, 3)), ODD, "one", 7) is None
    assert select(START, mixed(range(2, 3)), ODD, "nobody", 7) is None


@pytest.mark.parametrize("table", [ALL, ODD])
def test_halves_make_up_the_whole(table: Table) -> None:
    whole = gathered(mixed(range(1, 12)), table)
    first, second = whole.halves()
    assert numbers(first) + numbers(second) == numbers(whole)
    assert first.count == whole.count // 2
    assert (first.start, first.end, second.end) == (whole.start, second.start, whole.end)
    assert first.positions() + second.positions() == whole.positions()


@given(st.integers(2, 40), st.data())
def test_dividing_takes_out_what_is_named_and_nothing_else(count: int, data: st.DataObject) -> None:
    table = data.draw(st.sampled_from([ALL, ODD]))
    pieces = [gathered(mixed(range(1, count)), table), gathered(mixed(range(101, 101 + count)), table)]
    whole = Gathered(START, START._replace(offset=9999), [piece for one in pieces for piece in one.pieces])
    indices = data.draw(st.sets(st.integers(0, max(0, whole.count - 1))))
    named, rest = whole.divide(indices)
    assert numbers(named) == [n for index, n in enumerate(numbers(whole)) if index in indices]
    assert numbers(rest) == [n for index, n in enumerate(numbers(whole)) if index not in indices]
    assert [(one.start, one.end) for one in (named, rest)] == [(whole.start, whole.end)] * 2
    assert sorted(named.positions() + rest.positions()) == sorted(whole.positions())
    if rest.count > 1:
        first, second = rest.halves()
        assert numbers(first) + numbers(second) == numbers(rest)


def test_positions_are_where_the_lines_stand() -> None:
    whole = gathered(mixed(range(1, 8)), ODD)
    raw = mixed(range(1, 8)).raw
    for position, text in zip(whole.positions(), whole.batch().lines, strict=True):
        assert raw[position.offset - START.offset :].startswith(text)
    assert [whole.batch().position(n) for n in range(4)] == whole.positions()


def test_a_batch_of_nothing() -> None:
    batch = gathered(mixed(range(1, 8))).empty().batch()
    assert (batch.count, batch.lines, batch.received) == (0, [], (0, 0))
    assert batch.start == START and batch.end > START


def test_a_gatherer_is_full_at_the_first_of_its_limits() -> None:
    by_count = Gatherer("one", BatchLimits(messages=5, bytes=0), START)
    by_count.add(group(block(range(1, 5))), ALL)
    assert not by_count.full and by_count.count == 4 and by_count.oldest is not None
    by_count.add(group(block(range(5, 9))), ALL)
    assert by_count.full
    taken = by_count.take()
    assert numbers(taken) == [1, 2, 3, 4, 5] and by_count.count == 3 and not by_count.full
    assert taken.start == START
    assert taken.end == START._replace(offset=START.offset + len(block(range(5, 6)).raw)), (
        "where the first one stands that is left"
    )
    rest = by_count.take()
    assert numbers(rest) == [6, 7, 8] and rest.start == taken.end and not by_count.moved
    assert by_count.oldest is None
    size = len(block(range(1, 5)).raw)
    by_bytes = Gatherer("one", BatchLimits(messages=0, bytes=size + 1), START)
    by_bytes.add(group(block(range(1, 5))), ALL)
    assert not by_bytes.full
    by_bytes.add(group(block(range(5, 6))), ALL)
    assert by_bytes.full and numbers(by_bytes.take()) == [1, 2, 3, 4, 5] and not by_bytes.full


def test_a_stretch_with_nothing_in_it_moves_the_position_alone_once_a_segment_ends() -> None:
    gatherer = Gatherer("one", BatchLimits(), START)
    gatherer.add(group(mixed(range(2, 3))), ODD)
    assert gatherer.moved and not gatherer.crossed and gatherer.count == 0
    later = START._replace(segment=2, offset=0)
    gatherer.add(group(mixed(range(4, 5)), later), ODD)
    assert gatherer.crossed
    taken = gatherer.take()
    assert taken.count == 0 and taken.end.segment == 2 and not gatherer.moved and not gatherer.crossed
    gatherer.add(group(mixed(range(1, 2)), later._replace(segment=3)), ODD)
    assert not gatherer.crossed, "there is a batch that will move it"


def test_a_replayed_message_goes_to_the_backend_that_it_is_for() -> None:
    content = Block.parse(json.dumps({**json.loads(line(1)), "replay_to": "other"}).encode() + b"\n")
    assert select(START, content, ALL, "one", 7) is None
    assert select(START, content, ALL, "other", 7) is not None


def test_waits_double_up_to_the_longest_and_begin_anew() -> None:
    backoff = Backoff(0.1, 1.0, lambda least, most: most - least)
    assert [backoff.next() for _ in range(6)] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0])
    assert backoff.tries == 6
    backoff.reset()
    assert backoff.tries == 0 and backoff.next() == pytest.approx(0.1)
    without_limit = Backoff(1.0, 0.0, lambda least, most: most)
    assert [without_limit.next() for _ in range(4)] == [1, 2, 4, 8]
    without_limit.tries = 10_000
    assert without_limit.next() == 2.0**60


def test_a_batch_holds_all_bytes_of_its_pieces_and_no_piece_more() -> None:
    size = len(block(range(11, 15)).raw)
    gatherer = Gatherer("one", BatchLimits(messages=0, bytes=2 * size + 1), START)
    for first in (11, 21, 31, 41):
        gatherer.add(group(block(range(first, first + 4))), ALL)
    assert gatherer.take().count == 12, "the third piece makes it full"
    assert gatherer.take().count == 4
    assert not gatherer.full and gatherer.count == 0
