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
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import DeferredList
from twisted.logger import Logger

from wafermon.alerts.command import Run
from wafermon.alerts.window import Window
from wafermon.journal import Cursor, Group, Journal, Outstanding
from wafermon.model.messages import dumps
from wafermon.model.notable import Notable, notables
from wafermon.model.position import Position
from wafermon.model.settings import Hooks as Settings

CURSOR = "!hooks"
AT_A_TIME = 4
WAITING = 100
"""Events whose command has not started."""


Key = tuple[Position, int]
"""An event's place: the start of its group, and which of the group's notable messages it is."""


@dataclass(eq=False)
class _Stretch:
    """A stretch of the journal whose events are being told."""

    end: Position
    keys: set[Key] = field(default_factory=set)
    """Its events."""
    left: int = 0
    """Those that have not been told."""


class Hooks:
    """The follower that runs the command. Without settings it tells nobody, and is not to be started."""

    log = Logger()
    name = CURSOR
    steps_over = True

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
        self._cursor: Cursor | None = None
        self._group: Group | None = None
        self._stretches: deque[_Stretch] = deque()
        self._waiting: deque[tuple[bytes, str, Key]] = deque()
        self._runs: dict[Key, Run] = {}
        self._done: set[Key] = set()
        """Events beyond the cursor that are done with: told, failed or skipped. Kept over a failure, so that none is told twice."""
        self._outstanding = Outstanding(journal.seconds)
        self._skipping = False
        self._stopping = False
        self._settings = settings
        self._window = _window(settings)

    def configure(self, settings: Settings | None) -> None:
        """Other settings are in force from now on."""
        self._settings = settings
        self._window = _window(settings)

    def forget(self) -> None:
        """It is not started, or stopped for good: hold nothing of the journal. Commands that run are let end, and what waits is
        not told."""
        self._waiting.clear()
        self._stretches.clear()
        self._done.clear()
        self._cursor = None
        self._journal.forget(CURSOR)

    @property
    def position(self) -> Position | None:
        return self._group.start if self._group else None

    @property
    def problem(self) -> str:
        """Commands that fail are counted and named by `figures`; they hinder nothing."""
        return self._outstanding.late

    async def run(self) -> None:
        self._detach()
        self._waiting.clear()
        self._stretches.clear()
        self._group = None
        self._stopping = False
        self._cursor = cursor = self._journal.cursor(CURSOR, may_skip=True)
        while True:
            group = await cursor.read()
            self._group = group
            self._take(group)
            self._group = None

    async def step_over(self) -> None:
        """The cursor passes it once what came before it has been told."""
        if self._group is not None:
            await self._outstanding.wait("the journal's disk", self._journal.step_over(CURSOR, self._group.start))

    async def finish(self) -> None:
        """Commands may run: `end` lets go of the journal."""

    async def end(self, grace: float) -> None:
        """Once it is stopped: those that run have `grace` seconds. What was not told is told after the next start."""
        self._stopping = True
        self._waiting.clear()
        timer = self._reactor.callLater(grace, self._give_up)
        await DeferredList([run.ended for run in self._runs.values()])
        if timer.active():
            timer.cancel()
        self._detach()

    def _detach(self) -> None:
        if self._cursor is not None:
            self._journal.detach(self._cursor)
            self._cursor = None

    def _give_up(self) -> None:
        for run in list(self._runs.values()):
            run.terminate()

    def figures(self) -> dict[str, int | str]:
        """Counters since the start, and what was wrong last."""
        return {"told": self.told, "failed": self.failed, "skipped": self.skipped, "error": self.error}

    def _take(self, group: Group) -> None:
        settings = self._settings
        wanted = settings.on if settings else ()
        if group.start in self._journal.stepped_over(CURSOR):
            wanted = ()
        found = [one for _, block in group.blocks for one in notables(block) if one.kind in wanted] if wanted else []
        if found:
            self._tell(found, group)
        elif self._stretches:
            self._stretches[-1].end = group.end
        elif self._cursor is not None:
            self._cursor.move(group.end)

    def _tell(self, found: list[Notable], group: Group) -> None:
        stretch = _Stretch(group.end)
        self._stretches.append(stretch)
        for number, one in enumerate(found):
            key = group.start, number
            stretch.keys.add(key)
            if key in self._done:
                continue
            if key in self._runs:
                stretch.left += 1
            elif self._may_be_told(one):
                stretch.left += 1
                self._waiting.append((dumps(one.event()).encode() + b"\n", one.kind, key))
            else:
                self._done.add(key)
        self._start_waiting()
        self._pass_over()

    def _may_be_told(self, one: Notable) -> bool:
        if len(self._waiting) < WAITING and self._window.take(self._reactor.seconds()):
            self._skipping = False
            return True
        self.skipped += 1
        if not self._skipping:
            self._skipping = True
            message = "The hook is not told of {kind} and what follows: more than {at_most}, or than it can take"
            self.log.warn(message, kind=one.kind, at_most=str(self._settings and self._settings.at_most))
        return False

    def _start_waiting(self) -> None:
        while self._settings and not self._stopping and self._waiting and len(self._runs) < AT_A_TIME:
            data, kind, key = self._waiting.popleft()
            run = self._runs[key] = Run(data, self._reactor)
            run.ended.addCallback(self._run_ended, kind, key)
            run.ended.addErrback(lambda failure: self.log.failure("A fault of the hooks' own", failure))
            run.start(self._settings.command)

    def _run_ended(self, problem: str, kind: str, key: Key) -> None:
        del self._runs[key]
        if problem and self._stopping:
            self.log.info("The hook was ended with the sidecar; it is told of {kind} again", kind=kind)
            return
        if problem:
            self.failed += 1
            self.log.error("The hook failed for {kind}: {problem}", kind=kind, problem=problem)
        else:
            self.told += 1
        self.error = problem
        self._done.add(key)
        for stretch in self._stretches:
            stretch.left -= key in stretch.keys
        self._pass_over()
        self._start_waiting()

    def _pass_over(self) -> None:
        """Move the cursor over what has been told from its front on."""
        end = None
        while self._stretches and not self._stretches[0].left:
            stretch = self._stretches.popleft()
            self._done.difference_update(stretch.keys)
            end = stretch.end
        if end is not None and self._cursor is not None:
            self._cursor.move(end)
            self._journal.checkpoint_soon()


def _window(settings: Settings | None) -> Window:
    return Window(settings.at_most.count, settings.at_most.seconds) if settings else Window(0, 1.0)
