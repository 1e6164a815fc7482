"""A job's messages, as three services send them."""

from __future__ import annotations

from typing import Any

from postgres import Database, backend

from wafermon.contract import JOURNAL, batch
from wafermon.interfaces import Position
from wafermon.model.messages import dumps

T0 = 1_795_500_000_000_000
"""2026-11-24 06:00:00 UTC"""


WHOLE, CHILD, OTHER, OPEN = (f"{n:016x}" for n in (1, 2, 3, 4))


def said(kind: str, second: float, service: str, **fields: Any) -> dict[str, Any]:
    """A message of the job at so many seconds."""
    head = {"type": kind, "ts": T0 + round(second * 1e6), "service": service, "host": "fab1", "pid": 1}
    return {**head, "trace_id": "job-1", **fields}


def span(
    second: float, seconds: float, service: str, name: str, span_id: str, parent: str, status: str = "ok"
) -> list[Any]:
    """Its start and its end."""
    ids = {"span_id": span_id, "name": name} | ({"parent_id": parent} if parent else {})
    end = {"status": status, "start": T0 + round(second * 1e6), "duration": seconds * 1e6}
    return [said("span_start", second, service, **ids), said("span_end", second + seconds, service, **ids, **end)]


STORY = [
    *span(0, 10, "receiver", "receive", WHOLE, ""),
    *span(1, 2, "parser", "parse", CHILD, WHOLE),
    *span(4, 5, "loader", "load", OTHER, WHOLE, "error"),
    said("event", 0.5, "receiver", level="info", message="received", context={"file": "a.csv"}),
    said("event", 1.5, "parser", level="warning", message="odd line", span_id=CHILD),
    said("event", 8, "loader", level="error", message="no room"),
    said("event", 8.5, "loader", level="error", message="gave up"),
    said("metric", 2, "parser", name="rows", value=117, unit="1"),
    said("progress", 1, "parser", job_id="job-1", percent=10, status="parsing"),
    said("progress", 5, "loader", job_id="job-1", percent=60, status="loading"),
    said("progress", 9, "loader", job_id="job-1", percent=60, status="failed"),
    said("resource", 3, "parser", cpu=50, mem=1000),
    said("resource", 4, "parser", cpu=150, mem=3000),
    said("resource", 4, "parser", cpu=10, mem=500, pid=2),
]


COUNTS = {
    "span_start": 3, "span_end": 3, "event": 4, "metric": 1, "progress": 3, "resource": 3, "level.info": 1,
    "level.warning": 1, "level.error": 2,
}  # fmt: skip


SUMMARY = said(
    "trace", 15, "wafermon", first=T0, last=T0 + 10_000_000, services=["receiver", "parser", "loader"], counts=COUNTS,
    errors=3, status="failed", part=1,
)  # fmt: skip


async def told(database: Database, messages: list[dict[str, Any]]) -> None:
    numbered = ({"client": "9f2c6b1d00e4a873", "seq": n, **message} for n, message in enumerate(messages, 1))
    with backend(database) as writer:
        await writer.open()
        await writer.write(batch(Position(JOURNAL, 1, 0), [dumps(message).encode() for message in numbered]))
