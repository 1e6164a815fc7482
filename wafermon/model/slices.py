"""Work that takes long, done in slices: between two of them the others of the reactor's thread have their turn."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
SLICE_SECONDS = 0.001
"""Of the processor's time."""
STEPS = 8
"""The clock is looked at once for so many steps of a list."""
Sleep = Callable[[float], Awaitable[object]]


class Slices:
    """One piece of work. A slice is measured by what its thread has used of the processor, so that what is done soon is done at once however busy
    the machine is."""

    def __init__(self, sleep: Sleep, used: Callable[[], float] = time.thread_time) -> None:
        """`sleep` waits so many seconds; `used`: the seconds of the processor that this thread has used."""
        self._sleep = sleep
        self._used = used
        self._until = used() + SLICE_SECONDS

    async def turn(self) -> None:
        """Between two steps: waits until the others have had their turn, where this slice is over."""
        if self._used() >= self._until:
            await self._sleep(0.0)
            self._until = self._used() + SLICE_SECONDS

    async def gather(self, steps: Iterable[T]) -> list[T]:
        """All that the steps yield."""
        found = []
        for step in steps:
            found.append(step)
            if len(found) % STEPS == 0:
                await self.turn()
        return found
