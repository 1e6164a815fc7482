"""From the journal to one backend: batches in order, each until it is durable there.

A failure that may pass is tried again for ever. A batch that the backend can't take is halved until the messages at fault
stand alone: those become dead letters, the rest goes on. No delivery waits for another.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from wafermon.delivery.backoff import Backoff
from wafermon.delivery.batching import Gathered, Gatherer
from wafermon.delivery.dead_letters import DeadLetters, Letter, letter_of
from wafermon.interfaces import Health, IBackend
from wafermon.journal import Cursor, Journal
from wafermon.model.errors import PermanentError, RetryableError, printable
from wafermon.model.position import Position
from wafermon.model.settings import BackendConfig
from wafermon.routing import Table

TELL_SECONDS = 10.0
"""Between two log lines about refused messages."""
UNKNOWN_TRIES = 10
"""The same unknown error so often in a row counts as permanent."""


@dataclass
class Figures:
    """Counters since the start."""

    messages: int = 0
    batches: int = 0
    retries: int = 0
    dead_letters: int = 0


class Lag(NamedTuple):
    """What one backend has not confirmed yet. All 0 where nothing waits for it."""

    messages: int = 0
    """Exact where it keeps up. What still has to be read from disk is reckoned by its bytes, as if all were for it."""
    bytes: int = 0
    """Of journal, from its oldest message to the end."""
    seconds: float = 0.0
    """Since the oldest one was received."""


class Delivery:
    """One backend's delivery. `start` it once the journal is open; `stop` leaves the rest to the next start."""

    log = Logger()

    def __init__(
        self,
        config: BackendConfig,
        backend: IBackend,
        journal: Journal,
        dead_letters: DeadLetters,
        tables: Callable[[str], Table],
        reactor: Any,
    ) -> None:
        """`tables` turns a routing table's text, as the journal holds it, into the table."""
        self.name = config.name
        self.figures = Figures()
        self.error = ""
        """Why the last try failed; empty where it did not."""
        self.error_since = 0
        """When the tries began to fail, in microseconds since the epoch. It stays when they work again, as do the two
        that follow; 0 where none failed since the start."""
        self.last_error = ""
        self.last_error_at = 0
        self.backend = backend
        self._config = config
        self._journal = journal
        self._dead_letters = dead_letters
        self._tables = tables
        self._reactor = reactor
        self._backoff = Backoff(config.retry.initial, config.retry.max, random.uniform)
        self._cursor: Cursor
        self._gatherer: Gatherer
        self._running: Deferred[None] | None = None
        self._reading: Deferred[None] | None = None
        self._event: Deferred[None] | None = None
        self._timer: IDelayedCall | None = None
        self._waiting_since = 0.0
        self._room: Deferred[None] | None = None
        self._drains = 0
        self._stopping = False
        self._outstanding = False
        self._under_way: Gathered | None = None
        self._read_time = 0
        """When the group that was read last was received; before the first one, that where the backlog begins."""
        self._opened = False
        self._told_at = -TELL_SECONDS
        self._untold = 0

    # -- life

    def start(self) -> None:
        self._cursor = self._journal.cursor(self.name, may_skip=self._config.when_full == "skip")
        self._running = Deferred.fromCoroutine(self._run())
        self._running.addErrback(self._ended)

    def _ended(self, failure: Any) -> None:
        if not failure.check(CancelledError):
            self._note_error(f"stopped by a fault of wafermon's own: {failure.value}")
            self.log.failure("The delivery to {name} stopped", failure, name=self.name)

    async def stop(self, grace: float, *, deliver: bool = True) -> None:
        """Write what is there, for at most `grace` seconds, then let go of the backend. Without `deliver` only a batch
        that the backend has already is waited for."""
        if self._running is None:
            return
        if deliver:
            try:
                await self.drain().addTimeout(grace, self._reactor)
            except (CancelledError, TimeoutError) as error:
                self.log.info(
                    "{name} keeps what it lacks for the next start: {error}",
                    name=self.name,
                    error=str(error),
                )
        self._stopping = True
        if self._outstanding:
            await self._ended_within(self._running, grace)
        self._running.cancel()
        if self._reading is not None:
            self._reading.cancel()
        self._running = None
        self._journal.detach(self._cursor)
        if self._opened:
            await self.backend.close()

    async def _ended_within(self, running: Deferred[None], seconds: float) -> None:
        """Wait for the batch that the backend has; give it up after so many seconds."""
        waiting: Deferred[None] = Deferred()

        def over(result: object) -> None:
            if not waiting.called:
                waiting.callback(None)

        running.addBoth(over)
        timer = self._reactor.callLater(seconds, over, None)
        await waiting
        if timer.active():
            timer.cancel()

    def drain(self) -> Deferred[None]:
        """Fires when everything that is in the journal now has been delivered."""
        return Deferred.fromCoroutine(self._drain(self._journal.end))

    async def _drain(self, until: Position) -> None:
        self._drains += 1
        try:
            while self._journal.follow(self._cursor.kept) < self._journal.follow(until):
                self._poke()
                await self._journal.sleep(0.02)
        finally:
            self._drains -= 1

    @property
    def lag(self) -> Lag:
        """How far this backend is behind."""
        journal = self._journal
        if not self._opened:
            unread, waiting, oldest = journal.distance(self._cursor.kept), 0, None
        else:
            pieces = self._under_way.pieces if self._under_way else ()
            unread = 0 if self._cursor.at_end else journal.distance(self._cursor.next)
            waiting = self._gatherer.count + sum(piece.count for piece in pieces)
            oldest = pieces[0] if pieces else self._gatherer.oldest
        if oldest is None and not unread:
            return Lag()
        size = journal.distance(oldest.start) if oldest else unread
        since = oldest.time if oldest else self._read_time
        seconds = max(0.0, (journal.now() - since) / 1e6) if since else 0.0
        return Lag(waiting + math.ceil(unread / journal.message_bytes), size, seconds)

    def health(self) -> Health:
        """The backend's own view; failing as long as the last try failed."""
        health = self.backend.health()
        return Health("failing", self.error, health.figures) if self.error else health

    # -- the loop

    async def _run(self) -> None:
        await self._open()
        self._reading = Deferred.fromCoroutine(self._read())
        self._reading.addErrback(self._ended)
        while not self._stopping:
            gathered = await self._collect()
            self._under_way = gathered
            await self._deliver(gathered)
            self._under_way = None
            self._cursor.move(gathered.end)

    async def _open(self) -> None:
        while True:
            try:
                reached = await self.backend.open()
                break
            except CancelledError:
                raise
            except Exception as error:  # noqa: BLE001  # a plugin may raise anything
                await self._note_backlog()
                await self._wait_after(error, "can't be opened")
        self._opened = True
        self._succeeded()
        start = self._cursor.kept
        if reached is not None:
            known = reached.journal == start.journal and reached <= self._journal.end
            gone = known and reached < self._journal.oldest and self._journal.follow(reached) < start
            start = self._journal.follow(reached) if known else self._journal.oldest
            if self._cursor.new:
                start = max(start, self._cursor.kept)
            elif gone or not known:
                message = "{name} stands at {reached}, which this journal does not hold: it goes on at {start}"
                self.log.error(message, name=self.name, reached=str(reached), start=str(start))
        self._cursor.seek(start)
        self._gatherer = Gatherer(self.name, self._config.batch, reached or start)

    async def _note_backlog(self) -> None:
        """Find out how long the oldest message waits, as long as no message was read."""
        if not self._read_time:
            with suppress(OSError, KeyError):
                self._read_time = await self._journal.received(self._cursor.kept)

    async def _read(self) -> None:
        """Fill the gatherer, a batch ahead at most."""
        while True:
            group = await self._cursor.read()
            if not self._gatherer.count:
                self._waiting_since = self._reactor.seconds()
            self._read_time = group.time
            self._gatherer.add(group, self._tables(group.routes))
            self._poke()
            while self._gatherer.full:
                self._room = Deferred()
                await self._room

    def _poke(self) -> None:
        if self._event is not None:
            event, self._event = self._event, None
            event.callback(None)

    async def _collect(self) -> Gathered:
        while True:
            gatherer = self._gatherer
            age = self._reactor.seconds() - self._waiting_since
            due = gatherer.count and age >= self._config.batch.age
            flush = self._drains and self._cursor.at_end and gatherer.moved
            if gatherer.full or due or flush or gatherer.crossed:
                gathered = gatherer.take()
                self._waiting_since = self._reactor.seconds()
                if self._room is not None:
                    room, self._room = self._room, None
                    self._reactor.callLater(0, room.callback, None)
                return gathered
            self._event = Deferred()
            timer = None
            if gatherer.count:
                timer = self._reactor.callLater(max(self._config.batch.age - age, 0.001), self._poke)
            await self._event
            if timer is not None and timer.active():
                timer.cancel()

    async def _deliver(self, gathered: Gathered) -> None:
        """Bring it there, whatever that takes."""
        try:
            await self._attempt(gathered)
        except PermanentError as error:
            if gathered.count <= 1:
                await self._bury(gathered, str(error))
            else:
                for half in gathered.halves():
                    await self._deliver(half)

    async def _attempt(self, gathered: Gathered) -> None:
        """Until it is durable. Raises PermanentError."""
        batch = gathered.batch()
        unknown: list[str] = []
        while True:
            try:
                self._outstanding = True
                await self.backend.write(batch)
            except (CancelledError, PermanentError):
                raise
            except Exception as error:
                self._outstanding = False  # a stop need not wait for the next try
                if self._stopping:
                    raise CancelledError from error
                if not isinstance(error, RetryableError):
                    unknown.append(f"{type(error).__name__}: {error}")
                    if unknown[-UNKNOWN_TRIES:] == [unknown[-1]] * UNKNOWN_TRIES and gathered.count:
                        raise PermanentError(unknown[-1]) from error
                self.figures.retries += 1
                await self._wait_after(error, "can't take a batch")
            else:
                self._succeeded()
                self.figures.batches += 1
                self.figures.messages += gathered.count
                return
            finally:
                self._outstanding = False

    async def _bury(self, gathered: Gathered, reason: str) -> None:
        """The one message of it becomes a dead letter; the backend's position moves over it."""
        letters: list[Letter] = []
        for piece in gathered.pieces:
            block = piece.selected()
            for at, line, message in zip(piece.positions(), block.lines, block.messages, strict=True):
                letters.append(letter_of(at, line, message, "refused", reason, self.name))
        await self._dead_letters.put(letters)
        self.figures.dead_letters += len(letters)
        self._tell_refused(reason)
        await self._attempt(Gathered(gathered.start, gathered.end, []))

    def _tell_refused(self, reason: str) -> None:
        """At most once in a while: clients decide how many messages are refused."""
        self._untold += 1
        if self._reactor.seconds() >= self._told_at + TELL_SECONDS:
            message = "{name} refuses messages, now dead letters: {count}, the last because of: {reason}"
            self.log.error(message, name=self.name, count=self._untold, reason=printable(reason))
            self._told_at, self._untold = self._reactor.seconds(), 0

    async def _wait_after(self, error: Exception, what: str) -> None:
        seconds = self._backoff.next()
        text = str(error) or type(error).__name__
        if self.error != text:
            message = "{name} {what}, trying again: {error}"
            self.log.error(message, name=self.name, what=what, error=printable(text))
        self._note_error(text)
        await self._journal.sleep(seconds)

    def _note_error(self, text: str) -> None:
        self.last_error_at = self._journal.now()
        if not self.error:
            self.error_since = self.last_error_at
        self.error = self.last_error = text

    def _succeeded(self) -> None:
        if self.error:
            self.log.info(
                "{name} works again after {tries} tries",
                name=self.name,
                tries=self._backoff.tries,
            )
        self.error = ""
        self._backoff.reset()
