"""What commands alone print."""

from __future__ import annotations

from typing import Annotated, Any

from wafermon.model.shapes.base import Shape


class Finding(Shape):
    """An entry of the list that `wafermon doctor --json` prints."""

    state: Annotated[str, "`ok`, `warning` or `error`"]
    what: Annotated[str, "what was found"]
    do: Annotated[str, "what to do about it; empty where it is ok"]


class ConfigDifference(Shape):
    """An entry of the list that `wafermon config diff --json` prints."""

    path: Annotated[str, "the key, with dots"]
    file: Annotated[Any, "its value in FILE"]
    other: Annotated[Any, "its value in OTHER"]
