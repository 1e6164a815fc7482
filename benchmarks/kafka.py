"""What Kafka costs, both ways, beside files, in one run, and how long a message is on its way.

    python benchmarks/kafka.py [--messages 50000] [--rounds 3]

The broker is that of the tests (tests/kafka-broker), one node on this machine; its own CPU is not counted. Out: messages come by one
connection and go to a topic, or to files. In: they come from a topic, or by one connection, and go to files. CPU is the sidecar's, with all
its threads. On the way: one message after the other, from its sending until a reader of what is committed has it, or the file. What counts are
the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

from daemon import Client, Daemon
from kafka_broker import KafkaBroker, Topic
from ports import free_port

TICKS = os.sysconf("SC_CLK_TCK")
CLIENT = "00000000000000be"
SIDECAR = """
listen: ["tcp:{{port}}:interface=127.0.0.1"{source}]
http: "tcp:{http}:interface=127.0.0.1"
reload: signal
journal: {{{{dir: journal, max_bytes: 0, spill_dir: false}}}}
backends:
  one: {{{{{backend}, batch: {{{{age: {age}}}}}}}}}
"""
FILES = 'plugin: filesystem, path: "out.jsonl"'
INTO, JOURNALLED, STORED = (
    "from a client to readable in a topic", "from a topic into the journal", "from a topic into a file",
)  # fmt: skip
PACK = 1000
"""Lines that are sent together."""


class Sidecar(Daemon):
    def __init__(self, directory: Path, backend: str, source: str = "", age: str = "200ms") -> None:
        self.http = free_port()
        super().__init__(directory, SIDECAR.format(backend=backend, source=source, age=age, http=self.http))

    def delivered(self) -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/api/status") as answer:
            return int(json.load(answer)["backends"]["one"]["delivered"])

    def cpu(self) -> float:
        assert self.process is not None
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


@contextmanager
def running(backend: str, source: str = "", age: str = "200ms") -> Iterator[Sidecar]:
    with (
        tempfile.TemporaryDirectory(prefix="wafermon-bench-") as directory,
        Sidecar(Path(directory), backend, source, age) as sidecar,
    ):
        yield sidecar


def lines(count: int) -> list[bytes]:
    """As an SDK sends them: 240 bytes each, of jobs of a hundred messages."""
    made = []
    for seq in range(1, count + 1):
        event = {
            "v": 2, "type": "event", "ts": 1_795_500_000_000_000 + seq, "service": "loader", "host": "fab1-tool7", "pid": 4711, "level": "info",
            "message": f"wafer {seq} of lot 4711 measured, 49 sites", "trace_id": f"job-{seq // 100}", "client": CLIENT, "seq": seq,
        }  # fmt: skip
        made.append(json.dumps(event, separators=(",", ":")).encode() + b"\n")
    return made


def by_connection(sidecar: Sidecar, made: list[bytes]) -> None:
    client = Client(("127.0.0.1", sidecar.port), client=CLIENT, service="loader")
    for first in range(0, len(made), PACK):
        client.socket.sendall(b"".join(made[first : first + PACK]))
    client.until_acked(len(made))
    client.drop()


def bus(broker: KafkaBroker, topic: Topic) -> str:
    return f'plugin: kafka, brokers: ["{broker.address}"], topic: {topic.name}'


def source(broker: KafkaBroker, topic: Topic) -> str:
    return f', {{{{kafka: {{{{brokers: ["{broker.address}"], topics: [{topic.name}]}}}}}}}}'


def cost(sidecar: Sidecar, count: int, feed: Callable[[], None]) -> float:
    """CPU seconds per message, until all are where they belong."""
    before, there = sidecar.cpu(), sidecar.delivered()
    feed()
    while sidecar.delivered() < there + count:
        time.sleep(0.5)  # asking costs the sidecar, too
    return (sidecar.cpu() - before) / count


def out(broker: KafkaBroker, made: list[bytes], to: str) -> float:
    backend = FILES if to == "files" else bus(broker, broker.topic())
    with running(backend) as sidecar:
        return cost(sidecar, len(made), lambda: by_connection(sidecar, made))


def into(broker: KafkaBroker, made: list[bytes], by: str) -> float:
    topic = broker.create(4)
    if by == "connection":
        with running(FILES) as sidecar:
            return cost(sidecar, len(made), lambda: by_connection(sidecar, made))
    producer = Producer(
        {"bootstrap.servers": broker.address, "log_level": 0, "compression.type": "zstd", "linger.ms": 20}
    )

    def feed() -> None:
        for line in made:
            producer.produce(topic.name, line[:-1])
            producer.poll(0)
        producer.flush()

    with running(FILES, source(broker, topic)) as sidecar:
        return cost(sidecar, len(made), feed)


def ways(broker: KafkaBroker, count: int, age: str) -> dict[str, list[float]]:
    """Seconds from a message's sending until it is there, one after the other."""
    there, onward = broker.create(1), broker.create(1)
    made = lines(count)
    found: dict[str, list[float]] = {}
    for name, backend in (("from a client into a file", FILES), (INTO, bus(broker, there))):
        found[name] = []
        with running(backend, age=age) as sidecar:
            client = Client(("127.0.0.1", sidecar.port), client=CLIENT, service="loader")
            look = file_grows(sidecar) if backend == FILES else topic_grows(broker, there)
            for line in made:
                found[name].append(timed(partial(client.socket.sendall, line), look))
            client.drop()
    producer = Producer({"bootstrap.servers": broker.address, "log_level": 0, "linger.ms": 0})
    for name, grows in ((JOURNALLED, journal_grows), (STORED, file_grows)):
        found[name] = []
        with running(FILES, source(broker, onward), age=age) as sidecar:
            look = grows(sidecar)
            for line in made:
                producer.produce(onward.name, line[:-1])
                producer.flush()  # from here on it can be read
                found[name].append(timed(lambda: None, look))
        onward = broker.create(1)
    return found


