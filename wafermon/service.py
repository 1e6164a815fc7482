"""The composition root: the only place where the parts meet. Ordered start, ordered stop."""

from __future__ import annotations

import gc
import sqlite3
import sys
from functools import lru_cache
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool
from zope.interface.verify import verifyObject

from wafermon import __version__, routing
from wafermon.backends import Plugins
from wafermon.config import BackendConfig, Config
from wafermon.correlation import Correlator, Engine, Settings
from wafermon.delivery import DeadLetters, Delivery, Undertaker
from wafermon.errors import JournalLocked
from wafermon.hooks import CURSOR as HOOKS_CURSOR
from wafermon.hooks import Hooks
from wafermon.http import HttpRoom, ListenerState, Refused
from wafermon.interfaces import BackendContext, IBackend
from wafermon.journal import Journal
from wafermon.receiver import Receiver, ReceiverFactory, SpillTaker, by_peer

GRACE_SECONDS = 5.0
"""How long a stop waits for each backend to take what it lacks; the rest is delivered after the next start."""
THREADS = 8
"""For what blocks: backends, lagging cursors, dead letters."""


class CannotStart(SystemExit):
    """Something that a person has to mend first. Already logged; ends the process with 1."""


class Sidecar(Service):
    """The daemon."""

    log = Logger()

    def __init__(self, config: Config, plugins: Plugins, reactor: Any) -> None:
        self.config = config
        self._plugins = plugins
        self._reactor = reactor
        self._ports: list[IListeningPort] = []
        self._addresses: dict[str, str] = {}
        self._http_port: IListeningPort | None = None
        self._writer = ThreadPool(1, 1, "journal")
        self._pool = ThreadPool(0, THREADS, "wafermon")
        self._tables = lru_cache(16)(routing.load)
        self.journal = Journal(config.journal, reactor, self._writer, self._pool)
        self.dead_letters = DeadLetters(config.dead_letters, reactor, self._pool)
        self.receiver = Receiver(self.journal, config.limits, reactor)
        self.deliveries: dict[str, Delivery] = {}
        self.undertaker = Undertaker(self.journal, self.dead_letters, self._tables)
        self.correlator: Correlator
        self.spills: SpillTaker | None = None
        self.hooks: Hooks | None = None
        self.refused: Refused | None = None
        self.stopping = False
        self.http: HttpRoom

    # -- start

    def startService(self) -> None:
        Service.startService(self)  # type: ignore[no-untyped-call]
        for name, problem in self._plugins.broken.items():
            self.log.error(
                "The backend plugin {name} can't be loaded: {problem}",
                name=name,
                problem=problem,
            )
        table = routing.compile_routes(self.config.routes, self.config.backends)
        self._writer.start()
        self._pool.start()
        try:
            self.journal.open(table.dump())
            self.dead_letters.open()
            self.correlator = self._make_correlator()
            for backend in self.config.backends.values():
                self.deliveries[backend.name] = self._make_delivery(backend)
        except (JournalLocked, OSError, sqlite3.Error) as error:
            self._cannot_start(str(error))
        self.correlator.start()
        self.undertaker.start()
        for delivery in self.deliveries.values():
            delivery.start()
        self.receiver.start()
        if self.config.journal.spill_dir is not None:
            limit = self.config.limits.max_line_bytes
            self.spills = SpillTaker(self.config.journal.spill_dir, self.journal, limit, self._reactor)
            self.spills.start()
        if self.config.hooks is not None:
            self.hooks = Hooks(self.config.hooks, self.journal, self._reactor)
            self.hooks.start()
        else:
            self.journal.forget(HOOKS_CURSOR)
        for listener in self.config.listen:
            self._listen(listener.endpoint)
        self._serve_http()
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        self.log.info(
            "wafermon {version} is ready; its journal is {id}",
            version=__version__,
            id=self.journal.id,
        )

    def _make_delivery(self, config: BackendConfig) -> Delivery:
        state_dir = self.journal.dir / "backends" / config.name
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
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
        engine = Engine(Settings(**self.config.correlation.model_dump()), self.journal.id)
        return Correlator(
            engine,
            self.journal,
            self.journal.dir / "correlation",
            self._pool,
            self._reactor,
        )

    def _listen(self, endpoint: str) -> None:
        def listening(port: IListeningPort) -> None:
            self._ports.append(port)
            self._addresses[endpoint] = _shown(port.getHost())
            self.log.info("Listening on {endpoint}", endpoint=endpoint)

        def failed(failure: Any) -> None:
            self._cannot_start(f"can't listen on {endpoint}: {failure.value}")

        factory = ReceiverFactory(self.receiver, by_peer)
        server = serverFromString(self._reactor, endpoint)  # type: ignore[no-untyped-call]
        server.listen(factory).addCallbacks(listening, failed)

    def listeners(self) -> list[ListenerState]:
        """See `House`."""
        return [ListenerState(one.endpoint, self._addresses.get(one.endpoint, "")) for one in self.config.listen]

    def _serve_http(self) -> None:
        self.http = HttpRoom(self, self._reactor)
        self.http.start()
        endpoint = self.config.http
        if endpoint is None:
            return

        def serving(port: IListeningPort) -> None:
            self._http_port = port
            self.log.info("Health and metrics on {endpoint}", endpoint=endpoint)

        def failed(failure: Any) -> None:
            self._cannot_start(f"can't serve HTTP on {endpoint}: {failure.value}")

        self.http.listen(endpoint).addCallbacks(serving, failed)

    def _cannot_start(self, problem: str) -> None:
        self.log.critical("wafermon can't start: {problem}", problem=problem)
        print(f"wafermon can't start: {problem}", file=sys.stderr)
        self._writer.stop()
        self._pool.stop()
        raise CannotStart(1)

    # -- stop

    def stopService(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        """Doors first, then what is in the house, the journal last."""
        Service.stopService(self)  # type: ignore[no-untyped-call]
        self.stopping = True
        await DeferredList([_as_deferred(port.stopListening()) for port in self._ports])
        if self.spills is not None:
            self.spills.stop()
        self.receiver.stop()
        await self.correlator.stop()
        if self.hooks is not None:
            await self.hooks.stop(GRACE_SECONDS)
        stopping = [Deferred.fromCoroutine(one.stop(GRACE_SECONDS)) for one in self.deliveries.values()]
        await DeferredList(stopping, consumeErrors=True)
        self.undertaker.stop()
        if self._http_port is not None:
            await _as_deferred(self._http_port.stopListening())
        self.http.stop()
        await self.journal.close()
        self._writer.stop()
        self._pool.stop()
        self.log.info("wafermon has stopped")


def _shown(address: Any) -> str:
    """Where a port listens, in a word."""
    name = getattr(address, "name", None)
    if name is not None:
        return name.decode() if isinstance(name, bytes) else str(name)
    return f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}"


def _as_deferred(result: Deferred[None] | None) -> Deferred[None]:
    done: Deferred[None] = Deferred()
    if result is None:
        done.callback(None)
    else:
        result.addBoth(done.callback)
    return done
