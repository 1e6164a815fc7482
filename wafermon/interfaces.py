"""What a backend plugin promises and what it is handed. A third party needs this module alone."""

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

from wafermon.model.batch import Batch
from wafermon.model.errors import ConfigError, Fault, PermanentError, RetryableError
from wafermon.model.position import Position

__all__ = [
    "BackendContext",
    "Batch",
    "ConfigError",
    "Fault",
    "Health",
    "IBackend",
    "IBackendFactory",
    "PermanentError",
    "Position",
    "RetryableError",
]


@dataclass(frozen=True)
class Health:
    """How a backend sees itself: `state` is ``ok``, ``starting``, ``failing`` or ``closed``."""

    state: str
    detail: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class BackendContext:
    """What the sidecar hands a backend."""

    name: str
    """The backend's key in the config."""
    state_dir: Path
    """A directory of its own, on the journal's disk, mode 0700; it exists and outlives restarts."""
    reactor: IReactorTime
    """Clock and, in the daemon, the reactor. Never import the global one. Its seconds are for durations and time-outs: nobody
    sets them, unlike `wall`."""
    pool: ThreadPool
    """Where blocking calls go: ``deferToThreadPool(reactor, pool, f)``."""
    wall: Callable[[], float] = time.time
    """The date, in seconds since the Unix epoch. Somebody may set it, by any amount, forwards and backwards."""


class IBackendFactory(IPlugin):
    """One kind of backend, found by ``twisted.plugin.getPlugins`` in the package ``wafermon.backends``."""

    name = Attribute("What `plugin:` says in the config, a str.")

    def configure(options: Mapping[str, Any]) -> Any:
        """Check the backend's own keys (without the ones every backend takes) and return them in a form that
        `build` takes. Pure: no I/O. Raises ConfigError with every fault at once; paths are relative to the backend."""

    def build(options: Any, context: BackendContext) -> IBackend:
        """Make the backend from what `configure` returned. No I/O either: that is for `open`."""


class IBackend(Interface):
    """One configured place that batches go to."""

    def open() -> Deferred[Position | None]:
        """Get ready, recover from whatever happened before, and answer with the position that was reached: the
        `end` of the last batch that is durable. None where the backend holds none yet. Fails with RetryableError
        where it can't be reached now; it is then called again after a backoff. Called again too after `close`."""

    def write(batch: Batch) -> Deferred[None]:
        """Take a batch; fires once it is durable together with its `end`. At most one is outstanding.

        Fails with RetryableError (the same batch comes again; so for unknown errors, up to the tenth same one) or
        with PermanentError (this batch can never be taken: it is bisected until the messages at fault stand alone).
        After a failure the backend holds either the whole batch and its `end`, or nothing of it."""

    def close() -> Deferred[None]:
        """Let go of files and connections. Nothing is outstanding when it is called."""

    def health() -> Health:
        """How it is doing now. Called often: no I/O."""
