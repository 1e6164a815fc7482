"""A real PostgreSQL of the tests' own: in a directory that goes away with it, on a Unix socket there."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from daemon import until

from wafermon.backends.timescaledb import timescaledb
from wafermon.interfaces import BackendContext, configure
from wafermon.model.units import parse_duration

USER = "wafermon"
SETTINGS = {
    "listen_addresses": "''",
    "fsync": "off",  # a killed server loses nothing by that, only a machine that stops
    "max_connections": "40",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "logging_collector": "off",
    "log_min_messages": "warning",
}
EXTENSION = os.environ.get("WAFERMON_TEST_EXTENSION") == "1"
"""Whether databases have the TimescaleDB extension, which the server's programs must have then."""


def binaries() -> Path:
    """Where the server's programs are. Without them the test is skipped; in CI it fails."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("postgres")
    if found or on_path:
        return found[-1].parent if found else Path(str(on_path)).parent
    if os.environ.get("CI"):
        pytest.fail("PostgreSQL is missing: apt-get install postgresql")
    pytest.skip("PostgreSQL is missing: apt-get install postgresql")


class Postgres:
    """One server. `start` it; `remove` ends it and takes its directory away."""

    def __init__(self, directory: Path | None = None, **settings: str) -> None:
        self.binaries = binaries()
        self.directory = directory or Path(tempfile.mkdtemp(prefix="wafermon-pg-"))
        self.data = self.directory / "data"
        self.process: subprocess.Popen[bytes] | None = None
        self._numbers = count(1)
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:  # which PostgreSQL refuses to run as
            user = pwd.getpwnam("postgres")
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            os.chown(self.directory, user.pw_uid, user.pw_gid)
        arguments = ["--auth=trust", f"--username={USER}", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8"]
        self._run("initdb", *arguments, "--no-instructions", str(self.data))
        hba = self.data / "pg_hba.conf"
        hba.write_text(f"local all locked scram-sha-256\n{hba.read_text()}")  # the one user who needs a password
        extension = (
            {"shared_preload_libraries": "timescaledb", "timescaledb.telemetry_level": "off"} if EXTENSION else {}
        )
        self.configure(unix_socket_directories=f"'{self.directory}'", **{**SETTINGS, **extension, **settings})

    def configure(self, **settings: str) -> None:
        """For the next start."""
        with (self.data / "postgresql.conf").open("a") as file:
            file.writelines(f"{key} = {value}\n" for key, value in settings.items())

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self.binaries / program), *arguments], capture_output=True, text=True, cwd=self.directory, **self._as
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> None:
        """Returns when it takes queries."""
        with (self.directory / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(self.binaries / "postgres"), "-D", str(self.data)],
                cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self._as,
            )  # fmt: skip
        until(self._answers, "PostgreSQL answering")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        try:
            self.query("SELECT 1")
        except psycopg2.OperationalError:
            return False
        return True

    def stop(self, immediate: bool = False) -> None:
        """End it: politely to others' connections, or as if it had crashed."""
        if self.process is not None:
            process, self.process = self.process, None
            process.send_signal(signal.SIGQUIT if immediate else signal.SIGINT)
            process.wait(60)

    def restart(self, immediate: bool = False) -> None:
        self.stop(immediate)
        self.start()

    @contextmanager
    def down(self) -> Iterator[None]:
        self.stop()
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """All its processes stand still: it takes connections and never answers."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        stopped = [self.process.pid, *map(int, children)]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)

    def clone(self) -> Postgres:
        """A standby of it, which is not started yet."""
        copy = object.__new__(Postgres)
        copy.binaries, copy._as, copy._numbers, copy.process = self.binaries, self._as, count(1), None
        copy.directory = Path(tempfile.mkdtemp(prefix="wafermon-pg-"))
        copy.data = copy.directory / "data"
        if self._as:
            os.chown(copy.directory, self._as["user"], self._as["group"])
        source = f"host={self.directory} user={USER}"
        copy._run("pg_basebackup", "-d", source, "-D", str(copy.data), "-R", "-c", "fast", "--no-sync")
        copy.configure(unix_socket_directories=f"'{copy.directory}'")
        return copy

    def remove(self) -> None:
        self.stop(immediate=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    def log(self) -> str:
        return (self.directory / "server.log").read_text()

    @property
    def socket(self) -> Path:
        return self.directory / ".s.PGSQL.5432"

    def dsn(self, database: str = "postgres", **parameters: Any) -> str:
        known = {"host": self.directory, "dbname": database, "user": USER, **parameters}
        return " ".join(f"{key}={value}" for key, value in known.items())

    def create(self) -> Database:
        """A database of its own."""
        name = f"test{next(self._numbers)}"
        self.query(f"CREATE DATABASE {name}")
        if EXTENSION:
            self.query("CREATE EXTENSION timescaledb", database=name)
        return Database(self, name)

    def query(self, sql: str, *parameters: Any, database: str = "postgres") -> list[tuple[Any, ...]]:
        connection = psycopg2.connect(
            self.dsn(database), connect_timeout=10, options="-c default_transaction_read_only=off"
        )
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(sql, parameters or None)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()


class Database:
    """One database of a server."""

    def __init__(self, server: Postgres, name: str) -> None:
        self.server = server
        self.name = name

    @property
    def dsn(self) -> str:
        return self.server.dsn(self.name)

    def query(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return self.server.query(sql, *parameters, database=self.name)

    def one(self, sql: str, *parameters: Any) -> Any:
        [(value,)] = self.query(sql, *parameters)
        return value

    def columns(self, sql: str) -> list[str]:
        """The names of a query's columns."""
        with closing(psycopg2.connect(self.dsn)) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return [column.name for column in cursor.description or ()]

    def stored(self) -> list[tuple[str, int]]:
        """(client, seq) of everything, in whatever table; nothing where there are no tables yet."""
        if not self.query("SELECT 1 FROM pg_tables WHERE tablename = 'traces'"):
            return []
        return self.query(" UNION ALL ".join(f"SELECT client, seq FROM {table}" for table in TABLES))

    def drop(self) -> None:
        self.server.query(f"DROP DATABASE IF EXISTS {self.name} WITH (FORCE)")