def timed(send: Callable[[], Any], look: Callable[[], bool]) -> float:
    began = time.perf_counter()
    send()
    while not look():
        time.sleep(0.0005)
    return time.perf_counter() - began


def journal_grows(sidecar: Sidecar) -> Callable[[], bool]:
    """Whether another message is durable in the journal."""
    directory, seen = sidecar.directory / "journal", [0]

    def look() -> bool:
        now = sum(path.read_bytes().count(b'"service":"loader"') for path in directory.glob("*.segment"))
        grown, seen[0] = now > seen[0], now
        return grown

    return look


def file_grows(sidecar: Sidecar) -> Callable[[], bool]:
    path, seen = sidecar.directory / "out.jsonl", [0]

    def look() -> bool:
        now = path.read_bytes().count(b'"service":"loader"') if path.exists() else 0
        grown, seen[0] = now > seen[0], now
        return grown

    return look


def topic_grows(broker: KafkaBroker, topic: Topic) -> Callable[[], bool]:
    consumer = Consumer({
        "bootstrap.servers": broker.address, "group.id": "bench", "isolation.level": "read_committed", "log_level": 0,
    })  # fmt: skip
    consumer.assign([TopicPartition(topic.name, 0, 0)])

    def look() -> bool:
        one = consumer.poll(0.001)
        return one is not None and one.error() is None and b'"service":"loader"' in one.value()

    return look


def transactions(broker: KafkaBroker, made: list[bytes], count: int) -> dict[int, list[float]]:
    """Seconds of a transaction of one message, and of 5,000, with a position in it, as the backend has them."""
    topic, positions = broker.create(4), broker.create(1)
    producer = Producer({
        "bootstrap.servers": broker.address, "transactional.id": "bench", "compression.type": "zstd", "linger.ms": 5, "log_level": 0,
    })  # fmt: skip
    producer.init_transactions(60)
    found: dict[int, list[float]] = {1: [], 5000: []}
    for size, times in found.items():
        for _ in range(count):
            began = time.perf_counter()
            producer.begin_transaction()
            for line in made[:size]:
                producer.produce(topic.name, line)
            producer.produce(positions.name, b"x" * 80, "id", 0)
            producer.commit_transaction(60)
            times.append(time.perf_counter() - began)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--alone", type=int, default=200, help="messages one after the other")
    given = parser.parse_args()
    made = lines(given.messages)
    broker = KafkaBroker()
    try:
        broker.format()
        with broker.proxy:
            broker.start()
            report(broker, made, given.rounds, given.alone)
    finally:
        broker.remove()


def report(broker: KafkaBroker, made: list[bytes], rounds: int, alone: int) -> None:
    cases: dict[str, Callable[[], float]] = {
        "out, to files": lambda: out(broker, made, "files"), "out, to a topic": lambda: out(broker, made, "topic"),
        "in, by a connection": lambda: into(broker, made, "connection"), "in, from a topic": lambda: into(broker, made, "topic"),
    }  # fmt: skip
    found: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            found[name].append(case())
    print(f"messages per CPU-second of the sidecar, medians of {rounds} rounds of {len(made)} messages")
    for name, costs in found.items():
        print(f"  {name:22} {1 / statistics.median(costs):>10,.0f}")
    for one, other in (("out, to a topic", "out, to files"), ("in, from a topic", "in, by a connection")):
        ratios = [b / a for a, b in zip(found[one], found[other], strict=True)]
        print(f"  {one} : {other} {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})")
    for age in ("200ms", "10ms"):
        print(f"ms on the way, one message after the other, batch.age {age}: p50, p99 of {alone}")
        for name, times in ways(broker, alone, age).items():
            print(f"  {name:42} {shown(times)}")
    print(f"ms of a transaction: p50, p99 of {alone}")
    for size, times in transactions(broker, made, alone).items():
        print(f"  {size:>5} messages {shown(times)}")


def shown(times: list[float]) -> str:
    worst = sorted(times)[min(len(times) - 1, int(len(times) * 0.99))]
    return f"{statistics.median(times) * 1e3:>8.1f} {worst * 1e3:>8.1f}"


if __name__ == "__main__":
    main()
