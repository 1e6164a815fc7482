"""The JSON that HTTP routes and commands answer with, as types: docs/json.md and its schemas are made of these, the tests compare what a
running sidecar says with them, and the commands know by them which numbers are times. Nothing is decoded by them."""

from __future__ import annotations

from typing import Annotated, Any, get_args, get_type_hints

import msgspec

Time = Annotated[int, "microseconds since the Unix epoch"]
TimeOrZero = Annotated[int, "microseconds since the Unix epoch, or 0"]
Span = Annotated[int, "microseconds"]


class Shape(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """An object that has these fields and no others."""


class Listed(Shape):
    """What each list has beside its entries."""

    now: Annotated[Time, "the sidecar's time"]
    total: Annotated[int | None, "how many the filter takes, on all pages; null where that is not counted"]
    left_out: Annotated[
        int | None, "on the first page: how many of these it does not show; null where that is not counted"
    ]
    more: Annotated[bool, "whether there is more"] = False
    next: Annotated[str, "what to give as `after` to go on; empty at the end"] = ""
    searched_to: Annotated[TimeOrZero, "where a search that took too long was ended"] = 0
    sources: Annotated[list[str], "what was asked: `live`, and the backend that stores"] = []
    problems: Annotated[list[str], "sentences on what could not be asked"] = []


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
    gone: Annotated[bool, "its program ended without a word"]
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
    ] = []  # msgspec copies it


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


class ClientSeen(Shape):
    """A client that is connected or was. What an SDK has not said of itself is null or empty."""

    client: Annotated[str, "its stream"]
    service: Annotated[str, "as its hello says"]
    user: Annotated[str, "`uid:…`, or the name that its token or certificate has"]
    address: Annotated[str, "its end of the connection"]
    host: Annotated[str, "as it says"]
    pid: Annotated[int | None, "as it says"]
    sdk: Annotated[str, "language and version"]
    protocol: Annotated[str, "by which it sends: lines, or OTLP"]
    connected: Annotated[bool, "whether it is now"]
    since: Annotated[Time, "when it came"]
    last_heard: Annotated[Time, "when it was heard of last"]
    connections: Annotated[int, "how often it connected"]
    messages: Annotated[int, "that were accepted"]
    called: Annotated[int | None, "calls of its program"]
    dropped: Annotated[int | None, "messages that it had no room for"]
    unsent: Annotated[int | None, "messages that it still holds"]
    spilled: Annotated[int | None, "its spill files"]
    closed: Annotated[bool, "it said that this is all"]


class ForwarderSeen(Shape):
    """A sidecar that forwards to this one or did. What is counted is counted since this one's start."""

    name: Annotated[str, "what its token, or its certificate, calls it"]
    journal: Annotated[str, "its journal's id"]
    host: Annotated[str, "as it says"]
    version: Annotated[str, "of it"]
    address: Annotated[str, "where it connects from"]
    instance: Annotated[str, "what it drew at its start"]
    connected: Annotated[bool, "whether it is now"]
    since: Annotated[Time, "when it connected last"]
    last_heard: Annotated[Time, "when something came of it last"]
    connections: Annotated[int, "how often it connected"]
    messages: Annotated[int, "messages that were taken"]
    frames: Annotated[int, "frames that were"]
    duplicate_frames: Annotated[int, "frames with lines that had come before"]
    refused_lines: Annotated[int, "lines that are dead letters here"]
    gaps: Annotated[int, "frames before which something was left out"]
    raw_bytes: Annotated[int, "of its lines"]
    wire_bytes: Annotated[int, "of its frames, as they came"]
    lag: Annotated[
        float | None,
        "seconds that what came last had waited there, 0 where nothing waits; null as long as it has not said",
    ]
    clock: Annotated[float | None, "seconds that its clock is ahead of this one's; null as long as it has not said"]


class Clients(Shape):
    """`GET /api/clients` and `wafermon clients --json`."""

    now: Annotated[Time, "the sidecar's time"]
    clients: Annotated[list[ClientSeen], "those that are connected first"]
    total: Annotated[int, "how many the filter takes"]
    left_out: Annotated[int, "how many of these are not shown"]
    forwarders: Annotated[
        list[ForwarderSeen],
        "the sidecars that forward to this one, those that are connected first; none where a service is asked for",
    ]
    forwarders_total: Annotated[int, "how many there are"]


