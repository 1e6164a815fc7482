"""What calls check of their arguments: each of these gives the value as it is sent, or raises."""

from __future__ import annotations

import json
import re
from typing import Any

from .encoding import EXACT, as_text

LEVELS = {name: name for name in ("debug", "info", "warning", "error", "critical")}
_OTHER_LEVELS = {"warn": "warning", "err": "error", "fatal": "critical"}
SERVICE = re.compile(r"(?!wafermon$)[A-Za-z0-9._:-]{1,128}")
TRACE_ID = re.compile(r"[!-~]{1,128}")


def level_named(level: Any) -> str:
    """The level that another name or a number of logging's means."""
    text = as_text(level).strip().lower()
    found = LEVELS.get(text) or _OTHER_LEVELS.get(text)
    if not found and text.isdecimal() and 10 <= int(text[:9]) <= 50:
        found = list(LEVELS)[int(text) // 10 - 1]
    if not found or isinstance(level, bool):
        raise ValueError(f"unknown level: {level!r}; levels are {', '.join(LEVELS)}, or 10 to 50 as in logging")
    return found


def trace_id_of(trace_id: Any) -> str:
    if not isinstance(trace_id, str) or not TRACE_ID.fullmatch(trace_id):
        raise ValueError(f"a trace id is 1 to 128 printable ASCII characters without space, not {trace_id!r}")
    return trace_id


def name_of(name: Any) -> str:
    if not isinstance(name, (str, bytes)) or not name:
        raise ValueError(f"a name is a non-empty string, not {name!r}")
    return as_text(name)


def number_of(value: Any) -> int | float | str:
    """The value of a field that is a number; what JSON has no number for is spelled out."""
    if type(value) is not float and hasattr(type(value), "tolist"):
        value = value.tolist()  # numpy's
    if type(value) is int and -EXACT <= value <= EXACT:
        return value
    if isinstance(value, (bool, str, bytes)):
        raise TypeError(f"not a number: {value!r}")
    try:
        number = float(value)
    except OverflowError:
        number = float("inf") if value > 0 else -float("inf")
    return number if number - number == 0.0 else json.dumps(number)
