"""What can be known of the past, in the shapes that every source answers in: the sidecar's memory, a history, a database.

Plain dicts of JSON values. Times are microseconds since the Unix epoch, durations microseconds. docs/http.md shows each.
"""

from __future__ import annotations

from typing import Any, TypedDict


class Eta(TypedDict):
    """When a job that runs is expected to end."""

    at: int
    earliest: int
    latest: int
    """The spread: eight of ten past runs would have ended between the two; of progress alone, its slowest and fastest stretch."""
    source: str
    """``runs`` (the last ones of its kind) or ``progress`` (its own)."""
    runs: int
    """How many runs it comes from."""


class _Job(TypedDict):
    job_id: str
    trace_id: str
    kind: str
    """Its id without what differs from run to run; see `wafermon.model.kinds`."""
    percent: float
    status: str
    """What the job itself said last; may be empty."""
    state: str
    """One of `wafermon.model.asking.STATES`."""
    service: str
    """That reported its progress last."""
    services: list[str]
    """Of its trace; empty where they are not known (yet)."""
    errors: int
    first: int
    last_progress: int
    stalled: bool
    gone: bool
    """Its program ended without saying so and did not come back."""
    reached: list[int | None]
    """When it was at 5 %, 10 %, … 100 % first; None where it said nothing between this step and the next."""
    eta: Eta | None


class JobRecord(_Job, total=False):
    """A job: one run of a kind of job."""

    troubles: list[str]
    """What its schedules have told of it and is not over, such as ``late``; only where there is something, and only by memory."""


class KindRecord(TypedDict):
    """A kind of job."""

    kind: str
    runs: int
    last: int
    """When a job of it was heard of last."""
    states: dict[str, int]
    """How many of its runs are in which state."""


class SpanRecord(TypedDict):
    """A step of a trace. `parent_id` may be empty, or that of a span which is not there."""

    span_id: str
    parent_id: str
    name: str
    service: str
    start: int
    duration: int | None
    """None while it is open; so is `status`, until it was abandoned, or ``gone`` where its program is."""
    status: str | None
    depth: int
    """How many parents it has. Parents come before their children, earlier ones first."""


EventRecord = dict[str, Any]
"""An event with the fields that were sent, under their names in the protocol, `type` left out. `client` and `seq` tell it apart."""
PointRecord = dict[str, Any]
"""A metric, progress or resource message, likewise."""


class Series(TypedDict):
    """All values of one metric in one trace."""

    name: str
    service: str
    unit: str
    count: int
    mean: float
    least: float
    greatest: float


class TraceRecord(TypedDict):
    """A trace. Counts are those of its last part; spans, jobs and messages are of all parts that are known."""

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
    metrics: list[PointRecord]
    progress: list[PointRecord]
    resources: list[PointRecord]
    """These four are the latest ones, in order of their time."""
    series: list[Series]
    """The metrics summed up: all of them, however few points are shown."""
    left_out: dict[str, int]
    """How many ``spans``, ``events``, ``metrics``, ``progress`` and ``resources`` there are beside these, as far as that is known."""


class ErrorRecord(TypedDict):
    """One kind of error: events of level error and critical that differ in digits alone are one."""

    service: str
    pattern: str
    """The message without its digits."""
    message: str
    """The newest one's."""
    count: int
    first: int
    last: int
    trace_id: str
    """Of the newest one; may be empty."""


class ServiceRecord(TypedDict):
    """A service, and what it sent by the hour."""

    service: str
    first: int
    last: int
    """The hours that it was heard in first and last."""
    counts: dict[str, int]
    """Messages by type, and events by level: ``{"event": 3, "metric": 1, "level.error": 1}``."""


class Delivered(TypedDict):
    """What one backend has of a trace, in messages."""

    routed: int
    stored: int | None
    """None as long as it is not known."""
    dead: int
    """Dead letters that were not replayed."""
    skipped: int
    """What its cursor passed undelivered: perhaps so many, where `stored` is None."""


class GapRecord(TypedDict):
    """Numbers of a stream that are not there."""

    client: str
    first: int
    last: int
    job: str | None
    """The trace, where the stream served it alone; None where these numbers may belong to something else."""
    pending: bool
    """They are said to lie in a spill file, and may still come."""


class EdgeRecord(TypedDict):
    """What another sidecar, which forwards to this one, told of a trace."""

    received: int
    """What its programs sent there."""
    forwarded: int
    """What of it is for here: its rules may keep something back."""
    sent: int | None
    """What its programs called; None as in the receipt."""
    rejected: int
    dropped: int
    gaps: int
    """Numbers that never came there."""
    unclosed: int
    """Programs there that have not said that they sent everything."""


class Receipt(TypedDict):
    """Whether all of a trace arrived."""

    job: str
    complete: bool | None
    """None where that can't be known."""
    running: bool
    """It has a job that is not over."""
    sent: int | None
    """What its programs called; None where one of them served other traces too, or has not said it."""
    received: int
    rejected: int
    """Lines that were refused and are dead letters."""
    dropped: int
    """What SDKs had to drop since the trace began, of whatever trace."""
    gaps: list[GapRecord]
    more_gaps: int
    """Numbers that are missing beside these."""
    unclosed: list[str]
    """Clients that have not said that they sent everything."""
    more_unclosed: int
    """Such clients that are not named."""
    closed: int
    """Clients that have, and of which nothing is missing."""
    unjudged: int
    """Clients that are beyond what is kept of one trace."""
    unnumbered: int
    """Messages without a number, of which nobody can say whether one is missing."""
    no_route: int
    """Messages that no rule of `routes` took: dead letters."""
    begun_before: bool
    """It may have begun before receipts were kept."""
    services: dict[str, str]
    """Of the clients that are named here."""
    forwarded: int
    """Messages that came from other sidecars, of `received`."""
    edges: dict[str, EdgeRecord]
    """What those told, by their journals."""
    edge_unknown: int
    """Messages that came from other sidecars which have not told their own receipt."""
    backends: dict[str, Delivered]
