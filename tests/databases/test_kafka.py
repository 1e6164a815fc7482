"""The kafka backend on a real broker: the contract, and what becomes of producers that are late, shut out, or closed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from kafka_broker import KafkaBroker
from twisted.python.threadpool import ThreadPool

from wafermon.backends.kafka import kafka
from wafermon.contract import BackendContract
from wafermon.interfaces import BackendContext, configure

TIMEOUT = 6.0


class TestContract(BackendContract):
    factory = kafka

    @pytest.fixture(autouse=True)
    def _topic(self, kafka_broker: KafkaBroker) -> Iterator[None]:
        self.broker = kafka_broker
        self.topic = kafka_broker.topic()
        yield

    def build(self) -> Any:
        from twisted.internet import reactor

        pool = ThreadPool(0, 1, "contract")
        pool.start()
        context = BackendContext("contract", self.state_dir, reactor, pool, timeout=TIMEOUT)
        backend = self.factory.build(configure(self.factory, self.options()), context)
        self._built.append((backend, pool))
        return backend

    def options(self) -> dict[str, Any]:
        return {"brokers": [self.broker.behind], "topic": self.topic.name, "partitions": 4}

    def read_back(self) -> Iterable[tuple[str, int]]:
        return self.topic.stored()

    def unreachable(self) -> AbstractContextManager[None]:
        return self.broker.down()

    def lost_reply(self) -> AbstractContextManager[None]:
        return self.broker.losing_commits()

    def stuck(self) -> AbstractContextManager[None]:
        return self.broker.frozen()
