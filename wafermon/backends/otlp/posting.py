"""One connection to one server, over which requests go one after the other. It blocks, in one thread; `abort` may come from any."""

from __future__ import annotations

import http.client
import select
import socket
import ssl
from base64 import b64encode
from collections.abc import Callable, Mapping
from contextlib import suppress
from threading import Lock, Timer
from typing import NamedTuple
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from wafermon.interfaces import RetryableError
from wafermon.model.errors import printable

CONNECT_SECONDS = 10.0
ANSWER_BYTES = 4 << 20
"""Of an answer no more is read: OTLP's own bound."""


class Answered(NamedTuple):
    """A whole answer."""

    status: int
    media_type: str
    retry_after: str | None
    body: bytes


class NoAnswer(RetryableError):
    """The server was not reached, or the connection was lost: the request may have been taken. Its text is the same whenever that
    happens again."""


class Server:
    """The server of a URL. `tls` makes its context, where that is needed."""

    def __init__(self, url: str, headers: Mapping[str, str], timeout: float, tls: Callable[[], ssl.SSLContext]) -> None:
        """`timeout`: in seconds, for a request as a whole."""
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._secure = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port or (443 if self._secure else 80)
        self._path = parts.path.rstrip("/")
        self._shown = f"{parts.scheme}://{parts.netloc}"
        self._headers = dict(headers)
        self._timeout = timeout
        self._tls = tls
        self._lock = Lock()
        self._connection: http.client.HTTPConnection | None = None
        self._aborted = False

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Answered:
        """Raises NoAnswer."""
        watch = Timer(self._timeout, self._cut)
        watch.daemon = True
        watch.start()
        try:
            return self._post(path, body, headers)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.drop()
            raise NoAnswer(f"{self._shown}: {self._in_words(error)}") from error
        finally:
            watch.cancel()

    def _post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Answered:
        connection = self._ready()
        target = f"{self._path}{path}"
        if self._absolute:
            target = f"{self._shown}{target}"
        connection.request("POST", target, body, {**self._headers, **headers})
        response = connection.getresponse()
        read = response.read(ANSWER_BYTES)
        media_type = (response.getheader("Content-Type") or "").partition(";")[0].strip().lower()
        answered = Answered(response.status, media_type, response.getheader("Retry-After"), read)
        if not response.isclosed():
            self.drop()
        return answered

    def _in_words(self, error: Exception) -> str:
        if self._aborted:
            return "closed meanwhile"
        if isinstance(error, ssl.SSLCertVerificationError):
            return (
                f"{printable(error.verify_message)}; see that `ca_file` names the authority of the server's certificate"
            )
        if isinstance(error, ssl.SSLError):
            return f"{printable(error.reason or error)}; see that the server speaks TLS there"
        if isinstance(error, socket.gaierror):
            return "its name does not resolve; correct `url`, or look at DNS"
        if isinstance(error, ConnectionRefusedError):
            return "nothing listens there; see that the server runs"
        if isinstance(error, TimeoutError):
            return "no answer in time; see why the server is slow, or raise the backend's `timeout`"
        if isinstance(error, (ConnectionError, http.client.IncompleteRead)):
            return "the connection was lost; tried again"
        if isinstance(error, OSError) and error.strerror:
            return f"{error.strerror}; see that the server can be reached"
        return f"{type(error).__name__}: {printable(error)}"

    # -- the connection

    @property
    def _absolute(self) -> bool:
        """Whether requests name the whole URL: they go to a proxy as they are."""
        return not self._secure and self._proxy() is not None

    def _proxy(self) -> str | None:
        """By HTTP_PROXY, HTTPS_PROXY and NO_PROXY."""
        found = getproxies().get("https" if self._secure else "http")
        return found if found and not proxy_bypass(self._host) else None

    def _ready(self) -> http.client.HTTPConnection:
        connection = self._connection
        if connection is not None and not _is_over(connection):
            return connection
        self.drop()
        connection = self._make()
        with self._lock:
            self._connection = connection
        connection.connect()
        if connection.sock is not None:
            connection.sock.settimeout(self._timeout)
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._aborted:
            raise ConnectionAbortedError
        return connection

    def _make(self) -> http.client.HTTPConnection:
        host, port, limit = self._host, self._port, min(CONNECT_SECONDS, self._timeout)
        proxy, credentials = self._proxy(), dict[str, str]()
        if proxy:
            parts = urlsplit(proxy if "//" in proxy else f"//{proxy}")
            if parts.hostname is None:
                raise ValueError("the proxy in the sidecar's environment is no URL")
            host, port = parts.hostname, parts.port or 8080
            if parts.username is not None:
                both = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
                credentials["Proxy-Authorization"] = f"Basic {b64encode(both.encode()).decode()}"
        if not self._secure:
            self._headers |= credentials
            return http.client.HTTPConnection(host, port, timeout=limit)
        connection = http.client.HTTPSConnection(host, port, timeout=limit, context=self._tls())
        if proxy:
            connection.set_tunnel(self._host, self._port, credentials)
        return connection

    def abort(self) -> None:
        """Let what is under way fail, and all that comes after it."""
        self._aborted = True
        self._cut()

    def _cut(self) -> None:
        """The thread that waits for the connection is told that the other side has closed it."""
        with self._lock:
            sock = self._connection.sock if self._connection is not None else None
        if sock is not None:
            with suppress(OSError, ValueError):
                # That of an SSLSocket would release what the other thread works with.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def drop(self) -> None:
        """Release the connection; the next request makes it anew."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _is_over(connection: http.client.HTTPConnection) -> bool:
    """Whether the server has closed it since, or said what nobody asked for."""
    sock = connection.sock
    if sock is None:
        return True
    readable, _, _ = select.select([sock], [], [], 0)
    return bool(readable)
