"""The programs that send OTLP, for people: in memory alone, bounded, and nothing is decided by it.

A program is told by who sends, from which address, and by its resource: service, host, process and instance. It has no connection that is
its own and says nothing of what it sent in all, so that no receipt follows from this.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

from wafermon.receivers.lines.clients import MOST, Client, as_records

TEXT = 64
"""Characters of what a program says of itself that are shown."""


class Sender(NamedTuple):
    """What a resource says of its program."""

    service: str
    host: str = ""
    pid: int | None = None
    instance: str = ""
    sdk: str = ""


_Key = tuple[str, str, Sender]


class Senders:
    """By principal, address and resource."""

    def __init__(self) -> None:
        self._known: OrderedDict[_Key, Client] = OrderedDict()
        """The one heard last comes last."""
        self._at: dict[str, set[_Key]] = {}
        """By connection."""

    def heard(self, user: str, host: str, peer: str, agent: str, sent: Mapping[Sender, int], now: int) -> None:
        """A request that came over the connection `peer`, from the address `host`, was taken: so many messages of each."""
        keys, address = self._at.setdefault(peer, set()), peer.removeprefix("otlp:")
        for sender, messages in sent.items():
            key = (user, host, sender)
            client = self._known.pop(key, None)
            if client is None:
                client = Client(
                    sender.instance, sender.service, user, address, sender.host, sender.pid, sender.sdk or agent[:TEXT], True, now,
                    now, connections=0, protocol="otlp",
                )  # fmt: skip
            self._known[key] = client
            if key not in keys:
                client.connections += 1
                client.since, client.address = now, address
                if len(keys) < MOST:
                    keys.add(key)
            client.connected = True
            client.messages += messages
            client.last_heard = now
        while len(self._known) > MOST:
            self._known.popitem(last=False)

    def hung_up(self, peer: str) -> None:
        """A connection ended."""
        for key in self._at.pop(peer, ()):
            client = self._known.get(key)
            if client is not None and client.address == peer.removeprefix("otlp:"):
                client.connected = False

    @property
    def connected(self) -> int:
        """Programs whose connection is open."""
        return sum(client.connected for client in self._known.values())

    def __len__(self) -> int:
        return len(self._known)

    def records(self) -> list[dict[str, Any]]:
        """As those of clients."""
        return as_records(self._known.values())
