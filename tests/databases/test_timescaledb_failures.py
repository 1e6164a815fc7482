"""A server that fails, in each way that servers do: the backend says what is wrong, waits, and goes on by itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from postgres import Database, Postgres, backend, held
from proxy import Pair, Proxy
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import LoopingCall, deferLater

from wafermon.backends.timescaledb import connection
from wafermon.backends.timescaledb.failures import failure_of
from wafermon.backends.timescaledb.schema import migrations
from wafermon.contract import JOURNAL, batch, line
from wafermon.interfaces import Batch, Position
from wafermon.model.errors import PermanentError, PositionMoved, RetryableError

START = Position(JOURNAL, 1, 0)
pytestmark = pytest.mark.usefixtures("way")


def some(first: int, last: int, start: Position = START) -> Batch:
    return batch(start, map(line, range(first, last + 1)))


def seqs(database: Database) -> list[int]:
    return sorted(seq for _, seq in database.stored())


async def fails(running: Deferred[Any], *words: str) -> str:
    """It fails so that it will be tried again, and says these words."""
    try:
        await running
    except RetryableError as error:
        assert all(word in str(error) for word in words), str(error)
        assert "\n" not in str(error)
        return str(error)
    raise AssertionError("it did not fail")


class Ticker:
    """How long the reactor stood still at most, in seconds."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._last = time.monotonic()
        self._call = LoopingCall(self._tick)
        self._call.start(0.01)

    def _tick(self) -> None:
        now = time.monotonic()
        self.longest = max(self.longest, now - self._last)
        self._last = now

    def stop(self) -> float:
        self._call.stop()
        return self.longest


@pytest.fixture
def plain(database: Database) -> str:
    """The DSN of a user who is no superuser, and may do nothing yet."""
    if not database.query("SELECT 1 FROM pg_roles WHERE rolname = 'plain'"):
        database.query("CREATE ROLE plain LOGIN")
    return database.server.dsn(database.name, user="plain")


@ensureDeferred
async def test_down_at_the_start(database: Database) -> None:
    with backend(database) as writer:
        with database.server.down():
            one = await fails(writer.open(), "see that the server runs")
            assert await fails(writer.open()) == one, "the same trouble is told in the same words, and logged once"
            assert writer.health().detail == one
        assert await writer.open() is None
        await writer.write(some(1, 10))
    assert seqs(database) == [*range(1, 11)]


@ensureDeferred
@pytest.mark.parametrize("immediate", [False, True])
async def test_a_restart_between_two_batches_costs_no_try(database: Database, immediate: bool) -> None:
    """The end of an idle connection is noticed when it comes."""
    with backend(database) as writer:
        await writer.open()
        first = some(1, 10)
        await writer.write(first)
        database.server.restart(immediate)
        await deferLater(reactor, 0.05)
        await writer.write(some(11, 20, first.end))
        assert writer.health().figures["connects"] == 2
    assert seqs(database) == [*range(1, 21)]


@ensureDeferred
async def test_a_connection_that_an_administrator_ends(database: Database, way: str) -> None:
    with backend(database) as writer:
        await writer.open()
        with locked(database):
            writing = writer.write(some(1, 10))
            await until_waiting(database)
            database.query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'wafermon db'"
            )
            await fails(writing, "terminating connection" if way == "statement" else "connection")
    assert seqs(database) == []


def locked(database: Database) -> AbstractContextManager[None]:
    return held(database, "LOCK TABLE events")


