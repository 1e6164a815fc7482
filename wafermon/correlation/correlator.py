"""Feeds the engine from its cursor over the journal, and journals what it derives. Fills the memory of the recent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from wafermon.correlation.derived import Derived
from wafermon.correlation.engine import Engine
from wafermon.correlation.facts import Facts
from wafermon.correlation.losses import Losses
from wafermon.correlation.recent import Recent
from wafermon.correlation.schedules import said
from wafermon.correlation.snapshot import Settings
from wafermon.correlation.views import EVENTS
from wafermon.correlation.ways import Route, Table
from wafermon.files import Files
from wafermon.journal import STARTED, Cursor, Entry, Group, Journal, Outstanding, Presence, groups_before, together
from wafermon.model.blocks import Block
from wafermon.model.messages import Message, encode_stored
from wafermon.model.position import Position

CURSOR = "!correlation"
CHECKPOINT_SECONDS = 30.0
SHARE = 0.5
"""Of the reactor's time, for a checkpoint while it is encoded."""
CHECKPOINT_BYTES = 1 << 30
"""A larger file is no checkpoint of ours."""
ADVANCE_SECONDS = 1.0
SLICE_SECONDS = 0.02
"""Between two looks where more is due than is done at a time."""
CLOCK_SET = 1_000_000
"""A date that is off by more since the last group is journalled, once it keeps its distance."""
START_SECONDS = 10.0
"""After so long the journal is told that the sidecar has started, if no connection has had it told."""
HISTORY_BYTES = 64 << 20
"""How much of the journal is read at a start for the memory of the recent."""


class Phase(Enum):
    """How far a run is."""

    RESTORING = "restoring"
    """The engine, or the memory of the recent, holds nothing yet, or not all."""
    REPLAYING = "replaying"
    """The engine holds what it held at `_position`; what it derives may have been journalled already."""
    LIVE = "live"


class _NoRoute:
    matched = True
    backends: tuple[str, ...] = ()


class _Nowhere:
    """A routing table that says nothing."""

    def route(self, service: str, type: str, level: object, host: object) -> Route:
        return _NoRoute()


