"""Feeds the engine from its cursor over the journal, and journals what it derives. Fills the memory of the recent."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from wafermon.correlation.derived import Derived
from wafermon.correlation.engine import Engine, Settings
from wafermon.correlation.recent import Recent
from wafermon.journal import Entry, Group, Journal, groups_before
from wafermon.model.blocks import Block
from wafermon.model.messages import encode_stored
from wafermon.model.notable import notables
from wafermon.model.position import Position

CURSOR = "!correlation"
CHECKPOINT_SECONDS = 30.0
SHARE = 0.5
"""Of the time of everybody else, for a checkpoint while it is encoded."""
ADVANCE_SECONDS = 1.0
HISTORY_BYTES = 64 << 20
"""How much of the journal is read at a start for the memory of the recent."""


class Correlator:
    """Starts from its checkpoint, follows the journal with its output off, and then speaks."""

    log = Logger()

    def __init__(self, engine: Engine, journal: Journal, directory: Path, pool: ThreadPool, reactor: Any) -> None:
        self.engine = engine
        self.recent = Recent()
        self.sdk_dropped = 0
        """Messages that SDKs reported as dropped since the start."""
        self.error = ""
        self._journal = journal
        self._path = directory / "checkpoint"
        self._pool = pool
        self._reactor = reactor
        self._position: Position
        self._saved_at = 0.0
        self._saving = DeferredLock()
        self._live = False
        self._running: Deferred[None] | None = None
        self._clock = LoopingCall(self._advance)
        self._clock.clock = reactor

    def start(self) -> None:
        """Blocks while it reads its checkpoint. Raises OSError."""
        self._cursor = self._journal.cursor(CURSOR)
        self._position = self._cursor.kept
        self._path.parent.mkdir(exist_ok=True, mode=0o700)
        self._restore()
        self._saved_at = self._reactor.seconds()
        self._replay_until = self._journal.end
        self._running = Deferred.fromCoroutine(self._run())
        self._running.addErrback(self._ended)
        self._clock.start(ADVANCE_SECONDS, now=False)

    def _restore(self) -> None:
        """Take up the last checkpoint, if it fits this journal."""
        try:
            head, _, snapshot = self._path.read_bytes().partition(b"\n")
        except FileNotFoundError:
            return
        try:
            position = Position.parse(head.decode())
            if position.journal != self._journal.id or self._journal.follow(position) < self._cursor.kept:
                raise ValueError(f"it stands at {position}, which this journal does not hold")
            self.engine.restore(snapshot)
        except Exception as error:  # noqa: BLE001  # a checkpoint that can't be read must not keep the daemon down
            message = "The correlation's checkpoint {path} is of no use, starting without it: {error}"
            self.log.error(message, path=self._path, error=error)
            return
        self._position = position
        self._cursor.seek(position)

    def _ended(self, failure: Any) -> None:
        if not failure.check(CancelledError):
            self.error = f"stopped by a fault of wafermon's own: {failure.value}"
            self.log.failure("The correlation stopped", failure)

    def jobs(self, limit: int) -> list[dict[str, Any]]:
        """See `views.jobs`."""
        return self.engine.jobs(self.recent, limit)

    def trace(self, trace_id: str) -> dict[str, Any] | None:
        """See `views.trace`."""
        return self.engine.trace(trace_id, self.recent)

    async def _run(self) -> None:
        async for group in groups_before(self._journal, self._position, HISTORY_BYTES):
            self.recent.observe([block for _, block in group.blocks], group.time)
        while True:
            if not self._live and self._cursor.next >= self._replay_until:
                self._live = True
                pending = self.engine.pending()
                await self._save()
                self._emit(pending)
            group = await self._cursor.read()
            self._observe(group)
            due = self._reactor.seconds() - self._saved_at >= CHECKPOINT_SECONDS
            if due or self._position.segment != self._cursor.kept.segment:
                await self._save()

    def _observe(self, group: Group) -> None:
        blocks = [block for _, block in group.blocks]
        derived = self.engine.observe_blocks(blocks, group.time) if blocks else []
        self.recent.observe(blocks, group.time)
        self._position = group.end
        if self._live:
            self.sdk_dropped += sum(one.dropped for block in blocks for one in notables(block))
            self._emit(derived)

    def _advance(self) -> None:
        """Time passes for the engine also while nothing comes."""
        if self._live and self._cursor.at_end and self._journal.idle and not self._saving.locked:
            self._emit(self.engine.advance(self._journal.now()))

    def _emit(self, derived: list[Derived]) -> None:
        if not derived:
            return
        messages = [one.message for one in derived]
        block = Block.of(b"\n".join([*map(encode_stored, messages), b""]), messages)
        self._journal.append(Entry(block))

    def configure(self, settings: Settings) -> None:
        """Put other settings in force; what the engine decided before is saved, since a replay can't know of this."""
        if not self._live:
            self.engine.settings = settings
            return
        self._saving.run(self._configure_now, settings).addErrback(self._ended)

    def _configure_now(self, settings: Settings) -> Deferred[None]:
        self.engine.configure(settings)
        return Deferred.fromCoroutine(self._save_now(self.engine.snapshot()))

    def _save(self) -> Deferred[None]:
        """Whoever waits for it can be cancelled; what has begun is written to its end before anything else is."""
        saved: Deferred[None] = Deferred()
        self._saving.run(lambda: Deferred.fromCoroutine(self._save_in_parts())).chainDeferred(saved)
        return saved

    async def _save_in_parts(self) -> None:
        """Others have their turn between the parts; nothing happens to the engine until the last one. The longer their
        turns are, the more is done between two of them: a checkpoint must not take seconds where much is going on."""
        now = self._reactor.seconds
        begun, others = now(), 0.0
        for snapshot in self.engine.snapshot_in_parts():
            if not snapshot and (left := now()) - begun >= SHARE * others:
                await deferLater(self._reactor, 0)
                begun = now()
                others = begun - left
        await self._save_now(snapshot)

    async def _save_now(self, snapshot: bytes) -> None:
        position = self._position
        self._saved_at = self._reactor.seconds()
        try:
            await deferToThreadPool(self._reactor, self._pool, self._write, position, snapshot)
        except OSError as error:
            self.log.error("The correlation can't save its checkpoint: {error}", error=error)
        else:
            self._cursor.move(position)

    def _write(self, position: Position, snapshot: bytes) -> None:
        temporary = self._path.with_suffix(".tmp")
        with open(temporary, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(f"{position}\n".encode() + snapshot)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)

    async def stop(self) -> None:
        if self._running is None:
            return
        self._clock.stop()
        self._running.cancel()
        self._running = None
        if not self.error:
            await self._save()
        self._journal.detach(self._cursor)
