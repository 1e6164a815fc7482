"""Who forwards to here, and who did: what is known of each, for people and for the figures; and the one thing that is decided by it,
whether a second sidecar with the same journal's id is let in. In memory alone."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import asdict, dataclass
from typing import Any

from wafermon.model.errors import ProtocolError
from wafermon.receivers.forward.taking import TakenFrame
from wafermon.wire.frames import Head
from wafermon.wire.hello import Hello

MOST = 5_000
"""Those that are remembered; of those that are not connected the one heard of longest ago goes first."""
HEARD_SECONDS = 5.0
"""For so long after it was heard of last, a connection counts as alive: no other sidecar takes its place."""
Key = tuple[str, str]
"""The principal, ``forward:NAME``, and the journal."""


@dataclass
class Forwarder:
    """One sidecar that forwards. Times are microseconds since the Unix epoch."""

    name: str
    """What the token, or the certificate, calls it."""
    journal: str
    host: str
    version: str
    address: str
    instance: str
    connected: bool
    since: int
    """When it connected last."""
    last_heard: int
    connections: int = 1
    messages: int = 0
    """This and what follows is counted since it is remembered here."""
    frames: int = 0
    duplicate_frames: int = 0
    refused_lines: int = 0
    """Lines that became dead letters here."""
    gaps: int = 0
    """Frames before which something of its journal is missing."""
    raw_bytes: int = 0
    """Of lines, with their newlines."""
    wire_bytes: int = 0
    """Of frames, as they came."""
    lag: float | None = None
    """How many seconds the first message of its last frame had waited at the other end, by the clock there; 0 where nothing waits. None as
    long as it has said nothing."""
    clock: float | None = None
    """How many seconds the clock there is ahead of the one here, the time on the way included. None as long as it has said nothing."""


class Forwarders:
    """By principal and journal."""

    def __init__(self) -> None:
        self._known: OrderedDict[Key, Forwarder] = OrderedDict()
        self.refused = 0
        """Hellos of a sidecar whose journal's id another one had."""

    def check(self, key: Key, hello: Hello, silent: float | None) -> None:
        """Whether it may take the place of the one that has this key. `silent`: for how many seconds nothing came of the connection that is
        there; None where none is. Raises ProtocolError."""
        known = self._known.get(key)
        if known is None or silent is None or silent >= HEARD_SECONDS or known.instance == hello.instance:
            return
        self.refused += 1
        raise ProtocolError(
            "bad_hello",
            f"client: another sidecar with the journal {key[1]} is connected, from {known.address} ({known.host}): one of the two is a "
            "copy; stop that one and run `wafermon journal renew DIR` there",
        )

    def came(self, key: Key, hello: Hello, name: str, address: str, now: int) -> None:
        """It is connected, for the first time or again."""
        before = self._known.pop(key, None)
        one = Forwarder(
            name, hello.origin.client, hello.origin.host, hello.sdk.removeprefix("wafermon/"), address, hello.instance, True, now, now
        )  # fmt: skip
        if before is not None:
            counted = (
                "messages", "frames", "duplicate_frames", "refused_lines", "gaps", "raw_bytes", "wire_bytes", "lag", "clock",
            )  # fmt: skip
            for field in counted:
                setattr(one, field, getattr(before, field))
            one.connections = before.connections + 1
        self._known[key] = one
        if len(self._known) > MOST:
            gone = next((key for key, known in self._known.items() if not known.connected), next(iter(self._known)))
            del self._known[gone]

    def heard(self, key: Key, head: Head, taken: TakenFrame | None, now: int) -> None:
        """A frame came; `taken` is None where it had come before."""
        one = self._known.get(key)
        stretch = head.stretch
        if one is None or stretch is None:
            return
        one.last_heard = now
        if stretch.now:
            one.clock = (stretch.now - now) / 1e6
            one.lag = max(0.0, (stretch.now - stretch.received) / 1e6) if stretch.received else 0.0
        if taken is None:
            one.duplicate_frames += head.lines > 0
            return
        one.frames += 1
        one.messages += taken.block.count if taken.block else 0
        one.refused_lines += len(taken.rejected)
        one.gaps += taken.skipped > 0
        one.raw_bytes += head.raw
        one.wire_bytes += head.size

    def left(self, key: Key, now: int) -> None:
        one = self._known.get(key)
        if one is not None:
            one.connected = False
            self._known.move_to_end(key)

    @property
    def connected(self) -> int:
        """How many are."""
        return sum(one.connected for one in self._known.values())

    def known(self) -> list[Forwarder]:
        """Those that are connected first, then by when they were heard of last, the latest first."""
        return sorted(self._known.values(), key=lambda one: (one.connected, one.last_heard), reverse=True)

    def records(self) -> list[dict[str, Any]]:
        """The same as plain values."""
        return [asdict(one) for one in self.known()]
