"""The two clocks that schedules go by, as the last group had them: `elapsed`, which nobody sets, for durations; the date for what is due.

A date that jumps, or a sidecar that was away, begins a grace in which nothing is judged: what was sent meanwhile comes first.
"""

from __future__ import annotations

from wafermon.model.schedules import PAST_SECONDS

SECOND = 1_000_000
AFTER_START = 60 * SECOND
JUMP = 60 * SECOND
"""A date that changes by more was wrong, before or now."""
PAST = PAST_SECONDS * SECOND
BEFORE_AWAY = 60 * SECOND
"""What was sent so long before the sidecar went may have been lost then, and come again."""


class Clocks:
    """Times are microseconds."""

    def __init__(self) -> None:
        self.now = 0
        """On `elapsed`: up to here everything has been judged."""
        self.offset = 0
        """What is added to `elapsed` for the date."""
        self.hold = 0
        """On `elapsed`: nothing is judged before."""
        self.away = (0, 0)
        """The dates between which the sidecar was away last, or which the date jumped over."""
        self.after_start = AFTER_START
        """So long nothing is judged after the sidecar was away."""

    @property
    def date(self) -> int:
        return self.now + self.offset

    @property
    def oldest(self) -> int:
        """What was sent before this date is of the past, but for what was sent while the sidecar was away."""
        return self.date - PAST

    def come_to(self, elapsed: int) -> None:
        """It never goes back."""
        self.now = max(self.now, elapsed)

    def jump(self, before: int, after: int) -> None:
        """The date went from one to the other at once."""
        self.hold = max(self.hold, self.now + self.after_start)
        if before < after:
            self.away = before, after

    def was_away(self, ts: int) -> bool:
        """Whether a message was sent while the sidecar was away."""
        left, back = self.away
        return left - BEFORE_AWAY <= ts <= back
