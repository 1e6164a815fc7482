"""Work in slices: all of it is done, and the others have their turn as soon as a slice is over."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import pairwise

from wafermon.model.slices import SLICE_SECONDS, STEPS, Slices


class Machine:
    """Each step costs its own share of the processor."""

    def __init__(self, cost: float) -> None:
        self.cost = cost
        self.used = 0.0
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        assert seconds == 0.0
        self.slept.append(self.used)

    def steps(self, count: int) -> Iterator[int]:
        for number in range(count):
            self.used += self.cost
            yield number

    def gather(self, count: int) -> list[int]:
        async def gathered() -> list[int]:
            return await Slices(self.sleep, lambda: self.used).gather(self.steps(count))

        return asyncio.run(gathered())


def test_what_takes_long_lets_others_have_their_turn() -> None:
    machine = Machine(cost=SLICE_SECONDS / 4)
    assert machine.gather(100) == list(range(100))
    begins = [0.0, *machine.slept]
    longest = max(end - begin for begin, end in pairwise(begins))
    assert len(machine.slept) == 100 // STEPS
    assert longest <= SLICE_SECONDS + STEPS * machine.cost


def test_what_is_done_soon_is_done_at_once() -> None:
    machine = Machine(cost=SLICE_SECONDS / 1_000)
    assert machine.gather(900) == list(range(900))
    assert machine.slept == []
