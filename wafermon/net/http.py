"""Requests that cost nothing beyond what a page needs: bodies are bounded, and nothing is logged of them."""

from __future__ import annotations

from io import BytesIO
from typing import Any, AnyStr

from twisted.web.http import Request as HttpRequest
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

BODY_BYTES = 64 << 10
"""The longest body that is read, where a kind of request does not say another length. No page wants more."""
IDLE_SECONDS = 60.0
"""After so long without a byte a connection is closed."""
_TOO_LARGE = b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class BoundedRequest(Request):
    """Keeps a body in memory up to `body_bytes`; beyond that the connection ends with 413. Headers of any bytes can be read."""

    body_bytes = BODY_BYTES
    _refused = False
    content: BytesIO
    channel: Any

    def getHeader(self, key: AnyStr) -> AnyStr | None:
        """A header's last value. Of one that is no UTF-8, the bytes at fault are replaced: Twisted's own method raises."""
        if isinstance(key, bytes):
            return super().getHeader(key)
        value = super().getHeader(key.encode("ascii"))
        return None if value is None else value.decode(errors="replace")

    def gotLength(self, length: int | None) -> None:
        self.content = BytesIO()
        if length is not None and length > self.body_bytes:
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:
        if self._refused:
            return
        if self.content.tell() + len(data) > self.body_bytes:
            self._refuse()
        else:
            self.content.write(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        if not self._refused:
            super().requestReceived(command, path, version)

    def _refuse(self) -> None:
        self._refused = True
        self.channel.transport.write(_TOO_LARGE)
        self.channel.loseConnection()


class QuietSite(Site):
    """Without a line in the log for each request."""

    noisy = False
    displayTracebacks = False

    def __init__(self, root: Resource, request: type[BoundedRequest] = BoundedRequest) -> None:
        super().__init__(root, requestFactory=request, timeout=IDLE_SECONDS)

    def acceptableProtocols(self) -> list[bytes]:
        """HTTP/1.1 alone, whatever packages are installed: bodies are bounded there."""
        return [b"http/1.1"]

    def log(self, request: HttpRequest) -> None:
        pass
