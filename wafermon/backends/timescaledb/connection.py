"""One connection to PostgreSQL that never blocks the reactor and never hangs.

What txpostgres and libpq leave to us: names are resolved in a thread (libpq would block), each address is tried with a
timer of its own (`connect_timeout` only holds for connections that block), a query that gets no answer is ended by
closing the connection (`cancel()` blocks), and a connection that dies while it is idle is closed without an outcry.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any, cast

import psycopg2
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from txpostgres import txpostgres

from wafermon.backends.timescaledb.failures import Silent, Unsuitable
from wafermon.backends.timescaledb.options import TimescaleOptions

OLDEST = 130000
"""PostgreSQL 13."""
GRACE_SECONDS = 5.0
"""How much longer than the server itself the sidecar waits for a statement to end."""

KEEPALIVE = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 30_000}
"""So that an idle connection whose other end is gone silently is known to be dead within a minute. The dsn wins."""

Rows = list[tuple[Any, ...]]


class Polled(txpostgres._PollingMixin):  # type: ignore[misc]  # it is without types
    """What polls a connection. The reactor never watches the socket while libpq works on it: libpq may close it, and
    the system would give its number to another file, which the reactor would then not watch."""

    def doRead(self) -> None:
        self.reactor.removeWriter(self)
        txpostgres._PollingMixin.doRead(self)

    def doWrite(self) -> None:
        self.reactor.removeReader(self)
        txpostgres._PollingMixin.doWrite(self)

    def continuePolling(self, swallowErrors: bool = False) -> None:
        try:
            super().continuePolling(swallowErrors)
        finally:
            connection = self.pollable()
            if not connection.closed and connection.fileno() < 0:
                connection.close()


class Query(Polled, txpostgres.Cursor):  # type: ignore[misc]
    """A cursor that reports a statement that ran into its timeout as what it is: txpostgres takes it for a cancel."""

    def _handleCancellation(self, failure: Failure) -> Failure:
        return failure


class Wire(Polled, txpostgres.Connection):  # type: ignore[misc]
    """A txpostgres connection whose end, while nothing is asked of it, is no error."""

    cursorFactory = Query

    def doRead(self) -> None:
        """While it is idle, watch on for its end."""
        super().doRead()
        if self._pollingD is None and not self.closed:
            self.reactor.addReader(self)

    def close(self) -> None:
        """Also where a query is under way: the reactor must forget the descriptor before another file gets its number."""
        if self.pollable() is not None:
            for query in self._cursors:
                self.reactor.removeReader(query)
                self.reactor.removeWriter(query)
            super().close()

    def continuePolling(self, swallowErrors: bool = False) -> None:
        try:
            super().continuePolling(swallowErrors)
        except psycopg2.Error:
            self.close()


class Session:
    """An open connection in autocommit mode. One query at a time."""

    def __init__(self, wire: Wire, parameters: Mapping[str, Any], reactor: IReactorTime, timeout: float) -> None:
        self._wire = wire
        self.parameters = parameters
        """libpq's, by which another connection comes to the same server. They may hold the password."""
        self._reactor = reactor
        self._timeout = timeout

    @property
    def closed(self) -> bool:
        return bool(self._wire.closed)

    def close(self) -> None:
        self._wire.close()

    def query(
        self, sql: str | bytes, parameters: tuple[Any, ...] | None = None, seconds: float = 0.0
    ) -> Deferred[Rows]:
        """The rows of the last statement, or none where that has no result. Fails with Silent after the session's
        timeout, or after `seconds`; then, and when it is cancelled, the connection is closed."""
        cursor = self._wire.cursor()
        running = cursor.execute(sql, parameters)
        running.addCallback(lambda done: done.fetchall() if done.description else [])
        return _bounded(self._wire, running, self._reactor, seconds or self._timeout + GRACE_SECONDS)


