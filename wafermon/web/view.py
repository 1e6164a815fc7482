"""What the HTTP pages see of the sidecar: its parts as they are now. A reload swaps parts, so nothing is kept of them
between two requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from twisted.internet.defer import Deferred

from wafermon.alerts import Channel
from wafermon.delivery import DeadLetterFollower, DeadLetters, Deliveries, Supervisor
from wafermon.journal import Journal
from wafermon.model.changes import Refused
from wafermon.model.schedules import Schedules
from wafermon.model.settings import BackendConfig, HttpListener
from wafermon.query import Live, Query
from wafermon.receivers import Intake, Receiver, Sources, SpillTaker


@dataclass(frozen=True)
class ListenerState:
    """One of the config's `listen`."""

    endpoint: str
    """As the config has it."""
    address: str = ""
    """Where it listens, as ``host:port`` or a path; empty where it does not."""
    error: str = ""
    """Why it does not."""


class Configured(Protocol):
    """What is read of the config in force."""

    @property
    def backends(self) -> Mapping[str, BackendConfig]: ...
    @property
    def schedules(self) -> Schedules: ...


class View(Protocol):
    """The composition root, for reading."""

    @property
    def config(self) -> Configured: ...
    @property
    def config_file(self) -> str:
        """Where the config comes from; empty for the default one."""
        ...

    @property
    def journal(self) -> Journal: ...
    @property
    def receiver(self) -> Receiver: ...
    @property
    def otlp(self) -> Intake: ...
    @property
    def sources(self) -> Sources: ...
    @property
    def live(self) -> Live: ...
    @property
    def query(self) -> Query: ...
    @property
    def deliveries(self) -> Deliveries: ...
    @property
    def dead_letters(self) -> DeadLetters: ...
    @property
    def dead_letter_follower(self) -> DeadLetterFollower: ...
    @property
    def supervisor(self) -> Supervisor: ...
    @property
    def spills(self) -> SpillTaker | None: ...
    @property
    def hooks(self) -> Channel | None:
        """That of the config's `hooks`."""
        ...

    @property
    def channels(self) -> Mapping[str, Channel]: ...
    @property
    def refused(self) -> Refused | None: ...
    @property
    def stopping(self) -> bool:
        """Whether it takes nothing more."""
        ...

    def ask_of_schedule(self, kind: str, name: str, until: int, by: str) -> Deferred[None]:
        """Journal that a schedule is to be `paused` until a date (0: until it is resumed) or `resumed`. Fires once that is durable."""
        ...

    def listeners(self) -> Sequence[ListenerState]: ...
    def http_listeners(self) -> Sequence[tuple[HttpListener, str]]:
        """Where HTTP is served: what the config says, and ``host:port`` or a path."""
        ...
