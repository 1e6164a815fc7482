"""What lines of a connection have in common that differ in nothing that is looked at once: checked once for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, NamedTuple

from msgspec import UNSET

from wafermon.model.messages import OWN_SERVICE, Message, dumps
from wafermon.wire.lines import Origin, wrong_shared

Allows = Callable[[str], "tuple[str, str] | None"]
"""Says why no line of a service may come, as an error's code and detail; None where it may."""
shape_of: Callable[[Message], tuple[Any, ...]] = attrgetter(
    "service", "host", "pid", "client", "type", "level", "replay_to"
)
"""A message, in which fields may be missing -> its shape."""


class Facts(NamedTuple):
    """What is known of a shape."""

    added: dict[str, Any]
    """What the connection's hello says, and the lines do not."""
    odd: bool
    """Something is wrong with the lines."""


class Shapes:
    """Those that were met, by small numbers."""

    def __init__(self, origin: Origin, unless_allowed: Allows) -> None:
        self.facts: list[Facts] = []
        self.table: list[tuple[Any, ...]] = []
        """The kind of each."""
        self.clients: list[Any] = []
        """The client of each."""
        self.unusual: set[int] = set()
        """Those that are odd, or to which something is added."""
        self._origin = origin
        self._unless_allowed = unless_allowed

    def learn(self, shape: tuple[Any, ...]) -> int:
        """The next number."""
        origin = self._origin
        service, host, pid, client, kind, level, replay_to = shape
        added: dict[str, Any] = {}
        if service is UNSET and origin.service:
            added["service"] = service = origin.service
        if host is UNSET and origin.host:
            added["host"] = host = origin.host
        if pid is UNSET and origin.pid >= 0:
            added["pid"] = origin.pid
        wrong = wrong_shared(service, UNSET, UNSET, client, origin) or self._unless_allowed(service) is not None
        # Of a sidecar's own messages nothing is counted by the way: they are read one by one.
        wrong = wrong or service == OWN_SERVICE
        number = len(self.facts)
        self.facts.append(Facts(added, bool(wrong)))
        self.table.append((service, kind, level, host, replay_to))
        self.clients.append(client)
        if wrong or added:
            self.unusual.add(number)
        return number


def prefix(added: Mapping[str, Any]) -> bytes:
    """A line that begins with these fields, up to where its own begin; nothing where there are none."""
    return dumps(added)[:-1].encode() + b"," if added else b""


def splice(before: bytes, line: bytes) -> bytes:
    """A line that begins with a `prefix`."""
    return before + line[line.index(b"{") + 1 :] if before else line
