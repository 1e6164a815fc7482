"""How often something is logged that others cause: clients, and programs that work on the same files."""

from __future__ import annotations

from collections.abc import Callable

LINES = 5
PERIOD_SECONDS = 60.0
FOLLOWS = "more such lines are counted, and told after a minute"
"""Said once, in place of the first line that is left out."""


class LogRate:
    """Lets LINES through in each period, and counts the rest. A period begins with its first line."""

    def __init__(self, seconds: Callable[[], float], lines: int = LINES, period: float = PERIOD_SECONDS) -> None:
        self._seconds = seconds
        self._lines = lines
        self._period = period
        self._began: float | None = None
        self._count = 0

    def log(self, say: Callable[[], object], tell: Callable[[str], object]) -> None:
        """`say` one line now, or count it; `tell` gets a sentence about what is left out, or was."""
        self.tick(tell)
        if self._began is None:
            self._began = self._seconds()
        self._count += 1
        if self._count <= self._lines:
            say()
        elif self._count == self._lines + 1:
            tell(FOLLOWS)

    def tick(self, tell: Callable[[str], object]) -> None:
        """End a period that is over, and `tell` what was left out in it."""
        if self._began is None or 0 <= self._seconds() - self._began < self._period:
            return
        left_out, self._count, self._began = self._count - self._lines, 0, None
        if left_out > 0:
            tell(f"{left_out} more such lines within a minute")
