"""The composition root: the only place where the parts meet. Ordered start, ordered stop, and reload between them."""

from __future__ import annotations

import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool
from zope.interface.verify import verifyObject

from wafermon import __version__, routing
from wafermon.alerts import Hooks
from wafermon.backends import Plugins
from wafermon.config import Config, Watch, differences, needs_restart
from wafermon.correlation import Correlator, Engine, Settings
from wafermon.daemon.garbage import Garbage
from wafermon.daemon.reloader import Reloader
from wafermon.daemon.systemd import Notifier
from wafermon.delivery import DeadLetterFollower, DeadLetters, Deliveries, Delivery
from wafermon.interfaces import BackendContext, IBackend
from wafermon.journal import Journal
from wafermon.model.changes import CannotChange, Change, Refused
from wafermon.model.errors import ConfigError, JournalLocked
from wafermon.model.settings import BackendConfig
from wafermon.query import Live
from wafermon.receivers import Listeners, Receiver, SpillTaker
from wafermon.web import HttpServer, ListenerState

ACK_SECONDS = 2.0
"""How long a stop waits for the journal to have what was received; the rest comes again."""
GRACE_SECONDS = 5.0
"""How long a stop waits for each backend to take what it lacks; the rest is delivered after the next start."""
OPENERS = 2
"""Threads that decompress what clients send."""
THREADS = 8
"""For what blocks: backends, lagging cursors, dead letters."""


class CannotStart(SystemExit):
    """Something that a person has to mend first. Already logged; ends the process with 1."""


