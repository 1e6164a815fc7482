"""One connection to another sidecar: a hello out, a welcome in; then frames out, acks in."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from wafermon.interfaces import RetryableError
from wafermon.model.errors import printable
from wafermon.model.messages import loads
from wafermon.model.onward import Path, Stop, read_paths


class Welcome(NamedTuple):
    """What the other says of itself."""

    sidecar: str
    """Its journal."""
    host: str
    version: str
    acked: int
    max_line: int
    max_frame: int
    codec: str
    """Empty where nothing may be compressed."""


class LinkState(Enum):
    """Where a connection is."""

    GREETING = "the hello is sent, or will be"
    UP = "frames may be sent"
    GONE = "it is over"


class Refusal(RetryableError):
    """The other closes the connection, and says why."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code


class Link(LineOnlyReceiver):
    """See the module. It ends once: `gone` is called then, whatever the reason."""

    delimiter = b"\n"
    MAX_LENGTH = 1 << 16
    transport: Any

    def __init__(
        self,
        hello: bytes,
        seconds: Callable[[], float],
        acked: Callable[[Link], None],
        gone: Callable[[Link, Exception], None],
        onward: Callable[[Link], None] = lambda link: None,
    ) -> None:
        """`onward` is called when `paths` are others than in the welcome."""
        self.state = LinkState.GREETING
        self.welcomed: Deferred[Welcome] = Deferred()
        self.about: Welcome
        self.paths: tuple[Path, ...] = ()
        """Where messages go on to from the other, as it says."""
        self.acked = 0
        """How far the other is, durably, as a position's number."""
        self.sent = 0
        """How far what was sent stands for."""
        self._hello = hello
        self._seconds = seconds
        self._on_ack = acked
        self._on_end = gone
        self._on_onward = onward
        self._problem: Exception | None = None
        self.heard = seconds()

    def connectionMade(self) -> None:
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)
        self.transport.write(self._hello)

    def lineReceived(self, line: bytes) -> None:
        self.heard = self._seconds()
        try:
            said = loads(line)
            kind = said.get("type")
        except (ValueError, AttributeError):
            self.end(RetryableError(f"what answers is no sidecar: {printable(repr(line[:60]))}"))
            return
        if kind == "error":
            self.end(Refusal(str(said.get("code")), printable(str(said.get("detail")))[:500]))
        elif kind == "welcome" and self.state is LinkState.GREETING:
            self._take_welcome(said)
        elif kind == "ack" and self.state is LinkState.UP and type(said.get("seq")) is int:
            if said["seq"] > self.sent:
                self.end(
                    RetryableError(f"it says that it has all up to {said['seq']}, and {self.sent} is what was sent")
                )
                return
            self.acked = max(self.acked, said["seq"])
            self._on_ack(self)
        elif kind == "onward" and self.state is LinkState.UP:
            self.paths = read_paths(said.get("onward"))
            self._on_onward(self)

    def _take_welcome(self, said: dict[str, Any]) -> None:
        if said.get("forward") is not True:
            self.end(RetryableError("the sidecar there takes nothing that is forwarded: it is an older one"))
            return
        numbers = [said.get(name) for name in ("acked", "max_line", "max_frame")]
        if not all(type(number) is int and number >= 0 for number in numbers):
            self.end(RetryableError("the welcome of the sidecar there can't be understood"))
            return
        sidecar, host, version = (printable(str(said.get(name, "")))[:255] for name in ("sidecar", "host", "version"))
        codec = str(said.get("compress", ""))
        self.about = Welcome(sidecar, host, version, said["acked"], said["max_line"], said["max_frame"], codec)
        self.paths = read_paths(said.get("onward"))
        self.acked = self.sent = self.about.acked
        self.state = LinkState.UP
        self.welcomed.callback(self.about)

    def lineLengthExceeded(self, line: bytes) -> None:
        self.end(RetryableError("what answers is no sidecar: it sends a line without an end"))

    @property
    def stop(self) -> Stop:
        """Who is at the other end."""
        return Stop(self.about.sidecar, self.about.host)

    @property
    def problem(self) -> Exception:
        """Why it is over, or is being ended."""
        return self._problem or RetryableError("the connection was lost")

    def send(self, data: bytes) -> None:
        self.transport.write(data)

    def end(self, problem: Exception) -> None:
        """Cut it, because of this."""
        if self.state is LinkState.GONE:
            return
        self._problem = self._problem or problem
        self.transport.abortConnection()

    def part(self) -> None:
        """Close it in good order: what was sent may still arrive."""
        self._problem = self._problem or RetryableError("the backend was closed meanwhile")
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        greeting = self.state is LinkState.GREETING
        self.state = LinkState.GONE
        problem = self._problem or RetryableError(f"the connection was lost: {reason.getErrorMessage()}")
        self._problem = problem
        if greeting:
            self.welcomed.errback(problem)
        self._on_end(self, problem)
