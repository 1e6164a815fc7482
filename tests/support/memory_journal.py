"""A journal in memory on a Clock, and dead letters likewise, which fail or hang where they are told to: for tests of what
follows the journal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from journals import block
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from wafermon.delivery import Letter
from wafermon.interfaces import Position
from wafermon.journal import Group, Held, Missing, Stretch, UnknownCursor
from wafermon.model.blocks import Block

ID = "5af1c0de5af1c0de"
NOW = 1_700_000_000_000_000
MARK_BYTES = 10
"""Of a group's last line, which belongs to no message."""


class Faults:
    """By call: what its next calls come to. An exception, a Deferred, or None, which is the ordinary."""

    def __init__(self) -> None:
        self.next: dict[str, list[Any]] = {}

    def fail_next(self, call: str, *what: Any) -> None:
        self.next.setdefault(call, []).extend(what)

    def take(self, call: str) -> Any:
        left = self.next.get(call)
        return left.pop(0) if left else None

    def outcome(self, call: str, ordinary: Any) -> Deferred[Any]:
        """A Deferred for one call."""
        fault = self.take(call)
        if isinstance(fault, Deferred):
            return fault.addCallback(lambda _: ordinary)
        return succeed(ordinary) if fault is None else fail(fault)


class MemoryCursor:
    """See `wafermon.journal.Cursor`."""

    def __init__(self, journal: MemoryJournal, name: str, position: Position, new: bool) -> None:
        self.name = name
        self.new = new
        self.next = position
        self.kept = position
        self._journal = journal
        self._waiting: Deferred[None] | None = None

    @property
    def at_end(self) -> bool:
        return self.next == self._journal.end

    def seek(self, position: Position) -> None:
        self.next = position
        self.wake()

    async def read(self) -> Group:
        while True:
            await self._journal.faults.outcome("read", None)
            for group in self._journal.groups:
                if group.end > self.next:
                    found = group.after(self.next.offset)
                    self.next = found.end
                    return found
            self._waiting = Deferred()
            await self._waiting

    def wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.called:
            waiting.callback(None)

    def move(self, position: Position) -> None:
        self.kept = max(self.kept, min(position, self.next))


class MemoryJournal:
    """See `wafermon.journal.Journal`. One segment; a group is what one `put` takes."""

    message_bytes = 250.0
    formerly: Mapping[str, int] = MappingProxyType({})
    dir = Path("journal")

    def __init__(self, clock: Clock, routes: str) -> None:
        self.id = ID
        self.groups: list[Group] = []
        self.oldest = self.end = self.began = Position(ID, 1, 0)
        self.faults = Faults()
        self.fitting: set[str] = set()
        self.cursors: dict[str, MemoryCursor] = {}
        self.places: dict[str, Position] = {}
        self.forgotten: list[str] = []
        self.skipped: list[tuple[str, Position, Position]] = []
        self._clock = clock
        self._routes = routes

    def open_anew(self) -> None:
        """As when another process opens it."""
        self.began = self.end
        self.fitting = set()

    def had_when_opened(self, position: Position) -> bool:
        return position <= self.began

    def as_now(self, position: Position) -> Position | None:
        last = self.formerly.get(position.journal)
        if last is None:
            return position
        renamed = position._replace(journal=self.id)
        return renamed if position.segment <= last and self.had_when_opened(renamed) else None

    def put(self, numbers: Iterable[int], size: int = 0) -> None:
        """Accept these messages, as one group."""
        self.put_block(block(list(numbers), size))  # type: ignore[arg-type]

    def put_block(self, content: Block) -> None:
        start = self.end
        self.end = start._replace(offset=start.offset + len(content.raw) + MARK_BYTES)
        self.groups.append(Group(start, self.end, self.now(), self._routes, [(start.offset, content)]))
        for cursor in list(self.cursors.values()):
            cursor.wake()

    def delete_before(self, position: Position) -> None:
        """As when a segment is deleted."""
        self.oldest = position
        self.groups = [group for group in self.groups if group.end > position]

    def now(self) -> int:
        return NOW + int(self._clock.seconds() * 1e6)

    def sleep(self, seconds: float) -> Deferred[None]:
        done: Deferred[None] = Deferred(lambda _: call.cancel())
        call = self._clock.callLater(seconds, done.callback, None)
        return done

    def follow(self, position: Position) -> Position:
        return position

    def distance(self, position: Position) -> int:
        return self.end.offset - position.offset

    def received(self, position: Position) -> Deferred[int]:
        times = [group.time for group in self.groups if group.end > position]
        return self.faults.outcome("received", times[0] if times else 0)

    def settled(self) -> Deferred[None]:
        return self.faults.outcome("settled", None)

    def cursor(self, name: str, *, may_skip: bool = False) -> MemoryCursor:
        assert name not in self.cursors, "two read with one cursor"
        new = name not in self.places
        cursor = self.cursors[name] = MemoryCursor(self, name, self.places.setdefault(name, self.end), new)
        return cursor

    def detach(self, cursor: MemoryCursor) -> None:
        self.places[cursor.name] = cursor.kept
        del self.cursors[cursor.name]

    def forget(self, name: str) -> None:
        self.forgotten.append(name)
        self.places.pop(name, None)

    def stored(self, name: str) -> Position | None:
        return self.places.get(name)

    def known_cursors(self) -> dict[str, Held]:
        places = {**self.places, **{name: cursor.kept for name, cursor in self.cursors.items()}}
        return {
            name: Held(place, name in self.cursors, Stretch(1, self.distance(place), self.distance(place) // 250))
            for name, place in places.items()
        }

    def discard(self, name: str) -> Deferred[Stretch]:
        held = self.known_cursors().get(name)
        if held is None:
            return fail(UnknownCursor(name))
        self.forget(name)
        return self.faults.outcome("discard", held.holds)

    def note_skipped(self, name: str, start: Position, end: Position) -> None:
        self.skipped.append((name, start, end))

    def rewind(self, cursor: MemoryCursor, position: Position) -> Deferred[Missing | None]:
        assert position.journal != self.id or position <= self.end
        goal = max(position, self.oldest) if position.journal == self.id else self.oldest

        def set_back(_: object) -> Missing | None:
            cursor.kept = min(cursor.kept, goal)
            cursor.seek(goal)
            return None if goal == position else Missing(position, goal)

        return self.faults.outcome("rewind", None).addCallback(set_back)


class MemoryLetters:
    """See `wafermon.delivery.DeadLetters`."""

    def __init__(self) -> None:
        self.letters: list[Letter] = []
        self.faults = Faults()

    def put(self, letters: Sequence[Letter]) -> Deferred[None]:
        def store(_: object) -> None:
            known = {letter.id for letter in self.letters}
            self.letters.extend(letter for letter in letters if letter.id not in known)

        return self.faults.outcome("put", None).addCallback(store)
