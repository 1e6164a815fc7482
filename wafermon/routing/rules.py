"""One rule: the conditions of a `match`, and the backends of its `to`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from wafermon.model.errors import ConfigError, Fault
from wafermon.model.levels import levels_of
from wafermon.model.messages import BY_TYPE, LEVELS

KEYS = ("service", "type", "level", "host")
TYPES = (*BY_TYPE, "trace")
APART = "stats"
"""The type that a rule takes only where it names it, by the word and not by a glob."""


@dataclass(frozen=True)
class Rule:
    """The messages that meet every condition go to the backends `to`; to none, on purpose, where `to` is empty.

    A condition is a tuple of globs, of which one must match; an empty tuple is no condition. A level may also be
    compared: ``">=warning"``. Upper and lower case differ.
    """

    to: tuple[str, ...]
    service: tuple[str, ...] = ()
    type: tuple[str, ...] = ()
    level: tuple[str, ...] = ()
    """Only events have a level: nothing else matches a rule with this condition."""
    host: tuple[str, ...] = ()
    """A message without a host does not match a rule with this condition."""

    @property
    def catches_all(self) -> bool:
        """Whether no message passes this rule by, but for those that a rule has to name."""
        always = all(not globs or "*" in globs for globs in (self.service, self.type))
        return always and not self.level and not self.host


def only_apart(rule: Rule) -> bool:
    """Whether it takes nothing that a rule without conditions takes."""
    return set(rule.type) == {APART}


def with_apart(rules: Sequence[Rule], names: Sequence[str]) -> list[Rule]:
    """The rules, and what lets these backends have all messages of the type that a rule has to name."""
    if not names:
        return [*rules]
    found: list[Rule] = []
    for rule in rules:
        if APART in rule.type:
            found.append(replace(rule, to=tuple(dict.fromkeys([*rule.to, *names])), type=(APART,)))
        found.append(rule)
    return [*found, Rule(tuple(names), type=(APART,))]


def parse_match(match: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """What a config says under `match` -> the conditions of a Rule, by name.

    Raises ConfigError with every fault; their paths are relative to `match`.
    """
    conditions: dict[str, tuple[str, ...]] = {}
    faults: list[Fault] = []
    for key, value in match.items():
        globs = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else ()
        if key not in KEYS:
            faults.append(Fault(key, f"a message can't be matched by this; expected one of {', '.join(KEYS)}"))
        elif not globs or not all(isinstance(glob, str) and glob for glob in globs):
            faults.append(Fault(key, f"expected a glob in quotes or a list of such globs, got {_shown(value)}"))
        else:
            faults += [Fault(key, problem) for glob in globs if (problem := _matches_nothing(key, glob))]
            conditions[key] = globs
    if faults:
        raise ConfigError(faults)
    return conditions


def types_of(glob: str) -> frozenset[str]:
    """The types of message that a glob takes in."""
    return frozenset(name for name in TYPES if fnmatchcase(name, glob) and (name != APART or glob == APART))


def _matches_nothing(key: str, glob: str) -> str:
    """Why a glob matches no message whatever; empty where it may match one."""
    if key == "type" and not types_of(glob):
        return f"{glob!r} matches no type; the types are {', '.join(TYPES)}"
    if key == "level" and not levels_of(glob):
        return f"{glob!r} matches no level; the levels are {', '.join(LEVELS)}, compared as in '>=warning'"
    return ""


def _shown(value: Any) -> str:
    return "an empty list" if value == [] else repr(value)
