"""What OpenTelemetry's programs send -> lines as the protocol has them. Pure. docs/otlp.md has the same as a table.

A line is not judged here: it goes the way of all lines, where what is wrong with it gets its words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from wafermon.model.messages import OWN_SERVICE, SERVICE, TRACE_ID, dumps
from wafermon.receivers.otlp.senders import TEXT, Sender
from wafermon.wire.otlp.ids import NO_SPAN, NO_TRACE, nobody_hex, trace_hex
from wafermon.wire.otlp.levels import level_of
from wafermon.wire.otlp.shapes import (
    DELTA,
    KINDS,
    NO_VALUE,
    STATUS_ERROR,
    CountedPoint,
    KeyValue,
    LogRecord,
    Logs,
    Metric,
    Metrics,
    NumberDataPoint,
    Request,
    Resource,
    Scope,
    Span,
    Traces,
)
from wafermon.wire.otlp.values import double_of, long_of, number_of, plain, plain_all

Resolve = Callable[[str], "str | None"]
"""A trace id of OTLP -> the id of the trace here whose hash that is, if it is known."""
Fields = dict[str, Any]
JOB = "job.id"
UNKNOWN = "unknown_service"
_SURE = 2**53
"""Whole numbers beyond this are text: not all readers of JSON keep them."""
_HEX32, _HEX16 = re.compile(r"[0-9a-f]{32}"), re.compile(r"[0-9a-f]{16}")
_NO_SERVICE = re.compile(r"[^A-Za-z0-9._:-]")
_TOLD = {"service.name", "host.name", "process.pid", "service.instance.id"}
_HOST_MOST = 255
_PART = 8
"""Of the longest line: the context, the tags and the resource of a line that is too long get one of so many parts each."""
_CUTS = 20
SENDERS = 100
"""Programs of one request that are told apart."""


class Made(NamedTuple):
    """The lines of a request."""

    lines: list[bytes]
    """Without their newlines."""
    records: list[int]
    """Which record of the request each line is of."""
    total: int
    """How many records there are."""
    timed: bool
    """Whether each of them says its time: only then are two equal requests one that came twice."""
    senders: Mapping[Sender, int]
    """How many lines are of each program; of the first `SENDERS` alone."""


def lines_of(request: Request, resolve: Resolve, longest: int) -> Made:
    """`longest` is what a line may have in bytes. Raises ValueError for a number or bytes that are none."""
    lines: list[bytes] = []
    records: list[int] = []
    number, timed = -1, True
    senders: dict[Sender, int] = {}
    told: list[Resource | None] = []
    whose: Resource | None = None
    sender = sender_of(None)
    for number, made in enumerate(_records(request, _Traces(resolve), told)):
        if told[-1] is not whose or not number:
            whose = told[-1]
            sender = sender_of(whose)
        if sender in senders or len(senders) < SENDERS:
            senders[sender] = senders.get(sender, 0) + len(made)
        for fields in made:
            timed = timed and "ts" in fields
            lines.append(_line(fields, longest))
            records.append(number)
    return Made(lines, records, number + 1, timed, senders)


def _records(request: Request, traces: _Traces, told: list[Resource | None]) -> Iterator[list[Fields]]:
    """`told` gets the resource of what is yielded next."""
    if isinstance(request, Logs):
        for of_logs in request.resource_logs:
            told[:] = [of_logs.resource]
            origin = _origin(of_logs.resource)
            for logs in of_logs.scope_logs:
                whose = _whose(origin, logs.scope)
                for record in logs.log_records:
                    yield [_event(record, whose, traces)]
    elif isinstance(request, Traces):
        for of_spans in request.resource_spans:
            told[:] = [of_spans.resource]
            origin = _origin(of_spans.resource)
            for spans in of_spans.scope_spans:
                whose = _whose(origin, spans.scope)
                for span in spans.spans:
                    yield _span(span, whose, traces)
    elif isinstance(request, Metrics):
        for of_metrics in request.resource_metrics:
            told[:] = [of_metrics.resource]
            origin = _origin(of_metrics.resource)
            for metrics in of_metrics.scope_metrics:
                whose = _whose(origin, metrics.scope)
                for metric in metrics.metrics:
                    yield from _points(metric, whose)


# -- whose it is


def _origin(resource: Resource | None) -> Fields:
    """What a resource says of all its lines. Its further attributes go into the line as they are."""
    said = plain_all(resource.attributes) if resource is not None else {}
    origin: Fields = {"service": service_of(said.get("service.name"))}
    host, pid = said.get("host.name"), said.get("process.pid")
    if isinstance(host, str) and host:
        origin["host"] = "".join(one for one in host if one.isprintable())[:_HOST_MOST]
    if type(pid) is int and 0 <= pid <= _SURE:
        origin["pid"] = pid
    more = {key: one for key, one in said.items() if key not in _TOLD and not key.startswith("telemetry.")}
    if more:
        origin["resource"] = safe(more)
    return origin


def sender_of(resource: Resource | None) -> Sender:
    """The program that a resource tells of."""
    said = plain_all(resource.attributes) if resource is not None else {}
    origin = _origin(resource)
    sdk = "-".join(filter(None, (_short(said, "telemetry.sdk.name"), _short(said, "telemetry.sdk.language"))))
    version = _short(said, "telemetry.sdk.version")
    return Sender(
        origin["service"],
        origin.get("host", ""),
        origin.get("pid"),
        _short(said, "service.instance.id"),
        f"{sdk}/{version}"[:TEXT] if sdk and version else sdk[:TEXT],
    )


def _short(said: Fields, key: str) -> str:
    text = said.get(key)
    return "".join(one for one in text[:TEXT] if one.isprintable()) if isinstance(text, str) else ""


def _whose(origin: Fields, scope: Scope | None) -> Fields:
    return {**origin, "scope": scope.name} if scope is not None and scope.name else origin


def service_of(name: object) -> str:
    """A name as the protocol has it: what that may not hold becomes ``_``."""
    if not isinstance(name, str) or not name:
        return UNKNOWN
    service = name if SERVICE.fullmatch(name) else _NO_SERVICE.sub("_", name)[:128]
    return f"{service}_" if service == OWN_SERVICE else service


# -- ids and values


class _Ids(NamedTuple):
    trace_id: str
    """Empty where there is none."""
    otlp: str
    """The same as it came."""


class _Traces(dict[str, _Ids]):
    """The traces of one request, by their ids as they came, which many of its records share."""

    def __init__(self, resolve: Resolve) -> None:
        super().__init__()
        self._resolve = resolve

    def __missing__(self, trace_id: str) -> _Ids:
        given = trace_id.lower()
        has_one = bool(_HEX32.fullmatch(given)) and given != NO_TRACE
        found = self[trace_id] = _Ids(self._resolve(given) or given, given) if has_one else _Ids("", "")
        return found


def _ids(trace_id: str, said: Fields, traces: _Traces) -> _Ids:
    """The trace that is meant. An attribute `job.id` says it, where the trace's id is its hash, or is missing; it is then taken away."""
    if JOB not in said:
        return traces[trace_id]
    given = trace_id.lower()
    has_one = bool(_HEX32.fullmatch(given)) and given != NO_TRACE
    job = said.get(JOB)
    if isinstance(job, str) and TRACE_ID.fullmatch(job) and (not has_one or trace_hex(job) == given):
        del said[JOB]
        return _Ids(job, given)
    return traces[trace_id]


