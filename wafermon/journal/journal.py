"""The journal: every accepted message on disk before it is acknowledged, and cursors that read it again.

Promises (docs/journal.md tells the reasons):

- An entry is announced (`Entry.settled`) only once its group is written and, with ``sync: always``, synced.
- Groups are whole or not there; entries keep the order in which they were appended.
- A position is never used twice, whatever fails.
- A segment is deleted only when every cursor's durable lower bound is behind it.
- A failing disk loses nothing and ends nothing: entries wait, `congested` says so, and all goes on by itself.

All public methods run in the reactor's thread and never block; the disk's work is done by one thread of its own.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from wafermon.journal.cursor import Cursor
from wafermon.journal.groups import Group, Mark, Rejected
from wafermon.journal.latency import Latency
from wafermon.journal.marks import Marks, Stream
from wafermon.journal.segments import Reader
from wafermon.journal.storage import MARKS_CURSOR, Disk
from wafermon.model.blocks import Block
from wafermon.model.position import Position
from wafermon.model.settings import Journal as JournalSettings

GROUP_BYTES = 512 << 10
"""A group is cut when it holds this much."""
IN_FLIGHT_BYTES = 1 << 20
"""What waits to be written, before receivers pause."""
TAIL_BYTES = 4 << 20
"""Committed groups that stay in memory for the cursors that keep up."""
MESSAGE_BYTES = 250.0
"""What a message takes, as long as none has come that says more."""
RETRY_SECONDS = 1.0
FULL_SECONDS = 0.1
"""How often a full journal looks for room."""
SYNC_SECONDS = 1.0
"""How often ``sync: interval`` syncs."""
MARKS_IN_MEMORY = 10_000

_DISK_ERRORS = (OSError, sqlite3.Error)


@dataclass(slots=True)
class Entry:
    """What one append hands over."""

    block: Block | None = None
    rejected: Sequence[Rejected] = ()
    stream: Stream | None = None
    seq: int = 0
    """The stream's mark once this is durable."""
    settled: Callable[[], None] | None = None
    """Called once this is durable."""

    @property
    def size(self) -> int:
        return (len(self.block.raw) if self.block else 0) + sum(200 + len(one.line) for one in self.rejected)


@dataclass
class Figures:
    """Counters since the start."""

    groups: int = 0
    messages: int = 0
    bytes: int = 0
    rejected: int = 0
    failures: int = 0
    """Writes and syncs that failed."""
    ack: Latency = field(default_factory=Latency)
    """For each group, how long its oldest entry waited until the group was durable."""
    skipped_segments: dict[str, int] = field(default_factory=dict)
    """By cursor: segments let go because the journal was full and the cursor may skip."""