class Connector:
    """Makes sessions."""

    def __init__(
        self, options: TimescaleOptions, timeout: float, name: str, reactor: IReactorTime, pool: ThreadPool
    ) -> None:
        """After `timeout` seconds a statement without an answer is given up, by the server and by the sidecar."""
        self._options = options
        self._timeout = timeout
        self._name = name
        self._reactor = reactor
        self._pool = pool

    async def connect(self) -> Session:
        """The first of the DSN's servers that can be written to. Fails with the error of the last one."""
        error: Exception = Unsuitable("the dsn names no server")
        for place in self._places():
            try:
                for address in await self._addresses(place):
                    try:
                        return await self._connect({**place, "hostaddr": address})
                    except (psycopg2.Error, Silent, Unsuitable) as failed:
                        error = failed
            except Unsuitable as failed:
                error = failed
        raise error

    @property
    def settings(self) -> str:
        """SQL for the beginning of a connection, this or another one of the backend's."""
        milliseconds = max(int(self._timeout * 1000), 1)
        return (
            f"SET statement_timeout = {milliseconds}; SET lock_timeout = {max(milliseconds * 4 // 5, 1)}; SET timezone = 'UTC';"
            f"SET search_path = {self._options.schema_name}, public; SET client_min_messages = warning; SET jit = off;"
            # A batch that fails is megabytes of other people's messages: not for the server's log, where we may say so.
            "SELECT set_config('log_min_error_statement', 'panic', false) FROM pg_roles WHERE rolname = current_user AND rolsuper"
        )

    def _places(self) -> Iterator[dict[str, str]]:
        """Each of the DSN's servers: libpq's parameters that say where it is."""
        hosts, addresses, ports = (
            self._options.parameters.get(key, "").split(",") for key in ("host", "hostaddr", "port")
        )
        for host, address, port in zip_longest(hosts, addresses, ports, fillvalue=""):
            yield {"host": host, "hostaddr": address, "port": port or ports[0]}

    async def _addresses(self, place: dict[str, str]) -> list[str]:
        """Where to try, one after the other; empty text for what libpq knows without asking anybody."""
        host = place["host"]
        if place["hostaddr"] or not host or host.startswith(("/", "@")):
            return [place["hostaddr"]]
        return await self._resolve(host)

    async def _resolve(self, host: str) -> list[str]:
        reactor = cast(IReactorFromThreads, self._reactor)
        try:
            found = await deferToThreadPool(
                reactor, self._pool, socket.getaddrinfo, host, None, type=socket.SOCK_STREAM
            )
        except OSError as error:
            raise Unsuitable(f"{host} can't be resolved: {error.strerror}") from None
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    async def _connect(self, place: dict[str, str]) -> Session:
        options = self._options
        parameters: dict[str, Any] = {
            **KEEPALIVE, **options.parameters, **place, "client_encoding": "UTF8", "target_session_attrs": "any",
            "fallback_application_name": f"wafermon {self._name}",
        }  # fmt: skip
        parameters = {key: value for key, value in parameters.items() if value != ""}
        if options.password_file is not None:
            reactor = cast(IReactorFromThreads, self._reactor)
            try:
                read = deferToThreadPool(reactor, self._pool, options.password_file.read_text)
                parameters["password"] = (await read).rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                raise Unsuitable(f"password_file: {error}") from None
        wire = Wire(self._reactor)
        session = Session(wire, parameters, self._reactor, self._timeout)
        try:
            await _bounded(wire, wire.connect(**parameters), self._reactor, options.connect_seconds)
            await self._greet(session)
        except BaseException:
            session.close()
            raise
        return session

    async def _greet(self, session: Session) -> None:
        """Settings, and whether the server is one to write to."""
        [(version, encoding, standby, read_only)] = await session.query(
            f"{self.settings};"
            "SELECT current_setting('server_version_num')::int, current_setting('server_encoding'),"
            " pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'",
            seconds=self._options.connect_seconds,
        )
        if version < OLDEST:
            raise Unsuitable(f"PostgreSQL {version // 10000} is too old; 13 or later is needed")
        if encoding != "UTF8":
            raise Unsuitable(f"the database's encoding is {encoding}; create it with ENCODING 'UTF8'")
        if standby or read_only:
            why = "a standby" if standby else "set so"
            raise Unsuitable(f"the server is read-only ({why}); the dsn may name several hosts")


def _bounded(wire: Wire, running: Deferred[Any], reactor: IReactorTime, seconds: float) -> Deferred[Any]:
    """What `running` comes to; at a cancel, or after so many seconds, the wire is closed."""
    given_up = False

    def give_up(_: object) -> None:
        nonlocal given_up
        given_up = True
        if timer.active():
            timer.cancel()
        wire.close()

    def expire() -> None:
        give_up(None)
        done.errback(Silent(f"no answer for {seconds:g} s"))

    def settle(result: object) -> None:
        if not given_up:
            timer.cancel()
            done.callback(result)

    done: Deferred[Any] = Deferred(give_up)
    timer = reactor.callLater(seconds, expire)
    running.addBoth(settle)
    return done
