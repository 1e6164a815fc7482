"""Levels of events, by name, glob or comparison."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from wafermon.model.messages import LEVELS

_COMPARISON = re.compile(r"(<=|>=|<|>) *(.*)")


def levels_of(glob: str) -> frozenset[str]:
    """The levels that a glob or a comparison such as ``>=warning`` takes in; none where it makes no sense."""
    comparison = _COMPARISON.fullmatch(glob)
    if not comparison:
        return frozenset(level for level in LEVELS if fnmatchcase(level, glob))
    sign, level = comparison.groups()
    if level not in LEVELS:
        return frozenset()
    at = LEVELS.index(level)
    first, last = {"<": (0, at), "<=": (0, at + 1), ">": (at + 1, None), ">=": (at, None)}[sign]
    return frozenset(LEVELS[first:last])
