"""A backend that keeps everything in memory, and fails where it is told to: for tests of what stands before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from wafermon.interfaces import BackendContext, Batch, Health, IBackend, IBackendFactory, Position
from wafermon.model.errors import ConfigError, Fault, PermanentError, RetryableError


@dataclass
class MemoryPlace:
    """What outlives a restart of the backend, as a database would."""

    lines: list[bytes] = field(default_factory=list)
    position: Position | None = None
    down: str = ""
    """While it is set, every write fails with it as a RetryableError."""
    poison: bytes = b""
    """A batch whose bytes contain it fails with a PermanentError."""
    writes: list[Batch] = field(default_factory=list)
    """Every batch that was tried, stored or not."""

    @contextmanager
    def unreachable(self, why: str = "down for a test") -> Iterator[None]:
        self.down = why
        try:
            yield
        finally:
            self.down = ""


@implementer(IBackendFactory)
class MemoryFactory:
    """Its one option is `place`, a MemoryPlace."""

    name = "memory"

    def configure(self, options: Mapping[str, Any]) -> MemoryPlace:
        faults = [Fault(key, "unknown key") for key in options if key != "place"]
        if not isinstance(options.get("place"), MemoryPlace):
            faults.append(Fault("place", "expected a MemoryPlace"))
        if faults:
            raise ConfigError(faults)
        place: MemoryPlace = options["place"]
        return place

    def build(self, options: MemoryPlace, context: BackendContext) -> MemoryBackend:
        return MemoryBackend(options)


@implementer(IBackend)
class MemoryBackend:
    """Stores into a MemoryPlace, at once."""

    def __init__(self, place: MemoryPlace | None = None) -> None:
        self.place = place or MemoryPlace()
        self._health = Health("starting")

    def open(self) -> Deferred[Position | None]:
        self._health = Health("ok")
        return succeed(self.place.position)

    def write(self, batch: Batch) -> Deferred[None]:
        place = self.place
        place.writes.append(batch)
        if place.down:
            self._health = Health("failing", place.down)
            return fail(RetryableError(place.down))
        if place.poison and place.poison in batch.raw:
            return fail(PermanentError(f"{place.poison!r} can't be stored"))
        place.lines.extend(batch.lines)
        place.position = batch.end
        self._health = Health("ok")
        return succeed(None)

    def close(self) -> Deferred[None]:
        self._health = Health("closed")
        return succeed(None)

    def health(self) -> Health:
        return self._health
