"""All entries of `listen` that read from Kafka, and how a running sidecar takes others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.python.threadpool import ThreadPool

from wafermon.journal import Journal
from wafermon.model.changes import Change
from wafermon.model.settings import KafkaSource, Limits
from wafermon.receivers.kafka.source import Source


class Sources:
    """See the module."""

    def __init__(
        self, journal: Journal, limits: Callable[[], Limits], reactor: Any, thread: Callable[[str], ThreadPool]
    ) -> None:
        """`thread` makes a pool of one thread; its `stop` must not wait for one that hangs."""
        self._journal = journal
        self._limits = limits
        self._reactor = reactor
        self._thread = thread
        self._read: list[tuple[Source, Any]] = []
        self._ending: Deferred[None] | None = None

    @property
    def open(self) -> list[Source]:
        """Those that are read."""
        return [source for source, _ in self._read]

    def prepare(self, wanted: Sequence[KafkaSource]) -> Change:
        """Those that stay the same go on; others begin once those that go have ended, whose partitions they may have."""
        return Change(lambda: self._commit(wanted))

    def _commit(self, wanted: Sequence[KafkaSource]) -> None:
        kept = [one for one in self._read if one[0].settings in wanted]
        going = [one for one in self._read if one not in kept]
        ended = self._end(going)
        self._read = kept
        known = [source.settings for source, _ in kept]
        for settings in wanted:
            if settings not in known:
                pool = self._thread("kafka")
                pool.start()
                source = Source(settings, self._journal, self._limits, self._reactor, pool)
                after: Deferred[None] = Deferred()
                ended.addBoth(_fire, after)
                source.start(after)
                self._read.append((source, pool))

    def _end(self, going: Sequence[tuple[Source, Any]]) -> Deferred[None]:
        """Fires once they have ended."""
        ends = []
        for source, pool in going:
            end = source.stop()
            end.addCallback(partial(_leave, pool))
            ends.append(end)
        if self._ending is not None:
            ends.append(self._ending)
        ended = DeferredList(ends)
        self._ending = Deferred()
        return ended.addBoth(_fire, self._ending)

    def stop(self) -> Deferred[None]:
        """Read no more. Fires once all that was read is durable, and the clients are closed: where one hangs, never."""
        return self._end(self._read)

    def leave(self) -> None:
        """Leave what hangs in its thread."""
        for _, pool in self._read:
            pool.leave()


def _leave(pool: Any, _: object) -> None:
    pool.leave()


def _fire(_: object, waiting: Deferred[None]) -> None:
    waiting.callback(None)
