"""The two times of a group. Pure, but for the clocks that are handed in.

The **receive time** is the date. It follows the wall clock forwards at once, and stands still where that is set back, so that
messages keep their order. Where the wall clock stays more than a minute lower for a minute, it was wrong before: the
receive time goes back to it, once, and the group that is next says so.

**Elapsed** is what durations are measured on. Nobody sets it. It counts on from restart to restart by what the wall clock says
has passed meanwhile, but never backwards and never more than 30 days.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from twisted.logger import Logger

from wafermon.journal.groups import Stamp

SECOND = 1_000_000
BEHIND = 60 * SECOND
"""Of so much the receive time may be ahead of the wall clock without going back."""
PATIENCE = 60.0
"""Seconds for which it is, before it goes back."""
PAUSE_MAX = 30 * 86_400 * SECOND
"""What a restart may have taken at most."""


class Known(NamedTuple):
    """What a journal knows of the time from before the start."""

    elapsed: int
    wall: int
    """The date then, both in microseconds."""


class Clock:
    """Microseconds throughout."""

    log = Logger()

    def __init__(self, wall: Callable[[], float], seconds: Callable[[], float]) -> None:
        """`wall` is the date in seconds since the epoch, `seconds` a time that nobody sets."""
        self.steps_back = 0
        """How often the receive time went back since the start."""
        self.away = 0
        """How long nobody had the journal open before, as far as is known."""
        self._wall = wall
        self._seconds = seconds
        self._time = 0
        self._base = 0
        self._started = 0.0
        self._lower_since: float | None = None
        self._last = 0

    def begin(self, time: int, known: Known | None) -> None:
        """Go on from the receive time of the last group (0: there is none), and from what is known of the other."""
        wall = self._date()
        self._time = self._last = time
        self._started = self._seconds()
        if known is not None:
            self.away = min(max(0, wall - known.wall), PAUSE_MAX)
        self._base = wall if known is None else known.elapsed + self.away

    def _date(self) -> int:
        return int(self._wall() * SECOND)

    def now(self) -> int:
        """The receive time, since the epoch."""
        wall = self._date()
        if self._time - wall <= BEHIND:
            self._time = max(self._time, wall)
            self._lower_since = None
        elif self._lower_since is None:
            self._lower_since = self._seconds()
            message = "The date is {seconds} s lower than when the last messages came; if it stays, messages get it from then on"
            self.log.warn(message, seconds=(self._time - wall) // SECOND)
        elif self._seconds() - self._lower_since >= PATIENCE:
            message = "The receive time goes back by {seconds} s: the date was wrong before"
            self.log.warn(message, seconds=(self._time - wall) // SECOND)
            self._time = wall
            self._lower_since = None
            self.steps_back += 1
        return self._time

    @property
    def fault(self) -> str:
        """What is wrong with the date just now, for a person; else empty."""
        ahead = self._time - self._date()
        if ahead <= BEHIND:
            return ""
        return f"the date is {ahead // SECOND} s lower than when the last messages came: it was set back"

    def elapsed(self) -> int:
        """See above; its zero means nothing."""
        return self._base + int((self._seconds() - self._started) * SECOND)

    def known(self) -> Known:
        """What the next start has to know."""
        return Known(self.elapsed(), self._date())

    def stamp(self) -> Stamp:
        """Of a group that is cut now."""
        time = self.now()
        stamp = Stamp(time, self.elapsed(), time < self._last)
        self._last = time
        return stamp
