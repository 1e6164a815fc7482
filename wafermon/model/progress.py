"""How far a job was when: its shape, by which runs of one kind are compared and an end is foreseen. Pure."""

from __future__ import annotations

STEPS = 20
"""Points that are kept: each 5 %."""
Reached = list[int | None]
"""When a progress message of 5 % or more came first, of 10 %, … of 100 %, in microseconds since the Unix epoch. None where the job
said nothing between this step and the next: what lies between two steps that are known is found by rule of three."""


def reach(reached: Reached, percent: float, ts: int) -> None:
    """Take in a progress message."""
    step = min(STEPS, int(percent * STEPS / 100 + 1e-9))
    if step:
        known = reached[step - 1]
        if known is None or ts < known:
            reached[step - 1] = ts


def nothing_reached() -> Reached:
    return [None] * STEPS


def joined(one: Reached, other: Reached) -> Reached:
    """What two parts of one job's past say together."""
    return [min((ts for ts in pair if ts is not None), default=None) for pair in zip(one, other, strict=True)]
