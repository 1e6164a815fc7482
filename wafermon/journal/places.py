"""Who has read how far: the cursors that are read with, and the places of those that nobody reads with now. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from wafermon.journal.cursor import Cursor
from wafermon.journal.index import Stretch
from wafermon.model.position import Position


class Held(NamedTuple):
    """A cursor, and what the journal keeps for it."""

    kept: Position
    attached: bool
    """Whether a reader uses it. If not, it holds its segments until one does, or it is discarded."""
    holds: Stretch


class Places:
    """By cursor's name."""

    def __init__(self, stored: Mapping[str, Position], stepped_over: Iterable[tuple[str, Position]] = ()) -> None:
        """`stored` and `stepped_over` are what is on disk."""
        self.cursors: dict[str, Cursor] = {}
        """Those that are read with."""
        self._stored = dict(stored)
        self._dropped: set[str] = set()
        self._stepped_over: dict[str, set[Position]] = {}
        for name, start in stepped_over:
            self.stepped_over(name).add(start)

    def __contains__(self, name: str) -> bool:
        return name in self._stored or name in self.cursors

    def all(self) -> dict[str, Position]:
        """Before what nobody needs anything."""
        return {**self._stored, **{name: cursor.kept for name, cursor in self.cursors.items()}}

    def detached(self) -> dict[str, Position]:
        """Of those that nobody reads with."""
        return {name: place for name, place in self._stored.items() if name not in self.cursors}

    def place(self, name: str, default: Position) -> Position:
        """Where a cursor is; a new one begins at `default`."""
        return self._stored.setdefault(name, default)

    def attach(self, cursor: Cursor) -> None:
        self._dropped.discard(cursor.name)
        self.cursors[cursor.name] = cursor

    def detach(self, cursor: Cursor) -> None:
        """Its place stays. Nothing where the name is read with by another by now."""
        if self.cursors.get(cursor.name) is cursor:
            self._stored[cursor.name] = cursor.kept
            del self.cursors[cursor.name]

    def drop(self, name: str) -> None:
        """It holds nothing any more."""
        self.cursors.pop(name, None)
        self._stored.pop(name, None)
        self._dropped.add(name)

    def to_save(self) -> dict[str, Position | None]:
        """What a checkpoint writes; None takes a name away."""
        return {**dict.fromkeys(self._dropped), **self.all()}

    def saved(self, places: Mapping[str, Position | None]) -> None:
        """These are on disk."""
        for name, place in places.items():
            if place is None:
                self._dropped.discard(name)

    def stepped_over(self, name: str) -> set[Position]:
        """The starts of the groups that a cursor's follower passes over."""
        return self._stepped_over.setdefault(name, set())

    def passed(self, places: Mapping[str, Position | None]) -> list[tuple[str, Position]]:
        """Of these, those that are not read again now that `places` are on disk."""
        return [
            (name, start)
            for name, starts in self._stepped_over.items()
            for start in starts
            if (place := places.get(name)) is None or start < place
        ]

    def needed(self, places: Mapping[str, Position | None]) -> int:
        """The first segment that one of these, which are on disk, needs, or one that has come since."""
        return min(place.segment for place in [*places.values(), *self.all().values()] if place is not None)

    def holders(self, segment: int) -> list[Cursor] | None:
        """The cursors that may skip this segment or of one before it, which are all that hold it; None where one of them must not."""
        if any(place.segment <= segment for place in self.detached().values()):
            return None
        holding = [cursor for cursor in self.cursors.values() if cursor.kept.segment <= segment]
        return holding if all(cursor.may_skip for cursor in holding) else None

    def reading(self) -> Iterable[Position]:
        """Where each cursor reads next."""
        return [cursor.next for cursor in self.cursors.values()]
