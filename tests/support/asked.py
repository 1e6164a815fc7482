"""An HTTP port that is asked request by request, without a socket."""

# mypy: no-disallow-untyped-calls

from __future__ import annotations

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.web.resource import Resource
from twisted.web.server import Request

from wafermon.model.settings import HttpListener
from wafermon.net.http import QuietSite
from wafermon.web.access import AccessRules
from wafermon.web.listening import PortRoot


class Answering(Resource):
    """Answers to everything."""

    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        return b"answered"

    render_POST = render_GET


class Asked:
    """A port that is asked request by request, each on a connection of its own."""

    def __init__(self, **keys: object) -> None:
        self.clock = Clock()
        root = Resource()
        for name in (b"", b"health", b"metrics", b"api"):
            root.putChild(name, Answering())
        listener = HttpListener.model_validate({"endpoint": "tcp:0", **keys})
        self.root = PortRoot(AccessRules(listener, self.clock.seconds), root, self.clock)
        self.site = QuietSite(self.root)
        self.site.reactor = self.clock

    def ask(
        self,
        path: str,
        *headers: str,
        method: str = "GET",
        host: str = "127.0.0.1",
        peer: str = "10.0.0.1",
        wait: float = 1.0,
    ) -> str:
        """The status and the body."""
        answer = self.answer(path, *headers, method=method, host=host, peer=peer, wait=wait)
        head, _, body = answer.partition("\r\n\r\n")
        return f"{head.split(' ')[1]} {body}" if head else ""

    def answer(
        self,
        path: str,
        *headers: str,
        method: str = "GET",
        host: str = "127.0.0.1",
        peer: str = "10.0.0.1",
        wait: float = 1.0,
        body: str = "",
    ) -> str:
        """The whole answer."""
        protocol = self.site.buildProtocol(IPv4Address("TCP", peer, 4711))
        transport = StringTransport(peerAddress=IPv4Address("TCP", peer, 4711))
        protocol.makeConnection(transport)
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", *headers, "", body]
        protocol.dataReceived("\r\n".join(lines).encode())
        self.clock.advance(wait)
        answer: str = transport.value().decode()
        return answer
