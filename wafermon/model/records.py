"""What can be known of the past, in the shapes that every source answers in: the sidecar's memory, a history, a database.

Plain dicts of JSON values. Times are microseconds since the Unix epoch, durations microseconds.
"""

from __future__ import annotations

from typing import Any, TypedDict


class JobRecord(TypedDict):
    """A job."""

    job_id: str
    trace_id: str
    percent: float
    status: str
    """What the job itself said last; may be empty."""
    service: str
    first: int
    last_progress: int
    stalled: bool
    gone: bool
    """Its program ended without a word and did not come back."""


class RunRecord(TypedDict):
    """One run of a kind of job."""

    job_id: str
    trace_id: str
    status: str
    first: int
    last: int
    errors: int
    services: list[str]


class SpanRecord(TypedDict):
    """A step of a trace. `parent_id` may be empty, or that of a span which is not there."""

    span_id: str
    parent_id: str
    name: str
    service: str
    start: int
    duration: int | None
    """None while it is open; so is `status`, or ``gone`` where its program is."""
    status: str | None
    depth: int
    """How many parents it has. Parents come before their children, earlier ones first."""


EventRecord = dict[str, Any]
"""An event with the fields that were sent, under their names in the protocol."""


class TraceRecord(TypedDict):
    """A trace. Counts are those of its last part; spans, jobs and events are of all parts that are known."""

    trace_id: str
    part: int
    status: str
    """``running``, or how it ended."""
    first: int
    last: int
    services: list[str]
    counts: dict[str, int]
    errors: int
    jobs: list[JobRecord]
    spans: list[SpanRecord]
    events: list[EventRecord]


class ErrorRecord(TypedDict):
    """One kind of error: what differs in digits alone is one."""

    service: str
    message: str
    """The newest one's."""
    count: int
    first: int
    last: int
    trace_id: str
    """Of the newest one; may be empty."""


class Delivered(TypedDict):
    """What one backend has of a trace, in messages."""

    routed: int
    stored: int | None
    """None as long as it is not known."""
    dead: int


class Receipt(TypedDict):
    """Whether all of a trace arrived."""

    job: str
    complete: bool | None
    """None where that can't be known."""
    sent: int | None
    received: int
    rejected: int
    dropped: int
    gaps: list[dict[str, Any]]
    """Numbers of a stream that never came: ``client``, ``first``, ``last``."""
    unclosed: list[str]
    """Clients that never said that they had sent everything."""
    backends: dict[str, Delivered]
