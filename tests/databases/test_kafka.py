"""The kafka backend on a real broker: the contract, and what becomes of producers that are late, shut out, or closed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from daemon import Daemon, Load, until
from kafka_broker import KafkaBroker
from twisted.python.threadpool import ThreadPool

from wafermon.backends.kafka import kafka
from wafermon.contract import BackendContract
from wafermon.interfaces import BackendContext, ConfigError, configure

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
        return self.broker.cut_off()

    def lost_reply(self) -> AbstractContextManager[None]:
        return self.broker.losing_commits()

    def stuck(self) -> AbstractContextManager[None]:
        return self.broker.frozen()


CONFIG = """
listen: ["tcp:{port}:interface=127.0.0.1"]
http: false
reload: signal
journal: {{dir: journal, segment_bytes: 1MiB, max_bytes: 12MiB}}
backends:
  bus: {{plugin: kafka, brokers: ["BROKER"], topic: TOPIC, timeout: 10s, batch: {{age: 50ms}}, retry: {{max: 1s}}}}
routes: [{{to: [bus]}}]
dead_letters: {{dir: dead-letters}}
"""


def test_kills_of_sidecar_and_broker(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    topic = kafka_broker.topic()
    config = CONFIG.replace("BROKER", kafka_broker.address).replace("TOPIC", topic.name)
    with Daemon(tmp_path, config) as daemon:
        loads = [Load(daemon, number, [{"trace_id": f"job-{n}"} for n in range(7)]) for number in (1, 2)]
        try:
            for again in (kafka_broker.restart, daemon.start, kafka_broker.restart):
                reached = [one.acked for one in loads]
                until(partial(_went_on, loads, reached), "acks")
                if again == daemon.start:
                    daemon.kill()
                again()
        finally:
            for one in loads:
                one.join()

        def there() -> bool:
            found = topic.counted()
            return all(one.acked in found.get(one.name, ()) for one in loads)

        until(there, "all that was acknowledged in the topic")
    for one in loads:
        found = topic.counted()[one.name]
        assert set(found.values()) == {1}
        assert set(range(1, one.acked + 1)) <= set(found)
    partitions: dict[str, set[int]] = {}
    for record in topic.records():
        if key := record.key():
            partitions.setdefault(key.decode(), set()).add(record.partition())
    assert {f"job-{n}" for n in range(7)} <= set(partitions)
    assert all(len(found) == 1 for found in partitions.values())


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


def _went_on(loads: list[Load], before: list[int]) -> bool:
    return all(one.acked > was for one, was in zip(loads, before, strict=True))
