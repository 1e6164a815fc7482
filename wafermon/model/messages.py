"""The messages: one struct per type, the ids and limits that their fields obey, and their stored form.

Reading is strict (msgspec: RFC 8259 to the letter, typed, one pass in C). Writing whatever else is our own, and reading it
back, is ujson's work. `wafermon.wire.lines` reads what clients send.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import msgspec
import ujson
from msgspec import UNSET, Meta, Struct, UnsetType

TS_MIN = 946_684_800_000_000
"""The year 2000, in microseconds since the Unix epoch."""
TS_MAX = 7_258_118_400_000_000
"""The year 2200."""
SEQ_MAX = 2**53
MAX_NESTING = 32
"""How deep the values of a line may nest below the message itself."""
OWN_SERVICE = "wafermon"
LEVELS = ("debug", "info", "warning", "error", "critical")
TERMINAL = ("done", "failed", "cancelled")
"""The progress statuses that end a job."""

Text = Annotated[str, Meta(min_length=1, max_length=128)]
Whole = Annotated[int, Meta(ge=0, le=SEQ_MAX)]
Ts = Annotated[int, Meta(ge=TS_MIN, le=TS_MAX)]
Seq = Annotated[int, Meta(ge=1, le=SEQ_MAX)]
Tags = dict[str, str | float | None]


class Message(Struct, tag_field="type", gc=False, kw_only=True):
    """What all types share. An absent field is UNSET, which is false; once checked, `service` and `ts` are set.

    The structs hold the fields that the protocol names; unknown ones live in the line alone. msgspec passes over those without
    looking at all that is in them: `wafermon.wire.reader` does.
    """

    type: ClassVar[str] = ""
    level: ClassVar[str] = ""
    v: Literal[2] | UnsetType = UNSET
    ts: Ts | UnsetType = UNSET
    """Microseconds since the Unix epoch."""
    service: Text | UnsetType = UNSET
    host: str | UnsetType = UNSET
    pid: Whole | UnsetType = UNSET
    trace_id: Text | UnsetType = UNSET
    span_id: str | UnsetType = UNSET
    client: str | UnsetType = UNSET
    seq: Seq | UnsetType = UNSET
    truncated: bool | UnsetType = UNSET
    replay_to: Text | UnsetType = UNSET
    """The one backend that a replayed dead letter goes to, because that one had refused it."""


class Event(Message, tag="event"):
    type: ClassVar[str] = "event"
    level: Literal["debug", "info", "warning", "error", "critical"]  # type: ignore[misc]  # a field here, a default above
    message: str
    context: dict[str, Any] | UnsetType = UNSET


class Metric(Message, tag="metric"):
    type: ClassVar[str] = "metric"
    name: str
    value: float | Literal["NaN", "Infinity", "-Infinity"]
    unit: str | UnsetType = UNSET
    tags: Tags | UnsetType = UNSET
    kind: Literal["gauge", "counter"] | UnsetType = UNSET


class Progress(Message, tag="progress"):
    type: ClassVar[str] = "progress"
    job_id: Text
    percent: Annotated[float, Meta(ge=0, le=100)]
    status: Annotated[str, Meta(min_length=1, max_length=64)] | UnsetType = UNSET


class Resource(Message, tag="resource"):
    type: ClassVar[str] = "resource"
    cpu: float | UnsetType = UNSET
    mem: float | UnsetType = UNSET
    disk: float | UnsetType = UNSET
    net: float | UnsetType = UNSET


class SpanStart(Message, tag="span_start"):
    type: ClassVar[str] = "span_start"
    name: str
    parent_id: str | UnsetType = UNSET
    tags: Tags | UnsetType = UNSET


class SpanEnd(Message, tag="span_end"):
    type: ClassVar[str] = "span_end"
    name: str
    status: Literal["ok", "error"]
    start: Ts
    """The start's `ts`, in microseconds since the Unix epoch."""
    duration: Annotated[float, Meta(ge=0)]
    """Microseconds on the monotonic clock."""
    parent_id: str | UnsetType = UNSET
    tags: Tags | UnsetType = UNSET


class SpillStream(Struct, gc=False):
    """A stream of its own: one spill file of an SDK."""

    client: Annotated[str, Meta(pattern=r"\A[0-9a-f]{16}\Z")]
    last: Whole
    """The greatest `seq` in it."""


class Stats(Message, tag="stats"):
    """What an SDK says of itself in its own stream, so that it can be told whether everything came."""

    type: ClassVar[str] = "stats"
    called: Whole
    """Calls that were accepted since the SDK began."""
    dropped: Whole
    """Messages that it had to drop since then."""
    unsent: Whole
    """Accepted calls whose messages have no `seq` anywhere yet."""
    last: Whole
    """The greatest `seq` given before this line."""
    streams: Annotated[list[SpillStream], Meta(max_length=1000)]
    final: bool | UnsetType = UNSET
    """The SDK was closed: nothing follows."""


