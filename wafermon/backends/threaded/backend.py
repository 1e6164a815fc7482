"""A blocking store as a backend: everything in the backend's one thread, one call after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Protocol, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from zope.interface import implementer

from wafermon.interfaces import (
    BackendContext,
    Batch,
    Health,
    IBackend,
    PermanentError,
    Position,
    Refused,
    RetryableError,
)

T = TypeVar("T")


class Store(Protocol):
    """What does the work. Its methods run in the backend's thread, but for `abort`, and raise what `IBackend` promises, or OSError
    of the files in `state_dir`."""

    exactly_once: bool
    figures: Mapping[str, float]
    """Replaced, never changed: the reactor's thread reads it."""

    def open(self) -> Position | None: ...
    def write(self, batch: Batch) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None:
        """From another thread: let what is under way fail soon."""


class State(Enum):
    """How a backend is doing; the values are those of `Health`."""

    STARTING = "starting"
    OK = "ok"
    FAILING = "failing"
    CLOSED = "closed"


AFTER_FAILURE = {
    State.STARTING: State.STARTING,
    State.OK: State.FAILING,
    State.FAILING: State.FAILING,
    State.CLOSED: State.CLOSED,
}


@implementer(IBackend)
class ThreadedBackend:
    """See the module. `make` builds a store for each time that it is opened after a close."""

    outstanding = 1

    def __init__(self, make: Callable[[], Store], context: BackendContext) -> None:
        self._make = make
        self._context = context
        self._store = make()
        self.exactly_once = self._store.exactly_once
        self._state = State.STARTING
        self._detail = ""

    def open(self) -> Deferred[Position | None]:
        if self._state is State.CLOSED:
            self._store = self._make()
        self._state = State.STARTING
        return Deferred.fromCoroutine(self._attempt(self._store.open))

    def write(self, batch: Batch) -> Deferred[None]:
        return Deferred.fromCoroutine(self._write(batch))

    async def _write(self, batch: Batch) -> None:
        if self._state in (State.STARTING, State.CLOSED):
            raise RetryableError(f"the backend is {self._state.value}")
        await self._attempt(self._store.write, batch)

    def close(self) -> Deferred[None]:
        self._state, self._detail = State.CLOSED, ""
        self._store.abort()
        # The pool has one thread, which has done all that was asked before once it does this.
        return self._in_thread(self._store.close)

    def health(self) -> Health:
        return Health(self._state.value, self._detail, self._store.figures)

    async def _attempt(self, work: Callable[..., T], *args: Any) -> T:
        """Do blocking work in the thread; its errors as what `IBackend` promises."""
        store = self._store
        try:
            result = await self._in_thread(work, *args)
        except (Refused, PermanentError):
            raise
        except Exception as error:
            text = _advice(error) if isinstance(error, OSError) else str(error) or type(error).__name__
            if store is self._store:
                self._state = AFTER_FAILURE[self._state]
                self._detail = "" if self._state is State.CLOSED else text
            if isinstance(error, OSError):
                raise RetryableError(text) from error
            raise
        if self._state is State.CLOSED or store is not self._store:
            raise RetryableError("the backend was closed meanwhile")
        self._state, self._detail = State.OK, ""
        return result

    def _in_thread(self, work: Callable[..., T], *args: Any) -> Deferred[T]:
        reactor = cast(IReactorFromThreads, self._context.reactor)
        return deferToThreadPool(reactor, self._context.pool, work, *args)


def _advice(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}; the sidecar must be able to write there: look at the disk and the file's owner"
