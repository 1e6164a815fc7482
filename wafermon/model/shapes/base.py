"""What shapes are made of: the types of times, and what several answers have in common."""

from __future__ import annotations

from typing import Annotated, Any, get_args, get_type_hints

import msgspec

Time = Annotated[int, "microseconds since the Unix epoch"]
TimeOrZero = Annotated[int, "microseconds since the Unix epoch, or 0"]
Span = Annotated[int, "microseconds"]


class Shape(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """An object that has these fields and no others."""


class Listed(Shape):
    """What each list has beside its entries."""

    now: Annotated[Time, "the sidecar's time"]
    total: Annotated[int | None, "how many the filter takes, on all pages; null where that is not counted"]
    left_out: Annotated[
        int | None, "on the first page: how many of these it does not show; null where that is not counted"
    ]
    more: Annotated[bool, "whether there is more"] = False
    next: Annotated[str, "what to give as `after` to go on; empty at the end"] = ""
    searched_to: Annotated[TimeOrZero, "where a search that took too long was ended"] = 0
    sources: Annotated[list[str], "what was asked: `live`, and the backend that stores"] = []
    problems: Annotated[list[str], "sentences on what could not be asked"] = []


class NotKnown(Shape, kw_only=True):
    """A 404, 409 or 503."""

    error: Annotated[str, "what to do about it"]
    candidates: Annotated[list[str], "ids that begin so; ten at most"] = []


def fields(shape: type[msgspec.Struct]) -> dict[str, tuple[Any, str]]:
    """Name -> its type without the words, and the words. A time or a span keeps its own: it is Time, TimeOrZero or Span."""
    hints = get_type_hints(shape, include_extras=True)
    found = {}
    for field in msgspec.structs.fields(shape):
        kind, *words = get_args(hints[field.name])
        named = [one for one in (Time, TimeOrZero, Span) if words[0] == get_args(one)[1]]
        found[field.name] = (named[0] if named else kind, words[-1])
    return found
