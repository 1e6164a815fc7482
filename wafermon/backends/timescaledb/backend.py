"""The backend: one transaction a batch, and the cursor moved in it.

A batch goes by COPY, on a connection that blocks and is used in a thread; by one statement, on a connection that does not,
where COPY can't be had, where a batch is small, and where COPY has met a value that the server refuses: the statement alone
says whether it is the batch that is at fault. Both come from one claim of the cursor, and go together.

Two batches are under way at a time, so that the server has the next one as soon as it is done with one: while it works, the
next one's rows are made (see `turns`). Each moves the cursor from where the one before has moved it to, or stores nothing.

A connection that is lost leaves two questions: whether its last transaction was committed, and whether the server might
still be about to run it. Both are settled by the next connection before it stores anything: it makes itself the cursor's
`writer`, waits thereby for what holds the row, and reads where the cursor stands. From then on no earlier connection can
move it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar, cast

import psycopg2
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from zope.interface import implementer

from wafermon.backends.threaded.identity import identity
from wafermon.backends.timescaledb import connection
from wafermon.backends.timescaledb.connection import Connector, Session
from wafermon.backends.timescaledb.failures import Silent, Unsuitable, failure_of
from wafermon.backends.timescaledb.loading import AVAILABLE, Loader, shaped
from wafermon.backends.timescaledb.options import TimescaleOptions
from wafermon.backends.timescaledb.reading import Reader
from wafermon.backends.timescaledb.schema import arrange, catch_up, failing, upgrade
from wafermon.backends.timescaledb.statements import KINDS, store
from wafermon.backends.timescaledb.turns import Turn
from wafermon.files import Files
from wafermon.interfaces import (
    BackendContext,
    Batch,
    Health,
    IBackend,
    PermanentError,
    Position,
    PositionMoved,
    RetryableError,
    Superseded,
)
from wafermon.model.asking import CannotAsk
from wafermon.model.kinds import Kinds
from wafermon.query.reading import Asked

T = TypeVar("T")
OUTSTANDING = 2
"""Batches under way, each with a thread: one is made rows of while the one before is stored."""
FEWEST = 20
"""Of fewer messages a batch goes by the statement, which is one exchange with the server in place of four or more."""
LOOK_SECONDS = 600.0
"""After how long it is asked again, at a batch, whether TimescaleDB's own work fails."""
READERS = 2
"""Questions that are answered at a time; each has a thread and a connection of its own."""
WAITING = 32
"""Questions that may wait for one of these."""
STOPPING_SECONDS = 0.05


