"""One channel: follows the journal into its outbox, and sends what is in that. See docs/alerts.md.

The two halves run beside each other. The first moves the cursor as soon as the outbox has what is to be sent, so that a receiver that
does not answer holds nothing of the journal; where the outbox's disk fails and the journal is full, the cursor skips. The second
takes the oldest, sends it until it is taken or refused for good, and only then the next: what resolves an alarm never comes before it.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from wafermon.alerts.alarms import alarm_of, digest_of, test_alarm, wanted
from wafermon.alerts.covered import Covered
from wafermon.alerts.outbox import Outbox, Pending
from wafermon.alerts.window import Window
from wafermon.interfaces import Alarm, PermanentError, RetryableError
from wafermon.journal import Cursor, Group, Journal, Outstanding, together
from wafermon.model.alerts import AlertConfig, quiet_left
from wafermon.model.errors import printable
from wafermon.model.notable import notables
from wafermon.model.position import Position

FIRST_SECONDS, MOST_SECONDS = 1.0, 60.0
"""Of the backoff after a failed try."""
LOOK_SECONDS = 30.0
"""What is held back is looked at so often."""
SEND_SECONDS = 150.0
"""A try that has not ended by then has failed, whatever the plugin does."""
STOP_SECONDS = 3.0
"""A stop waits so long for the end of a try, so that what was taken is not sent again after the next start."""
CURSOR = "!alerts/"


class _Try(NamedTuple):
    """What is being sent: the plugin's call, and which of the outbox it is for."""

    numbers: list[int]
    alarm: Alarm
    call: Deferred[None]