class Trace(Message, tag="trace"):
    """The sidecar's own summary of a trace, or of what came after its last part."""

    type: ClassVar[str] = "trace"
    first: Ts
    last: Ts
    services: list[str]
    counts: dict[str, int]
    """Messages by type, and events by level: ``{"event": 3, "metric": 1, "level.error": 1}``."""
    errors: int
    status: Literal["done", "failed", "cancelled", "idle"]
    part: Annotated[int, Meta(ge=1)]


Wire = Event | Metric | Progress | Resource | SpanStart | SpanEnd | Stats
BY_TYPE: Mapping[str, type[Message]] = {
    "event": Event, "metric": Metric, "progress": Progress,
    "resource": Resource, "span_start": SpanStart, "span_end": SpanEnd, "stats": Stats,
}  # fmt: skip

SERVICE = re.compile(r"[A-Za-z0-9._:-]{1,128}")
TRACE_ID = re.compile(r"[!-~]{1,128}")
SPAN_ID = CLIENT = re.compile(r"[0-9a-f]{16}")

_decode_known = msgspec.json.Decoder(Wire | Trace).decode
_decode_any = msgspec.json.Decoder().decode


class Kind(NamedTuple):
    """What a message has in common with many others: all that its route and its files depend on. Its trace, its client and the
    process are no part of it, so that there are few."""

    service: str
    type: str
    level: str
    host: str | UnsetType
    replay_to: str | UnsetType


kind_of: Callable[[Message], tuple[Any, ...]] = attrgetter(*Kind._fields)
"""A message -> the fields of `Kind` as a plain tuple."""
ts_of: Callable[[Message], Any] = attrgetter("ts")
trace_of: Callable[[Message], Any] = attrgetter("trace_id")
seq_of: Callable[[Message], Any] = attrgetter("seq")
client_of: Callable[[Message], Any] = attrgetter("client")


def decode_stored(line: bytes) -> Message:
    """A line as it was stored -> its message. Raises msgspec.DecodeError for what no sidecar stores."""
    try:
        message: Message = _decode_known(line)
        return message
    except msgspec.ValidationError:  # of keys that are there twice the last one counts
        value = _decode_any(line)
        known = Trace if value["type"] == "trace" else BY_TYPE[value["type"]]
        return convert(value, known)


def decode_all(lines: Sequence[bytes]) -> list[Message]:
    """The same for each of many lines."""
    try:
        return list(map(_decode_known, lines))
    except msgspec.ValidationError:
        return list(map(decode_stored, lines))


class _Traced(Struct, gc=False):
    trace_id: str | UnsetType = UNSET


_decode_trace = msgspec.json.Decoder(_Traced).decode


def trace_ids(lines: Sequence[bytes]) -> list[str | UnsetType]:
    """That of each of these stored lines, of which nothing else is read. Raises msgspec.DecodeError for what no sidecar stores."""
    try:
        return [one.trace_id for one in map(_decode_trace, lines)]
    except msgspec.ValidationError:  # see `decode_stored`
        return [decode_stored(line).trace_id for line in lines]


class Measured(Struct, gc=False, tag_field="type", tag="metric"):
    """Of a metric what is summed up of it."""

    service: str
    name: str
    value: float | str
    trace_id: str | UnsetType = UNSET
    unit: str | UnsetType = UNSET


_decode_measured = msgspec.json.Decoder(Measured).decode


def measured(lines: Sequence[bytes]) -> list[Measured] | list[Metric]:
    """The metrics that these stored lines are, without their tags. Raises msgspec.DecodeError for what no sidecar stores."""
    try:
        return list(map(_decode_measured, lines))
    except msgspec.ValidationError:  # see `decode_stored`
        return [message for line in lines if isinstance(message := decode_stored(line), Metric)]


encode_stored: Callable[[Message], bytes] = msgspec.json.Encoder().encode
"""A message of the sidecar's own -> its line, without the newline, as it is stored."""


def dumps(value: Any) -> str:
    """An object of our own as one compact line of JSON, without a newline."""
    return ujson.dumps(value, ensure_ascii=False, escape_forward_slashes=False)


def loads(text: str | bytes) -> Any:
    """Read what `dumps` wrote."""
    return ujson.loads(text)


def decode_value(text: bytes) -> Any:
    """Any JSON -> its value. Raises msgspec.DecodeError."""
    return _decode_any(text)


def decode_object(line: bytes) -> dict[str, Any]:
    """A stored line -> its object, with the fields that no struct knows. Raises msgspec.DecodeError for what no sidecar stores."""
    value: dict[str, Any] = _decode_any(line)
    return value


def convert(value: dict[str, Any], known: type[Message]) -> Message:
    """An object without the fields that no struct knows -> its message. Raises msgspec.ValidationError."""
    message: Message = msgspec.convert(
        {k: v for k, v in value.items() if k in known.__struct_fields__ or k == "type"}, known
    )
    return message
