"""How often something may happen. Pure; the clock is handed in."""

from __future__ import annotations

from collections import deque


class Window:
    """At most `count` times within any `seconds`; 0 is no limit."""

    def __init__(self, count: int, seconds: float) -> None:
        self._count = count
        self._seconds = seconds
        self._times: deque[float] = deque()

    def is_free(self, now: float) -> bool:
        """Whether it may happen now."""
        while self._times and self._times[0] <= now - self._seconds:
            self._times.popleft()
        return not self._count or len(self._times) < self._count

    def note(self, now: float) -> None:
        """It has happened."""
        if self._count:
            self._times.append(now)
