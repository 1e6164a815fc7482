"""One line of LDJSON -> a checked message.

Reading what others wrote is strict: msgspec takes RFC 8259 to the letter, typed, in one pass in C. ujson does not read the
lines of others because it takes ``NaN``, ``01``, lone surrogates and raw control characters, which neither jq nor PostgreSQL
read, and because the byte scans that would find all of those cost more than msgspec's whole parse (benchmarks/parsers.py).

A message keeps the client's own bytes: what is stored is what was sent, plus the fields spliced in front.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from wafermon.model.errors import ProtocolError
from wafermon.model.messages import (
    BY_TYPE,
    CLIENT,
    LEVELS,
    MAX_NESTING,
    OWN_SERVICE,
    SEQ_MAX,
    SERVICE,
    SPAN_ID,
    TRACE_ID,
    Message,
    Progress,
    SpanEnd,
    SpanStart,
    Trace,
    Wire,
    convert,
    dumps,
)

decode_wire = msgspec.json.Decoder(Wire).decode
"""One line of a client -> a message of the known fields; raises for anything else. Strict, but it does not look at
what `check` looks at beyond the types."""
_decode_any = msgspec.json.Decoder().decode


class Origin(Struct, frozen=True):
    """What a connection says once for all its lines."""

    service: str = ""
    host: str = ""
    pid: int = -1
    client: str = ""
    """Empty where the connection said no hello: its lines may name any client."""
    numbered: bool = False
    """Every line must carry `client` and `seq`."""
    forwarded: bool = False
    """The lines are another sidecar's, whole as it stored them: also those that it derived, which no client may send."""


class LineError(ProtocolError):
    """A line that can't be accepted; `client` and `seq` are what could be read of it, else None."""

    def __init__(self, code: str, detail: str, client: str | None = None, seq: int | None = None) -> None:
        super().__init__(code, detail)
        self.client = client
        self.seq = seq


