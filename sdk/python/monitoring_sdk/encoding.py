"""A message's line: JSON of whatever a call was given, in plain types and short enough."""

from __future__ import annotations

import itertools
import numbers
import re
import reprlib
from collections.abc import Mapping
from json.encoder import encode_basestring as _quote
from typing import Any, Callable

BODY_MAX = 65_536 - 64  # bytes; the rest of a line is for client and seq

# Integers beyond the first are sent as text, containers nested deeper than the second too. After so many values a
# context is not copied further: it can't fit into a line. Cutting strings below so many characters gains nothing.
EXACT = 1 << 53
_DEPTH = 8
_NODES = 32_768
_SHORTEST = 64
_FLAT = frozenset((str, int, float, bool, type(None)))
_FLAT_MAX = 64


def _kind(name: str, *fields: str) -> tuple[str, ...]:
    """A message type: how its line begins, and the keys of its own fields; context or tags come last."""
    return (f'{{"type":"{name}","ts":', *[f',"{field}":' for field in fields])


EVENT = _kind("event", "level", "message", "context")
METRIC = _kind("metric", "name", "value", "unit", "kind", "tags")
PROGRESS = _kind("progress", "job_id", "percent", "status")
RESOURCE = _kind("resource", "cpu", "mem", "disk", "net")
SPAN_START = _kind("span_start", "name", "parent_id", "tags")
SPAN_END = _kind("span_end", "status", "name", "start", "duration", "parent_id", "tags")
STATS = _kind("stats", "called", "dropped", "unsent", "last", "streams", "final")


def to_json(value: Any, most: int = BODY_MAX) -> str:
    """JSON of a value made of plain types only, its strings cut to so many characters.

    What JSON can't say becomes null, a string or U+FFFD.
    """
    kind = type(value)
    if kind is str:
        return _quote(value[:most].replace("\0", "\ufffd"))
    if kind is int:
        # the interpreter refuses to write out very long integers in decimal
        text = repr(value) if value.bit_length() < 2_000 else hex(value)
        return text if -EXACT <= value <= EXACT else f'"{text}"'
    if kind is float:
        return repr(value) if value - value == 0.0 else "null"
    if kind is dict:
        items = [
            f"{to_json(key if type(key) is str else as_text(key))}:{to_json(item, most)}" for key, item in value.items()
        ]
        return "{" + ",".join(items) + "}"
    if kind is list:
        return "[" + ",".join([to_json(item, most) for item in value]) + "]"
    if value is None:
        return "null"
    return "true" if value else "false"


def utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return re.sub("[\ud800-\udfff]", "\ufffd", text).encode()  # lone surrogates


def as_text(value: Any, convert: Callable[[Any], str] = str) -> str:
    """Any object as text, whatever its own methods do."""
    try:
        if isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value).decode("utf-8", "replace")
        return str.__str__(value if isinstance(value, str) else convert(value))
    except Exception:
        return f"<{type(value).__name__}>"


def _plain(value: Any, depth: int, left: list[int]) -> Any:
    """A deep copy in plain types, cut at depth 8 and after `left[0]` values; what raises on the way becomes text."""
    left[0] -= 1
    if type(value) in _FLAT:
        return value
    try:
        if isinstance(value, (dict, list, tuple, Mapping, set, frozenset)):
            if depth > _DEPTH:
                return as_text(value, reprlib.repr)
            mapping = isinstance(value, (dict, Mapping))
            items: Any = value
            if mapping:
                items = items.items()
            # listed first, in one go: another thread may change it at the same time
            items = list(itertools.islice(items, max(0, left[0])))
            if mapping:
                return {as_text(key): _plain(item, depth + 1, left) for key, item in items}
            return [_plain(item, depth + 1, left) for item in items]
        if hasattr(type(value), "tolist"):  # a scalar or an array of numpy and its kin
            small = value.nbytes <= _NODES * 8 if isinstance(getattr(value, "nbytes", None), int) else True
            return _plain(value.tolist(), depth, left) if small else as_text(value)
        if isinstance(value, numbers.Integral):
            return int(value)
        return float(value) if isinstance(value, numbers.Real) else as_text(value)
    except Exception:
        return f"<{type(value).__name__}>"


def copied(fields: Any) -> Any:
    """A context as it is now, in plain types; a small flat dict, as most are, needs no more than a copy."""
    if type(fields) is dict and len(fields) <= _FLAT_MAX:
        fields = fields.copy()
        if _FLAT.issuperset(map(type, fields.values())):
            return fields
    if fields is None:
        return None
    if not isinstance(fields, Mapping):
        raise TypeError(f"context and tags are mappings, not {type(fields).__name__}")
    plain = _plain(fields, 1, [_NODES])
    return plain if type(plain) is dict else {"value": plain}


def copied_tags(tags: Any) -> Any:
    """Tags are strings and numbers: None is left out, and whatever else comes along becomes text."""
    given = {key: tag for key, tag in (copied(tags) or {}).items() if tag is not None}
    return {key: tag if type(tag) in (str, int, float) else to_json(tag) for key, tag in given.items()} or None


def encode(kind: tuple[str, ...], ts: int, origin: str, values: list[Any]) -> bytes:
    """A message without its client, its seq and its closing brace, short enough for any line."""

    def body(most: int, end: str = ',"truncated":true') -> bytes:
        fields = [key + to_json(value, most) for key, value in zip(kind[1:], values) if value is not None]
        return utf8(f"{kind[0]}{ts}{origin}{''.join(fields)}{end}")

    line = body(BODY_MAX, "")
    if len(line) <= BODY_MAX:
        return line
    least, most = _SHORTEST, BODY_MAX
    if len(body(least)) > BODY_MAX:
        values[-1] = None
    while most - least > 1:  # the longest strings are cut, all to the same length: the greatest that fits
        middle = (least + most) // 2
        least, most = (middle, most) if len(body(middle)) <= BODY_MAX else (least, middle)
    return body(least)


def numbered(body: bytes, client: str, seq: int) -> bytes:
    return b'%s,"client":"%s","seq":%d}\n' % (body, client.encode(), seq)
