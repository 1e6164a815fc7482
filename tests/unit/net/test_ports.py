"""What a connection has from the port that it came in at."""

from __future__ import annotations

import socket

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol

from wafermon.config import Listener
from wafermon.net import ports


@pytest.mark.parametrize(
    ("endpoint", "host"), [("tcp:0", "127.0.0.1"), ("tcp6:0", "::1"), ("haproxy:tcp:0", "127.0.0.1")]
)
@pytest_twisted.ensureDeferred
async def test_no_ack_waits_until_the_client_confirms_the_one_before(endpoint: str, host: str) -> None:
    came: Deferred[Protocol] = Deferred()

    class Accepted(Protocol):
        def connectionMade(self) -> None:
            came.callback(self)

    port = ports.listen(Listener(endpoint=endpoint), Factory.forProtocol(Accepted), reactor)
    try:
        with socket.create_connection((host, port.getHost().port)):  # type: ignore[attr-defined]
            transport = (await came).transport
            assert transport.getTcpNoDelay()  # type: ignore[union-attr]
            transport.abortConnection()  # type: ignore[union-attr]
    finally:
        await ports.close(port)