def _span_id(span_id: str) -> str:
    """Empty where there is none."""
    given = span_id.lower()
    return given if _HEX16.fullmatch(given) and given != NO_SPAN else ""


def _ts(*nanoseconds: int | str) -> Fields:
    """The first time that is given, in microseconds; nothing where none is."""
    for given in nanoseconds:
        if ts := long_of(given) // 1000:
            return {"ts": ts}
    return {}


def safe(value: Any) -> Any:
    """Numbers that not all readers of JSON keep become text."""
    if isinstance(value, str):
        return value
    if type(value) is int and not -_SURE <= value <= _SURE:
        return str(value)
    if isinstance(value, dict):
        return {key: safe(one) for key, one in value.items()}
    return [safe(one) for one in value] if isinstance(value, list) else value


def _tags(attributes: list[KeyValue]) -> Fields:
    """Text, numbers and null are as they are; anything else is JSON in a text."""
    return {key: one if isinstance(one, str) else _tag(safe(one)) for key, one in plain_all(attributes).items()}


def _tag(value: Any) -> Any:
    return dumps(value) if isinstance(value, (bool, list, dict)) else value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else dumps(value)


# -- what it is


def _event(record: LogRecord, whose: Fields, traces: _Traces) -> Fields:
    said: Fields = safe(plain_all(record.attributes))
    ids, span_id = _ids(record.trace_id, said, traces), _span_id(record.span_id)
    if record.event_name:
        said["event.name"] = record.event_name
    fields: Fields = {
        "type": "event",
        **_ts(record.time_unix_nano, record.observed_time_unix_nano),
        **whose,
        "level": level_of(record.severity_number, record.severity_text),
        "message": _text(safe(plain(record.body))) or record.event_name,
    }
    if ids.trace_id:
        fields["trace_id"] = ids.trace_id
    if span_id:
        fields["span_id"] = span_id
    if said:
        fields["context"] = said
    return fields


