"""The kafka backend on a real broker: the contract, and options that are refused. `make kafka` tests all of it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from kafka_broker import KafkaBroker
from twisted.python.threadpool import ThreadPool

from wafermon.backends.kafka import kafka
from wafermon.contract import BackendContract
from wafermon.interfaces import BackendContext, ConfigError, configure

TIMEOUT = 4.0
ALL = bool(os.environ.get("WAFERMON_TEST_ROUNDS"))


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
        return self.broker.cut_off()

    def lost_reply(self) -> AbstractContextManager[None]:
        return self.broker.losing_commits()

    def stuck(self) -> AbstractContextManager[None]:
        return self.broker.frozen()

    # What waits longest, and what others find as well.
    if not ALL:
        test_a_lost_reply_before_a_restart = None  # type: ignore[assignment]
        test_a_restart_after_a_failure = None  # type: ignore[assignment]


@pytest.mark.parametrize(("given", "problem"), [
    ({"brokers": []}, "expected a list of brokers"),
    ({"brokers": ["b1"]}, "expected brokers such as b1:9092"),
    ({"topic": "a b"}, "expected a topic"),
    ({"options": {"no.such.thing": 1}}, 'No such configuration property: "no.such.thing"'),
    ({"options": {"linger.ms": "soon", "acks": 0}}, "acks can't be given: it is always all"),
    ({"options": {"max.in.flight": 100}}, "options: "),
])  # fmt: skip
def test_options_that_are_refused(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(problem)):
        configure(kafka, {"brokers": ["b1:9092"], "topic": "t", **given})
