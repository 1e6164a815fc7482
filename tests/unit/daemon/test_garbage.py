"""When Python looks for cycles: bit by bit while a sidecar runs, as ever before and afterwards."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest
from twisted.internet.task import Clock

from wafermon.daemon.garbage import OLDER, SECONDS, YOUNG, Garbage


class Cycle:
    def __init__(self) -> None:
        self.itself = self


def abandoned() -> weakref.ref[Cycle]:
    """Something that nobody can reach any more, but itself."""
    return weakref.ref(Cycle())


@pytest.fixture
def clock() -> Iterator[Clock]:
    clock = Clock()
    garbage = Garbage(clock)
    garbage.start()
    yield clock
    garbage.stop()
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_what_nobody_can_reach_goes_soon(clock: Clock) -> None:
    assert not gc.isenabled()
    gone = abandoned()
    assert gone() is not None
    clock.advance(SECONDS)
    assert gone() is None


@pytest.mark.parametrize("looks", [1, YOUNG + 1])
def test_what_was_in_use_for_long_goes_too(clock: Clock, looks: int) -> None:
    held = Cycle()
    gone = weakref.ref(held)
    for _ in range(looks):
        clock.advance(SECONDS)
    del held
    clock.advance(SECONDS)
    assert gone() is not None
    for _ in range(YOUNG * OLDER):
        clock.advance(SECONDS)
    assert gone() is None


def test_one_that_never_started_can_be_stopped() -> None:
    Garbage(Clock()).stop()
    assert gc.isenabled()