class Forwarder(Shape):
    """A sidecar that forwards to this one, or did since the start."""

    name: Annotated[str, "as its token or certificate says"]
    journal: Annotated[str, "the id of its journal"]
    host: Annotated[str, "as it says"]
    version: Annotated[str, "as it says"]
    address: Annotated[str, "its end of the connection"]
    instance: Annotated[str, "what tells it from a copy"]
    connected: Annotated[bool, "whether it is now"]
    since: Annotated[Time, "when it came"]
    last_heard: Annotated[Time, "when it was heard of last"]
    connections: Annotated[int, "how often it connected"]
    messages: Annotated[int, "that were accepted"]
    frames: Annotated[int, "that were accepted"]
    duplicate_frames: Annotated[int, "that were known already"]
    refused_lines: Annotated[int, "lines that were refused"]
    gaps: Annotated[int, "numbers that were jumped over"]
    raw_bytes: Annotated[int, "of the lines"]
    wire_bytes: Annotated[int, "of the frames"]
    lag: Annotated[float | None, "seconds that what came last had waited there"]
    clock: Annotated[float | None, "seconds that its clock is ahead of this one"]


class Forwarders(Shape):
    """`GET /api/forwarders` and `wafermon clients --forwarders --json`."""

    now: Annotated[Time, "the sidecar's time"]
    forwarders: Annotated[list[Forwarder], "those that are connected first"]
    total: Annotated[int, "how many the filter takes"]
    left_out: Annotated[int, "how many of these are not shown"]


class ForwarderShown(Shape):
    """A sidecar that forwards to this one, in short."""

    name: Annotated[str, "as its token or certificate says"]
    journal: Annotated[str, "the id of its journal"]
    host: Annotated[str, "as it says"]
    version: Annotated[str, "as it says"]
    connected: Annotated[bool, "whether it is now"]
    last_heard: Annotated[Time, "when it was heard of last"]
    lag: Annotated[float | None, "seconds that what came last had waited there"]
    clock: Annotated[float | None, "seconds that its clock is ahead of this one"]
    messages: Annotated[int, "that were accepted"]
    gaps: Annotated[int, "numbers that were jumped over"]
    refused_lines: Annotated[int, "lines that were refused"]


class ForwarderState(Shape):
    """The sidecars that forward to this one."""

    connected: Annotated[int, "how many are connected"]
    known: Annotated[int, "how many are known since the start"]
    copies_refused: Annotated[int, "connections of copies, since the start"]
    lag_seconds: Annotated[float, "the greatest lag"]
    shown: Annotated[list[ForwarderShown], "20 at most, those that lag most first"]


class Kept(Shape):
    """What the journal keeps for a cursor that no backend has."""

    segments: Annotated[int, "of the journal"]
    bytes: Annotated[int, "of these"]
    messages: Annotated[int, "in these"]


class Pending(Shape):
    """What a backend does not have yet."""

    lag_messages: Annotated[int, "pending messages"]
    lag_bytes: Annotated[int, "of these"]
    error: Annotated[str, "why it fails; empty where it does not"]


class Drained(Shape):
    """Each line of `POST /api/drain`; `wafermon drain --json` prints the last one."""

    drained: Annotated[bool, "whether nothing is pending"]
    backends: Annotated[dict[str, Pending], "by name"]
    cursors_without_backend: Annotated[dict[str, Kept], "these are not waited for"]


class Forgotten(Shape):
    """`POST /api/cursors/NAME/forget`."""

    forgotten: Annotated[str, "the cursor"]
    messages: Annotated[int, "that were kept for it"]
    bytes: Annotated[int, "of these"]


class ListenerState(Shape):
    """A port for messages."""

    endpoint: Annotated[str, "as the config has it"]
    listening: Annotated[bool, "whether it is open"]
    address: Annotated[str, "where; empty where it is not open"]
    error: Annotated[str, "why it is not"]


