"""Jobs, traces and what is asked of the past."""

from __future__ import annotations

from typing import Annotated

import msgspec

from wafermon.model.shapes.base import Listed, Shape, Span, Time


class Eta(Shape):
    """When a job that runs will end."""

    at: Annotated[Time, "the forecast"]
    earliest: Annotated[Time, "the spread begins"]
    latest: Annotated[Time, "the spread ends"]
    source: Annotated[str, "`runs` of its kind, or its own `progress`"]
    runs: Annotated[int, "how many runs it comes from"]


class Job(Shape):
    """A job, that is, one run of a kind of job."""

    job_id: Annotated[str, "its id"]
    trace_id: Annotated[str, "its trace, mostly the same"]
    kind: Annotated[str, "the kind that it is a run of"]
    percent: Annotated[float, "0 to 100"]
    status: Annotated[str, "what the job itself said last; may be empty"]
    state: Annotated[str, "`running`, `stalled`, `gone`, `done`, `failed`, `cancelled` or `unfinished`"]
    stalled: Annotated[bool, "alive, and no progress for `correlation.stalled_after`"]
    gone: Annotated[bool, "its program ended without saying so"]
    service: Annotated[str, "which reported progress last"]
    services: Annotated[list[str], "those of its trace, as far as they are known"]
    errors: Annotated[int, "events of level error and critical of its trace"]
    first: Annotated[Time, "its first progress"]
    last_progress: Annotated[Time, "its latest progress"]
    reached: Annotated[
        list[Time | None], "20: when it was at 5 %, 10 %, … 100 % first; null where nothing was said between two steps"
    ]
    eta: Annotated[Eta | None, "of jobs that run, where something can be said"]
    troubles: Annotated[
        list[str],
        "of jobs that run: what their schedules told of them and is not over, such as `late`; left out where nothing is",
    ] = []  # noqa: RUF012  # msgspec copies it


class Jobs(Listed, kw_only=True):
    """`GET /api/jobs`. `wafermon jobs --json` prints the list `jobs` alone."""

    jobs: Annotated[list[Job], "the one heard of last first"]


class Kind(Shape):
    """A kind of jobs."""

    kind: Annotated[str, "its name: an id without its digits, or a name of the config"]
    runs: Annotated[int, "how many there are"]
    last: Annotated[Time, "when one was heard of last"]
    states: Annotated[dict[str, int], "state -> how many runs"]


class Kinds(Listed, kw_only=True):
    """`GET /api/runs` and `wafermon runs --json`, without a kind."""

    kinds: Annotated[list[Kind], "the one heard of last first"]


class Runs(Listed, kw_only=True):
    """`GET /api/runs?of=KIND` and `wafermon runs KIND --json`."""

    kind: Annotated[str, "the kind that was asked for"]
    median: Annotated[Span | None, "how long the runs on this page that are done took"]
    runs: Annotated[list[Job], "the latest first"]


class Run(Shape):
    """One side of a comparison."""

    trace_id: Annotated[str, "empty where it is a median"]
    status: Annotated[str, "as of a trace"]
    first: Annotated[Time, "its first message"]
    duration: Annotated[Span, "how long it took"]
    errors: Annotated[int, "events of level error and critical"]
    critical_path: Annotated[list[str], "`service/span`, from the root on: what the end waited for"]


class Step(Shape):
    """All spans with one service and name at one place in the tree."""

    place: Annotated[list[str], "`service/span` of the root, … of this step"]
    service: Annotated[str, "its service"]
    name: Annotated[str, "the name of its spans, without digits"]
    depth: Annotated[int, "0 for the root"]
    count: Annotated[int | None, "its spans in the run; null where the run does not have the step"]
    other_count: Annotated[int | None, "in the other"]
    duration: Annotated[Span | None, "of its spans together"]
    other_duration: Annotated[Span | None, "in the other"]
    own: Annotated[Span | None, "what none of its children covers"]
    other_own: Annotated[Span | None, "in the other"]
    lost: Annotated[Span, "how much longer its own time is; negative where it is shorter"]
    critical: Annotated[bool, "whether it is on the run's critical path"]
    other_critical: Annotated[bool, "whether it is on the other's"]
    failed: Annotated[int, "its spans with status error"]
    other_failed: Annotated[int, "in the other"]


