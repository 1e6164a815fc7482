"""Messages as JSON lines in files: the backend that needs nothing but a directory."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import Field, PlainValidator
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from zope.interface import implementer

from wafermon.backends.filesystem.names import Template
from wafermon.backends.filesystem.store import FileStore
from wafermon.backends.filesystem.tidy import Tidier
from wafermon.files import Files
from wafermon.interfaces import (
    BackendContext,
    Batch,
    ConfigError,
    Duration,
    Health,
    IBackend,
    IBackendFactory,
    Kind,
    Options,
    PermanentError,
    Position,
    PositionMoved,
    RetryableError,
    Size,
    Superseded,
)

TIDY_EVERY = 60
"""Seconds between two looks for files to compress, delete or close."""

THREADS = 2
"""One for batches, and one that tidies up beside them."""

OUTSTANDING = 8
"""Batches that may wait to be synced together."""

REST = 3.0
"""After a write batches gather for so many times as long as it took: syncs take a quarter of the time at most."""
MOST_REST = 0.5
"""But no longer than so many seconds."""

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class _Waiting:
    """A batch, and who waits for it."""

    batch: Batch
    answer: Deferred[None] = field(default_factory=Deferred)


def _template(value: Any) -> Template:
    if isinstance(value, Template):
        return value
    if not isinstance(value, str):
        raise ValueError("expected a path, such as /var/log/wafermon/{service}/{date}.jsonl")
    try:
        return Template(value)
    except ConfigError as error:
        raise ValueError("; ".join(fault.problem for fault in error.faults)) from None


class FilesystemOptions(Options):
    """Messages as JSON lines in files."""

    path: Annotated[Template, PlainValidator(_template), Kind("a path")] = Field(
        description="Where the files are. `{service}`, `{type}`, `{host}`, `{date}` and `{hour}` are replaced. A relative path "
        "starts where the daemon does.",
        examples=["/var/log/wafermon/{service}/{date}.jsonl"],
    )
    rotate_bytes: Size = Field(default=128 << 20, description="Rotate before a file grows beyond this; 0 never.")
    compress: Literal["none", "gzip"] = Field(default="none", description="What happens to rotated files.")
    keep: Duration = Field(default=0.0, description="How long after its last line a file is deleted; 0 never.")

    @property
    def claims(self) -> tuple[str, ...]:
        """What all paths start with. No other backend may write to paths that start so, or with the start of this."""
        return self.path.claims

    def leads_into(self, directory: str) -> bool:
        """See `Template.leads_into`."""
        return self.path.leads_into(directory)


@implementer(IBackendFactory)
class FilesystemFactory:
    """`plugin: filesystem`"""

    name = "filesystem"
    options = FilesystemOptions

    def examine(self, options: FilesystemOptions) -> Sequence[str]:
        """What would keep it from writing. Blocks, and changes nothing."""
        return [problem for claim in options.claims if (problem := _unwritable(claim))]

    def build(self, options: FilesystemOptions, context: BackendContext) -> FilesystemBackend:
        return FilesystemBackend(options, context)


@implementer(IBackend)
class FilesystemBackend:
    """The store and the tidier, with their work done in the thread pool."""

    log = Logger()
    outstanding = OUTSTANDING
    exactly_once = True

    def __init__(self, options: FilesystemOptions, context: BackendContext, files: Files | None = None) -> None:
        self._context = context
        now = context.wall
        self._store = FileStore(options.path, options.rotate_bytes, context.state_dir, now, files)
        self._tidier = Tidier(options.path, self._store, options.compress == "gzip", options.keep, now, files)
        self._next_tidy: IDelayedCall | None = None
        self._tidying: Deferred[None] | None = None
        self._calls: set[Deferred[Any]] = set()
        """What was asked for and has not been answered."""
        self._waiting: deque[_Waiting] = deque()
        """Batches that no thread has yet, the oldest first."""
        self._writing = False
        """Whether a thread has some."""
        self._rests_until = 0.0
        self._next_write: IDelayedCall | None = None
        self._state = "starting"
        self._detail = ""

    def open(self) -> Deferred[Position | None]:
        if self._context.pool.max < THREADS:
            self._context.pool.adjustPoolsize(0, THREADS)
        self._state = "starting"
        return self._call(self._open())

    def _call(self, work: Coroutine[Any, Any, T]) -> Deferred[T]:
        """Run it so that `close` can wait for it."""
        call: Deferred[T] = Deferred.fromCoroutine(work)
        self._calls.add(call)

        def ended(result: Any) -> Any:
            self._calls.discard(call)
            return result

        return call.addBoth(ended)

    async def _open(self) -> Position | None:
        position = await self._attempt(self._store.open)
        self._rests_until = 0.0
        self._tidier.start()
        self._tidy()
        return position

    # -- batches: those that come while some are written, and for a while after it, are written together

    def write(self, batch: Batch) -> Deferred[None]:
        if self._state in ("starting", "closed"):
            return fail(RetryableError(f"the backend is {self._state}"))
        one = _Waiting(batch)
        self._waiting.append(one)
        self._write_when_due()
        return one.answer

    def _write_when_due(self) -> None:
        if self._writing or not self._waiting:
            return
        rest = self._rests_until - self._context.reactor.seconds()
        full = len(self._waiting) >= OUTSTANDING or self._waiting_bytes() >= self._store.most_bytes
        if rest > 0 and not full:
            if self._next_write is None:
                self._next_write = self._context.reactor.callLater(rest, self._write_after_rest)
            return
        if self._next_write is not None:
            self._next_write.cancel()
            self._next_write = None
        self._writing = True
        self._call(self._write_some(self._taken()))

    def _write_after_rest(self) -> None:
        self._next_write = None
        self._rests_until = 0.0
        self._write_when_due()

    def _waiting_bytes(self) -> int:
        return sum(one.batch.size for one in self._waiting)

    def _taken(self) -> list[_Waiting]:
        """The oldest of those that wait, as many as are written at a time: one at least."""
        some = [self._waiting.popleft()]
        size = some[0].batch.size
        while self._waiting and (size := size + self._waiting[0].batch.size) <= self._store.most_bytes:
            some.append(self._waiting.popleft())
        return some

    def _fail(self, some: list[_Waiting], error: Exception) -> None:
        """The oldest failed with this, and with it all that are younger."""
        self._waiting.clear()
        for one in some:
            one.answer.errback(error)
            error = Superseded("an older batch failed")

    async def _write_some(self, some: list[_Waiting]) -> None:
        """Answer for each. Where they can't be written together, one after the other shows whose fault that is."""
        since = self._context.reactor.seconds()
        failed: Exception | None = None
        rotated = False
        try:
            try:
                rotated = await self._attempt(self._store.write, *(one.batch for one in some))
            except PositionMoved:
                raise
            except Exception:
                if len(some) == 1:
                    raise
                while some:
                    rotated |= await self._attempt(self._store.write, some[0].batch)
                    some.pop(0).answer.callback(None)
        except Exception as error:  # noqa: BLE001  # the delivery judges it
            failed = error
        now = self._context.reactor.seconds()
        self._rests_until = now + min(REST * (now - since), MOST_REST)
        if failed is not None:
            self._fail([*some, *self._waiting], failed)
        for one in some if failed is None else ():
            one.answer.callback(None)
        self._writing = False
        self._write_when_due()
        if rotated:
            self._tidy()

    def close(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        self._state, self._detail = "closed", ""
        if self._next_tidy is not None:
            self._next_tidy.cancel()
            self._next_tidy = None
        if self._next_write is not None:
            self._next_write.cancel()
            self._next_write = None
        if not self._writing:  # else they fail with what is written: nothing comes back from a closed backend
            self._fail(list(self._waiting), RetryableError("the backend was closed"))
        self._tidier.stop()
        for call in list(self._calls):
            await ended(call)  # a thread can't be ended
        if self._tidying is not None:
            await ended(self._tidying)
        try:
            await self._in_thread(self._store.close)
        except Exception as error:  # noqa: BLE001  # whatever it is, all was released
            self.log.warn("Closed without a last checkpoint: {error}", error=error)

    def health(self) -> Health:
        """Figures: open_files; bytes written, files compressed and deleted since start."""
        detail = self._detail or "; ".join(self._store.notes.texts)
        figures = {
            "open_files": self._store.open_files,
            "written_bytes": self._store.written,
            "compressed_files": self._tidier.compressed,
            "deleted_files": self._tidier.deleted,
        }
        return Health(self._state, detail, figures)

    def _tidy(self) -> None:
        """Tidy up now, and then every minute."""
        if self._next_tidy is not None:
            self._next_tidy.cancel()
            self._next_tidy = None
        if self._tidying is None and self._state != "closed":
            self._tidying = self._in_thread(self._tidier.run)
            self._tidying.addErrback(lambda failure: self.log.failure("Can't compress or delete old files", failure))
            self._tidying.addCallback(self._tidied)

    def _tidied(self, _: object) -> None:
        self._tidying = None
        if self._state != "closed":
            self._next_tidy = self._context.reactor.callLater(TIDY_EVERY, self._tidy_again)

    def _tidy_again(self) -> None:
        self._next_tidy = None
        self._tidy()

    async def _attempt(self, work: Callable[..., T], *args: Any) -> T:
        """Do blocking work in a thread; its errors as what `IBackend` promises."""
        try:
            result = await self._in_thread(work, *args)
        except Exception as error:
            detail = _advice(error) if isinstance(error, OSError) else f"{error.__class__.__name__}: {error}"
            if self._state != "closed":
                self._detail = detail
                self._state = "failing" if self._state == "ok" else self._state
            # Of all that can go wrong with a file, only its name comes from the messages.
            if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
                raise PermanentError(detail, "ENAMETOOLONG") from error
            if isinstance(error, OSError):
                raise RetryableError(detail) from error
            raise
        if self._state == "closed":
            raise RetryableError("the backend was closed meanwhile")
        self._state, self._detail = "ok", ""
        return result

    def _in_thread(self, work: Callable[..., T], *args: Any) -> Deferred[T]:
        reactor = cast(IReactorFromThreads, self._context.reactor)
        return deferToThreadPool(reactor, self._context.pool, work, *args)


def ended(call: Deferred[Any]) -> Deferred[None]:
    """Fires when `call` has fired, whatever came of it, and leaves its result to the caller."""
    done: Deferred[None] = Deferred()

    def pass_on(result: Any) -> Any:
        done.callback(None)
        return result

    call.addBoth(pass_on)
    return done


_ADVICE = {
    errno.ENOSPC: "the disk is full: free space there, or set `keep`",
    errno.EDQUOT: "the user's quota is used up: raise it, or free space there",
    errno.EIO: "the disk reports an error: look at the kernel's log (dmesg)",
    errno.ESTALE: "the network mount has gone: mount it again",
    errno.EROFS: "the file system is read-only: mount it writable",
    errno.EMFILE: "too many open files: raise the limit (ulimit -n, LimitNOFILE=), the backend wants 300",
    errno.ENFILE: "the system has too many open files: raise fs.file-max",
}


def _advice(error: OSError) -> str:
    """What went wrong and what a person can do about it."""
    number = error.errno or 0
    if number in (errno.EACCES, errno.EPERM):
        what = f"user {os.geteuid()} may not write there: change its owner or mode"
    else:
        what = _ADVICE.get(number, "look at what stands at this path")
    return f"{error.filename}: {error.strerror}; {what}"


filesystem = FilesystemFactory()


def _unwritable(claim: str) -> str:
    """Why nothing can be written to paths that begin so; empty where something can."""
    place = os.path.dirname(os.path.abspath(claim + "x"))
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    if not os.path.isdir(place):
        return f"{place} is no directory; move it, or choose another path"
    if not os.access(place, os.W_OK | os.X_OK):
        return f"{place} can't be written by user {os.geteuid()}; chown it to the sidecar's user"
    return ""