class JournalState(Shape):
    """The journal."""

    id: Annotated[str, "which positions begin with"]
    dir: Annotated[str, "its directory"]
    bytes: Annotated[int, "its size"]
    max_bytes: Annotated[int, "as configured; 0 is no limit"]
    fill: Annotated[float, "0 to 1"]
    full: Annotated[bool, "receivers pause"]
    failing: Annotated[str, "why nothing can be written; empty where it can"]
    failures: Annotated[int, "writes that failed, since the start"]
    damaged: Annotated[int, "segments with damage that were set aside"]
    sync: Annotated[str, "as configured"]


class BackendState(Shape):
    """A backend and its delivery."""

    plugin: Annotated[str, "as configured; empty while it is drained after its removal"]
    exactly_once: Annotated[bool, "whether each message is stored once, or at least once"]
    state: Annotated[str, "`ok`, `waiting`, `failing` and others"]
    detail: Annotated[str, "what the backend says of itself"]
    error: Annotated[str, "why it fails now; empty where it does not"]
    error_since: Annotated[Time | None, "since when"]
    last_error: Annotated[str, "the latest one, also where it works again"]
    last_error_at: Annotated[Time | None, "when that was"]
    lag_messages: Annotated[int, "pending messages"]
    lag_bytes: Annotated[int, "of these"]
    lag_seconds: Annotated[float, "the age of the oldest one"]
    delivered: Annotated[int, "messages, since the start"]
    batches: Annotated[int, "since the start"]
    retries: Annotated[int, "since the start"]
    dead_letters: Annotated[int, "since the start"]
    skipped_segments: Annotated[int, "passed undelivered"]
    skipped_messages: Annotated[int, "in these"]
    figures: Annotated[dict[str, float], "what else it counts; its page says what"]


class RefusedConfig(Shape):
    """A config that a reload did not take."""

    at: Annotated[Time, "when"]
    faults: Annotated[list[str], "why"]


class MessageCounts(Shape):
    """Messages, since the start."""

    received: Annotated[int, "lines that came"]
    accepted: Annotated[int, "of these"]
    duplicate: Annotated[int, "that were known already"]
    rejected: Annotated[dict[str, int], "code -> how many"]
    gaps: Annotated[int, "numbers that were jumped over"]
    journalled: Annotated[int, "with those that the sidecar derived"]
    from_spill: Annotated[int, "of files of programs that are gone"]
    sdk_dropped: Annotated[int, "by SDKs, as they report"]


class SpillState(Shape):
    """Spill files."""

    files: Annotated[int, "that were taken up, since the start"]
    stuck: Annotated[dict[str, str], "file -> why it can't be taken"]


class CorrelationState(Shape):
    """The correlation."""

    error: Annotated[str, "empty where it works"]
    live_traces: Annotated[int, "in memory"]
    evicted_traces: Annotated[int, "that were ended to make room"]
    services_over: Annotated[int, "services of traces that were not counted any more"]
    spans_over: Annotated[int, "spans, likewise"]
    jobs_over: Annotated[int, "jobs, likewise"]
    jobs_gone: Annotated[int, "whose program ended without a word"]


class DeadLetterState(Shape):
    """The dead letters."""

    error: Annotated[str, "empty where they can be written"]
    dir: Annotated[str, "their directory"]
    bytes: Annotated[int, "of all files"]
    written: Annotated[int, "since the start"]
    dropped_files: Annotated[int, "removed to make room"]


class FollowerState(Shape):
    """What follows the journal."""

    state: Annotated[str, "as the supervisor has it"]
    problem: Annotated[str, "empty where there is none"]
    restarts: Annotated[int, "since the start"]
    last_error: Annotated[str, "the latest one"]
    last_error_at: Annotated[Time | None, "when that was"]
    stepped_over: Annotated[int, "groups that could not be taken"]
    positions: Annotated[list[str], "of these, the latest ones"]


class KafkaTopic(Shape):
    """Counters of a topic of Kafka, since the start."""

    messages: Annotated[int, "read and accepted"]
    rejected: Annotated[int, "lines that were refused"]
    skipped: Annotated[int, "records without a value"]
    lost: Annotated[int, "offsets that the topic's retention took before they were read"]


