"""What the connections share: the journal, the limits, the clients, and the tick of each second."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from wafermon import __version__
from wafermon.journal import FORWARD, STARTED, WENT, Entry, Journal, Presence, Stream
from wafermon.model.blocks import Block
from wafermon.model.errors import ProtocolError, printable
from wafermon.model.lograte import LogRate
from wafermon.model.onward import Onward
from wafermon.model.repeated import Repeated
from wafermon.model.settings import LINE_MAX, Limits
from wafermon.receivers.forward.forwarders import Forwarders
from wafermon.receivers.forward.taking import TakenFrame
from wafermon.receivers.forward.turns import Turns
from wafermon.receivers.lines.clients import Client, Clients
from wafermon.receivers.lines.connection import REFUSAL_SECONDS, Admits, Connection
from wafermon.receivers.lines.dedupe import Taken
from wafermon.receivers.lines.states import State
from wafermon.wire import frames
from wafermon.wire import hello as hellos
from wafermon.wire.scanned import compiled

TICK_SECONDS = 1.0
LOOK_SECONDS = 0.02
LOOKS = 50
"""So many connections are looked at between two looks of the reactor at its sockets, of all of them each second."""
REPEAT_SECONDS = 0.5
"""An ack that was said since then is not repeated yet."""
FEW_FORWARD, GATHER_SECONDS, GATHER_MOST = 20, 100e-6, 0.1
"""Where more sidecars than a few forward, their frames are gathered for so long per sidecar, and no longer: few groups of the journal take
them all then, and between these the processor and the disk are free for the programs that wait for them."""
BACKLOG_BYTES = 16 << 10
"""A sidecar of which so much came, by what its frames hold, has a backlog: it sends the more the sooner it is heard, and nothing is gathered."""
FORWARDED_BYTES = LINE_MAX + 1
"""The largest frame of a sidecar: its lines are read at once, in 5 ms, and lie in one group. The longest line of any sidecar has room."""
OPENING_BYTES = 8 << 20
"""Frames that are opened at a time, by what they say that they give; the others wait, compressed as they came."""
ALLOWANCES = 20_000
"""Streams whose allowance is remembered; beyond it the one that was told longest ago is forgotten."""


@dataclass
class Figures:
    """Counters since the start."""

    connections: int = 0
    refused: int = 0
    messages: int = 0
    duplicates: int = 0
    gaps: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    """By code."""


class Receiver:
    """All connections of one sidecar."""

    log = Logger()

    def __init__(
        self,
        journal: Journal,
        limits: Limits,
        reactor: Any,
        threads: ThreadPool | None = None,
        onward: Onward | None = None,
    ) -> None:
        """`threads` open large frames; without them that is done at once. `onward` knows where messages go on to from here."""
        self.limits = limits
        self.figures = Figures()
        self.clients = Clients()
        self.forwarders = Forwarders()
        self._forwarding: dict[tuple[str, str], Connection] = {}
        """The connections of sidecars that forward, by principal and journal."""
        self._journal = journal
        self._reactor = reactor
        self._connections: set[Connection] = set()
        self._streams: dict[Stream, Connection] = {}
        self._asking: dict[tuple[str, str], Connection] = {}
        """Who waits to be told how far a client's stream is, by principal and client."""
        self._threads = threads
        self._opening_bytes = 0
        self._frames_waiting: deque[Callable[[], None]] = deque()
        self._owed: set[Connection] = set()
        """Those whose lines are unsettled, or that are paused: the tick repeats their acks."""
        self._unannounced: dict[Connection, None] = {}
        """Those of which the journal does not say yet that they came."""
        self._announced: set[Connection] = set()
        self._start = [Presence(STARTED)]
        """What the journal is told with the first of them."""
        self._news: set[Stream] = set()
        self._turns = Turns(self, Connection.take_turn, self._gather)
        """The sidecars that have sent something."""
        self._told = Turns(self, Connection.acknowledge)
        """The sidecars of which something is durable."""
        self.onward = onward or Onward()
        self.onward.watch(self._onward_changed)
        self._astray = Turns(self, Connection.tell_onward)
        """The sidecars that are to be told where messages go on to."""
        self._held: dict[Connection, int] = {}
        """What is in memory for them, where that is anything: parts of lines and frames, and replies that are not read."""
        self._held_bytes = 0
        self._allowances: dict[Stream, float] = {}
        """When the rate limit lets a stream go on: kept over a reconnect, which would else be a way around it."""
        self._about_clients = LogRate(reactor.seconds)
        self._looking: list[Connection] = []
        """Those that are still to be looked at in this second."""
        self._tick = Repeated(reactor, self._every_second)

    def start(self) -> None:
        self._tick.start(TICK_SECONDS, now=False)

    async def stop(self, patience: float) -> None:
        """Take nothing more, acknowledge what was taken, for at most `patience` seconds, and end every connection. What
        was not settled by then comes again."""
        self._tick.stop()
        self._each(self._connections, Connection.finish)
        until = self.seconds() + patience
        while any(one.pending for one in self._connections) and self.seconds() < until:
            await self._journal.sleep(LOOK_SECONDS)
        self._each(self._connections, Connection.part)
        while self._connections and self.seconds() < until + REFUSAL_SECONDS:
            await self._journal.sleep(LOOK_SECONDS)

    @property
    def held_bytes(self) -> int:
        """What is in memory for all clients that have begun a line or frame, or do not read."""
        return self._held_bytes

    @property
    def frame_bytes(self) -> int:
        """The largest frame, by the bytes of its lines: a few of them fit into a segment."""
        return min(self.limits.frame_bytes, self._journal.settings.segment_bytes // 4)

    @property
    def forwarded_bytes(self) -> int:
        """The largest frame of a sidecar, by the bytes of its lines. One line has room, however small frames are to be: else it could never
        come."""
        return min(max(self.frame_bytes, self.limits.max_line_bytes + 1), FORWARDED_BYTES)

    @property
    def connections(self) -> int:
        return len(self._connections)

    @property
    def reads_with(self) -> str:
        """What lines are read with: ``scanner``, or ``python`` where that was not built or is not wanted."""
        return "python" if compiled() is None else "scanner"

    # -- what a connection asks

    def seconds(self) -> float:
        return float(self._reactor.seconds())

    def now(self) -> int:
        return self._journal.now()

    def later(self, seconds: float, call: Callable[[], None]) -> IDelayedCall:
        return self._reactor.callLater(seconds, call)  # type: ignore[no-any-return]

    def soon(self, call: Callable[[], None]) -> None:
        self._reactor.callLater(0, call)

    @property
    def congested(self) -> bool:
        return self._journal.congested

    def on_relief(self, call: Callable[[], None]) -> None:
        self._journal.on_relief(call)

    def welcome(self, acked: int, max_line: int, codec: str) -> bytes:
        return hellos.welcome(self._journal.id, acked, max_line, codec, self.frame_bytes)

    def welcome_forwarder(self, acked: int, max_line: int, codec: str) -> bytes:
        about = {"host": socket.gethostname(), "version": __version__}
        return hellos.forward_welcome(
            self._journal.id, acked, max_line, codec, self.forwarded_bytes, about, self.onward.paths
        )

    @property
    def frames_wait(self) -> bool:
        """Whether a large frame should wait for `on_frame_room`."""
        return self._opening_bytes >= OPENING_BYTES

    def on_frame_room(self, call: Callable[[], None]) -> None:
        """Call once when another large frame may be opened."""
        self._frames_waiting.append(call)

    def open_frame(self, head: frames.Head, data: frames.Data) -> Deferred[bytes]:
        """Its lines, made outside the reactor's thread. Fails with frames.BadFrame."""
        self._opening_bytes += head.raw
        if self._threads is None:
            opened = execute(frames.open_frame, head, data)
        else:
            opened = deferToThreadPool(self._reactor, self._threads, frames.open_frame, head, data)
        return opened.addBoth(self._frame_done, head.raw)

    def _frame_done(self, result: bytes | Failure, raw: int) -> bytes | Failure:
        self._opening_bytes -= raw
        self.soon(self._let_frames_in)
        return result

    def _let_frames_in(self) -> None:
        # Each that is let in takes its room, or has gone meanwhile.
        for _ in range(len(self._frames_waiting)):
            if self.frames_wait:
                break
            self._frames_waiting.popleft()()

    def append(self, connection: Connection, entry: Entry) -> None:
        self._owed.add(connection)
        if connection in self._unannounced:
            entry.presence = self._announce(connection)
        self._journal.append(entry)

    def _announce(self, connection: Connection) -> Sequence[Presence]:
        """What the journal is to be told; the first time, that nobody was connected before."""
        del self._unannounced[connection]
        self._announced.add(connection)
        assert connection.came is not None
        start, self._start = self._start, []
        return [*start, connection.came]

    # -- what a connection tells

    def connected(self, connection: Connection) -> str:
        """Take a connection in; answers with the reason where there is no room for it."""
        self.figures.connections += 1
        most = self.limits.max_connections
        if most and len(self._connections) >= most:
            return f"{most} connections are open, which is the limit (`limits.max_connections`)"
        self._connections.add(connection)
        return ""

    def disconnected(self, connection: Connection, *, went: bool) -> None:
        """A connection is over. `went`: its program ended it, and did not say that it would."""
        self._connections.discard(connection)
        self._owed.discard(connection)
        self._turns.discard(connection)
        self._told.discard(connection)
        self._astray.discard(connection)
        self._unannounced.pop(connection, None)
        if connection in self._announced:
            self._announced.discard(connection)
            if went and connection.came is not None:
                self._journal.append(Entry(presence=[connection.came._replace(what=WENT)]))
        self.held_changed(connection, 0)
        stream = connection.stream
        if connection.forwards_as:
            self._forwarder_left(connection)
        if stream is not None:
            if self._streams.get(stream) is connection:
                del self._streams[stream]
                if not connection.forwards_as:
                    self.clients.left((stream.principal, stream.client), self.now())
            self._journal.marks.release(stream)

    def _forwarder_left(self, connection: Connection) -> None:
        for key in [key for key, one in self._forwarding.items() if one is connection]:
            del self._forwarding[key]
            self.forwarders.left(key, self.now())

    def hold(self, connection: Connection, principal: str, client: str) -> Deferred[Stream]:
        """The stream of a client; an older connection of it is closed. Fails with sqlite3.Error. Cancel it where the connection
        goes before."""
        older = self._asking.get((principal, client))
        self._asking[principal, client] = connection
        if older is not None:
            older.end()
        asked = self._journal.hold(principal, client)
        asked.addBoth(self._asked, connection, (principal, client))
        return asked.addCallback(self._held_by, connection)

    def check_forwarder(self, connection: Connection, hello: hellos.Hello) -> None:
        """Whether a sidecar may forward as it says: raises ProtocolError where another one does so with the same journal's id."""
        if hello.origin.client == self._journal.id:
            raise ProtocolError(
                "bad_hello",
                f"client: this is the journal {self._journal.id} itself: a sidecar can't forward to itself, nor to a copy of itself; "
                "look at `url`, or run `wafermon journal renew DIR` at the copy",
            )
        key = (FORWARD + connection.forwards_as, hello.origin.client)
        older = self._forwarding.get(key)
        self.forwarders.check(key, hello, self.seconds() - older.last_heard if older is not None else None)
        self._forwarding[key] = connection
        self.forwarders.came(key, hello, connection.forwards_as, connection.peer, self.now())

    def hold_forwarder(self, connection: Connection, client: str) -> Deferred[Stream]:
        """As `hold`, once everything is durable that was appended for this sidecar: its welcome says no mark that may be lost."""
        return self.hold(connection, FORWARD + connection.forwards_as, client).addCallback(self._settled)

    def _settled(self, stream: Stream) -> Stream | Deferred[Stream]:
        if stream.synced >= stream.appended:
            return stream
        return self._journal.settled().addCallback(lambda _: stream)

    def forwarded(self, connection: Connection, head: frames.Head, taken: TakenFrame | None) -> None:
        """A frame of a sidecar was taken, or was known."""
        stream = connection.stream
        assert stream is not None
        self.forwarders.heard((stream.principal, stream.client), head, taken, self.now())
        figures = self.figures
        if taken is None:
            figures.duplicates += head.lines
            return
        figures.messages += taken.block.count if taken.block else 0
        for one in taken.rejected:
            figures.rejected[one.code] = figures.rejected.get(one.code, 0) + 1

    def _asked(self, result: Stream | Failure, connection: Connection, key: tuple[str, str]) -> Stream | Failure:
        if self._asking.get(key) is connection:
            del self._asking[key]
        return result

    def _held_by(self, stream: Stream, connection: Connection) -> Stream:
        older = self._streams.get(stream)
        self._streams[stream] = connection
        if not connection.forwards_as:
            self._unannounced[connection] = None
        if older is not None:
            older.end()
        return stream

    def welcomed(self, connection: Connection, hello: hellos.Hello) -> None:
        """A client with a stream may send."""
        origin, now = hello.origin, self.now()
        principal = connection.principal.name
        client = Client(
            origin.client, origin.service, principal, connection.peer, origin.host, origin.pid if origin.pid >= 0 else None,
            hello.sdk, True, now, now,
        )  # fmt: skip
        self.clients.came((principal, origin.client), client)

    def heard(self, stream: Stream, block: Block) -> None:
        """Messages of a stream were accepted."""
        self.clients.heard((stream.principal, stream.client), block, self.now())

    def admitted_by(self, listener: Admits) -> list[Connection]:
        """The connections of a listener that were let in."""
        return [one for one in self._connections if one.listener is listener and one.admitted]

    def is_connected(self, stream: Stream) -> bool:
        """Whether a connection has this stream now."""
        return stream in self._streams

    def allowed_at(self, stream: Stream) -> float:
        return self._allowances.get(stream, 0.0)

    def allow(self, stream: Stream, at: float) -> None:
        """The rate limit takes nothing more of this stream before `at`."""
        self._allowances.pop(stream, None)
        self._allowances[stream] = at
        if len(self._allowances) > ALLOWANCES:
            del self._allowances[next(iter(self._allowances))]

    def complain(self, peer: str, problem: str) -> None:
        """Log what is wrong with a client, within bounds."""
        shown = printable(problem)
        self._about_clients.log(lambda: self.log.warn("{peer}: {problem}", peer=peer, problem=shown), self._tell)

    def _tell(self, what: str) -> None:
        self.log.warn("About clients: {what}", what=what)

    def refused(self, connection: Connection, code: str, detail: str) -> None:
        """A connection is told why it is not served, and closed."""
        self.figures.refused += 1
        self.complain(connection.peer, f"refused: {code}: {detail}")

    def failed(self, connection: Connection, failure: Failure | None = None) -> None:
        """An internal error ends a connection; its client connects again."""
        message = "A fault at the connection of {peer}, which is closed"
        self._about_clients.log(lambda: self.log.failure(message, failure, peer=connection.peer), self._tell)

    def paused(self, connection: Connection) -> None:
        self._owed.add(connection)

    def settled(self, connection: Connection) -> None:
        """Nothing of it waits for the journal."""
        if not connection.held:
            self._owed.discard(connection)

    def acknowledge_soon(self, stream: Stream) -> None:
        """Once everything that a sync settled is told, one ack each. Sidecars that forward have turns."""
        connection = self._streams.get(stream)
        if connection is not None and connection.forwards_as:
            self._told.add(connection)
            return
        if not self._news:
            self.soon(self._acknowledge)
        self._news.add(stream)

    def await_turn(self, connection: Connection, waiting: int) -> None:
        """Call its `take_turn` when those before it have had theirs. `waiting`: the bytes that it holds."""
        self._turns.add(connection, at_once=waiting >= BACKLOG_BYTES)

    def _onward_changed(self) -> None:
        for connection in self._forwarding.values():
            self._astray.add(connection)

    def _gather(self) -> float:
        more = len(self._forwarding) - FEW_FORWARD
        return min(more * GATHER_SECONDS, GATHER_MOST) if more > 0 else 0.0

    def _acknowledge(self) -> None:
        news, self._news = self._news, set()
        for stream in news:
            if stream in self._streams:
                self._streams[stream].acknowledge()  # which never raises

    def count(self, taken: Taken) -> int:
        """Count what was taken; answers with its number of lines."""
        figures = self.figures
        accepted = taken.block.count if taken.block else 0
        figures.messages += accepted
        figures.duplicates += taken.duplicates
        figures.gaps += taken.gaps
        for one in taken.rejected:
            figures.rejected[one.code] = figures.rejected.get(one.code, 0) + 1
        return accepted + taken.duplicates + len(taken.rejected)

    def held_changed(self, connection: Connection, size: int) -> None:
        """So many bytes are in memory for a connection: the part of a line or frame, and replies that it does not read."""
        before = self._held.pop(connection, 0)
        if size:
            self._held[connection] = size
        self._held_bytes += size - before
        limit = self.limits.partial_bytes
        if limit and size > before and self._held_bytes > limit:
            problem = (
                f"closed: what clients have begun to send, and do not read, takes {self._held_bytes} bytes, "
                "more than limits.partial_bytes"
            )
            self.complain(connection.peer, problem)
            connection.end()

    # -- the tick

    def _every_second(self) -> None:
        now = self.seconds()
        self._allowances = {stream: at for stream, at in self._allowances.items() if at > now}
        self._about_clients.tick(self._tell)
        if not self._looking:
            self._looking = list(self._connections)
            self._look_on()
        self._announce_known()

    def _look_on(self) -> None:
        """At the next few."""
        some, self._looking = self._looking[:LOOKS], self._looking[LOOKS:]
        if self._looking:
            self.soon(self._look_on)
        some = [one for one in some if one in self._connections]
        since = self.seconds() - REPEAT_SECONDS
        self._each([one for one in some if one in self._owed or one in self._held], lambda one: one.remind(since))
        self._each(some, self._look_at)

    def _announce_known(self) -> None:
        """Who comes again and says nothing is back all the same. A stream that is new is announced by its first message."""
        known = [one for one in self._unannounced if one.stream is not None and one.stream.synced]
        if known:
            self._journal.append(Entry(presence=[said for one in known for said in self._announce(one)]))

    def _look_at(self, connection: Connection) -> None:
        """End a connection that has been silent for too long."""
        since = connection.idle_since
        silent = 0.0 if since is None else self.seconds() - since
        if connection.state is State.WAITING and 0 < self.limits.first_line < silent:
            connection.refuse("bad_hello", f"no line within {self.limits.first_line:g} s")
            self._connections.discard(connection)
        elif connection.admitted and 0 < self.limits.idle_timeout < silent:
            self.complain(connection.peer, f"closed: silent for {silent:.0f} s")
            connection.end()

    def _each(self, connections: Iterable[Connection], call: Callable[[Connection], object]) -> None:
        """One that fails is closed, and keeps no other from its turn."""
        for connection in list(connections):
            try:
                call(connection)
            except Exception:  # noqa: BLE001  # the others have their turn
                self.failed(connection)
                connection.transport.abortConnection()


class ReceiverFactory(Factory):
    """Makes the connections of one listener."""

    noisy = False

    def __init__(self, receiver: Receiver, listener: Admits) -> None:
        self._receiver = receiver
        self._listener = listener

    def buildProtocol(self, addr: IAddress | None) -> Connection:
        host, port = getattr(addr, "host", ""), getattr(addr, "port", 0)
        peer = f"[{host}]:{port}" if ":" in host else f"{host}:{port}" if host else "unix"
        return Connection(self._receiver, self._listener, peer)
