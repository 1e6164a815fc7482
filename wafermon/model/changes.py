"""How a part of the running sidecar takes another config: prepared first, and then either put in force or dropped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Change:
    """What one part has prepared. Exactly one of the two is called, and neither fails."""

    commit: Callable[[], None]
    """Put it in force: at once, as far as anybody can see."""
    undo: Callable[[], None] = _nothing
    """Drop what was prepared: nothing has happened."""


@dataclass(frozen=True)
class Refused:
    """The last config that a reload refused, until one is accepted."""

    at: int
    """Microseconds since the epoch."""
    faults: Sequence[str]


class CannotChange(Exception):
    """A part can't take the new config; the text says what to do. Nothing is left of its preparation."""
