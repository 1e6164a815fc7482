"""Messages -> keys and headers of records. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from wafermon.model.blocks import Block
from wafermon.model.messages import Kind, Message, trace_of

_SERVICE, _TYPE = map(Kind._fields.index, ("service", "type"))
Headers = list[tuple[str, str | bytes | None]]


def keys_of(block: Block, key: str) -> Iterator[str | None]:
    """The key of each record; None where a message has none."""
    if key == "service":
        table, column = block.columns
        return (table[number][_SERVICE] for number in column)
    messages: Sequence[Message] = block.messages
    if key == "host":
        return (one.host if isinstance(one.host, str) and one.host else None for one in messages)
    return (found if isinstance(found, str) else None for found in map(trace_of, messages))


def headers_of(block: Block) -> Iterator[Headers]:
    """The headers of each record: a reader can choose by them without reading the line."""
    table, column = block.columns
    known = [_headers(kind) for kind in table]
    return (known[number] for number in column)


def _headers(kind: tuple[Any, ...]) -> Headers:
    return [("type", str(kind[_TYPE]).encode()), ("service", str(kind[_SERVICE]).encode())]
