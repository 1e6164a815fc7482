"""Checks one mapping against what a section declares, and says what is wrong with it in the words of the manual."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import ValidationError

from wafermon.model.describe import choices_of, declared_at, keys, section_of, without_choices, wording
from wafermon.model.errors import ConfigError, Fault
from wafermon.model.settings import Section

Path = tuple[str | int, ...]
"""Where a value stands: ``("routes", 0, "to")``."""
M = TypeVar("M", bound=Section)
_SHOWN_MAX = 60


def checked(section: type[M], given: Mapping[str, Any]) -> M:
    """A mapping -> its section. Raises ConfigError with every fault, each path dotted and relative to the section."""
    try:
        return section.model_validate(dict(given))
    except ValidationError as error:
        raise ConfigError([Fault(dotted(at), problem) for at, problem in problems(section, error)]) from None


def problems(section: type[Section], error: ValidationError) -> Iterator[tuple[Path, str]]:
    """What pydantic found: where, and what in words."""
    for details in error.errors(include_url=False):
        at = tuple(details["loc"])
        if at and at[-1] in choices_of(declared_at(section, at[:-1])):
            at = at[:-1]  # it is none of the sections that may stand there
        problem = _problem(section, at, details["type"], details["input"], details.get("ctx", {}))
        yield without_choices(section, at), problem


def dotted(path: Path) -> str:
    """A path as faults show it: ``routes[0].to``."""
    steps = (
        f"[{step}]" if isinstance(step, int) else f".{step if step.isprintable() else repr(step)}" for step in path
    )
    return "".join(steps).removeprefix(".")


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
    if kind == "value_error":
        return str(context["error"])
    if kind == "extra_forbidden":
        return f"unknown key; {did_you_mean(str(at[-1]), _keys_at(section, at[:-1]))}"
    wanted = wording(declared_at(section, at))
    if kind == "missing":
        example = _example_at(section, at)
        return f"missing; for example {example}" if example else f"missing; expected {wanted}"
    if kind == "greater_than_equal":
        return f"expected {wanted} of at least {context['ge']}, got {value}"
    if kind == "string_too_short":
        return f"expected {wanted}, got an empty one"
    quotes = "; put it in quotes" if kind == "string_type" and type(value) in (int, float) else ""
    return f"expected {wanted}, got {shown(value)}{quotes}"


def _keys_at(section: type[Section], at: Path) -> list[str]:
    """The keys that the mapping at a path may have."""
    inner = section_of(declared_at(section, at))
    return [*keys(inner), *inner.further_keys] if inner else []


def _example_at(section: type[Section], at: Path) -> str:
    """The first of the key's `examples`; empty where it has none."""
    inner = section_of(declared_at(section, at[:-1])) if len(at) > 1 else section
    field = keys(inner).get(str(at[-1])) if inner else None
    return str(field.examples[0]) if field and field.examples else ""


def _one_of(names: list[str]) -> str:
    return f"one of {', '.join(names)}" if len(names) > 1 else "".join(names) or "none"
