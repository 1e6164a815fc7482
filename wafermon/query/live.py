"""What the sidecar knows of jobs and traces now: the correlation's memory, for reading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from wafermon.correlation import Correlator
from wafermon.correlation.receipts import record_of
from wafermon.model.position import Position
from wafermon.model.records import Receipt
from wafermon.query.receipts import Place, receipt


class Places(Protocol):
    """What is asked of the journal."""

    def stored(self, name: str) -> Position | None:
        """Where a cursor is; None for an unknown name."""

    def follow(self, position: Position) -> Position: ...
    def skipped(self, name: str) -> Sequence[tuple[Position, Position]]: ...


class Live:
    """Reads one correlator, and the journal that it follows. Nothing is kept between two calls."""

    def __init__(self, correlator: Correlator, places: Places) -> None:
        self._correlator = correlator
        self._places = places

    def receipt(self, name: str) -> Receipt | None:
        """Of the trace of this id, or of the latest that has a job of this id; None where nothing is known of it."""
        facts = self._correlator.receipt_facts(name)
        return receipt(facts.trace_id, record_of(facts), self.place) if facts is not None else None

    def place(self, backend: str) -> Place:
        """How far a backend is."""
        kept = self._places.stored(backend)
        return Place(kept and self._places.follow(kept), self._places.skipped(backend))

    def jobs(self, limit: int) -> list[dict[str, Any]]:
        """See `wafermon.correlation.views.jobs`."""
        return self._correlator.jobs(limit)

    @property
    def job_count(self) -> int:
        """How many `jobs` could show."""
        return self._correlator.count_jobs()

    def trace(self, trace_id: str) -> dict[str, Any] | None:
        """See `wafermon.correlation.views.trace`."""
        return self._correlator.trace(trace_id)

    @property
    def sdk_dropped(self) -> int:
        """Messages that SDKs say they had to drop, since the start."""
        return self._correlator.sdk_dropped

    @property
    def traces(self) -> int:
        """How many traces are followed now."""
        return self._correlator.engine.live

    @property
    def counters(self) -> Mapping[str, int]:
        """What the correlation counts, since the start."""
        return self._correlator.engine.counters
