"""One line of LDJSON <-> a checked message. The only module that knows how JSON is read and written.

Reading what others wrote is strict (msgspec: RFC 8259 to the letter, typed, one pass in C); writing our own lines, and
reading them back, is ujson's work. ujson does not read the lines of others because it takes ``NaN``, ``01``, lone
surrogates and raw control characters, which neither jq nor PostgreSQL read, and because the byte scans that would find
all of those cost more than msgspec's whole parse (benchmarks/parsers.py).

A message keeps the client's own bytes: what is stored is what was sent, plus the fields spliced in front.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from operator import attrgetter
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import msgspec
import ujson
from msgspec import UNSET, Meta, Struct, UnsetType

from wafermon.errors import ProtocolError

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
Tags = dict[str, str | int | float]


class Message(Struct, tag_field="type", gc=False, kw_only=True, forbid_unknown_fields=True):
    """What all types share. An absent field is UNSET, which is false; once checked, `service` and `ts` are set.

    The structs hold the fields that the protocol names; unknown ones live in the line alone.
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


class Event(Message, tag="event"):
    type: ClassVar[str] = "event"
    level: Literal["debug", "info", "warning", "error", "critical"]  # type: ignore[misc]  # a field here, a default above
    message: str
    context: dict[str, Any] | UnsetType = UNSET


class Metric(Message, tag="metric"):
    type: ClassVar[str] = "metric"
    name: str
    value: int | float | Literal["NaN", "Infinity", "-Infinity"]
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


Wire = Event | Metric | Progress | Resource | SpanStart | SpanEnd
BY_TYPE: Mapping[str, type[Message]] = {
    "event": Event, "metric": Metric, "progress": Progress,
    "resource": Resource, "span_start": SpanStart, "span_end": SpanEnd,
}  # fmt: skip

SERVICE = re.compile(r"[A-Za-z0-9._:-]{1,128}")
TRACE_ID = re.compile(r"[!-~]{1,128}")
SPAN_ID = re.compile(r"[0-9a-f]{16}")

decode_wire = msgspec.json.Decoder(Wire).decode
"""One line of a client -> a message of the known fields; raises for anything else. Strict, but it does not look at
what `check` looks at beyond the types."""
decode_stored = msgspec.json.Decoder(Wire | Trace).decode
_decode_any = msgspec.json.Decoder().decode


class Kind(NamedTuple):
    """What a message has in common with its neighbours: checked and routed once for all that are alike."""

    service: str
    type: str
    level: str
    host: str
    trace_id: str
    client: str
    span_id: str
    pid: int


kind_of: Any = attrgetter("service", "type", "level", "host", "trace_id", "client", "span_id", "pid")
"""A message -> the fields of `Kind` as a tuple, UNSET where absent."""


class Origin(Struct, frozen=True):
    """What a connection says once for all its lines."""

    service: str = ""
    host: str = ""
    pid: int = -1
    client: str = ""
    """Empty where the connection said no hello: its lines may name any client."""
    numbered: bool = False
    """Every line must carry `client` and `seq`."""