class Difference(Shape):
    """A count or the mean of a metric that differs."""

    name: Annotated[str, "of the count or the metric"]
    service: Annotated[str, "empty for counts"]
    value: Annotated[float, "of the run"]
    other: Annotated[float, "of the other"]
    change: Annotated[float | None, "0.2 is 20 % more; null where the other is 0"]


class Comparison(Shape):
    """`GET /api/compare` and `wafermon compare --json`."""

    now: Annotated[Time, "the sidecar's time"]
    run: Annotated[Run, "the run that was asked for"]
    other: Annotated[Run, "the one beside it, or the median"]
    runs: Annotated[int, "how many runs `other` is made of"]
    steps: Annotated[list[Step], "in the order of the tree"]
    counts: Annotated[list[Difference], "counts of messages that differ"]
    metrics: Annotated[list[Difference], "metrics that differ by more than they do among the last runs"]
    sources: Annotated[list[str], "as in lists"]
    problems: Annotated[list[str], "as in lists"]


class SpanOfTrace(Shape):
    """A span."""

    span_id: Annotated[str, "its id"]
    parent_id: Annotated[str, "empty for a root"]
    name: Annotated[str, "its name"]
    service: Annotated[str, "its service"]
    start: Annotated[Time, "its begin"]
    duration: Annotated[Span | None, "null while it is open"]
    status: Annotated[str | None, "`ok`, `error`; null while it is open; `abandoned` or `gone` where no end will come"]
    depth: Annotated[int, "0 for a root"]


class Message(msgspec.Struct, kw_only=True):
    """A message, with the fields that were sent (protocol.md); these are always there."""

    ts: Annotated[Time, "its time"]
    service: Annotated[str, "who sent it"]
    client: Annotated[str, "its stream"]
    seq: Annotated[int, "its number in the stream; the sidecar's own have none"] = 0


class Series(Shape):
    """All values of a metric, summed up from what is stored."""

    name: Annotated[str, "of the metric"]
    service: Annotated[str, "which sent it"]
    unit: Annotated[str, "may be empty"]
    count: Annotated[int, "of its values"]
    mean: Annotated[float, "their mean"]
    least: Annotated[float, "the least one"]
    greatest: Annotated[float, "the greatest one"]


class LeftOut(Shape):
    """How many there are beside those that are shown, as far as that is known."""

    spans: Annotated[int, "that ended"]
    events: Annotated[int, "earlier ones"]
    metrics: Annotated[int, "earlier ones"]
    progress: Annotated[int, "earlier ones"]
    resources: Annotated[int, "earlier ones"]


class Trace(Shape):
    """`GET /api/traces/ID` and `wafermon trace --json`."""

    now: Annotated[Time, "the sidecar's time"]
    trace_id: Annotated[str, "its id"]
    part: Annotated[int, "from 1; a trace that goes on after it had ended has several"]
    status: Annotated[str, "`running`, or how it ended: `done`, `failed`, `cancelled`, `idle`"]
    first: Annotated[Time, "its first message"]
    last: Annotated[Time, "its latest message"]
    services: Annotated[list[str], "in the order in which they came"]
    counts: Annotated[dict[str, int], "messages by type, events also by `level.…`; of the last part"]
    errors: Annotated[int, "events of level error and critical; of the last part"]
    jobs: Annotated[list[Job], "its jobs"]
    spans: Annotated[list[SpanOfTrace], "parents before their children, earlier ones first"]
    events: Annotated[list[Message], "the latest ones"]
    metrics: Annotated[list[Message], "the latest ones"]
    progress: Annotated[list[Message], "the latest ones"]
    resources: Annotated[list[Message], "the latest ones"]
    series: Annotated[list[Series], "its metrics"]
    critical_path: Annotated[list[str], "ids of the spans that the end of the trace waited for, in the order of time"]
    left_out: Annotated[LeftOut, "what is not shown"]
    sources: Annotated[list[str], "as in lists"]
    problems: Annotated[list[str], "as in lists"]


