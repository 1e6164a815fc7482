"""Spans in the order in which people read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any


def tree(spans: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Spans -> the same, each with its ``depth``: every parent followed by its children, earliest first. They have
    ``span_id``, ``parent_id`` (may be empty, or of a span that is not among them), ``name``, ``service``, ``start``,
    ``duration`` (microseconds) and ``status``, both None while it is open.

    Without recursion; ids that name each other as parent come out once too."""
    by_start = {span["span_id"]: span for span in sorted(spans, key=lambda span: (span["start"], span["span_id"]))}
    children: dict[str, list[str]] = {}
    for span_id, span in by_start.items():
        children.setdefault(span["parent_id"], []).append(span_id)
    roots = [span_id for span_id, span in by_start.items() if span["parent_id"] not in by_start]
    seen: set[str] = set()
    for root in [*roots, *by_start]:
        stack = [(root, 0)]
        while stack:
            span_id, depth = stack.pop()
            if span_id in seen:
                continue
            seen.add(span_id)
            yield {**by_start[span_id], "depth": depth}
            stack.extend((child, depth + 1) for child in reversed(children.get(span_id, ())))
