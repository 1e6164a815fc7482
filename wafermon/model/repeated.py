"""A call that is made again and again, and that no failure of one of them ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

TOLD_SECONDS = 60.0
"""So often the log is told of a call that fails each time."""


class Repeated(LoopingCall):
    """A LoopingCall on a reactor of one's own. What one call raises, or its Deferred fails with, is logged, and the next one comes all
    the same."""

    log = Logger()

    def __init__(self, reactor: Any, call: Callable[[], object]) -> None:
        super().__init__(self._call_safely)
        self.clock = reactor
        self._repeated = call
        self._told = -TOLD_SECONDS

    def _call_safely(self) -> object:
        try:
            result = self._repeated()
        except Exception:  # noqa: BLE001  # whatever it is: the next call may work
            self._tell(Failure())  # type: ignore[no-untyped-call]
            return None
        return result.addErrback(self._tell) if isinstance(result, Deferred) else result

    def _tell(self, failure: Failure) -> None:
        now = self.clock.seconds()
        if now - self._told >= TOLD_SECONDS:
            self._told = now
            what = getattr(self._repeated, "__qualname__", repr(self._repeated))
            self.log.failure("Internal error in {what}, which is tried again", failure, what=what)
