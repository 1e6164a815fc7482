"""A real Kafka broker of the tests' own (KRaft, one node), whose log is in a directory that goes away with it."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from built_server import BuiltServer, program
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec  # type: ignore[attr-defined]  # not in its __all__
from daemon import until
from ports import free_port
from proxy import Proxy

END_TRANSACTION = 26
"""Kafka's number for the request that commits."""
SERVER = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAIN://127.0.0.1:{port},BEHIND://127.0.0.1:{behind},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAIN://127.0.0.1:{port},BEHIND://127.0.0.1:{proxy}
listener.security.protocol.map=PLAIN:PLAINTEXT,BEHIND:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAIN
log.dirs={directory}/log
num.partitions=4
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
auto.create.topics.enable=false
log.retention.check.interval.ms=1000
log.segment.delete.delay.ms=0
log.initial.task.delay.ms=0
"""
JAVA = [
    "-Xmx256m",
    "-Xms64m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
]


class KafkaBroker(BuiltServer):
    """One broker. `start` it; `remove` ends it and takes its directory away."""

    def __init__(self) -> None:
        self._java = ["java", *JAVA, "-cp", f"{program('kafka-broker')}/*"]
        self.directory = Path(tempfile.mkdtemp(prefix="wafermon-kafka-"))
        self.port, behind, controller = free_port(), free_port(), free_port()
        self.proxy = Proxy(("127.0.0.1", behind))
        self._numbers = count(1)
        self._config = self.directory / "server.properties"
        self._config.write_text(
            SERVER.format(
                port=self.port, behind=behind, controller=controller, proxy=self.proxy.port, directory=self.directory
            )
        )
        self._admin: AdminClient | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def behind(self) -> str:
        """The same broker behind a proxy."""
        return f"127.0.0.1:{self.proxy.port}"

    def format(self) -> None:
        """Make its directory ready, once."""
        cluster = "d2FmZXJtb24tdGVzdHMtMQ"  # 16 bytes in base64, as it wants them
        command = [*self._java, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(self._config)]
        subprocess.run(command, cwd=self.directory, check=True, capture_output=True)

    def start(self) -> None:
        """Returns when it answers."""
        with (self.directory / "broker.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self._java, "kafka.Kafka", str(self._config)],
                cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        until(self._answers, "a broker that answers")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.directory / "broker.log").read_text()
        try:
            return bool(self.admin.list_topics(timeout=1).brokers)
        except KafkaException:
            return False

    @property
    def admin(self) -> AdminClient:
        if self._admin is None:
            self._admin = AdminClient({"bootstrap.servers": self.address, "log_level": 0})
        return self._admin

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """Nothing passes the proxy."""
        self.proxy.rule = lambda pair, chunk, from_client: "cut"
        try:
            yield
        finally:
            self.proxy.rule = lambda pair, chunk, from_client: "pass"

    @contextmanager
    def losing_commits(self) -> Iterator[None]:
        """Transactions of whoever is behind the proxy are committed, and nobody is told."""
        self.proxy.rule = lambda pair, chunk, from_client: (
            "pass and cut" if from_client and chunk[4:6] == END_TRANSACTION.to_bytes(2, "big") else "pass"
        )
        try:
            yield
        finally:
            self.proxy.rule = lambda pair, chunk, from_client: "pass"

    def create(self, partitions: int = 4, name: str = "", **config: str) -> Topic:
        """A topic of its own."""
        name = name or f"topic{next(self._numbers)}"
        new = NewTopic(name, partitions, 1, config={key.replace("_", "."): value for key, value in config.items()})
        self.admin.create_topics([new])[name].result(60)
        return Topic(self, name)

    def topic(self) -> Topic:
        """A name that no topic has yet."""
        return Topic(self, f"topic{next(self._numbers)}")

    def send(self, topic: str, lines: Iterable[dict[str, Any] | bytes | None], partition: int = -1) -> None:
        """What a program of somebody else's puts there: each value as it is, or as JSON, with its trace as the key."""
        producer = Producer({"bootstrap.servers": self.address, "log_level": 0})
        for line in lines:
            value = json.dumps(line).encode() if isinstance(line, dict) else line
            key = line.get("trace_id") if isinstance(line, dict) else None
            producer.produce(topic, value, key, partition)
        assert producer.flush(60) == 0

    def delete(self, name: str) -> None:
        self.admin.delete_topics([name])[name].result(60)
        until(lambda: name not in self.admin.list_topics(timeout=10).topics, "a topic that is gone")

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


class Topic:
    """One topic of a broker."""

    def __init__(self, broker: KafkaBroker, name: str) -> None:
        self.broker = broker
        self.name = name

    def records(self) -> list[Any]:
        """All that is committed, partition by partition."""
        topics = self.broker.admin.list_topics(timeout=30).topics
        if self.name not in topics or topics[self.name].error:
            return []
        consumer = Consumer(
            {
                "bootstrap.servers": self.broker.address, "group.id": "tests", "isolation.level": "read_committed", "log_level": 0,
                "enable.auto.commit": False, "enable.partition.eof": True, "auto.offset.reset": "earliest",
            }
        )  # fmt: skip
        try:
            partitions = list(topics[self.name].partitions)
            consumer.assign([TopicPartition(self.name, number, 0) for number in partitions])
            found: dict[int, list[Any]] = {number: [] for number in partitions}
            ended = set[int]()

            def read() -> bool:
                for one in consumer.consume(10_000, 0.2):
                    error, number = one.error(), one.partition() or 0
                    if error is None:
                        found[number].append(one)
                    elif error.name() == "_PARTITION_EOF":
                        ended.add(number)
                return len(ended) == len(partitions)

            until(read, "the end of a topic")
            return [one for number in partitions for one in found[number]]
        finally:
            consumer.close()

    def end(self) -> int:
        """Its offsets so far, over all partitions; 0 where it is not there, or nobody can tell just now."""
        topics = self.broker.admin.list_topics(timeout=30).topics
        if self.name not in topics or topics[self.name].error:
            return 0
        asked = {TopicPartition(self.name, number): OffsetSpec.latest() for number in topics[self.name].partitions}  # type: ignore[no-untyped-call]
        try:
            return sum(found.result(30).offset for found in self.broker.admin.list_offsets(asked).values())
        except KafkaException:
            return 0

    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(one.value()) for one in self.records()]

    def stored(self) -> list[tuple[str, int]]:
        """(client, seq) of everything; what is there twice, twice."""
        return [(message["client"], message["seq"]) for message in self.messages()]

    def counted(self) -> dict[str, Counter[int]]:
        """How often each seq of each client is there; the sidecar's own messages are left out."""
        found: dict[str, Counter[int]] = {}
        for message in self.messages():
            if message["service"] != "wafermon":
                found.setdefault(message["client"], Counter())[message["seq"]] += 1
        return found


@pytest.fixture(scope="session")
def kafka_broker() -> Iterator[KafkaBroker]:
    """A running broker that all tests share. Who stops it starts it again."""
    broker = KafkaBroker()
    try:
        broker.format()
        with broker.proxy:
            broker.start()
            yield broker
    finally:
        broker.remove()
