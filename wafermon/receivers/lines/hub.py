"""What the connections share: the journal, the limits, who is connected, and the second's tick."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from wafermon.journal import Entry, Journal, Stream
from wafermon.model.errors import printable
from wafermon.model.settings import Limits
from wafermon.receivers.lines.connection import REFUSAL_SECONDS, Admits, ReceiverProtocol
from wafermon.receivers.lines.dedupe import Taken
from wafermon.wire import hello as hellos

TICK_SECONDS = 1.0
LOOK_SECONDS = 0.02
COMPLAINTS = 5
"""Log lines a second about clients, so that no client fills the log; the rest is counted."""
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

    def __init__(self, journal: Journal, limits: Limits, reactor: Any) -> None:
        self.limits = limits
        self.figures = Figures()
        self._journal = journal
        self._reactor = reactor
        self._connections: set[ReceiverProtocol] = set()
        self._streams: dict[Stream, ReceiverProtocol] = {}
        self._owed: set[ReceiverProtocol] = set()
        """Those whose lines are unsettled, or that are paused: the tick repeats their acks."""
        self._news: set[Stream] = set()
        self._partial: dict[ReceiverProtocol, int] = {}
        self._partial_bytes = 0
        self._allowances: dict[Stream, float] = {}
        """When the rate limit lets a stream go on: kept over a reconnect, which would else be a way around it."""
        self._complaints = 0
        self._tick = LoopingCall(self._every_second)
        self._tick.clock = reactor

    def start(self) -> None:
        self._tick.start(TICK_SECONDS, now=False)

    async def stop(self, patience: float) -> None:
        """Take nothing more, acknowledge what was taken, for at most `patience` seconds, and end every connection. What
        was not settled by then comes again."""
        self._tick.stop()
        for connection in self._connections:
            connection.finish()
        until = self.seconds() + patience
        while any(one.owes for one in self._connections) and self.seconds() < until:
            await self._journal.sleep(LOOK_SECONDS)
        for connection in list(self._connections):
            connection.part()
        while self._connections and self.seconds() < until + REFUSAL_SECONDS:
            await self._journal.sleep(LOOK_SECONDS)

    @property
    def connections(self) -> int:
        return len(self._connections)

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

    def welcome(self, acked: int, max_line: int) -> bytes:
        return hellos.welcome(self._journal.id, acked, max_line)

    def append(self, connection: ReceiverProtocol, entry: Entry) -> None:
        self._owed.add(connection)
        self._journal.append(entry)

    # -- what a connection tells

    def connected(self, connection: ReceiverProtocol) -> str:
        """Take a connection in; answers with the reason where there is no room for it."""
        self.figures.connections += 1
        most = self.limits.max_connections
        if most and len(self._connections) >= most:
            return f"{most} connections are open, which is the limit (`limits.max_connections`)"
        self._connections.add(connection)
        return ""

    def disconnected(self, connection: ReceiverProtocol) -> None:
        self._connections.discard(connection)
        self._owed.discard(connection)
        self.partial_changed(connection, 0)
        stream = connection.stream
        if stream is not None:
            if self._streams.get(stream) is connection:
                del self._streams[stream]
            self._journal.marks.release(stream)

    def hold(self, connection: ReceiverProtocol, principal: str, client: str) -> Stream:
        """The stream of a client; an older connection of it is closed."""
        stream = self._journal.marks.hold(principal, client)
        older = self._streams.get(stream)
        self._streams[stream] = connection
        if older is not None:
            older.end()
        return stream

    def admitted_by(self, door: Admits) -> list[ReceiverProtocol]:
        """The connections of a listener that were let in."""
        return [one for one in self._connections if one.door is door and one.admitted]

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
        self._complaints += 1
        if self._complaints <= COMPLAINTS:
            self.log.warn("{peer}: {problem}", peer=peer, problem=printable(problem))

    def paused(self, connection: ReceiverProtocol) -> None:
        self._owed.add(connection)

    def settled(self, connection: ReceiverProtocol) -> None:
        """Nothing of it waits for the journal."""
        if not connection.paused:
            self._owed.discard(connection)

    def acknowledge_soon(self, stream: Stream) -> None:
        """Once everything that a sync settled is told, one ack each."""
        if not self._news:
            self.soon(self._acknowledge)
        self._news.add(stream)

    def _acknowledge(self) -> None:
        news, self._news = self._news, set()
        for stream in news:
            if stream in self._streams:
                self._streams[stream].acknowledge()

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

    def partial_changed(self, connection: ReceiverProtocol, size: int) -> None:
        """An unfinished line of so many bytes waits for its rest."""
        before = self._partial.pop(connection, 0)
        if size:
            self._partial[connection] = size
        self._partial_bytes += size - before
        limit = self.limits.partial_bytes
        if limit and size > before and self._partial_bytes > limit:
            problem = f"closed: unfinished lines take {self._partial_bytes} bytes, more than limits.partial_bytes"
            self.complain(connection.peer, problem)
            connection.end()

    # -- the tick

    def _every_second(self) -> None:
        for connection in list(self._owed):
            connection.acknowledge(again=True)
        now = self.seconds()
        self._allowances = {stream: at for stream, at in self._allowances.items() if at > now}
        if self._complaints > COMPLAINTS:
            self.log.warn("{count} more such lines within a second", count=self._complaints - COMPLAINTS)
        self._complaints = 0
        for connection in list(self._connections):
            silent = now - connection.last_data
            if not connection.started and 0 < self.limits.first_line < silent:
                connection.refuse("bad_hello", f"no line within {self.limits.first_line:g} s")
                self._connections.discard(connection)
            elif 0 < self.limits.idle_timeout < silent and not connection.paused:
                self.log.info(
                    "Closing {peer}: silent for {seconds:.0f} s",
                    peer=connection.peer,
                    seconds=silent,
                )
                connection.end()


class ReceiverFactory(Factory):
    """Makes the connections of one listener."""

    noisy = False

    def __init__(self, receiver: Receiver, door: Admits) -> None:
        self._receiver = receiver
        self._door = door

    def buildProtocol(self, addr: IAddress | None) -> ReceiverProtocol:
        host, port = getattr(addr, "host", ""), getattr(addr, "port", 0)
        peer = f"[{host}]:{port}" if ":" in host else f"{host}:{port}" if host else "unix"
        return ReceiverProtocol(self._receiver, self._door, peer)
