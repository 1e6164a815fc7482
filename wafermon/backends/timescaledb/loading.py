"""Batches by COPY, on a second connection that blocks, for a thread of the backend's own.

A batch is one transaction: the statement that moves the cursor, and stores the lines that are not taken as rows; a COPY for
each table; COMMIT. The statement comes first, so that another process that claims the cursor waits for all of it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from math import ceil
from threading import Lock
from typing import Any

import psycopg2

from wafermon.backends.timescaledb.statements import TABLES, store

try:
    from wafermon.backends.timescaledb import _rows
except ImportError:  # it was installed where there is no compiler
    _rows = None  # type: ignore[assignment]

AVAILABLE = _rows is not None
"""Whether lines can be made rows of here."""
PIECE = 1 << 20
"""How many bytes are handed to libpq at a time."""
KEEPALIVE = "SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3"
"""So that the server notices a sidecar whose machine is gone: in the midst of a COPY it has no other time-out."""


@dataclass(frozen=True)
class Shaped:
    """A batch as it is loaded."""

    copies: tuple[tuple[str, bytes, int], ...]
    """A COPY statement, its input, and how many rows that is."""
    rest: bytes
    """The lines that the statement stores."""
    rest_count: int
    jobs: bytes
    """What the rows say of jobs, for the statement: see `store`."""

    @property
    def count(self) -> int:
        """How many messages it is."""
        return self.rest_count + sum(rows for _, _, rows in self.copies)


def shaped(raw: bytes) -> Shaped:
    """Lines, each ended by a newline -> rows, as far as they are plain. Pure; needs `AVAILABLE`."""
    found = _rows.shape(raw)
    rest, rest_count = found.pop("rest")
    jobs, _ = found.pop("jobs")
    copies = ((_copy(kind), data, rows) for kind, (data, rows) in found.items())
    return Shaped(tuple(copies), rest, rest_count, jobs)


def _copy(kind: str) -> str:
    return f"COPY {TABLES[kind].name} ({', '.join(_rows.COLUMNS[kind])}) FROM STDIN (FORMAT binary)"


class Loader:
    """One connection. `connect`, `load` and `close` block, and wait for each other; `cut` does neither."""

    def __init__(self, parameters: Mapping[str, Any], settings: str, timeout: float, connect_seconds: float) -> None:
        """`parameters` are libpq's, for one place; `settings` is SQL that is run at the beginning. The server gives a
        statement up after `timeout` seconds, and the transaction where nothing comes for so long."""
        self._parameters = {**parameters, "connect_timeout": max(ceil(connect_seconds), 2)}
        milliseconds = max(int(timeout * 1000), 1)
        self._settings = f"{settings}; {KEEPALIVE}; SET idle_in_transaction_session_timeout = {milliseconds}"
        self._lock = Lock()
        self._connection: Any = None
        self._socket: socket.socket | None = None
        """The connection's, under a number of its own: it can be shut down while libpq waits for it."""
        self._cut = False

    @property
    def closed(self) -> bool:
        connection = self._connection
        return self._cut or connection is None or bool(connection.closed)

    def connect(self) -> None:
        """Raises psycopg2.Error."""
        try:
            with self._lock:
                self._connection = psycopg2.connect(**self._parameters)
                self._socket = socket.socket(fileno=os.dup(self._connection.fileno()))
                self._connection.autocommit = True
                with self._connection.cursor() as cursor:
                    cursor.execute(self._settings)
        except BaseException:
            self.close()
            raise
        if self._cut:
            self.close()

    def load(self, batch: Shaped, types: Collection[str], move: bytes) -> int:
        """Store it if `move` touches one row; answers with how many it touched. After an error nothing of it is stored,
        unless the connection was lost with the last of it: then nobody knows. Raises psycopg2.Error; the connection is
        closed then, unless the server has refused and can be asked on."""
        try:
            with self._lock:
                return self._load(batch, types, move)
        finally:
            if self._cut:
                self.close()

    def _load(self, batch: Shaped, types: Collection[str], move: bytes) -> int:
        if self._connection is None:
            raise psycopg2.InterfaceError("connection already closed")
        with self._connection.cursor() as cursor:
            try:
                cursor.execute(b"BEGIN;" + store(batch.rest, batch.rest_count, types, move, batch.jobs))
                [moved] = cursor.fetchone()
                if moved != 1:
                    cursor.execute("ROLLBACK")
                    return int(moved)
                for statement, data, _ in batch.copies:
                    cursor.copy_expert(statement, BytesIO(data), PIECE)
                cursor.execute("COMMIT")
                return 1
            except BaseException:
                self._roll_back()
                raise

    def _roll_back(self) -> None:
        """Make the connection as good as before, or close it."""
        try:
            if not self._connection.closed:
                with self._connection.cursor() as cursor:
                    cursor.execute("ROLLBACK")
        except psycopg2.Error:
            self._connection.close()

    def cut(self) -> None:
        """End it at once, from any thread: a `load` that is under way fails, and closes it."""
        self._cut = True
        same = self._socket
        if same is not None:
            with suppress(OSError):
                same.shutdown(socket.SHUT_RDWR)
        if self._lock.acquire(blocking=False):
            self._lock.release()
            self.close()

    def close(self) -> None:
        """After what is under way. It may be called again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            if self._socket is not None:
                self._socket.close()
                self._socket = None
