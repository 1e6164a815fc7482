"""When and how the config is read again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from wafermon.config import Config
from wafermon.model.changes import CannotChange, Refused
from wafermon.model.errors import ConfigError


class State(Enum):
    """What it does now."""

    IDLE = "idle"
    READING = "reading"
    READING_OLD = "reading what may be old"
    """A reload was asked for since this reading began."""
    PAUSING = "pausing"
    PAUSING_ASKED = "pausing, and then reading"
    STOPPED = "stopped"


class Event(Enum):
    """What happens to it."""

    ASK = "ask"
    READ = "read"
    """A reading has ended, whatever came of it."""
    PAUSED = "paused"
    STOP = "stop"


NEXT: Mapping[tuple[State, Event], State] = {
    (State.IDLE, Event.ASK): State.READING,
    (State.READING, Event.ASK): State.READING_OLD,
    (State.READING, Event.READ): State.PAUSING,
    (State.READING_OLD, Event.ASK): State.READING_OLD,
    (State.READING_OLD, Event.READ): State.PAUSING_ASKED,
    (State.PAUSING, Event.ASK): State.PAUSING_ASKED,
    (State.PAUSING, Event.PAUSED): State.IDLE,
    (State.PAUSING_ASKED, Event.ASK): State.PAUSING_ASKED,
    (State.PAUSING_ASKED, Event.PAUSED): State.READING,
    **{(state, Event.STOP): State.STOPPED for state in State},
    # What was under way may still end.
    (State.STOPPED, Event.ASK): State.STOPPED,
    (State.STOPPED, Event.READ): State.STOPPED,
    (State.STOPPED, Event.PAUSED): State.STOPPED,
}
"""All transitions; no other is possible."""

PAUSE_SECONDS = 0.2
"""Between two readings, however often one is asked for: the last state of the file is always read."""


class Reloader:
    """Reads the config when it is asked to, one reading at a time."""

    log = Logger()

    def __init__(
        self,
        path: Path,
        read: Callable[[], Config],
        take: Callable[[Config], Sequence[str]],
        pool: ThreadPool,
        reactor: Any,
        now: Callable[[], int],
    ) -> None:
        """`now` says the date, in microseconds since the epoch. `read` blocks, and raises ConfigError. `take` puts a config in force and answers with what has changed; it
        raises ConfigError or CannotChange where it can't, and then nothing has."""
        self.path = path
        self.refused: Refused | None = None
        self.count = 0
        """Configs that were put in force since the start."""
        self._read = read
        self._take = take
        self._pool = pool
        self._reactor = reactor
        self._now = now
        self._state = State.IDLE
        self._reading: Deferred[None] | None = None
        self._pause: IDelayedCall | None = None

    def request(self) -> None:
        """Read it again, now or after the reading that is under way."""
        before = self._state
        self._go(Event.ASK)
        if before is State.IDLE:
            self._begin()

    def _go(self, event: Event) -> None:
        self._state = NEXT[self._state, event]

    def _begin(self) -> None:
        self._reading = reading = Deferred.fromCoroutine(self._read_once())
        reading.addErrback(lambda failure: self.log.failure("Internal error in the reload", failure))
        reading.addBoth(self._ended)

    async def _read_once(self) -> None:
        try:
            config = await deferToThreadPool(self._reactor, self._pool, self._read)
            if self._state is not State.STOPPED:
                self._accepted(self._take(config))
        except ConfigError as error:
            self._refuse([str(fault) for fault in error.faults])
        except CannotChange as error:
            self._refuse([f"{self.path}: {error}"])

    def _ended(self, _: object) -> None:
        self._reading = None
        self._go(Event.READ)
        if self._state is not State.STOPPED:
            self._pause = self._reactor.callLater(PAUSE_SECONDS, self._paused)

    def _paused(self) -> None:
        self._pause = None
        self._go(Event.PAUSED)
        if self._state is State.READING:
            self._begin()

    def _accepted(self, changed: Sequence[str]) -> None:
        self.refused = None
        self.count += 1
        if changed:
            self.log.info("{path} is in force: {changed}", path=str(self.path), changed=", ".join(changed))
        else:
            self.log.info("{path} says what was in force already", path=str(self.path))

    def _refuse(self, faults: Sequence[str]) -> None:
        self.refused = Refused(self._now(), tuple(faults))
        message = "{path} is refused; what was in force stays so:\n{faults}"
        self.log.error(message, path=str(self.path), faults="\n".join(faults))

    async def stop(self) -> None:
        """Read nothing any more; ends when nothing is under way."""
        self._go(Event.STOP)
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._reading is not None:
            ended: Deferred[None] = Deferred()
            self._reading.addBoth(ended.callback)
            await ended