def _span(span: Span, whose: Fields, traces: _Traces) -> list[Fields]:
    """A span's end, and before that the events within it."""
    tags = _tags(span.attributes)
    ids, parent = _ids(span.trace_id, tags, traces), _span_id(span.parent_span_id)
    start, end = long_of(span.start_time_unix_nano), long_of(span.end_time_unix_nano)
    status = span.status
    if 1 < span.kind < len(KINDS):
        tags.setdefault("kind", KINDS[span.kind])
    if status is not None and status.message:
        tags.setdefault("status.message", status.message)
    if span.links:
        linked = [f"{_ids(link.trace_id, {}, traces).trace_id}/{_span_id(link.span_id)}" for link in span.links]
        tags.setdefault("links", " ".join(linked))
    within: Fields = {**whose}
    if ids.trace_id:
        within["trace_id"] = ids.trace_id
    if span_id := _span_id(span.span_id):
        within["span_id"] = span_id
    made: list[Fields] = []
    for event in span.events:
        said: Fields = safe(plain_all(event.attributes))
        fields = {"type": "event", **_ts(event.time_unix_nano, end), **within}
        fields |= {"level": "error" if event.name == "exception" else "info", "message": _event_text(event.name, said)}
        made.append({**fields, "context": said} if said else fields)
    ended: Fields = {"type": "span_end", **_ts(end, start), **within, "name": span.name, "start": start // 1000}
    ended["duration"] = max(0, end - start) / 1000
    ended["status"] = "error" if status is not None and status.code == STATUS_ERROR else "ok"
    # A program that was told a trace and no span has a made-up parent in it.
    if parent and parent != nobody_hex(ids.trace_id):
        ended["parent_id"] = parent
    if tags:
        ended["tags"] = tags
    return [*made, ended]


def _event_text(name: str, said: Mapping[str, Any]) -> str:
    """What an event of a span says; of an exception its type and message."""
    kind, message = said.get("exception.type"), said.get("exception.message")
    if name == "exception" and (kind or message):
        return ": ".join(_text(part) for part in (kind, message) if part)
    return name


def _points(metric: Metric, whose: Fields) -> Iterator[list[Fields]]:
    for point in metric.gauge.data_points if metric.gauge is not None else ():
        yield _number(metric, point, whose, "gauge")
    if metric.sum is not None:
        # A message of a counter says how many more; a total is a gauge of it.
        kind = "counter" if metric.sum.aggregation_temporality == DELTA else "gauge"
        for point in metric.sum.data_points:
            yield _number(metric, point, whose, kind)
    for histogram in (metric.histogram, metric.exponential_histogram):
        if histogram is not None:
            kind = "counter" if histogram.aggregation_temporality == DELTA else "gauge"
            for counted in histogram.data_points:
                yield _counted(metric, counted, whose, kind)
    for counted in metric.summary.data_points if metric.summary is not None else ():
        yield _counted(metric, counted, whose, "gauge")


def _number(metric: Metric, point: NumberDataPoint, whose: Fields, kind: str) -> list[Fields]:
    value: Any = None
    if point.as_double is not None:
        value = double_of(number_of(point.as_double))
    elif point.as_int is not None:
        value = long_of(point.as_int)
    if value is None or point.flags & NO_VALUE:
        return []
    return [_metric(metric.name, metric.unit, value, kind, point, whose)]


def _counted(metric: Metric, point: CountedPoint, whose: Fields, kind: str) -> list[Fields]:
    """How often, and the sum: what the buckets say is passed over."""
    if point.flags & NO_VALUE:
        return []
    made = [_metric(f"{metric.name}_count", "1", long_of(point.count), kind, point, whose)]
    if point.sum is not None:
        made.append(_metric(f"{metric.name}_sum", metric.unit, double_of(number_of(point.sum)), kind, point, whose))
    return made


def _metric(
    name: str, unit: str, value: Any, kind: str, point: NumberDataPoint | CountedPoint, whose: Fields
) -> Fields:
    fields: Fields = {"type": "metric", **_ts(point.time_unix_nano), **whose, "name": name, "value": value}
    if unit:
        fields["unit"] = unit
    if kind != "gauge":
        fields["kind"] = kind
    if point.attributes:
        fields["tags"] = _tags(point.attributes)
    return fields


# -- the line


def _line(fields: Fields, longest: int) -> bytes:
    """One that is too long is shortened, and says so. (What is too long even then is for the reader to refuse.)"""
    line = _encoded(fields)
    if len(line) <= longest:
        return line
    short: Fields = {**fields, "truncated": True}
    for key in ("context", "tags", "resource"):
        if key in short and len(_encoded(short[key])) > longest // _PART:
            short[key] = {"truncated": _cut(dumps(short[key]), longest // _PART)}
    key = "message" if "message" in short else "name"
    room = longest - len(_encoded({**short, key: ""}))
    if isinstance(short.get(key), str):
        short[key] = _cut(short[key], room)
    return _encoded(short)


def _cut(text: str, room: int) -> str:
    """Its beginning, which takes up to so many bytes as JSON."""
    for _ in range(_CUTS):
        size = len(_encoded(text))
        if size <= room or not text:
            return text
        text = text[: int(len(text) * max(room, 0) / size * 0.98)]
    return ""


def _encoded(fields: Any) -> bytes:
    line = msgspec.json.encode(fields)
    return msgspec.json.encode(_without_nul(fields)) if b"\\u0000" in line else line


def _without_nul(value: Any) -> Any:
    """NUL can't be stored by all backends."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, dict):
        return {_without_nul(key): _without_nul(one) for key, one in value.items()}
    return [_without_nul(one) for one in value] if isinstance(value, list) else value
