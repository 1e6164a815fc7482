"""A backend that keeps everything in memory, and fails where it is told to: for tests of what stands before it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, cast

from pydantic import Field, PlainValidator
from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from wafermon.interfaces import (
    BackendContext,
    Batch,
    Health,
    IBackend,
    IBackendFactory,
    Options,
    PermanentError,
    Position,
    PositionMoved,
    Refused,
    RetryableError,
    Superseded,
)


@dataclass
class MemoryPlace:
    """What outlives a restart of the backend, as a database would."""

    lines: list[bytes] = field(default_factory=list)
    position: Position | None = None
    down: str = ""
    """While it is set, every write fails with it as a RetryableError."""
    poison: bytes = b""
    """A batch whose bytes contain it fails with a PermanentError."""
    lost: bool = False
    """While it is set, every write is stored and fails all the same."""
    unfit: bytes = b""
    """A batch with lines that contain it is refused with their indices."""
    writes: list[Batch] = field(default_factory=list)
    """Every batch that was tried, stored or not."""
    calls: list[str] = field(default_factory=list)
    """``open``, ``write`` and ``close``, in the order in which they were called."""
    outstanding: int = 1
    """How many batches the backend says that it takes at a time."""
    faults: dict[str, list[Any]] = field(default_factory=dict)
    """By call: what its next calls come to. An exception; a Deferred, for which it waits, and then does the ordinary; or None,
    which is the ordinary."""
    held: bool = False
    """While it is set, no write fires. `release` lets them go on."""
    later: Callable[[Callable[[], None]], Any] = lambda finish: finish()
    """When a write that is not held comes to its end."""
    released: list[Callable[[], None]] = field(default_factory=list)
    """Called when the writes are let go on."""

    def fail_next(self, call: str, *what: Any) -> None:
        self.faults.setdefault(call, []).extend(what)

    def release(self) -> None:
        """Let all writes that are held, and all that come, go on."""
        self.held = False
        for call in self.released:
            call()

    def fault(self, call: str) -> Any:
        self.calls.append(call)
        left = self.faults.get(call)
        return left.pop(0) if left else None

    @contextmanager
    def unreachable(self, why: str = "down for a test") -> Iterator[None]:
        self.down = why
        try:
            yield
        finally:
            self.down = ""


@dataclass(eq=False)
class _Write:
    """One that has no answer yet."""

    batch: Batch
    done: Deferred[None]
    ready: bool = True
    error: Exception | None = None


def _place(value: Any) -> MemoryPlace:
    if not isinstance(value, MemoryPlace):
        raise ValueError("expected a MemoryPlace")
    return value


class MemoryOptions(Options):
    """Its one option."""

    place: Annotated[MemoryPlace, PlainValidator(_place)] = Field(description="Where the messages go.")


@implementer(IBackendFactory)
class MemoryFactory:
    """`plugin: memory`"""

    name = "memory"
    options = MemoryOptions

    def build(self, options: MemoryOptions, context: BackendContext) -> MemoryBackend:
        return MemoryBackend(options.place)


@implementer(IBackend)
class MemoryBackend:
    """Stores into a MemoryPlace, at once unless that holds the writes."""

    exactly_once = True

    def __init__(self, place: MemoryPlace | None = None) -> None:
        self.place = place or MemoryPlace()
        self.outstanding = self.place.outstanding
        self._queue: deque[_Write] = deque()
        """The writes that have no answer yet, oldest first."""
        self._reached: Position | None = None
        self._broken = False
        """Whether a batch failed while younger ones are under way."""
        self._state = Health("starting")
        self.place.released.append(self._go_on)

    def open(self) -> Deferred[Position | None]:
        fault = self.place.fault("open")
        if isinstance(fault, Deferred):
            return fault
        if fault is not None:
            return fail(fault)
        self._state = Health("ok")
        self._broken = False
        self._reached = self.place.position
        return succeed(self._reached)

    def write(self, batch: Batch) -> Deferred[None]:
        self.place.writes.append(batch)
        write = _Write(batch, Deferred())
        self._queue.append(write)
        fault = self.place.fault("write")
        if isinstance(fault, Deferred):
            write.ready = False
            fault.addBoth(self._was_waited_for, write)
        else:
            write.error = fault
        self.place.later(self._go_on)
        return write.done

    def _was_waited_for(self, result: Any, write: _Write) -> None:
        write.ready = True
        write.error = cast(Exception, result.value) if isinstance(result, Failure) else None
        self._go_on()

    def _go_on(self) -> None:
        while self._queue and self._queue[0].ready and not self.place.held:
            write = self._queue.popleft()
            error = Superseded("an older batch failed") if self._broken else write.error or self._store(write.batch)
            self._broken = error is not None and bool(self._queue)
            if error is None:
                write.done.callback(None)
            else:
                write.done.errback(error)

    def _store(self, batch: Batch) -> Exception | None:
        place = self.place
        if place.position != self._reached:
            return PositionMoved(f"it stands at {place.position}, and was left at {self._reached}")
        if place.down:
            self._state = Health("failing", place.down)
            return RetryableError(place.down)
        if place.poison and place.poison in batch.raw:
            return PermanentError(f"{place.poison!r} can't be stored")
        if place.unfit and place.unfit in batch.raw:
            unfit = [index for index, line in enumerate(batch.lines) if place.unfit in line]
            return Refused(dict.fromkeys(unfit, f"{place.unfit!r} does not fit"))
        place.lines.extend(batch.lines)
        place.position = batch.end
        if place.lost:
            return RetryableError("the reply was lost")
        self._reached = batch.end
        self._state = Health("ok")
        return None

    def close(self) -> Deferred[None]:
        if (fault := self.place.fault("close")) is not None:
            return fault if isinstance(fault, Deferred) else fail(fault)
        self._state = Health("closed")
        while self._queue:
            self._queue.popleft().done.errback(RetryableError("closed"))
        return succeed(None)

    def health(self) -> Health:
        return self._state
