"""The composition root: the only place where the parts meet. Ordered start, ordered stop, and reload between them."""

from __future__ import annotations

import math
import secrets
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface.verify import verifyObject

from wafermon import __version__, routing
from wafermon.alerts import CURSOR, HOOKS, Channel, Covered, Hook, channel_config
from wafermon.backends import Plugins
from wafermon.config import Config, Watch, differences, needs_restart
from wafermon.correlation import Correlator, Engine, Settings, rules_of
from wafermon.daemon.garbage import Garbage, none_at_exit
from wafermon.daemon.reloader import Reloader
from wafermon.daemon.systemd import Notifier
from wafermon.delivery import DeadLetterFollower, DeadLetters, Deliveries, Delivery, Supervisor, Workers, at_most
from wafermon.interfaces import BackendContext, ChannelContext, IBackend, IChannel, IChannelFactory, IHistory
from wafermon.journal import CannotOpen, Journal
from wafermon.model.alerts import AlertConfig
from wafermon.model.changes import CannotChange, Change, Refused
from wafermon.model.errors import ConfigError, JournalLocked
from wafermon.model.onward import Onward
from wafermon.model.settings import BackendConfig, Hooks, HttpListener, Listener, OtlpListener
from wafermon.query import Live, Query
from wafermon.receivers import Intake, Listeners, OtlpPort, Receiver, Sources, SpillTaker
from wafermon.web import HttpServer, ListenerState

ACK_SECONDS = 2.0
"""How long a stop waits for the journal to have what was received; the rest comes again."""
GRACE_SECONDS = 5.0
"""How long a stop waits for each backend to take what is pending for it; the rest is delivered after the next start."""
ENDING_SHARE = 0.25
"""Of what is left of `stop_within` when the backends end: what each has to answer and close, after its grace; then it is left
running. That is 5 of 20 s, and what hangs takes nothing of the others, which end beside it, nor of the journal."""
FORWARD = "forward"
"""The plugin of backends that forward to other sidecars."""
OPENERS = 2
"""Threads that decompress what clients send."""
THREADS = 8
"""For what blocks: lagging cursors, dead letters, the config. Each backend has its own besides."""


