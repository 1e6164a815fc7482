"""How far a job was when: its shape, by which runs of one kind are compared and an end is foreseen. Pure."""

from __future__ import annotations

STEPS = 20
"""Points that are kept: each 5 %."""
Reached = list[int | None]
"""When 5 %, 10 %, … 100 % were reached, in microseconds since the Unix epoch; None where they were not."""


def reach(reached: Reached, percent: float, ts: int) -> None:
    """Take in a progress message. What is passed over counts as reached with what came after it."""
    for step in range(min(STEPS, int(percent * STEPS / 100 + 1e-9))):
        known = reached[step]
        if known is None or ts < known:
            reached[step] = ts


def nothing_reached() -> Reached:
    return [None] * STEPS


def joined(one: Reached, other: Reached) -> Reached:
    """What two parts of one job's past say together."""
    return [min((ts for ts in pair if ts is not None), default=None) for pair in zip(one, other, strict=True)]
