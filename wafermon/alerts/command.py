"""One run of the command: what it reads on its standard input, and how it ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

TIMEOUT_SECONDS = 30.0
KILL_SECONDS = 5.0
"""Between SIGTERM and SIGKILL, once the time is over; and from there until it is not waited for any more."""
OUTPUT_SECONDS = 1.0
"""How long the output of a command that failed is read on after its exit."""
LEFT_SECONDS = 30.0
"""What a command left running may keep its output open for so long; then it is closed."""
OUTPUT_BYTES = 500
"""What is kept of what it says, to be logged when it fails."""


class Stage(Enum):
    """How far a run is."""

    RUNNING = "running"
    ENDING = "ending"
    """Its time is over, and it was sent SIGTERM."""
    KILLED = "killed"
    EXITED = "exited"
    """With a fault; its output is read on."""
    ENDED = "ended"
    """`ended` has fired. What it left running may still have its output."""


class Run(ProcessProtocol):
    """`ended` fires with an empty string where it exited with 0, else with what went wrong. It fires when the command itself has exited,
    whatever that has left running; what it left is not ended."""

    def __init__(self, data: bytes, reactor: Any) -> None:
        self.ended: Deferred[str] = Deferred()
        self._data = data
        self._reactor = reactor
        self._said = b""
        self._stage = Stage.RUNNING
        self._timer: IDelayedCall | None = None

    def start(self, words: Sequence[str]) -> None:
        """Run it, without a shell, in the sidecar's environment."""
        self._after(TIMEOUT_SECONDS, self.terminate)
        try:
            self._reactor.spawnProcess(self, words[0], words, env=None)
        except Exception as error:  # noqa: BLE001  # no memory, no descriptor, no such file, a word with a NUL in it, …
            self._end(str(error) or type(error).__name__)
            self._after(None)

    def connectionMade(self) -> None:
        self.transport.write(self._data)  # type: ignore[union-attr]
        self.transport.closeStdin()  # type: ignore[union-attr]

    def outReceived(self, data: bytes) -> None:
        self._said = (self._said + data)[-OUTPUT_BYTES:]

    errReceived = outReceived

    def terminate(self) -> None:
        """Its time is over."""
        if self._stage is Stage.RUNNING:
            self._stage = Stage.ENDING
            self._after(KILL_SECONDS, self._kill)
            self._signal("TERM")

    def _kill(self) -> None:
        self._stage = Stage.KILLED
        self._after(KILL_SECONDS, self._end, "it ran for too long, and does not end by SIGKILL either")
        self._signal("KILL")

    def _signal(self, name: str) -> None:
        try:
            self.transport.signalProcess(name)  # type: ignore[union-attr]
        except ProcessExitedAlready:  # `processExited` is about to be called
            pass
        except OSError as error:  # it runs as another user
            self._end(f"it ran for more than {TIMEOUT_SECONDS:g} s and can't be ended: {error}")

    def processExited(self, reason: Failure) -> None:
        """It has exited. What it left running may still hold its output."""
        problem = self._problem(reason.value)
        if problem and self._stage is Stage.RUNNING:
            self._stage = Stage.EXITED
            self._after(OUTPUT_SECONDS, self._tell, reason)
        else:
            self._end(problem)

    def processEnded(self, reason: Failure) -> None:
        """It has exited, and all of its output is here."""
        self._tell(reason)
        self._after(None)

    def _tell(self, reason: Failure) -> None:
        self._end(self._problem(reason.value))

    def _problem(self, status: Any) -> str:
        if self._stage in (Stage.ENDING, Stage.KILLED):
            return f"it ran for more than {TIMEOUT_SECONDS:g} s"
        if status.exitCode == 0:
            return ""
        how = f"signal {status.signal}" if status.signal else f"status {status.exitCode}"
        said = self._said.decode(errors="replace").strip()
        return f"it ended with {how}" + (f": {said}" if said else "")

    def _end(self, problem: str) -> None:
        if self._stage is not Stage.ENDED:
            self._stage = Stage.ENDED
            self._after(LEFT_SECONDS, self._let_go)
            self.ended.callback(problem)

    def _let_go(self) -> None:
        """Descriptors must not add up where each command leaves something running."""
        self.transport.loseConnection()  # type: ignore[union-attr]

    def _after(self, seconds: float | None, call: Callable[..., object] | None = None, *arguments: object) -> None:
        """One timer at a time."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = self._reactor.callLater(seconds, call, *arguments) if seconds is not None else None
