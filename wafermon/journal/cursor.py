"""One consumer's place in the journal."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from wafermon.files import Files
from wafermon.journal.errors import CannotRead
from wafermon.journal.groups import Group
from wafermon.journal.segments import Reader
from wafermon.model.position import Position

RETRY_SECONDS = 1.0
GONE_TRIES = 60
"""So often a segment is not found, and it counts as removed: it may be that the file comes back to its name."""


class Source(Protocol):
    """What a cursor asks of its journal."""

    @property
    def dir(self) -> Path: ...
    @property
    def id(self) -> str: ...
    @property
    def files(self) -> Files: ...
    @property
    def end(self) -> Position:
        """Where the next group will start."""

    def follow(self, position: Position) -> Position:
        """The same place, as the start of the next segment where it is the end of one, or where its segment is gone."""

    def remembered(self, position: Position) -> Group | None:
        """The group that starts there, if it is in memory."""

    def read(self, reader: Reader, position: Position, routes: str | None) -> Deferred[list[Group]]:
        """See `Reader.read`."""

    def sleep(self, seconds: float) -> Deferred[None]: ...
    def checkpoint_soon(self) -> None: ...
    def pass_over_removed(self, name: str, position: Position) -> Position | None:
        """Something removed the segment that is read at `position`: count what is lost, and answer with where the next one starts.
        None where it may come back."""

    def note_delivered(self, name: str, start: Position, end: Position) -> None:
        """A stretch that was skipped when it had been read is done with."""


class _ReadAhead(NamedTuple):
    """A stretch of one segment that was released when it had been read, and was not done with."""

    start: Position
    end: Position
    messages: int
    upto: Position
    """`end`, but where that is the segment's own, the start of the next one."""

    def after(self, done: Position) -> int:
        """How many of its messages stand there or later."""
        if done >= self.end:
            return 0
        size = self.end.offset - self.start.offset
        return math.ceil(self.messages * (self.end.offset - max(self.start, done).offset) / size)


