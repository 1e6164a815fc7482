"""What a backend plugin promises and what it is handed. A third party needs this module alone.

This is version 2 of the contract. Backends of version 1 (without `outstanding` and `exactly_once`) work unchanged.
docs/writing-a-backend.md makes a whole one; `wafermon.contract` holds the tests that each has to pass.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.plugin import IPlugin
from twisted.python.threadpool import ThreadPool
from zope.interface import Attribute, Interface

from wafermon.model.asking import ErrorFilter, EventFilter, Found, JobFilter, Page
from wafermon.model.batch import Batch
from wafermon.model.checking import checked
from wafermon.model.errors import (
    ConfigError,
    Fault,
    PermanentError,
    PositionMoved,
    Refused,
    RetryableError,
    Superseded,
)
from wafermon.model.onward import Onward
from wafermon.model.position import Position
from wafermon.model.records import ErrorRecord, EventRecord, JobRecord, KindRecord, ServiceRecord, TraceRecord
from wafermon.model.settings import Count, Duration, FilePath, Kind, Section, Size, Text

__all__ = [
    "Alarm",
    "BackendContext",
    "Batch",
    "ChannelContext",
    "ConfigError",
    "Count",
    "Duration",
    "ErrorFilter",
    "ErrorRecord",
    "EventFilter",
    "EventRecord",
    "Fault",
    "FilePath",
    "Found",
    "Health",
    "IBackend",
    "IBackendFactory",
    "IChannel",
    "IChannelFactory",
    "IHistory",
    "JobFilter",
    "JobRecord",
    "Kind",
    "KindRecord",
    "Options",
    "Page",
    "PermanentError",
    "Position",
    "PositionMoved",
    "Refused",
    "RetryableError",
    "ServiceRecord",
    "Size",
    "Superseded",
    "Text",
    "TraceRecord",
    "configure",
    "outstanding_of",
]

Options = Section
"""The base of a backend's options: a frozen pydantic model. `Size`, `Duration`, `Count`, `Text` and `FilePath` are types for
its fields that read values as the whole config does; any other type and any pydantic validator will do too. A validator
raises ValueError with what is wrong and what would be right."""


@dataclass(frozen=True)
class Health:
    """How a backend sees itself: `state` is ``ok``, ``starting``, ``failing`` or ``closed``."""

    state: str
    detail: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class BackendContext:
    """What a backend is given to work with."""

    name: str
    """The backend's key in the config."""
    state_dir: Path
    """A directory of its own, on the journal's disk, mode 0700; it exists and outlives restarts."""
    reactor: IReactorTime
    """Clock and, in the daemon, the reactor. Never import the global one. Its seconds are for durations and time-outs: nobody
    sets them, unlike `wall`."""
    pool: ThreadPool
    """Where blocking calls go: ``deferToThreadPool(reactor, pool, f)``. It is this backend's own and has one thread, so that
    calls run one after the other; ``pool.adjustPoolsize(0, 4)`` in `open` makes it more. Its threads never keep the
    process from ending."""
    wall: Callable[[], float] = time.time
    """The date, in seconds since the Unix epoch. Somebody may set it, by any amount, forwards and backwards."""
    timeout: float = 60.0
    """The config's `timeout`, in seconds: how long `open`, `write` and `close` may take before the backend counts as failing.
    A backend that can end its own calls does so about then, and fails with RetryableError."""
    journal: str = ""
    """The id of the journal that all positions are of; empty where nobody says it."""
    instance: str = ""
    """Drawn when the process began; empty where nobody says it."""
    onward: Onward = field(default_factory=Onward)
    """Where a backend says which other sidecars its messages go on to."""
    formerly: Mapping[str, int] = field(default_factory=dict)
    """The ids that the journal had before (`wafermon journal renew`), each with its last segment of then. What `open` answers may
    name one of them; `as_now` is for positions that a backend compares by itself."""

    def as_now(self, position: Position) -> Position:
        """The same place under the id that the journal has now, where it had another one then."""
        held = position.segment <= self.formerly.get(position.journal, -1)
        return position._replace(journal=self.journal) if held else position


