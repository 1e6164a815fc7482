"""Checks one mapping against its section and says what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import ValidationError

from wafermon.config.config import Config
from wafermon.config.describe import declared_at, section_of, wording
from wafermon.config.source import Path, Source
from wafermon.model.settings import Section, Settings

M = TypeVar("M", bound=Section)
_SHOWN_MAX = 60


def check_section(source: Source, section: type[M], given: Any, path: Path) -> M | None:
    """A mapping -> its section; None where it has faults, which are noted in the source."""
    try:
        return section.model_validate(given)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            at = tuple(details["loc"])
            context = details.get("ctx", {})
            source.fault((*path, *at), _problem(section, at, details["type"], details["input"], context))
    return None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a fault about a word that is none of those known."""
    names = list(known)
    close = get_close_matches(word, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"expected {_one_of(names)}"


def shown(value: Any) -> str:
    """A value as a fault quotes it: on one line, and short."""
    if isinstance(value, (dict, list, tuple)):
        return "a mapping" if isinstance(value, dict) else "a list"
    if value is None or isinstance(value, bool):
        return "nothing" if value is None else str(value).lower()
    text = repr(value)
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}…"


def _problem(section: type[Section], at: Path, kind: str, value: Any, context: dict[str, Any]) -> str:
    """What pydantic found, in the words of the manual."""
    if kind == "value_error":
        return str(context["error"])
    if kind == "extra_forbidden":
        return f"unknown key; {did_you_mean(str(at[-1]), _keys_at(section, at[:-1]))}"
    wanted = wording(declared_at(section, at))
    if kind == "missing":
        return f"missing; expected {wanted}"
    if kind == "greater_than_equal":
        return f"expected {wanted} of at least {context['ge']}, got {value}"
    if kind == "string_too_short":
        return f"expected {wanted}, got an empty one"
    quotes = "; put it in quotes" if kind == "string_type" and type(value) in (int, float) else ""
    return f"expected {wanted}, got {shown(value)}{quotes}"


def _keys_at(section: type[Section], at: Path) -> list[str]:
    """The keys that the mapping at a path may have."""
    inner = section_of(declared_at(section, at))
    return list((Config if inner is Settings else inner).model_fields) if inner else []


def _one_of(names: list[str]) -> str:
    return f"one of {', '.join(names)}" if len(names) > 1 else "".join(names) or "none"
