"""A reload while the file backend still recovers in its thread, with real threads and files."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from journals import OpenJournal
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from wafermon import routing
from wafermon.backends.filesystem import FilesystemBackend, filesystem
from wafermon.delivery import DeadLetters, Deliveries, Delivery, Supervisor, Workers
from wafermon.files import Files
from wafermon.files.files import StrPath
from wafermon.interfaces import BackendContext, configure
from wafermon.model.settings import BackendConfig, BatchLimits, Retry
from wafermon.model.settings import DeadLetters as Limits
from wafermon.routing import Table
from wafermon.routing.rules import Rule


class SlowDisk(Files):
    """Opening a file that is there takes until `go_on` is set: a disk that sleeps, a network mount."""

    def __init__(self) -> None:
        self.slow = False
        self.reached = threading.Event()
        self.go_on = threading.Event()

    def open(self, path: StrPath, flags: int, mode: int = 0o600) -> int:
        if self.slow and os.fspath(path).endswith(".jsonl"):
            self.slow = False
            self.reached.set()
            self.go_on.wait(60)
        return super().open(path, flags, mode)


class Place:
    """A journal, and deliveries to files."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "out" / "svc.jsonl"
        self.disk = SlowDisk()
        self.opened = OpenJournal(directory / "journal")
        self.journal = self.opened.journal
        self.journal.set_routes(Table([Rule(("files",))]).dump())
        self._options = configure(filesystem, {"path": str(directory / "out" / "{service}.jsonl")})
        self._state = directory / "state"
        self._state.mkdir()
        self._letters = DeadLetters(
            Limits.model_construct(dir=directory / "dead", max_bytes=0), reactor, self.opened.journal._readers
        )
        self._letters.open({})
        self.deliveries = self._deliveries()

    def _deliveries(self) -> Deliveries:
        return Deliveries(self._make, self.journal, Supervisor(reactor, self.journal.now), reactor)

    def crash(self) -> None:
        """Begin anew as after a kill: nothing of the old backend was closed, and nothing of it runs on."""
        for one in self.deliveries.values():
            self.journal.detach(one._cursor)
            Deferred.fromCoroutine(self.deliveries._supervisor.stop("files"))
        self.deliveries = self._deliveries()

    def _make(self, config: BackendConfig) -> Delivery:
        workers = Workers(0, 1, "files")
        context = BackendContext("files", self._state, reactor, workers)
        backend = FilesystemBackend(self._options, context, self.disk)
        return Delivery(config, backend, self.journal, self._letters, routing.load, reactor, workers)

    def take(self, messages: int) -> None:
        batch = BatchLimits(messages=messages, age=0.05)
        keys: dict[str, Any] = {
            "plugin": "filesystem",
            "timeout": 60.0,
            "when_full": "pause",
            "on_remove": "keep",
            "retry": Retry(),
        }
        config = BackendConfig.model_construct(name="files", options=None, batch=batch, **keys)
        self.deliveries.prepare({"files": config}).commit()

    def lines(self) -> list[bytes]:
        return self.file.read_bytes().splitlines() if self.file.exists() else []

    async def until(self, condition: Any) -> None:
        for _ in range(3000):
            if condition():
                return
            await deferLater(reactor, 0.02)
        raise AssertionError("it did not come about within 60 s")


def test_a_reload_while_files_are_recovered_in_a_thread_loses_nothing(tmp_path: Path) -> Deferred[None]:
    async def run() -> None:
        place = Place(tmp_path)
        place.take(1000)
        await place.until(lambda: place.deliveries["files"].health().state == "ok")
        await place.opened.put(range(1, 101))
        await place.until(lambda: len(place.lines()) == 100 and not place.deliveries["files"].lag.messages)
        place.crash()

        place.disk.slow = True
        place.take(1000)
        await place.until(place.disk.reached.is_set)
        place.take(999)
        await place.opened.put(range(101, 301))
        await deferLater(reactor, 0.3)
        assert len(place.lines()) == 100, "the new backend opens only once nothing of the old one runs"
        place.disk.go_on.set()
        await place.until(lambda: len(place.lines()) == 300)
        assert len(set(place.lines())) == 300
        await place.deliveries.stop(5.0, 20.0)
        assert len(place.lines()) == 300
        await place.opened.close()

    return Deferred.fromCoroutine(run())