@contextmanager
def backend(database: Database | str, **options: Any) -> Iterator[Any]:
    """The timescaledb backend, with a directory of its own; closed at the end."""
    from twisted.internet import reactor

    dsn = database if isinstance(database, str) else database.dsn
    with tempfile.TemporaryDirectory() as directory:
        timeout = parse_duration(options.pop("timeout", "60s"))
        context = BackendContext("db", Path(directory), reactor, reactor.getThreadPool(), timeout=timeout)  # type: ignore[attr-defined]
        made = timescaledb.build(configure(timescaledb, {"dsn": dsn, **options}), context)
        try:
            yield made
        finally:
            made.close()


def by_copy() -> None:
    """Skips where rows can't be made for COPY; in CI it fails."""
    from wafermon.backends.timescaledb.loading import AVAILABLE

    if not AVAILABLE:
        need = (
            "wafermon.backends.timescaledb._rows is not built: it needs a C compiler and Python's headers (python3-dev)"
        )
        (pytest.fail if os.environ.get("CI") else pytest.skip)(need)


@pytest.fixture(params=["copy", "statement"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How every batch is stored, whatever its size."""
    from wafermon.backends.timescaledb import backend as module

    if request.param == "copy":
        by_copy()
    monkeypatch.setattr(module, "FEWEST", 1 if request.param == "copy" else 1 << 60)
    return str(request.param)


TABLES = ("events", "metrics", "progress", "resources", "span_starts", "spans", "traces")


@contextmanager
def held(database: Database, sql: str) -> Iterator[None]:
    """Somebody else's transaction, which has done this and does not end."""
    other = psycopg2.connect(database.dsn)
    try:
        with other.cursor() as cursor:
            cursor.execute(sql)
        yield
    finally:
        other.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running server that all tests share. Who stops it starts it again."""
    server = Postgres()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def database(postgres: Postgres) -> Iterator[Database]:
    database = postgres.create()
    yield database
    database.drop()
