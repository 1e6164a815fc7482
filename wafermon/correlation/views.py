"""What people see of the live traces: plain dicts of JSON values. Times are microseconds since the Unix epoch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice
from typing import Any

from wafermon.correlation.traces import Job, LiveTrace, Span


def traces(live: OrderedDict[str, LiveTrace], limit: int) -> list[dict[str, Any]]:
    """The traces that were heard last, the latest first: ``trace_id``, ``part``, ``status`` (``running``, or how it is
    about to end), ``first``, ``last``, ``services``, ``counts``, ``errors``, ``jobs`` (as `jobs` has them) and
    ``open_spans``, a number."""
    return [_trace(trace) for trace in islice(reversed(live.values()), limit)]


def trace(live: OrderedDict[str, LiveTrace], trace_id: str) -> dict[str, Any] | None:
    """One live trace as `traces` has it, and its open ``spans``: each with ``span_id``, ``name``, ``service``,
    ``started``, ``parent_id`` (may be empty, or not open) and ``depth``, every parent followed by its children."""
    found = live.get(trace_id)
    return None if found is None else {**_trace(found), "spans": list(_tree(found.spans))}


def jobs(live: OrderedDict[str, LiveTrace]) -> list[dict[str, Any]]:
    """The jobs of all live traces, those of the trace that was heard last first: ``job_id``, ``trace_id``,
    ``percent``, ``status`` (may be empty), ``service``, ``last_progress``, ``stalled``."""
    return [_job(trace, job_id, job) for trace in reversed(live.values()) for job_id, job in trace.jobs.items()]


def _trace(trace: LiveTrace) -> dict[str, Any]:
    outcome = trace.outcome()
    return {
        "trace_id": trace.id,
        "part": trace.part,
        "status": "running" if trace.running() or outcome == "idle" else outcome,
        "first": trace.first,
        "last": trace.last,
        "services": list(trace.services),
        "counts": trace.tally(),
        "errors": trace.errors(),
        "jobs": [_job(trace, job_id, job) for job_id, job in trace.jobs.items()],
        "open_spans": len(trace.spans),
    }


def _job(trace: LiveTrace, job_id: str, job: Job) -> dict[str, Any]:
    return {
        "job_id": job_id,
        "trace_id": trace.id,
        "percent": job.percent,
        "status": job.status,
        "service": job.service,
        "last_progress": job.ts,
        "stalled": job.reported,
    }


def _tree(spans: dict[str, Span]) -> Iterator[dict[str, Any]]:
    """Depth first, earliest start first. Without recursion; ids that name each other as parent come out once too."""
    by_start = sorted(spans, key=lambda span_id: (spans[span_id].started, span_id))
    children: dict[str, list[str]] = {}
    for span_id in by_start:
        children.setdefault(spans[span_id].parent_id, []).append(span_id)
    roots = [span_id for span_id in by_start if spans[span_id].parent_id not in spans]
    seen: set[str] = set()
    for root in roots + by_start:
        stack = [(root, 0)]
        while stack:
            span_id, depth = stack.pop()
            if span_id in seen:
                continue
            seen.add(span_id)
            span = spans[span_id]
            yield {
                "span_id": span_id,
                "parent_id": span.parent_id,
                "name": span.name,
                "service": span.service,
                "started": span.started,
                "depth": depth,
            }
            stack.extend((child, depth + 1) for child in reversed(children.get(span_id, ())))
