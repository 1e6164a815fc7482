"""Exponential backoff with full jitter. Pure."""

from __future__ import annotations

from collections.abc import Callable


class Backoff:
    """Waits that grow: each is drawn evenly between 0 and a limit that doubles up to `most` (seconds)."""

    def __init__(self, initial: float, most: float, uniform: Callable[[float, float], float]) -> None:
        self._initial = initial
        self._most = most
        self._uniform = uniform
        self.tries = 0
        """Failures in a row."""

    def next(self) -> float:
        limit = self._initial * 2.0 ** min(self.tries, 60)
        self.tries += 1
        return self._uniform(0.0, min(limit, self._most) if self._most else limit)

    def reset(self) -> None:
        self.tries = 0
