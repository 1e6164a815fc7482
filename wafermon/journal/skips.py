"""What each cursor passed and its consumer never got: skipped, forgotten, or unreadable. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from wafermon.model.position import Position

SKIPS = 100
"""Stretches that are kept of one cursor. Of more the first two become one, with what lies between them."""


class Skip(NamedTuple):
    """From `start` to before `end`."""

    start: Position
    end: Position


class Skips:
    """By cursor's name, in order, apart from each other."""

    def __init__(self, stored: Mapping[str, Iterable[Skip]]) -> None:
        """`stored` is what is on disk."""
        self._skips = {name: list(found) for name, found in stored.items()}
        self._unsaved: set[str] = set()

    def of(self, name: str) -> Sequence[Skip]:
        return self._skips.get(name, ())

    def add(self, name: str, start: Position, end: Position) -> None:
        """Nothing where `end` does not lie after `start`."""
        if end <= start:
            return
        joined: list[Skip] = []
        for one in sorted([*self.of(name), Skip(start, end)]):
            if joined and one.start <= joined[-1].end:
                joined[-1] = Skip(joined[-1].start, max(joined[-1].end, one.end))
            else:
                joined.append(one)
        while len(joined) > SKIPS:
            joined[:2] = [Skip(joined[0].start, joined[1].end)]
        self._skips[name] = joined
        self._unsaved.add(name)

    def remove(self, name: str, start: Position, end: Position) -> None:
        """This was delivered after all."""
        left: list[Skip] = []
        for one in self.of(name):
            left += [Skip(one.start, min(one.end, start)), Skip(max(one.start, end), one.end)]
        self._skips[name] = sorted({one for one in left if one.start < one.end})
        self._unsaved.add(name)

    def to_save(self) -> dict[str, Sequence[Skip]]:
        """What a checkpoint writes, in place of what is there of these names."""
        return {name: tuple(self._skips[name]) for name in self._unsaved}

    def saved(self, skips: Mapping[str, Sequence[Skip]]) -> None:
        """These are on disk."""
        for name, found in skips.items():
            if tuple(self._skips[name]) == tuple(found):
                self._unsaved.discard(name)
