"""What a test has in place of a command's process."""

from __future__ import annotations

from collections.abc import Sequence

from inline import Loop
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.python.failure import Failure

from wafermon.alerts.command import Run
from wafermon.model.messages import loads


class Process:
    """What spawnProcess makes, and what it was asked."""

    def __init__(self, run: Run, words: Sequence[str], loop: Loop) -> None:
        self.loop = loop
        self.ended: list[str] = []
        """How it ended, once it has; where a test asks for that."""
        self.run = run
        self.words = list(words)
        self.asked: list[str] = []
        self.given = b""
        self.gone = False
        self.refuses: OSError | None = None

    def write(self, data: bytes) -> None:
        self.given += data

    def closeStdin(self) -> None:
        self.asked.append("end of input")

    def signalProcess(self, name: str) -> None:
        if self.gone:
            raise ProcessExitedAlready
        if self.refuses:
            raise self.refuses
        self.asked.append(name)

    def loseConnection(self) -> None:
        self.asked.append("closed")

    @property
    def job(self) -> str:
        return str(loads(self.given)["job_id"])

    def exit(self, status: int = 0, signal: int | None = None, output: bool = True) -> None:
        """It exits; its output ends too, unless something that it left holds it."""
        self.gone = True
        reason = ProcessTerminated(status or None, signal) if status or signal else ProcessDone(0)  # type: ignore[no-untyped-call]
        self.run.processExited(Failure(reason))  # type: ignore[no-untyped-call]
        if output:
            self.run.processEnded(Failure(reason))  # type: ignore[no-untyped-call]
