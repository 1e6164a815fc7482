"""Turns for many connections, in order: a few between any two looks of the reactor at its sockets."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Generic, Protocol, TypeVar

from twisted.internet.interfaces import IDelayedCall

TURN_SECONDS = 0.0005
"""For so long turns are given at a time; then the reactor looks at its sockets. A turn that takes longer is the only one then."""

T = TypeVar("T", bound=Hashable)


class Timed(Protocol):
    """A clock that calls."""

    def seconds(self) -> float: ...
    def later(self, seconds: float, call: Callable[[], None]) -> Any: ...


class Turns(Generic[T]):
    """Each waits once, however often it is added."""

    def __init__(self, clock: Timed, take: Callable[[T], None], pause: Callable[[], float] = lambda: 0.0) -> None:
        """`take` is called with the one whose turn it is, and never raises. A round of turns begins no sooner than `pause` seconds after
        the one before began: what comes by then is taken together."""
        self._clock = clock
        self._take = take
        self._pause = pause
        self._waiting: dict[T, None] = {}
        self._began = -float("inf")
        self._called = False
        self._next: IDelayedCall | None = None
        """The round that begins after a pause."""

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, one: T, *, at_once: bool = False) -> None:
        """It waits from now on, after those that do. `at_once`: the round of turns begins now."""
        self._waiting[one] = None
        if at_once and self._next is not None:
            self._next.cancel()
            self._next, self._called = None, False
        if not self._called:
            self._called = True
            wait = 0.0 if at_once else max(0.0, self._began + self._pause() - self._clock.seconds())
            call = self._clock.later(wait, self._begin)
            self._next = call if wait else None

    def discard(self, one: T) -> None:
        """It waits no more."""
        self._waiting.pop(one, None)

    def _begin(self) -> None:
        self._next = None
        self._began = self._clock.seconds()
        self._go_on()

    def _go_on(self) -> None:
        until = self._clock.seconds() + TURN_SECONDS
        while self._waiting:
            one = next(iter(self._waiting))
            del self._waiting[one]
            self._take(one)
            if self._clock.seconds() >= until:
                break
        self._called = bool(self._waiting)
        if self._called:
            self._clock.later(0.0, self._go_on)
