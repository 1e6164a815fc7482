"""The committed groups that stay in memory, so that a cursor that keeps up never reads the disk."""

from __future__ import annotations

from collections.abc import Iterable

from wafermon.journal.groups import Group
from wafermon.model.position import Position

TAIL_BYTES = 4 << 20


class Tail:
    """The newest groups, by where they start."""

    def __init__(self, most: int = TAIL_BYTES) -> None:
        self._most = most
        self._groups: dict[Position, Group] = {}
        self._bytes = 0

    def get(self, start: Position) -> Group | None:
        """The group that starts there, if it is here."""
        return self._groups.get(start)

    def add(self, group: Group, places: Iterable[Position]) -> None:
        """Keep a group, and drop those that every cursor has read, or that are too many. `places` are where every cursor
        reads next. Who is not in here any more reads the disk anyway: nothing is kept for that one."""
        self._groups[group.start] = group
        self._bytes += group.end.offset - group.start.offset
        first = next(iter(self._groups))
        read = min((place for place in places if place >= first), default=group.end)
        while self._groups:
            start = next(iter(self._groups))
            if start >= read and self._bytes <= self._most:
                break
            self._bytes -= self._groups.pop(start).end.offset - start.offset
