"""What `--json` prints: what HTTP answers, its times as text. docs/json.md has every field.

The types of `wafermon.model.shapes` say which numbers are times. What a shape does not know, such as a field that a newer sidecar adds, is
printed as it came.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

Change = Callable[[Any], Any]
"""Of a value that is not null, to what is printed for it."""
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def as_json(value: Any, shape: str = "") -> str:
    """On one line. `shape` names one of `wafermon.model.shapes`, of `value` or, where that is a list, of its entries; without one nothing in it
    is a time."""
    if shape:
        change = _of_shape(shape)
        value = [change(one) for one in value] if isinstance(value, list) else change(value)
    return json.dumps(value, ensure_ascii=False)


def iso(microseconds: int) -> str:
    """A time since the Unix epoch as ISO 8601 in UTC, always with six digits of a second, so that texts sort as times do."""
    when = EPOCH + timedelta(microseconds=microseconds)
    return f"{when:%Y-%m-%dT%H:%M:%S}.{when.microsecond:06}Z"


def _iso_or_none(microseconds: int) -> str | None:
    return iso(microseconds) if microseconds else None


@cache
def _of_shape(name: str) -> Change:
    from wafermon.model import shapes  # costs as much as all the rest of a command

    return _change(getattr(shapes, name)) or (lambda value: value)


def _change(hint: Any) -> Change | None:
    """None where there is no time in it."""
    from wafermon.model.shapes import Time, TimeOrZero

    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return {Time: iso, TimeOrZero: _iso_or_none}.get(hint)
    if origin in (Union, UnionType):
        return next(filter(None, map(_change, inner)), None)
    if origin is list:
        return _each(_change(inner[0]))
    if origin is dict:
        return _each_value(_change(inner[1]))
    return _object(hint) if isinstance(hint, type) and hasattr(hint, "__struct_fields__") else None


def _each(change: Change | None) -> Change | None:
    return change and (lambda values: [None if one is None else change(one) for one in values])


def _each_value(change: Change | None) -> Change | None:
    return change and (lambda values: {key: None if one is None else change(one) for key, one in values.items()})


def _object(shape: Any) -> Change | None:
    from wafermon.model.shapes import fields

    changes = {name: change for name, (hint, _) in fields(shape).items() if (change := _change(hint))}

    def change_all(value: dict[str, Any]) -> dict[str, Any]:
        return {name: changes[name](one) if one is not None and name in changes else one for name, one in value.items()}

    return change_all if changes else None