class Gap(Shape):
    """Numbers of a stream that never came."""

    client: Annotated[str, "the stream"]
    first: Annotated[int, "the first number"]
    last: Annotated[int, "the last one"]
    job: Annotated[str | None, "null where they may belong to another trace"]
    pending: Annotated[bool, "said to be in a spill file that is not there yet"]


class ReceiptBackend(Shape):
    """What a backend has of it."""

    routed: Annotated[int, "messages that the routes send there"]
    stored: Annotated[int | None, "of these; null until the backend has passed the last one"]
    dead: Annotated[int, "dead letters"]
    skipped: Annotated[int, "passed undelivered"]


class Edge(Shape):
    """What a sidecar that forwards to this one has told of it."""

    received: Annotated[int, "messages that it accepted"]
    forwarded: Annotated[int, "of these, what it forwards to here"]
    sent: Annotated[int | None, "as in the receipt"]
    rejected: Annotated[int, "as in the receipt"]
    dropped: Annotated[int, "as in the receipt"]
    gaps: Annotated[int, "numbers that never came there"]
    unclosed: Annotated[int, "clients there that have not said that they sent everything"]


class Receipt(Shape):
    """`GET /api/traces/ID/receipt` and `wafermon receipt --json`; receipts.md explains each field."""

    job: Annotated[str, "the job or trace"]
    complete: Annotated[bool | None, "null: nobody can know"]
    running: Annotated[bool, "a job of it is not over"]
    sent: Annotated[int | None, "what its programs were asked to send, where that is known"]
    received: Annotated[int, "messages that were accepted"]
    rejected: Annotated[int, "lines that were refused"]
    dropped: Annotated[int, "messages that SDKs had to drop"]
    gaps: Annotated[list[Gap], "numbers that never came"]
    more_gaps: Annotated[int, "numbers beside these"]
    unclosed: Annotated[list[str], "clients that have not said that they sent everything"]
    more_unclosed: Annotated[int, "clients beside these"]
    closed: Annotated[int, "clients that have"]
    unjudged: Annotated[int, "clients that there was no room for"]
    unnumbered: Annotated[int, "messages without a number"]
    no_route: Annotated[int, "messages that no rule took"]
    begun_before: Annotated[bool, "it may have begun before the sidecar kept receipts"]
    forwarded: Annotated[int, "messages that came through other sidecars"]
    edges: Annotated[dict[str, Edge], "journal of such a sidecar -> what it has told"]
    edge_unknown: Annotated[int, "forwarded messages of which no sidecar has told a receipt"]
    services: Annotated[dict[str, str], "client -> service, of those that are named"]
    backends: Annotated[dict[str, ReceiptBackend], "by name"]


class EventFound(Message, kw_only=True):
    """A stored event, with the fields that were sent."""

    level: Annotated[str, "its level"]
    message: Annotated[str, "its text"]


class Events(Listed, kw_only=True):
    """`GET /api/events/search`. `wafermon events --json` prints each event on a line of its own, in the order of time."""

    events: Annotated[list[EventFound], "the latest first"]


class ErrorKind(Shape):
    """Errors that differ in digits alone."""

    service: Annotated[str, "which sent them"]
    pattern: Annotated[str, "their text, with * for digits"]
    message: Annotated[str, "the text of the newest one"]
    count: Annotated[int, "how many"]
    first: Annotated[Time, "the first one"]
    last: Annotated[Time, "the newest one"]
    trace_id: Annotated[str, "of the newest one; may be empty"]


class Errors(Listed, kw_only=True):
    """`GET /api/errors` and `wafermon errors --json`."""

    errors: Annotated[list[ErrorKind], "the latest first"]


class Service(Shape):
    """How much a service sent."""

    service: Annotated[str, "its name"]
    first: Annotated[Time, "the hour of its first message"]
    last: Annotated[Time, "the hour of its latest one"]
    counts: Annotated[dict[str, int], "messages by type, events also by `level.…`"]


class Services(Shape):
    """`GET /api/services`."""

    now: Annotated[Time, "the sidecar's time"]
    services: Annotated[list[Service], "by name"]
    sources: Annotated[list[str], "as in lists"]
    problems: Annotated[list[str], "as in lists"]
