"""Which way messages of a kind go, as the routing table of a group says. What it says of each kind is remembered."""

from __future__ import annotations

from typing import Any, Protocol

from wafermon.correlation.accounts import NO_ROUTE

Way = tuple[Any, str]
"""The backend that messages are replayed to, and the names of those that they go to (with commas between them), or `NO_ROUTE`."""
WAYS = 65_536


class Route(Protocol):
    """Where a message goes."""

    @property
    def backends(self) -> tuple[str, ...]: ...
    @property
    def matched(self) -> bool: ...


class Table(Protocol):
    """What says it."""

    def route(self, service: str, type: str, level: object, host: object) -> Route: ...


class Ways:
    def __init__(self) -> None:
        self._table: Table | None = None
        self._known: dict[tuple[Any, ...], Way] = {}

    def use(self, table: Table) -> None:
        """This table says it from now on."""
        if table is not self._table:
            self._table, self._known = table, {}

    def of(self, counts: dict[tuple[Any, ...], int]) -> dict[Way, int]:
        """How many messages go which way, where these are those of each kind."""
        known, found = self._known, dict[Way, int]()
        for kind, count in counts.items():
            way = known.get(kind) or self._find(kind)
            found[way] = found.get(way, 0) + count
        return found

    def _find(self, kind: tuple[Any, ...]) -> Way:
        service, type_, level, host, replay_to = kind
        found = self._table.route(service, type_, level, host) if self._table else None
        if len(self._known) >= WAYS:
            self._known.clear()
        way = self._known[kind] = replay_to, ",".join(found.backends) if found and found.matched else NO_ROUTE
        return way
