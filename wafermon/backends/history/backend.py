"""The backend: the store in one thread, questions in two others."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from zope.interface import implementer

from wafermon.backends.history.place import problem_of
from wafermon.backends.history.reading import Reader
from wafermon.backends.history.store import Store
from wafermon.interfaces import (
    BackendContext,
    Batch,
    Health,
    IBackend,
    Position,
    PositionMoved,
    RetryableError,
)
from wafermon.model.asking import CannotAsk
from wafermon.model.kinds import Kinds
from wafermon.query.reading import Asked

if TYPE_CHECKING:
    from wafermon.backends.history import HistoryOptions

READERS = 2
"""Questions that are answered at a time; each in a thread."""
WAITING = 32
"""Questions that may wait for one of these."""
T = TypeVar("T")


@implementer(IBackend)
class HistoryBackend(Asked):
    """See the module."""

    log = Logger()
    outstanding = 1
    exactly_once = True

    def __init__(self, options: HistoryOptions, context: BackendContext, store: Store | None = None) -> None:
        self._context = context
        self._directory = Path(options.dir)
        self.kinds = Kinds(options.kinds)
        self._store = store or Store(
            self._directory, keep=options.keep, max_bytes=options.max_bytes, index=options.index, kinds=self.kinds,
            compress=options.compress, wall=context.wall,
        )  # fmt: skip
        self._reader = Reader(self._directory, stopped=lambda: self._state == "closed")
        self._asking = DeferredSemaphore(READERS)
        self._calls: set[Deferred[Any]] = set()
        """What was asked for and has not been answered."""
        self._state = "starting"
        self._detail = ""

    # -- IBackend

    def open(self) -> Deferred[Position | None]:
        if self._context.pool.max < 1 + READERS:
            self._context.pool.adjustPoolsize(0, 1 + READERS)
        self._state = "starting"
        return self._call(self._attempt(self._open))

    def _open(self) -> Position | None:
        if problem := problem_of(self._directory):
            raise OSError(0, problem)
        return self._store.open()

    def write(self, batch: Batch) -> Deferred[None]:
        if self._state in ("starting", "closed"):
            return self._call(_failing(RetryableError(f"the backend is {self._state}")))
        return self._call(self._attempt(self._store.write, batch))

    def close(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        self._state, self._detail = "closed", ""
        for call in list(self._calls):
            await _ended(call)  # a thread can't be ended
        try:
            await self._in_thread(self._store.close)
        except Exception as error:  # noqa: BLE001  # whatever it is, all was released
            self.log.warn("Closed with an error: {error}", error=error)

    def health(self) -> Health:
        """Figures: messages stored and files removed since the start, bytes of all files."""
        store = self._store
        figures = {"messages": store.stored, "bytes": store.bytes, "removed_files": store.removed}
        return Health(self._state, self._detail or store.note, figures)

    # -- IHistory

    @property
    def reader(self) -> Reader:
        return self._reader

    def ask(self, question: Callable[[], T]) -> Deferred[T]:
        if self._state in ("starting", "closed"):
            what = f"can't be opened: {self._detail}" if self._detail else f"is {self._state}; ask again"
            return self._call(_failing(RetryableError(f"the history {self._context.name} {what}")))
        if len(self._asking.waiting) >= WAITING:
            return self._call(_failing(RetryableError("too many questions wait for an answer; ask again later")))
        return self._call(self._answer(question))

    async def _answer(self, question: Callable[[], T]) -> T:
        try:
            answer: T = await self._asking.run(self._in_thread, question)
        except (CannotAsk, OSError, sqlite3.Error) as error:
            raise RetryableError(f"the history {self._context.name}: {error}") from error
        return answer

    # -- threads and errors

    def _call(self, work: Coroutine[Any, Any, T]) -> Deferred[T]:
        """Run it so that `close` can wait for it."""
        call: Deferred[T] = Deferred.fromCoroutine(work)
        self._calls.add(call)

        def ended(result: Any) -> Any:
            self._calls.discard(call)
            return result

        return call.addBoth(ended)

    async def _attempt(self, work: Callable[..., T], *args: Any) -> T:
        """Do blocking work in a thread; its errors as what `IBackend` promises."""
        try:
            result = await self._in_thread(work, *args)
        except (OSError, sqlite3.Error, PositionMoved) as error:
            detail = str(error) if isinstance(error, PositionMoved) else advice(error, self._directory)
            if self._state != "closed":
                self._detail = detail
                self._state = "failing" if self._state == "ok" else self._state
            if isinstance(error, PositionMoved):
                raise
            raise RetryableError(detail) from error
        if self._state == "closed":
            raise RetryableError("the backend was closed meanwhile")
        self._state, self._detail = "ok", ""
        return result

    def _in_thread(self, work: Callable[..., T], *args: Any) -> Deferred[T]:
        reactor = cast(IReactorFromThreads, self._context.reactor)
        return deferToThreadPool(reactor, self._context.pool, work, *args)


async def _failing(error: Exception) -> Any:
    raise error


def _ended(call: Deferred[Any]) -> Deferred[None]:
    """Fires when `call` has fired, whatever came of it, and leaves its result to the caller."""
    done: Deferred[None] = Deferred()

    def pass_on(result: Any) -> Any:
        done.callback(None)
        return result

    call.addBoth(pass_on)
    return done


_ADVICE = (
    ("is full", "the disk is full: free space there, or lower `keep` or `max_bytes`"),
    ("locked", "another program holds a lock on it: end what has it open"),
    ("readonly", "it can't be written: chown it to the sidecar's user, or mount the file system writable"),
    ("unable to open", "look at the directory's owner and mode, and at the limit of open files (LimitNOFILE=)"),
    ("disk I/O", "the disk reports an error: look at the kernel's log (dmesg), and for space"),
    ("malformed", "the file is damaged: restart the sidecar, which sets it aside"),
    ("not a database", "the file is damaged: restart the sidecar, which sets it aside"),
)


def advice(error: Exception, directory: Path) -> str:
    """What went wrong and what a person can do about it."""
    if isinstance(error, OSError):
        what = error.strerror or str(error)
        return f"{error.filename}: {what}" if error.filename else what
    text = str(error)
    todo = next((todo for word, todo in _ADVICE if word in text), "look at the files there")
    return f"{directory}: {text}; {todo}"
