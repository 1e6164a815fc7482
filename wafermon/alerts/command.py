"""One run of the command: what it reads on its standard input, and how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

TIMEOUT_SECONDS = 30.0
KILL_SECONDS = 5.0
"""Between SIGTERM and SIGKILL, once the time is over."""
OUTPUT_BYTES = 500
"""What is kept of what it says, to be logged when it fails."""


class Run(ProcessProtocol):
    """`ended` fires with an empty string where it exited with 0, else with what went wrong."""

    def __init__(self, data: bytes, reactor: Any) -> None:
        self.ended: Deferred[str] = Deferred()
        self._data = data
        self._reactor = reactor
        self._said = b""
        self._late = False
        self._timer: IDelayedCall = reactor.callLater(TIMEOUT_SECONDS, self.terminate)

    def start(self, words: Sequence[str]) -> None:
        """Run it, without a shell, in the sidecar's environment."""
        try:
            self._reactor.spawnProcess(self, words[0], words, env=None)
        except OSError as error:
            self._end(str(error))

    def connectionMade(self) -> None:
        self.transport.write(self._data)  # type: ignore[union-attr]
        self.transport.closeStdin()  # type: ignore[union-attr]

    def outReceived(self, data: bytes) -> None:
        self._said = (self._said + data)[-OUTPUT_BYTES:]

    errReceived = outReceived

    def terminate(self) -> None:
        """Its time is over."""
        self._late = True
        self._signal("TERM")
        if not self.ended.called:
            self._timer = self._reactor.callLater(KILL_SECONDS, self._signal, "KILL")

    def _signal(self, name: str) -> None:
        try:
            self.transport.signalProcess(name)  # type: ignore[union-attr]
        except ProcessExitedAlready:
            # Something that it left behind keeps its output open: that is not waited for.
            self.transport.loseConnection()  # type: ignore[union-attr]

    def processEnded(self, reason: Failure) -> None:
        status: Any = reason.value
        if self._late:
            self._end(f"it ran for more than {TIMEOUT_SECONDS:g} s")
        elif status.exitCode == 0:
            self._end("")
        else:
            how = f"signal {status.signal}" if status.signal else f"status {status.exitCode}"
            said = self._said.decode(errors="replace").strip()
            self._end(f"it ended with {how}" + (f": {said}" if said else ""))

    def _end(self, problem: str) -> None:
        if self._timer.active():
            self._timer.cancel()
        if not self.ended.called:
            self.ended.callback(problem)
