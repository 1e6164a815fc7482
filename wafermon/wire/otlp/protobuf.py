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
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from msgspec import Struct

from wafermon.wire.otlp.shapes import SIGNALS, Answer, Failure, Logs, Metrics, Request, Signal, Traces

MISSING = "protobuf needs packages that are not installed: pip install 'wafermon[otlp]'"
_HEX = {"trace_id", "span_id", "parent_span_id"}
_NUMBERS_OF_ANSWERS = {"rejected_log_records", "rejected_data_points", "rejected_spans"}
_NUMBERS = {"count", "int_value", "as_int", *_NUMBERS_OF_ANSWERS}
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
    written: bytes = message(**_fields(shape)).SerializeToString()
    return written


def _fields(shape: Struct) -> dict[str, Any]:
    """What a message is made of."""
    fields: dict[str, Any] = {}
    for name in shape.__struct_fields__:
        value = getattr(shape, name)
        if value is None or (value == 0 and name in _NUMBERS_OF_ANSWERS):
            continue  # each signal's answer has one of these alone
        if isinstance(value, Struct):
            value = _fields(value)
        elif isinstance(value, list):
            value = [_fields(one) for one in value]
        elif isinstance(value, str):
            value = _from_text(name, value)
        fields[name] = value
    return fields


def _from_text(name: str, value: str) -> Any:
    if name in _HEX:
        return bytes.fromhex(value)
    if name in _NUMBERS or name.endswith("_unix_nano"):
        return int(value)
    if name in ("double_value", "as_double", "sum"):
        return float(value)
    return b64decode(value) if name == "bytes_value" else value


# -- messages -> shapes


def _read(message: Any, shape: type[S], data: bytes) -> S:
    from google.protobuf.message import DecodeError

    try:
        parsed = message.FromString(data)
    except DecodeError as error:
        raise Malformed(str(error)) from None
    return _shape(shape, parsed)


def _shape(kind: type[S], message: Any) -> S:
    readers = _readers(kind)
    fields = {}
    for field, value in message.ListFields():
        name = field.name
        reader = readers.get(name, _pass_over)
        if reader is None:
            fields[name] = value
        elif reader is not _pass_over:
            fields[name] = reader(value)
    return kind(**fields)


def _pass_over(value: Any) -> Any:
    raise AssertionError


@cache
def _readers(kind: type[Struct]) -> dict[str, Callable[[Any], Any] | None]:
    """How the fields of a shape are made of a message's; None: as they are."""
    return {name: _reader(name, hint) for name, hint in get_type_hints(kind).items() if name in kind.__struct_fields__}


def _reader(name: str, hint: Any) -> Callable[[Any], Any] | None:
    if name in _HEX:
        return bytes.hex
    if name == "bytes_value":
        return lambda value: b64encode(value).decode()
    shape = _shape_in(hint)
    if shape is None:
        return None
    if get_origin(hint) is list:
        return lambda values: [_shape(shape, one) for one in values]
    return lambda value: _shape(shape, value)


def _shape_in(hint: Any) -> type[Struct] | None:
    """``list[X]`` and ``X | None`` -> X, where that is a shape."""
    if get_origin(hint) in (list, Union, types.UnionType):
        return next((one for one in get_args(hint) if isinstance(one, type) and issubclass(one, Struct)), None)
    return None
