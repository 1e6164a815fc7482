"""The journal: every accepted message on disk before it is acknowledged, and cursors that read it again.

Promises (docs/journal.md tells the reasons):

- An entry is announced (`Entry.settled`) only once its group is written and, with ``sync: always``, synced.
- Groups are whole or not there; entries keep the order in which they were appended.
- A position is never used twice, whatever fails.
- A segment is deleted only when every cursor's durable lower bound is past it.
- A failing disk loses nothing and ends nothing: entries wait, `congested` says so, and all goes on by itself.

All public methods run in the reactor's thread and never block; the disk's work is done by one thread of its own.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from twisted.internet.defer import Deferred, DeferredLock, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from wafermon.files import Files
from wafermon.journal.clock import Clock
from wafermon.journal.cursor import Cursor
from wafermon.journal.errors import CursorInUse, UnknownCursor
from wafermon.journal.groups import Group, Mark, Presence, Rejected, Stamp
from wafermon.journal.index import MESSAGE_BYTES, Index, Stretch
from wafermon.journal.latency import Latency
from wafermon.journal.marks import Marks, Stream
from wafermon.journal.places import Held, Places
from wafermon.journal.segments import Reader
from wafermon.journal.skips import Skip, Skips
from wafermon.journal.storage import MARKS_CURSOR, Disk
from wafermon.journal.tail import Tail
from wafermon.model.blocks import Block, melted
from wafermon.model.position import Position
from wafermon.model.settings import Journal as JournalSettings

GROUP_BYTES = 512 << 10
"""A group is cut when it holds this much."""
IN_FLIGHT_BYTES = 1 << 20
"""What waits to be written, before receivers pause."""
RETRY_SECONDS = 1.0
FULL_SECONDS = 0.1
"""How often a full journal looks for room."""
SYNC_SECONDS = 1.0
"""How often ``sync: interval`` syncs."""
SLOW_SECONDS = 10.0
"""A write that has not ended by then shows as failing."""
MARKS_IN_MEMORY = 10_000

T = TypeVar("T")
_DISK_ERRORS = (OSError, sqlite3.Error)


class Missing(NamedTuple):
    """What a cursor was set back to and the journal does not hold any more."""

    start: Position
    end: Position
    """Where it goes on instead."""


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
    presence: Sequence[Presence] = ()
    """Connections that began and ended."""

    @property
    def size(self) -> int:
        size = self.block.size if self.block else 0
        return size + sum(200 + len(one.line) for one in self.rejected) + 100 * len(self.presence)


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
    """By cursor: segments dropped because the journal was full and the cursor may skip."""
    skipped_messages: dict[str, int] = field(default_factory=dict)
    """By cursor: the messages in them that were not delivered, whichever backend they were for. What had been read counts only once it
    is clear that it is not delivered any more."""
    discarded_messages: int = 0
    """Those that cursors had not passed which were discarded."""
    raised: int = 0
    """Callbacks and watchers that raised; the log says what."""


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
        files: Files | None = None,
    ) -> None:
        """`reactor` is a clock that takes calls from threads; `wall` says the date, if that clock does not. `writer` has one
        thread, which nobody else uses. `probe` is told the points of the journal's life by name. `files` is the disk."""
        self.settings = settings
        self.dir: Path = settings.dir
        self.files = files or Files()
        self.figures = Figures()
        self.id = ""
        self.marks: Marks
        self._reactor = reactor
        self._clock = Clock(wall or reactor.seconds, reactor.seconds)
        self._writer = writer
        self._readers = readers
        self._probe = probe
        self._disk = Disk(settings, probe, self.files)
        self.formerly: Mapping[str, int] = {}
        """The ids that it had before, each with the last segment of then: see `State.renew`."""
        self.began: Position
        """Where its end was when it was opened: what this process appends lies after that."""
        self.fitting: set[str] = set()
        """The cursors whose backends have said once in this process where they stand, and that fitted: see `Delivery`."""
        self._index: Index
        self._places: Places
        self._skips = Skips({})
        self._tail = Tail()
        self._fault = ""
        self._routes = "[]"
        self._pending: list[Entry] = []
        self._pending_bytes = 0
        self._pending_since = 0.0
        self._writing_bytes = 0
        self._writing_since = 0.0
        self._tried_at: float | None = None
        """When the write began that is in the thread."""
        self._busy = False
        self._closing = False
        self._flushed: Deferred[None] | None = None
        self._relief: deque[Callable[[], None]] = deque()
        self._watchers: list[Callable[[Group], None]] = []
        self._doomed: dict[int, int] = {}
        """Segments that nobody needs and that are still there, with their lengths."""
        self._saving = DeferredLock()
        self._looking = DeferredLock()
        self._checkpoint_due = False
        self._sync_call: IDelayedCall | None = None

    def open(self, routes: str) -> None:
        """Take the directory, recover what is there, begin a new segment; `routes` is the table in force. Blocks for as
        long as reading the segments since the last checkpoint takes. Raises JournalLocked or CannotOpen, and holds nothing
        then. Where the disk is full it opens all the same, `failing`, so that what it holds can be delivered."""
        recovered = self._disk.open()
        state = self._disk.state
        self.id = state.journal
        self.marks = Marks(state.mark)
        self.marks.recover(recovered.marks)
        self._index = Index(self.id, recovered.lengths, recovered.messages, recovered.gone)
        self.began = self._index.end
        self.formerly = state.formerly
        self._clock.begin(recovered.time, recovered.known)
        # The marks' place is the journal's own: each checkpoint says it anew, and an earlier one must not hold segments.
        places = {name: place for name, place in state.cursors().items() if name != MARKS_CURSOR}
        self._places = Places(places, state.stepped_over())
        self._skips = Skips(state.skips())
        self._routes = routes
        self._fault = self._disk.full

    async def close(self) -> None:
        """Write what waits, save where each cursor is, release the directory. A disk that fails ends nothing: what was not
        written was not acknowledged."""
        self._closing = True
        if self._busy:
            self._flushed = Deferred()
            await self._flushed
        if self._sync_call is not None:
            self._sync_call.cancel()
        for call in (partial(self._in_writer, self._disk.sync), partial(self._checkpointed)):
            try:
                await call()
            except Exception as error:  # noqa: BLE001  # whatever it is, the directory is released
                self.log.error("The journal's last checkpoint failed: {error}", error=error)
        for cursor in self._places.cursors.values():
            cursor.close()
        await self._in_writer(self._disk.close)

    def seconds(self) -> float:
        """A monotone clock."""
        return float(self._reactor.seconds())

    def sleep(self, seconds: float) -> Deferred[None]:
        """Fires after so many seconds."""
        call: IDelayedCall
        done: Deferred[None] = Deferred(lambda _: call.cancel())
        call = self._reactor.callLater(seconds, done.callback, None)
        return done

    def _in_writer(self, call: Callable[..., Any], *args: Any) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._writer, call, *args)

    def read(self, reader: Reader, position: Position, routes: str | None) -> Deferred[list[Group]]:
        """See `Reader.read`. Empty where the segment is not there any more."""
        stop = self._index.length(position.segment)
        return deferToThreadPool(self._reactor, self._readers, self._read, reader, position, routes, stop)

    def _read(self, reader: Reader, position: Position, routes: str | None, stop: int) -> list[Group]:
        if position.offset >= stop:
            return []
        groups = reader.read(position, routes, stop)
        for group in groups:
            if group.damaged is not None:
                self._disk.set_aside(group.start, group.damaged, group.fault)
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
    def failing(self) -> str:
        """What is wrong with the disk just now; else empty."""
        waited = self._reactor.seconds() - self._tried_at if self._tried_at is not None else 0.0
        if not self._fault and waited > SLOW_SECONDS:
            return f"{self.dir} has not answered for {waited:.0f} s"
        return self._fault

    @property
    def size(self) -> int:
        """The bytes of all segments."""
        return self._index.size + sum(self._doomed.values())

    @property
    def damaged(self) -> int:
        """Stretches that could not be read and were set aside."""
        return self._disk.damaged

    @property
    def full(self) -> bool:
        """Whether a group more would be beyond the quota."""
        return 0 < self.settings.max_bytes < self.size + self._pending_bytes

    def now(self) -> int:
        """The receive time, in microseconds since the epoch. It goes back only where the date was wrong: see `Clock`."""
        return self._clock.now()

    def elapsed(self) -> int:
        """What durations and deadlines are measured on, in microseconds: the same time as `Group.elapsed`. Nobody sets it, and
        it goes on over restarts; its zero means nothing."""
        return self._clock.elapsed()

    @property
    def away(self) -> int:
        """So much `elapsed` had passed at the start since the last that is known of before, in microseconds."""
        return self._clock.away

    @property
    def clock_fault(self) -> str:
        """What is wrong with the date just now, for health; else empty."""
        return self._clock.fault

    @property
    def steps_back(self) -> int:
        """How often the receive time went back since the start."""
        return self._clock.steps_back

    def hold(self, principal: str, client: str) -> Deferred[Stream]:
        """The stream of a client that has connected, as `Marks.hold`, but what the disk has to say is asked in a thread.
        Fails with sqlite3.Error. Who has it releases it with `Marks.release`."""
        return Deferred.fromCoroutine(self._hold(principal, client))

    async def _hold(self, principal: str, client: str) -> Stream:
        marks, state = self.marks, self._disk.state
        while not marks.known(principal, client):
            saves = marks.saves
            seq = await self._look(state.mark, principal, client)
            if marks.saves == saves:  # else it may have been here, gone further, and left
                return marks.hold(principal, client, seq)
        return marks.hold(principal, client)

    async def _look(self, call: Callable[..., T], *args: str) -> T:
        """Ask the state in a thread, one question at a time: a disk that hangs takes one thread, and what is asked by those who
        have gone meanwhile is never asked."""
        await self._looking.acquire()
        answer: Deferred[T] = Deferred()  # once cancelled it takes its late result silently

        def answered(result: T | Failure) -> None:
            self._looking.release()
            answer.callback(result)

        deferToThreadPool(self._reactor, self._readers, call, *args).addBoth(answered)
        return await answer

    def marks_of(self, client: str) -> Deferred[dict[str, int]]:
        """The durable marks of all clients of this name, by principal; what the disk has to say is asked in a thread. Fails with
        sqlite3.Error."""
        return Deferred.fromCoroutine(self._marks_of(client))

    async def _marks_of(self, client: str) -> dict[str, int]:
        while True:
            saves = self.marks.saves
            saved = await self._look(self._disk.state.marks_of, client)
            if self.marks.saves == saves:  # else one may have left the memory just before its mark was on disk
                return self.marks.of_client(client, saved)

    def checkpointed(self) -> Deferred[None]:
        """Fires once it is durable where each cursor is now. Fails with OSError or sqlite3.Error where the disk does."""
        return self._checkpointed()

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
        self._write(entries, self._clock.stamp())

    def _write(self, entries: list[Entry], stamp: Stamp) -> None:
        self._tried_at = self._reactor.seconds()
        written = maybeDeferred(self._write_in_thread, entries, stamp)
        written.addCallbacks(
            self._committed,
            self._failed,
            callbackArgs=(entries,),
            errbackArgs=(entries, stamp),
        )
        written.addErrback(lambda failure: self.log.failure("Internal error in the journal", failure))

    def _write_in_thread(self, entries: list[Entry], stamp: Stamp) -> Deferred[Group]:
        blocks = melted([entry.block for entry in entries if entry.block])
        rejected = [one for entry in entries for one in entry.rejected]
        last = {entry.stream: entry.seq for entry in entries if entry.stream}
        marks = [Mark(stream.principal, stream.client, seq) for stream, seq in last.items()]
        presence = [one for entry in entries for one in entry.presence]
        return self._in_writer(self._disk.write, blocks, rejected, marks, stamp, self._routes, presence)

    def _committed(self, group: Group, entries: list[Entry]) -> None:
        if self._fault:
            self.log.info("The journal can write again")
            self._fault = ""
        self._tried_at = None
        self._busy = False
        self._writing_bytes = 0
        self.figures.ack.add(max(0.0, self._reactor.seconds() - self._writing_since))
        self._index.grow(group.end, group.messages)
        self._remember(group)
        self._probe("before ack")
        for entry in entries:
            if entry.stream is not None:
                self.marks.synced(entry.stream, entry.seq)
            if entry.settled is not None:
                self._call("telling that a message is durable", entry.settled)
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

    def _call(self, what: str, call: Callable[..., object], *args: object) -> None:
        """Other code: what it raises stays with it."""
        try:
            call(*args)
        except Exception:  # noqa: BLE001  # whatever it is
            self.figures.raised += 1
            self.log.failure("Internal error in {what}", what=what)

    def _tell(self, group: Group) -> None:
        """What reads the journal has its turn after the acks have gone, and while the next group is written."""
        for cursor in list(self._places.cursors.values()):
            self._call("reading the journal", cursor.wake)
        for watcher in self._watchers:
            self._call("watching the journal", watcher, group)
        for _, block in group.blocks:
            block.release()

    def _failed(self, failure: Failure, entries: list[Entry], stamp: Stamp) -> None:
        self.figures.failures += 1
        self._tried_at = None
        error = failure.value
        if not isinstance(error, _DISK_ERRORS):
            self.log.failure("Internal error in the journal: this group is tried again", failure)
        elif not self._fault:
            message = "Can't write to the journal in {dir}: {error}. Nothing is acknowledged until that works again"
            self.log.error(message, dir=self.dir, error=error)
        self._fault = f"can't write to {self.dir}: {error}"
        if self._closing and self._flushed is not None:
            message = "Closing with {bytes} bytes that could not be written, and were not acknowledged"
            self.log.error(message, bytes=self._writing_bytes + self._pending_bytes)
            self._flushed.callback(None)
            return
        dropped = self._in_writer(self._disk.drop_reserve)
        dropped.addErrback(lambda failure: self.log.error("Can't delete the reserve: {e}", e=failure.value))
        self.checkpoint_soon()
        self._reactor.callLater(RETRY_SECONDS, self._write, entries, stamp)

    def _sync(self) -> None:
        self._sync_call = None
        synced = self._in_writer(self._disk.sync)
        synced.addErrback(lambda failure: self.log.error("The journal can't sync: {error}", error=failure.value))

    def _remember(self, group: Group) -> None:
        self.figures.groups += 1
        self.figures.bytes += group.end.offset - group.start.offset
        self.figures.rejected += len(group.rejected)
        self.figures.messages += group.messages
        self._tail.add(group, self._places.reading())

    def _relieve(self) -> None:
        while self._relief and not self.congested:
            self._call("going on after a pause", self._relief.popleft())

    def watch(self, watcher: Callable[[Group], None]) -> Callable[[], None]:
        """Show a watcher each group from now on, just after it was committed and told to its clients. It must be quick.
        Answers with a call that ends this."""
        self._watchers = [*self._watchers, watcher]

        def stop() -> None:
            self._watchers = [one for one in self._watchers if one is not watcher]

        return stop

    # -- places

    @property
    def end(self) -> Position:
        """Where the next group will start, or a place that reads the same."""
        return self._index.end

    @property
    def oldest(self) -> Position:
        """The first place that can be read."""
        return self._index.oldest

    def follow(self, position: Position) -> Position:
        """See `Index.follow`."""
        return self._index.follow(position)

    def had_when_opened(self, position: Position) -> bool:
        """Whether this place lay within the journal as it was opened. Of segments that are gone that can't be told, and they count as such."""
        if position.segment >= self.began.segment:
            return position <= self.began
        return position.segment not in self._index or position.offset <= self._index.length(position.segment)

    def as_now(self, position: Position) -> Position | None:
        """The same place under the id that the journal has now, where `position` names one that it had before. None where the
        journal did not hold that place as it got its new id: then it is of the one that it was copied from, or was put back from."""
        last = self.formerly.get(position.journal)
        if last is None:
            return position
        renamed = position._replace(journal=self.id)
        return renamed if position.segment <= last and self.had_when_opened(renamed) else None

    def ids_at(self, segment: int) -> Set[str]:
        """The ids under which the sidecar's own messages in this segment stand."""
        if not self.formerly:
            return {self.id}
        return {self.id, *(name for name, last in self.formerly.items() if segment <= last)}

    def distance(self, position: Position) -> int:
        """The bytes from a position to the end."""
        return self._index.distance(position)

    def segment_before(self, until: Position, most: int) -> Position:
        """See `Index.segment_before`."""
        return self._index.segment_before(until, most)

    def received(self, position: Position) -> Deferred[int]:
        """When the group that stands there, or that `position` lies within, was received, in microseconds since the
        epoch; 0 where nothing does. Fails with OSError."""
        return Deferred.fromCoroutine(self._received(self.follow(position)))

    async def _received(self, position: Position) -> int:
        group = self.remembered(position)
        if group is None and position < self.end:
            groups = await deferToThreadPool(self._reactor, self._readers, self._read_once, position, self.end)
            group = groups[0] if groups else None
        return group.time if group else 0

    def _read_once(self, position: Position, end: Position) -> list[Group]:
        """In a thread; so the caller may be cancelled, and no file stays open."""
        reader = Reader(self.dir, self.id, self.files)
        try:
            stop = end.offset if position.segment == end.segment else self._index.length(position.segment)
            return self._read(reader, position, None, stop)
        finally:
            reader.close()

    @property
    def message_bytes(self) -> float:
        """What a message takes on the average since the start, with its share of the journal's own lines."""
        return self.figures.bytes / self.figures.messages if self.figures.messages else MESSAGE_BYTES

    def remembered(self, position: Position) -> Group | None:
        """The group that starts there, if it is still in memory."""
        return self._tail.get(self.follow(position))

    # -- cursors

    def known_cursors(self) -> dict[str, Held]:
        """All cursors that hold segments, by name, also where nobody reads with them now, and what they hold."""
        places = self._places
        return {
            name: Held(place, name in places.cursors, self._index.stretch(place, None, self.message_bytes))
            for name, place in places.all().items()
        }

    def cursor(self, name: str, *, may_skip: bool = False) -> Cursor:
        """A consumer's cursor: where it was, or, for a new name, at the end. Where it is not known any more who has read
        what, at the beginning."""
        known = name in self._places or self._disk.state.lost >= self.oldest.segment
        position = max(self._places.place(name, self.oldest if known else self.end), self.oldest)
        cursor = Cursor(self, name, position, may_skip=may_skip, new=not known)
        self._places.attach(cursor)
        self.checkpoint_soon()
        return cursor

    def detach(self, cursor: Cursor) -> None:
        """Nobody reads with it for now; its place is kept and holds its segments."""
        cursor.close()
        self._count_read_ahead(cursor, cursor.begin_again(cursor.kept))
        self._places.detach(cursor)

    def step_over(self, name: str, start: Position) -> Deferred[None]:
        """A cursor's follower passes over the group that starts there, whenever it comes: fires once that is durable. Fails with
        sqlite3.Error."""
        return Deferred.fromCoroutine(self._step_over(name, start))

    async def _step_over(self, name: str, start: Position) -> None:
        await self._in_writer(self._disk.state.step_over, name, start)
        self._places.stepped_over(name).add(start)

    def stepped_over(self, name: str) -> Set[Position]:
        """The starts of the groups that a cursor's follower passes over, as far as it has not passed them."""
        return self._places.stepped_over(name)

    def stored(self, name: str) -> Position | None:
        """Where a cursor is; None for an unknown name."""
        return self._places.all().get(name)

    def skipped(self, name: str) -> Sequence[Skip]:
        """What a cursor passed and its consumer never got, in order."""
        return self._skips.of(name)

    def note_skipped(self, name: str, start: Position, end: Position) -> None:
        """Its consumer never gets what lies from `start` to `end`. It is durable with the cursor's next place."""
        self._skips.add(name, start, end)

    def pass_over_removed(self, name: str, position: Position) -> Position | None:
        """See `Source`. The segment that is written to is made again by the next write."""
        segment = position.segment
        if segment not in self._index or segment == self._index.newest:
            return None
        after = self.follow(position._replace(offset=self._index.length(segment)))
        lost = self._index.stretch(position, [segment], self.message_bytes).messages
        self._disk.damaged += 1
        message = "Journal segment {segment} was removed or moved away: its {lost} messages from {position} on are lost to {cursor}"
        self.log.error(message, segment=segment, lost=lost, position=str(position), cursor=name)
        self.note_skipped(name, position, after)
        return after

    def note_delivered(self, name: str, start: Position, end: Position) -> None:
        """What had been read before it was skipped is with the consumer after all."""
        self._skips.remove(name, start, end)

    def _note_let_go(self, name: str) -> None:
        place = self.stored(name)
        if place is not None:
            self.note_skipped(name, self.follow(place), self.end)

    def forget(self, name: str) -> None:
        """This cursor holds nothing any more; its reader stops."""
        self._note_let_go(name)
        cursor = self._places.cursors.get(name)
        if cursor is not None:
            cursor.close()
        self._places.drop(name)
        self.checkpoint_soon()

    def discard(self, name: str) -> Deferred[Stretch]:
        """Remove a cursor that nobody reads with, and of what is kept for it alone; fires with what that was, once it is
        durable and the segments are gone. Fails with UnknownCursor, CursorInUse, or with what the disk says."""
        return Deferred.fromCoroutine(self._discard(name))

    async def _discard(self, name: str) -> Stretch:
        held = self.known_cursors().get(name)
        if held is None:
            raise UnknownCursor(f"the journal has no cursor {name}; it has {', '.join(sorted(self.known_cursors()))}")
        if held.attached:
            raise CursorInUse(f"cursor {name} is read with: take its backend out of the config first")
        self._note_let_go(name)
        self._places.drop(name)
        await self._checkpointed()
        self.figures.discarded_messages += held.holds.messages
        message = "Cursor {cursor} is discarded: {messages} messages in {bytes} bytes of journal were kept for it"
        self.log.warn(message, cursor=name, messages=held.holds.messages, bytes=held.holds.bytes)
        return held.holds

    def rewind(self, cursor: Cursor, position: Position) -> Deferred[Missing | None]:
        """Let a cursor read on from `position`, which is the start of a line, also below `kept`; fires once that is
        durable, so that nothing from there on is deleted meanwhile. Stop reading and moving with it before. Answers with what
        the journal does not hold any more: then it goes on at the oldest place. Fails with OSError or sqlite3.Error where the
        disk does: nothing was read then, and it may be called again. Raises ValueError for a place beyond the end."""
        return self._saving.run(lambda: Deferred.fromCoroutine(self._rewind(cursor, position)))

    async def _rewind(self, cursor: Cursor, position: Position) -> Missing | None:
        ours = position.journal == self.id
        if ours and position > self.end:
            raise ValueError(f"{position} is beyond the journal's end, {self.end}")
        goal = max(self.follow(position), self.oldest) if ours else self.oldest
        stored = position if ours and position != cursor.kept else None
        if goal < cursor.kept:
            cursor.kept = goal
            await self._in_writer(self._disk.save, {cursor.name: goal}, [], self._clock.known())
        self._count_read_ahead(cursor, cursor.begin_again(goal, stored))
        cursor.seek(goal)
        return None if ours and self._index.holds(position) else Missing(position, goal)

    def _make_room(self) -> bool:
        """Whether a group may be written. Cursors that may skip drop the oldest segment, if they alone hold it."""
        oldest = self.oldest.segment
        if not self.full or oldest == self._index.newest:
            return True
        holders = self._places.holders(oldest)
        if holders is not None:
            after = self.follow(self.oldest._replace(offset=self._index.length(oldest)))
            for cursor in holders:
                self._skip(cursor, oldest, after)
        self.checkpoint_soon()
        return not self.full

    def _skip(self, cursor: Cursor, segment: int, after: Position) -> None:
        all_kept = self._index.stretch(cursor.kept, [segment], self.message_bytes).messages
        lost = self._index.stretch(max(cursor.kept, cursor.next), [segment], self.message_bytes).messages
        count = self.figures.skipped_segments.get(cursor.name, 0) + 1
        self.figures.skipped_segments[cursor.name] = count
        messages = self._count_skipped(cursor, lost)
        message = (
            "The journal is full: {cursor} skips segment {segment} with {lost} messages; "
            "{count} segments with {messages} messages skipped since the start"
        )
        self.log.error(message, cursor=cursor.name, segment=segment, lost=lost, count=count, messages=messages)
        self.note_skipped(cursor.name, cursor.kept, after)
        cursor.skip(Position(self.id, segment, self._index.length(segment)), after, all_kept - lost)

    def _count_skipped(self, cursor: Cursor, messages: int) -> int:
        self.figures.skipped_messages[cursor.name] = self.figures.skipped_messages.get(cursor.name, 0) + messages
        return self.figures.skipped_messages[cursor.name]

    def _count_read_ahead(self, cursor: Cursor, lost: int) -> None:
        """What it had read of segments that it skipped is not delivered after all."""
        if lost:
            message = "{cursor} had read {lost} messages of what it skipped, and begins again without them"
            self.log.error(message, cursor=cursor.name, lost=lost)
            self._count_skipped(cursor, lost)

    # -- checkpoints

    def checkpoint_soon(self) -> None:
        """Save where each cursor is, and delete what no cursor needs any more."""
        if not self._checkpoint_due and not self._closing:
            self._checkpoint_due = True
            self._reactor.callLater(0, self._checkpoint_now)

    def _checkpoint_now(self) -> None:
        def failed(failure: Failure) -> None:
            if not self._fault:
                self.log.error("A checkpoint of the journal failed: {error}", error=failure.value)

        if self._closing:
            return
        self._checkpointed().addErrback(failed)

    def _checkpointed(self) -> Deferred[None]:
        """One after the other."""
        return self._saving.run(lambda: Deferred.fromCoroutine(self._checkpoint()))

    async def _checkpoint(self) -> None:
        self._checkpoint_due = False
        marks = self.marks.moved()
        places, skips = {**self._places.to_save(), MARKS_CURSOR: self.end}, self._skips.to_save()
        await self._in_writer(self._disk.save, places, marks, self._clock.known(), skips)
        self.marks.saved(marks)
        self._skips.saved(skips)
        self._places.saved(places)
        if passed := self._places.passed(places):
            await self._in_writer(self._disk.state.forget_stepped_over, passed)
            for name, start in passed:
                self._places.stepped_over(name).discard(start)
        needed = self._places.needed(places)
        for number in self._index.numbers:
            if number < needed and number != self._index.newest:
                self._doomed[number] = self._index.drop(number)
        if doomed := dict(self._doomed):
            await self._in_writer(self._disk.delete, doomed)
            for number in doomed:
                del self._doomed[number]
