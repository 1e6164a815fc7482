"""One connection: a hello, then lines in, acks and errors out. What it does when is `states.TABLE`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet import protocol
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    INegotiated,
    IPushProducer,
)
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from wafermon.journal import CAME, Entry, Presence, Stream
from wafermon.model.blocks import Block
from wafermon.model.errors import ProtocolError
from wafermon.model.messages import Kind, Stats
from wafermon.model.onward import Onward
from wafermon.model.settings import Limits
from wafermon.net.principals import ANYBODY, Principal
from wafermon.receivers.forward.taking import Forwarding, Overlap, TakenFrame
from wafermon.receivers.lines.dedupe import Deduplicator, Reply, Taken
from wafermon.receivers.lines.inbox import Frame, Inbox, OpenedFrame
from wafermon.receivers.lines.states import ANSWERED, ASKS, PAUSED, TAKING, WAITS, Input, State, after
from wafermon.wire import frames
from wafermon.wire import hello as hellos
from wafermon.wire.framing import Lines, LongLine
from wafermon.wire.lines import LineError, Origin

REFUSAL_SECONDS = 1.0
"""How long a refused client has to read why, before the connection is cut."""
USUAL_READ_BYTES = 1 << 16
"""How much Twisted reads from a connection at once, and lets wait to be written. A client that has as much to say is read
from by `READ_BYTES` from then on."""
READ_BYTES = 1 << 18
"""A message costs a seventh less in blocks of this size, and more in larger ones, which no longer fit into the cache."""
MANY_CONNECTIONS = 128
"""Of more, none is let have so much in memory at once."""
_TYPE = Kind._fields.index("type")


class Admits(Protocol):
    """What decides whether a connection may stay."""

    def admit(self, token: str, transport: Any) -> Principal:
        """Asked once, at the first line; raises ProtocolError with ``unauthorized``."""

    def forwards_as(self, principal: Principal, transport: Any) -> str:
        """As which sidecar it may forward; raises ProtocolError with ``unauthorized``."""


class Hub(Protocol):
    """What a connection asks of what all connections share, and what it tells there. See `receiver.Receiver`."""

    limits: Limits

    @property
    def onward(self) -> Onward: ...
    @property
    def frame_bytes(self) -> int: ...
    @property
    def forwarded_bytes(self) -> int: ...
    @property
    def connections(self) -> int: ...
    @property
    def congested(self) -> bool: ...
    @property
    def frames_wait(self) -> bool: ...
    def seconds(self) -> float: ...
    def now(self) -> int: ...
    def later(self, seconds: float, call: Callable[[], None]) -> IDelayedCall: ...
    def soon(self, call: Callable[[], None]) -> None: ...
    def on_relief(self, call: Callable[[], None]) -> None: ...
    def on_frame_room(self, call: Callable[[], None]) -> None: ...
    def open_frame(self, head: frames.Head, data: frames.Data) -> Deferred[bytes]: ...
    def welcome(self, acked: int, max_line: int, codec: str) -> bytes: ...
    def welcome_forwarder(self, acked: int, max_line: int, codec: str) -> bytes: ...
    def check_forwarder(self, connection: Connection, hello: hellos.Hello) -> None: ...
    def hold_forwarder(self, connection: Connection, client: str) -> Deferred[Stream]: ...
    def forwarded(self, connection: Connection, head: frames.Head, taken: TakenFrame | None) -> None: ...
    def append(self, connection: Connection, entry: Entry) -> None: ...
    def connected(self, connection: Connection) -> str: ...
    def disconnected(self, connection: Connection, *, went: bool) -> None: ...
    def hold(self, connection: Connection, principal: str, client: str) -> Deferred[Stream]: ...
    def welcomed(self, connection: Connection, hello: hellos.Hello) -> None: ...
    def heard(self, stream: Stream, block: Block) -> None: ...
    def allowed_at(self, stream: Stream) -> float: ...
    def allow(self, stream: Stream, at: float) -> None: ...
    def complain(self, peer: str, problem: str) -> None: ...
    def refused(self, connection: Connection, code: str, detail: str) -> None: ...
    def failed(self, connection: Connection, failure: Failure | None = None) -> None: ...
    def paused(self, connection: Connection) -> None: ...
    def settled(self, connection: Connection) -> None: ...
    def acknowledge_soon(self, stream: Stream) -> None: ...
    def await_turn(self, connection: Connection, waiting: int) -> None: ...
    def count(self, taken: Taken) -> int: ...
    def held_changed(self, connection: Connection, size: int) -> None: ...


@implementer(IPushProducer)
class _Writing:
    """Told by the transport when 64 KiB of replies wait, and when they are gone."""

    __slots__ = ("_changed", "possible")

    def __init__(self, changed: Callable[[], None]) -> None:
        self.possible = True
        self._changed = changed

    def pauseProducing(self) -> None:
        self.possible = False
        self._changed()

    def resumeProducing(self) -> None:
        self.possible = True
        self._changed()

    def stopProducing(self) -> None:
        self.possible = False


@implementer(IHalfCloseableProtocol)
class Connection(protocol.Protocol):
    """Takes lines, hands them to the journal, and answers once they are durable."""

    transport: Any
    # Too many for a dict that shares its keys with others: 1.5 KiB a connection.
    __slots__ = (
        "_acked",
        "_allowed_at",
        "_asking",
        "_dedupe",
        "_forwarding",
        "_hub",
        "_inbox",
        "_replies",
        "_reply_bytes",
        "_said_at",
        "_said_final",
        "_unsettled",
        "_wake",
        "_writing",
        "came",
        "forwards_as",
        "instance",
        "last_heard",
        "listener",
        "peer",
        "principal",
        "state",
        "stream",
    )  # fmt: skip

    def __init__(self, hub: Hub, listener: Admits, peer: str) -> None:
        self.listener = listener
        self.peer = peer
        self.principal = ANYBODY
        self.state = State.WAITING
        self.last_heard = hub.seconds()
        """When the client was last seen to send, or to read what it had left unread, by the reactor's clock."""
        self.stream: Stream | None = None
        self.came: Presence | None = None
        """Whose connection it is, where it has a stream."""
        self._hub = hub
        self._said_final = False
        self._inbox = Inbox(hub.limits.max_line_bytes)
        self.forwards_as = ""
        """As which sidecar it forwards; empty for all others."""
        self.instance = ""
        """Of a sidecar that forwards: what it drew at its start."""
        self._dedupe: Deduplicator
        self._forwarding: Forwarding | None = None
        self._writing = _Writing(self._writing_changed)
        self._unsettled: deque[list[Reply]] = deque()
        """The replies of each entry that the journal has not settled, in order."""
        self._replies: deque[bytes] = deque()
        self._reply_bytes = 0
        self._acked = 0
        self._said_at = 0.0
        """When an ack was said last, by the reactor's clock."""
        self._wake: IDelayedCall | None = None
        self._allowed_at = 0.0
        self._asking: Deferred[None] | None = None
        """What fires once it is known how far its stream is."""

    # -- the connection's life

    def _move(self, happened: Input) -> bool:
        """Go to the next state; tells whether that is another one. Reading goes on or pauses with it."""
        before, self.state = self.state, after(self.state, happened)
        if self.state in PAUSED and before not in PAUSED:
            self.transport.pauseProducing()
        elif before in PAUSED and self.state in (*TAKING, State.PARTING):
            self.transport.resumeProducing()
        if before in ASKS and self.state not in ASKS:
            self._ask_no_more()
        return self.state is not before

    def _safely(self, call: Callable[[], None]) -> None:
        """What goes wrong here ends this connection, and nothing else."""
        try:
            call()
        except Exception:  # noqa: BLE001  # the callers have others to look after
            self._hub.failed(self)
            self.abort()

    def connectionMade(self) -> None:
        self.transport.registerProducer(self._writing, True)
        if problem := self._hub.connected(self):
            self.refuse("too_many_connections", problem)

    def dataReceived(self, data: bytes) -> None:
        self.last_heard = self._hub.seconds()
        if self.state in (State.PARTING, State.STOPPING, State.GONE):
            return
        if len(data) == USUAL_READ_BYTES and self._hub.connections <= MANY_CONNECTIONS:
            self.transport.bufferSize = READ_BYTES
        self._safely(lambda: self._receive(data))

    def _receive(self, data: bytes) -> None:
        self._inbox.feed(data)
        if self._forwarding is not None and self._inbox.is_amid_frame:
            self._held_changed()
            return
        self._work()
        if self._forwarding is not None and len(self._inbox) > USUAL_READ_BYTES and self.state in TAKING:
            self._hold()  # until its turn

    def readConnectionLost(self) -> None:
        """The client is done sending; it may still wait for acks."""
        self._safely(self._take_end)
        self._maybe_close()

    def _take_end(self) -> None:
        """Without a hello a last line needs no newline. What a sidecar sent whole is taken while it can be."""
        while self._forwarding is not None and self.state in TAKING and self._take_one_frame():
            pass
        if self.stream is None and self.state in (State.WAITING, State.READING, State.HELD):
            self._inbox.end()
            self._work()
        self._move(Input.END)

    def writeConnectionLost(self) -> None:
        """Nobody reads our replies any more."""
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        try:
            if reason.check(ConnectionDone):  # type: ignore[no-untyped-call]
                self._safely(self._take_end)  # TLS has no half-closed connections
            elif reason.type.__module__.startswith("OpenSSL"):
                self._hub.complain(self.peer, f"TLS failed: {_tls_problem(reason)}")
        finally:
            went = self.state in (*TAKING, *WAITS) and not self._said_final
            self._move(Input.LOST)
            self._end_waits()
            self._inbox.clear()
            self._hub.disconnected(self, went=went)

    def _end_waits(self) -> None:
        if self._wake is not None and self._wake.active():
            self._wake.cancel()
        self._wake = None

    def refuse(self, code: str, detail: str) -> None:
        """Say why in one line and close. What comes in meanwhile is read and dropped, since closing with unread bytes
        would take the reason back."""
        if self.state in (State.PARTING, State.GONE):
            return
        self._hub.refused(self, code, detail)
        self.transport.write(hellos.error(code, detail))
        self.part()

    def part(self) -> None:
        """Send what there is to send, and nothing more; read and drop what comes, until the client has gone or a second
        is over."""
        self._leave(half=True)

    def end(self) -> None:
        """Take nothing more, and close."""
        self._leave(half=False)

    def _leave(self, *, half: bool) -> None:
        if not self._move(Input.PART):
            return
        self._inbox.clear()
        self._held_changed()
        self._end_waits()
        self.transport.unregisterProducer()
        self.transport.resumeProducing()
        if half and not INegotiated.providedBy(self.transport):
            self.transport.loseWriteConnection()
        else:
            self.transport.loseConnection()  # of TLS: waits for the other side to say goodbye as well
        self._wake = self._hub.later(REFUSAL_SECONDS, self.abort)

    def abort(self) -> None:
        """Cut it, now."""
        self._move(Input.PART)
        self.transport.abortConnection()

    def finish(self) -> None:
        """Take no more lines; those that were taken are still acknowledged."""
        if self._move(Input.STOP):
            self.transport.pauseProducing()

    @property
    def pending(self) -> bool:
        """Whether lines were taken whose acks and errors are not sent."""
        unsaid = self.stream is not None and self.stream.synced > self._acked
        return self.state in ANSWERED and bool(self._unsettled or self._replies or unsaid)

    @property
    def admitted(self) -> bool:
        """Whether its first line was accepted, and it is not on its way out."""
        return self.state in ANSWERED or self.state in ASKS

    @property
    def held(self) -> bool:
        """Whether reading is paused."""
        return self.state in WAITS

    @property
    def idle_since(self) -> float | None:
        """Since when nothing came of the client, by the reactor's clock. None where that is not the client's doing, since
        reading is paused. A client that does not read what it is told is as good as silent."""
        if self.state in PAUSED and self._writing.possible:
            return None
        return self.last_heard

    # -- the first line

    def _begin(self) -> bool:
        """Take the first line; tells whether lines may follow."""
        if stranger := hellos.stranger(self._inbox.start(16)):
            self.refuse("bad_hello", stranger)
            return False
        try:
            return self._begin_with_line()
        except ProtocolError as problem:
            self.refuse(problem.code, problem.detail)
            return False

    def _begin_with_line(self) -> bool:
        found = self._inbox.next()
        if found is None:
            return False
        line = found.block.partition(b"\n")[0] if isinstance(found, Lines) else b""
        hello = hellos.read_hello(line)
        self._admit(hello)
        if hello is None or not isinstance(found, Lines):
            self._dedupe = Deduplicator(Origin(), None, self.peer, self.principal)
            return self._move(Input.BEGIN)
        self._inbox.took(found, len(line) + 1)
        if hello.ack:
            self._ask(hello)
        else:
            self._welcome(hello)
        return self.state in TAKING

    def _admit(self, hello: hellos.Hello | None) -> None:
        self.principal = self.listener.admit(hello.token if hello else "", self.transport)
        service = hello.origin.service if hello else ""
        if service and not self.principal.allows(service):
            raise ProtocolError("unauthorized", f"this token may not speak for the service {service!r}")

        if hello is not None and hello.forward:
            self.forwards_as = self.listener.forwards_as(self.principal, self.transport)
            self.instance = hello.instance
            self._hub.check_forwarder(self, hello)

    def _ask(self, hello: hellos.Hello) -> None:
        """Ask how far its stream is, which may have to be read from the disk. What has come by then is at most one read."""
        self._move(Input.ASK)
        if self.forwards_as:
            asked = self._hub.hold_forwarder(self, hello.origin.client)
        else:
            asked = self._hub.hold(self, self.principal.name, hello.origin.client)
        asking = asked.addCallbacks(self._told, self._not_told, callbackArgs=(hello,))
        if self.state in ASKS:
            self._asking = asking

    def _ask_no_more(self) -> None:
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()

    def _told(self, stream: Stream, hello: hellos.Hello) -> None:
        self.stream = stream
        self._safely(lambda: self._go_on_with(hello))

    def _not_told(self, failure: Failure) -> None:
        if self.state in ASKS:
            self._hub.failed(self, failure)
            self.abort()

    def _go_on_with(self, hello: hellos.Hello) -> None:
        self._welcome(hello)
        self._work()
        self._maybe_close()

    def _welcome(self, hello: hellos.Hello) -> None:
        """Answer a hello; lines may follow."""
        if self.forwards_as:
            self._welcome_forwarder(hello)
            return
        if self.stream is not None:
            origin = hello.origin
            self.came = Presence(CAME, origin.client, origin.service, origin.host, origin.pid)
            self._acked = self.stream.synced
            self._allowed_at = self._hub.allowed_at(self.stream)
            self._hub.welcomed(self, hello)
        codec = frames.choose(hello.compress)
        if codec:
            self._inbox.grant(codec, self._hub.frame_bytes)
        self.transport.write(self._hub.welcome(self._acked, self._inbox.limit, codec))
        self._dedupe = Deduplicator(hello.origin, self.stream, self.peer, self.principal)
        self._move(Input.BEGIN)

    def _welcome_forwarder(self, hello: hellos.Hello) -> None:
        """The same for a sidecar; frames may follow."""
        stream = self.stream
        assert stream is not None
        self._acked = stream.synced
        codec = frames.choose(hello.compress)
        self._inbox.grant_forward(codec, self._hub.forwarded_bytes)
        edge = f"{hello.origin.host or self.forwards_as} (forwards as {self.forwards_as}, journal {stream.client}) at {self.peer}"
        self._forwarding = Forwarding(stream, self.principal, self._inbox.limit, edge)
        self.transport.write(self._hub.welcome_forwarder(self._acked, self._inbox.limit, codec))
        self._move(Input.BEGIN)

    # -- lines in

    def _work(self) -> None:
        """Take what there is, as far as the journal and the client's reading allow. A sidecar that forwards waits for its turn."""
        if self._forwarding is not None:
            self._hub.await_turn(self, len(self._inbox))
        elif self.state is not State.WAITING or self._begin():
            self._take_or_refuse()
        self._held_changed()

    def take_turn(self) -> None:
        """Of a sidecar that forwards: take one frame, and say what is news."""
        self._safely(self._turn)

    def _turn(self) -> None:
        if self.state in WAITS:
            self._move(Input.RELEASE)
        more = self.state in TAKING and self._take_one_frame()
        while more and self.state is State.ENDING:  # else it would be closed before
            more = self._take_one_frame()
        if more:
            self._hub.await_turn(self, len(self._inbox))
        self._held_changed()
        if not self.held:  # else it goes on by itself
            self._acknowledge(False)

    def _take_one_frame(self) -> bool:
        """Whether there was one, so that there may be another."""
        before = len(self._inbox)
        self._take_or_refuse()
        return self.state in TAKING and 0 < len(self._inbox) < before

    def _take_or_refuse(self) -> None:
        try:
            self._take()
        except (frames.BadFrame, Overlap) as problem:
            self.refuse(problem.code, problem.detail)

    def _take(self) -> None:
        while self.state in TAKING:
            found = self._inbox.next()
            if found is None and not self._inbox.is_opening:
                return
            if found is None or self._blocked(found):
                self._hold()
            elif isinstance(found, Lines):
                before = self.stream.appended if self.stream is not None else 0
                taken = self._dedupe.take(found.block, self._hub.now())
                self._inbox.took(found, taken.size, left=taken.size < len(found.block))
                self._hand_over(taken, before)
            elif isinstance(found, LongLine):
                self._inbox.took_long()
                self._refuse_long(found.start)
            elif isinstance(found, OpenedFrame):
                self._take_frame(found)
                return  # the others have their turn
            else:
                self._open(found)

    def _hold(self) -> None:
        self._move(Input.HOLD)
        self._hub.paused(self)

    def _refuse_long(self, start: bytes) -> None:
        limit = self._inbox.limit
        problem = LineError(
            "line_too_long",
            f"longer than {limit} bytes; what is kept of it are the first {limit}",
        )
        before = self.stream.appended if self.stream is not None else 0
        self._hand_over(self._dedupe.refuse(start, problem, self._hub.now()), before)

    def _take_frame(self, frame: OpenedFrame) -> None:
        """A frame that was forwarded is one entry of the journal, with the mark at its end."""
        forwarding = self._forwarding
        assert forwarding is not None
        stream = forwarding.stream
        before = stream.appended
        taken = forwarding.take(frame.head, frame.raw, self._hub.now())
        self._inbox.took_frame()
        if taken is not None:
            self._unsettled.append([])
            try:
                self._hub.append(self, Entry(taken.block, taken.rejected, stream, stream.appended, self._settled))
            except BaseException:
                self._unsettled.pop()
                stream.appended = before
                raise
        elif stream.synced >= stream.appended:
            self.acknowledge(again=True)
        self._hub.forwarded(self, frame.head, taken)

    def _open(self, frame: Frame) -> None:
        if self._forwarding is not None and (not frame.head.lines or self._forwarding.knows(frame.head)):
            self._inbox.opened(b"")
            return
        if frame.head.raw <= frames.INLINE_BYTES:
            self._inbox.opened(frames.open_frame(frame.head, frame.data))
            return
        self._inbox.opening()
        self._hold()
        self._hub.open_frame(frame.head, frame.data).addCallbacks(self._opened, self._not_opened)

    def _opened(self, raw: bytes) -> None:
        if self.state not in (State.PARTING, State.GONE):
            self._inbox.opened(raw)
            self._go_on()

    def _not_opened(self, failure: Failure) -> None:
        if isinstance(failure.value, frames.BadFrame):
            self.refuse(failure.value.code, failure.value.detail)
        else:
            self._hub.failed(self, failure)
            self.abort()

    def _hand_over(self, taken: Taken, before: int) -> None:
        """`before` is what had been appended: there the stream is again where the journal does not take this."""
        stream = self.stream
        if taken.block is not None or taken.rejected:
            self._said_final = _ends_finally(taken.block)
            seq = stream.appended if stream is not None else 0
            self._unsettled.append(taken.replies)
            try:
                self._hub.append(self, Entry(taken.block, taken.rejected, stream, seq, self._settled))
            except BaseException:
                self._unsettled.pop()
                if stream is not None:
                    stream.appended = before
                raise
        elif stream is not None and stream.synced >= stream.appended:
            self.acknowledge(again=True)
        if stream is not None and taken.block is not None:
            self._hub.heard(stream, taken.block)
        count = self._hub.count(taken)
        rate = self._hub.limits.messages_per_second
        if rate:
            self._allowed_at = max(self._allowed_at, self._hub.seconds()) + count / rate
            if stream is not None:
                self._hub.allow(stream, self._allowed_at)

    def _blocked(self, found: Lines | LongLine | Frame | OpenedFrame) -> bool:
        """Whether this may not be taken now. Something calls `_go_on` once it may be."""
        hub = self._hub
        if hub.congested:
            hub.on_relief(self._go_on)
            return True
        if self.stream is not None and (self._replies or any(self._unsettled)):
            return True
        if self._allowed_at > hub.seconds():
            self._end_waits()
            self._wake = hub.later(self._allowed_at - hub.seconds(), self._go_on)
            return True
        if isinstance(found, Frame) and found.head.raw > frames.INLINE_BYTES and hub.frames_wait:
            hub.on_frame_room(self._go_on)
            return True
        return False

    def _go_on(self) -> None:
        """What held it may be over."""
        self._safely(self._resume)

    def _resume(self) -> None:
        if self._wake is not None and not self._wake.active():
            self._wake = None
        if self._forwarding is not None:
            self._hub.await_turn(self, len(self._inbox))
        elif self.state in WAITS:
            self._move(Input.RELEASE)
            self._work()
            self._maybe_close()

    # -- replies out

    def _settled(self) -> None:
        """The oldest entry is durable. Its errors go out before the ack that covers them."""
        replies = self._unsettled.popleft()
        self._safely(lambda: self._answer(replies))

    def _answer(self, replies: list[Reply]) -> None:
        if self.state in ANSWERED and (self._writing.possible or self.stream is not None):
            for reply in replies:
                line = hellos.error(reply.code, reply.detail, reply.seq)
                self._replies.append(line)
                self._reply_bytes += len(line)
            if replies:
                self._send()
        if not self._unsettled:
            self._hub.settled(self)
        if self.stream is not None:
            self._hub.acknowledge_soon(self.stream)
        elif self.state is State.ENDING:
            self._hub.soon(self._maybe_close)

    def _writing_changed(self) -> None:
        if self._writing.possible:
            self.last_heard = self._hub.seconds()
            self._safely(self._send)
            self.tell_onward()
        else:
            self._held_changed()

    def _send(self) -> None:
        """Send what waits, as far as the client reads it."""
        while self._replies and self._writing.possible and self.state in ANSWERED:
            line = self._replies.popleft()
            self._reply_bytes -= len(line)
            self._say(line)
        self._held_changed()
        if not self._replies and self.stream is not None:
            self._hub.acknowledge_soon(self.stream)

    def acknowledge(self, *, again: bool = False) -> None:
        """Send the current ack, if it is news, or `again`."""
        self._safely(lambda: self._acknowledge(again))

    def tell_onward(self) -> None:
        """Of a sidecar that forwards: say where messages go on to from here, where it reads what it is told."""
        self._safely(self._tell_onward)

    def _tell_onward(self) -> None:
        if self._forwarding is not None and self.state in ANSWERED and self._writing.possible:
            self._say(hellos.onward_line(self._hub.onward.paths))

    def remind(self, since: float) -> None:
        """Repeat the current ack, where none was said since then."""
        if self._said_at <= since:
            self.acknowledge(again=True)

    def _acknowledge(self, again: bool) -> None:
        stream = self.stream
        if stream is None or self.state not in ANSWERED or not self._writing.possible or self._replies:
            return
        news = stream.synced > self._acked
        if news or again:
            self._acked, self._said_at = stream.synced, self._hub.seconds()
            self._say(hellos.ack(stream.synced))
        if news:
            self._send_now()
        if self.held and not self._unsettled and self._wake is None and not self._hub.congested:
            self._hub.soon(self._go_on)
        self._maybe_close()

    def _say(self, reply: bytes) -> None:
        """However much is read at once, no more than the usual waits for a client that does not read."""
        transport = self.transport
        size, transport.bufferSize = transport.bufferSize, USUAL_READ_BYTES
        try:
            transport.write(reply)
        finally:
            transport.bufferSize = size

    def _send_now(self) -> None:
        """What was said goes out at once, and not only after all that the reactor calls before it looks at its sockets again: those who read what
        became durable just now are among these. Over TLS, where writes are put together, it does not."""
        transport = self.transport
        if transport.disconnecting or INegotiated.providedBy(transport):
            return
        if (send := getattr(transport, "doWrite", None)) is not None:
            send()  # what goes wrong the reactor meets again

    def _held_changed(self) -> None:
        """Count what is in memory for this client: what it has begun to send, and what it does not read."""
        unread = self._reply_bytes + (0 if self._writing.possible else USUAL_READ_BYTES)
        self._hub.held_changed(self, len(self._inbox) + (unread if self.state in ANSWERED else 0))

    def _maybe_close(self) -> None:
        if self.state is State.ENDING and not self._unsettled and not self._replies:
            self.transport.unregisterProducer()
            self.transport.loseConnection()


def _ends_finally(block: Block | None) -> bool:
    """Whether the last message says that nothing follows."""
    if block is None or all(kind[_TYPE] != Stats.type for kind in block.kinds):
        return False
    [last] = block.at([block.count - 1])
    return isinstance(last, Stats) and last.final is True


def _tls_problem(reason: Failure) -> str:
    """What OpenSSL says, in its shortest words."""
    arguments: Any = getattr(reason.value, "args", ())
    said = [str(part[-1]) for part in arguments[0]] if arguments else []
    return ", ".join(said) or "the connection ended within the handshake"
