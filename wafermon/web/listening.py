"""The ports that serve HTTP: opened, changed and closed as the config has them, while what is being answered goes on.

A port is known by its address. As long as the config has an entry there it stays open, and only what is served and asked there
changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import DeferredList
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import Request

from wafermon.model.changes import CannotChange, Change
from wafermon.model.endpoints import kind_of
from wafermon.model.repeated import Repeated
from wafermon.model.settings import HttpListener
from wafermon.net import ports
from wafermon.net.http import QuietSite
from wafermon.net.principals import ANYBODY, Principal, group_id, user_id
from wafermon.web.access import AccessRules
from wafermon.web.answers import text, wants_html
from wafermon.web.login import PATHS, Login
from wafermon.web.refusals import Delays, Refusal
from wafermon.web.sessions import Sessions

LOOK_SECONDS = 1.0
"""How often certificates and tokens are looked at."""
PART_OF = {
    b"": "page",
    b"page": "page",
    b"login": "page",
    b"logout": "page",
    b"health": "health",
    b"metrics": "metrics",
    b"api": "api",
}
"""The first step of a path -> what it is a part of. Anything else is no page at all."""
TO_LOGIN = Refusal(303, "log in at /login", headers=((b"location", b"/login"),))
Entry = tuple[HttpListener, AccessRules]
Address = tuple[str, ...]


class PortRoot(Resource):
    """The root of one port: what is served there, for requests that the rules of access allow."""

    def __init__(self, access: AccessRules, root: Resource, reactor: Any) -> None:
        super().__init__()
        self.access = access
        self._root = root
        self._delays = Delays(reactor)
        self._answering: dict[Request, tuple[Principal, str]] = {}

    def getChildWithDefault(self, path: bytes, request: Request) -> Resource:
        part = PART_OF.get(path, "page")
        if part not in self.access.serve:
            served = ", ".join(sorted(self.access.serve))
            return _Refused(
                Refusal(404, f"this port serves {served}; what you ask for is not among them"), self._delays
            )
        if path in PATHS:
            return Login(path, self.access, self._delays)
        found = ANYBODY if path == b"page" and self.access.asks_for_tokens else self.access.examine(request, part)
        if isinstance(found, Refusal):
            if found.code == 401 and path == b"" and wants_html(request):
                found = TO_LOGIN
            return _Refused(found, self._delays)
        self._answering[request] = (found, part)
        request.notifyFinish().addBoth(lambda _: self._answering.pop(request, None))
        child: Resource = self._root.getChildWithDefault(path, request)
        return child

    def clear(self) -> None:
        """End the answers that would not be given any more, such as a stream for a token that is gone."""
        for request, (principal, part) in list(self._answering.items()):
            if not self.access.still_admits(request, principal, part):
                request.loseConnection()


class _Refused(Resource):
    isLeaf = True

    def __init__(self, refusal: Refusal, delays: Delays) -> None:
        super().__init__()
        self._refusal = refusal
        self._delays = delays

    def render(self, request: Request) -> Any:
        for name, value in self._refusal.headers:
            request.setHeader(name, value)
        body = text(request, self._refusal.why, self._refusal.code)
        request.setHeader(b"content-length", b"%d" % len(body))
        if request.method == b"HEAD":
            body = b""
        return self._delays.say(request, body, self._refusal.after)


class OpenPort:
    """One port that is open."""

    def __init__(
        self, listener: HttpListener, access: AccessRules, root: Resource, reactor: Any, beside: Any = None
    ) -> None:
        """Raises OSError and ValueError where it can't be opened. `beside`: see `ports.listen`."""
        self.root = PortRoot(access, root, reactor)
        self._site = QuietSite(self.root)
        self.change(listener, access)
        self.port: Any = ports.listen(listener, _Connections(self), reactor, beside)

    def change(self, listener: HttpListener, access: AccessRules) -> None:
        """From now on serve and ask this."""
        self.listener = listener
        self.root.access = access
        self.factory = access.credentials.wrap(self._site) if access.credentials else self._site

    def adjust(self) -> None:
        """Give the open socket the owner and mode that the config has now. Raises OSError and ValueError."""
        if kind_of(self.listener.endpoint) == "unix":
            ports.own(self.listener)


