"""What people see of traces and jobs: plain dicts of JSON values. Times are microseconds since the Unix epoch.

A backend that is asked for a job or a trace later answers in the same shapes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice
from typing import Any

from wafermon.correlation.programs import Programs
from wafermon.correlation.recent import Recent, RecentTrace
from wafermon.correlation.traces import Job, LiveTrace
from wafermon.model.messages import Trace
from wafermon.model.span_tree import tree

EVENTS = 200
"""How many of its latest events are shown of a trace."""
Live = OrderedDict[str, LiveTrace]


def traces(live: Live, limit: int) -> list[dict[str, Any]]:
    """The live traces that were heard last, the latest first: as `trace` has them, with a number ``open_spans`` in
    place of spans and events."""
    return [{**_living(trace), "open_spans": len(trace.spans)} for trace in islice(reversed(live.values()), limit)]


def trace(live: Live, recent: Recent, trace_id: str, programs: Programs, most: int = EVENTS) -> dict[str, Any] | None:
    """One trace; None where nothing is known of it: ``trace_id``, ``part``, ``status`` (``running``, or how it ended or is
    about to end), ``first``, ``last``, ``services``, ``counts``, ``errors``, ``jobs`` (as `jobs` has them), ``spans`` (as
    `tree` has them), ``events`` (at most so many of the latest, with the fields that were sent).

    ``left_out`` says how many ``spans`` that ended and how many earlier ``events`` are not among them.

    The status of a span that is open is None, or ``gone`` where its program is.

    Counts are those of the part that lives, or ended last; spans, jobs and events are of all parts that are remembered."""
    living, known = live.get(trace_id), recent.traces.get(trace_id)
    summary = recent.summary(trace_id)
    if living is not None:
        head = _living(living)
    elif summary is not None:
        head = _ended(summary)
    else:
        return None
    spans = {**_open_spans(living), **_known_spans(known)}
    for span_id, span in living.spans.items() if living is not None else ():
        if programs.is_gone(span.program):
            spans[span_id]["status"] = "gone"
    events = recent.events(trace_id, most)
    left_out = {
        "spans": known.more_spans if known else 0,
        "events": max(0, int(head["counts"].get("event", 0)) - len(events)),
    }
    return {
        **head,
        "jobs": [*_jobs_of(trace_id, living, known)],
        "spans": [*tree(spans.values())],
        "events": events,
        "left_out": left_out,
    }


def jobs(live: Live, recent: Recent, limit: int) -> list[dict[str, Any]]:
    """Jobs that run or ended a while ago, those of the trace that was heard of last first: ``job_id``, ``trace_id``,
    ``percent``, ``status`` (may be empty), ``service``, ``first``, ``last_progress``, ``stalled``,
    ``gone``."""
    return [job for job, _ in islice(walk(live, recent), limit)]


def walk(live: Live, recent: Recent) -> Iterator[tuple[dict[str, Any], bool]]:
    """The same one by one, each with whether its trace is over. Traces may come and go meanwhile: those that there were at the first step are
    told, as they are then."""
    remembered = list(reversed(recent.traces.items()))
    others = [one for one in reversed(live.values()) if one.id not in recent.traces]
    for trace_id, known in remembered:
        living = live.get(trace_id)
        over = living is None and recent.summary(trace_id) is not None
        for job in _jobs_of(trace_id, living, known):
            yield job, over
    for one in others:
        for job in _jobs_of(one.id, one, None):
            yield job, False


def jobs_of(live: Live, recent: Recent, trace_id: str) -> list[dict[str, Any]]:
    """The jobs of one trace, as `jobs` has them."""
    return list(_jobs_of(trace_id, live.get(trace_id), recent.traces.get(trace_id)))


def count_jobs(live: Live, recent: Recent) -> int:
    """How many `jobs` has to show."""
    remembered = sum(
        len(known.jobs.keys() | (live[trace_id].jobs.keys() if trace_id in live else ()))
        for trace_id, known in recent.traces.items()
    )
    return remembered + sum(len(one.jobs) for one in live.values() if one.id not in recent.traces)


def _living(trace: LiveTrace) -> dict[str, Any]:
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
        "jobs": [*_jobs_of(trace.id, trace, None)],
    }


def _ended(summary: Trace) -> dict[str, Any]:
    fields = ("trace_id", "part", "status", "first", "last", "services", "counts", "errors")
    return {name: getattr(summary, name) for name in fields}


def _jobs_of(trace_id: str, living: LiveTrace | None, known: RecentTrace | None) -> Iterator[dict[str, Any]]:
    found = {**(known.jobs if known else {}), **(living.jobs if living else {})}
    for job_id, job in found.items():
        yield _job(trace_id, job_id, job)


def _job(trace_id: str, job_id: str, job: Job) -> dict[str, Any]:
    return {
        "job_id": job_id,
        "trace_id": trace_id,
        "percent": job.percent,
        "status": job.status,
        "service": job.service,
        "first": job.first or job.ts,
        "last_progress": job.ts,
        "stalled": job.reported and not job.gone,
        "gone": job.gone,
    }


def _open_spans(living: LiveTrace | None) -> dict[str, dict[str, Any]]:
    spans = living.spans if living else {}
    return {
        span_id: _span(span_id, span.parent_id, span.name, span.service, span.started, None, None)
        for span_id, span in spans.items()
    }


def _known_spans(known: RecentTrace | None) -> dict[str, dict[str, Any]]:
    spans = known.spans if known else {}
    return {
        span_id: _span(span_id, span.parent_id, span.name, span.service, span.start, span.duration, span.status)
        for span_id, span in spans.items()
    }


def _span(
    span_id: str, parent_id: str, name: str, service: str, start: int, duration: int | None, status: str | None
) -> dict[str, Any]:
    return {
        "span_id": span_id,
        "parent_id": parent_id,
        "name": name,
        "service": service,
        "start": start,
        "duration": duration,
        "status": status,
    }


def about(live: Live, recent: Recent, trace_id: str) -> dict[str, Any]:
    """What a list of jobs needs of a trace: ``services``, ``errors``, ``over`` (whether it ended)."""
    living, summary = live.get(trace_id), recent.summary(trace_id)
    errors, services = 0, list[str]()
    if living is not None:
        errors, services = living.errors(), list(living.services)
    elif summary is not None:
        errors, services = summary.errors, list(summary.services)
    return {"services": services, "errors": errors, "over": living is None and summary is not None}


def root_of(live: Live, recent: Recent, trace_id: str) -> tuple[str, str] | None:
    """Service and name of the first span of a trace that has no parent."""
    living, known = live.get(trace_id), recent.traces.get(trace_id)
    begun = [
        (span.start, span.service, span.name) for span in (known.spans if known else {}).values() if not span.parent_id
    ]
    begun += [
        (span.started, span.service, span.name)
        for span in (living.spans if living else {}).values()
        if not span.parent_id
    ]
    return min(begun)[1:] if begun else None


def trace_ids(live: Live, recent: Recent) -> list[str]:
    """The traces that something is known of."""
    return [*dict.fromkeys([*recent.traces, *live])]