class CannotStart(SystemExit):
    """Something that a person has to fix first. Already logged; ends the process with 1."""


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
        channels: Mapping[str, IChannelFactory] | None = None,
        probe: Callable[[str], None] = lambda point: None,
    ) -> None:
        """`file` is where the config comes from, and `read` reads it again; without them nothing is reloaded. `notifier`
        tells the service manager. `probe` is told the points of the journal's life and of the stop by name."""
        self.config = config
        self._plugins = plugins
        self._reactor = reactor
        self._probe = probe
        self._notifier = notifier or Notifier({}, reactor)
        self._writer = Workers(1, 1, "journal")
        self._pool = Workers(0, THREADS, "wafermon")
        self._tables = lru_cache(16)(routing.load)
        self.journal = Journal(config.journal, reactor, self._writer, self._pool, wall=time.time, probe=probe)
        self.dead_letters = DeadLetters(config.dead_letters, reactor, self._pool)
        self._openers = Workers(0, OPENERS, "frames")
        self._spill_thread = Workers(0, 1, "spill")
        self._onward = Onward()
        self.receiver = Receiver(self.journal, config.limits, reactor, self._openers, self._onward)
        self.otlp = Intake(self.journal, lambda: self.config.limits, self._live_traces, reactor, self._openers)
        kinds: dict[type[Listener], Any] = {OtlpListener: partial(OtlpPort, self.otlp, reactor)}
        self.listening = Listeners(self.receiver, reactor, kinds)
        self.sources = Sources(self.journal, lambda: self.config.limits, reactor, partial(Workers, 0, 1))
        self.supervisor = Supervisor(reactor, self.journal.now)
        self.deliveries = Deliveries(self._make_delivery, self.journal, self.supervisor, reactor)
        self.dead_letter_follower = DeadLetterFollower(self.journal, self.dead_letters, self._tables)
        self.correlator: Correlator
        self.spills: SpillTaker | None = None
        self._channel_factories = channels or {}
        self._alert_thread = Workers(0, 1, "alerts")
        self._covered = _covered(config)
        self._channels: dict[str, Channel] = {}
        """What is told of alarms, by the name of the cursor."""
        sleep = partial(deferLater, reactor)
        self.query = Query(lambda: self.live, self._histories, self.journal.now, sleep, lambda: self.config.schedules)
        self.http = HttpServer(self, reactor)
        self._garbage = Garbage(reactor)
        self.stopping = False
        self._instance = secrets.token_hex(8)
        self._stop_by = 0.0
        self._stop_phase = "the stop"
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
    def config_file(self) -> str:
        """See `View`."""
        return str(self.reloader.path) if self.reloader is not None else ""

    def http_listeners(self) -> list[tuple[HttpListener, str]]:
        """See `View`."""
        return self.http.open

    def ask_of_schedule(self, kind: str, name: str, until: int, by: str) -> Deferred[None]:
        """See `View`."""
        return self.correlator.ask(kind, name, until, by)

    @property
    def live(self) -> Live:
        """See `View`."""
        return Live(self.correlator, self.journal)

    def _live_traces(self) -> list[str]:
        return self.correlator.trace_ids()

    def _histories(self) -> dict[str, Any]:
        """The backends that can be asked for what they hold, by name, in the config's order."""
        return {
            name: delivery.backend
            for name in self.config.backends
            if (delivery := self.deliveries.get(name)) is not None and IHistory.providedBy(delivery.backend)
        }

    # -- start

    def startService(self) -> None:
        Service.startService(self)  # type: ignore[no-untyped-call]
        none_at_exit()
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
        self._alert_thread.start()
        try:
            self.journal.open(self._routes(self.config))
            self.dead_letters.open(self.journal.formerly)
            self.correlator = self._make_correlator()
            if self.config.schedules:
                self.correlator.tell_began()
            deliveries = self.deliveries.prepare(self.config.backends)
            self.supervisor.start(self.correlator)
            self.supervisor.start(self.dead_letter_follower)
            deliveries.commit()
            self.receiver.start()
            self._take_up_spills(self.config)
            self._let_go_of_channels()
            self._follow_with_channels(self.config)
            self.listening.prepare(self.config.ports).commit()
            self.sources.prepare(self.config.sources).commit()
            self.http.start()
            self.http.prepare(self.config.http).commit()
        except (JournalLocked, CannotOpen, OSError, sqlite3.Error, CannotChange) as error:
            self._cannot_start(str(error))
        except Exception as error:  # noqa: BLE001  # nothing runs on half started, whatever it was
            self.log.failure("The start failed")
            self._cannot_start(f"{type(error).__name__}: {error}")
        self._garbage.start()
        for name, held in self.deliveries.orphans.items():
            message = (
                "The cursor {name} has no backend, and holds {bytes} bytes of the journal: bring its backend back, or forget "
                "it with `wafermon journal forget {name}`"
            )
            self.log.warn(message, name=name, bytes=held.holds.bytes)
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
        workers = Workers(0, 1, f"backend {config.name}")
        context = BackendContext(
            config.name,
            state_dir,
            self._reactor,
            workers,
            timeout=config.timeout,
            journal=self.journal.id,
            instance=self._instance,
            onward=self._onward,
            formerly=self.journal.formerly,
        )
        backend = self._plugins.factories[config.plugin].build(config.options, context)
        verifyObject(IBackend, backend)
        return Delivery(
            config,
            backend,
            self.journal,
            self.dead_letters,
            self._tables,
            self._reactor,
            workers,
        )

    def _make_correlator(self) -> Correlator:
        engine = Engine(_correlation(self.config), self.journal.id)
        return Correlator(
            engine,
            self.journal,
            self.journal.dir / "correlation",
            self._pool,
            self._reactor,
            tables=self._tables,
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

    @property
    def channels(self) -> Mapping[str, Channel]:
        """See `View`."""
        return {channel.config.name: channel for name, channel in self._channels.items() if name != HOOKS}

    @property
    def hooks(self) -> Channel | None:
        """See `View`."""
        return self._channels.get(HOOKS)

    def _let_go_of_channels(self) -> None:
        """Those that went from the config while the sidecar was stopped hold nothing of the journal any more."""
        wanted = _channels(self.config)
        for name in self.journal.known_cursors():
            if (name == HOOKS or name.startswith(CURSOR)) and name not in wanted:
                self.journal.forget(name)

    def _follow_with_channels(self, before: Config) -> None:
        """As the config in force says. What is as it was `before` goes on."""
        old, new = _channels(before), _channels(self.config)
        for name in [name for name in self._channels if old.get(name) != new.get(name)]:
            channel = self._channels.pop(name)
            stopped = Deferred.fromCoroutine(self.supervisor.stop(name, GRACE_SECONDS))
            stopped.addCallback(self._channel_stopped, channel)
            stopped.addErrback(lambda failure: self.log.failure("Internal error in the channels", failure))
        for name in new:
            self._start_channel(name)

    def _channel_stopped(self, _: object, channel: Channel) -> None:
        if channel.name not in _channels(self.config):
            channel.forget()
        elif not self.stopping:
            self._start_channel(channel.name)

    def _start_channel(self, name: str) -> None:
        """Unless it runs, or its predecessor has not ended: it is started when that has."""
        if name in self._channels or name in self.supervisor.states:
            return
        config = _channels(self.config)[name]
        plugin: Any
        covered: Callable[[], Covered]
        if isinstance(config, Hooks):  # which are told of each event whose kind they name
            plugin, alert, covered = Hook(config.command, self._reactor), channel_config(config), partial(Covered, {})
        else:
            context = ChannelContext(config.name, self._reactor)
            plugin, alert = self._channel_factories[config.plugin].build(config.options, context), config
            covered = self._covered_now
        verifyObject(IChannel, plugin)
        directory = self.journal.dir / "alerts"
        channel = Channel(
            alert, plugin, self.journal, directory, self._alert_thread, self._reactor, cursor=name, covered=covered
        )
        self._channels[name] = channel
        self.supervisor.start(channel)

    def _covered_now(self) -> Covered:
        return self._covered

    def _routes(self, config: Config) -> str:
        """A plugin whose `always` names the messages that a rule has to name gets all of them."""
        factories = self._plugins.factories
        names = [
            name
            for name, backend in config.backends.items()
            if routing.APART in getattr(factories[backend.plugin], "always", ())
        ]
        return routing.compile_routes(routing.with_apart(config.routes, names), config.backends).dump()

    def _cannot_start(self, problem: str) -> None:
        self.log.critical("wafermon can't start: {problem}", problem=problem)
        print(f"wafermon can't start: {problem}", file=sys.stderr)
        for name in list(self.supervisor.states):
            stopping = Deferred.fromCoroutine(self.supervisor.stop(name))
            stopping.addErrback(lambda failure: self.log.failure("A stop failed", failure))
        self._writer.stop()
        self._pool.stop()
        self._openers.stop()
        self._spill_thread.stop()
        self._alert_thread.stop()
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
        before = self.config
        changed, self.config = differences(before, config), config
        if config.schedules != before.schedules or _derives(config) != _derives(before):
            self._covered = _covered(config)
        self._follow_with_channels(before)
        return changed

    def _parts(self, config: Config) -> list[Callable[[], Change]]:
        """What prepares a config, part by part."""
        return [
            lambda: self.deliveries.prepare(config.backends),
            lambda: Change(lambda: self._take_values(config)),
            lambda: self.listening.prepare(config.ports),
            lambda: self.sources.prepare(config.sources),
            lambda: self.http.prepare(config.http),
        ]

    def _take_values(self, config: Config) -> None:
        """What needs no preparation."""
        before = self.config
        self.journal.change(config.journal)
        self.journal.set_routes(self._routes(config))
        self.dead_letters.change(config.dead_letters)
        self.receiver.limits = config.limits
        if _correlation(config) != _correlation(before):
            self.correlator.configure(_correlation(config))
        if _spill_settings(config) != _spill_settings(before):
            self._take_up_spills(config)
        if config.reload != before.reload:
            self._set_watch(config)

    # -- stop

    def stopService(self) -> Deferred[None]:
        """Fires after `stop_within` seconds at the latest. What hangs then is left running in threads that do not keep the
        process from ending."""
        self._stop_by = self._reactor.seconds() + self.config.stop_within
        stopped: Deferred[None] = Deferred()
        late = self._reactor.callLater(self.config.stop_within, self._stop_is_late, stopped)

        def over(_: object) -> None:
            if late.active():
                late.cancel()
                stopped.callback(None)

        stopping = Deferred.fromCoroutine(self._stop())
        stopping.addErrback(lambda failure: self.log.failure("The stop failed", failure))
        stopping.addBoth(over)
        return stopped

    def _stop_is_late(self, stopped: Deferred[None]) -> None:
        message = "wafermon has not stopped within {seconds:g} s: {phase} hangs, and is left running"
        self.log.critical(message, seconds=self.config.stop_within, phase=self._stop_phase)
        for pool in (self._writer, self._pool, self._openers, self._spill_thread, self._alert_thread):
            pool.leave()
        stopped.callback(None)

    def _left(self, most: float, share: float = 1.0) -> float:
        """How long one step of the stop may take: `most` seconds, within that share of all that is left."""
        return float(min(most, max(0.0, self._stop_by - self._reactor.seconds()) * share))

    async def _stop(self) -> None:
        """Listeners first, then the parts in between, the journal last."""
        Service.stopService(self)  # type: ignore[no-untyped-call]
        self.stopping = True
        self._notifier.stopping()
        if self._watch is not None:
            self._watch.stop()
        if self.reloader is not None:
            self._stop_phase = "reading the config"
            await at_most(self._reactor, self._left(GRACE_SECONDS, 0.1), Deferred.fromCoroutine(self.reloader.stop()))
        self._stop_phase = "closing the listeners"
        await self.listening.stop()
        self._probe("listening closed")
        if self.spills is not None:
            self.spills.stop()
        read = self.sources.stop()
        self._stop_phase = "ending the connections"
        self.otlp.stopping = True
        await self.receiver.stop(self._left(ACK_SECONDS, 0.25))
        await at_most(self._reactor, self._left(ACK_SECONDS, 0.25), self.otlp.settled())
        self._stop_phase = "reading from Kafka"
        await at_most(self._reactor, self._left(GRACE_SECONDS, 0.25), read)
        self.listening.end()
        self._probe("connections ended")
        self._stop_phase = "saving the correlation"
        await self.supervisor.stop(self.correlator.name, self._left(GRACE_SECONDS, 0.25))
        self._probe("correlation saved")
        self._stop_phase = "a channel of the alerts"
        within = self._left(GRACE_SECONDS, 0.25)
        stopped = [Deferred.fromCoroutine(self.supervisor.stop(name, within)) for name in self._channels]
        await DeferredList(stopped)
        self._stop_phase = "a backend"
        await self.deliveries.stop(self._left(GRACE_SECONDS, 0.5), self._left(math.inf, ENDING_SHARE))
        self._probe("backends closed")
        self._stop_phase = "the dead letters"
        await self.supervisor.stop(self.dead_letter_follower.name, self._left(GRACE_SECONDS, 0.5))
        self._stop_phase = "closing the HTTP server"
        await at_most(self._reactor, self._left(GRACE_SECONDS, 0.5), Deferred.fromCoroutine(self.http.stop()))
        self._stop_phase = f"closing the journal in {self.journal.dir}"
        await self.journal.close()
        self._probe("journal closed")
        for pool in (self._writer, self._pool, self._openers, self._spill_thread, self._alert_thread):
            pool.leave()
        self._garbage.stop()
        self.log.info("wafermon has stopped")


def _spill_settings(config: Config) -> tuple[Any, ...]:
    return config.journal.spill_dir, config.journal.spill_owners, config.limits.max_line_bytes


def _channels(config: Config) -> dict[str, AlertConfig | Hooks]:
    """What is told of alarms, by the name of its cursor."""
    found: dict[str, AlertConfig | Hooks] = {CURSOR + name: alert for name, alert in config.alerts.items()}
    return {HOOKS: config.hooks, **found} if config.hooks is not None else found


def _derives(config: Config) -> bool:
    """Whether this sidecar derives, and not another one that its messages go to or come from."""
    elsewhere = config.sources or any(backend.plugin == FORWARD for backend in config.backends.values())
    return config.correlation.derive == "here" or (not config.correlation.derive and not elsewhere)


def _covered(config: Config) -> Covered:
    """A sidecar that derives nothing tells nothing of its schedules."""
    return Covered(config.schedules if _derives(config) else {})


def _correlation(config: Config) -> Settings:
    forwards = tuple(name for name, backend in config.backends.items() if backend.plugin == FORWARD)
    said = config.correlation.model_dump()
    return Settings(
        **{**said, "derive": "here" if _derives(config) else "never", "forwards": forwards},
        schedules=rules_of(config.schedules),
    )
