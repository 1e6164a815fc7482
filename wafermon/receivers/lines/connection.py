"""One connection: the hello in line mode, then whole chunks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    INegotiated,
    IPushProducer,
)
from twisted.internet.protocol import connectionDone
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from wafermon.journal import Entry, Stream
from wafermon.model.errors import ProtocolError
from wafermon.net.principals import ANYBODY, Principal
from wafermon.receivers.lines.dedupe import Deduplicator, Reply, Taken
from wafermon.wire import hello as hellos
from wafermon.wire.lines import LineError, Origin

if TYPE_CHECKING:
    from wafermon.receivers.lines.hub import Receiver

REFUSAL_SECONDS = 1.0
"""How long a refused client has to read why, before the connection is cut."""
USUAL_READ_BYTES = 1 << 16
"""How much Twisted reads from a connection at once, and lets wait to be written. Who has as much to say is read from by
`READ_BYTES` from then on."""
READ_BYTES = 1 << 18
"""A message costs a seventh less in blocks of this size, and more in larger ones, which no longer fit into the cache."""
MANY_CONNECTIONS = 128
"""Of more, none is let have so much in memory at once."""


class Admits(Protocol):
    """Who decides whether a connection may stay."""

    def admit(self, token: str, transport: Any) -> Principal:
        """Asked once, at the first line; raises ProtocolError with ``unauthorized``."""


@implementer(IPushProducer)
class _Writing:
    """Told by the transport when 64 KiB of replies wait, and when they are gone."""

    def __init__(self, drained: Callable[[], None]) -> None:
        self.possible = True
        self._drained = drained

    def pauseProducing(self) -> None:
        self.possible = False

    def resumeProducing(self) -> None:
        self.possible = True
        self._drained()

    def stopProducing(self) -> None:
        self.possible = False


@implementer(IHalfCloseableProtocol)
class ReceiverProtocol(LineReceiver):
    """Takes lines, hands them to the journal, and answers once they are durable."""

    delimiter = b"\n"
    transport: Any
    # With LineReceiver's own these would be too many for a dict that shares its keys with others: 1.5 KiB a connection.
    __slots__ = (
        "MAX_LENGTH", "_acked", "_allowed_at", "_ended", "_finishing", "_gone", "_intake", "_receiver",
        "_refused", "_replies", "_rest", "_too_long", "_unsettled", "_wake", "_writing", "admitted", "door", "last_data",
        "peer", "principal", "started", "stream",
    )  # fmt: skip

    def __init__(self, receiver: Receiver, door: Admits, peer: str) -> None:
        self.MAX_LENGTH = receiver.limits.max_line_bytes
        """What this client may send in one line, whatever a reload says meanwhile."""
        self.door = door
        self.peer = peer
        self.principal = ANYBODY
        self.last_data = receiver.seconds()
        """When bytes came last, by the reactor's clock."""
        self.stream: Stream | None = None
        self.started = False
        """Whether the first line has come."""
        self.admitted = False
        """Whether the door has let it in."""
        self._receiver = receiver
        self._intake: Deduplicator
        self._writing = _Writing(self._drained)
        self._rest = b""
        """What came behind the last line that was taken."""
        self._too_long = False
        """The line whose start is `_rest` is longer than may be: what follows is skipped."""
        self._unsettled: list[list[Reply]] = []
        """The replies of each entry that the journal has not settled, in order."""
        self._replies: list[Reply] = []
        self._acked = 0
        self._ended = False
        """The client sends no more."""
        self._refused = False
        self._finishing = False
        self._gone = False
        self._wake: IDelayedCall | None = None
        self._allowed_at = 0.0

    # -- the connection's life

    def connectionMade(self) -> None:
        self.transport.registerProducer(self._writing, True)
        if problem := self._receiver.connected(self):
            self.refuse("too_many_connections", problem)

    def dataReceived(self, data: bytes) -> None:
        self.last_data = self._receiver.seconds()
        if self._refused:
            return
        if len(data) == USUAL_READ_BYTES and self._receiver.connections <= MANY_CONNECTIONS:
            self.transport.bufferSize = READ_BYTES
        if not self.started and (problem := hellos.stranger(self._buffer + data)):
            self.refuse("bad_hello", problem)
            return
        if self.line_mode:
            LineReceiver.dataReceived(self, data)  # type: ignore[no-untyped-call]
            if not self.line_mode and self._buffer:
                self._rest, self._buffer = self._rest + self._buffer, b""
            self._receiver.partial_changed(self, len(self._rest or self._buffer))
        else:
            self.rawDataReceived(data)

    def lineReceived(self, line: bytes) -> None:
        self.started = True
        line = line.removesuffix(b"\r")
        try:
            hello = hellos.read_hello(line)
            self._admit(hello)
        except ProtocolError as problem:
            self.refuse(problem.code, problem.detail)
            return
        if hello is None:
            self._begin(Origin())
            self.setRawMode(line + b"\n")
            return
        if hello.ack:
            self.stream = self._receiver.hold(self, self.principal.name, hello.origin.client)
            self._acked = self.stream.synced
            self._allowed_at = self._receiver.allowed_at(self.stream)
        self.transport.write(self._receiver.welcome(self._acked, self.MAX_LENGTH))
        self._begin(hello.origin)
        self.setRawMode()

    def _admit(self, hello: hellos.Hello | None) -> None:
        self.principal = self.door.admit(hello.token if hello else "", self.transport)
        service = hello.origin.service if hello else ""
        if service and not self.principal.allows(service):
            raise ProtocolError("unauthorized", f"this token may not speak for the service {service!r}")
        self.admitted = True

    def setRawMode(self, first: bytes = b"") -> None:
        """What follows is split by `rawDataReceived`."""
        LineReceiver.setRawMode(self)  # type: ignore[no-untyped-call]
        if first:
            self.rawDataReceived(first)

    def lineLengthExceeded(self, line: bytes) -> None:
        self.started = True
        try:
            self._admit(None)
        except ProtocolError as problem:
            self.refuse(problem.code, problem.detail)
            return
        self._begin(Origin())
        self.setRawMode(line)

    def _begin(self, origin: Origin) -> None:
        self._intake = Deduplicator(origin, self.stream, self.peer, self.principal)

    def readConnectionLost(self) -> None:
        """The client is done sending; it may still wait for acks."""
        self._take_end()
        self._maybe_close()

    def _take_end(self) -> None:
        """Without a hello a last line needs no newline."""
        self._ended = True
        if self.line_mode and self._buffer and not self._refused:
            line, self._buffer = self._buffer, b""
            self.lineReceived(line)
        if not self.line_mode and self._rest and self.stream is None and not self._refused:
            self.rawDataReceived(b"\n")

    def writeConnectionLost(self) -> None:
        """Nobody reads our replies any more."""
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self._ended and not self._refused and reason.check(ConnectionDone):  # type: ignore[no-untyped-call]
            self._take_end()  # TLS has no half-closed connections
        elif reason.type.__module__.startswith("OpenSSL"):
            self._receiver.complain(self.peer, f"TLS failed: {_tls_problem(reason)}")
        self._gone = True
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        self._rest = b""
        self._receiver.disconnected(self)

    def refuse(self, code: str, detail: str) -> None:
        """Say why in one line and close. What comes in meanwhile is read and dropped, since closing with unread bytes
        would take the reason back."""
        self._receiver.figures.refused += 1
        self._receiver.complain(self.peer, f"refused: {code}: {detail}")
        self.transport.write(hellos.error(code, detail))
        self.part()

    def part(self) -> None:
        """Send what there is to send, and nothing more; read and drop what comes, until the client has gone or a second
        is over."""
        self._refused = True
        self.transport.unregisterProducer()
        self.transport.resumeProducing()
        if INegotiated.providedBy(self.transport):
            self.transport.loseConnection()  # of TLS: waits for the other side to say goodbye as well
        else:
            self.transport.loseWriteConnection()
        if self._wake is not None:
            self._wake.cancel()
        self._wake = None if self._gone else self._receiver.later(REFUSAL_SECONDS, self._abort)

    def finish(self) -> None:
        """Take no more lines; those that were taken are still acknowledged."""
        self._finishing = True
        self._pause()

    @property
    def owes(self) -> bool:
        """Whether lines were taken whose acks and errors are not sent."""
        return bool(self._unsettled or self._replies)

    def _abort(self) -> None:
        self._wake = None
        self.transport.abortConnection()

    def end(self) -> None:
        """Take nothing more, and close."""
        self._refused = True
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        if self._wake is None and not self._gone:
            self._wake = self._receiver.later(REFUSAL_SECONDS, self._abort)

    # -- lines in

    def rawDataReceived(self, data: bytes) -> None:
        if self._too_long:
            end = data.find(b"\n")
            if end < 0:
                return
            data = data[end:]
        self._rest = self._rest + data if self._rest else data
        self._work()

    def _work(self) -> None:
        """Take what lines there are, as far as the journal and the client's reading allow."""
        limit = self.MAX_LENGTH
        while self._rest and not self.paused:
            first = self._rest.find(b"\n")
            if first < 0:
                break
            if self._blocked():
                return
            if first > limit:
                self._refuse_long(self._rest[:first])
                self._rest = self._rest[first + 1 :]
                continue
            last = self._rest.rfind(b"\n") + 1
            block = self._rest[:last] if last < len(self._rest) else self._rest
            if b"\r" in block:
                # Only before a newline: elsewhere it is white space, or an error that must be seen.
                block = self._rest = self._rest.replace(b"\r\n", b"\n")
                last = block.rfind(b"\n") + 1
                block = block[:last]
            taken = self._intake.take(block, self._receiver.now())
            self._rest = self._rest[taken.size :] if taken.size < len(self._rest) else b""
            self._hand_over(taken)
        if len(self._rest) > limit and b"\n" not in self._rest:
            self._too_long = True
            self._rest = self._rest[: limit + 1]
        self._receiver.partial_changed(self, len(self._rest))

    def _refuse_long(self, line: bytes) -> None:
        self._too_long = False
        limit = self.MAX_LENGTH
        problem = LineError(
            "line_too_long",
            f"longer than {limit} bytes; what is kept of it are the first {limit}",
        )
        self._hand_over(self._intake.refuse(line[:limit], problem, self._receiver.now()))

    def _hand_over(self, taken: Taken) -> None:
        count = self._receiver.count(taken)
        stream = self.stream
        if taken.block is not None or taken.rejected:
            self._unsettled.append(taken.replies)
            seq = stream.appended if stream else 0
            self._receiver.append(self, Entry(taken.block, taken.rejected, stream, seq, self._settled))
        elif stream is not None and stream.synced >= stream.appended:
            self.acknowledge(again=True)
        rate = self._receiver.limits.messages_per_second
        if rate:
            self._allowed_at = max(self._allowed_at, self._receiver.seconds()) + count / rate
            if stream is not None:
                self._receiver.allow(stream, self._allowed_at)

    def _blocked(self) -> bool:
        """Whether nothing may be taken now; reading is paused then, and goes on by itself."""
        receiver = self._receiver
        if receiver.congested:
            self._pause()
            receiver.on_relief(self._go_on)
            return True
        if self.stream is not None and self._owes_replies():
            self._pause()
            return True
        if self._allowed_at > receiver.seconds():
            self._pause()
            self._wake = receiver.later(self._allowed_at - receiver.seconds(), self._go_on)
            return True
        return False

    def _owes_replies(self) -> bool:
        return bool(self._replies) or any(self._unsettled)

    def _pause(self) -> None:
        self.pauseProducing()  # type: ignore[no-untyped-call]
        self._receiver.paused(self)

    def _go_on(self) -> None:
        if self._wake is not None and not self._wake.active():
            self._wake = None
        if self.paused and not self._gone and not self._finishing:
            self.paused = False
            self._work()
            if not self.paused:
                self.transport.resumeProducing()
                self._maybe_close()

    # -- replies out

    def _settled(self) -> None:
        """The oldest entry is durable. Its errors go out before the ack that covers them."""
        replies = self._unsettled.pop(0)
        if replies and (self._writing.possible or self.stream is not None):
            self._replies.extend(replies)
            self._drained()
        if not self._unsettled:
            self._receiver.settled(self)
        if self.stream is not None:
            self._receiver.acknowledge_soon(self.stream)
        elif self._ended:
            self._receiver.soon(self._maybe_close)

    def _drained(self) -> None:
        """Send what waits, as far as the client reads it."""
        while self._replies and self._writing.possible and not self._gone:
            reply = self._replies.pop(0)
            self._say(hellos.error(reply.code, reply.detail, reply.seq))
        if not self._replies and not self._gone and self.stream is not None:
            self._receiver.acknowledge_soon(self.stream)

    def acknowledge(self, *, again: bool = False) -> None:
        """Send the current ack, if it is news, or `again`."""
        stream = self.stream
        if stream is None or self._gone or self._refused or not self._writing.possible or self._replies:
            return
        if stream.synced > self._acked or again:
            self._acked = stream.synced
            self._say(hellos.ack(stream.synced))
        if self.paused and not self._unsettled and self._wake is None and not self._receiver.congested:
            self._receiver.soon(self._go_on)
        self._maybe_close()

    def _say(self, reply: bytes) -> None:
        """However much is read at once, no more than the usual waits for a client that does not read."""
        transport = self.transport
        size, transport.bufferSize = transport.bufferSize, USUAL_READ_BYTES
        transport.write(reply)
        transport.bufferSize = size

    def _maybe_close(self) -> None:
        if self._ended and not self._gone and not self._unsettled and not self._replies and not self.paused:
            self.transport.unregisterProducer()
            self.transport.loseConnection()


def _tls_problem(reason: Failure) -> str:
    """What OpenSSL says, in its shortest words."""
    arguments: Any = getattr(reason.value, "args", ())
    said = [str(part[-1]) for part in arguments[0]] if arguments else []
    return ", ".join(said) or "the connection ended within the handshake"