class KafkaPartition(Shape):
    """A partition that is read."""

    topic: Annotated[str, "its topic"]
    partition: Annotated[int, "its number"]
    state: Annotated[str, "`reading`, or `stopped` where a person has to do something first"]
    problem: Annotated[str, "what is wrong; empty where nothing is"]
    next: Annotated[int, "the offset up to which everything is durable here"]
    lag: Annotated[int | None, "offsets that are there and were not read yet; null where that is not known"]


class KafkaState(Shape):
    """One entry of `listen` that reads from Kafka."""

    brokers: Annotated[list[str], "as the config names them"]
    cluster: Annotated[str, "the cluster's id; empty until it is known"]
    topics: Annotated[dict[str, KafkaTopic], "by name"]
    missing: Annotated[list[str], "topics that are not there"]
    group: Annotated[str | None, "the consumer group; null where the config says which partitions are read"]
    exactly_once: Annotated[bool, "false in a group: after a crash some may be at two sidecars"]
    problem: Annotated[str, "what keeps it from reading; empty where nothing does"]
    partitions: Annotated[list[KafkaPartition], "those that are read here"]


class HttpState(Shape):
    """A port for HTTP."""

    endpoint: Annotated[str, "as the config has it"]
    address: Annotated[str, "where"]
    serve: Annotated[list[str], "of `health`, `metrics`, `api`, `page`"]


class HookState(Shape):
    """The operator's command."""

    told: Annotated[int, "events"]
    failed: Annotated[int, "calls"]
    skipped: Annotated[int, "events beyond `at_most`"]
    error: Annotated[str, "of the latest call; empty where it worked"]


class OtlpState(Shape):
    """What comes by OTLP, since the start."""

    senders: Annotated[int, "programs that are known"]
    connected: Annotated[int, "of these, those that were heard of lately"]
    requests: Annotated[int, "that were answered with success"]
    repeated: Annotated[int, "of these, those that had come before"]
    refused: Annotated[int, "that were refused"]
    messages: Annotated[int, "that were accepted"]
    rejected: Annotated[int, "records that were not"]


class SchedulesState(Shape):
    """The schedules of the config, in short. Counters are since the start."""

    count: Annotated[int, "how many there are"]
    states: Annotated[dict[str, int], "state -> how many are in it"]
    troubled: Annotated[list[str], "those with an open alarm, 20 at most"]
    more_troubled: Annotated[int, "beside these"]
    told: Annotated[dict[str, int], "state -> how often it was told"]
    runs_over: Annotated[int, "runs that there was no room for"]
    hosts_over: Annotated[int, "hosts, likewise"]
    past: Annotated[int, "messages that came too late to be judged by"]


class ChannelState(Shape):
    """A channel of `alerts`. Counters are since the start."""

    plugin: Annotated[str, "as configured"]
    pending: Annotated[int, "alerts that are not sent yet"]
    held: Annotated[int, "of these, those that quiet hours or `at_most` hold"]
    dropped: Annotated[int, "that there was no room for"]
    sent: Annotated[int, "that the receiver took"]
    failed: Annotated[int, "tries that failed"]
    refused: Annotated[int, "that the receiver refused"]
    error: Annotated[str, "why the latest try failed; empty where it worked"]
    next_try: Annotated[Time | None, "when the next try is due"]


class Status(Shape):
    """`GET /api/status` and `wafermon status --json`."""

    version: Annotated[str, "of the sidecar"]
    now: Annotated[Time, "its time"]
    started: Annotated[Time, "since when it runs"]
    ready: Annotated[bool, "whether `problems` is empty"]
    problems: Annotated[list[str], "sentences"]
    listeners: Annotated[list[ListenerState], "ports for messages"]
    journal: Annotated[JournalState, "the journal"]
    backends: Annotated[dict[str, BackendState], "by name"]
    cursors_without_backend: Annotated[dict[str, Kept], "by name"]
    refused_config: Annotated[RefusedConfig | None, "null where the config is in force"]
    reads_with: Annotated[str, "`scanner`, or `python` where that was not built"]
    connections: Annotated[int, "open ones"]
    connections_total: Annotated[int, "since the start"]
    connections_refused: Annotated[int, "since the start"]
    messages: Annotated[MessageCounts, "messages"]
    spill: Annotated[SpillState, "spill files"]
    correlation: Annotated[CorrelationState, "the correlation"]
    dead_letters: Annotated[DeadLetterState, "the dead letters"]
    followers: Annotated[dict[str, FollowerState], "by name; those of the sidecar's own begin with !"]
    kafka: Annotated[list[KafkaState], "what is read from Kafka, by entry of `listen`"]
    hooks: Annotated[HookState | None, "null where no hook is configured"]
    http: Annotated[list[HttpState], "ports for HTTP"]
    reactor_delay: Annotated[float, "seconds that the reactor came late of late"]
    viewers: Annotated[int, "open streams of changes"]
    forwarders: Annotated[ForwarderState, "sidecars that forward to this one"]
    schedules: Annotated[SchedulesState | None, "in short; null where the config has none"]
    otlp: Annotated[OtlpState, "what comes by OTLP"]
    alerts: Annotated[dict[str, ChannelState], "by the channel's name"]


