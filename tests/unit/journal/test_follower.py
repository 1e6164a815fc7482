"""What followers wait for others with: a cancel by others is told apart from their own, and what is late is named."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, fail, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from wafermon.journal.follower import ANSWER_SECONDS, CancelledElsewhere, Outstanding, together


def outcome(waiting: Deferred[Any]) -> object:
    """What it fired with, the exception where it failed, or None where it did not fire."""
    found: list[object] = []
    waiting.addBoth(found.append)
    if not found:
        return None
    return found[0].value if isinstance(found[0], Failure) else found[0]


def test_an_answer_and_a_failure_come_through() -> None:
    outstanding = Outstanding(Clock().seconds)
    assert outcome(outstanding.wait("a disk", succeed(7))) == 7
    error = OSError(28, "full")
    assert outcome(outstanding.wait("a disk", fail(error))) is error


def test_a_cancel_by_others_is_no_cancel_of_ours() -> None:
    found = outcome(Outstanding(Clock().seconds).wait("the backend x", fail(CancelledError())))
    assert isinstance(found, CancelledElsewhere)
    assert str(found) == "the backend x: the call was cancelled, and not by wafermon's stop"
    assert not isinstance(found, CancelledError)


def test_our_own_cancel_reaches_the_call_and_comes_back_as_such() -> None:
    cancelled: list[object] = []
    waiting: Deferred[None] = Outstanding(Clock().seconds).wait("x", Deferred(cancelled.append))
    waiting.cancel()
    assert len(cancelled) == 1
    assert isinstance(outcome(waiting), CancelledError)


def test_a_time_out_of_others_is_no_cancel_of_ours() -> None:
    clock = Clock()
    call: Deferred[object] = Deferred()
    call.addTimeout(5, clock)
    waiting = Outstanding(clock.seconds).wait("x", call)
    clock.advance(5)
    assert isinstance(outcome(waiting), TimeoutError)


def test_what_is_late_is_named_until_it_answers() -> None:
    clock = Clock()
    outstanding = Outstanding(clock.seconds)
    first: Deferred[int] = Deferred()
    second: Deferred[int] = Deferred()
    outstanding.wait("the disk", first)
    clock.advance(ANSWER_SECONDS - 0.1)
    outstanding.wait("the backend", second)
    assert outstanding.late == ""
    clock.advance(0.1)
    assert outstanding.late == "no answer from the disk for 60 s"
    clock.advance(15)
    assert outstanding.late == "no answer from the disk for 75 s"
    first.callback(1)
    assert outstanding.late == ""
    clock.advance(ANSWER_SECONDS)
    assert outstanding.late.startswith("no answer from the backend")


@pytest.mark.parametrize("end", ["answer", "fail", "cancel"])
def test_nothing_is_late_once_it_has_ended(end: str) -> None:
    clock = Clock()
    outstanding = Outstanding(clock.seconds)
    call: Deferred[int] = Deferred()
    waiting = outstanding.wait("x", call)
    waiting.addErrback(lambda _: None)
    if end == "answer":
        call.callback(1)
    elif end == "fail":
        call.errback(ValueError())
    else:
        waiting.cancel()
    clock.advance(2 * ANSWER_SECONDS)
    assert outstanding.late == ""


# -- side by side


class Side:
    """A coroutine that waits for the test, and says how it ended."""

    def __init__(self) -> None:
        self.waits: Deferred[None] = Deferred()
        self.ended = ""

    async def run(self) -> None:
        try:
            await self.waits
            self.ended = "well"
        except BaseException as error:
            self.ended = type(error).__name__
            raise


@pytest.fixture
def sides() -> tuple[Side, Side]:
    return Side(), Side()


def test_the_first_failure_ends_the_other_and_is_raised(sides: tuple[Side, Side]) -> None:
    both = Deferred.fromCoroutine(together(*(one.run() for one in sides)))
    error = KeyError("x")
    sides[1].waits.errback(error)
    assert outcome(both) is error
    assert [one.ended for one in sides] == ["CancelledError", "KeyError"]


def test_the_first_that_ends_ends_the_other(sides: tuple[Side, Side]) -> None:
    both = Deferred.fromCoroutine(together(*(one.run() for one in sides)))
    sides[0].waits.callback(None)
    assert both.called
    assert [one.ended for one in sides] == ["well", "CancelledError"]


def test_a_cancel_ends_both(sides: tuple[Side, Side]) -> None:
    both = Deferred.fromCoroutine(together(*(one.run() for one in sides)))
    both.cancel()
    assert isinstance(outcome(both), CancelledError)
    assert [one.ended for one in sides] == ["CancelledError", "CancelledError"]