class Cursor:
    """Reads groups in order: those that were just committed from memory, older ones from disk. `move` releases what was
    consumed."""

    log = Logger()

    def __init__(self, source: Source, name: str, position: Position, *, may_skip: bool, new: bool = False) -> None:
        self.name = name
        self.may_skip = may_skip
        self.new = new
        """Whether the journal did not know the name: what lies before is not for it."""
        self.next = position
        """Where it reads next."""
        self.kept = position
        """What lies before may be deleted."""
        self.error = ""
        """Why it can't read just now; else empty."""
        self._done = position
        """What lies before is done with, or was dropped unread."""
        self._ahead: list[_ReadAhead] = []
        self._source = source
        self._routes: str | None = None
        self._reader = Reader(source.dir, source.id, source.files)
        self._ready: list[Group] = []
        self._not_found = 0
        """So often in a row the file of its segment was not there."""
        self._waiting: Deferred[None] | None = None
        self._fetching: Deferred[list[Group]] | None = None
        """A read that is in a thread. What waited for it may be gone."""

    @property
    def at_end(self) -> bool:
        """Whether everything committed has been read."""
        return not self._ready and self._source.follow(self.next) == self._source.end

    def seek(self, position: Position) -> None:
        """Read on from there, which is the start of a line. What is before `kept` may be gone: see `Journal.rewind`."""
        self.next, self._routes, self._ready = position, None, []
        self.wake()

    async def read(self) -> Group:
        """The next group, or what is left of it; waits for one. Its `start` lies after where the last one ended where
        segments were skipped. Cancel the Deferred that waits for it to stop; it may be called again then. A disk that fails is
        tried again and again; raises CannotRead for any other fault."""
        while True:
            if self.next < self.kept:
                self.seek(self.kept)
            group = self._ready.pop(0) if self._ready else self._source.remembered(self.next)
            if group is not None:
                self.next = self._source.follow(group.end)
                self._routes = group.routes if self.next.segment == group.end.segment else None
                return group
            if self.at_end:
                self._waiting = Deferred()
                await self._waiting
            else:
                await self._read_disk()

    async def _read_disk(self) -> None:
        """Fill `_ready`."""
        while self._fetching is not None:  # of a caller that was cancelled
            await self._turn(self._fetching)
        position = self.next = self._source.follow(self.next)
        try:
            groups = await self._fetch(position, self._routes if position.offset else None)
        except OSError as error:
            if self._is_removed(error, position):
                return
            if position >= self.kept:
                message = "Cursor {cursor} can't read the journal at {position}, trying again: {error}"
                if not self.error:
                    self.log.error(message, cursor=self.name, position=position, error=error)
                self.error = f"can't read the journal at {position}: {error}"
                await self._source.sleep(RETRY_SECONDS)
            return
        except _Fault as fault:
            if position < self.kept:  # it was skipped meanwhile: the fault is of no interest
                return
            self.error = f"can't read the journal at {position}: {fault.cause}"
            raise CannotRead(self.name, position, fault.cause) from fault.cause
        self.error, self._not_found = "", 0
        if self.next == position:
            self._ready = groups

    def _is_removed(self, error: OSError, position: Position) -> bool:
        """Whether the segment is gone for good; then the next one is read."""
        self._not_found = self._not_found + 1 if isinstance(error, FileNotFoundError) else 0
        if self._not_found < GONE_TRIES or position < self.kept:
            return False
        after = self._source.pass_over_removed(self.name, position)
        if after is None:
            return False
        self.error, self._not_found = "", 0
        self.seek(after)
        return True

    def _fetch(self, position: Position, routes: str | None) -> Deferred[list[Group]]:
        """Read in a thread, which goes on when this is cancelled."""
        inner = self._fetching = self._source.read(self._reader, position, routes)
        outer: Deferred[list[Group]] = Deferred()

        def done(result: list[Group] | Failure) -> None:
            self._fetching = None
            if not isinstance(result, Failure):
                outer.callback(result)
            elif isinstance(result.value, OSError):
                outer.errback(result)
            else:
                outer.errback(_Fault(result.value))

        inner.addBoth(done)
        return outer

    @staticmethod
    def _turn(fetching: Deferred[list[Group]]) -> Deferred[None]:
        """Fires after a read has ended, however."""
        over: Deferred[None] = Deferred()

        def ended(result: object) -> object:
            if not over.called:
                over.callback(None)
            return result

        fetching.addBoth(ended)
        return over

    def wake(self) -> None:
        """There is something to read."""
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            if not waiting.called:
                waiting.callback(None)

    def move(self, position: Position) -> None:
        """Everything before `position` is done with, durably. What is lower than an earlier one changes nothing, so that
        several batches may end in any order; and what was not read since the last `seek` is never done with."""
        before = self.kept
        done = min(position, self.next)
        self.kept = max(before, self._source.follow(done))
        self._done = max(self._done, done)
        for one in self._ahead:
            if one.end <= self._done:
                self._source.note_delivered(self.name, one.start, one.upto)
        self._ahead = [one for one in self._ahead if one.end > self._done]
        if before.segment != self.kept.segment:
            self._source.checkpoint_soon()

    def skip(self, end: Position, position: Position, read: int) -> None:
        """Skip the segment that ends at `end`: `kept` is at least `position`, the start of the next one. So many messages of
        it had been read; their reader may still be done with them."""
        if read:
            upto = position if self.next >= end else self.next
            self._ahead.append(_ReadAhead(self.kept, min(self.next, end), read, upto))
        self.kept = max(self.kept, position)

    def begin_again(self, position: Position, stored: Position | None = None) -> int:
        """The reader forgets what was read and is not done with, and begins again at `position`: answers with how many messages
        of what was dropped never come then. `stored` is how far it is done with besides, where that is known."""
        done = max(self._done, stored) if stored else self._done
        lost = sum(one.after(done) - one.after(max(done, position)) for one in self._ahead)
        self._ahead = []
        self._done = position
        return lost

    def close(self) -> None:
        """Nobody reads with it any more."""
        self._reader.close()


class _Fault(Exception):
    """Wraps what a thread raised, so that a CancelledError of its own is told from one of a caller that stops reading."""

    def __init__(self, cause: BaseException | None) -> None:
        self.cause = cause or Exception()
        super().__init__(str(cause))
