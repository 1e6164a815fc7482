"""The sending side of the protocol over plain blocking sockets: one stream of numbered lines, kept until acknowledged.

It reconnects by itself and sends again what is unacknowledged. Memory holds the window, which is bounded by bytes.
"""

from __future__ import annotations

import json
import random
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from wafermon import __version__
from wafermon.cli.address import Address, parse

WINDOW_BYTES = 4 << 20
"""What may be sent and unacknowledged."""
SILENCE = 5.0
"""Seconds without a byte after which a connection that owes an answer is dead."""
FIRST_SECONDS = 2.0
"""How long a sidecar that was never there is tried: it may just be starting."""
PROBE_SECONDS = 1.0
BLOCK_BYTES = 1 << 16
"""Lines are best handed over in blocks of about this size."""
PORTS = {"tcp": 7411, "tls": 7413}
_REPLY_BYTES = 1 << 20
_TEMPORARY = frozenset({"rate_limited", "too_many_connections"})


def parse_url(url: str) -> Address:
    """``tcp://host:port``, ``tls://host:port`` or ``unix:///path``. Raises ValueError."""
    return parse(url, PORTS, "sidecar's address; expected tcp://HOST:PORT, tls://HOST:PORT or unix:///PATH")


IS_IT_THERE = "Is it running there (`twistd wafermon`), and is --url or WAFERMON_URL right?"


def cant_be_reached(address: Address, why: str) -> str:
    """The beginning of what is said where no sidecar is."""
    return f"the sidecar at {address} can't be reached: {why}"


def nobody_there(address: Address) -> str:
    """Why nothing can be listening at an address; empty where something is, or where that does not show at once."""
    try:
        if address.scheme == "unix":
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(PROBE_SECONDS)
                probe.connect(address.host)
        else:
            socket.create_connection((address.host, address.port), timeout=PROBE_SECONDS).close()
    except TimeoutError:
        return ""
    except OSError as error:
        return error.strerror or str(error)
    return ""


class Undelivered(Exception):
    """The sidecar can't be reached, refuses this client, or did not acknowledge in time. Says what to do."""


