"""JSON's values <-> attributes. Pure."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Iterable, Mapping
from math import isfinite, isinf, isnan
from typing import Any

from wafermon.model.messages import dumps
from wafermon.wire.otlp.shapes import AnyValue, ArrayValue, Double, KeyValue, KeyValueList, Long

NESTING = 16
"""What nests deeper is text: readers of protobuf stop at a hundred messages within each other, and each level takes up to three."""
_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1


def value_of(value: Any, nesting: int = NESTING) -> AnyValue:
    """A value of JSON as OTLP has it. null is a value without anything set."""
    if isinstance(value, str):
        return AnyValue(string_value=value)
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int) and _INT_MIN <= value <= _INT_MAX:
        return AnyValue(int_value=str(value))
    if isinstance(value, (int, float)):
        return AnyValue(double_value=double_of(float(value)))
    if isinstance(value, (list, dict)) and not nesting:
        return AnyValue(string_value=dumps(value))
    if isinstance(value, list):
        return AnyValue(array_value=ArrayValue([value_of(one, nesting - 1) for one in value]))
    if isinstance(value, dict):
        pairs = [KeyValue(key, value_of(one, nesting - 1)) for key, one in value.items()]
        return AnyValue(kvlist_value=KeyValueList(pairs))
    return AnyValue()


def attributes_of(values: Mapping[str, Any]) -> list[KeyValue]:
    """Those whose key is empty are left out: OTLP has no such attribute."""
    return [KeyValue(key, value_of(value)) for key, value in values.items() if key]


def double_of(value: float) -> Double:
    """A double as OTLP's JSON has it."""
    if isfinite(value):
        return value
    return "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"


def number_of(value: Double) -> float:
    """What `double_of` makes, or another program. Raises ValueError."""
    return float(value)


def long_of(value: Long) -> int:
    """A 64-bit number. Raises ValueError."""
    if isinstance(value, str) and (len(value) > 20 or not value.lstrip("-").isascii()):
        raise ValueError(f"{value[:30]!r} is no 64-bit number")
    return int(value)


def plain(value: AnyValue | None) -> Any:
    """An attribute's value as JSON has it: bytes in hexadecimal, numbers that are none as text. Raises ValueError."""
    if value is None:
        return None
    if value.string_value is not None:
        return value.string_value
    if value.int_value is not None:
        return long_of(value.int_value)
    if value.bool_value is not None:
        return value.bool_value
    if value.double_value is not None:
        number = number_of(value.double_value)
        return str(double_of(number)) if isinf(number) or isnan(number) else number
    if value.array_value is not None:
        return [plain(one) for one in value.array_value.values]
    if value.kvlist_value is not None:
        return plain_all(value.kvlist_value.values)
    if value.bytes_value is not None:
        try:
            return b64decode(value.bytes_value, validate=True).hex()
        except NotBase64:
            raise ValueError("bytes are not in base64") from None
    return None


def plain_all(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    """Attributes as an object; of keys that are there twice the last one counts. Raises ValueError."""
    return {one.key: plain(one.value) for one in pairs}
