"""The table in force: what the rules say about a message, remembered for all that are alike."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from fnmatch import translate
from typing import Any

from wafermon.model.levels import levels_of
from wafermon.model.messages import dumps, loads
from wafermon.routing.rules import APART, KEYS, Rule, types_of

CACHE_SIZE = 65_536
"""Services and hosts are the clients' to name, so the answers remembered are bounded."""
BLOCKS = 64
"""Of so many blocks it is remembered where they go: each follower asks for the same ones, one soon after the other."""


@dataclass(frozen=True)
class Route:
    """Where a message goes. Equal routes of one table are the same object: compare them with ``is``."""

    backends: tuple[str, ...]
    """Sorted names. Empty where a rule discards on purpose, and in NO_ROUTE."""
    matched: bool = True
    """False in NO_ROUTE alone."""


NO_ROUTE = Route((), matched=False)
"""No rule takes the message: a dead letter with the reason ``no_route``."""


Judge = Callable[[tuple[Any, ...]], bool]
"""Says something of the messages of a kind, which is the fields of `Kind`."""


Way = tuple[str, ...] | None
"""The backends that messages of a kind go to; None where no rule takes them, and they are dead letters."""


class _Judged(dict[tuple[Any, ...], bool]):
    """What a judge said of each kind."""

    def __init__(self, judge: Judge) -> None:
        super().__init__()
        self._judge = judge

    def __missing__(self, kind: tuple[Any, ...]) -> bool:
        if len(self) >= CACHE_SIZE:
            self.clear()
        said = self[kind] = self._judge(kind)
        return said


class Table:
    """Rules, compiled. Immutable but for what it remembers; two tables are equal where their rules are."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)
        self.backends = frozenset(name for rule in self.rules for name in rule.to)
        """Every backend that some rule names."""
        routes = {frozenset(rule.to): Route(tuple(sorted({*rule.to}))) for rule in self.rules}
        self._compiled = [(_conditions(rule), routes[frozenset(rule.to)]) for rule in self.rules]
        self._known: dict[tuple[Any, ...], Route] = {}
        self._going: dict[str, Judge] = {}
        self._way_of: dict[tuple[Any, ...], Way] = {}
        self._ways: dict[frozenset[tuple[Any, ...]], frozenset[Way]] = {}
        self._common: dict[frozenset[tuple[Any, ...]], frozenset[str] | None] = {}
        self.lost: Judge = _Judged(self._is_lost).__getitem__
        """Whether no rule takes messages of a kind: dead letters with the reason ``no_route``."""

    def route(self, service: str, type: str, level: object, host: object) -> Route:
        """Where a message with these fields goes; `level` and `host` are anything but a str (UNSET, None), or the
        empty one, where it has none. The first rule that matches decides."""
        fields = (service, type, level, host)
        try:
            return self._known[fields]
        except KeyError:
            pass
        if len(self._known) >= CACHE_SIZE:
            self._known.clear()
        route = self._known[fields] = self._decide(fields)
        return route

    def going(self, backend: str) -> Judge:
        """Whether messages of a kind go to this backend: a replayed one goes to that which had refused it, alone."""
        found = self._going.get(backend)
        if found is None:
            found = self._going[backend] = _Judged(lambda kind: self._goes_to(backend, *kind)).__getitem__
        return found

    def ways(self, kinds: frozenset[tuple[Any, ...]]) -> frozenset[Way]:
        """Where messages of these kinds go, each way once."""
        found = self._ways.get(kinds)
        if found is None:
            if len(self._ways) >= BLOCKS:
                self._ways.clear()
            found = self._ways[kinds] = frozenset(map(self._way, kinds))
        return found

    def _way(self, kind: tuple[Any, ...]) -> Way:
        try:
            return self._way_of[kind]
        except KeyError:
            pass
        if len(self._way_of) >= CACHE_SIZE:
            self._way_of.clear()
        service, type_, level, host, replay_to = kind
        way: Way = (replay_to,) if replay_to else self.route(service, type_, level, host).backends
        way = self._way_of[kind] = None if self._is_lost(kind) else way
        return way

    def _goes_to(self, backend: str, service: str, type: str, level: object, host: object, replay_to: object) -> bool:
        if replay_to:
            return replay_to == backend
        return backend in self.route(service, type, level, host).backends

    def _is_lost(self, kind: tuple[Any, ...]) -> bool:
        service, type_, level, host, replay_to = kind
        return not replay_to and type_ != APART and self.route(service, type_, level, host) is NO_ROUTE

    def _decide(self, fields: tuple[Any, ...]) -> Route:
        for conditions, route in self._compiled:
            if all(matches(fields[index]) for index, matches in conditions):
                return route
        return NO_ROUTE

    def dump(self) -> str:
        """The rules as one line of JSON, without a newline, for `load`."""
        return dumps({"rules": [{key: list(globs) for key, globs in asdict(rule).items()} for rule in self.rules]})

    def __eq__(self, other: object) -> bool:
        return self.rules == other.rules if isinstance(other, Table) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.rules)

    def __repr__(self) -> str:
        return f"Table({self.rules!r})"


def compile_routes(rules: Sequence[Rule], backends: Collection[str]) -> Table:
    """The rules' table. Raises ValueError where a rule names a backend that is none of `backends`."""
    table = Table(rules)
    if unknown := table.backends.difference(backends):
        raise ValueError(f"no such backend: {', '.join(sorted(unknown))}")
    return table


def load(text: str | bytes) -> Table:
    """Read what `Table.dump` wrote; the backends it names may be gone. Raises ValueError for anything else."""
    try:
        return Table([Rule(**{key: _strings(value) for key, value in rule.items()}) for rule in loads(text)["rules"]])
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"not a routing table: {error}") from None


def _strings(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError("expected lists of strings")
    return tuple(value)


def _conditions(rule: Rule) -> list[tuple[int, Callable[[Any], bool]]]:
    """What must hold for a rule: the index of a field in KEYS, and whether its value fits."""
    matchers = {
        "service": _one_of_globs(rule.service),
        "type": frozenset().union(*map(types_of, rule.type)).__contains__,
        "level": frozenset().union(*map(levels_of, rule.level)).__contains__,
        "host": _one_of_globs(rule.host),
    }
    conditions = [(index, matchers[key]) for index, key in enumerate(KEYS) if getattr(rule, key)]
    return conditions if rule.type else [(KEYS.index("type"), APART.__ne__), *conditions]


def _one_of_globs(globs: Sequence[str]) -> Callable[[Any], bool]:
    """Whether a value matches one of the globs; a value that is no str, or empty, matches none."""
    match = re.compile("|".join(map(translate, globs))).match
    return lambda value: isinstance(value, str) and value != "" and match(value) is not None