class Stream:
    """One client's stream. `acked` is the highest seq that the sidecar holds durably.

    `on_refused(seq, code, detail)` is called for each line that it can't accept; such a line is settled.
    `on_acked(seq)` is called whenever `acked` has moved.
    """

    def __init__(
        self, address: Address, client: str, *, token: str | None = None, patience: float = 30.0,
        on_refused: Callable[[int, str, str], None] | None = None, on_acked: Callable[[int], None] | None = None,
        window_bytes: int = WINDOW_BYTES, first: float = FIRST_SECONDS, **hello: Any,
    ) -> None:  # fmt: skip
        """`patience` is how many seconds may pass without anything being acknowledged while the connection is lost;
        `first` is how long one that was never there is tried; `hello` holds what else it says: service, host, pid."""
        self.address = address
        self.acked = 0
        self.max_line = BLOCK_BYTES
        self._features: frozenset[str] = frozenset()
        self._client = client
        self._hello = {
            "v": 2,
            "type": "hello",
            "client": client,
            **hello,
            "sdk": f"wafermon/{__version__}",
            "ack": True,
        }
        if token:
            self._hello["token"] = token
        self._patience = patience
        self._first = first
        self._window_max = window_bytes
        self._on_refused = on_refused
        self._on_acked = on_acked
        self._socket: socket.socket | None = None
        self._waits: tuple[type[OSError], ...] = (BlockingIOError,)
        self._window: deque[tuple[int, bytes]] = deque()
        self._window_bytes = 0
        self._out: deque[memoryview] = deque()
        self._received = b""
        self._welcomed = False
        self._heard = 0.0
        self._trouble = ""

    # -- for callers

    def __enter__(self) -> Stream:
        self.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(politely=kind is None)

    def open(self) -> None:
        """Returns once welcomed. Raises Undelivered."""
        self._reconnect(time.monotonic() + min(self._first, self._patience))

    def send(self, seq: int, block: bytes) -> None:
        """Hand over whole lines, of which `seq` is the last one's; waits while the window is full. Raises Undelivered."""
        if seq <= self.acked:
            return
        while self._window and self._window_bytes + len(block) > self._window_max:
            self._advance()
        self._window.append((seq, block))
        if self._window_bytes == 0:
            self._heard = time.monotonic()
        self._window_bytes += len(block)
        self._out.append(memoryview(block))
        self._guarded(self._write)

    def said_all(self, called: int, last: int, service: str) -> bytes:
        """The line, numbered after `last`, that says that `called` messages up to there are all of this stream; nothing where the sidecar
        does not know such lines."""
        if "stats" not in self._features:
            return b""
        said: dict[str, Any] = {"v": 2, "type": "stats", "service": service, "client": self._client, "seq": last + 1}
        said |= {"called": called, "dropped": 0, "unsent": 0, "last": last, "streams": [], "final": True}
        return json.dumps(said, separators=(",", ":")).encode() + b"\n"

    def drain(self) -> None:
        """Returns once everything is acknowledged. Raises Undelivered."""
        while self._window:
            self._advance()

    def close(self, *, politely: bool = True) -> None:
        """End the sending side and read to the end: unread acks would make the kernel reset the connection."""
        sock, self._socket = self._socket, None
        if sock is None:
            return
        with sock, suppress(OSError):
            if politely:
                sock.settimeout(0.5)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(BLOCK_BYTES):
                    pass

    # -- one step

    def _advance(self) -> None:
        """Wait for something to happen, and lose a connection that is dead."""
        self._guarded(self._step)

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._trouble = str(error) or type(error).__name__
            self._reconnect(time.monotonic() + self._patience)

    def _step(self) -> None:
        self._write()
        if not self._read():
            self._wait()
            self._read()  # before judging: it may be us who were away
        if time.monotonic() - self._heard > SILENCE:
            raise ConnectionError(f"no answer for {SILENCE:g} s")

    def _wait(self) -> None:
        assert self._socket is not None
        poll = select.poll()
        poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._out else 0))
        poll.poll(500)

    def _write(self) -> None:
        assert self._socket is not None
        with suppress(*self._waits):
            while self._out:
                sent = self._socket.send(self._out[0])
                rest = self._out[0][sent:]
                if rest:
                    self._out[0] = rest
                else:
                    self._out.popleft()

    def _read(self) -> bool:
        assert self._socket is not None
        try:
            data = self._socket.recv(BLOCK_BYTES)
        except self._waits:
            return False
        if not data:
            raise ConnectionError("it closed the connection")
        self._heard = time.monotonic()
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            self._answer(json.loads(line))
        if len(self._received) > _REPLY_BYTES:
            raise ConnectionError("it does not speak this protocol")
        return True

    def _answer(self, reply: dict[str, Any]) -> None:
        kind = reply.get("type")
        if kind == "welcome":
            self._welcomed = True
            self.max_line = int(reply.get("max_line", self.max_line))
            self._features = frozenset(reply.get("features", ()))
            self._settle(int(reply["acked"]))
        elif kind == "ack":
            self._settle(int(reply["seq"]))
        elif kind == "error":
            code, detail, seq = str(reply.get("code")), str(reply.get("detail", "")), reply.get("seq")
            if isinstance(seq, int):
                if self._on_refused:
                    self._on_refused(seq, code, detail)
            elif not self._welcomed and code not in _TEMPORARY:
                raise Undelivered(f"the sidecar at {self.address} refuses this client: {code}: {detail}")
            else:
                raise ConnectionError(f"{code}: {detail}")

    def _settle(self, seq: int) -> None:
        if seq <= self.acked:
            return
        self.acked = seq
        while self._window and self._window[0][0] <= seq:
            self._window_bytes -= len(self._window.popleft()[1])
        if self._on_acked:
            self._on_acked(seq)

    # -- connections

    def _reconnect(self, deadline: float) -> None:
        """Try until welcomed; what is unacknowledged is then on its way again."""
        attempt = 0
        while True:
            self.close(politely=False)
            self._received, self._welcomed = b"", False
            self._out.clear()
            try:
                self._connect()
                self._out.append(memoryview(json.dumps(self._hello, separators=(",", ":")).encode() + b"\n"))
                while not self._welcomed:
                    self._step()
            except (OSError, ValueError, KeyError, TypeError) as error:
                self._trouble = getattr(error, "strerror", None) or str(error) or type(error).__name__
                pause = random.uniform(0.05, min(2.0, 0.1 * 2**attempt))
                if time.monotonic() + pause > deadline:
                    raise Undelivered(f"{cant_be_reached(self.address, self._trouble)}. {IS_IT_THERE}") from None
                time.sleep(pause)
                attempt += 1
                continue
            self._out.extend(memoryview(block) for _, block in self._window)
            return

    def _connect(self) -> None:
        scheme, host, port = self.address
        if scheme == "unix":
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(SILENCE)
            self._socket.connect(host)
        else:
            self._socket = socket.create_connection((host, port), timeout=SILENCE)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if scheme == "tls":
            import ssl  # costs more than all the rest

            self._waits = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
            self._socket = ssl.create_default_context().wrap_socket(self._socket, server_hostname=host)
        self._socket.setblocking(False)
        self._heard = time.monotonic()
