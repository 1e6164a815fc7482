"""Schedules: as they stand, and as they would have been told."""

from __future__ import annotations

from typing import Annotated

from wafermon.model.shapes.base import Shape, Span, Time, TimeOrZero


class OpenAlarm(Shape):
    """An alarm of a schedule that is not over."""

    state: Annotated[str, "what it is about"]
    run: Annotated[str, "the job; empty where it is about none"]
    since: Annotated[Time, "since when"]


class RunExpected(Shape):
    """A run of a schedule that is under way."""

    run: Annotated[str, "the job"]
    trace_id: Annotated[str, "its trace"]
    due: Annotated[Time | None, "when it was due"]
    started: Annotated[Time, "its start"]
    heard: Annotated[Time, "when it was heard of last"]
    percent: Annotated[float, "0 to 100"]
    status: Annotated[str, "what the job itself said last"]
    service: Annotated[str, "which reported progress last"]
    silent: Annotated[bool, "whether it is silent for too long"]
    too_long: Annotated[bool, "whether it takes too long"]


class RunEnded(Shape):
    """The last run of a schedule that ended."""

    run: Annotated[str, "the job"]
    trace_id: Annotated[str, "its trace"]
    state: Annotated[str, "how it ended"]
    started: Annotated[Time, "its start"]
    ended: Annotated[Time, "its end"]
    took: Annotated[Span, "how long it took"]


class Expected(Shape, kw_only=True):
    """What a schedule asks for, as the config says."""

    match: Annotated[dict[str, list[str]], "`job`, `service` and `host`: the globs; none match all"]
    cron: Annotated[str | None, "the cron line"]
    timezone: Annotated[str, "in which it is meant"]
    every: Annotated[Span | None, "the interval"]
    start_grace: Annotated[Span, "how late a start may be"]
    per_host: Annotated[bool, "whether each host is judged for itself"]
    early: Annotated[Span, "how early a start may be; of jobs, as all below"] = 0
    at_least: Annotated[Span, "the shortest run that is well; 0 where any is"] = 0
    at_most: Annotated[Span, "the longest one; 0 where any is"] = 0
    silent: Annotated[Span, "the longest time without progress; 0 where any is"] = 0
    runs: Annotated[int, "how many may run at a time"] = 0
    failures: Annotated[int, "how many failures in a row are told"] = 0


class ScheduleState(Shape):
    """A schedule, or one host of it."""

    schedule: Annotated[str, "its name"]
    host: Annotated[str, "empty where hosts are not judged for themselves"]
    state: Annotated[str, "as [schedules.md](schedules.md) lists them"]
    changed: Annotated[TimeOrZero, "when something was told last"]
    since: Annotated[Time, "from when on it is expected"]
    next: Annotated[Time | None, "when something is due; null while it is paused"]
    last: Annotated[Time | None, "the last start, or the last message"]
    missed: Annotated[Time | None, "the last time that was due and did not start"]
    paused: Annotated[bool, "whether it is"]
    paused_until: Annotated[Time | None, "null where it is not, or until it is resumed"]
    open: Annotated[list[OpenAlarm], "the alarms that are not over"]
    failures: Annotated[int, "runs that failed in a row"]
    times: Annotated[dict[str, int], "state -> how often it was in it"]
    runs: Annotated[list[RunExpected], "those under way"]
    last_run: Annotated[RunEnded | None, "the last one that ended"]
    expects: Annotated[Expected, "what it asks for"]


class Schedules(Shape):
    """`GET /api/schedules` and `wafermon schedules --json`."""

    now: Annotated[Time, "the sidecar's time"]
    schedules: Annotated[list[ScheduleState], "in the config's order"]
    total: Annotated[int, "how many the filter takes"]
    left_out: Annotated[int, "how many of these are not shown"]


class WouldBeTold(Shape):
    """A change of state that a schedule would have told."""

    ts: Annotated[Time, "when"]
    kind: Annotated[str, "the state"]
    level: Annotated[str, "of the event"]
    message: Annotated[str, "its text"]
    run: Annotated[str, "the job; empty where it is about none"]
    due: Annotated[Time | None, "when it was due"]


class Rehearsed(Shape):
    """`GET /api/schedules/NAME/test` and `wafermon schedules test --json`."""

    now: Annotated[Time, "the sidecar's time"]
    schedule: Annotated[str, "its name"]
    since: Annotated[Time, "from when on was asked for"]
    until: Annotated[Time, "until when"]
    begins: Annotated[Time, "when the first of its jobs is known of: from here on it was judged"]
    told: Annotated[list[WouldBeTold], "the last 1,000"]
    left_out: Annotated[int, "earlier ones"]
    counts: Annotated[dict[str, int], "state -> how often"]
    runs: Annotated[int, "jobs that were looked at"]
    notes: Annotated[list[str], "what is not stored and so could not be judged"]
    sources: Annotated[list[str], "as in lists"]
    problems: Annotated[list[str], "as in lists"]