class Journal:
    """Open with `open`, then `append` and `cursor`; `close` writes everything that waits."""

    log = Logger()

    def __init__(
        self,
        settings: JournalSettings,
        reactor: Any,
        writer: ThreadPool,
        readers: ThreadPool,
        *,
        wall: Callable[[], float] | None = None,
        probe: Callable[[str], None] = lambda point: None,
    ) -> None:
        """`reactor` is a clock that takes calls from threads; `wall` says the date, if that clock does not. `writer` has one thread, which nobody else uses. `probe` is
        told the points of the journal's life by name."""
        self.settings = settings
        self.dir = settings.dir
        self.figures = Figures()
        self.failing = ""
        """What is wrong with the disk just now."""
        self.id = ""
        self.marks: Marks
        self._reactor = reactor
        self._wall = wall or reactor.seconds
        self._writer = writer
        self._readers = readers
        self._probe = probe
        self._disk = Disk(settings, probe)
        self._lengths: dict[int, int] = {}
        self._routes = "[]"
        self._pending: list[Entry] = []
        self._pending_bytes = 0
        self._pending_since = 0.0
        self._writing_bytes = 0
        self._writing_since = 0.0
        self._busy = False
        self._closing = False
        self._flushed: Deferred[None] | None = None
        self._relief: deque[Callable[[], None]] = deque()
        self._tail: dict[Position, Group] = {}
        self._tail_bytes = 0
        self._cursors: dict[str, Cursor] = {}
        self._watchers: list[Callable[[Group], None]] = []
        self._stored: dict[str, Position] = {}
        self._dropped: set[str] = set()
        self._last_time = 0
        self._checkpointing = False
        self._sync_call: IDelayedCall | None = None

    def open(self, routes: str) -> None:
        """Take the directory, recover what is there, begin a new segment; `routes` is the table in force. Blocks for as
        long as reading the segments since the last checkpoint takes. Raises JournalLocked, OSError or sqlite3.Error."""
        recovered = self._disk.open()
        state = self._disk.state
        self.id = state.journal
        self.marks = Marks(state.mark, state.marks_of)
        self.marks.recover(recovered.marks)
        self._lengths = recovered.lengths
        self._last_time = recovered.last_time
        self._stored = state.cursors()
        self._routes = routes

    async def close(self) -> None:
        """Write what waits, save where everybody is, let go of the directory."""
        self._closing = True
        if self._busy:
            self._flushed = Deferred()
            await self._flushed
        if self._sync_call is not None:
            self._sync_call.cancel()
        while self._checkpointing:
            await self.sleep(0.01)
        try:
            await self._in_writer(self._disk.sync)
            await self._checkpoint()
        except _DISK_ERRORS as error:
            self.log.error("The journal's last checkpoint failed: {error}", error=error)
        for cursor in self._cursors.values():
            cursor.close()
        self._disk.close()

    def sleep(self, seconds: float) -> Deferred[None]:
        """Fires after so many seconds."""
        call: IDelayedCall
        done: Deferred[None] = Deferred(lambda _: call.cancel())
        call = self._reactor.callLater(seconds, done.callback, None)
        return done

    def _in_writer(self, call: Callable[..., Any], *args: Any) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._writer, call, *args)

    def read(self, reader: Reader, position: Position, routes: str | None) -> Deferred[list[Group]]:
        """See `Reader.read`."""
        return deferToThreadPool(self._reactor, self._readers, self._read, reader, position, routes)

    def _read(self, reader: Reader, position: Position, routes: str | None) -> list[Group]:
        groups = reader.read(position, routes, self._lengths[position.segment])
        for group in groups:
            if group.damaged:
                self._disk.set_aside(group.start, group.damaged)
        return groups

    # -- what the receivers see

    @property
    def congested(self) -> bool:
        """Whether appending should wait for `on_relief`."""
        return self._pending_bytes + self._writing_bytes > IN_FLIGHT_BYTES

    def on_relief(self, call: Callable[[], None]) -> None:
        """Call once when appending may go on."""
        self._relief.append(call)

    @property
    def idle(self) -> bool:
        """Whether everything that was appended is committed."""
        return not self._busy and not self._pending

    @property
    def size(self) -> int:
        """The bytes of all segments."""
        return sum(self._lengths.values())

    @property
    def damaged(self) -> int:
        """Stretches that could not be read and were set aside."""
        return self._disk.damaged

    @property
    def full(self) -> bool:
        """Whether a group more would be beyond the quota."""
        return 0 < self.settings.max_bytes < self.size + self._pending_bytes

    def now(self) -> int:
        """The receive time, in microseconds since the epoch. It never goes back, not over a restart either."""
        self._last_time = max(self._last_time, int(self._wall() * 1_000_000))
        return self._last_time

    def append(self, entry: Entry) -> None:
        """Take an entry. Its `settled` is called once it is durable, however long that takes."""
        if not self._pending:
            self._pending_since = self._reactor.seconds()
        self._pending.append(entry)
        self._pending_bytes += entry.size
        self._start()

    def settled(self) -> Deferred[None]:
        """Fires once everything that has been appended by now is committed."""
        done: Deferred[None] = Deferred()
        self.append(Entry(settled=partial(done.callback, None)))
        return done

    def change(self, settings: JournalSettings) -> None:
        """Go on with other settings; the directory stays."""
        self.settings = self._disk.settings = settings

    def set_routes(self, routes: str) -> None:
        """From here on messages are routed by this table."""
        self._routes = routes

    # -- group commit

    def _start(self) -> None:
        if not self._busy and self._pending:
            self._busy = True
            self._reactor.callLater(0, self._cut_group)

    def _cut_group(self) -> None:
        if not self._closing and not self._make_room():
            self._reactor.callLater(FULL_SECONDS, self._cut_group)
            return
        size = count = 0
        for entry in self._pending:
            size += entry.size
            count += 1
            if size >= GROUP_BYTES:
                break
        entries = self._pending[:count]
        del self._pending[:count]
        self._pending_bytes -= size
        self._writing_bytes = size
        self._writing_since = self._pending_since
        self._write(entries, self.now())

    def _write(self, entries: list[Entry], time: int) -> None:
        blocks = [entry.block for entry in entries if entry.block]
        rejected = [one for entry in entries for one in entry.rejected]
        last = {entry.stream: entry.seq for entry in entries if entry.stream}
        marks = [Mark(stream.principal, stream.client, seq) for stream, seq in last.items()]
        written = self._in_writer(self._disk.write, blocks, rejected, marks, time, self._routes)
        written.addCallbacks(
            self._committed,
            self._failed,
            callbackArgs=(entries,),
            errbackArgs=(entries, time),
        )
        written.addErrback(lambda failure: self.log.failure("A fault of the journal's own", failure))

    def _committed(self, group: Group, entries: list[Entry]) -> None:
        if self.failing:
            self.log.info("The journal can write again")
            self.failing = ""
        self._busy = False
        self._writing_bytes = 0
        self.figures.ack.add(max(0.0, self._reactor.seconds() - self._writing_since))
        self._lengths[group.start.segment] = group.end.offset
        self._remember(group)
        self._probe("before ack")
        for entry in entries:
            if entry.stream is not None:
                self.marks.synced(entry.stream, entry.seq)
            if entry.settled is not None:
                entry.settled()
        self._probe("after ack")
        self._start()
        self._relieve()
        self._reactor.callLater(0, self._tell, group)
        if self.settings.sync == "interval" and self._sync_call is None:
            self._sync_call = self._reactor.callLater(SYNC_SECONDS, self._sync)
        if self._disk.sealed or self.marks.pressing(MARKS_IN_MEMORY):
            self._disk.sealed = False
            self.checkpoint_soon()
        if not self._busy and self._flushed is not None:
            self._flushed.callback(None)

    def _tell(self, group: Group) -> None:
        """Whoever reads the journal has its turn after the acks have gone, and while the next group is written."""
        for cursor in list(self._cursors.values()):
            cursor.wake()
        for watcher in self._watchers:
            watcher(group)
        for _, block in group.blocks:
            block.release()

    def _failed(self, failure: Failure, entries: list[Entry], time: int) -> None:
        self.figures.failures += 1
        if not isinstance(failure.value, _DISK_ERRORS):
            self.log.failure("A fault of the journal's own: this group is tried again", failure)
        elif not self.failing:
            message = "Can't write to the journal in {dir}: {error}. Nothing is acknowledged until that works again"
            self.log.error(message, dir=self.dir, error=failure.value)
        self.failing = f"can't write to {self.dir}: {failure.value}"
        if self._closing and self._flushed is not None:
            message = "Closing with {bytes} bytes that could not be written, and were not acknowledged"
            self.log.error(message, bytes=self._writing_bytes + self._pending_bytes)
            self._flushed.callback(None)
            return
        self._disk.drop_reserve()
        self.checkpoint_soon()
        self._reactor.callLater(RETRY_SECONDS, self._write, entries, time)

    def _sync(self) -> None:
        self._sync_call = None
        synced = self._in_writer(self._disk.sync)
        synced.addErrback(lambda failure: self.log.error("The journal can't sync: {error}", error=failure.value))

    def _remember(self, group: Group) -> None:
        self.figures.groups += 1
        self.figures.bytes += group.end.offset - group.start.offset
        self.figures.rejected += len(group.rejected)
        self.figures.messages += sum(block.count for _, block in group.blocks)
        self._tail[group.start] = group
        self._tail_bytes += group.end.offset - group.start.offset
        # A cursor that has fallen behind the tail reads the disk anyway: it keeps nothing here.
        first = next(iter(self._tail))
        read = min((cursor.next for cursor in self._cursors.values() if cursor.next >= first), default=group.end)
        while self._tail:
            start = next(iter(self._tail))
            if start >= read and self._tail_bytes <= TAIL_BYTES:
                break
            self._tail_bytes -= self._tail.pop(start).end.offset - start.offset

    def _relieve(self) -> None:
        while self._relief and not self.congested:
            self._relief.popleft()()

    def watch(self, watcher: Callable[[Group], None]) -> Callable[[], None]:
        """Show a watcher each group from now on, just after it was committed and told to its clients. It must be quick,
        and never raise. Answers with a call that ends this."""
        self._watchers = [*self._watchers, watcher]

        def stop() -> None:
            self._watchers = [one for one in self._watchers if one is not watcher]

        return stop

    # -- cursors

    @property
    def _newest(self) -> int:
        return next(reversed(self._lengths))

    @property
    def end(self) -> Position:
        """Where the next group will start, or a place that reads the same."""
        return Position(self.id, self._newest, self._lengths[self._newest])

    @property
    def oldest(self) -> Position:
        """The first place that can be read."""
        return Position(self.id, next(iter(self._lengths)), 0)

    def follow(self, position: Position) -> Position:
        """The same place, as the start of the next segment where it is the end of one."""
        while position.segment < self._newest and position.offset >= self._lengths.get(position.segment, 0):
            later = next(number for number in self._lengths if number > position.segment)
            position = Position(position.journal, later, 0)
        return position

    def distance(self, position: Position) -> int:
        """The bytes from a position to the end."""
        behind = sum(length for number, length in self._lengths.items() if number >= position.segment)
        return behind - (position.offset if position.segment in self._lengths else 0)

    def segment_before(self, until: Position, most: int) -> Position:
        """The start of the oldest segment from which at most so many bytes lie before `until`; else of the one that
        ends there."""
        behind = self.distance(until)
        starts = [Position(self.id, number, 0) for number in self._lengths if number <= until.segment]
        near = [start for start in starts if self.distance(start) - behind <= most]
        last = [start for start in starts if self._lengths[start.segment] and start < until]
        return min([*near, *last[-1:]], default=until)

    def received(self, position: Position) -> Deferred[int]:
        """When the group that stands there, or that `position` lies within, was received, in microseconds since the
        epoch; 0 where nothing does. Fails with OSError."""
        return Deferred.fromCoroutine(self._received(self.follow(position)))

    async def _received(self, position: Position) -> int:
        group = self.remembered(position)
        if group is None and position < self.end:
            reader = Reader(self.dir, self.id)
            group = (await self.read(reader, position, None))[0]
            reader.close()
        return group.time if group else 0

    @property
    def message_bytes(self) -> float:
        """What a message takes on the average since the start, with its share of the journal's own lines."""
        return self.figures.bytes / self.figures.messages if self.figures.messages else MESSAGE_BYTES

    def remembered(self, position: Position) -> Group | None:
        """The group that starts there, if it is still in memory."""
        return self._tail.get(self.follow(position))

    def known_cursors(self) -> set[str]:
        """The names of all cursors that hold segments, also where nobody reads with them now."""
        return {*self._stored, *self._cursors} - {MARKS_CURSOR}

    def cursor(self, name: str, *, may_skip: bool = False) -> Cursor:
        """A consumer's cursor: where it was, or, for a new name, at the end. Where it is not known any more who has read
        what, at the beginning."""
        known = name in self._stored or self._disk.state.lost >= self.oldest.segment
        position = self._stored.setdefault(name, self.oldest if known else self.end)
        self._dropped.discard(name)
        cursor = self._cursors[name] = Cursor(self, name, max(position, self.oldest), may_skip=may_skip, new=not known)
        self.checkpoint_soon()
        return cursor

    def detach(self, cursor: Cursor) -> None:
        """Nobody reads with it for now; its place is kept and holds its segments."""
        cursor.close()
        self._stored[cursor.name] = cursor.kept
        self._cursors.pop(cursor.name, None)

    def stored(self, name: str) -> Position | None:
        """Where a cursor with which nobody reads now is; None for an unknown name."""
        return self._stored.get(name)

    def forget(self, name: str) -> None:
        """This cursor holds nothing any more."""
        cursor = self._cursors.pop(name, None)
        if cursor is not None:
            cursor.close()
        self._stored.pop(name, None)
        self._dropped.add(name)
        self.checkpoint_soon()

    def _make_room(self) -> bool:
        """Whether a group may be written. Cursors that may skip let go of the oldest segment, if they alone hold it."""
        oldest = self.oldest.segment
        if not self.full or oldest == self._newest:
            return True
        holders = [cursor for cursor in self._cursors.values() if cursor.kept.segment <= oldest]
        detached = [name for name in self.known_cursors() - set(self._cursors) if self._stored[name].segment <= oldest]
        if not detached and all(cursor.may_skip for cursor in holders):
            after = self.follow(Position(self.id, oldest, self._lengths[oldest]))
            for cursor in holders:
                count = self.figures.skipped_segments.get(cursor.name, 0) + 1
                self.figures.skipped_segments[cursor.name] = count
                message = "The journal is full: {cursor} skips segment {segment}; {count} skipped since the start"
                self.log.error(message, cursor=cursor.name, segment=oldest, count=count)
                cursor.kept = after
        self.checkpoint_soon()
        return not self.full

    # -- checkpoints

    def checkpoint_soon(self) -> None:
        """Save where everybody is, and let go of what nobody needs any more."""
        if not self._checkpointing and not self._closing:
            self._checkpointing = True
            self._reactor.callLater(0, self._checkpoint_now)

    def _checkpoint_now(self) -> None:
        def done(result: object) -> None:
            self._checkpointing = False
            if isinstance(result, Failure) and not self.failing:
                self.log.error("A checkpoint of the journal failed: {error}", error=result.value)

        Deferred.fromCoroutine(self._checkpoint()).addBoth(done)

    async def _checkpoint(self) -> None:
        marks = self.marks.moved()
        dropped = set(self._dropped)
        held = {
            **self._stored,
            **{name: cursor.kept for name, cursor in self._cursors.items()},
            MARKS_CURSOR: self.end,
        }
        await self._in_writer(self._disk.save, {**dict.fromkeys(dropped), **held}, marks, self.now())
        self.marks.saved(marks)
        self._dropped -= dropped
        self._stored.update({name: position for name, position in held.items() if name not in self._dropped})
        needed = min(position.segment for position in self._stored.values())
        gone = [number for number in self._lengths if number < needed and number != self._newest]
        if gone:
            await self._in_writer(self._disk.delete, gone)
            for number in gone:
                del self._lengths[number]
