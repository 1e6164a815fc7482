"""Segments, places among them, and what lies between two places."""

from __future__ import annotations

import pytest

from wafermon.journal.groups import Group
from wafermon.journal.index import Index, Stretch
from wafermon.journal.tail import Tail
from wafermon.model.position import Position


def at(segment: int, offset: int = 0) -> Position:
    return Position("j", segment, offset)


@pytest.fixture
def index() -> Index:
    return Index("j", {7: 100, 5: 200, 9: 0}, {5: 20, 9: 0}, (3, 50))


def test_it_knows_its_ends(index: Index) -> None:
    assert index.numbers == [5, 7, 9]
    assert (index.oldest, index.end) == (at(5), at(9))
    assert (index.newest, index.size) == (9, 300)
    assert (index.length(7), index.length(8)) == (100, 0)
    assert 7 in index
    assert 8 not in index


def test_the_end_of_a_segment_is_the_start_of_the_next(index: Index) -> None:
    assert index.follow(at(5, 199)) == at(5, 199)
    assert index.follow(at(5, 200)) == at(7)
    assert index.follow(at(7, 100)) == at(9)
    assert index.follow(at(6, 5)) == at(7)
    assert index.follow(at(9, 0)) == at(9, 0)


def test_distances_are_counted_to_the_end(index: Index) -> None:
    assert index.distance(at(5)) == 300
    assert index.distance(at(5, 150)) == 150
    assert index.distance(at(6, 150)) == 100
    assert index.distance(at(9)) == 0


def test_a_stretch_counts_messages_where_they_are_known(index: Index) -> None:
    assert index.stretch(at(5)) == Stretch(3, 300, 20 + 1)
    assert index.stretch(at(5, 100), [5]) == Stretch(1, 100, 10)
    assert index.stretch(at(5, 199), [5]) == Stretch(1, 1, 1)
    assert index.stretch(at(7), [5, 7], 10.0) == Stretch(1, 100, 10)
    assert index.stretch(at(9)) == Stretch(1, 0, 0)


def test_a_group_makes_its_segment_longer_or_begins_one(index: Index) -> None:
    index.grow(at(9, 60), 6)
    index.grow(at(9, 90), 3)
    index.grow(at(10, 10), 1)
    index.grow(at(7, 110), 5)
    assert index.size == 410
    assert index.stretch(at(9)).messages == 10
    assert index.stretch(at(7), [7], 11.0).messages == 10


def test_what_is_dropped_is_gone(index: Index) -> None:
    assert index.drop(5) == 200
    assert index.oldest == at(7)
    assert index.size == 100
    assert index.holds(at(5, 200))
    assert not index.holds(at(5, 199))


def test_it_says_whether_it_holds_all_from_a_place_on(index: Index) -> None:
    assert index.holds(at(5))
    assert index.holds(at(9))
    assert index.holds(at(3, 50))
    assert not index.holds(at(3, 49))
    assert not index.holds(at(6, 1))
    assert not Index("j", {5: 1}, {}).holds(at(4, 9))


def test_the_start_of_a_reading_lies_at_most_so_far_before(index: Index) -> None:
    assert index.segment_before(at(9), 300) == at(5)
    assert index.segment_before(at(9), 299) == at(7)
    assert index.segment_before(at(9), 0) == at(7)
    assert index.segment_before(at(5), 10) == at(5)


def _group(start: int, end: int) -> Group:
    return Group(at(1, start), at(1, end), 0, "")


def test_groups_stay_until_everybody_has_read_them_and_room_is_short() -> None:
    tail = Tail(100)
    tail.add(_group(0, 60), [at(1, 0)])
    tail.add(_group(60, 100), [at(1, 0)])
    assert tail.get(at(1, 0)) is not None
    tail.add(_group(100, 120), [at(1, 60)])
    assert tail.get(at(1, 0)) is None
    assert tail.get(at(1, 60)) is not None


def test_a_group_that_somebody_lags_behind_goes_when_room_is_short() -> None:
    tail = Tail(100)
    tail.add(_group(0, 60), [at(1, 0)])
    tail.add(_group(60, 120), [at(1, 0)])
    assert tail.get(at(1, 0)) is None
    assert tail.get(at(1, 60)) is not None