async def until_waiting(database: Database) -> None:
    """Until a statement waits for a lock."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    for _ in range(500):
        await deferLater(reactor, 0.01)
        if database.one(waiting):
            return
    raise AssertionError("nothing waits for a lock")


@ensureDeferred
async def test_a_read_only_server(database: Database) -> None:
    server = database.server
    with backend(database) as writer:
        await writer.open()
        server.query("ALTER SYSTEM SET default_transaction_read_only = on")
        server.query("SELECT pg_reload_conf()")
        try:
            await deferLater(reactor, 0.2)
            await fails(writer.write(some(1, 10)), "25006", "read-only")
            await fails(writer.write(some(1, 10)), "the server is read-only")
        finally:
            server.query("ALTER SYSTEM RESET default_transaction_read_only")
            server.query("SELECT pg_reload_conf()")
        await deferLater(reactor, 0.2)
        await writer.write(some(1, 10))
    assert seqs(database) == [*range(1, 11)]


@ensureDeferred
async def test_a_standby_takes_over(tmp_path: Path) -> None:
    """A primary with a synchronous standby: the primary crashes, the standby is promoted. The dsn names both."""
    with ExitStack() as stack:
        primary = Postgres(wal_level="replica", max_wal_senders="4", hot_standby="on")
        stack.callback(primary.remove)
        primary.start()
        standby = primary.clone()
        stack.callback(standby.remove)
        standby.start()
        primary.query("ALTER SYSTEM SET synchronous_standby_names = '*'")
        primary.query("SELECT pg_reload_conf()")
        dsn = f"host={standby.directory},{primary.directory} dbname=postgres user=wafermon"
        with backend(dsn) as writer:
            assert await writer.open() is None  # the standby is passed over
            first, second = some(1, 10), None
            await writer.write(first)
            primary.stop(immediate=True)
            second = some(11, 20, first.end)
            await fails(writer.write(second))
            standby.query("SELECT pg_promote()")
            for _ in range(100):
                try:
                    await writer.write(second)
                    break
                except RetryableError:
                    await deferLater(reactor, 0.05)
        assert seqs(Database(standby, "postgres")) == [*range(1, 21)]


@ensureDeferred
async def test_a_server_that_forgot_what_it_had(database: Database) -> None:
    """As after a failover to a standby that lagged: it says so, and gets again what is gone."""
    with backend(database) as writer:
        await writer.open()
        first = some(1, 10)
        await writer.write(first)
        before = database.query("SELECT position FROM deliveries")
        second = some(11, 20, first.end)
        await writer.write(second)
        database.query("DELETE FROM events WHERE seq > 10")
        database.query("UPDATE deliveries SET position = %s", *before[0])
        with database.server.down():
            pass
        await deferLater(reactor, 0.05)
        third = some(21, 30, second.end)
        with pytest.raises(PositionMoved, match="has forgotten what it had stored between"):
            await writer.write(third)
        assert await writer.open() == first.end
        await writer.write(second)
        await writer.write(third)
    assert seqs(database) == [*range(1, 31)]


@ensureDeferred
async def test_a_silent_server(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes what it is sent and never answers; then it does after all, and what it was sent is stored."""
    monkeypatch.setattr(connection, "GRACE_SECONDS", 0.8)
    dsn = f"{database.dsn} connect_timeout=1"
    with backend(dsn, timeout="200ms") as writer:
        await writer.open()
        first = some(1, 2000)
        ticker = Ticker()
        with database.server.frozen():
            await fails(writer.write(first), "no answer for 1 s")
            await fails(writer.write(first), "no answer for 1 s")
            await fails(writer.open(), "no answer for 1 s")
            assert writer.health().detail
        assert ticker.stop() < 0.5
        assert await writer.open() in (None, first.end)
        await writer.write(first)
    assert seqs(database) == [*range(1, 2001)]


