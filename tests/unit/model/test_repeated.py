"""What is done again and again goes on, whatever one call raises."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from logged import said
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock

from wafermon.model.repeated import TOLD_SECONDS, Repeated


def _raise() -> None:
    raise OSError("broken")


@pytest.mark.parametrize("broken", [_raise, lambda: fail(OSError("broken"))], ids=["raises", "fails"])
def test_a_call_that_fails_is_logged_and_made_again(broken: Callable[[], object]) -> None:
    clock, made = Clock(), list[float]()

    def call() -> object:
        made.append(clock.seconds())
        return broken() if len(made) % 2 else None

    repeated = Repeated(clock, call)
    with said() as lines:
        repeated.start(1.0)
        clock.pump([0.5] * 10)
        assert made == [0, 1, 2, 3, 4, 5]
        assert repeated.running
        [line] = lines
        assert line.startswith("critical: Internal error in test_") and "call, which is tried again" in line
        clock.pump([1.0] * int(TOLD_SECONDS))
        assert len(lines) == 2
        repeated.stop()
        clock.advance(10)
    assert len(made) == 6 + int(TOLD_SECONDS)


def test_a_call_that_waits_is_not_made_beside_itself() -> None:
    clock, waits = Clock(), list[Deferred[None]]()

    def call() -> Deferred[None]:
        waits.append(Deferred())
        return waits[-1]

    repeated = Repeated(clock, call)
    repeated.start(1.0, now=False)
    clock.pump([1.0] * 5)
    assert len(waits) == 1
    waits[0].callback(None)
    clock.advance(1.0)
    assert len(waits) == 2
    repeated.stop()
