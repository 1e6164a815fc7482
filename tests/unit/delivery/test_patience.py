"""Waiting for what may never come."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from wafermon.delivery.patience import at_most


@pytest.mark.parametrize("fails", [False, True])
def test_what_comes_in_time_ends_the_wait(fails: bool) -> None:
    clock, awaited = Clock(), Deferred[str]()
    awaited.addErrback(lambda failure: None)
    told: list[bool] = []
    at_most(clock, 5, awaited).addCallback(told.append)
    clock.advance(4.9)
    assert told == []
    if fails:
        awaited.errback(RuntimeError("it failed"))
    else:
        awaited.callback("done")
    assert told == [True]
    assert clock.getDelayedCalls() == []


def test_what_comes_too_late_is_left_to_itself() -> None:
    clock, awaited = Clock(), Deferred[str]()
    told: list[bool] = []
    at_most(clock, 5, awaited).addCallback(told.append)
    clock.advance(5)
    assert told == [False]
    awaited.callback("late")
    assert told == [False]
