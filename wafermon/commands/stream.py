"""One stream of lines to a sidecar over one connection, for programs that may wait: hello, welcome, window, acks.

The SDKs never wait and never give up; this does both, and tells what became of each line.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple

from wafermon import __version__

DEFAULT_URL = "tcp://127.0.0.1:7411"
SILENCE = 5.0
"""Seconds without a byte, while a welcome or acks are due, after which a connection is dead."""
WINDOW_BYTES = 4 << 20
"""What may be sent and unacknowledged."""
_CHUNK = 1 << 16
_GOODBYE = 1.0
"""Seconds for the sidecar to close its side."""
_URL = re.compile(r"unix://(/.+)|(tcp|tls)://(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?/?")
_PORTS = {"tcp": 7411, "tls": 7413}


class Lost(OSError):
    """The connection ended or fell silent before everything was acknowledged."""


class Refused(Exception):
    """The sidecar does not want this connection. `passing` where a later one may fare better."""

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        self.passing = code in ("rate_limited", "too_many_connections")
        super().__init__(f"{code}: {detail}" if detail else code)


class Rejection(NamedTuple):
    """Why the sidecar did not accept a line."""

    code: str
    detail: str


@dataclass(frozen=True)
class Address:
    """Where a sidecar listens. Of a Unix socket, `host` is the path."""

    scheme: str
    host: str
    port: int = 0

    @classmethod
    def parse(cls, url: str) -> Address:
        """Raises ValueError for what is no sidecar's URL."""
        found = _URL.fullmatch(url)
        if not found or int(found[5] or 1) not in range(1, 65_536):
            raise ValueError(f"not a sidecar's URL: {url!r}; write tcp://HOST:PORT, tls://HOST:PORT or unix:///PATH")
        path, scheme, ipv6, host, port = found.groups()
        return cls("unix", path) if path else cls(scheme, ipv6 or host, int(port or _PORTS[scheme]))

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix://{self.host}"
        return f"{self.scheme}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @property
    def local(self) -> bool:
        """Whether it can only be on this machine."""
        with suppress(ValueError):
            return ipaddress.ip_address(self.host).is_loopback
        return self.scheme == "unix" or self.host == "localhost"

    def connect(self) -> socket.socket:
        """A connected socket that does not block. Raises OSError."""
        if self.scheme == "unix":
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(SILENCE)
            try:
                connection.connect(self.host)
            except OSError:
                connection.close()
                raise
        else:
            connection = socket.create_connection((self.host, self.port), SILENCE)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.scheme == "tls":
            import ssl  # slow to import, and rarely needed

            try:
                connection = ssl.create_default_context().wrap_socket(connection, server_hostname=self.host)
            except OSError:
                connection.close()
                raise
        connection.setblocking(False)
        return connection


def hello(client: str, service: str, token: str = "", **more: Any) -> dict[str, Any]:
    """The first line of a connection. Without `host` and `pid`, lines that lack these stay without."""
    line = {"v": 2, "type": "hello", "client": client, "service": service, **more}
    line |= {"sdk": f"wafermon/{__version__}", "ack": True}
    return {**line, "token": token} if token else line


class _Sent(NamedTuple):
    seq: int
    size: int
    tag: Any