class Channel:
    """A `Follower`."""

    log = Logger()
    steps_over = True

    def __init__(
        self,
        config: AlertConfig,
        plugin: Any,
        journal: Journal,
        directory: Path,
        pool: Any,
        reactor: Any,
        *,
        cursor: str,
        covered: Callable[[], Covered] = lambda: Covered({}),
        wall: Callable[[], float] = time.time,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """`plugin` is the IChannel; `pool` has one thread; the outbox is in `directory`; `cursor` is its name in the journal; `covered` are the jobs that schedules tell of now."""
        self.config = config
        self.name = cursor
        self.sent = self.failed = self.refused = self.pending = self.dropped = self.held = 0
        self.skipped = 0
        """Beyond `at_most`, where the plugin takes no digests."""
        self.error = ""
        self.next_try = 0
        """Microseconds since the epoch; 0 where it does not wait."""
        self._plugin = plugin
        self._resolves = bool(getattr(plugin, "resolves", False))
        self._digests = bool(getattr(plugin, "digests", True))
        self._journal = journal
        self._pool = pool
        self._reactor = reactor
        self._covered = covered
        self._wall = wall
        self._uniform = uniform
        self._outbox = Outbox(directory / f"{cursor.removeprefix(CURSOR)}.db")
        self._window = Window(config.at_most.count, config.at_most.seconds)
        self._outstanding = Outstanding(journal.seconds)
        self._cursor: Cursor | None = None
        self._group: Group | None = None
        self._disk_errors: dict[str, str] = {}
        """By the call of the outbox that fails: what the other half can do does not hide it."""
        self._woken: Deferred[None] | None = None
        self._news = False
        """Whether the outbox has got something since `_next` looked."""
        self._repeated = 0.0
        self._try: _Try | None = None
        self._skipping = False

    @property
    def position(self) -> Position | None:
        return self._group.start if self._group else None

    @property
    def problem(self) -> str:
        """A receiver that does not answer is shown by `figures`, and hinders nothing else."""
        return next(iter(self._disk_errors.values()), "") or self._outstanding.late

    def figures(self) -> dict[str, int | str | None]:
        """What status shows. ``next_try`` is in microseconds since the epoch."""
        return {
            "plugin": self.config.plugin,
            "pending": self.pending,
            "held": self.held,
            "dropped": self.dropped,
            "sent": self.sent,
            "failed": self.failed,
            "refused": self.refused,
            "error": self.error,
            "next_try": self.next_try or None,
        }

    async def run(self) -> None:
        self._detach()
        self._group = None
        # At once: a channel that is new is told of what is accepted from now on, not from when its disk has answered.
        self._cursor = cursor = self._journal.cursor(self.name, may_skip=True)
        self.pending, self.dropped = await self._disk(self._outbox.open)
        await self._find_place(cursor)
        await together(self._follow(cursor), self._send())

    async def step_over(self) -> None:
        if self._group is not None:
            await self._outstanding.wait("the journal's disk", self._journal.step_over(self.name, self._group.start))

    async def finish(self) -> None:
        self._detach()
        await self._end_try(STOP_SECONDS)
        await self._outstanding.wait(f"the channel {self.config.name}", self._plugin.close())
        await self._call(self._outbox.close)

    def forget(self) -> None:
        """It has gone from the config, and was stopped: hold nothing of the journal any more."""
        self._journal.forget(self.name)

    def _detach(self) -> None:
        if self._cursor is not None:
            self._journal.detach(self._cursor)
            self._cursor = None

    async def test(self) -> None:
        """Send a test now, past the outbox, and resolve it. Fails as the plugin's `send` does."""
        now = self._journal.now()
        await self._send_one(test_alarm(self.config.name, "trigger", now))
        if self._resolves:
            await self._send_one(test_alarm(self.config.name, "resolve", now))

    async def _find_place(self, cursor: Cursor) -> None:
        """The outbox says up to where it has the alarms. The journal may have got another id since, or been put back from a backup."""
        reached: Position | None = await self._disk(self._outbox.reached)
        place = self._journal.as_now(reached) if reached else None
        if place is not None and place.journal == self._journal.id and place > self._journal.end:
            place = cursor.kept
        if place not in (None, reached):
            await self._disk(self._outbox.reach, place)

    # -- the journal -> the outbox

    async def _follow(self, cursor: Cursor) -> None:
        while True:
            self._group = group = await cursor.read()
            alarms = [] if group.start in self._journal.stepped_over(self.name) else self._alarms(group)
            if alarms:
                self.pending, self.dropped = await self._disk(self._outbox.put, alarms, group.end)
                self._wake()
            cursor.move(group.end)
            self._group = None

    def _alarms(self, group: Group) -> list[Alarm]:
        found, covered = list[Alarm](), self._covered()
        for offset, block in group.blocks:
            for number, one in enumerate(notables(block)):
                alarm = alarm_of(one, f"{self._journal.id}-{group.start.segment}-{offset}-{number}")
                if self._resolves and alarm.action == "resolve":
                    found.append(alarm)  # what was sent is resolved, whatever `on` and `match` say of that
                elif wanted(alarm, self.config) and not covered.tells(alarm, self.config, group.time):
                    found.append(alarm)
        return found

    async def _disk(self, call: Callable[..., Any], *args: Any) -> Any:
        """Until it succeeds, however long the disk fails."""
        while True:
            try:
                result = await self._call(call, *args)
            except (OSError, sqlite3.Error) as error:
                text = f"its outbox can't be used: {error}"
                if self._disk_errors.get(call.__name__) != text:
                    message = "The outbox of the channel {name} can't be used, trying again: {error}"
                    self.log.error(message, name=self.config.name, error=error)
                self._disk_errors[call.__name__] = text
                await self._journal.sleep(self._uniform(FIRST_SECONDS, 10 * FIRST_SECONDS))
            else:
                self._disk_errors.pop(call.__name__, None)
                return result

    def _call(self, call: Callable[..., Any], *args: Any) -> Deferred[Any]:
        calling: Deferred[Any] = deferToThreadPool(self._reactor, self._pool, call, *args)
        return self._outstanding.wait("the outbox's disk", calling)

    # -- the outbox -> the receiver

    async def _send(self) -> None:
        tries = 0
        await self._end_try(SEND_SECONDS)
        while True:
            numbers, alarm = await self._next()
            self._try = _Try(numbers, alarm, self._call_plugin(alarm))
            try:
                await _ended(self._try.call, SEND_SECONDS, self._reactor)
            except CancelledError:
                raise
            except PermanentError as error:
                self._try = None
                self.refused += 1
                self._failed(alarm, error, "given up", again=False)
            except Exception as error:  # noqa: BLE001  # a third party's channel: it comes again, whatever it was
                self._try = None
                self.failed += 1
                seconds = max(
                    self._uniform(0.5, 1.0) * min(FIRST_SECONDS * 2.0 ** min(tries, 10), MOST_SECONDS), _wait_of(error)
                )
                tries += 1
                self.next_try = self._journal.now() + int(seconds * 1e6)
                self._failed(alarm, error, f"tried again in {seconds:.0f} s")
                await self._journal.sleep(seconds)
                self.next_try = 0
                continue
            else:
                self.sent += 1
                self.error = ""
            tries = 0
            refused = bool(self.error)
            if self._counts(alarm):
                self._window.note(self._reactor.seconds())
            self.pending = await self._disk(self._outbox.done, numbers, None if refused else alarm)
            self._try = None

    def _call_plugin(self, alarm: Alarm) -> Deferred[None]:
        call: Deferred[None] = maybeDeferred(self._plugin.send, alarm)
        return call

    def _send_one(self, alarm: Alarm) -> Deferred[None]:
        """One that is not in the outbox."""
        return _ended(self._call_plugin(alarm), SEND_SECONDS, self._reactor, cancel=True)

    def _counts(self, alarm: Alarm) -> bool:
        """Whether it is one of those of which there may be `at_most`, and which quiet hours hold back."""
        return alarm.action != "resolve" or not self._resolves

    async def _end_try(self, seconds: float) -> None:
        """What was being sent when `run` ended has so long to be taken, and is noted then."""
        if self._try is None:
            return
        numbers, alarm, call = self._try
        self._try = None
        try:
            await _ended(call, seconds, self._reactor)
        except PermanentError:
            self.pending = await self._call(self._outbox.done, numbers, None)
        except Exception as error:  # noqa: BLE001  # it comes again
            message = "The channel {name} ended while it sent {kind}, which is sent again: {error}"
            self.log.info(message, name=self.config.name, kind=alarm.kind, error=printable(str(error) or "no answer"))
        else:
            self.sent += 1
            self.pending = await self._call(self._outbox.done, numbers, alarm)

    def _failed(self, alarm: Alarm, error: Exception, what: str, *, again: bool = True) -> None:
        """One that is tried `again` is said once for a reason; each that is given up is."""
        text = printable(str(error) or type(error).__name__)
        if text != self.error or not again:
            message = "The channel {name} did not take {kind}, which is {what}: {error}"
            self.log.error(message, name=self.config.name, kind=alarm.kind, what=what, error=text)
        self.error = text

    async def _next(self) -> tuple[list[int], Alarm]:
        """What is to be sent now, and which of the outbox that is. Waits for it."""
        while True:
            self._news = False
            first: Pending | None
            first, self.held = await self._disk(self._outbox.next)
            if first is not None and first.alarm.action == "resolve":
                await self._disk(self._outbox.over, first.alarm.key)
            if first is not None and not self._counts(first.alarm):
                if await self._disk(self._outbox.is_open, first.alarm.key):
                    return [first.id], first.alarm
                self.pending = await self._disk(self._outbox.done, [first.id], None)
                continue
            may = not self._quiet() and self._window.is_free(self._reactor.seconds())
            if may and self.held:
                held: list[Pending] = await self._disk(self._outbox.held)
                alone = len(held) == 1 and not held[0].over
                return [one.id for one in held], held[0].alarm if alone else self._digest(held)
            if first is not None:
                if may:
                    self._skipping = False
                    return [first.id], first.alarm
                if self._digests:
                    await self._disk(self._outbox.hold, self._resolves)
                else:
                    await self._skip(first)
                continue
            await self._send_again()
            await self._look()

    async def _skip(self, one: Pending) -> None:
        """There were `at_most`, and the plugin takes no digest of what is beyond."""
        self.skipped += 1
        if not self._skipping:
            self._skipping = True
            message = "The channel {name} is not told of {kind} and what follows: more than {at_most}"
            self.log.warn(message, name=self.config.name, kind=one.alarm.kind, at_most=str(self.config.at_most))
        self.pending = await self._disk(self._outbox.done, [one.id], None)

    def _digest(self, held: list[Pending]) -> Alarm:
        return digest_of([one.alarm for one in held], self.config.name, sum(one.over for one in held))

    async def _send_again(self) -> None:
        """Those that are not over are sent again where the plugin asks for that: one after the other."""
        repeat = float(getattr(self._plugin, "repeat", 0.0))
        if not repeat or self._reactor.seconds() - self._repeated < repeat:
            return
        self._repeated = self._reactor.seconds()
        for alarm in await self._disk(self._outbox.opened):
            try:
                await self._send_one(alarm)
            except CancelledError:
                raise
            except Exception as error:  # noqa: BLE001  # it is sent again at the next time
                self._failed(alarm, error, "sent again later")
                break

    def _quiet(self) -> bool:
        now = time.localtime(self._wall())
        return bool(quiet_left(self.config.quiet, now.tm_hour * 60 + now.tm_min))

    async def _look(self) -> None:
        """Until there is something new, or it is time to look."""
        if self._news:
            return
        woken: Deferred[None] = Deferred()
        self._woken = woken
        timer = self._reactor.callLater(1.0 if self.held else LOOK_SECONDS, self._wake)
        try:
            await woken
        finally:
            self._woken = None
            if timer.active():
                timer.cancel()

    def _wake(self) -> None:
        self._news = True
        if self._woken is not None and not self._woken.called:
            self._woken.callback(None)


def _ended(call: Deferred[None], seconds: float, clock: Any, *, cancel: bool = False) -> Deferred[None]:
    """Fires as the plugin's call does, and fails where that has not ended after so many seconds: it is cancelled then, and not waited for.
    A CancelledError of the plugin's own is a RetryableError. Cancelling this leaves the call to itself, unless `cancel`."""

    def let_go() -> None:
        call.addErrback(lambda _: None)
        call.cancel()

    def stop(waiting: Deferred[None]) -> None:
        waiting.errback(CancelledError())
        if cancel:
            let_go()

    def late(_: object, seconds: float) -> None:
        let_go()
        raise RetryableError(f"no answer within {seconds:g} s")

    def ended(result: object) -> object:
        if waiting.called:
            return result
        if isinstance(result, Failure) and isinstance(result.value, CancelledError):
            waiting.errback(RetryableError("the plugin cancelled it"))
        else:
            waiting.callback(result)  # type: ignore[arg-type]
        return None

    waiting: Deferred[None] = Deferred(stop)
    waiting.addTimeout(seconds, clock, late)
    call.addBoth(ended)
    return waiting


def _wait_of(error: Exception) -> float:
    wait = getattr(error, "wait", 0.0)
    return min(float(wait), 3600.0) if isinstance(wait, (int, float)) else 0.0
