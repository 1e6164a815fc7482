"""The listening: listeners as the config has them, and how a running sidecar takes others.

A listener is known by its address. As long as a config has one there, it stays open, and only what it asks of
clients changes: certificates, tokens, users, TLS or not. A connection stays open, unless the new rules refuse it.
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
    """What an open listener gives its connections to."""

    @property
    def factory(self) -> Any:
        """Of its connections, without TLS."""

    def clear(self) -> None:
        """Close the connections that would not be let in any more."""

    def end(self) -> None:
        """Close those that are asked again at each request."""


Serve = Callable[["OpenListener"], Served]
"""What makes it for an open listener."""


class OpenListener:
    """One listener that is open."""

    def __init__(
        self, listener: Listener, admission: Admission, serve: Serve, reactor: Any, beside: Any = None
    ) -> None:
        """Raises OSError and ValueError where it can't be opened. `beside`: see `ports.listen`."""
        self._served = serve(self)
        self.change(listener, admission)
        self.port: Any = ports.listen(listener, _Connections(self), reactor, beside)

    def change(self, listener: Listener, admission: Admission) -> None:
        """From now on ask this of new connections."""
        self.listener = listener
        self.admission = admission
        plain = self._served.factory
        self.factory = admission.credentials.wrap(plain) if admission.credentials else plain

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
        return self.admission.admit(token, transport)

    def forwards_as(self, principal: Principal, transport: Any) -> str:
        """See `Admission.forwards_as`: that of the moment."""
        return self.admission.forwards_as(principal, transport)

    def refresh(self) -> None:
        """Read the tokens again if they have changed, and close the connections whose token is gone."""
        if self.admission.refresh():
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

    def __init__(self, receiver: Receiver, listener: OpenListener) -> None:
        self.factory = ReceiverFactory(receiver, listener)
        self._receiver = receiver
        self._listener = listener

    def clear(self) -> None:
        admission = self._listener.admission
        for connection in self._receiver.admitted_by(self._listener):
            principal, transport, name = connection.principal, connection.transport, connection.forwards_as
            if not admission.still_admits(principal, transport) or (
                name and not admission.still_forwards_as(principal, transport, name)
            ):
                self._receiver.complain(connection.peer, "closed: it would not be admitted any more")
                connection.end()

    def end(self) -> None:
        """The receiver ends its connections itself."""


class _Connections(Factory):
    """What the port asks for a connection: that of the listener as it is now."""

    noisy = False

    def __init__(self, listener: OpenListener) -> None:
        self._listener = listener

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return self._listener.factory.buildProtocol(addr)


class Listeners:
    """All listening."""

    log = Logger()

    def __init__(self, receiver: Receiver, reactor: Any, others: Mapping[type[Listener], Serve] | None = None) -> None:
        """`others` are for kinds of listeners where no lines come in."""
        self._serve: dict[type[Listener], Serve] = {Listener: partial(_Lines, receiver), **(others or {})}
        self._reactor = reactor
        self._open_listeners: dict[Address, OpenListener] = {}
        self._closed: list[OpenListener] = []
        self._look = Repeated(reactor, self._refresh)

    @property
    def open(self) -> list[tuple[Listener, str]]:
        """Those that are open, each with where: ``host:port`` or a path."""
        return [(one.listener, ports.where(one.port)) for one in self._open_listeners.values()]

    @property
    def bind_services(self) -> bool:
        """Whether some client may speak for some services alone."""
        return any(one.admission.binds_services for one in self._open_listeners.values())

    def prepare(self, wanted: Sequence[Listener]) -> Change:
        """Open what is not open yet, and read the files. Nothing is served by a new one, and no old one closes, before
        the commit. Raises CannotChange."""
        admissions = {_address_of(listener): (listener, self._admission_of(listener)) for listener in wanted}
        going = [one for address, one in self._open_listeners.items() if address not in admissions]
        opened: dict[Address, OpenListener] = {}
        try:
            for address, (listener, admission) in admissions.items():
                if address not in self._open_listeners:
                    opened[address] = self._open(listener, admission, going)
                elif kind_of(listener.endpoint) == "unix":
                    self._check_owner(listener)
        except CannotChange:
            _close(opened.values())
            raise
        return Change(partial(self._commit, admissions, opened, going), partial(_close, opened.values()))

    def _admission_of(self, listener: Listener) -> Admission:
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

    def _open(self, listener: Listener, admission: Admission, going: Sequence[OpenListener]) -> OpenListener:
        number = ports.number_of(listener.endpoint)
        beside = next((one.port for one in going if number and ports.number_of(one.listener.endpoint) == number), None)
        try:
            return OpenListener(listener, admission, self._serve[type(listener)], self._reactor, beside)
        except (OSError, ValueError, CannotListenError) as error:
            raise CannotChange(f"can't listen on {listener.endpoint}: {ports.in_words(error)}") from None

    def _commit(
        self, admissions: _Admissions, opened: dict[Address, OpenListener], going: Sequence[OpenListener]
    ) -> None:
        for one in going:
            if hasattr(one.port, "doRead"):
                one.port.doRead()  # connections that wait already are accepted
            self.log.info("No more listening on {endpoint}", endpoint=one.listener.endpoint)
        _close(going)
        for one in opened.values():
            self.log.info("Listening on {endpoint}", endpoint=one.listener.endpoint)
        self._open_listeners = {address: opened.get(address) or self._open_listeners[address] for address in admissions}
        for address, (listener, admission) in admissions.items():
            one = self._open_listeners[address]
            before = one.listener
            one.change(listener, admission)
            if before != listener:
                self._adjust(one)
            one.clear()
        if not self._look.running:
            self._look.start(LOOK_SECONDS, now=False)

    def _adjust(self, one: OpenListener) -> None:
        try:
            one.adjust()
        except (OSError, ValueError) as error:
            self.log.error("{endpoint}: {error}", endpoint=one.listener.endpoint, error=ports.in_words(error))

    def _refresh(self) -> None:
        for one in self._open_listeners.values():
            one.refresh()
            if one.admission.credentials is not None:
                one.admission.credentials.refresh()

    def stop(self) -> Deferred[None]:
        """No connection is taken any more."""
        if self._look.running:
            self._look.stop()
        closing = DeferredList([one.close() for one in self._open_listeners.values()])
        self._closed, self._open_listeners = list(self._open_listeners.values()), {}
        return closing.addCallback(lambda _: None)

    def end(self) -> None:
        """After `stop`: close what is still connected, where nobody else does."""
        for one in self._closed:
            one.end()


def _address_of(listener: Listener) -> Address:
    """By which it is known: another kind of listener at the same place is another one."""
    return (type(listener).__name__, *ports.address_of(listener))


def _close(listening: Iterable[OpenListener]) -> None:
    for one in listening:
        one.close()
