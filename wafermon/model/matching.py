"""Which of many schedules a job, or a service's message, is meant by. Pure. A glob is only tried where the text begins as the glob does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import translate
from typing import Protocol

KNOWN = 20_000
"""So many answers are remembered."""
_WILD = re.compile(r"[*?\[]")
Place = tuple[str, str, str]
"""A job's id (empty for messages), a service, a host."""


class Globs(Protocol):
    """All that is given must match; an empty tuple is not given."""

    @property
    def job(self) -> tuple[str, ...]: ...
    @property
    def service(self) -> tuple[str, ...]: ...
    @property
    def host(self) -> tuple[str, ...]: ...


class Matching:
    """The schedules by the globs of their jobs, or else of their services."""

    def __init__(self, rules: Mapping[str, Globs]) -> None:
        self._rules = dict(rules)
        self._order = {name: number for number, name in enumerate(rules)}
        self._patterns: dict[str, re.Pattern[str]] = {}
        self._jobs = _Index()
        self._messages = _Index()
        for name, rule in rules.items():
            if rule.job:
                self._jobs.add(name, rule.job)
            else:
                self._messages.add(name, rule.service)
        self._known: dict[Place, tuple[str, ...]] = {}

    def jobs(self, job: str, service: str, host: str) -> tuple[str, ...]:
        """The names of the schedules that are about this job, in the config's order."""
        return self._find(self._jobs, (job, service, host))

    def messages(self, service: str, host: str) -> tuple[str, ...]:
        """The names of those that are about messages of this service from this host."""
        return self._find(self._messages, ("", service, host))

    @property
    def of_messages(self) -> bool:
        """Whether any is about messages."""
        return bool(self._messages)

    def _find(self, index: _Index, place: Place) -> tuple[str, ...]:
        found = self._known.get(place)
        if found is None:
            if len(self._known) >= KNOWN:
                self._known.clear()
            names = index.candidates(place[0] or place[1])
            fitting = (name for name in names if self._fits(name, place))
            found = self._known[place] = tuple(sorted(fitting, key=self._order.__getitem__))
        return found

    def _fits(self, name: str, place: Place) -> bool:
        rule = self._rules[name]
        globs = (rule.job, rule.service, rule.host)
        return all(
            not some or any(map(self._match, some, [text] * len(some))) for some, text in zip(globs, place, strict=True)
        )

    def _match(self, glob: str, text: str) -> bool:
        if not _WILD.search(glob):
            return glob == text
        pattern = self._patterns.get(glob)
        if pattern is None:
            pattern = self._patterns[glob] = re.compile(translate(glob))
        return pattern.match(text) is not None


class _Index:
    """Names by what their globs begin with."""

    def __init__(self) -> None:
        self._exact: dict[str, set[str]] = {}
        self._begins: dict[int, dict[str, set[str]]] = {}

    def __bool__(self) -> bool:
        return bool(self._exact or self._begins)

    def add(self, name: str, globs: tuple[str, ...]) -> None:
        """Without globs it takes everything."""
        for glob in globs or ("*",):
            wild = _WILD.search(glob)
            if wild is None:
                self._exact.setdefault(glob, set()).add(name)
            else:
                start = glob[: wild.start()]
                self._begins.setdefault(len(start), {}).setdefault(start, set()).add(name)

    def candidates(self, text: str) -> set[str]:
        found = set(self._exact.get(text, ()))
        for length, begins in self._begins.items():
            found |= begins.get(text[:length], set())
        return found
