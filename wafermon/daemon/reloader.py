"""When and how the config is read again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from wafermon.config import Config
from wafermon.model.changes import CannotChange, Refused
from wafermon.model.errors import ConfigError

PAUSE_SECONDS = 0.2
"""Between two readings, however often somebody asks: the last word is always read."""


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
        self._asked = False
        self._running: Deferred[None] | None = None
        self._stopped = False

    def request(self) -> None:
        """Read it again, now or after the reading that is under way."""
        self._asked = True
        if self._running is None and not self._stopped:
            self._running = Deferred.fromCoroutine(self._run())
            self._running.addErrback(lambda failure: self.log.failure("A fault of the reload's own", failure))
            self._running.addBoth(self._ran)

    def _ran(self, _: object) -> None:
        self._running = None
        if self._asked:
            self.request()

    async def _run(self) -> None:
        self._asked = False
        try:
            config = await deferToThreadPool(self._reactor, self._pool, self._read)
            if not self._stopped:
                self._accepted(self._take(config))
        except ConfigError as error:
            self._refuse([str(fault) for fault in error.faults])
        except CannotChange as error:
            self._refuse([f"{self.path}: {error}"])
        if not self._stopped:
            pause: Deferred[None] = Deferred()
            self._reactor.callLater(PAUSE_SECONDS, pause.callback, None)
            await pause

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
        self._stopped = True
        self._asked = False
        if self._running is not None:
            ended: Deferred[None] = Deferred()
            self._running.addBoth(ended.callback)
            await ended
