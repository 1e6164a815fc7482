"""The clients that are connected or were: what is known of the latest clients, for people. In memory alone, bounded, and nothing is decided by it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from wafermon.model.blocks import Block
from wafermon.model.messages import Kind, Stats

MOST = 2_000
"""Clients that are remembered: of those that are not connected the one heard of longest ago goes first."""
_TYPE = Kind._fields.index("type")
Key = tuple[str, str]
"""Principal and client."""


@dataclass
class Client:
    """One SDK instance, or a spill file. Times are microseconds since the Unix epoch."""

    client: str
    service: str
    user: str
    """``token:…``, ``uid:N``, or empty where nobody can tell."""
    address: str
    host: str
    pid: int | None
    sdk: str
    connected: bool
    since: int
    """When it connected last."""
    last_heard: int
    connections: int = 1
    messages: int = 0
    """That were accepted since it is remembered."""
    called: int | None = None
    """What it says itself in its last stats line: accepted calls, messages dropped, without a number yet, spill files; None where
    it has sent none."""
    dropped: int | None = None
    unsent: int | None = None
    spilled: int | None = None
    closed: bool = False
    """It said that this is all."""
    protocol: str = "lines"
    """Or ``otlp``."""


class Clients:
    """By principal and client."""

    def __init__(self) -> None:
        self._known: OrderedDict[Key, Client] = OrderedDict()

    def came(self, key: Key, client: Client) -> None:
        """It is connected, for the first time or again."""
        before = self._known.pop(key, None)
        if before is not None:
            client.connections = before.connections + 1
            client.messages = before.messages
            client.called, client.dropped = before.called, before.dropped
            client.unsent, client.spilled = before.unsent, before.spilled
        self._known[key] = client
        if len(self._known) > MOST:
            gone = next((one for one, known in self._known.items() if not known.connected), next(iter(self._known)))
            del self._known[gone]

    def heard(self, key: Key, block: Block, now: int) -> None:
        """It sent messages that were accepted."""
        client = self._known.get(key)
        if client is None:
            return
        client.last_heard = now
        client.messages += block.count
        client.closed = False
        if any(kind[_TYPE] == Stats.type for kind in block.kinds):
            last = block.messages[-1]
            for message in block.messages:
                if isinstance(message, Stats):
                    client.called, client.dropped = message.called, message.dropped
                    client.unsent, client.spilled = message.unsent, len(message.streams)
            client.closed = isinstance(last, Stats) and bool(last.final)

    def left(self, key: Key, now: int) -> None:
        client = self._known.get(key)
        if client is not None:
            client.connected = False
            client.last_heard = max(client.last_heard, now)
            self._known.move_to_end(key)

    def records(self) -> list[dict[str, Any]]:
        return as_records(self._known.values())


def as_records(clients: Iterable[Client]) -> list[dict[str, Any]]:
    """Those that are connected first, then by when they were heard of last, the latest first."""
    return [asdict(one) for one in sorted(clients, key=lambda one: (one.connected, one.last_heard), reverse=True)]
