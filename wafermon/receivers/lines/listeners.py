"""The listening: listeners as the config has them, and how a running sidecar takes others.

A door is known by its address. As long as a config has a listener there, the door stays open, and only what it asks of
clients changes: certificates, tokens, users, TLS or not. Who is inside stays inside, unless the new rules refuse him.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from wafermon.model.changes import CannotChange, Change
from wafermon.model.endpoints import arguments_of, kind_of
from wafermon.model.repeated import Repeated
from wafermon.model.settings import Listener
from wafermon.net import ports
from wafermon.net.principals import Principal, group_id, user_id
from wafermon.receivers.lines.admission import Admission
from wafermon.receivers.lines.hub import Receiver, ReceiverFactory

LOOK_SECONDS = 1.0
"""How often certificates and tokens are looked at."""
Address = tuple[str, ...]
_Admissions = dict[Address, tuple[Listener, Admission]]


class Served(Protocol):
    """What is behind a door."""

    @property
    def factory(self) -> Any:
        """Of its connections, without TLS."""

    def clear(self) -> None:
        """Close the connections that would not be let in any more."""

    def end(self) -> None:
        """Close those that are asked again at each request."""


Serve = Callable[["OpenListener"], Served]
"""What puts something behind a door."""


class OpenListener:
    """One listener that is open."""

    def __init__(self, listener: Listener, gate: Admission, serve: Serve, reactor: Any, beside: Any = None) -> None:
        """Raises OSError and ValueError where it can't be opened. `beside`: see `ports.listen`."""
        self._served = serve(self)
        self.change(listener, gate)
        self.port: Any = ports.listen(listener, _Entrance(self), reactor, beside)

    def change(self, listener: Listener, gate: Admission) -> None:
        """From now on ask this of new connections."""
        self.listener = listener
        self.gate = gate
        plain = self._served.factory
        self.factory = gate.credentials.wrap(plain) if gate.credentials else plain

    def adjust(self) -> None:
        """Give the open socket what the listener says of it now. Raises OSError and ValueError."""
        arguments = arguments_of(self.listener.endpoint)
        if kind_of(self.listener.endpoint) == "unix":
            ports.own(self.listener)
        if arguments:
            self.port.socket.listen(int(arguments.get("backlog", ports.BACKLOG)))

    def admit(self, token: str, transport: Any) -> Principal:
        """See `Admission.admit`: that of the moment."""
        self.refresh()
        return self.gate.admit(token, transport)

    def forwards_as(self, principal: Principal, transport: Any) -> str:
        """See `Admission.forwards_as`: that of the moment."""
        return self.gate.forwards_as(principal, transport)

    def refresh(self) -> None:
        """Read the tokens again if they have changed, and close the connections whose token is gone."""
        if self.gate.refresh():
            self.clear()

    def clear(self) -> None:
        """Close the connections that would not be let in any more."""
        self._served.clear()

    def end(self) -> None:
        """See `Served.end`."""
        self._served.end()

    def close(self) -> Deferred[None]:
        return ports.close(self.port)


class _Lines:
    """Clients that speak the protocol."""

    def __init__(self, receiver: Receiver, door: OpenListener) -> None:
        self.factory = ReceiverFactory(receiver, door)
        self._receiver = receiver
        self._door = door

    def clear(self) -> None:
        gate = self._door.gate
        for connection in self._receiver.admitted_by(self._door):
            principal, transport, name = connection.principal, connection.transport, connection.forwards_as
            if not gate.still_admits(principal, transport) or (
                name and not gate.still_forwards_as(principal, transport, name)
            ):
                self._receiver.complain(connection.peer, "closed: it would not be admitted any more")
                connection.end()

    def end(self) -> None:
        """The receiver ends its connections itself."""


class _Entrance(Factory):
    """What the port asks for a connection: that of the door as it is now."""

    noisy = False

    def __init__(self, door: OpenListener) -> None:
        self._door = door

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return self._door.factory.buildProtocol(addr)


