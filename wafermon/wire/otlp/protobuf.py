"""Requests and answers as protobuf. It needs opentelemetry's proto and Google's library, which are an extra.

The shapes have the fields of the proto under its own names, so that one walk serves all of them; what a shape does not have is passed
over. What differs is the form of ids and of 64-bit numbers.
"""

from __future__ import annotations

import types
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from importlib import import_module
from importlib.util import find_spec
from operator import attrgetter
from struct import Struct as Packer
from struct import error as StructError  # it is an exception
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


# -- shapes -> bytes
# Written by hand: to make Google's messages first, only to have them written, takes four times as long.


def _written(message: Any, shape: Struct) -> bytes:
    """Raises ValueError where a value is none of its field's type."""
    descriptor = message.DESCRIPTOR
    try:
        return _writer_of(type(shape), descriptor.full_name, descriptor.file.pool)(shape)
    except StructError as error:
        raise ValueError(f"a number that its field can't hold: {error}") from None


Write = Callable[[Any], bytes]


@cache
def _writer_of(kind: type[Struct], name: str, pool: Any) -> Write:
    """What makes of a shape the bytes of the message of that name."""
    if kind is AnyValue:
        return _written_value
    if kind is KeyValue:
        return _written_pair
    known = pool.FindMessageTypeByName(name).fields_by_name
    hints = get_type_hints(kind)
    names = [field for field in kind.__struct_fields__ if field in known]
    get = attrgetter(*names) if len(names) > 1 else lambda shape: (getattr(shape, names[0]),)
    steps = [(_writer(known[field], hints[field], pool), _is_optional(hints[field])) for field in names]

    def written(shape: Any) -> bytes:
        given = zip(steps, get(shape), strict=True)
        return b"".join(
            [write(value) for (write, optional), value in given if (value is not None if optional else value)]
        )

    return written


def _writer(field: Any, hint: Any, pool: Any) -> Write:
    """What writes a field's value, with the field's number before it."""
    shape = _shape_in(hint)
    if shape is not None:
        tag, write = _varint(field.number << 3 | 2), _writer_of(shape, field.message_type.full_name, pool)
        if get_origin(hint) is list:
            return lambda values: b"".join([tag + _sized(write(value)) for value in values])
        return lambda value: tag + _sized(write(value))
    form, convert = _FORMS[field.type]
    tag = _varint(field.number << 3 | form)
    return lambda value: tag + convert(value)


def _sized(data: bytes) -> bytes:
    size = len(data)
    return (_SIZES[size] if size < 128 else _varint(size)) + data


def _number(value: Any) -> bytes:
    """A number of variable length, or a boolean; negative ones take ten bytes."""
    return _varint(int(value) & 0xFFFF_FFFF_FFFF_FFFF)


_SIZES = [bytes([size]) for size in range(128)]
_DOUBLE, _FIXED64, _SFIXED64, _FIXED32 = map(Packer, ("<d", "<Q", "<q", "<I"))
_FORMS: Mapping[int, tuple[int, Write]] = {
    1: (1, lambda value: _DOUBLE.pack(float(value))),
    3: (0, _number),  # int64
    4: (0, _number),  # uint64
    5: (0, _number),  # int32
    6: (1, lambda value: _FIXED64.pack(int(value))),
    7: (5, lambda value: _FIXED32.pack(int(value))),
    8: (0, _number),  # bool
    9: (2, lambda value: _sized(value.encode())),
    12: (2, lambda value: _sized(bytes.fromhex(value))),
    13: (0, _number),  # uint32
    14: (0, _number),  # enum
    16: (1, lambda value: _SFIXED64.pack(int(value))),
}
"""By a field's type in its descriptor: the form that its tag says, and what writes a value. All bytes but those of values are ids."""


@lru_cache(4_096)
def _written_key(key: str) -> bytes:
    return b"\n" + _sized(key.encode())


def _written_pair(pair: KeyValue) -> bytes:
    if pair.value is None:
        return _written_key(pair.key)
    return _written_key(pair.key) + b"\x12" + _sized(_written_value(pair.value))


def _written_value(value: AnyValue) -> bytes:
    """An attribute's value, of which one field at most is set."""
    if value.string_value is not None:
        return b"\n" + _sized(value.string_value.encode())
    if value.int_value is not None:
        return b"\x18" + _number(value.int_value)
    if value.double_value is not None:
        return b"\x21" + _DOUBLE.pack(float(value.double_value))
    if value.bool_value is not None:
        return b"\x10\x01" if value.bool_value else b"\x10\x00"
    if value.array_value is not None:
        return b"*" + _sized(b"".join([b"\n" + _sized(_written_value(one)) for one in value.array_value.values]))
    if value.kvlist_value is not None:
        return b"2" + _sized(b"".join([b"\n" + _sized(_written_pair(one)) for one in value.kvlist_value.values]))
    return b":" + _sized(b64decode(value.bytes_value)) if value.bytes_value is not None else b""


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
    if kind is KeyValue:
        return _pair_of
    known = pool.FindMessageTypeByName(name).fields_by_name
    hints = get_type_hints(kind)
    names = tuple(field for field in kind.__struct_fields__ if field in known)
    get = attrgetter(*names) if len(names) > 1 else lambda message: (getattr(message, names[0]),)
    readers = [(at, *_reader(known[field], hints[field], pool)) for at, field in enumerate(names)]
    steps = [(at, read, optional, names[at]) for at, read, optional in readers if read is not None or optional]
    is_whole = names == kind.__struct_fields__

    def shape(message: Any) -> Any:
        values = list(get(message))
        for at, read, optional, name in steps:
            if optional and not message.HasField(name):
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
    if shape is KeyValue:
        return _pairs_of, False
    read = _shape_of(shape, field.message_type.full_name, pool)  # only values are within themselves
    if get_origin(hint) is list:
        return lambda values: list(map(read, values)), False
    return read, optional


def _pairs_of(pairs: Any) -> list[KeyValue]:
    return [KeyValue(one.key, _value_of(one.value)) for one in pairs]


def _pair_of(pair: Any) -> KeyValue:
    return KeyValue(pair.key, _value_of(pair.value))


def _value_of(value: Any) -> AnyValue:
    """An attribute's value."""
    if text := value.string_value:  # most are; the others have none
        return AnyValue(text)
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
        return AnyValue(kvlist_value=KeyValueList(_pairs_of(value.kvlist_value.values)))
    return AnyValue(bytes_value=b64encode(value.bytes_value).decode()) if kind == "bytes_value" else AnyValue()


def _is_optional(hint: Any) -> bool:
    return type(None) in get_args(hint)


def _shape_in(hint: Any) -> type[Struct] | None:
    """``list[X]`` and ``X | None`` -> X, where that is a shape."""
    if get_origin(hint) in (list, Union, types.UnionType):
        return next((one for one in get_args(hint) if isinstance(one, type) and issubclass(one, Struct)), None)
    return None