class Correlator:
    """The follower that correlates. Each run starts from the checkpoint, follows the journal with its output off, and only then emits: what
    was derived and did not come back through the journal by then, and all that is derived from there on."""

    log = Logger()
    name = CURSOR
    steps_over = True

    def __init__(
        self,
        engine: Engine,
        journal: Journal,
        directory: Path,
        pool: ThreadPool,
        reactor: Any,
        files: Files | None = None,
        tables: Callable[[str], Table] | None = None,
    ) -> None:
        """`engine` is new and says the journal's id and the settings; each run begins with another one like it. `directory` is where
        the checkpoint is, and is made where it is not there. `tables` turns a routing table's text, as the journal holds it, into
        the table; without it no receipt knows what goes where."""
        self.engine = engine
        self.recent = Recent()
        self._losses = Losses()
        self._settings = engine.settings
        self._journal = journal
        self._path = directory / "checkpoint"
        self._pool = pool
        self._reactor = reactor
        self._files = files or Files()
        self._tables = tables or (lambda text: _Nowhere())
        self._outstanding = Outstanding(reactor.seconds)
        self._error = ""
        self._cursor: Cursor | None = None
        self._position: Position
        """The end of what the engine has observed."""
        self._work: tuple[Position, Position] | None = None
        """Start and end of what it works on: a group; or twice the place from which it restores."""
        self._without_checkpoint = False
        """The checkpoint can't be read, again and again: begin without it."""
        self._counted: Position | None = None
        """From here on `sdk_dropped` has not counted."""
        self._first_segment = 0
        """Of this process; 0 before the first run."""
        self._start_told = False
        """Whether the journal says that this process has started."""
        self._live_since = 0.0
        self._live_at: Position | None = None
        """Where the replay ends; None until everything that was appended before it is committed."""
        self._saved_at = 0.0
        self._saving = DeferredLock()
        self._phase = Phase.RESTORING
        self._pause: Deferred[None] | None = None
        self._date: int | None = None
        """What was added to `elapsed` for the date at the last look."""

    @property
    def position(self) -> Position | None:
        return self._work[0] if self._work else None

    @property
    def reached(self) -> Position | None:
        """Everything before it is in memory; None while that is restored."""
        return None if self._phase is Phase.RESTORING else self._position

    @property
    def problem(self) -> str:
        return self._error or self._outstanding.late

    def count_jobs(self) -> int:
        """See `views.count_jobs`."""
        return self.engine.count_jobs(self.recent)

    def jobs(self, limit: int) -> list[dict[str, Any]]:
        """See `views.jobs`."""
        return self.engine.jobs(self.recent, limit)

    def walk_jobs(self) -> Iterator[tuple[dict[str, Any], bool]]:
        """See `views.walk`."""
        return self.engine.walk_jobs(self.recent)

    def jobs_of(self, trace_id: str) -> list[dict[str, Any]]:
        """See `views.jobs_of`."""
        return self.engine.jobs_of(trace_id, self.recent)

    def trace(self, trace_id: str, events: int = EVENTS) -> dict[str, Any] | None:
        """See `views.trace`."""
        return self.engine.trace(trace_id, self.recent, events)

    def about(self, trace_id: str) -> dict[str, Any]:
        """See `views.about`."""
        return self.engine.about(trace_id, self.recent)

    def root_of(self, trace_id: str) -> tuple[str, str] | None:
        """As `views.root_of` has it."""
        return self.engine.root_of(trace_id, self.recent)

    def knows(self, trace_id: str) -> bool:
        """Whether something is known of a trace."""
        return self.engine.knows(trace_id, self.recent)

    def trace_ids(self) -> list[str]:
        """See `views.trace_ids`."""
        return self.engine.trace_ids(self.recent)

    def search(self, trace_id: str, limit: int, counts: Mapping[str, int] | None) -> Iterator[dict[str, Any]]:
        """See `Recent.search`."""
        return self.recent.search(trace_id, limit, counts)

    @property
    def sdk_dropped(self) -> int:
        """Messages that SDKs say they had to drop, since the start."""
        return self._losses.total

    def receipt_facts(self, name: str) -> Facts | None:
        """What is known of the trace of this id, or of the latest that has a job of this id; None where there is none."""
        ledger = self.engine.ledger
        return ledger.facts(ledger.find(name))

    # -- life

    async def run(self) -> None:
        await self._saving.run(_nothing)  # an earlier run's checkpoint may still be on its way to the disk
        self._begin()
        await together(self._follow(), self._tick())

    def _begin(self) -> None:
        """Throw away what an earlier run left in memory."""
        self._detach()
        self._first_segment = self._first_segment or self._journal.end.segment
        self._cursor = self._journal.cursor(CURSOR)
        self._position = self._cursor.kept
        self._work = self._position, self._position
        self.engine = Engine(self._settings, self._journal.id)
        self.recent = Recent()
        self._phase = Phase.RESTORING
        self._live_at = None
        self._error = ""

    async def step_over(self) -> None:
        """The group is left out of each replay. A checkpoint that can't be read is left out once: it may be readable at the next
        start."""
        if self._work is None:
            return
        start, end = self._work
        if start == end:
            self._without_checkpoint = True
        else:
            await self._outstanding.wait("the journal's disk", self._journal.step_over(CURSOR, start))

    async def finish(self) -> None:
        if self._phase is not Phase.RESTORING:
            await self._save()
        self._detach()

    def _detach(self) -> None:
        if self._cursor is not None:
            self._journal.detach(self._cursor)
            self._cursor = None

    # -- from the checkpoint to the end

    async def _restore(self, cursor: Cursor) -> None:
        """Take up the last checkpoint, if it fits this journal. Raises OSError where it can't be read."""
        if self._without_checkpoint:
            self._without_checkpoint = False
            self.log.error("The correlation starts without its checkpoint {path}", path=self._path)
            self.engine.ledger.begin_late(self._journal.elapsed(), None)
            return
        where = f"the disk of {self._path}"
        try:
            read = deferToThreadPool(self._reactor, self._pool, self._files.read_whole, self._path, CHECKPOINT_BYTES)
            head, _, snapshot = (await self._outstanding.wait(where, read)).partition(b"\n")
        except FileNotFoundError:
            if (self._position.segment, self._position.offset) > (1, 0):
                self.engine.ledger.begin_late(self._journal.elapsed(), None)
            return
        try:
            named = Position.parse(head.decode())
            position = self._journal.as_now(named)
            if position is None or position.journal != self._journal.id or not self._is_held(position, cursor):
                raise ValueError(f"it stands at {named}, which this journal does not hold")
            self.engine.restore(snapshot, self._journal.formerly)
        except Exception as error:  # noqa: BLE001  # a checkpoint that says nothing must not keep the correlation down
            message = "The correlation's checkpoint {path} is of no use, starting without it: {error}"
            self.log.error(message, path=self._path, error=error)
            self.engine = Engine(self._settings, self._journal.id)
            self.engine.ledger.begin_late(self._journal.elapsed(), None)
            return
        self._position = position
        cursor.seek(position)

    def _is_held(self, position: Position, cursor: Cursor) -> bool:
        return self._journal.follow(position) >= cursor.kept and position <= self._journal.end

    async def _fill_recent(self) -> None:
        """For looking at only: what can't be read for it is left out."""
        self.recent.let_go = self._journal.segment_before(self._position, HISTORY_BYTES)
        try:
            async for group in groups_before(self._journal, self._position, HISTORY_BYTES):
                self.recent.observe([block for _, block in group.blocks], group.time, group.end)
        except CancelledError:
            raise
        except Exception:  # noqa: BLE001  # nothing is derived from it
            self.log.failure("What was there before the start can't be shown in full")
            self.recent.let_go = self._position

    async def _follow(self) -> None:
        cursor = self._cursor
        assert cursor is not None
        await self._restore(cursor)
        self._work = None
        await self._fill_recent()
        self._phase = Phase.REPLAYING
        self._saved_at = self._reactor.seconds()
        self._find_end()
        while True:
            if (
                self._phase is Phase.REPLAYING
                and self._live_at is not None
                and self._journal.follow(cursor.next) >= self._live_at
            ):
                await self._begin_to_emit()
            group = await cursor.read()
            self._work = group.start, group.end
            skip = group.start in self._journal.stepped_over(CURSOR)
            self._observe(group, skip=skip)
            due = skip or self._reactor.seconds() - self._saved_at >= CHECKPOINT_SECONDS
            if due or self._position.segment != cursor.kept.segment:
                await self._save()
            self._work = None

    def _find_end(self) -> None:
        """Let the replay end where everything is committed that was appended until now: what an earlier run emitted is among it,
        and is not to be emitted again. Reading goes on meanwhile, since a full journal commits nothing until it is read."""

        def found(_: object = None) -> None:
            self._live_at = self._journal.end

        if self._journal.idle:
            found()
        else:
            self._journal.settled().addCallback(found)

    async def _begin_to_emit(self) -> None:
        self._phase = Phase.LIVE
        self._live_since = self._reactor.seconds()
        if self._counted is None:
            self._counted = self._live_at
        pending = self.engine.pending()
        await self._save()
        self._emit(pending)

    # -- following

    def _observe(self, group: Group, *, skip: bool) -> None:
        blocks = [block for _, block in group.blocks]
        self.engine.ids = self._journal.ids_at(group.start.segment)
        if skip:
            self._pass_over(group)
            return
        self.engine.begin(blocks, group.time, group.elapsed)
        if group.presence:
            if group.start.segment >= self._first_segment and group.presence[0].what == STARTED:
                self._start_told = True
            self.engine.follow(group.presence, group.elapsed)
        told = blocks or group.presence
        derived = self.engine.observe_blocks(blocks, group.time, group.elapsed) if told else []
        ledger = self.engine.ledger
        if self._counted is not None and group.start >= self._counted:
            self._counted = group.end
            self._losses.take(blocks, ledger.sdk_of, ledger.dropped_by)
        if group.damaged is None:
            ledger.observe(group, self._tables(group.routes), self.engine.ids)
            derived += self.engine.tell_receipts(group.time)
        self.recent.observe(blocks, group.time, group.end)
        self._position = group.end
        if self._phase is Phase.LIVE:
            self._emit(derived)

    def _pass_over(self, group: Group) -> None:
        """Nothing is derived from its messages. Its time passes, and what was derived before and comes back in it is journalled all
        the same: else that would be emitted again."""
        self._position = group.end
        try:
            self.engine.begin([block for _, block in group.blocks], group.time, group.elapsed)
            self.engine.advance(group.elapsed)
            self.engine.follow(group.presence, group.elapsed)
            for _, block in group.blocks:
                self.engine.came_back(block.messages)
        except Exception:  # noqa: BLE001  # it is stepped over because it makes faults
            self.log.failure("What is stepped over can't be read in full")

    async def _tick(self) -> None:
        """Time passes for the engine also while nothing comes; other settings come into force."""
        while True:
            self._pause = Deferred()
            timer = self._reactor.callLater(SLICE_SECONDS if self.engine.behind else ADVANCE_SECONDS, self._wake)
            try:
                await self._pause
            finally:
                if timer.active():
                    timer.cancel()
            if self._phase is Phase.LIVE and self.engine.settings != self._settings:
                await self._saving.run(self._configure_now)
            self._advance()

    def _wake(self) -> None:
        if self._pause is not None:
            pause, self._pause = self._pause, None
            pause.callback(None)

    def _advance(self) -> None:
        cursor = self._cursor
        if self._phase is Phase.LIVE and cursor and cursor.at_end and self._journal.idle and not self._saving.locked:
            self._tell_start()
            self._tell_clock()
            self._emit(self.engine.advance(self._journal.elapsed()))

    def _tell_start(self) -> None:
        """Who was connected before this process may never come again: the first that comes has the start told. Where nobody does,
        and a program was connected, it is told here. Nothing else waits to be journalled now, so that nobody has come."""
        late = self._reactor.seconds() - self._live_since >= START_SECONDS
        if late and not self._start_told and self.engine.programs_connected:
            self._start_told = True
            self._journal.append(Entry(presence=[Presence(STARTED)]))

    def tell_began(self) -> None:
        """Journal that the sidecar begins, and how long it was away: before anything else of this process, since a replay judges
        schedules by it."""
        journal = self._journal
        journal.append(Entry(_block([said.started(journal.away, journal.id, journal.now())])))

    def _tell_clock(self) -> None:
        """While nothing comes the engine has the date as it was when something came last. Where it was set meanwhile, schedules have to
        know it; a replay too."""
        date = self._journal.now() - self._journal.elapsed()
        by, before, self._date = date - self.engine.schedules.date, self._date, date
        steady = before is not None and abs(date - before) < CLOCK_SET // 10
        if self.engine.schedules.by_date and steady and abs(by) > CLOCK_SET:
            self._journal.append(Entry(_block([said.clock_set(by, self._journal.id, self._journal.now())])))

    def ask(self, kind: str, schedule: str, until: int, by: str) -> Deferred[None]:
        """Journal that a schedule is to be `paused` (until a date in microseconds; 0: until it is resumed) or `resumed`. Fires once
        that is durable."""
        done: Deferred[None] = Deferred()
        event = said.asked(kind, schedule, until, by, self._journal.id, self._journal.now())
        self._journal.append(Entry(_block([event]), settled=lambda: done.callback(None)))
        return done

    def _emit(self, derived: list[Derived]) -> None:
        if derived:
            self._journal.append(Entry(_block([one.message for one in derived])))

    def configure(self, settings: Settings) -> None:
        """Put other settings in force; what the engine decided before is saved, since a replay can't know of this."""
        self._settings = settings
        if self._phase is Phase.LIVE:
            self._wake()
        else:
            self.engine.settings = settings

    def _configure_now(self) -> Deferred[None]:
        self.engine.configure(self._settings)
        return Deferred.fromCoroutine(self._save_now(self._position, self.engine.snapshot()))

    # -- checkpoints

    def _save(self) -> Deferred[None]:
        """What waits for it can be cancelled; what has begun is written to its end before anything else is."""
        saved: Deferred[None] = Deferred()
        self._saving.run(lambda: Deferred.fromCoroutine(self._save_in_parts())).chainDeferred(saved)
        return saved

    async def _save_in_parts(self) -> None:
        """Others have their turn between the parts; nothing happens to the engine until the last one. The longer their
        turns are, the more is done between two of them: a checkpoint must not take seconds where much is going on."""
        now = self._reactor.seconds
        begun, others = now(), 0.0
        position = self._position  # a later run may begin meanwhile, with another engine
        for snapshot in self.engine.snapshot_in_parts():
            if not snapshot and (left := now()) - begun >= SHARE * others:
                await deferLater(self._reactor, 0)
                begun = now()
                others = begun - left
        await self._save_now(position, snapshot)

    async def _save_now(self, position: Position, snapshot: bytes) -> None:
        self._saved_at = self._reactor.seconds()
        written = deferToThreadPool(self._reactor, self._pool, self._write, position, snapshot)
        try:
            await self._outstanding.wait(f"the disk of {self._path}", written)
        except OSError as error:
            self._error = f"can't save its checkpoint: {error}"
            self.log.error("The correlation can't save its checkpoint: {error}", error=error)
        else:
            self._error = ""
            if self._cursor is not None:
                self._cursor.move(position)

    def _write(self, position: Position, snapshot: bytes) -> None:
        self._files.ensure_directory(self._path.parent)
        self._files.replace(self._path, f"{position}\n".encode() + snapshot)


def _block(messages: Sequence[Message]) -> Block:
    return Block.of(b"\n".join([*map(encode_stored, messages), b""]), messages)


def _nothing() -> None:
    """For a caller that only waits for a lock."""
