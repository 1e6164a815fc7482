"""Requests and answers as protobuf. It needs opentelemetry's proto and Google's library, which are an extra.

The shapes have the fields of the proto under its own names, so that one walk serves all of them; what a shape does not have is passed
over. What differs is the form of ids and of 64-bit numbers.
"""

from __future__ import annotations

import types
from base64 import b64decode, b64encode
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from operator import attrgetter
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from msgspec import Struct

from wafermon.wire.otlp.shapes import (
    SIGNALS,
    Answer,
    AnyValue,
    ArrayValue,
    Failure,
    KeyValue,
    KeyValueList,
    Logs,
    Metrics,
    Request,
    Signal,
    Traces,
)

MISSING = "protobuf needs packages that are not installed: pip install 'wafermon[otlp]'"
_HEX = {"trace_id", "span_id", "parent_span_id"}
_NUMBERS = {"count", "as_int", "rejected_log_records", "rejected_data_points", "rejected_spans"}
_DOUBLES = {"as_double", "sum"}
_SERVICE = "opentelemetry.proto.collector.{0}.v1.{0}_service_pb2"
_WORDS: dict[Signal, str] = {"logs": "Logs", "metrics": "Metrics", "traces": "Trace"}
_SHAPES: dict[Signal, type[Request]] = {"logs": Logs, "metrics": Metrics, "traces": Traces}
S = TypeVar("S", bound=Struct)


class Malformed(ValueError):
    """Bytes that are no such message."""


@cache
def is_there() -> bool:
    """Whether it can be had."""
    try:
        return find_spec("opentelemetry.proto") is not None and find_spec("google.protobuf") is not None
    except ModuleNotFoundError:
        return False


def encode(signal: Signal, request: Request) -> bytes:
    return _written(_message(signal, "Request"), request)


def decode(signal: Signal, data: bytes) -> Request:
    """Raises Malformed."""
    return _read(_message(signal, "Request"), _SHAPES[signal], data)


class TooMany(ValueError):
    """A request of more messages within each other than are wanted: each costs memory, and takes two bytes."""


def check_count(signal: Signal, data: bytes, most: int) -> None:
    """Count the messages of a request before any is made. Raises TooMany or Malformed. Takes up to a second for a million."""
    pending = [(0, len(data), _inner(_message(signal, "Request").DESCRIPTOR.full_name, signal))]
    count = 0
    try:
        while pending:
            at, end, inner = pending.pop()
            while at < end:
                tag, at = _read_varint(data, at)
                form = tag & 7
                if form == 2:
                    length, at = _read_varint(data, at)
                    if at + length > end:
                        raise Malformed("a field is longer than its message")
                    name = inner.get(tag >> 3)
                    if name is not None:
                        count += 1
                        if count > most:
                            raise TooMany(f"more than {most} values in one request")
                        pending.append((at, at + length, _inner(name, signal)))
                    at += length
                elif form == 0:
                    _, at = _read_varint(data, at)
                elif form in (1, 5):
                    at += 8 if form == 1 else 4
                else:
                    raise Malformed("a field of a form that is not known")
    except IndexError:
        raise Malformed("it ends in the middle of a field") from None


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = data[at]
    at += 1
    if value < 128:
        return value, at
    value, shift = value & 127, 7
    while True:
        part = data[at]
        at += 1
        value |= (part & 127) << shift
        if part < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise Malformed("a number of more than 64 bits")


@cache
def _inner(name: str, signal: Signal) -> dict[int, str]:
    """The fields of a message that are messages themselves: their numbers, and the messages' names."""
    pool = _message(signal, "Request").DESCRIPTOR.file.pool
    fields = pool.FindMessageTypeByName(name).fields
    return {field.number: field.message_type.full_name for field in fields if field.message_type is not None}


def encode_answer(signal: Signal, answer: Answer) -> bytes:
    return _written(_message(signal, "Response"), answer)


def decode_answer(signal: Signal, data: bytes) -> Answer:
    """Raises Malformed."""
    return _read(_message(signal, "Response"), Answer, data)


def encode_failure(failure: Failure) -> bytes:
    """google.rpc.Status, whose own package is not needed for two fields."""
    text = failure.message.encode()
    return (b"\x08" + _varint(failure.code) if failure.code else b"") + b"\x12" + _varint(len(text)) + text


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


@cache
def _message(signal: Signal, what: str) -> Any:
    assert signal in SIGNALS
    module = import_module(_SERVICE.format("trace" if signal == "traces" else signal))
    return getattr(module, f"Export{_WORDS[signal]}Service{what}")


# -- shapes -> messages


def _written(message: Any, shape: Struct) -> bytes:
    written: bytes = message(**_fields_of(type(shape))(shape)).SerializeToString()
    return written


Fields = dict[str, Any]


