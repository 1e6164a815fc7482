"""What the sidecar knows of jobs and traces now: the correlation's memory, for reading."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wafermon.correlation import Correlator


class Live:
    """Reads one correlator. Nothing is kept between two calls."""

    def __init__(self, correlator: Correlator) -> None:
        self._correlator = correlator

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