@ensureDeferred
async def test_a_cancelled_write_lets_go(database: Database) -> None:
    with backend(database) as writer:
        await writer.open()
        ticker = Ticker()
        with database.server.frozen():
            writing = writer.write(some(1, 10))
            await deferLater(reactor, 0.05)
            writing.addErrback(lambda _: None)
            writing.cancel()
            await writing
            await writer.close()
        assert ticker.stop() < 0.5


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A tmpfs that the server may write to."""
    with ExitStack() as stack:
        directory = Path(subprocess.check_output(["mktemp", "-d", "/tmp/wafermon-small-XXXXXX"], text=True).strip())
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(directory)], check=False).returncode:
            if os.environ.get("CI"):
                pytest.fail("mounting a tmpfs needs root")
            pytest.skip("mounting a tmpfs needs root")
        stack.callback(subprocess.run, ["umount", "-l", str(directory)], check=True)
        shutil.chown(directory, "postgres", "postgres")
        yield directory


@ensureDeferred
async def test_a_full_disk(postgres: Postgres, small_disk: Path) -> None:
    postgres.query(f"CREATE TABLESPACE small LOCATION '{small_disk}'")
    postgres.query("CREATE DATABASE small TABLESPACE small")
    database = Database(postgres, "small")
    ballast = small_disk / "ballast"
    try:
        with backend(database) as writer:
            await writer.open()
            first = some(1, 100)
            await writer.write(first)
            ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free))
            second = some(101, 5100, first.end)
            await fails(writer.write(second), "53100", "disk is full")
            await fails(writer.write(second), "53100")
            ballast.unlink()
            await writer.write(second)
            assert writer.health().figures["connects"] == 1
        assert seqs(database) == [*range(1, 5101)]
    finally:
        ballast.unlink(missing_ok=True)
        database.drop()
        postgres.query("DROP TABLESPACE small")


@ensureDeferred
async def test_too_many_connections(database: Database, plain: str) -> None:
    database.query("GRANT CREATE ON SCHEMA public TO plain")
    with ExitStack() as stack, backend(plain) as writer:
        while True:
            try:
                stack.callback(psycopg2.connect(plain).close)
            except psycopg2.OperationalError:
                break
        await fails(writer.open(), "raise max_connections")
        stack.pop_all().close()
        assert await writer.open() is None
        database.query(f"ALTER DATABASE {database.name} CONNECTION LIMIT 0")
        writer._session.close()
        await fails(writer.write(some(1, 10)), "too many connections", "raise the limit")
        database.query(f"ALTER DATABASE {database.name} CONNECTION LIMIT -1")
        await writer.write(some(1, 10))


@ensureDeferred
async def test_a_wrong_password(database: Database, tmp_path: Path) -> None:
    if not database.query("SELECT 1 FROM pg_roles WHERE rolname = 'locked'"):
        database.query("CREATE ROLE locked LOGIN SUPERUSER PASSWORD 'right'")
    dsn = database.server.dsn(database.name, user="locked")
    file = tmp_path / "password"
    with backend(dsn) as writer:
        await fails(writer.open(), "give a password")
    with backend(dsn, password_file=str(file)) as writer:
        await fails(writer.open(), "password_file: ", "No such file")
        file.write_text("wrong\n")
        await fails(writer.open(), "password authentication failed", "correct the password")
        file.write_text("right\n")
        assert await writer.open() is None
    passfile = tmp_path / "pgpass"
    passfile.write_text("*:*:*:locked:right\n")
    passfile.chmod(0o600)
    with backend(dsn, passfile=str(passfile)) as writer:
        assert await writer.open() is None


@ensureDeferred
async def test_a_missing_database(postgres: Postgres) -> None:
    database = Database(postgres, "later")
    with backend(database) as writer:
        await fails(writer.open(), "does not exist", "create the database")
        postgres.query("CREATE DATABASE later")
        try:
            assert await writer.open() is None
        finally:
            await writer.close()
            database.drop()


@ensureDeferred
async def test_missing_rights(database: Database, plain: str) -> None:
    with backend(plain) as writer:
        await fails(writer.open(), "42501", "grant the user")
        database.query("GRANT CREATE ON SCHEMA public TO plain")
        assert await writer.open() is None
        database.query("REVOKE INSERT ON events FROM plain")
        await fails(writer.write(some(1, 10)), "42501", "events")
        database.query("GRANT INSERT ON events TO plain")
        await writer.write(some(1, 10))
    assert seqs(database) == [*range(1, 11)]


@ensureDeferred
async def test_a_user_who_may_only_fill_the_tables(database: Database, plain: str) -> None:
    """Where somebody else has made them."""
    with backend(database) as owner:
        await owner.open()
    database.query("GRANT INSERT, SELECT, UPDATE ON ALL TABLES IN SCHEMA public TO plain")
    with backend(plain) as writer:
        await writer.open()
        await writer.write(some(1, 10))
    assert seqs(database) == [*range(1, 11)]


@ensureDeferred
async def test_a_missing_user_and_a_host_that_is_not_there(database: Database) -> None:
    with backend(database.server.dsn(database.name, user="nobody")) as writer:
        await fails(writer.open(), "create the user")
    with backend("host=no-such-host.invalid dbname=x") as writer:
        await fails(writer.open(), "no-such-host.invalid can't be resolved")
    with backend(
        f"host=no-such-host.invalid,{database.server.directory} user=wafermon dbname={database.name}"
    ) as writer:
        assert await writer.open() is None, "the next host is tried"


@ensureDeferred
async def test_a_database_of_another_encoding(postgres: Postgres) -> None:
    database = Database(postgres, "latin")
    postgres.query("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        with backend(database) as writer:
            await fails(writer.open(), "LATIN1", "ENCODING 'UTF8'")
    finally:
        database.drop()


@ensureDeferred
async def test_a_lock_that_somebody_holds(database: Database) -> None:
    with backend(database, timeout="300ms") as writer:
        await writer.open()
        with locked(database):
            await fails(writer.write(some(1, 10)), "something else has locked")
        await writer.write(some(1, 10))
        assert writer.health().figures["connects"] == 1
    assert seqs(database) == [*range(1, 11)]


@ensureDeferred
async def test_a_statement_in_flight_is_waited_for(database: Database, way: str) -> None:
    """Its client is gone, and the server does not know yet; whoever opens next must not answer before it has ended."""
    with backend(database) as writer:
        await writer.open()
        database.query(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END'"
        )
        database.query("CREATE TRIGGER slow AFTER INSERT ON events EXECUTE FUNCTION slow()")
        first = some(1, 10)
        with held(database, "SELECT pg_advisory_xact_lock(1)"):
            await given_up(writer.write(first), until_waiting(database))
            opening = writer.open()
            await deferLater(reactor, 0.3)
            assert not opening.called
        if way == "statement":
            assert await opening == first.end
        else:  # the server has nobody any more who would say COMMIT
            assert await opening is None
            await writer.write(first)
        await writer.write(some(11, 20, first.end))
    assert seqs(database) == [*range(1, 21)]


async def given_up(writing: Deferred[None], moment: Awaitable[None]) -> None:
    """Cancel it at that moment."""
    await moment
    writing.addErrback(lambda failure: failure.trap(CancelledError, RetryableError))
    writing.cancel()
    await writing


@ensureDeferred
async def test_an_earlier_connection_can_store_nothing_any_more(database: Database) -> None:
    """What it had sent, and the server had not begun, comes too late."""
    with backend(database) as writer:
        await writer.open()
        with locked(database):
            await given_up(writer.write(some(1, 10)), until_waiting(database))
            assert await writer.open() is None
        await writer.write(some(11, 20))
        idle = "SELECT count(*) = 0 FROM pg_stat_activity WHERE state = 'active' AND application_name = 'wafermon db'"
        while not database.one(idle):
            await deferLater(reactor, 0.01)
    assert seqs(database) == [*range(11, 21)]


@ensureDeferred
async def test_a_statement_that_takes_too_long(database: Database) -> None:
    with backend(database, timeout="300ms") as writer:
        await writer.open()
        database.query(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(9); RETURN NULL; END'"
        )
        database.query("CREATE TRIGGER slow AFTER INSERT ON events EXECUTE FUNCTION slow()")
        await fails(writer.write(some(1, 10)), "57014", "raise the backend's `timeout`")
        database.query("DROP TRIGGER slow ON events")
        await writer.write(some(1, 10))
    assert seqs(database) == [*range(1, 11)]


@ensureDeferred
async def test_an_id_that_is_none(database: Database) -> None:
    with backend(database) as writer:
        mark = writer._context.state_dir / "sidecar"
        mark.write_text("")
        await fails(writer.open(), f"{mark} holds no id")
        mark.unlink()
        assert await writer.open() is None
        assert [(mark.read_text().strip(),)] == database.query("SELECT sidecar FROM deliveries")


@ensureDeferred
async def test_two_sidecars_on_one_cursor(database: Database) -> None:
    """The second of two copies takes the cursor over; the first stores nothing any more and says why."""
    with backend(database) as one, backend(database) as other:
        await one.open()
        first = some(1, 10)
        await one.write(first)
        (other._context.state_dir / "sidecar").write_text((one._context.state_dir / "sidecar").read_text())
        assert await other.open() == first.end
        second = some(11, 20, first.end)
        await other.write(second)
        await fails(one.write(some(11, 30, first.end)), "two sidecars run on copies")
        await fails(one.write(some(11, 30, first.end)), "two sidecars run on copies")
    assert seqs(database) == [*range(1, 21)]


@ensureDeferred
async def test_several_sidecars_start_at_once(database: Database) -> None:
    with ExitStack() as stack:
        writers = [stack.enter_context(backend(database, schema="fab")) for _ in range(8)]
        assert await gatherResults([writer.open() for writer in writers]) == [None] * 8
        await gatherResults([writer.write(some(n * 10 + 1, n * 10 + 10)) for n, writer in enumerate(writers)])
    assert database.query("SELECT version, name FROM fab.schema_versions ORDER BY version") == [
        (migration.version, migration.name) for migration in migrations()
    ]
    assert database.one("SELECT count(*) FROM fab.events") == 80
    assert database.one("SELECT count(*) FROM fab.deliveries") == 8


@ensureDeferred
async def test_tables_of_a_newer_sidecar(database: Database) -> None:
    with backend(database) as writer:
        await writer.open()
        database.query("INSERT INTO schema_versions (version, name) VALUES (99, 'of the future')")
        await writer.open()
        await writer.write(some(1, 10))
    assert seqs(database) == [*range(1, 11)]


MOMENTS = {
    "statement": {"sending": b"json_to_recordset", "replying": b"json_to_recordset"},
    "copy": {
        "sending": b"BEGIN;", "beginning": b"BEGIN;", "copying": b"PGCOPY", "copied": b"PGCOPY", "ending": b"COMMIT",
        "replying": b"COMMIT",
    },
}  # fmt: skip
"""By way: what the sidecar sends at each moment."""
BEFORE = ("sending", "copying", "ending")
"""The moments at which it does not arrive; at the others the reply does not."""


def cut(way: str, when: str) -> Callable[[Pair, bytes, bool], str]:
    """Cut the connection once, at a batch: at what is sent, or at the reply."""
    done: list[bool] = []
    sent: set[Pair] = set()

    def rule(pair: Pair, chunk: bytes, from_client: bool) -> str:
        if done:
            return "pass"
        if from_client and MOMENTS[way][when] in chunk:
            sent.add(pair)
            if when in BEFORE:
                done.append(True)
                return "cut"
        elif not from_client and pair in sent:
            done.append(True)
            return "cut"
        return "pass"

    return rule


@ensureDeferred
@pytest.mark.parametrize("when", MOMENTS["copy"])
@pytest.mark.parametrize("again", ["write", "open"])
async def test_a_connection_that_is_cut(database: Database, way: str, when: str, again: str) -> None:
    if when not in MOMENTS[way]:
        return
    with Proxy(database.server.socket) as proxy:
        dsn = f"host=127.0.0.1 port={proxy.port} dbname={database.name} user=wafermon"
        with backend(dsn) as writer:
            await writer.open()
            first = some(1, 100)
            proxy.rule = cut(way, when)
            await fails(writer.write(first))
            assert proxy.cuts == 1
            committed = bool(seqs(database))
            assert committed == (when == "replying")
            if again == "open":
                assert await writer.open() == (first.end if committed else None)
            if again == "write" or not committed:
                await writer.write(first)
            await writer.write(some(101, 200, first.end))
    assert seqs(database) == [*range(1, 201)]


@ensureDeferred
async def test_what_copy_can_not_store_is_told_by_the_statement(database: Database, way: str) -> None:
    """Which takes the rest of such a batch, and every batch after it goes by COPY again."""
    number = line(7, type="metric", name="x", value=1).replace(b'"value":1', b'"value":1e-400')
    long = line(8, type="metric", name=os.urandom(9000).hex(), value=1)  # too long for an index; it is plain for COPY
    with backend(database) as writer:
        await writer.open()
        for bad in (number, long):
            with pytest.raises(PermanentError):
                await writer.write(batch(START, [line(6), bad]))
        assert seqs(database) == []
        first = some(1, 10)
        await writer.write(first)
        figures = writer.health().figures
        assert (figures["connects"], figures["copied"]) == (1, 10 if way == "copy" else 0)
    assert seqs(database) == [*range(1, 11)]


@ensureDeferred
async def test_two_connections_are_closed(database: Database, way: str) -> None:
    """Together: at the end, and where one of them is lost."""
    ours = "SELECT pid FROM pg_stat_activity WHERE application_name = 'wafermon db' ORDER BY backend_start"
    with backend(database) as writer:
        await writer.open()
        before = database.query(ours)
        assert len(before) == 2
        first = some(1, 10)
        await writer.write(first)
        assert database.query(ours) == before
        database.query("SELECT pg_terminate_backend(%s)", before[-1][0])
        if way == "copy":
            await fails(writer.write(some(11, 20, first.end)))
        else:
            await writer.open()
        await writer.write(some(11, 20, first.end))
        while len(database.query(ours)) != 2:
            await deferLater(reactor, 0.01)
        assert not {*database.query(ours)} & {*before}
        await writer.close()
        while database.query(ours):
            await deferLater(reactor, 0.01)
    assert seqs(database) == [*range(1, 21)]


@pytest.mark.parametrize(("code", "permanent", "lost"), [
    ("22P02", True, False), ("22003", True, False), ("23502", True, False), ("54000", True, False), ("40P01", False, False),
    ("53100", False, False), ("57014", False, False), ("25006", False, True), ("57P01", False, True), ("08006", False, True),
    ("53300", False, True), ("42501", False, True), ("XX000", False, True),
])  # fmt: skip
def test_what_a_sqlstate_means(postgres: Postgres, code: str, permanent: bool, lost: bool) -> None:
    with pytest.raises(psycopg2.Error) as caught:
        postgres.query(f"DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{code}'; END $$")
    failure = failure_of(caught.value, "here")
    assert (failure.permanent, failure.lost) == (permanent, lost)
    assert failure.text.startswith("no (SQL" if permanent else "here: no (SQL") and code in failure.text