@cache
def _fields_of(kind: type[Struct]) -> Callable[[Any], Fields]:
    """What makes of a shape what its message is made of."""
    if kind is AnyValue:
        return _fields_of_value
    hints = get_type_hints(kind)
    names = kind.__struct_fields__
    get = attrgetter(*names) if len(names) > 1 else lambda shape: (getattr(shape, names[0]),)
    steps = [(name, _writer(name, hints[name]), _is_optional(hints[name])) for name in names]

    def fields(shape: Any) -> Fields:
        made: Fields = {}
        for (name, write, optional), value in zip(steps, get(shape), strict=True):
            if value is None if optional else not value:
                continue
            made[name] = value if write is None else write(value)
        return made

    return fields


def _writer(name: str, hint: Any) -> Callable[[Any], Any] | None:
    """What makes of a field's value what its message has; None: that is the same."""
    shape = _shape_in(hint)
    if shape is not None and get_origin(hint) is list:
        return lambda values: list(map(_fields_of(shape), values))
    if shape is not None:
        return lambda value: _fields_of(shape)(value)
    if name in _HEX:
        return bytes.fromhex
    if name in _NUMBERS or name.endswith("_unix_nano"):
        return int
    return float if name in _DOUBLES else None


def _fields_of_value(value: AnyValue) -> Fields:
    """Of an attribute's value, of which one field at most is set."""
    if value.string_value is not None:
        return {"string_value": value.string_value}
    if value.int_value is not None:
        return {"int_value": int(value.int_value)}
    if value.double_value is not None:
        return {"double_value": float(value.double_value)}
    if value.bool_value is not None:
        return {"bool_value": value.bool_value}
    if value.array_value is not None:
        return {"array_value": {"values": list(map(_fields_of_value, value.array_value.values))}}
    if value.kvlist_value is not None:
        return {"kvlist_value": {"values": list(map(_fields_of(KeyValue), value.kvlist_value.values))}}
    return {"bytes_value": b64decode(value.bytes_value)} if value.bytes_value is not None else {}


# -- messages -> shapes


def _read(message: Any, shape: type[S], data: bytes) -> S:
    from google.protobuf.message import DecodeError

    try:
        parsed = message.FromString(data)
    except DecodeError as error:
        raise Malformed(str(error)) from None
    made: S = _shape_of(shape, message.DESCRIPTOR.full_name, message.DESCRIPTOR.file.pool)(parsed)
    return made


@cache
def _shape_of(kind: type[Struct], name: str, pool: Any) -> Callable[[Any], Any]:
    """What makes of a message of that name its shape."""
    if kind is AnyValue:
        return _value_of
    known = pool.FindMessageTypeByName(name).fields_by_name
    hints = get_type_hints(kind)
    names = tuple(field for field in kind.__struct_fields__ if field in known)
    get = attrgetter(*names) if len(names) > 1 else lambda message: (getattr(message, names[0]),)
    steps = [_reader(known[field], hints[field], pool) for field in names]
    is_whole = names == kind.__struct_fields__

    def shape(message: Any) -> Any:
        values = list(get(message))
        for at, (read, optional) in enumerate(steps):
            if optional and not message.HasField(names[at]):
                values[at] = None
            elif read is not None:
                values[at] = read(values[at])
        return kind(*values) if is_whole else kind(**dict(zip(names, values, strict=True)))

    return shape


def _reader(field: Any, hint: Any, pool: Any) -> tuple[Callable[[Any], Any] | None, bool]:
    """What makes of a message's field what its shape has (None: that is the same), and whether it may be absent."""
    optional = _is_optional(hint) and field.has_presence
    if field.name in _HEX:
        return bytes.hex, optional
    shape = _shape_in(hint)
    if shape is None:
        return None, optional
    inner = field.message_type.full_name
    if get_origin(hint) is list:
        return lambda values: list(map(_shape_of(shape, inner, pool), values)), False
    return lambda value: _shape_of(shape, inner, pool)(value), optional


def _value_of(value: Any) -> AnyValue:
    """An attribute's value."""
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return AnyValue(value.string_value)
    if kind == "int_value":
        return AnyValue(int_value=value.int_value)
    if kind == "double_value":
        return AnyValue(double_value=value.double_value)
    if kind == "bool_value":
        return AnyValue(bool_value=value.bool_value)
    if kind == "array_value":
        return AnyValue(array_value=ArrayValue(list(map(_value_of, value.array_value.values))))
    if kind == "kvlist_value":
        pairs = [KeyValue(one.key, _value_of(one.value)) for one in value.kvlist_value.values]
        return AnyValue(kvlist_value=KeyValueList(pairs))
    return AnyValue(bytes_value=b64encode(value.bytes_value).decode()) if kind == "bytes_value" else AnyValue()


def _is_optional(hint: Any) -> bool:
    return type(None) in get_args(hint)


def _shape_in(hint: Any) -> type[Struct] | None:
    """``list[X]`` and ``X | None`` -> X, where that is a shape."""
    if get_origin(hint) in (list, Union, types.UnionType):
        return next((one for one in get_args(hint) if isinstance(one, type) and issubclass(one, Struct)), None)
    return None