class _Connections(Factory):
    """What the port asks for a connection: what it is now."""

    noisy = False

    def __init__(self, port: OpenPort) -> None:
        self._port = port

    def doStart(self) -> None:
        self._port.factory.doStart()

    def doStop(self) -> None:
        self._port.factory.doStop()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return self._port.factory.buildProtocol(addr)


class HttpPorts:
    """All of them."""

    log = Logger()

    def __init__(self, root: Callable[[], Resource], reactor: Any) -> None:
        """`root` makes the pages of one port."""
        self._root = root
        self._reactor = reactor
        self._open: dict[Address, OpenPort] = {}
        self._look = Repeated(reactor, self._refresh)

    @property
    def open(self) -> list[tuple[HttpListener, str]]:
        """Those that are open, each with where: ``host:port`` or a path."""
        return [(one.listener, ports.where(one.port)) for one in self._open.values()]

    def prepare(self, wanted: Sequence[HttpListener]) -> Change:
        """Open what is not open yet, and read the files. Nothing is answered at a new port, and no old one closes, before the commit.
        Raises CannotChange."""
        entries = {ports.address_of(listener): (listener, self._access_of(listener)) for listener in wanted}
        going = [one for address, one in self._open.items() if address not in entries]
        opened: dict[Address, OpenPort] = {}
        try:
            for address, (listener, access) in entries.items():
                if address not in self._open:
                    opened[address] = self._listen(listener, access, going)
        except CannotChange:
            _close(opened.values())
            raise
        return Change(partial(self._commit, entries, opened, going), partial(_close, opened.values()))

    def _access_of(self, listener: HttpListener) -> AccessRules:
        try:
            for name, look_up in ((listener.owner, user_id), (listener.group, group_id)):
                if name is not None:
                    look_up(name)
            before = self._open.get(ports.address_of(listener))
            sessions = before.root.access.sessions if before else Sessions(self._reactor.seconds)
            return AccessRules(listener, self._reactor.seconds, sessions)
        except ValueError as error:
            raise CannotChange(f"http: {listener.endpoint}: {error}") from None

    def _listen(self, listener: HttpListener, access: AccessRules, going: Sequence[OpenPort]) -> OpenPort:
        number = ports.number_of(listener.endpoint)
        beside = next((one.port for one in going if number and ports.number_of(one.listener.endpoint) == number), None)
        try:
            return OpenPort(listener, access, self._root(), self._reactor, beside)
        except (OSError, ValueError, CannotListenError) as error:
            raise CannotChange(f"can't serve HTTP on {listener.endpoint}: {ports.in_words(error)}") from None

    def _commit(
        self, entries: dict[Address, Entry], opened: dict[Address, OpenPort], going: Sequence[OpenPort]
    ) -> None:
        """What is being answered at a port that goes is answered to its end."""
        for one in going:
            if hasattr(one.port, "doRead"):
                one.port.doRead()  # connections that wait to be accepted are answered too
            self.log.info("No more HTTP on {endpoint}", endpoint=one.listener.endpoint)
        _close(going)
        self._open = {address: opened.get(address) or self._open[address] for address in entries}
        for address, (listener, access) in entries.items():
            one = self._open[address]
            before = one.listener
            one.change(listener, access)
            if address in opened or before != listener:
                self.log.info(
                    "HTTP on {endpoint}: {parts}", endpoint=listener.endpoint, parts=", ".join(listener.serve)
                )
            if before != listener:
                self._adjust(one)
            one.root.clear()
        if not self._look.running:
            self._look.start(LOOK_SECONDS, now=False)

    def _adjust(self, one: OpenPort) -> None:
        try:
            one.adjust()
        except (OSError, ValueError) as error:
            self.log.error("{endpoint}: {error}", endpoint=one.listener.endpoint, error=ports.in_words(error))

    def _refresh(self) -> None:
        for one in self._open.values():
            one.root.access.refresh()
            one.root.clear()

    async def stop(self) -> None:
        """Nobody is answered any more."""
        if self._look.running:
            self._look.stop()
        closing, self._open = list(self._open.values()), {}
        await DeferredList([ports.close(one.port) for one in closing])


def _close(going: Iterable[OpenPort]) -> None:
    for one in going:
        ports.close(one.port)
