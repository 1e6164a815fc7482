"""What a schedule would have said of the past: the judge of the running sidecar, told of what is stored. Pure.

What is stored of a job is when it began, when it reached each 5 %, and how it ended; of a service, its events and its jobs. The host is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypedDict

from msgspec import structs

from wafermon.correlation.schedules import Schedules, rule_of
from wafermon.model.blocks import Block
from wafermon.model.messages import TERMINAL, Event, Progress
from wafermon.model.progress import STEPS
from wafermon.model.records import JobRecord
from wafermon.model.schedules import Schedule

GONE_AFTER = 5_000_000
"""A program that was gone is known to be so long after it was heard of last."""
TOLD = 1_000
"""So many transitions are kept, the latest."""


class Told(TypedDict):
    """A transition that would have been journalled."""

    ts: int
    kind: str
    level: str
    message: str
    run: str
    due: int | None


class Rehearsal(TypedDict):
    """What would have been said."""

    begins: int
    """From here on it was judged: nothing is known of its jobs, or services, before."""
    told: list[Told]
    left_out: int
    """Earlier ones, beyond the last TOLD."""
    counts: dict[str, int]
    """How often which state."""
    runs: int
    """Jobs that were looked at."""


class Heard(NamedTuple):
    """Something that happened in the past, for the judge."""

    ts: int
    order: int
    message: Progress | Event | None
    gone: str = ""
    """The job whose program was gone."""


def rehearse(
    name: str, schedule: Schedule, jobs: Sequence[JobRecord], heard: Iterable[tuple[int, str]], since: int, until: int
) -> Rehearsal:
    """`jobs`: those that may be meant; `heard`: when which service was heard; times from `since` to `until`, microseconds since the
    epoch."""
    told: list[Event] = []
    past = [one for job in jobs for one in _of_job(job)]
    past += [Heard(ts, 0, _event(ts, service)) for ts, service in heard]
    past = sorted((one for one in past if since <= one.ts <= until), key=lambda one: (one.ts, one.order))
    begins = past[0].ts - 1 if past else since
    judge = Schedules("", told.append)
    judge.moved(begins, begins)
    # Hosts are not stored: all are one, and any is meant.
    judge.configure({name: structs.replace(rule_of(schedule), host=(), per_host=False)})
    for one in past:
        judge.advance(one.ts)
        judge.moved(one.ts, one.ts)
        if one.message is None:
            judge.gone(one.gone, one.gone, one.ts)
        else:
            judge.take([Block.of(b"", [one.message])], lambda message: str(getattr(message, "job_id", "")))
    judge.advance(until)
    return {
        "begins": begins,
        "told": [_told(event) for event in told[-TOLD:]],
        "left_out": max(0, len(told) - TOLD),
        "counts": dict(judge.told),
        "runs": len(jobs),
    }


def _of_job(job: JobRecord) -> list[Heard]:
    points = [(job["first"], 0.0)]
    points += [(ts, (step + 1) * 100 / STEPS) for step, ts in enumerate(job["reached"]) if ts is not None]
    found = [Heard(ts, 1, _progress(job, ts, percent, "")) for ts, percent in points if ts < job["last_progress"]]
    status = job["status"] if job["status"] in TERMINAL else ""
    found.append(Heard(job["last_progress"], 2, _progress(job, job["last_progress"], job["percent"], status)))
    if job["gone"]:
        found.append(Heard(job["last_progress"] + GONE_AFTER, 3, None, job["job_id"]))
    return found


def _progress(job: JobRecord, ts: int, percent: float, status: str) -> Progress:
    made = Progress(
        ts=ts, service=job["service"], trace_id=job["trace_id"], job_id=job["job_id"], percent=min(percent, 100.0)
    )
    if status:
        made.status = status
    return made


def _event(ts: int, service: str) -> Event:
    return Event(ts=ts, service=service, level="info", message="")


def _told(event: Event) -> Told:
    context: Any = event.context
    return {
        "ts": event.ts or 0,
        "kind": context["kind"],
        "level": event.level,
        "message": event.message,
        "run": context.get("run", ""),
        "due": context.get("due"),
    }
