"""From the journal to one backend: batches in order, each until it is durable there.

A failure that may pass is tried again for ever. A batch that the backend can't take is halved until the messages at fault
stand alone: those become dead letters, the rest goes on. Up to `outstanding` batches are under way at a time; once one has
failed it is one at a time until that one is stored, so that nothing becomes a dead letter while a later batch is durable.
No delivery waits for another.

A delivery is a follower (see `wafermon.journal.follower`): whatever ends its `run`, the supervisor calls it again, and it
begins from the position that is kept, with nothing left in memory. It never steps over.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from wafermon.delivery.backoff import Backoff
from wafermon.delivery.batching import Gathered, Gatherer
from wafermon.delivery.calls import Calls
from wafermon.delivery.dead_letters import DeadLetters, Letter, letter_of
from wafermon.delivery.letter_counts import LetterCounts
from wafermon.delivery.refusals import Refusals, Verdict
from wafermon.delivery.workers import Workers
from wafermon.interfaces import Health, IBackend, Position, outstanding_of
from wafermon.journal import Cursor, Journal
from wafermon.journal.follower import together
from wafermon.model.errors import PermanentError, PositionMoved, Refused, RetryableError, printable
from wafermon.model.settings import BackendConfig
from wafermon.routing import Table

TELL_SECONDS = 10.0
"""Between two log lines about refused messages."""
UNKNOWN_TRIES = 10
"""The same unknown error so often in a row counts as permanent."""
DRAIN_SECONDS = 0.02
"""Between two looks whether everything has been delivered."""
_PASSING = (RetryableError, CancelledError, TimeoutError, DeferredTimeout, ConnectTimeout)
"""Errors that say nothing of the messages."""


class State(Enum):
    """What a delivery does now."""

    IDLE = "idle"
    """It does not run: not yet, or between a failure and the next run."""
    OPENING = "opening"
    DELIVERING = "delivering"
    ALONE = "alone"
    """A batch has failed: it is one at a time until that one is stored."""
    ENDING = "ending"
    """It gives the backend nothing more, and waits for what that has."""
    CLOSING = "closing"
    CLOSED = "closed"


class Event(Enum):
    """What happens to it."""

    RUN = "run"
    OPENED = "opened"
    FAILED = "failed"
    STORED = "stored"
    """The batch that had failed."""
    MOVED = "moved"
    """The backend stands elsewhere."""
    BROKE = "broke"
    """Its run has ended."""
    END = "end"
    CLOSE = "close"
    CLOSED = "closed"


NEXT: Mapping[tuple[State, Event], State] = {
    (State.IDLE, Event.RUN): State.OPENING,
    (State.IDLE, Event.END): State.ENDING,
    (State.OPENING, Event.OPENED): State.DELIVERING,
    (State.OPENING, Event.BROKE): State.IDLE,
    (State.OPENING, Event.END): State.ENDING,
    (State.DELIVERING, Event.FAILED): State.ALONE,
    (State.DELIVERING, Event.MOVED): State.OPENING,
    (State.DELIVERING, Event.BROKE): State.IDLE,
    (State.DELIVERING, Event.END): State.ENDING,
    (State.ALONE, Event.STORED): State.DELIVERING,
    (State.ALONE, Event.MOVED): State.OPENING,
    (State.ALONE, Event.BROKE): State.IDLE,
    (State.ALONE, Event.END): State.ENDING,
    # What was under way when it was told to end may still come to anything.
    (State.ENDING, Event.RUN): State.ENDING,
    (State.ENDING, Event.OPENED): State.ENDING,
    (State.ENDING, Event.FAILED): State.ENDING,
    (State.ENDING, Event.STORED): State.ENDING,
    (State.ENDING, Event.MOVED): State.ENDING,
    (State.ENDING, Event.BROKE): State.ENDING,
    (State.ENDING, Event.END): State.ENDING,
    (State.ENDING, Event.CLOSE): State.CLOSING,
    (State.CLOSING, Event.CLOSED): State.CLOSED,
}
"""All transitions; no other is possible."""


@dataclass
class Figures:
    """Counters since the start of the process, also where another config's delivery has taken over."""

    messages: int = 0
    batches: int = 0
    retries: int = 0
    dead_letters: int = 0
    error_since: int = 0
    """When the tries began to fail, in microseconds since the epoch. It stays when they work again, as do the two
    that follow; 0 where none failed since the start."""
    last_error: str = ""
    last_error_at: int = 0