class IBackendFactory(IPlugin):
    """One kind of backend, found by ``twisted.plugin.getPlugins`` in the package ``wafermon.backends``.

    It says what its own keys are in one of two ways. The first is an attribute or property `options`: a subclass of
    `Options`, whose fields are the keys, with their types, defaults and descriptions. Faults, "did you mean" and
    documentation come from it. (A property may raise ConfigError, where what the backend needs is not installed.) No
    field may have the name of a key that every backend takes: plugin, batch, retry, timeout, when_full, on_remove.

    The second, as in version 1, is a method ``configure(options: Mapping[str, Any]) -> Any``: it checks the keys and
    returns them in a form that `build` takes. Pure: no I/O. Raises ConfigError with every fault at once; paths are
    relative to the backend.

    Optional: ``examine(options) -> Sequence[str]``, for `wafermon doctor`: what would keep the backend from working, in
    sentences. It may block, and changes nothing. Optional: ``batch``, a `wafermon.model.settings.BatchLimits` that holds where
    the config does not say how large a batch is. Optional, of what `build` takes: ``claims``, a tuple of the beginnings of
    all paths that the backend writes to, or of URLs; ``claims_key``, the key that says them, where that is not ``path``."""

    name = Attribute("What `plugin:` says in the config, a str.")

    def build(options: Any, context: BackendContext) -> IBackend:
        """Make the backend from its checked options. No I/O: that is for `open`."""


def configure(factory: Any, given: Mapping[str, Any]) -> Any:
    """A factory's own keys as a config has them -> what its `build` takes. Raises ConfigError with every fault, the paths
    relative to the backend; whatever else a plugin's own `configure` raises."""
    declared = getattr(factory, "options", None)
    return factory.configure(given) if declared is None else checked(declared, given)


class IBackend(Interface):
    """One configured place that batches go to.

    Two attributes are optional:

    ``outstanding: int``, 1 by default: how many batches it may be given before the first of them is durable. They must become
    durable in order: none may be stored, not even partly, before the one before it is.

    ``exactly_once: bool``, True by default: whether each message is stored once whatever fails. `status` and `doctor` show
    it. False: at least once.

    All Deferreds may fail with anything at any time; what that means is said at each. A Deferred is never cancelled."""

    def open() -> Deferred[Position | None]:
        """Get ready, recover from whatever happened before, and answer with the position that was reached: the
        `end` of the last batch that is durable. None where the backend holds none yet. A failure of any kind: it is
        called again after a backoff. It is also called again after `close`, and after PositionMoved."""

    def write(batch: Batch) -> Deferred[None]:
        """Take a batch; fires once it is durable together with its `end`. At most `outstanding` are under way.

        After a failure the backend holds either the whole batch and its `end`, or nothing of it. It fails with:

        - RetryableError: the same batch comes again after a backoff, for as long as it takes.
        - PermanentError: this batch can never be taken. It is bisected until the messages at fault stand alone; those
          become dead letters.
        - Refused: the messages that it names can never be taken. They become dead letters; then the batch comes again,
          with the same `start` and `end` and without them. Where it names all of several messages, it is a PermanentError.
        - PositionMoved: the backend stands elsewhere, further (a reply was lost) or lower (a fail-over, a restore).
          `open` is asked again, and the delivery goes on at its answer. What the journal does not have any more is named.
        - Superseded: an older batch failed. Whenever one fails, all younger ones must fail with this, before or after
          it; then the failed one comes again, alone, until it is stored, and then the others.
        - Anything else: as RetryableError, but the tenth time in a row that it is the same it counts as a
          PermanentError. A CancelledError or TimeoutError is always a RetryableError.

        A batch without messages moves the position alone."""

    def close() -> Deferred[None]:
        """Release everything: files, connections, threads, timers. It is always called at the end, also while `open` or
        `write` is under way; what is, should then fail soon. Fires when nothing of the backend runs any more: only then
        is anything else opened in its place. (A backend with neither of the optional attributes is not closed before its
        calls have ended, as in version 1.)"""

    def health() -> Health:
        """How it is doing now. Called often: no I/O."""


def outstanding_of(backend: Any) -> int:
    """How many batches a backend may be given before the first is durable."""
    return max(1, int(getattr(backend, "outstanding", 1)))


