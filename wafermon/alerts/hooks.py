"""Follows the journal and runs the operator's command for the few messages that should not wait.

It is one more cursor, so that nothing is forgotten over a restart:

- The cursor moves over an event once its command has ended, whether well or not, and that is made durable at once. A stop
  gives the commands that run a few seconds, and ends them then. After a clean stop the events whose commands were ended
  so, or had not started, are told, and no other again. A sidecar that was killed tells those again whose command had
  not ended, and with bad luck the one that had ended just then. A command that must not act twice can go by the
  event's `ts` and ids.
- An event beyond `at_most`, or beyond what may wait, is counted and not told later either.
- A hook that is new begins with what is accepted from then on.
- Commands run beside each other, a few at most, and are ended when they take too long. The cursor never waits for
  them to read on, and never keeps the receivers waiting: where the journal is full, it skips.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.logger import Logger

from wafermon.alerts.command import Run
from wafermon.alerts.window import Window
from wafermon.journal import Group, Journal
from wafermon.model.messages import dumps
from wafermon.model.notable import Notable, notables
from wafermon.model.position import Position
from wafermon.model.settings import Hooks as Settings

CURSOR = "!hooks"
AT_A_TIME = 4
WAITING = 100
"""Events whose command has not started."""


@dataclass(eq=False)
class _Stretch:
    """A stretch of the journal whose events are being told."""

    end: Position
    left: int = 0
    """Events that have not been told."""


class Hooks:
    """`start` it once the journal is open. Without settings it tells nobody, and holds nothing of the journal."""

    log = Logger()

    def __init__(self, settings: Settings | None, journal: Journal, reactor: Any) -> None:
        self.told = 0
        """Commands that ended well, since the start; `failed` did not."""
        self.failed = 0
        self.skipped = 0
        """Events beyond `at_most`, or beyond what may wait."""
        self.error = ""
        """What was wrong with the last command; empty where it ended well."""
        self._journal = journal
        self._reactor = reactor
        self._stretches: deque[_Stretch] = deque()
        self._waiting: deque[tuple[Notable, _Stretch]] = deque()
        self._runs: set[Run] = set()
        self._running: Deferred[None] | None = None
        self._skipping = False
        self._stopping = False
        self._settings = settings

    def configure(self, settings: Settings | None) -> None:
        """Other settings are in force from now on. Without any, commands that run are let end, and what waits is not told."""
        before, self._settings = self._settings, settings
        if settings is None:
            self._end_reading()
            self._stretches.clear()
            self._journal.forget(CURSOR)
        elif before is None:
            self.start()
        else:
            self._window = Window(settings.at_most.count, settings.at_most.seconds)

    def start(self) -> None:
        if self._settings is None:
            self._journal.forget(CURSOR)
            return
        self._window = Window(self._settings.at_most.count, self._settings.at_most.seconds)
        self._cursor = self._journal.cursor(CURSOR, may_skip=True)
        self._running = Deferred.fromCoroutine(self._run())
        self._running.addErrback(self._ended)

    def _ended(self, failure: Any) -> None:
        if not failure.check(CancelledError):
            self.error = f"stopped by a fault of wafermon's own: {failure.value}"
            self.log.failure("The hooks stopped", failure)

    async def stop(self, grace: float) -> None:
        """Start no more commands; those that run have `grace` seconds. What was not told is told after the next start."""
        self._stopping = True
        reading = self._running is not None
        self._end_reading()
        timer = self._reactor.callLater(grace, self._give_up)
        await DeferredList([run.ended for run in self._runs])
        if timer.active():
            timer.cancel()
        if reading:
            self._journal.detach(self._cursor)

    def _end_reading(self) -> None:
        if self._running is not None:
            self._running.cancel()
            self._running = None
        self._waiting.clear()

    def _give_up(self) -> None:
        for run in self._runs:
            run.terminate()

    def figures(self) -> dict[str, int | str]:
        """Counters since the start, and what was wrong last."""
        return {"told": self.told, "failed": self.failed, "skipped": self.skipped, "error": self.error}

    async def _run(self) -> None:
        while self._settings is not None:
            self._take(await self._cursor.read(), self._settings)

    def _take(self, group: Group, settings: Settings) -> None:
        found = [one for _, block in group.blocks for one in notables(block) if one.kind in settings.on]
        if found:
            self._tell(found, group.end, settings)
        elif self._stretches:
            self._stretches[-1].end = group.end
        else:
            self._cursor.move(group.end)

    def _tell(self, found: list[Notable], end: Position, settings: Settings) -> None:
        stretch = _Stretch(end)
        self._stretches.append(stretch)
        for one in found:
            if self._may_be_told(one, settings):
                stretch.left += 1
                self._waiting.append((one, stretch))
        self._start_waiting()
        self._pass_over()

    def _may_be_told(self, one: Notable, settings: Settings) -> bool:
        if len(self._waiting) < WAITING and self._window.take(self._reactor.seconds()):
            self._skipping = False
            return True
        self.skipped += 1
        if not self._skipping:
            self._skipping = True
            message = "The hook is not told of {kind} and what follows: more than {at_most}, or than it can take"
            self.log.warn(message, kind=one.kind, at_most=str(settings.at_most))
        return False

    def _start_waiting(self) -> None:
        while self._settings and self._waiting and len(self._runs) < AT_A_TIME:
            one, stretch = self._waiting.popleft()
            run = Run(dumps(one.event()).encode() + b"\n", self._reactor)
            self._runs.add(run)
            run.ended.addCallback(self._run_ended, run, one, stretch)
            run.start(self._settings.command)

    def _run_ended(self, problem: str, run: Run, one: Notable, stretch: _Stretch) -> None:
        self._runs.discard(run)
        if problem and self._stopping:
            self.log.info("The hook was ended with the sidecar; it is told of {kind} again", kind=one.kind)
            return
        if problem:
            self.failed += 1
            self.log.error("The hook failed for {kind}: {problem}", kind=one.kind, problem=problem)
        else:
            self.told += 1
        self.error = problem
        stretch.left -= 1
        self._pass_over()
        self._start_waiting()

    def _pass_over(self) -> None:
        """Move the cursor over what has been told from its front on."""
        end = None
        while self._stretches and not self._stretches[0].left:
            end = self._stretches.popleft().end
        if end is not None:
            self._cursor.move(end)
            self._journal.checkpoint_soon()