class Lag(NamedTuple):
    """What one backend has not confirmed yet. All 0 where nothing waits for it."""

    messages: int = 0
    """Exact where it keeps up. What still has to be read from disk is reckoned by its bytes, as if all were for it."""
    bytes: int = 0
    """Of journal, from its oldest message to the end."""
    seconds: float = 0.0
    """Since the oldest one was received."""


@dataclass(eq=False)
class _Sent:
    """A batch that the backend has."""

    gathered: Gathered
    done: bool = False
    error: Exception | None = None
    """Why it is not stored, once it is `done`."""


class _Moved(Exception):
    """`open` has to be asked again."""


class Delivery:
    """One backend's delivery. `start` it once the journal is open, let a supervisor `run` it, `end` it, and once its run has
    been stopped, `close` it."""

    log = Logger()
    steps_over = False

    def __init__(
        self,
        config: BackendConfig,
        backend: IBackend,
        journal: Journal,
        dead_letters: DeadLetters,
        tables: Callable[[str], Table],
        reactor: Any,
        workers: Workers | None = None,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """`tables` turns a routing table's text, as the journal holds it, into the table. `workers` are the backend's own
        threads, started and ended with the delivery. `uniform` draws the backoff."""
        self.name = config.name
        self.figures = Figures()
        self.error = ""
        """Why the last try failed; empty where it did not."""
        self.missing = ""
        """What the backend was set back to and the journal does not hold any more; empty where there is nothing."""
        self.backend = backend
        self.state = State.IDLE
        self._config = config
        self._journal = journal
        self._dead_letters = dead_letters
        self._tables = tables
        self._reactor = reactor
        self._workers = workers
        self._calls = Calls(reactor.seconds, config.timeout)
        self._backoff = Backoff(config.retry.initial, config.retry.max, uniform)
        self._refusals = Refusals(config.retry.give_up)
        self._letter_counts = LetterCounts(config.name, journal, reactor)
        self._cursor: Cursor
        self._gatherer: Gatherer | None = None
        """None as long as the backend has not said where it stands."""
        self._window: deque[_Sent] = deque()
        """What the backend has, oldest first."""
        self._divided: deque[Gathered] = deque()
        """What is pending of the batch that has failed; of what the backend has, it has only the first of these."""
        self._again: deque[Gathered] = deque()
        """What comes before all that is gathered: it was given to the backend, and dropped because an older batch failed."""
        self._event: Deferred[None] | None = None
        self._waiting_since = 0.0
        self._room: Deferred[None] | None = None
        self._drains = 0
        self._read_time = 0
        """When the group that was read last was received; before the first one, that where the backlog begins."""
        self._told_at = -TELL_SECONDS
        self._untold = 0

    def _go(self, event: Event) -> None:
        self.state = NEXT[self.state, event]

    @property
    def _ending(self) -> bool:
        return self.state is State.ENDING

    # -- life

    def start(self, predecessor: Delivery | None = None) -> None:
        """Take the cursor. Counters go on at those of a predecessor of the same name."""
        self._cursor = self._journal.cursor(self.name, may_skip=self._config.when_full == "skip")
        if predecessor is not None:
            self.figures = predecessor.figures
        if self._workers is not None:
            self._workers.start()

    async def end(self) -> None:
        """Give the backend nothing more; ends once it has answered for all batches that it has. `run` goes on, and does nothing."""
        self._go(Event.END)
        self._poke()
        await self._calls.ended("write")
        self._confirm()
        self._letter_counts.flush()

    async def close(self) -> None:
        """Close the backend, also while it opens or writes; ends once nothing of it runs any more. `run` has been stopped."""
        self._go(Event.CLOSE)
        self._journal.detach(self._cursor)
        if not (hasattr(self.backend, "outstanding") or hasattr(self.backend, "exactly_once")):
            await self._calls.ended()  # version 1 says nothing of closing what is under way
        try:
            await self._calls.ask("close", self.backend.close)
        except CancelledError:
            raise
        except Exception:  # noqa: BLE001  # a plugin may raise anything
            self.log.failure("{name} did not close as it should", name=self.name)
        await self._calls.ended()
        if self._workers is not None:
            self._workers.leave()  # whatever a backend that said so too soon still does in them
        self._go(Event.CLOSED)

    def leave(self) -> None:
        """The process ends: release threads, whatever hangs in them."""
        if self._workers is not None and self.state is not State.CLOSED:
            self._workers.leave()

    def drain(self) -> Deferred[None]:
        """Fires when everything that is in the journal now has been delivered."""
        return Deferred.fromCoroutine(self._drain(self._journal.end))

    async def _drain(self, until: Position) -> None:
        self._drains += 1
        try:
            while self._journal.follow(self._cursor.kept) < self._journal.follow(until):
                self._poke()
                await self._journal.sleep(DRAIN_SECONDS)
        finally:
            self._drains -= 1

    # -- what is seen of it

    @property
    def outstanding(self) -> int:
        """How many batches the backend takes at a time."""
        return outstanding_of(self.backend)

    @property
    def exactly_once(self) -> bool:
        """Whether the backend stores each message once, whatever fails."""
        return bool(getattr(self.backend, "exactly_once", True))

    @property
    def position(self) -> Position | None:
        """Where the oldest batch begins that is not stored; None where there is none."""
        if self._divided:
            return self._divided[0].start
        return self._window[0].gathered.start if self._window else None

    @property
    def problem(self) -> str:
        """Why nothing is delivered now; empty where that works."""
        return self._calls.late or self.error

    @property
    def late(self) -> str:
        """What the backend should have answered long ago; empty where there is nothing."""
        return self._calls.late

    @property
    def awaited(self) -> str:
        """What the backend has not answered yet; empty where there is nothing."""
        return self._calls.awaited

    @property
    def lag(self) -> Lag:
        """How far this backend is behind."""
        journal, gatherer = self._journal, self._gatherer
        if gatherer is None:
            unread, waiting, oldest = journal.distance(self._cursor.kept), 0, None
        else:
            pending = [*(self._divided or [one.gathered for one in self._window]), *self._again]
            pieces = [piece for one in pending for piece in one.pieces]
            unread = 0 if self._cursor.at_end else journal.distance(self._cursor.next)
            waiting = gatherer.count + sum(piece.count for piece in pieces)
            oldest = pieces[0] if pieces else gatherer.oldest
        if oldest is None and not unread:
            return Lag()
        size = journal.distance(oldest.start) if oldest else unread
        since = oldest.time if oldest else self._read_time
        seconds = max(0.0, (journal.now() - since) / 1e6) if since else 0.0
        return Lag(waiting + math.ceil(unread / journal.message_bytes), size, seconds)

    def health(self) -> Health:
        """The backend's own view; failing as long as the last try failed, or the backend does not answer."""
        try:
            health = self.backend.health()
        except Exception as error:  # noqa: BLE001  # a plugin may raise anything
            health = Health("failing", f"its health can't be asked: {printable(error)}")
        if self.problem:
            return Health("failing", self.problem, health.figures)
        detail = "; ".join(text for text in (health.detail, self.missing) if text)
        return Health(health.state, detail, health.figures)

    # -- the run

    async def run(self) -> None:
        """Deliver from the position that is kept. It ends by an exception alone."""
        self._go(Event.RUN)
        self._forget_all()
        try:
            await self._calls.ended()  # of an earlier run
            moved = False
            while True:
                await self._open(moved)
                try:
                    await together(self._read(), self._work())
                except _Moved:
                    moved = True
                self._forget_all()
                self._go(Event.MOVED)
        except CancelledError:
            raise
        except Exception as error:
            self._note_error(f"{type(error).__name__}: {error}".removesuffix(": "))
            raise
        finally:
            self._go(Event.BROKE)

    async def step_over(self) -> None:
        """Never: what was accepted is delivered or becomes a dead letter."""
        raise NotImplementedError

    async def finish(self) -> None:
        """Nothing: `close` is called wherever the run was stopped."""

    def _forget_all(self) -> None:
        self._gatherer = None
        self._window.clear()
        self._divided.clear()
        self._again.clear()
        self._event = self._room = None

    async def _parked(self) -> None:
        """Do nothing until the run is stopped."""
        self._forget_all()
        await Deferred()

    async def _open(self, moved: bool) -> None:
        while True:
            if self._ending:
                await self._parked()
            try:
                reached = await self._calls.ask("open", self.backend.open)
                if reached is not None and not isinstance(reached, Position):
                    raise TypeError(f"open answered {type(reached).__name__}, and not a Position or None")
                self._check_not_beyond(reached)
                break
            except CancelledError:
                raise
            except Exception as error:  # noqa: BLE001  # a plugin may raise anything
                await self._note_backlog()
                await self._wait_after(error, "can't be opened")
        await self._go_to(reached, moved)
        self._go(Event.OPENED)
        if not moved:
            self._succeeded()

    def _check_not_beyond(self, reached: Position | None) -> None:
        """A backend that has more of this journal than this journal held when it was opened got that from another one with the same id.
        Nothing is sent there, however long the journal becomes meanwhile: what is at these places is not the same. Only the first
        answer can tell: what this process has sent lies beyond as well."""
        journal = self._journal
        if self.name in journal.fitting:
            return
        if reached is not None and reached.journal == journal.id and not journal.had_when_opened(reached):
            raise RetryableError(
                f"it stands at {reached}, beyond the journal's end, {journal.began}, as it was at the start: the journal was put back from "
                f"a copy, or another sidecar has a copy of it. Stop this sidecar and run `wafermon journal renew {journal.dir}`"
            )
        journal.fitting.add(self.name)

    async def _go_to(self, reached: Position | None, moved: bool) -> None:
        """Read on where the backend stands, also below what was kept."""
        journal, kept = self._journal, self._cursor.kept
        if reached is not None and reached.journal in journal.formerly:
            reached = journal.as_now(reached)
            moved = moved and reached is not None
        known = reached if reached and reached.journal == journal.id and reached <= journal.end else None
        goal = known or (kept if reached is None and not moved else journal.oldest)
        if self._cursor.new and not moved:  # what lies before is not for it
            goal = max(goal, kept) if goal.journal == kept.journal else kept
        missing = await journal.rewind(self._cursor, goal)
        if reached is not None and (missing is not None or not known) and (moved or not self._cursor.new):
            self._note_missing(reached)
        start = self._cursor.next
        self._cursor.move(start)
        self._gatherer = Gatherer(self.name, self._config.batch, goal if known else start)

    def _note_missing(self, reached: Position) -> None:
        start = self._cursor.next
        ours = reached.journal == start.journal and reached < start
        self._journal.note_skipped(self.name, reached if ours else start._replace(segment=0, offset=0), start)
        self.missing = f"it stood at {reached}, which this journal does not hold: what lies between is missing there"
        message = "{name} stands at {reached}, which this journal does not hold: it goes on at {start}"
        self.log.error(message, name=self.name, reached=str(reached), start=str(start))

    async def _note_backlog(self) -> None:
        """Find out how long the oldest message waits, as long as no message was read."""
        if not self._read_time:
            with suppress(OSError, KeyError):
                self._read_time = await self._journal.received(self._cursor.kept)

    async def _read(self) -> None:
        """Fill the gatherer, a batch ahead at most."""
        gatherer = self._gatherer
        assert gatherer is not None
        while True:
            group = await self._cursor.read()
            if not gatherer.count:
                self._waiting_since = self._reactor.seconds()
            self._read_time = group.time
            if group.damaged is not None:
                self._journal.note_skipped(self.name, group.start, group.end)
            gatherer.add(group, self._tables(group.routes))
            self._poke()
            while gatherer.full:
                self._room = Deferred()
                await self._room

    # -- batches

    async def _work(self) -> None:
        while True:
            self._confirm()
            if any(one.error for one in self._window):
                await self._recover()
            elif self._ending and not self._window:
                await self._parked()
            elif self._ending or len(self._window) >= self.outstanding:
                await self._something(None)
            elif (gathered := self._next()) is not None:
                self._send(gathered)
            else:
                await self._something(self._due_in())

    def _next(self) -> Gathered | None:
        """What the backend is to get now."""
        if self._again:
            return self._again.popleft()
        gatherer = self._gatherer
        assert gatherer is not None
        due = gatherer.count and (self._due_in() or 0.0) <= 0.0
        flush = self._drains and self._cursor.at_end and gatherer.moved
        if not (gatherer.full or due or flush or gatherer.crossed):
            return None
        gathered = gatherer.take()
        self._waiting_since = self._reactor.seconds()
        if self._room is not None:
            room, self._room = self._room, None
            self._reactor.callLater(0, _fire, room)
        return gathered

    def _due_in(self) -> float | None:
        """In how many seconds what is gathered has waited long enough; None where nothing is."""
        if self._gatherer is None or not self._gatherer.count:
            return None
        return float(self._waiting_since + self._config.batch.age - self._reactor.seconds())

    def _poke(self) -> None:
        """Let `_something` go on, but not within whatever runs now: it may end the run, and cancel just that."""
        if self._event is not None:
            event, self._event = self._event, None
            self._reactor.callLater(0, _fire, event)

    async def _something(self, seconds: float | None) -> None:
        """Wait until something happens, or for so many seconds."""
        event = self._event = Deferred()
        timer: IDelayedCall | None = None
        if seconds is not None:
            timer = self._reactor.callLater(max(seconds, 0.001), self._poke)
        try:
            await event
        finally:
            if timer is not None and timer.active():
                timer.cancel()

    def _send(self, gathered: Gathered) -> _Sent:
        sent = _Sent(gathered)
        self._window.append(sent)

        def answered(result: object) -> None:
            sent.done = True
            if isinstance(result, Failure):
                sent.error = result.value if isinstance(result.value, Exception) else RuntimeError(repr(result.value))
            self._poke()

        self._calls.ask("write", self.backend.write, gathered.batch()).addBoth(answered)
        return sent

    def _confirm(self) -> None:
        """Go past what is stored."""
        while self._window and self._window[0].done and self._window[0].error is None:
            self._stored(self._window.popleft().gathered)

    def _stored(self, gathered: Gathered) -> None:
        if gathered.count:
            self._refusals.accepted()
        self.figures.batches += 1
        self.figures.messages += gathered.count
        self._cursor.move(gathered.end)
        self._succeeded()

    async def _recover(self) -> None:
        """One of the batches under way has failed. Wait for the others, then bring the failed one there alone."""
        while not all(one.done for one in self._window):
            await self._something(None)
        self._confirm()
        failed = self._window.popleft()
        rest = list(self._window)
        assert failed.error is not None
        self._go(Event.FAILED)
        if any(one.error is None for one in rest):
            message = "{name} stored a batch although one before it failed: it is asked again where it stands"
            self.log.error(message, name=self.name)
            await self._move_after(failed.error)
        self._window.clear()
        self._again.extendleft(reversed([one.gathered for one in rest]))
        await self._alone(failed.gathered, failed.error)
        self._go(Event.STORED)

    async def _alone(self, gathered: Gathered, error: Exception | None) -> None:
        """Bring it there, whatever that takes."""
        pending = self._divided
        pending.append(gathered)
        while pending:
            halves = await self._attempt(pending[0], error)
            pending.popleft()
            pending.extendleft(reversed(halves))
            error = None

    async def _attempt(self, gathered: Gathered, error: Exception | None) -> list[Gathered]:
        """Until it is stored, or is to be tried in halves, which are answered. `error` is that of the first try, where there
        was one."""
        unknown: list[str] = []
        while True:
            if self._ending:
                await self._parked()
            error = error or await self._try(gathered)
            if error is None:
                return []
            if isinstance(error, PositionMoved):
                await self._move_after(error)
            if self._ending:
                continue
            error = self._as_permanent(error, gathered, unknown)
            if isinstance(error, Refused):
                gathered = await self._set_some_aside(gathered, error)
            elif not isinstance(error, PermanentError) or not gathered.count:
                self.figures.retries += 1
                await self._wait_after(error, "can't take a batch")
            elif gathered.count > 1:
                return list(gathered.halves())
            else:
                gathered = await self._judge(gathered, error)
            error = None

    async def _try(self, gathered: Gathered) -> Exception | None:
        sent = self._send(gathered)
        while not sent.done:
            await self._something(None)
        self._confirm()
        if sent in self._window:
            self._window.remove(sent)
        return sent.error

    def _as_permanent(self, error: Exception, gathered: Gathered, unknown: list[str]) -> Exception:
        """A refusal that can't be taken at its word, and an unknown error that comes again and again, are permanent ones."""
        if isinstance(error, Refused) and error.reasons.keys() <= set(range(gathered.count)) and error.reasons:
            if len(error.reasons) < gathered.count:
                return error
            return PermanentError(error.reasons[0], error.code)
        if isinstance(error, (*_PASSING, PermanentError)):
            return error
        unknown.append(f"{type(error).__name__}: {error}")
        if unknown[-UNKNOWN_TRIES:] == [unknown[-1]] * UNKNOWN_TRIES:
            return PermanentError(unknown[-1], type(error).__name__)
        return RetryableError(unknown[-1] if isinstance(error, Refused) else str(error) or type(error).__name__)

    async def _move_after(self, error: Exception) -> None:
        await self._wait_after(error, "stands elsewhere")
        raise _Moved

    # -- dead letters

    async def _judge(self, gathered: Gathered, error: PermanentError) -> Gathered:
        """A message was refused that stands alone; answers with what is to be tried next."""
        verdict = self._refusals.judge(error.code, self._reactor.seconds())
        if verdict is Verdict.WAIT:
            self.figures.retries += 1
            await self._wait_after(_suspect(error), "refuses message after message")
            return gathered
        await self._set_aside(gathered, {0: str(error)}, error.code)
        if verdict is Verdict.SET_ASIDE_AND_WAIT:
            await self._wait_after(_suspect(error), "refuses message after message")
        return gathered.empty()

    async def _set_some_aside(self, gathered: Gathered, error: Refused) -> Gathered:
        """Bury the messages that were named; answers with the others."""
        named, rest = gathered.divide(error.reasons)
        if self._refusals.judge(error.code, self._reactor.seconds()) is not Verdict.SET_ASIDE:
            await self._wait_after(_suspect(error), "refuses message after message")
        reasons = [error.reasons[index] for index in sorted(error.reasons)]
        await self._set_aside(named, dict(enumerate(reasons)), error.code)
        return rest

    async def _set_aside(self, gathered: Gathered, reasons: Mapping[int, str], code: str) -> None:
        """Its messages become dead letters, durably. `reasons` are by index."""
        batch = gathered.batch()
        letters: list[Letter] = [
            letter_of(batch.position(index), line, message, "refused", reasons[index], self.name)
            for index, (line, message) in enumerate(zip(batch.lines, batch.messages, strict=True))
        ]
        while True:
            try:
                await self._dead_letters.put(letters)
                break
            except OSError as error:
                await self._wait_after(error, "refuses messages that can't be written as dead letters")
        self._refusals.set_aside(code, len(letters))
        self._letter_counts.add(batch.messages)
        self.figures.dead_letters += len(letters)
        self._tell_refused(len(letters), reasons[0])

    def _tell_refused(self, count: int, reason: str) -> None:
        """At most once in a while: clients decide how many messages are refused."""
        self._untold += count
        if self._reactor.seconds() >= self._told_at + TELL_SECONDS:
            message = "{name} refuses messages, now dead letters: {count}, the last because of: {reason}"
            self.log.error(message, name=self.name, count=self._untold, reason=printable(reason))
            self._told_at, self._untold = self._reactor.seconds(), 0

    # -- failures

    async def _wait_after(self, error: Exception, what: str) -> None:
        seconds = self._backoff.next()
        text = str(error) or type(error).__name__
        if self.error != text:
            message = "{name} {what}, trying again: {error}"
            self.log.error(message, name=self.name, what=what, error=printable(text))
        self._note_error(text)
        await self._journal.sleep(seconds)

    def _note_error(self, text: str) -> None:
        figures = self.figures
        figures.last_error_at = self._journal.now()
        if not self.error:
            figures.error_since = figures.last_error_at
        self.error = figures.last_error = text

    def _succeeded(self) -> None:
        """Something worked. A backend that refuses whatever it is given works again once it takes a message."""
        if self._refusals.suspect:
            return
        if self.error:
            self.log.info(
                "{name} works again after {tries} tries",
                name=self.name,
                tries=self._backoff.tries,
            )
        self.error = ""
        self._backoff.reset()


def _suspect(error: Exception) -> Exception:
    return RetryableError(f"it refuses message after message, and has taken none since: {error}")


def _fire(event: Deferred[None]) -> None:
    if not event.called:
        event.callback(None)