class Sidecar(Service):
    """The daemon."""

    log = Logger()

    def __init__(
        self,
        config: Config,
        plugins: Plugins,
        reactor: Any,
        file: Path | None = None,
        read: Callable[[], Config] | None = None,
        *,
        notifier: Notifier | None = None,
        probe: Callable[[str], None] = lambda point: None,
    ) -> None:
        """`file` is where the config comes from, and `read` reads it again; without them nothing is reloaded. `notifier`
        tells the service manager. `probe` is told the points of the journal's life and of the stop by name."""
        self.config = config
        self._plugins = plugins
        self._reactor = reactor
        self._probe = probe
        self._notifier = notifier or Notifier({}, reactor)
        self._writer = ThreadPool(1, 1, "journal")
        self._pool = ThreadPool(0, THREADS, "wafermon")
        self._tables = lru_cache(16)(routing.load)
        self.journal = Journal(config.journal, reactor, self._writer, self._pool, wall=time.time, probe=probe)
        self.dead_letters = DeadLetters(config.dead_letters, reactor, self._pool)
        self._openers = ThreadPool(0, OPENERS, "frames")
        self._spill_thread = ThreadPool(0, 1, "spill")
        self.receiver = Receiver(self.journal, config.limits, reactor, self._openers)
        self.listening = Listeners(self.receiver, reactor)
        self.deliveries = Deliveries(self._make_delivery, self.journal)
        self.dead_letter_follower = DeadLetterFollower(self.journal, self.dead_letters, self._tables)
        self.correlator: Correlator
        self.spills: SpillTaker | None = None
        self.hooks = Hooks(config.hooks, self.journal, reactor)
        self.http = HttpServer(self, reactor)
        self._garbage = Garbage(reactor)
        self.stopping = False
        self.reloader: Reloader | None = None
        self._watch: Watch | None = None
        if file is not None and read is not None:
            self.reloader = Reloader(file, read, self.take, self._pool, reactor, self.journal.now)
            self._watch = Watch(file, self.reloader.request, reactor)

    @property
    def refused(self) -> Refused | None:
        """The last config that a reload refused, until one is accepted."""
        return self.reloader.refused if self.reloader is not None else None

    def listeners(self) -> list[ListenerState]:
        """See `View`."""
        return [ListenerState(listener.endpoint, address) for listener, address in self.listening.open]

    @property
    def live(self) -> Live:
        """See `View`."""
        return Live(self.correlator)

    # -- start

    def startService(self) -> None:
        Service.startService(self)  # type: ignore[no-untyped-call]
        self._listen_for_changes()
        for name, problem in self._plugins.broken.items():
            self.log.error(
                "The backend plugin {name} can't be loaded: {problem}",
                name=name,
                problem=problem,
            )
        self._writer.start()
        self._pool.start()
        self._openers.start()
        self._spill_thread.start()
        try:
            self.journal.open(self._routes(self.config))
            self.dead_letters.open()
            self.correlator = self._make_correlator()
            deliveries = self.deliveries.prepare(self.config.backends)
            self.correlator.start()
            self.dead_letter_follower.start()
            deliveries.commit()
            self.receiver.start()
            self._take_up_spills(self.config)
            self.hooks.start()
            self.listening.prepare(self.config.listen).commit()
            self.http.start()
            self.http.prepare(self.config.http).commit()
        except (JournalLocked, OSError, sqlite3.Error, CannotChange) as error:
            self._cannot_start(str(error))
        self._garbage.start()
        self.log.info(
            "wafermon {version} is ready; its journal is {id}",
            version=__version__,
            id=self.journal.id,
        )
        self._notifier.ready()

    def _make_delivery(self, config: BackendConfig) -> Delivery:
        state_dir = self.journal.dir / "backends" / config.name
        for directory in (state_dir.parent, state_dir):
            directory.mkdir(exist_ok=True, mode=0o700)
        context = BackendContext(config.name, state_dir, self._reactor, self._pool)
        backend = self._plugins.factories[config.plugin].build(config.options, context)
        verifyObject(IBackend, backend)
        return Delivery(
            config,
            backend,
            self.journal,
            self.dead_letters,
            self._tables,
            self._reactor,
        )

    def _make_correlator(self) -> Correlator:
        engine = Engine(_correlation(self.config), self.journal.id)
        return Correlator(
            engine,
            self.journal,
            self.journal.dir / "correlation",
            self._pool,
            self._reactor,
        )

    def _take_up_spills(self, config: Config) -> None:
        """From the directory that the config names, and from no other any more."""
        if self.spills is not None:
            self.spills.stop()
            self.spills = None
        if config.journal.spill_dir is not None:
            limit = config.limits.max_line_bytes
            self.spills = SpillTaker(
                config.journal.spill_dir,
                self.journal,
                limit,
                self._reactor,
                self._spill_thread,
                owners=config.journal.spill_owners,
                restricted=lambda: self.listening.bind_services,
            )
            self.spills.start()

    def _routes(self, config: Config) -> str:
        return routing.compile_routes(config.routes, config.backends).dump()

    def _cannot_start(self, problem: str) -> None:
        self.log.critical("wafermon can't start: {problem}", problem=problem)
        print(f"wafermon can't start: {problem}", file=sys.stderr)
        self._writer.stop()
        self._pool.stop()
        self._openers.stop()
        self._spill_thread.stop()
        raise CannotStart(1)

    # -- reload

    def _listen_for_changes(self) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self.reload))
            # Other daemons reopen their logs at these. Nothing is to be done here, so they must not end it.
            for number in (signal.SIGUSR1, signal.SIGUSR2):
                signal.signal(number, signal.SIG_IGN)
        if self._watch is not None and self.config.reload == "watch":
            self._watch.start()

    def _set_watch(self, config: Config) -> None:
        if self._watch is not None and config.reload == "watch":
            self._watch.catch_up()
            self._watch.start()
        elif self._watch is not None:
            self._watch.stop()

    def reload(self) -> None:
        """Read the config's file again, soon."""
        if self.reloader is None:
            self.log.warn("wafermon runs on its default config: there is no file to read again")
        else:
            self.reloader.request()

    def take(self, config: Config) -> list[str]:
        """Put another config in force; answers with what has changed. Raises ConfigError or CannotChange where that is
        not possible: nothing has changed then."""
        file = str(self.reloader.path) if self.reloader is not None else ""
        if faults := needs_restart(self.config, config, file):
            raise ConfigError(faults)
        prepared: list[Change] = []
        try:
            for prepare in self._parts(config):
                prepared.append(prepare())
        except CannotChange:
            for change in reversed(prepared):
                change.undo()
            raise
        for change in prepared:
            change.commit()
        changed, self.config = differences(self.config, config), config
        return changed

    def _parts(self, config: Config) -> list[Callable[[], Change]]:
        """What prepares a config, part by part."""
        return [
            lambda: self.deliveries.prepare(config.backends),
            lambda: Change(lambda: self._take_values(config)),
            lambda: self.listening.prepare(config.listen),
            lambda: self.http.prepare(config.http),
        ]

    def _take_values(self, config: Config) -> None:
        """What needs no preparation."""
        before = self.config
        self.journal.change(config.journal)
        self.journal.set_routes(self._routes(config))
        self.dead_letters.change(config.dead_letters)
        self.receiver.limits = config.limits
        if config.correlation != before.correlation:
            self.correlator.configure(_correlation(config))
        if _spill_settings(config) != _spill_settings(before):
            self._take_up_spills(config)
        if config.hooks != before.hooks:
            self.hooks.configure(config.hooks)
        if config.reload != before.reload:
            self._set_watch(config)

    # -- stop

    def stopService(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        """Listeners first, then the parts in between, the journal last."""
        Service.stopService(self)  # type: ignore[no-untyped-call]
        self.stopping = True
        self._notifier.stopping()
        if self._watch is not None:
            self._watch.stop()
        if self.reloader is not None:
            await self.reloader.stop()
        await self.listening.stop()
        self._probe("listening closed")
        if self.spills is not None:
            self.spills.stop()
        await self.receiver.stop(ACK_SECONDS)
        self._probe("connections ended")
        await self.correlator.stop()
        self._probe("correlation saved")
        await self.hooks.stop(GRACE_SECONDS)
        await self.deliveries.stop(GRACE_SECONDS)
        self._probe("backends closed")
        self.dead_letter_follower.stop()
        await self.http.stop()
        await self.journal.close()
        self._probe("journal closed")
        self._writer.stop()
        self._pool.stop()
        self._openers.stop()
        self._spill_thread.stop()
        self._garbage.stop()
        self.log.info("wafermon has stopped")


def _spill_settings(config: Config) -> tuple[Any, ...]:
    return config.journal.spill_dir, config.journal.spill_owners, config.limits.max_line_bytes


def _correlation(config: Config) -> Settings:
    return Settings(**config.correlation.model_dump())
