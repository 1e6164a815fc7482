"""A connection without a socket: what a client sends, and what it hears, on a Clock."""

from __future__ import annotations

import json
from typing import Any

from appended_journal import MemoryJournal, as_journal
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from wafermon.model.errors import ProtocolError
from wafermon.model.settings import Limits
from wafermon.net.principals import ANYBODY, Principal
from wafermon.receivers.lines.connection import Connection
from wafermon.receivers.lines.hub import Receiver, ReceiverFactory

CLIENT = "9f2c6b1d00e4a873"


class Transport(StringTransport):
    """With a producer that it may pause, and the two ways to close that a protocol has."""

    bufferSize = 1 << 16
    half_closed = False
    aborted = False

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()  # type: ignore[no-untyped-call]

    def unregisterProducer(self) -> None:
        self.producer = None

    @property
    def paused(self) -> bool:
        return bool(self.producerState == "paused")


class Admission:
    """Admits everybody as `principal`, but for the token ``wrong``."""

    def __init__(self, principal: Principal = ANYBODY) -> None:
        self.principal = principal
        self.tokens: list[str] = []

    def admit(self, token: str, transport: Any) -> Principal:
        self.tokens.append(token)
        if token == "wrong":
            raise ProtocolError("unauthorized", "this token is not known here")
        return self.principal

    def forwards_as(self, principal: Principal, transport: Any) -> str:
        if not principal.forward:
            raise ProtocolError("unauthorized", "this token may not forward")
        return principal.forward


class Sidecar:
    """A hub over a journal in memory."""

    def __init__(self, *, automatic: bool = True, **limits: Any) -> None:
        self.clock = Clock()
        self.journal = MemoryJournal(self.clock, automatic=automatic)
        self.hub = Receiver(as_journal(self.journal), Limits(**limits), self.clock)
        self.hub.start()

    def connect(self, admission: Admission | None = None) -> Wire:
        return Wire(self, admission or Admission())

    def hello(self, **fields: Any) -> Wire:
        """A connection that has said hello; its welcome is heard."""
        wire = self.connect()
        wire.hello(**fields)
        return wire


class Wire:
    """A client's end."""

    def __init__(self, sidecar: Sidecar, admission: Admission) -> None:
        self.sidecar = sidecar
        self.connection: Connection = ReceiverFactory(sidecar.hub, admission).buildProtocol(None)
        self.transport = Transport()  # type: ignore[no-untyped-call]
        self.client = CLIENT
        self.connection.makeConnection(self.transport)  # type: ignore[no-untyped-call]

    def hello(self, **fields: Any) -> list[dict[str, Any]]:
        hello = {"v": 2, "type": "hello", "client": CLIENT, "service": "s", "host": "h", "pid": 7, **fields}
        self.client = hello["client"]
        return self.send(json.dumps(hello).encode() + b"\n")

    def line(self, seq: int, **fields: Any) -> bytes:
        metric = {
            "type": "metric",
            "ts": 1_795_500_000_000_000 + seq,
            "service": "s",
            "host": "h",
            "pid": 7,
            "name": "n",
        }
        return json.dumps({**metric, "value": seq, "client": self.client, "seq": seq, **fields}).encode() + b"\n"

    def lines(self, *seqs: int) -> bytes:
        return b"".join(map(self.line, seqs))

    def send(self, data: bytes) -> list[dict[str, Any]]:
        """Send bytes as one read; answers with what is heard then."""
        self.connection.dataReceived(data)
        return self.heard()

    def heard(self) -> list[dict[str, Any]]:
        """What was said since the last call, once the reactor has had its turn."""
        self.sidecar.clock.advance(0)
        self.sidecar.clock.advance(0)
        said = [json.loads(line) for line in self.transport.value().splitlines()]  # type: ignore[no-untyped-call]
        self.transport.clear()  # type: ignore[no-untyped-call]
        return said

    def after(self, seconds: float) -> list[dict[str, Any]]:
        """What is heard while so much time passes, second by second."""
        whole, rest = divmod(seconds, 1)
        self.sidecar.clock.pump([1.0] * int(whole) + [rest])
        return self.heard()

    def stop_reading(self) -> None:
        """64 KiB of replies wait."""
        assert self.transport.producer is not None
        self.transport.producer.pauseProducing()

    def read_again(self) -> None:
        assert self.transport.producer is not None
        self.transport.producer.resumeProducing()

    def end(self) -> list[dict[str, Any]]:
        """End the sending side."""
        self.connection.readConnectionLost()
        return self.heard()

    @property
    def closed(self) -> bool:
        """Whether the sidecar has closed, or half closed, its side."""
        return bool(self.transport.disconnecting or self.transport.half_closed or self.transport.aborted)
