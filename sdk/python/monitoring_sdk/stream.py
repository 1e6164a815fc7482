"""One client's messages on their way over a connection."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any, Callable, Iterable, Protocol

from .encoding import numbered
from .peer import Peer
from .spill import FILE_MAX, SpillFile

NEVER = float("inf")
# Seconds without a byte after which a connection that owes us a welcome or acks is dead.
_SILENCE = 5.0


def in_thread(name: str, target: Callable[[], None]) -> threading.Thread | None:
    """Run it in a thread; None when none can be started, since the interpreter is on its way out."""
    thread = threading.Thread(target=target, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return None
    return thread


class Owner(Protocol):
    """What a stream needs of the sender that it belongs to."""

    peer: Peer
    lock: threading.RLock
    counts: dict[str, int]
    over: bool

    def wake(self) -> None: ...


class Stream:
    """One client's messages on their way: numbered, sent, and kept until they are acknowledged.

    The sender calls it under its lock. A stats line is one of them that counts nowhere.
    """

    def __init__(self, sender: Owner, client: str, file: SpillFile | None = None) -> None:
        self._sender = sender
        self.client = client
        self.file = file
        self.up = False  # from the welcome on
        self.offered: tuple[str, ...] = ()  # what the last welcome said may be sent
        self.sock: socket.socket | None = None
        self.dialing: socket.socket | None = None
        self.welcomes = self.failures = self.seq = self.kept = self.window_bytes = 0
        self.retry_at = self._heard = 0.0
        self._highest_sent = 0
        self._framed = False
        self.window: deque[tuple[int, bytes, int]] = deque()  # seq, line, and the calls it stands for: 1 or 0
        # What has come in part; what waits to be framed or not; what the socket gets next.
        self._received = b""
        self._lines = bytearray()
        self._out = bytearray()
        if file:
            for line in os.pread(file.fd, file.size, 0).splitlines(keepends=True):
                self._keep(line, 1)

    def number(self, body: bytes, count: int = 1) -> None:
        """Give the message its seq, for ever, and keep it until that is acknowledged."""
        self._keep(numbered(body, self.client, self.seq + 1), count)

    def _keep(self, line: bytes, count: int) -> None:
        if not self.window:
            self._heard = time.monotonic()
        self.seq += 1
        self.kept += count
        self.window.append((self.seq, line, count))
        self.window_bytes += len(line)
        if self.up:
            self._send([self.window[-1]])

    def _send(self, messages: Iterable[tuple[int, bytes, int]]) -> None:
        for seq, line, count in messages:
            self._sender.counts["sent" if seq > self._highest_sent else "resent"] += count
            self._highest_sent = max(seq, self._highest_sent)
            self._lines += line

    def connect(self, now: float) -> None:
        """Begin a connection, if there is none and the last failure is long enough ago."""
        if not self.sock and now >= self.retry_at:
            self.retry_at = NEVER
            if not in_thread("wafermon-dialer", self._dial):
                self._dial()

    def _dial(self) -> None:
        """Look the host up, try each of its addresses, and agree on TLS: a thread of its own may take its time."""
        sender = self._sender
        sock = None
        try:
            for family, address in sender.peer.addresses():
                sock = self._reached(family, address)
                if sock:
                    break
        except OSError:
            sock = None  # no such host
        with sender.lock:
            self.sock, self.dialing = sock, None
            self._heard = time.monotonic()
            self._out = bytearray(sender.peer.hello(self.client))
            if not sock or sender.over:
                self.lose()
        sender.wake()

    def _reached(self, family: int, address: Any) -> socket.socket | None:
        """A connection to one address, or None. What it has in hand lies in `dialing`, for a child to close."""
        sender = self._sender
        peer = sender.peer
        try:
            with sender.lock:
                sock = self.dialing = socket.socket(family, socket.SOCK_STREAM)
            sock.settimeout(_SILENCE)
            sock.connect(address)
            if family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if peer.ssl:
                host = peer.address[1]
                with sender.lock:
                    sock = self.dialing = peer.ssl.wrap_socket(
                        sock, server_hostname=host, do_handshake_on_connect=False
                    )
                sock.do_handshake()
            sock.setblocking(False)
            return sock
        except OSError:
            if self.dialing:
                self.dialing.close()
            return None

    def lose(self) -> None:
        """Close the connection at once; what is unacknowledged stays for the next one."""
        if self.sock:
            self.sock.close()
        self.forget()
        jitter = int.from_bytes(os.urandom(4), "big") / (1 << 32)
        self.retry_at = time.monotonic() + min(30.0, 0.1 * 2 ** min(self.failures, 10)) * jitter
        self.failures += 1

    def forget(self) -> None:
        """Be without a connection; the holder of the socket closes it."""
        self.sock = None
        self.up = False
        self._received = b""
        self._lines = bytearray()
        self._out = bytearray()

    def pump(self, now: float) -> None:
        """Read what has come, write what the socket takes, and only then judge the connection."""
        sock = self.sock
        if not sock:
            return
        alive = True
        try:
            with suppress(*self._sender.peer.would_block):
                while data := sock.recv(65_536):
                    self._received += data
                    self._heard = now
                alive = False
            *replies, self._received = self._received.split(b"\n")
            for reply in replies:
                self._answer(json.loads(reply))
            with suppress(*self._sender.peer.would_block):
                while alive and (self._out or self._pack()):
                    del self._out[: sock.send(self._out)]
            silent = now - self._heard > _SILENCE and (self.window or not self.up)
            if alive and not silent and len(self._received) < FILE_MAX:
                return
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            pass  # it has broken, or speaks another protocol
        self.lose()

    def _pack(self) -> bool:
        """Give the socket what waits: a frame of it where that is granted and worth it. Whether there was something."""
        frames = self._sender.peer.frames if self._framed else None
        self._out += frames.pack(self._lines) if frames else b""
        if not self._out:
            self._out, self._lines = self._lines, self._out
        return bool(self._out)

    def _answer(self, reply: dict[str, Any]) -> None:
        kind, seq = reply.get("type"), reply.get("seq")
        if kind == "ack":
            self._settle(reply["seq"])
        elif kind == "welcome" and not self.up and reply.get("v", 2) == 2:
            self.up = True
            self.failures = 0
            self.welcomes += 1
            self.offered = tuple(reply.get("features") or ())
            self._framed = reply.get("compress") == "zlib"
            self._settle(reply["acked"])
            self._send(self.window)
        elif kind == "error" and seq is None:
            self._sender.peer.refuses(reply)
        elif kind == "error":
            for message in [message for message in self.window if message[0] == seq]:
                self.window.remove(message)
                self._settled(message, "rejected")

    def _settle(self, acked: int) -> None:
        while self.window and self.window[0][0] <= acked:
            self._settled(self.window.popleft(), "acked")

    def _settled(self, message: tuple[int, bytes, int], how: str) -> None:
        _, line, count = message
        self.window_bytes -= len(line)
        self.kept -= count
        self._sender.counts[how] += count


def farewell(sock: socket.socket, deadline: float) -> None:
    """Shut down our side, read to the end and close: an unread reply would reset the connection."""
    with sock, suppress(OSError):
        sock.settimeout(max(0.001, min(0.5, deadline - time.monotonic())))
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65_536) and time.monotonic() < deadline:
            pass