class Process(Shape):
    """`GET /api/process`."""

    pid: Annotated[int, "of the sidecar"]
    user: Annotated[int, "its number"]
    directory: Annotated[str, "where relative paths of the config begin"]
    config: Annotated[str, "its file; empty for the default one"]
    systemd: Annotated[bool, "whether it is a unit of systemd"]
    open_files: Annotated[int, "now"]
    open_files_max: Annotated[int, "its limit"]
    mounts: Annotated[dict[str, bool], "path -> whether it may only be read"]


class Letter(Shape, kw_only=True):
    """A dead letter, as its file holds it; texts are cut at 2,000 characters."""

    id: Annotated[str, "its id, made of its place in the journal"]
    code: Annotated[str, "why, as a word"]
    reason: Annotated[str, "why, as a sentence"]
    time: Annotated[Any, "when it was written"]
    file: Annotated[str, "what `wafermon replay` takes"]
    backend: Annotated[str | None, "which refused it"] = None
    client: Annotated[str | None, "its stream"] = None
    seq: Annotated[int | None, "its number"] = None
    service: Annotated[str | None, "who sent it"] = None
    host: Annotated[str | None, "as its connection said"] = None
    pid: Annotated[int | None, "as its connection said"] = None
    peer: Annotated[str | None, "its connection"] = None
    line: Annotated[str | None, "the line"] = None
    base64: Annotated[str | None, "the line, where it is not UTF-8"] = None


class Letters(Shape):
    """`GET /api/dead-letters`."""

    now: Annotated[Time, "the sidecar's time"]
    letters: Annotated[list[Letter], "the latest first"]


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


class NotKnown(Shape, kw_only=True):
    """A 404, 409 or 503."""

    error: Annotated[str, "what to do about it"]
    candidates: Annotated[list[str], "ids that begin so; ten at most"] = []


class Finding(Shape):
    """An entry of the list that `wafermon doctor --json` prints."""

    state: Annotated[str, "`ok`, `warning` or `error`"]
    what: Annotated[str, "what was found"]
    do: Annotated[str, "what to do about it; empty where it is ok"]


class ConfigDifference(Shape):
    """An entry of the list that `wafermon config diff --json` prints."""

    path: Annotated[str, "the key, with dots"]
    file: Annotated[Any, "its value in FILE"]
    other: Annotated[Any, "its value in OTHER"]


ANSWERS: tuple[type[msgspec.Struct], ...] = (
    Jobs, Kinds, Runs, Comparison, Trace, Receipt, Events, Errors, Services, Clients, Forwarders, Letters, Schedules, Rehearsed, Status, Process, Drained, Forgotten, NotKnown,
    Finding, ConfigDifference,
)  # fmt: skip
"""What is printed as a whole, or as the entries of a list."""


def fields(shape: type[msgspec.Struct]) -> dict[str, tuple[Any, str]]:
    """Name -> its type without the words, and the words. A time or a span keeps its own: it is Time, TimeOrZero or Span."""
    hints = get_type_hints(shape, include_extras=True)
    found = {}
    for field in msgspec.structs.fields(shape):
        kind, *words = get_args(hints[field.name])
        named = [one for one in (Time, TimeOrZero, Span) if words[0] == get_args(one)[1]]
        found[field.name] = (named[0] if named else kind, words[-1])
    return found
