"""Deliveries of a journal in memory to backends in memory, on a Clock."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, ClassVar

from memory_backend import MemoryBackend, MemoryPlace
from memory_journal import MemoryJournal, MemoryLetters
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from wafermon import routing
from wafermon.delivery import Deliveries, Delivery, Supervisor
from wafermon.model.settings import BackendConfig, BatchLimits, Retry
from wafermon.routing import Table
from wafermon.routing.rules import Rule

TIMEOUT = 60.0
GIVE_UP = 900.0
LONGEST = 30.0
"""Of all waits between two tries."""


def number_of(line: bytes) -> int:
    """The number that `journals.line` gave a message."""
    return int(json.loads(line)["message"][1:])


class Running:
    """What a sidecar has of them. All waits are the longest that they may be."""

    all: ClassVar[list[Running]] = []
    """Those that were not stopped."""

    def __init__(self, outstanding: int = 1, *names: str, **place: Any) -> None:
        self.all.append(self)
        self.names = names or ("one",)
        self.clock = Clock()
        self.journal = MemoryJournal(self.clock, Table([Rule(self.names)]).dump())
        self.letters = MemoryLetters()
        self.places = {name: MemoryPlace(outstanding=outstanding, **place) for name in self.names}
        self.made: list[Delivery] = []
        self.supervisor = Supervisor(self.clock, self.journal.now, lambda least, most: most)
        self.deliveries = Deliveries(self.make, self.journal, self.supervisor, self.clock)  # type: ignore[arg-type]
        self.build: Callable[[BackendConfig], Any] = lambda config: MemoryBackend(self.places[config.name])

    def make(self, config: BackendConfig) -> Delivery:
        backend = self.build(config)
        made = Delivery(
            config, backend, self.journal, self.letters, routing.load, self.clock, None, lambda least, most: most  # type: ignore[arg-type]
        )  # fmt: skip
        self.made.append(made)
        return made

    def config(self, name: str, **more: Any) -> BackendConfig:
        keys = {
            "plugin": "memory", "batch": BatchLimits(messages=10), "retry": Retry(), "timeout": TIMEOUT,
            "when_full": "pause", "on_remove": "keep", **more,
        }  # fmt: skip
        return BackendConfig.model_construct(name=name, options=None, **keys)

    def take(self, *configs: BackendConfig) -> None:
        """Put a config in force."""
        self.deliveries.prepare({one.name: one for one in configs}).commit()

    def start(self, **more: Any) -> Running:
        self.take(*(self.config(name, **more) for name in self.names))
        return self

    def put(self, first: int, last: int) -> None:
        """Accept the messages from `first` to `last`, and let the batch's age go by."""
        self.journal.put(range(first, last + 1))
        self.wait(1.0)

    def wait(self, seconds: float, step: float = 0.1) -> None:
        self.clock.pump([step] * round(seconds / step))

    @property
    def place(self) -> MemoryPlace:
        return self.places[self.names[0]]

    @property
    def delivery(self) -> Delivery:
        return self.deliveries[self.names[0]]

    def stored(self, name: str = "") -> list[int]:
        """The numbers that a backend has, in the order in which it got them."""
        return list(map(number_of, self.places[name or self.names[0]].lines))

    def dead(self) -> list[int]:
        return [number_of(letter.line) for letter in self.letters.letters]

    def sizes(self) -> list[int]:
        """Of all batches that were tried, in messages."""
        return [batch.count for batch in self.place.writes]

    def stop(self, grace: float = 5.0, ending: float = 5.0) -> list[None]:
        """As a sidecar's stop; holds something once that has ended."""
        stopped: list[None] = []
        Deferred.fromCoroutine(self.deliveries.stop(grace, ending)).addCallback(stopped.append)
        return stopped

    @classmethod
    def stop_all(cls) -> None:
        """End what tests left running."""
        while cls.all:
            running = cls.all.pop()
            running.place.release()
            running.stop(0.0, 1.0)
            running.wait(2.0)
            for name in running.supervisor.states:
                Deferred.fromCoroutine(running.supervisor.stop(name))
