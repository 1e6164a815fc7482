"""Where messages go on to, as sidecars tell each other."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wafermon.model.onward import HOPS, PATHS, Onward, Stop, beyond, circle, dump_paths, read_paths

A, B, C, D = (Stop(letter * 16, f"host-{letter}") for letter in "abcd")


def test_a_circle_is_the_shortest_way_back() -> None:
    paths = ((A, B, C, D), (A, C), (B,), (A, B, C))
    assert circle(C.journal, paths) == (A, C)
    assert circle(D.journal, paths) == (A, B, C, D)
    assert circle("e" * 16, paths) == ()


def test_what_is_beyond_a_sidecar_begins_with_it_and_does_not_come_back_to_it() -> None:
    assert beyond(A, [(B,), (B, C), (B, A), (B, A, C)]) == ((A,), (A, B), (A, B, C))
    assert beyond(A, []) == ((A,),)
    long = tuple(Stop(f"{number:016x}", "") for number in range(HOPS))
    assert beyond(A, [long, long[1:]]) == ((A,), (A, *long[1:]))


@given(st.recursive(st.none() | st.integers() | st.text(), lambda one: st.lists(one, max_size=5), max_leaves=30))
def test_whatever_another_says_is_read_or_left_out(said: object) -> None:
    found = read_paths(said)
    assert len(found) <= PATHS and all(0 < len(path) <= HOPS for path in found)
    assert read_paths(json.loads(json.dumps(dump_paths(found)))) == found


def test_what_is_told_is_bounded() -> None:
    [path] = read_paths([[["a" * 100_000, "b\n" + "c" * 100_000]] * 100])
    assert len(path) == HOPS and len(path[0].journal) == 16 and len(path[0].host) <= 300 and "\n" not in path[0].host
    assert len(read_paths([[["a", "b"]]] * 1000)) == PATHS


def test_watchers_hear_of_what_is_new_alone() -> None:
    onward, heard = Onward(), list[object]()
    onward.watch(lambda: heard.append(onward.paths))
    onward.found("one", [(A,), (A, B, C)])
    onward.found("one", [(A,), (A, B, C)])
    onward.found("other", [(A,), (B, D)])
    onward.found("one", [])
    onward.found("one", [])
    assert heard == [((A,), (A, B, C)), ((A,), (B, D), (A, B, C)), ((A,), (B, D))]


@pytest.mark.parametrize("count", [PATHS, PATHS + 1])
def test_those_that_are_shorter_are_told_first(count: int) -> None:
    onward = Onward()
    paths = [(A, Stop(f"{number:016x}", "")) for number in range(count)]
    onward.found("one", [*paths, (B,)])
    assert onward.paths[0] == (B,) and len(onward.paths) == min(count + 1, PATHS)
