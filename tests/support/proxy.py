"""A TCP proxy before a server that cuts, holds and counts what passes; its own thread, its own port."""

from __future__ import annotations

import contextlib
import random
import selectors
import socket
import threading
from collections.abc import Callable
from pathlib import Path

CHUNK = 1 << 16
PIECE = 7
"""Bytes that trickle together."""


class Pair:
    """One connection through the proxy."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.up = 0
        """Bytes that the client has sent."""
        self.down = 0

    def close(self) -> None:
        self.client.close()
        self.server.close()


class Proxy:
    """Use it as a context manager. `rule` sees each chunk before it passes: what it answers says what becomes of it."""

    def __init__(self, target: Path | tuple[str, int]) -> None:
        """`target` is the server's socket, or its address and port."""
        self.target = target
        self.rule: Callable[[Pair, bytes, bool], str] = lambda pair, chunk, from_client: "pass"
        """(connection, chunk, whether the client sent it) -> ``pass``, ``trickle`` (a few bytes at a time), ``cut``,
        ``pass and cut`` or ``drop``. It may sleep, which holds everything up."""
        self.lingers = False
        """Whether the server's side of a connection stays open once the client has closed its own, as behind a load balancer."""
        self.left = 0
        """How many connections their clients have closed."""
        self.cuts = 0
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(10)
        self._listener.close()
        self._selector.close()

    def _run(self) -> None:
        pairs: set[Pair] = set()
        while not self._over.is_set():
            for key, _ in self._selector.select(0.05):
                if key.fileobj is self._listener:
                    self._accept(pairs)
                elif key.data[0] in pairs:
                    self._pass(pairs, *key.data)
        for pair in pairs:
            pair.close()

    def _accept(self, pairs: set[Pair]) -> None:
        client, _ = self._listener.accept()
        self.connections += 1
        address = str(self.target) if isinstance(self.target, Path) else self.target
        server = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        try:
            server.connect(address)
        except OSError:
            client.close()
            server.close()
            return
        pair = Pair(client, server)
        pairs.add(pair)
        self._selector.register(client, selectors.EVENT_READ, (pair, True))
        self._selector.register(server, selectors.EVENT_READ, (pair, False))

    def _pass(self, pairs: set[Pair], pair: Pair, from_client: bool) -> None:
        source, sink = (pair.client, pair.server) if from_client else (pair.server, pair.client)
        try:
            chunk = source.recv(CHUNK)
        except OSError:
            chunk = b""
        if from_client:
            pair.up += len(chunk)
        else:
            pair.down += len(chunk)
        self.left += from_client and not chunk
        if self.lingers and from_client and not chunk:
            self._selector.unregister(pair.client)
            pair.client.close()
            return
        what = self.rule(pair, chunk, from_client) if chunk else "cut"
        if "pass" in what:
            with contextlib.suppress(OSError):
                sink.sendall(chunk)
        if what == "trickle":
            with contextlib.suppress(OSError):
                sink.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1) if sink.family != socket.AF_UNIX else None
                for at in range(0, len(chunk), PIECE):
                    sink.sendall(chunk[at : at + PIECE])
        if "cut" in what:
            if chunk:
                self.cuts += 1
            pairs.discard(pair)
            for side in (pair.client, pair.server):
                with contextlib.suppress(KeyError, ValueError):  # the client's, where the server's lingered
                    self._selector.unregister(side)
            pair.close()


def at_random(chance: float, seed: int) -> Callable[[Pair, bytes, bool], str]:
    """Cuts in either direction, before a chunk or after it: so also between a commit and its reply."""
    dice = random.Random(seed)

    def rule(pair: Pair, chunk: bytes, from_client: bool) -> str:
        return dice.choice(["cut", "pass and cut"]) if dice.random() < chance else "pass"

    return rule