class IHistory(Interface):
    """A backend that can also be asked for what it holds. Filters, pages and answers are those of `wafermon.model.asking`,
    the records those of `wafermon.model.records`: the sidecar's own memory is asked, and answers, in the same way.

    Every method is lawful from after `open` to `close`, while batches are written. Each Deferred fails with RetryableError
    where the place can't be asked now, the text saying what a person can do. Lists go from the latest to the earliest.

    A place that may answer without a part of what it holds has an attribute `unread`: what its last answer is without, as sentences;
    the caller shows them among the answer's problems."""

    kinds = Attribute("The `wafermon.model.kinds.Kinds` by which it tells kinds of jobs.")

    def jobs(wanted: JobFilter, page: Page) -> Deferred[Found[JobRecord]]:
        """Jobs by the time that they were last heard of; with their `total`. `eta` is None: the caller computes it."""

    def kinds_of_jobs(since: int, until: int) -> Deferred[list[KindRecord]]:
        """The kinds of the jobs that were last heard of in this time, the latest first."""

    def find(prefix: str, limit: int) -> Deferred[list[str]]:
        """Ids of traces that begin with `prefix`, or have a job whose id does; at most `limit`."""

    def trace(trace_id: str, messages: int) -> Deferred[TraceRecord | None]:
        """One trace, with the latest `messages` of each type, perhaps none; None where nothing is known of it."""

    def events(wanted: EventFilter, page: Page) -> Deferred[Found[EventRecord]]:
        """Events by their own time. A search that takes too long ends, and its `searched` says how far it came."""

    def errors(wanted: ErrorFilter, page: Page) -> Deferred[Found[ErrorRecord]]:
        """What went wrong, each kind once with its count."""

    def services(since: int, until: int) -> Deferred[list[ServiceRecord]]:
        """Who sent how much, by name, counted by the hour."""


@dataclass(frozen=True)
class Alarm:
    """What a channel sends."""

    id: str
    """Of this message alone; the same whenever it is sent again."""
    key: str
    """Of what it is about, at most 255 characters: `dedup_key`. What resolves an alarm has the alarm's key."""
    action: str
    """``trigger`` or ``resolve``."""
    kind: str
    """As the config's `on` names it, ``digest`` or ``test``."""
    summary: str
    """One line."""
    source: str
    """The service that it is about."""
    ts: int
    """Microseconds since the Unix epoch."""
    event: Mapping[str, Any]
    """The message as it was journalled, with its ``kind``. A digest has ``count``, ``kinds`` (kind -> count), ``over`` (how many are over by now) and ``summaries``."""


@dataclass(frozen=True)
class ChannelContext:
    """What a channel is given to work with."""

    name: str
    """Its key in the config."""
    reactor: Any
    """Clock, connections, processes. Never import the global one."""
    wall: Callable[[], float] = time.time
    """The date, in seconds since the Unix epoch."""


class IChannelFactory(IPlugin):
    """One kind of channel, found by ``twisted.plugin.getPlugins`` in the package ``wafermon.alerts.channels``.

    `options` or `configure` say what its own keys are, as in IBackendFactory. No field may have the name of a key that every
    channel takes: plugin, on, match, at_most, quiet."""

    name = Attribute("What `plugin:` says in the config, a str.")

    def build(options: Any, context: ChannelContext) -> IChannel:
        """Make the channel. No I/O."""


class IChannel(Interface):
    """A place that alarms are sent to, one at a time, in order. Optional: ``resolves: bool``, False by default: whether the place
    knows alarms by their key. It gets what resolves an alarm then where that was sent, whatever `on` and `match` say; else a recovery is sent
    where `on` names it, like anything else. Optional: ``repeat: float``, 0 by default: after so many seconds an alarm that is not over is
    sent again. Optional: ``digests: bool``, True by default: whether it takes a digest of what was held back; else what is beyond `at_most` is
    counted, and never sent."""

    def send(alarm: Alarm) -> Deferred[None]:
        """Fires once it was taken. Fails with RetryableError, whose attribute ``wait`` may say how many seconds to leave the place
        alone: it comes again. With PermanentError: it is given up, counted and logged. With anything else: as
        RetryableError. It must end within two minutes. A stop waits three seconds for it, and cancels it then."""

    def close() -> Deferred[None]:
        """Release everything. A call to `send` that is under way should fail soon; its outcome counts no more."""
