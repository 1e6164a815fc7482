"""How often something may happen. Pure; the clock is handed in."""

from __future__ import annotations

from collections import deque


class Window:
    """At most `count` times within any `seconds`; 0 is no limit."""

    def __init__(self, count: int, seconds: float) -> None:
        self._count = count
        self._seconds = seconds
        self._times: deque[float] = deque()

    def take(self, now: float) -> bool:
        """Whether it may happen now; it then counts."""
        while self._times and self._times[0] <= now - self._seconds:
            self._times.popleft()
        if self._count and len(self._times) >= self._count:
            return False
        if self._count:
            self._times.append(now)
        return True
