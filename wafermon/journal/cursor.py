"""One consumer's place in the journal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from wafermon.journal.groups import Group
from wafermon.journal.segments import Reader
from wafermon.model.position import Position

if TYPE_CHECKING:
    from wafermon.journal.journal import Journal

RETRY_SECONDS = 1.0


class Cursor:
    """Reads groups in order: those that were just committed from memory, older ones from disk. `move` lets go of what is
    behind."""

    log = Logger()

    def __init__(self, journal: Journal, name: str, position: Position, *, may_skip: bool, new: bool = False) -> None:
        self.name = name
        self.may_skip = may_skip
        self.new = new
        """Whether the journal did not know the name: what lies before is not for it."""
        self.next = position
        """Where it reads next."""
        self.kept = position
        """What lies before may be deleted."""
        self._journal = journal
        self._routes: str | None = None
        self._reader = Reader(journal.dir, journal.id)
        self._ready: list[Group] = []
        self._waiting: Deferred[None] | None = None
        self._reading = False
        self._closed = False

    @property
    def at_end(self) -> bool:
        """Whether everything committed has been read."""
        return not self._ready and self._journal.follow(self.next) == self._journal.end

    def seek(self, position: Position) -> None:
        """Read on from there, which is the start of a line."""
        self.next, self._routes, self._ready = position, None, []

    async def read(self) -> Group:
        """The next group, or what is left of it; waits for one. Its `start` lies behind where the last one ended where
        segments were skipped. Cancel the Deferred that waits for it to stop."""
        while True:
            if self.next < self.kept:
                self.seek(self.kept)
            group = self._ready.pop(0) if self._ready else self._journal.remembered(self.next)
            if group is not None:
                self.next = self._journal.follow(group.end)
                self._routes = group.routes if self.next.segment == group.end.segment else None
                return group
            if self.at_end:
                self._waiting = Deferred()
                await self._waiting
            else:
                await self._read_disk()

    async def _read_disk(self) -> None:
        """Fill `_ready`."""
        position = self.next = self._journal.follow(self.next)
        routes = self._routes if position.offset else None
        self._reading = True
        try:
            groups = await self._journal.read(self._reader, position, routes)
        except OSError as error:
            if position >= self.kept:
                message = "Cursor {cursor} can't read the journal at {position}, trying again: {error}"
                self.log.error(message, cursor=self.name, position=position, error=error)
                await self._journal.sleep(RETRY_SECONDS)
            return
        finally:
            self._reading = False
            if self._closed:
                self._reader.close()
        if self.next == position:
            self._ready = groups

    def wake(self) -> None:
        """There is something to read."""
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            if not waiting.called:
                waiting.callback(None)

    def move(self, position: Position) -> None:
        """Everything before `position` is done with, durably."""
        before, self.kept = self.kept, max(self.kept, self._journal.follow(position))
        if before.segment != self.kept.segment:
            self._journal.checkpoint_soon()

    def close(self) -> None:
        self._closed = True
        if not self._reading:
            self._reader.close()