class Listeners:
    """All listening."""

    log = Logger()

    def __init__(self, receiver: Receiver, reactor: Any, others: Mapping[type[Listener], Serve] | None = None) -> None:
        """`others` are for kinds of listeners where no lines come in."""
        self._serve: dict[type[Listener], Serve] = {Listener: partial(_Lines, receiver), **(others or {})}
        self._reactor = reactor
        self._doors: dict[Address, OpenListener] = {}
        self._closed: list[OpenListener] = []
        self._look = Repeated(reactor, self._refresh)

    @property
    def open(self) -> list[tuple[Listener, str]]:
        """Those that are open, each with where: ``host:port`` or a path."""
        return [(door.listener, ports.where(door.port)) for door in self._doors.values()]

    @property
    def bind_services(self) -> bool:
        """Whether some client may speak for some services alone."""
        return any(door.gate.binds_services for door in self._doors.values())

    def prepare(self, wanted: Sequence[Listener]) -> Change:
        """Open what is not open yet, and read the files. Nobody is served at a new door, and no old one closes, before
        the commit. Raises CannotChange."""
        gates = {_address_of(listener): (listener, self._gate(listener)) for listener in wanted}
        going = [door for address, door in self._doors.items() if address not in gates]
        opened: dict[Address, OpenListener] = {}
        try:
            for address, (listener, gate) in gates.items():
                if address not in self._doors:
                    opened[address] = self._open(listener, gate, going)
                elif kind_of(listener.endpoint) == "unix":
                    self._check_owner(listener)
        except CannotChange:
            _close(opened.values())
            raise
        return Change(partial(self._commit, gates, opened, going), partial(_close, opened.values()))

    def _gate(self, listener: Listener) -> Admission:
        try:
            return Admission(listener)
        except ValueError as error:
            raise CannotChange(f"{listener.endpoint}: {error}") from None

    def _check_owner(self, listener: Listener) -> None:
        try:
            for name, look_up in ((listener.owner, user_id), (listener.group, group_id)):
                if name is not None:
                    look_up(name)
        except ValueError as error:
            raise CannotChange(f"{listener.endpoint}: {error}") from None

    def _open(self, listener: Listener, gate: Admission, going: Sequence[OpenListener]) -> OpenListener:
        number = ports.number_of(listener.endpoint)
        beside = next((one.port for one in going if number and ports.number_of(one.listener.endpoint) == number), None)
        try:
            return OpenListener(listener, gate, self._serve[type(listener)], self._reactor, beside)
        except (OSError, ValueError, CannotListenError) as error:
            raise CannotChange(f"can't listen on {listener.endpoint}: {ports.in_words(error)}") from None

    def _commit(self, gates: _Admissions, opened: dict[Address, OpenListener], going: Sequence[OpenListener]) -> None:
        for door in going:
            if hasattr(door.port, "doRead"):
                door.port.doRead()  # connections that wait already are accepted
            self.log.info("No more listening on {endpoint}", endpoint=door.listener.endpoint)
        _close(going)
        for door in opened.values():
            self.log.info("Listening on {endpoint}", endpoint=door.listener.endpoint)
        self._doors = {address: opened.get(address) or self._doors[address] for address in gates}
        for address, (listener, gate) in gates.items():
            door = self._doors[address]
            before = door.listener
            door.change(listener, gate)
            if before != listener:
                self._adjust(door)
            door.clear()
        if not self._look.running:
            self._look.start(LOOK_SECONDS, now=False)

    def _adjust(self, door: OpenListener) -> None:
        try:
            door.adjust()
        except (OSError, ValueError) as error:
            self.log.error("{endpoint}: {error}", endpoint=door.listener.endpoint, error=ports.in_words(error))

    def _refresh(self) -> None:
        for door in self._doors.values():
            door.refresh()
            if door.gate.credentials is not None:
                door.gate.credentials.refresh()

    def stop(self) -> Deferred[None]:
        """Nobody comes in any more."""
        if self._look.running:
            self._look.stop()
        closing = DeferredList([door.close() for door in self._doors.values()])
        self._closed, self._doors = list(self._doors.values()), {}
        return closing.addCallback(lambda _: None)

    def end(self) -> None:
        """After `stop`: close what is still connected, where nobody else does."""
        for door in self._closed:
            door.end()


def _address_of(listener: Listener) -> Address:
    """By which it is known: another kind of listener at the same place is another one."""
    return (type(listener).__name__, *ports.address_of(listener))


def _close(listening: Iterable[OpenListener]) -> None:
    for door in listening:
        door.close()
