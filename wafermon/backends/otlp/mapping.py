"""Messages -> what OTLP has for them. Pure. docs/backends/otlp.md has the same as a table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from wafermon.model.messages import OWN_SERVICE, TERMINAL, Event, Message, Metric, Progress, Resource, SpanEnd, Trace
from wafermon.wire.otlp.ids import span_hex, trace_hex
from wafermon.wire.otlp.levels import SEVERITIES
from wafermon.wire.otlp.shapes import (
    KINDS,
    STATUS_ERROR,
    AnyValue,
    Exemplar,
    KeyValue,
    LogRecord,
    NumberDataPoint,
    Signal,
    Span,
    Status,
)
from wafermon.wire.otlp.values import attributes_of, double_of

JOB, UID, EVENT_NAME = "job.id", "log.record.uid", "event.name"
_SEVERITY_OF_END = {"done": "info", "failed": "error", "cancelled": "warning"}
_LOG_KEYS = (JOB, UID, EVENT_NAME)
_INTERNAL = KINDS.index("internal")


class Origin(NamedTuple):
    """Whose message it is: a resource of OTLP."""

    service: str
    host: str
    pid: int
    """-1 where it is not known."""
    client: str


class Point(NamedTuple):
    """One value of a metric."""

    name: str
    unit: str
    kind: str
    """``gauge``, ``counter`` (an increment), ``total`` (of a counter that the program keeps) or ``level`` (a sum that also falls)."""
    value: float
    tags: tuple[tuple[str, Any], ...]
    data: NumberDataPoint


class Item(NamedTuple):
    """What one message becomes in one signal; some become several."""

    number: int
    """The index of its message in the batch."""
    origin: Origin
    what: LogRecord | Span | Point


def origin_of(message: Message) -> Origin:
    pid = message.pid if isinstance(message.pid, int) else -1
    return Origin(str(message.service), message.host or "", pid, message.client or "")


def resource_of(origin: Origin, more: dict[str, str]) -> list[KeyValue]:
    """Its attributes; `more` come from the config."""
    said: dict[str, Any] = {"service.name": origin.service}
    if origin.host:
        said["host.name"] = origin.host
    if origin.pid >= 0:
        said["process.pid"] = origin.pid
    if origin.client:
        said["service.instance.id"] = origin.client
    return attributes_of({**said, **more})


def items_of(signal: Signal, message: Message, index: int, received: int, *, progress: bool) -> Iterator[Item]:
    """What a message is in a signal, if anything. `received` is in microseconds since the Unix epoch; `progress`: whether each
    progress message is a point of a metric."""
    if signal == "logs":
        if isinstance(message, (Event, Trace, Progress)) and (record := _record(message, received)):
            yield Item(index, origin_of(message), record)
    elif signal == "traces":
        if isinstance(message, (SpanEnd, Event)) and (span := _span(message)):
            yield Item(index, origin_of(message), span)
    elif isinstance(message, (Metric, Resource)) or (progress and isinstance(message, Progress)):
        origin = origin_of(message)
        for point in _points(message):
            yield Item(index, origin, point)


def _points(message: Metric | Progress | Resource) -> Iterator[Point]:
    if isinstance(message, Metric):
        kind, tags = message.kind or "gauge", message.tags or {}
        yield _point(message, message.name, message.unit or "", kind, message.value, tags)
    elif isinstance(message, Progress):
        yield _point(message, "job.progress", "%", "gauge", message.percent, {JOB: message.job_id})
    else:
        if isinstance(message.cpu, float):
            yield _point(message, "process.cpu.utilization", "1", "gauge", message.cpu / 100, {})
        if isinstance(message.mem, float):
            yield _point(message, "process.memory.usage", "By", "level", message.mem, {})
        if isinstance(message.disk, float):
            yield _point(message, "process.disk.io", "By", "total", message.disk, {})
        if isinstance(message.net, float):
            yield _point(message, "process.network.io", "By", "total", message.net, {})


def _point(message: Message, name: str, unit: str, kind: str, value: float | str, tags: dict[str, Any]) -> Point:
    number = float(value)
    time, said = str(_ts(message) * 1000), double_of(number)
    data = NumberDataPoint(time_unix_nano=time, as_double=said, attributes=attributes_of(tags))
    if message.trace_id:
        span_id = span_hex(message.span_id) if message.span_id else ""
        data.exemplars = [
            Exemplar(time_unix_nano=time, as_double=said, span_id=span_id, trace_id=trace_hex(message.trace_id))
        ]
    return Point(name, unit, kind, number, tuple(sorted(tags.items())), data)


def _ts(message: Message) -> int:
    return message.ts or 0


def _record(message: Event | Trace | Progress, received: int) -> LogRecord | None:
    level: str
    said: dict[str, Any]
    name = ""
    if isinstance(message, Event):
        level, text, said = message.level, message.message, message.context or {}
    elif isinstance(message, Trace):
        level = _SEVERITY_OF_END.get(message.status, "info")
        text = f"trace {message.trace_id} ended: {message.status}"
        name = "wafermon.trace"
        said = {
            key: getattr(message, key) for key in ("status", "first", "last", "services", "counts", "errors", "part")
        }
    elif message.status in TERMINAL:
        level = _SEVERITY_OF_END[message.status]
        text = f"job {message.job_id} {message.status} at {message.percent:g} %"
        name = "wafermon.job"
        said = {"status": message.status, "percent": message.percent}
    else:
        return None
    if not said.keys().isdisjoint(_LOG_KEYS):
        said = {key: value for key, value in said.items() if key not in _LOG_KEYS}
    severity, ts = SEVERITIES[level], message.ts or 0
    record = LogRecord(
        time_unix_nano=f"{ts}000" if ts else "0",
        observed_time_unix_nano=f"{received or ts}000" if received or ts else "0",
        severity_number=severity.number,
        severity_text=severity.text,
        event_name=name,
        body=AnyValue(string_value=text),
        attributes=attributes_of(said),
    )
    if message.trace_id:
        record.trace_id = trace_hex(message.trace_id)
        if message.span_id:
            record.span_id = span_hex(message.span_id)
    job = message.job_id if isinstance(message, Progress) else message.trace_id
    own = record.attributes
    if job:
        own.append(KeyValue(JOB, AnyValue(job)))
    if message.client and message.seq:
        own.append(KeyValue(UID, AnyValue(f"{message.client}-{message.seq}")))
    if name:
        own.append(KeyValue(EVENT_NAME, AnyValue(name)))
    if message.truncated:
        own.append(KeyValue("wafermon.truncated", AnyValue(bool_value=True)))
    return record


def _span(message: SpanEnd | Event) -> Span | None:
    """A span that has ended, or one that was given up."""
    if not message.trace_id:
        return None
    if isinstance(message, Event):
        return _abandoned(message)
    start = message.start
    tags = dict(message.tags or {})
    kind = tags.get("kind")
    number = KINDS.index(kind) if isinstance(kind, str) and kind in KINDS[1:] else 0
    if number:
        del tags["kind"]
    span = Span(
        trace_id=trace_hex(message.trace_id),
        span_id=span_hex(message.span_id or ""),
        parent_span_id=span_hex(message.parent_id) if message.parent_id else "",
        name=message.name,
        kind=number or _INTERNAL,
        start_time_unix_nano=str(start * 1000),
        end_time_unix_nano=str(start * 1000 + round(message.duration * 1000)),
        attributes=attributes_of({**tags, JOB: message.trace_id}),
    )
    if message.status == "error":
        span.status = Status(code=STATUS_ERROR)
    return span


def _abandoned(message: Event) -> Span | None:
    """Of the sidecar's own event about it. What it says is checked: a replayed line may say anything."""
    said = message.context or {}
    span_id, name, service, started = (said.get(key) for key in ("span_id", "name", "service", "started"))
    if message.service != OWN_SERVICE or said.get("kind") != "span_abandoned":
        return None
    if not isinstance(span_id, str) or not isinstance(name, str) or type(started) is not int or not message.trace_id:
        return None
    return Span(
        trace_id=trace_hex(message.trace_id),
        span_id=span_hex(span_id),
        name=name,
        kind=_INTERNAL,
        start_time_unix_nano=str(started * 1000),
        end_time_unix_nano=str(max(started, _ts(message)) * 1000),
        attributes=attributes_of({"service": str(service), JOB: message.trace_id}),
        status=Status(message.message, STATUS_ERROR),
    )
