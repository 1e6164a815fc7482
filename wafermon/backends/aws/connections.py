"""HTTP connections of AWS's library that another thread can end, so that a close need not wait for a server that hangs."""

from __future__ import annotations

import socket
from contextlib import suppress
from threading import Lock
from typing import Any
from weakref import WeakSet


class Connections:
    """Those of one client. `end` may be called from any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._known: WeakSet[Any] = WeakSet()
        self._ended = False

    def watch(self, client: Any) -> None:
        """Know each connection that a client of botocore makes from now on. The library has no name for that: where it is built in
        another way one day, a close waits for the calls' own time-outs."""
        with suppress(AttributeError):
            session = client._endpoint.http_session
            manager = session._manager
            watched = {scheme: self._watched(pool) for scheme, pool in session._pool_classes_by_scheme.items()}
            session._pool_classes_by_scheme = manager.pool_classes_by_scheme = watched

    def _watched(self, pool: Any) -> Any:
        note, base = self._note, pool.ConnectionCls

        def connect(connection: Any) -> None:
            base.connect(connection)
            note(connection)

        kind = type(base.__name__, (base,), {"connect": connect})
        return type(pool.__name__, (pool,), {"ConnectionCls": kind})

    def _note(self, connection: Any) -> None:
        with self._lock:
            self._known.add(connection)
            if self._ended:
                _end(connection)

    def end(self) -> None:
        """End them all, and those that are still to come."""
        with self._lock:
            self._ended = True
            for connection in list(self._known):
                _end(connection)


def _end(connection: Any) -> None:
    """The thread that waits for it is told that the other side has closed it."""
    sock = getattr(connection, "sock", None)
    if sock is not None:
        with suppress(OSError, ValueError):
            # That of an SSLSocket would release what the other thread works with.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