class LineReader:
    """Reads the lines of one connection one by one, with the exact reason where one is bad. `wafermon.wire.reader` reads whole
    blocks, and asks this one about the lines that it does not understand."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin

    def read_line(self, line: bytes, now: int) -> tuple[bytes, Message]:
        """One line without its newline -> what to store of it, completed where fields are missing, and its message.
        `now` (microseconds since the epoch) is its `ts` where it has none. Raises LineError."""
        value = read_object(line)
        client, seq = value.get("client"), value.get("seq")
        client = client if isinstance(client, str) else None
        seq = seq if type(seq) is int and 1 <= seq <= SEQ_MAX else None
        try:
            if b"\\u0000" in line and _has_nul(value):
                raise ProtocolError("bad_json", "a string holds NUL (\\u0000), which can't be stored")
            added = self._missing(value, now)
            message = _checked({**added, **value}, self.origin)
        except ProtocolError as error:
            raise LineError(error.code, error.detail, client, seq) from None
        if not added:
            return line, message
        rest = line[line.index(b"{") + 1 :]
        return dumps(added)[:-1].encode() + b"," + rest, message

    def _missing(self, value: Mapping[str, Any], now: int) -> dict[str, Any]:
        origin = self.origin
        added: dict[str, Any] = {}
        if "service" not in value and origin.service:
            added["service"] = origin.service
        if "host" not in value and origin.host:
            added["host"] = origin.host
        if "pid" not in value and origin.pid >= 0:
            added["pid"] = origin.pid
        if "ts" not in value:
            added["ts"] = now
        if value.get("type") == "progress" and "trace_id" not in value and isinstance(value.get("job_id"), str):
            added["trace_id"] = value["job_id"]
        return added


WITH_IDS = frozenset({Progress, SpanStart, SpanEnd})
_DECODERS = {name: msgspec.json.Decoder(struct).decode for name, struct in BY_TYPE.items()}
_JSON_TYPES = ((bool, "a boolean"), (str, "a string"), (list, "an array"), (int, "a number"), (float, "a number"))


def wrong_id(message: Any) -> str:
    """What is wrong with the ids that only some types have."""
    if type(message) is Progress:
        return "" if TRACE_ID.fullmatch(message.job_id) else f"job_id: {_TRACE_ID_WANTED}"
    if message.span_id is UNSET:
        return "span_id: missing"
    if message.trace_id is UNSET:
        return "trace_id: missing"
    if message.parent_id is not UNSET and not SPAN_ID.fullmatch(message.parent_id):
        return f"parent_id: {_SPAN_ID_WANTED}"
    return ""


def wrong_shared(service: Any, trace_id: Any, span_id: Any, client: Any, origin: Origin) -> str:
    """What is wrong with the ids that every type has."""
    if service is UNSET:
        return "service: missing, and there was no hello that names one"
    if not SERVICE.fullmatch(service):
        return "service: expected 1-128 of A-Z a-z 0-9 . _ - :"
    if service == OWN_SERVICE and not origin.forwarded:
        return f"service: {OWN_SERVICE!r} is reserved for the sidecar's own messages"
    if trace_id is not UNSET and not TRACE_ID.fullmatch(trace_id):
        return f"trace_id: {_TRACE_ID_WANTED}"
    if span_id is not UNSET and not SPAN_ID.fullmatch(span_id):
        return f"span_id: {_SPAN_ID_WANTED}"
    if client is UNSET:
        return "client: missing; every line of an acknowledged connection carries it" if origin.numbered else ""
    if origin.client and client != origin.client:
        return f"client: this connection carries the stream of {origin.client!r} alone"
    if not CLIENT.fullmatch(client):
        return "client: expected 16 of 0-9 a-f"
    return ""


_TRACE_ID_WANTED = "expected 1-128 printable ASCII characters without space"
_SPAN_ID_WANTED = "expected 16 of 0-9 a-f"


def read_object(line: bytes) -> dict[str, Any]:
    """A line -> its object, whatever that says. Raises LineError."""
    try:
        line.decode()
    except UnicodeDecodeError as error:
        raise LineError("bad_utf8", f"byte {error.start}: {error.reason}") from None
    if not line.strip():
        raise LineError("bad_json", "an empty line")
    try:
        value = _decode_any(line)
    except RecursionError:
        raise LineError("bad_message", _TOO_DEEP) from None
    except msgspec.ValidationError as error:
        raise LineError("bad_message", _out_of_range(line, error)) from None
    except msgspec.DecodeError as error:
        lone = _LONE_SURROGATE.search(line)
        detail = "a lone surrogate in a string" if lone else str(error).removeprefix("JSON is malformed: ")
        raise LineError("bad_json", detail) from None
    if not isinstance(value, dict):
        found = "null" if value is None else next(name for kind, name in _JSON_TYPES if isinstance(value, kind))
        raise LineError("bad_message", f"expected an object, got {found}")
    return value


def _out_of_range(line: bytes, error: Exception) -> str:
    """The typed decoders know the name of the field that holds the number."""
    for decode in _DECODERS.values():
        try:
            decode(line)
        except msgspec.ValidationError as typed:
            if "out of range" in str(typed):
                return _reworded(typed)
        except msgspec.DecodeError:
            break
    return _reworded(error)


def _checked(value: dict[str, Any], origin: Origin) -> Message:
    """An object with everything spliced in -> its message. Raises ProtocolError."""
    name = value.get("type")
    if name is None:
        raise ProtocolError("bad_message", "type: expected a string, got null" if "type" in value else "type: missing")
    if not isinstance(name, str):
        raise ProtocolError("bad_message", "type: expected a string")
    if name == "hello":
        raise ProtocolError("bad_message", "type: a hello is the first line of a connection, and only that")
    known = BY_TYPE.get(name)
    if known is None and origin.forwarded and name == Trace.type and value.get("service") == OWN_SERVICE:
        known = Trace
    if known is None:
        raise ProtocolError("unknown_type", f"type: {name[:64]!r} is none of {', '.join(BY_TYPE)}")
    if _deeper_than(value, MAX_NESTING + 1):
        raise ProtocolError("bad_message", _TOO_DEEP)
    try:
        message = convert(value, known)
    except msgspec.ValidationError as error:
        raise ProtocolError("bad_message", _reworded(error)) from None
    wrong = wrong_shared(message.service, message.trace_id, message.span_id, message.client, origin)
    if not wrong and origin.numbered and message.seq is UNSET:
        wrong = "seq: missing; every line of an acknowledged connection carries it"
    if not wrong and type(message) in WITH_IDS:
        wrong = wrong_id(message)
    if wrong:
        raise ProtocolError("bad_message", wrong)
    return message


_LONE_SURROGATE = re.compile(rb"(?i)(?<!\\)(?:\\\\)*\\u(?:d[89ab]..(?!\\ud[c-f])|d[c-f])")


_TOO_DEEP = f"nested deeper than {MAX_NESTING}"
_AT = re.compile(r"^(.*?)(?: - at `\$\.?([^`]*)`)?$", re.DOTALL)
_CHOICES = {
    "v": "2",
    "level": ", ".join(LEVELS),
    "kind": "gauge or counter",
    "value": "a number, 'NaN', 'Infinity' or '-Infinity'",
    "status": "ok or error",
}
_MISSING = re.compile(r"Object missing required field `(.*)`")


def _reworded(error: Exception) -> str:
    """msgspec's "Expected `int`, got `str` - at `$.seq`" as "seq: expected int, got str"."""
    match = _AT.match(str(error))
    what, path = (match[1], match[2]) if match else (str(error), "")
    if missing := _MISSING.match(what):
        return f"{missing[1]}: missing"
    what = what.replace("`", "")
    what = what[:1].lower() + what[1:]
    if path in _CHOICES and what.startswith("invalid enum value"):
        what = f"expected {_CHOICES[path]}, got {what.removeprefix('invalid enum value ')}"
    return f"{path}: {what}" if path else what


def _deeper_than(value: Any, depth: int) -> bool:
    """Whether objects and arrays are within each other more than `depth` times. Without recursion."""
    level = [value]
    while level and depth > 0:
        depth -= 1
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
    return bool(level)


def _has_nul(value: Any) -> bool:
    level = [value]
    while level:
        outer = level.pop()
        if isinstance(outer, str):
            if "\0" in outer:
                return True
        elif isinstance(outer, dict):
            level.extend(outer)
            level.extend(outer.values())
        elif isinstance(outer, list):
            level.extend(outer)
    return False
