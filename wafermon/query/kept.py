"""Receipts of jobs that the sidecar's memory has let go of: a history keeps what they are computed from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from wafermon.model.errors import RetryableError
from wafermon.model.records import Receipt
from wafermon.query.receipts import Place, receipt, stored_record

EVENTS = 1_000
"""The latest of a trace, among which its receipt is looked for."""
CANDIDATES = 10


async def kept_receipt(histories: Iterable[Any], name: str, place_of: Callable[[str], Place]) -> Receipt | None:
    """Of the trace of this id, or of one that has a job of this id; the first `IHistory` that knows it answers. One that can't be
    asked is passed over. `place_of` is told a backend's name."""
    for history in histories:
        try:
            found = await _kept(history, name)
        except RetryableError:
            continue
        if found is not None:
            return receipt(*found, place_of)
    return None


async def _kept(history: Any, name: str) -> tuple[str, dict[str, Any]] | None:
    """The trace's id and what was kept of it."""
    for trace_id in dict.fromkeys([name, *await history.find(name, CANDIDATES)]):
        trace = await history.trace(trace_id, EVENTS)
        if trace is None or name not in (trace_id, *(job["job_id"] for job in trace["jobs"])):
            continue
        record = stored_record(trace["events"])
        if record is not None:
            return trace_id, record
    return None
