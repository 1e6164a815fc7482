"""Batches that are under way at a time: each is stored after the one before it, and only if that one is."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from wafermon.backends.timescaledb.turns import Turn
from wafermon.contract import JOURNAL
from wafermon.interfaces import Position


class Noted:
    """What has come of a wait."""

    def __init__(self, waiting: Coroutine[Any, Any, None]) -> None:
        self.said = ""
        Deferred.fromCoroutine(waiting).addCallbacks(self._came, self._failed)

    def _came(self, _: None) -> None:
        self.said = "came"

    def _failed(self, failure: Any) -> None:
        self.said = failure.type.__name__


def three(clock: Clock) -> tuple[Turn, Turn, Turn]:
    first = Turn(Position(JOURNAL, 1, 10), None, clock)
    second = Turn(Position(JOURNAL, 1, 20), first, clock)
    return first, second, Turn(Position(JOURNAL, 1, 30), second, clock)


def test_the_first_waits_for_nothing() -> None:
    first, _, _ = three(Clock())
    assert (Noted(first.nears()).said, Noted(first.comes()).said) == ("came", "came")


def test_one_may_be_made_ready_as_soon_as_a_thread_has_the_one_before() -> None:
    clock = Clock()
    first, second, third = three(clock)
    near, turn, nearer = Noted(second.nears()), Noted(second.comes()), Noted(third.nears())
    assert (near.said, turn.said, nearer.said) == ("", "", "")
    first.hand_over()
    assert (near.said, turn.said, nearer.said) == ("came", "", "")
    assert second.before is first
    second.hand_over()
    assert (turn.said, nearer.said) == ("", "came")


def test_the_next_one_goes_on_once_this_one_has_been_answered() -> None:
    clock = Clock()
    first, second, _ = three(clock)
    first.hand_over()
    turn = Noted(second.comes())
    first.end_as(stored=True)
    assert turn.said == "", "whoever waits for the first has not been told yet"
    clock.advance(0)
    assert turn.said == "came"
    assert second.before is None


@pytest.mark.parametrize("wait", [Turn.nears, Turn.comes])
@pytest.mark.parametrize("handed", [False, True])
@pytest.mark.parametrize("late", [False, True])
def test_what_comes_after_one_that_failed_is_superseded(
    wait: Callable[[Turn], Coroutine[Any, Any, None]], handed: bool, late: bool
) -> None:
    clock = Clock()
    first, second, third = three(clock)
    waiting = None if late or (handed and wait is Turn.nears) else Noted(wait(second))
    if handed:
        first.hand_over()
    first.end_as(stored=False)
    clock.advance(0)
    waiting = waiting or Noted(wait(second))
    assert waiting.said == "Superseded"
    second.end_as(stored=False)
    assert Noted(third.nears()).said == "Superseded"


def test_a_wait_that_is_cancelled_does_no_harm() -> None:
    clock = Clock()
    first, second, _ = three(clock)
    waiting = Deferred.fromCoroutine(second.comes())
    waiting.addErrback(lambda _: None)
    waiting.cancel()
    first.end_as(stored=True)
    clock.advance(0)
    assert Noted(second.comes()).said == "came"


def test_what_a_thread_has_is_known_until_it_leaves() -> None:
    first, _, _ = three(Clock())
    assert not first.in_thread
    first.hand_over()
    assert first.in_thread
    first.leave()
    assert not first.in_thread
    first.wait()  # which blocks no more
