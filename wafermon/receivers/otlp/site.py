"""OTLP over HTTP/1.1: who may send, what a request may be like, and how it is answered."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.protocols.policies import WrappingFactory
from twisted.python.failure import Failure as Failed
from twisted.web.http import RESPONSES
from twisted.web.resource import Resource

from wafermon.model.errors import ProtocolError, printable
from wafermon.net.guesses import WrongTokens, address_of
from wafermon.net.http import BoundedRequest, QuietSite
from wafermon.net.principals import ANYBODY, Principal
from wafermon.receivers.lines.connection import Admits
from wafermon.receivers.otlp.intake import RETRY_SECONDS, Asked, Intake, Paused
from wafermon.wire.otlp import protobuf
from wafermon.wire.otlp.bodies import BODY_BYTES, JSON, PROTOBUF, Unreadable
from wafermon.wire.otlp.shapes import SIGNALS, Answer, Failure, PartialSuccess, Signal

PATHS: dict[bytes, Signal] = {f"/v1/{signal}".encode(): signal for signal in SIGNALS}
LINGER_SECONDS = 2.0
"""How long a sender that is refused in the middle of its body may go on, so that it reads why."""
_encode_json = msgspec.json.Encoder().encode


class Refusal(NamedTuple):
    """Why a request is not taken."""

    status: int
    why: str
    headers: tuple[tuple[bytes, bytes], ...] = ()


_LATER = ((b"retry-after", b"%d" % RETRY_SECONDS),)
_BEARER = ((b"www-authenticate", b'Bearer realm="wafermon"'),)
_NO_TOKEN = "this listener asks for a token: OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20TOKEN"


class OtlpRequest(BoundedRequest):
    """One request. What can be said against it before its body is, is said then, and the body is not kept."""

    body_bytes = BODY_BYTES
    channel: Any
    _principal: Principal = ANYBODY
    _held = 0

    @property
    def shared(self) -> OtlpSite:
        found: OtlpSite = self.channel.site
        return found

    # -- the body

    def gotLength(self, length: int | None) -> None:
        super().gotLength(length)
        if self._refused:
            return
        admitted = self.shared.admit(self)
        if isinstance(admitted, Refusal):
            self._refuse_early(admitted)
            return
        self._principal = admitted
        if why := self.shared.intake.paused:
            self._refuse_early(Refusal(429, why, _LATER))

    def handleContentChunk(self, data: bytes) -> None:
        if self._refused:
            return
        if not self.shared.hold(len(data)):
            problem = "too much is being sent at once (`limits.partial_bytes`); send it later"
            self._refuse_early(Refusal(429, problem, _LATER))
            return
        self._held += len(data)
        super().handleContentChunk(data)

    def _refuse(self) -> None:
        problem = f"the body is larger than {self.body_bytes} bytes; send smaller requests"
        self._refuse_early(Refusal(413, problem))

    def _refuse_early(self, refusal: Refusal) -> None:
        """Before the body has come, of which no more is kept."""
        self._refused = True
        self._let_go()
        media_type, body = _failure(self._media_type, refusal)
        head = [
            b"HTTP/1.1 %d %s" % (refusal.status, RESPONSES.get(refusal.status, b"Refused")),
            b"Content-Type: " + media_type.encode(),
            b"Content-Length: %d" % len(body),
            b"Connection: close",
            *(name + b": " + value for name, value in refusal.headers),
        ]
        self.channel.transport.write(b"\r\n".join([*head, b"", body]))
        self.shared.note(self, refusal)
        # Closed at once, what the sender still writes would make its kernel forget the answer.
        self._closing = self.shared.reactor.callLater(LINGER_SECONDS, self.channel.loseConnection)

    _closing: Any = None

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        if self._refused and self._closing is not None and self._closing.active():
            self._closing.cancel()
            self.channel.loseConnection()
        super().requestReceived(command, path, version)

    def connectionLost(self, reason: Failed) -> None:
        self._let_go()
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        super().connectionLost(reason)

    def _let_go(self) -> None:
        held, self._held = self._held, 0
        self.shared.let_go(held)
        if self._refused:
            self.content = type(self.content)()

    # -- the answer

    @property
    def _media_type(self) -> str:
        return (self.getHeader("content-type") or "").partition(";")[0].strip().lower()

    @property
    def host_of_peer(self) -> str:
        """The address that it comes from; empty for a Unix socket."""
        return str(getattr(self.channel.getPeer(), "host", ""))

    @property
    def peer(self) -> str:
        """Who sends it, for people."""
        return peer_of(self.channel.getPeer())

    def process(self) -> None:
        signal = PATHS.get(self.path)
        media_type = self._media_type
        if signal is None:
            self._say(Refusal(404, f"{self.path.decode(errors='replace')[:100]!r} is not here; {_paths()} are"))
        elif self.method != b"POST":
            self._say(Refusal(405, "OTLP comes by POST", ((b"allow", b"POST"),)))
        elif media_type not in (JSON, PROTOBUF):
            self._say(Refusal(415, f"Content-Type {media_type[:60]!r} is not known here; send {JSON} or {PROTOBUF}"))
        elif media_type == PROTOBUF and not protobuf.is_there():
            self._say(Refusal(415, f"this sidecar can't read protobuf: {protobuf.MISSING}, or send {JSON}"))
        else:
            encoding = (self.getHeader("content-encoding") or "").strip().lower()
            body = self.content.getvalue()
            self.content = type(self.content)()
            agent = printable(self.getHeader("user-agent") or "")
            asked = Asked(signal, media_type, encoding, body, self._principal, self.host_of_peer, self.peer, agent)
            gone = self.notifyFinish()
            gone.addErrback(lambda _: None)
            self.shared.take(self, asked).addCallbacks(self._taken, self._not_taken, callbackArgs=(asked,))

    def _taken(self, partial: PartialSuccess, asked: Asked) -> None:
        answer = Answer(partial if partial.rejected else None)
        written = _encode_json(answer) if asked.media_type == JSON else protobuf.encode_answer(asked.signal, answer)
        self._write(200, asked.media_type, written)

    def _not_taken(self, failure: Failed) -> None:
        error = failure.value
        if isinstance(error, Unreadable):
            self._say(Refusal(error.status, str(error)))
        elif isinstance(error, Paused):
            self._say(Refusal(429, str(error), ((b"retry-after", b"%d" % error.after),)))
        else:
            self.shared.failed(failure)
            self._say(Refusal(503, "a fault of the sidecar's own; its log says which", _LATER))

    def _say(self, refusal: Refusal) -> None:
        self.shared.note(self, refusal)
        media_type, body = _failure(self._media_type, refusal)
        for name, value in refusal.headers:
            self.setHeader(name, value)
        self._write(refusal.status, media_type, body)

    def _write(self, status: int, media_type: str, body: bytes) -> None:
        self._let_go()
        if self._disconnected or self.finished:
            return
        self.setResponseCode(status)
        self.setHeader(b"content-type", media_type.encode())
        self.setHeader(b"content-length", b"%d" % len(body))
        if self.method != b"HEAD":
            self.write(body)
        self.finish()


class OtlpSite(QuietSite):
    """What the requests of one listener share."""

    def __init__(self, intake: Intake, listener: Admits, reactor: Any) -> None:
        super().__init__(Resource(), OtlpRequest)
        self.reactor = reactor
        self.intake = intake
        self._listener = listener
        self._wrong = WrongTokens(reactor.seconds)

    def admit(self, request: OtlpRequest) -> Principal | Refusal:
        """Whose request this is, or why it is refused."""
        if request.getHeader("origin") is not None:
            # A page in a browser can make it send anything here. Programs say no origin.
            return Refusal(403, "requests of browsers are not taken: send without an Origin header")
        scheme, _, token = (request.getHeader("authorization") or "").partition(" ")
        token = token.strip() if scheme.lower() == "bearer" else ""
        address = address_of(request.channel.getPeer())
        if token and self._wrong.exhausted(address):
            return Refusal(429, "too many wrong tokens from this address", _LATER)
        try:
            return self._listener.admit(token, request.channel.transport)
        except ProtocolError as error:
            if token:
                self._wrong.count(address)
            return Refusal(401, error.detail if token else _NO_TOKEN, _BEARER)

    def take(self, request: OtlpRequest, asked: Asked) -> Deferred[PartialSuccess]:
        return self.intake.take(asked)

    def hold(self, size: int) -> bool:
        """Whether so many bytes more may be in memory."""
        return self.intake.hold(size)

    def let_go(self, size: int) -> None:
        self.intake.let_go(size)

    def note(self, request: OtlpRequest, refusal: Refusal) -> None:
        self.intake.refused(request.peer, refusal.status, refusal.why)

    def failed(self, failure: Failed) -> None:
        self.intake.failed(failure)


class OtlpFactory(WrappingFactory):
    """Makes the connections of one listener, as many as the limits allow."""

    noisy = False

    def __init__(self, intake: Intake, listener: Admits, reactor: Any) -> None:
        super().__init__(OtlpSite(intake, listener, reactor))
        self._intake = intake

    def buildProtocol(self, addr: IAddress | None) -> Any:
        most = self._intake.limits().max_connections
        if most and len(self.protocols) >= most:
            return None
        return super().buildProtocol(addr)

    def unregisterProtocol(self, p: Any) -> None:
        super().unregisterProtocol(p)
        self._intake.senders.hung_up(peer_of(p.getPeer()))

    def end(self) -> None:
        """End all connections, once what is written has gone."""
        for connection in list(self.protocols):
            connection.loseConnection()


def peer_of(address: Any) -> str:
    """Who sends, for people."""
    host = getattr(address, "host", "")
    return f"otlp:{host}:{address.port}" if host else "otlp:unix"


def _failure(media_type: str, refusal: Refusal) -> tuple[str, bytes]:
    """google.rpc.Status in the encoding of the request."""
    said = Failure(message=refusal.why)
    if media_type == PROTOBUF:
        return PROTOBUF, protobuf.encode_failure(said)
    return JSON, _encode_json(said)


def _paths() -> str:
    return ", ".join(path.decode() for path in PATHS)
