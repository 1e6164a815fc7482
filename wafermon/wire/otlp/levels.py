"""Levels <-> severities. Pure."""

from __future__ import annotations

from typing import NamedTuple


class Severity(NamedTuple):
    number: int
    text: str


SEVERITIES = {
    "debug": Severity(5, "DEBUG"),
    "info": Severity(9, "INFO"),
    "warning": Severity(13, "WARN"),
    "error": Severity(17, "ERROR"),
    "critical": Severity(21, "FATAL"),
}
_WORDS = {
    "trace": "debug", "debug": "debug", "info": "info", "information": "info", "notice": "info", "warn": "warning",
    "warning": "warning", "err": "error", "error": "error", "fatal": "critical", "critical": "critical",
    "alert": "critical", "emergency": "critical", "panic": "critical",
}  # fmt: skip


def level_of(number: int, text: str) -> str:
    """A severity's level. Where it has no number its text is asked, and what says nothing is ``info``."""
    if number <= 0:
        return _WORDS.get(text.strip().lower(), "info")
    return ("debug", "debug", "info", "warning", "error", "critical")[min((number - 1) // 4, 5)]
