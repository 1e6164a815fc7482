"""The sidecar itself: what is connected to it, what it is doing, what it refused."""

from __future__ import annotations

from typing import Annotated, Any

from wafermon.model.shapes.base import Shape, Time


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
    jobs_gone: Annotated[int, "whose program ended without saying so"]


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