@implementer(IBackend)
class TimescaleBackend(Asked):
    """See the module."""

    log = Logger()
    outstanding = OUTSTANDING
    exactly_once = True

    def __init__(self, options: TimescaleOptions, context: BackendContext) -> None:
        self._options = options
        self._context = context
        self._reader = Reader(self._parameters, options.schema_name)
        self.kinds = Kinds()
        self._asking = DeferredSemaphore(READERS)
        self._questions: set[Deferred[Any]] = set()
        self._connector = Connector(options, context.timeout, context.name, context.reactor, context.pool)
        self._session: Session | None = None
        self._loader: Loader | None = None
        """Of the session's own time; None where batches can't be loaded."""
        self._calls: set[Deferred[Any]] = set()
        """What was asked for and has not been answered."""
        self._sidecar = ""
        self._writer = ""
        self._reached: Position | None = None
        """The end of the last batch that is known to be durable."""
        self._turn: Turn | None = None
        """Of the youngest batch that is under way."""
        self._state = "starting"
        self._detail = ""
        self._arranged = ""
        """What of the config has no effect."""
        self._trouble = ""
        """What of TimescaleDB's own work fails."""
        self._looked = 0.0
        self._connects = 0
        self._messages = 0
        self._copied = 0
        self._seconds = 0.0
        self._stored_at = 0.0

    @property
    def reader(self) -> Reader:
        return self._reader

    def open(self) -> Deferred[Position | None]:
        return self._call(self._open())

    def ask(self, question: Callable[[], T]) -> Deferred[T]:
        """See `IHistory`: in threads beside the one of the statements."""
        self._need_threads()
        asked = Deferred.fromCoroutine(self._answer(question))
        self._questions.add(asked)

        def ended(result: Any) -> Any:
            self._questions.discard(asked)
            return result

        return asked.addBoth(ended)

    async def _answer(self, question: Callable[[], T]) -> T:
        if len(self._asking.waiting) >= WAITING:
            raise RetryableError("too many questions wait for an answer; ask again later")
        try:
            answer: T = await self._asking.run(self._question, question)
        except CannotAsk as error:
            raise RetryableError(f"{self._options.target}: {error}") from error
        return answer

    def _question(self, question: Callable[[], T]) -> Deferred[T]:
        if self._state in ("starting", "closed"):
            raise RetryableError(f"the backend {self._context.name} is {self._state}; ask again")
        return self._in_thread(question)

    def _parameters(self) -> Mapping[str, str]:
        """What the reader connects with. Blocks."""
        options = self._options
        password = options.password_file.read_text().rstrip("\r\n") if options.password_file is not None else ""
        return {**options.parameters, **({"password": password} if password else {})}

    def _need_threads(self) -> None:
        if self._context.pool.max < OUTSTANDING + READERS:
            self._context.pool.adjustPoolsize(0, OUTSTANDING + READERS)

    def _call(self, work: Coroutine[Any, Any, T]) -> Deferred[T]:
        """Run it so that `close` can end it."""
        call: Deferred[T] = Deferred.fromCoroutine(work)
        self._calls.add(call)

        def ended(result: Any) -> Any:
            self._calls.discard(call)
            return result

        return call.addBoth(ended)

    async def _open(self) -> Position | None:
        self._state = "starting"
        self._let_go()
        try:
            self._sidecar = self._sidecar or await self._identity()
            await self._connect(prepare=True)
        except Exception as error:
            raise self._failed(error) from error
        self._state, self._detail = "ok", ""
        return self._reached

    def _identity(self) -> Deferred[str]:
        return self._in_thread(identity, Files(), self._context)

    async def _connect(self, prepare: bool = False) -> Session:
        """A session that alone may move the cursor; `_reached` is where that stands. Raises RetryableError."""
        name = self._context.name
        try:
            session = await self._connector.connect()
        except Exception as error:
            raise self._failed(error) from error
        try:
            for file in await upgrade(session, self._options.schema_name):
                self.log.info("{name}: the tables were brought up to date by {file}", name=name, file=file)
            if prepare:
                self._arranged = await arrange(session, self._options)
                if self._arranged:
                    self.log.warn("{name}: {note}", name=name, note=self._arranged)
                await self._look_after(session)
            writer = secrets.token_hex(8)
            [(position, keeps_jobs)] = await session.query(
                "INSERT INTO deliveries (sidecar, backend, writer, keeps_jobs) VALUES (%s, %s, %s, true)"
                " ON CONFLICT (sidecar, backend) DO UPDATE SET writer = excluded.writer RETURNING position, keeps_jobs",
                (self._sidecar, name, writer),
            )
            if not keeps_jobs:
                await catch_up(session, self._sidecar, name)
            self._loader = await self._second(session)
        except BaseException as error:
            session.close()
            raise (self._failed(error, connected=False) if isinstance(error, Exception) else error) from error
        self._need_threads()
        self._session, self._writer = session, writer
        self._reached = Position.parse(position) if position else None
        self._connects += 1
        return session

    async def _second(self, session: Session) -> Loader | None:
        """The connection for COPY, to where the first one goes."""
        if not AVAILABLE:
            return None
        loader = Loader(
            session.parameters, self._connector.settings, self._context.timeout, self._options.connect_seconds
        )
        try:
            await self._in_thread(loader.connect)
        except BaseException:
            loader.cut()
            raise
        return loader

    async def _look_after(self, session: Session) -> None:
        """Ask what of TimescaleDB's own work fails; say so where it is news."""
        self._looked = self._context.reactor.seconds()
        trouble = await failing(session, self._options.schema_name)
        if trouble and trouble != self._trouble:
            self.log.warn("{name}: {trouble}", name=self._context.name, trouble=trouble)
        self._trouble = trouble

    def write(self, batch: Batch) -> Deferred[None]:
        return self._call(self._write(batch))

    async def _write(self, batch: Batch) -> None:
        turn = self._turn = Turn(batch.end, self._turn, self._context.reactor)
        try:
            await turn.nears()
            await self._store(batch, turn)
        except BaseException as error:
            failed = self._failed(error) if isinstance(error, Exception) else error
            self._end(turn, stored=False)
            raise failed from error
        self._end(turn, stored=True)
        self._state, self._detail = "ok", ""

    def _end(self, turn: Turn, stored: bool) -> None:
        if self._turn is turn:
            self._turn = None
        turn.end_as(stored)

    async def _store(self, batch: Batch, turn: Turn) -> None:
        types = {kind[1] for kind in batch.block.kinds}
        if self._state in ("starting", "closed") or not types <= KINDS:
            await turn.comes()
            self._refuse(types)
        if self._session is None or self._session.closed or (self._loader is not None and self._loader.closed):
            await turn.comes()
            if await self._connect_anew(batch):
                return
        if self._context.reactor.seconds() - self._looked > LOOK_SECONDS:
            await turn.comes()
            await self._look_after(self._open_session)
        begun = self._context.reactor.seconds()
        moved = await self._load(batch, types, turn) if batch.count >= FEWEST else None
        if moved is None:
            await turn.comes()
            sql = store(batch.raw, batch.count, types, self._move(batch, self._reached))
            [(moved,)] = await self._open_session.query(sql)
        if moved != 1:
            raise self._rivalled()
        self._reached = batch.end
        self._messages += batch.count
        now = self._context.reactor.seconds()
        self._seconds += now - max(begun, self._stored_at)
        self._stored_at = now

    def _refuse(self, types: set[str]) -> None:
        if self._state in ("starting", "closed"):
            raise RetryableError(f"the backend is {self._state}")
        raise PermanentError(f"there is no table for messages of type {', '.join(sorted(types - KINDS))}")

    async def _connect_anew(self, batch: Batch) -> bool:
        """Whether the batch is stored already: it was committed, and only the answer was lost."""
        self._let_go()
        before = self._reached
        await self._connect()
        if self._reached == batch.end:
            self._messages += batch.count
            return True
        self._compare(before)
        return False

    @property
    def _open_session(self) -> Session:
        if self._session is None:
            raise RetryableError(f"{self._options.target}: closed meanwhile")
        return self._session

    async def _load(self, batch: Batch, types: set[str], turn: Turn) -> int | None:
        """How many cursors were moved by it; None where nothing is stored, and the statement is to say why."""
        loader, before = self._loader, turn.before
        if loader is None:
            return None
        move = self._move(batch, before.end if before is not None else self._reached)

        def work() -> int | psycopg2.Error | None:
            try:
                rows = shaped(batch.raw)
                if before is not None:
                    before.wait()
                if rows.count != batch.count or not (before is None or before.loaded):
                    return None
                moved = loader.load(rows, types, move)
                turn.loaded = moved == 1
                return moved
            except psycopg2.Error as error:
                return error
            finally:
                turn.leave()

        loading = self._in_thread(work)
        turn.hand_over()
        try:
            await turn.comes()
        except Superseded:
            await loading
            raise
        seconds = self._context.timeout + connection.GRACE_SECONDS
        timer = self._context.reactor.callLater(seconds, loader.cut)
        try:
            moved = await loading
            late = not timer.active()
        finally:
            if timer.active():
                timer.cancel()
        if isinstance(moved, psycopg2.Error):
            if late:
                raise Silent(f"no answer for {seconds:g} s")
            if failure_of(moved, self._options.target).permanent:
                return None
            raise moved
        self._copied += batch.count if moved else 0
        return moved

    def _compare(self, before: Position | None) -> None:
        """Where the cursor was, beside where a new connection finds it."""
        now = self._reached
        if now == before:
            return
        if before is None or (now is not None and now > before):
            self._reached = before
            raise self._rivalled()
        self._let_go()
        raise PositionMoved(
            f"{self._options.target}: the server has forgotten what it had stored between {now} and {before}: it was "
            "restored, or failed over to a standby that lagged"
        )

    def _rivalled(self) -> Unsuitable:
        return Unsuitable(
            "something else moves this sidecar's cursor; if two sidecars run on copies of one journal, stop one and run "
            "`wafermon journal renew DIR` for it"
        )

    def _move(self, batch: Batch, reached: Position | None) -> bytes:
        """The UPDATE that moves the cursor, where it is this connection's and stands there."""
        at = f"= {_quoted(str(reached))}" if reached else "IS NULL"
        return (
            f"UPDATE deliveries SET position = {_quoted(str(batch.end))}, messages = messages + {batch.count},"
            f" moved = now() WHERE sidecar = {_quoted(self._sidecar)} AND backend = {_quoted(self._context.name)}"
            f" AND writer = {_quoted(self._writer)} AND position {at}"
        ).encode()

    def close(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        self._state, self._detail = "closed", ""
        youngest = self._turn
        self._let_go()
        for call in list(self._calls):
            call.cancel()
        while self._questions:
            self._reader.stop()
            await deferLater(cast(Any, self._context.reactor), STOPPING_SECONDS)
        # A thread can't be ended: the one that is left has done all that was asked before once it does this.
        self._context.pool.adjustPoolsize(0, 1)
        await self._in_thread(_nothing)
        if youngest is not None and youngest.in_thread:
            await self._in_thread(youngest.wait)
        self._let_go()

    def _in_thread(self, work: Callable[..., T], *args: Any) -> Deferred[T]:
        reactor = cast(IReactorFromThreads, self._context.reactor)
        return deferToThreadPool(reactor, self._context.pool, work, *args)

    def health(self) -> Health:
        """Figures: connects, messages, how many of them went by COPY, and seconds spent storing them, since the start."""
        figures = {
            "connects": self._connects, "messages": self._messages, "copied": self._copied, "seconds": self._seconds
        }  # fmt: skip
        notes = "; ".join(filter(None, (self._arranged, self._trouble)))
        return Health(self._state, self._detail or notes, figures)

    def _failed(self, error: Exception, connected: bool = True) -> Exception:
        """An error as what `IBackend` promises. Rows can only be at fault on a connection that is set up."""
        if isinstance(error, (RetryableError, PermanentError)):
            if isinstance(error, PositionMoved):
                self._detail = str(error)
            return error
        if isinstance(error, CancelledError):
            self._let_go()
            return RetryableError(f"{self._options.target}: closed meanwhile")
        failure = failure_of(error, self._options.target)
        if failure.lost:
            self._let_go()
        if failure.permanent and connected:
            return PermanentError(failure.text, failure.code or "refused")
        self._detail = failure.text
        self._state = "failing" if self._state in ("ok", "failing") else self._state
        return RetryableError(failure.text)

    def _let_go(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None
        if self._loader is not None:
            self._loader.cut()
            self._loader = None


def _nothing() -> None:
    pass


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