class Stream:
    """Use it as a context manager: made, it is welcome; left, it is closed, politely unless an exception leaves it.

    `settled` is called with the tag of what was sent and, unless it was accepted, the reason. Every method raises Lost,
    and making one raises OSError or Refused.
    """

    def __init__(
        self,
        address: Address,
        hello: Mapping[str, Any],
        settled: Callable[[Any, Rejection | None], None],
        window_bytes: int = WINDOW_BYTES,
    ) -> None:
        self.acked = 0
        """Everything up to this seq is in the sidecar's journal."""
        self.max_line = 65_536
        """The longest line in bytes, without its newline."""
        self._settled = settled
        self._window_bytes = window_bytes
        self._window: deque[_Sent] = deque()
        self._outstanding = 0
        self._received = b""
        self._out = bytearray(json.dumps(hello, separators=(",", ":")).encode() + b"\n")
        self._welcome = False
        self._socket = address.connect()
        self._would_block: tuple[type[OSError], ...] = (BlockingIOError,)
        if address.scheme == "tls":
            import ssl

            self._would_block = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
        self._heard = time.monotonic()
        try:
            while not self._welcome:
                self._pump(SILENCE)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._socket, suppress(OSError):
            if kind is None:
                # Closing with an unread ack would reset the connection.
                self._socket.settimeout(_GOODBYE)
                self._socket.shutdown(socket.SHUT_WR)
                while self._socket.recv(_CHUNK):
                    pass

    def send(self, seq: int, data: bytes, tag: Any = None) -> None:
        """Hand over whole lines, the last of which is number `seq`. Waits while the window is full."""
        while self._window and self._outstanding + len(data) > self._window_bytes:
            self._pump(SILENCE)
        if not self._window:
            self._heard = time.monotonic()
        self._window.append(_Sent(seq, len(data), tag))
        self._outstanding += len(data)
        self._out += data
        if len(self._out) >= _CHUNK:
            self._pump(0)

    def finish(self) -> None:
        """Wait until everything is settled."""
        while self._window:
            self._pump(SILENCE)

    def _pump(self, patience: float) -> None:
        """Read what has come and write what the socket takes; wait for either at most so many seconds."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._out else 0))
        poll.poll(patience * 1000)
        ended = False
        try:
            with suppress(*self._would_block):
                while data := self._socket.recv(_CHUNK):
                    self._received += data
                    self._heard = time.monotonic()
                ended = True
        except OSError as error:
            raise Lost(f"the connection broke: {error.strerror or error}") from error
        finally:
            *lines, self._received = self._received.split(b"\n")
            for line in lines:
                self._take(line)
        if ended:
            raise Lost("the sidecar closed the connection")
        try:
            with suppress(*self._would_block):
                while self._out:
                    del self._out[: self._socket.send(self._out)]
        except OSError as error:
            raise Lost(f"the connection broke: {error.strerror or error}") from error
        if (self._window or not self._welcome) and time.monotonic() - self._heard > SILENCE:
            raise Lost(f"the sidecar said nothing for {SILENCE:g} s")

    def _take(self, line: bytes) -> None:
        try:
            reply = json.loads(line)
            kind, seq = reply["type"], reply.get("seq")
            if kind == "ack":
                self._settle(int(seq))
            elif kind == "welcome":
                self._welcome = True
                self.max_line = int(reply.get("max_line", self.max_line))
                self.acked = int(reply["acked"])
            elif kind == "error" and seq is None and not self._welcome:
                raise Refused(str(reply.get("code")), str(reply.get("detail", "")))
            elif kind == "error":
                self._reject(seq, Rejection(str(reply.get("code")), str(reply.get("detail", ""))))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Lost(f"this is not a sidecar: it said {line[:80]!r}") from error

    def _settle(self, acked: int) -> None:
        self.acked = max(acked, self.acked)
        while self._window and self._window[0].seq <= acked:
            sent = self._window.popleft()
            self._outstanding -= sent.size
            self._settled(sent.tag, None)

    def _reject(self, seq: int | None, why: Rejection) -> None:
        """A line of the window was refused. One whose number the sidecar could not read is named by its place."""
        for sent in self._window:
            if sent.seq == seq:
                self._window.remove(sent)
                self._outstanding -= sent.size
                self._settled(sent.tag, why)
                return


@dataclass(frozen=True)
class Link:
    """How to reach the sidecar, from the command's options and the environment."""

    address: Address
    token: str

    @classmethod
    def of(cls, url: str | None, token: str | None) -> Link:
        """Raises ValueError for a bad URL."""
        given = url or os.environ.get("WAFERMON_URL") or DEFAULT_URL
        return cls(Address.parse(given), token or os.environ.get("WAFERMON_TOKEN") or "")

    def explain(self, error: Exception) -> str:
        """What went wrong, and what to do."""
        if isinstance(error, Refused):
            what = f"the sidecar at {self.address} refuses: {error}"
            return f"{what}; give its token by --token or WAFERMON_TOKEN" if error.code == "unauthorized" else what
        if isinstance(error, Lost):
            return f"{self.address}: {error}"
        reason = getattr(error, "strerror", None) or error
        return f"can't reach a sidecar at {self.address}: {reason}; start it, or name another by --url or WAFERMON_URL"
