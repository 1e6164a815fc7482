"""What the HTTP room sees of the sidecar: its parts as they are now. A reload swaps parts, so nothing is kept of them
between two requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from wafermon.changes import Refused
from wafermon.config import Config
from wafermon.correlation import Correlator
from wafermon.delivery import DeadLetters, Delivery, Undertaker
from wafermon.hooks import Hooks
from wafermon.journal import Journal
from wafermon.receiver import Receiver, SpillTaker


@dataclass(frozen=True)
class ListenerState:
    """One of the config's `listen`."""

    endpoint: str
    """As the config has it."""
    address: str = ""
    """Where it listens, as ``host:port`` or a path; empty where it does not."""
    error: str = ""
    """Why it does not."""


class House(Protocol):
    """The composition root, for reading."""

    @property
    def config(self) -> Config: ...
    @property
    def journal(self) -> Journal: ...
    @property
    def receiver(self) -> Receiver: ...
    @property
    def correlator(self) -> Correlator: ...
    @property
    def deliveries(self) -> Mapping[str, Delivery]: ...
    @property
    def dead_letters(self) -> DeadLetters: ...
    @property
    def undertaker(self) -> Undertaker: ...
    @property
    def spills(self) -> SpillTaker | None: ...
    @property
    def hooks(self) -> Hooks: ...
    @property
    def refused(self) -> Refused | None: ...
    @property
    def stopping(self) -> bool:
        """Whether it takes nothing more."""
        ...

    def listeners(self) -> Sequence[ListenerState]: ...
