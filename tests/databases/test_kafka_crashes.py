"""Kills of sidecars and broker at random, under load: what was acknowledged is there once, in the topic and behind it. `WAFERMON_TEST_ROUNDS`
says how often they are killed."""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from daemon import Daemon, Load, until
from kafka_broker import KafkaBroker, Topic
from kafka_central import Central, events
from postgres import Database

ROUNDS = int(os.environ.get("WAFERMON_TEST_ROUNDS", "1"))
TRACES = [{"trace_id": f"job-{n}"} for n in range(7)]
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
DATABASE = """
  db: {{plugin: timescaledb, dsn: "DSN", batch: {{age: 20ms}}, retry: {{max: 200ms}}}}
"""
long = pytest.mark.skipif("WAFERMON_TEST_ROUNDS" not in os.environ, reason="make kafka")
Kill = tuple[Callable[[], None], Callable[[], None]]
"""What ends something, and what begins it again."""


@long
def test_kills_of_sidecar_and_broker(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    topic = kafka_broker.topic()
    config = CONFIG.replace("BROKER", kafka_broker.address).replace("TOPIC", topic.name)
    with Daemon(tmp_path, config) as daemon:
        loads = [Load(daemon, number, TRACES) for number in (1, 2)]
        try:
            for _ in range(ROUNDS):
                until(partial(went_on, loads, [one.acked for one in loads]), "acks")
                until(partial(grew, topic, topic.end()), "records")
                kill_all([(kafka_broker.kill, kafka_broker.start), (daemon.kill, daemon.start)])
        finally:
            for one in loads:
                one.join()
        until(partial(all_there, topic, loads), "all that was acknowledged in the topic")
    found = topic.counted()
    for one in loads:
        assert set(found[one.name].values()) == {1}
        assert set(range(1, one.acked + 1)) <= set(found[one.name])
    partitions: dict[str, set[int]] = {}
    for record in topic.records():
        if key := record.key():
            partitions.setdefault(key.decode(), set()).add(record.partition())
    assert {trace["trace_id"] for trace in TRACES} <= set(partitions)
    assert all(len(found) == 1 for found in partitions.values())


def test_kills_all_the_way_into_a_database(kafka_broker: KafkaBroker, tmp_path: Path, database: Database) -> None:
    """An edge, the broker and a central sidecar, each killed; what the edge acknowledged is in the database once."""
    topic = kafka_broker.create()
    config = CONFIG.replace("BROKER", kafka_broker.address).replace("TOPIC", topic.name)
    (tmp_path / "edge").mkdir()
    central = Central(tmp_path / "central", kafka_broker, topic, backend=DATABASE.replace("DSN", database.dsn))
    with Daemon(tmp_path / "edge", config) as edge, central:
        loads = [Load(edge, number, TRACES) for number in (1, 2)]
        try:
            for _ in range(ROUNDS):
                reached = [one.acked for one in loads]
                until(partial(went_on, loads, reached), "acks")
                until(partial(all_rows, database, {one.name: 1 for one in loads}), "rows")
                kills: list[Kill] = [
                    (kafka_broker.kill, kafka_broker.start), (edge.kill, edge.start), (central.kill, central.start),
                ]  # fmt: skip
                kill_all(kills)
        finally:
            for one in loads:
                one.join()
        until(partial(all_rows, database, {one.name: one.acked for one in loads}), "all that was acknowledged", 300)
        found = rows(database)
        assert {name: times for name, (times, different, _) in found.items() if times != different} == {}
        assert all(found[one.name][1] == found[one.name][2] >= one.acked for one in loads)
        summaries = "SELECT count(*), count(DISTINCT (trace_id, part)) FROM traces"
        assert database.query(summaries)[0][0] == database.query(summaries)[0][1]


@pytest.mark.parametrize("one_stops", [False, pytest.param(True, marks=long)])
def test_members_of_a_group(kafka_broker: KafkaBroker, tmp_path: Path, *, one_stops: bool) -> None:
    """Three share a topic. One stops, which hands over exactly once; one is killed, which may repeat what it had not committed."""
    topic = kafka_broker.create(6)
    more = ", group: fab, options: {{session.timeout.ms: 3000, heartbeat.interval.ms: 500}}"
    members = [Central(tmp_path / str(number), kafka_broker, topic, more) for number in range(3)]
    sender = Sender(kafka_broker, topic)
    try:
        for member in members:
            member.start()
        first, second, third = members
        until(lambda: all(len(one.source()["partitions"]) == 2 for one in members), "two partitions each")
        assert not first.source()["exactly_once"]
        until(lambda: all(len(one.seqs()) > 50 for one in members), "messages at each")

        others = [first, third]
        if one_stops:
            others.remove(first)
            first.stop()
            until(lambda: shared(second, third) == 6, "all partitions at the others")
            reached = sender.sent
            until(lambda: reached in stored(members), "what came after a member had stopped")
            assert [seq for seq, times in stored(members).items() if times > 1] == []

        second.kill()
        until(lambda: shared(*others) == 6, "all partitions at the others")
        sender.stop()
        second.start()  # what it had on disk is delivered
        until(lambda: set(range(1, sender.sent + 1)) <= set(stored(members)), "everything")
        twice = [seq for seq, times in stored(members).items() if times > 1]
        assert len(twice) <= 5_000, "more than one commit interval"
        assert set(stored(members).values()) <= {1, 2}
    finally:
        sender.stop()
        for member in members:
            if member.process is not None:
                member.stop()


class Sender:
    """Puts one message after the other into a topic, until it is stopped."""

    def __init__(self, broker: KafkaBroker, topic: Topic) -> None:
        self.sent = 0
        self._broker = broker
        self._topic = topic
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        for first in count(1, 100):
            if self._over.wait(0.05):
                return
            self._broker.send(self._topic.name, events(range(first, first + 100)))
            self.sent = first + 99

    def stop(self) -> None:
        self._over.set()
        self._thread.join(60)


def stored(members: Iterable[Central]) -> Counter[int]:
    return Counter(seq for member in members for seq in member.seqs())


def shared(*members: Central) -> int:
    """The partitions that they have, each of them some."""
    counts = [len(one.source()["partitions"]) for one in members]
    return sum(counts) if all(counts) else 0


def test_a_topic_that_is_deleted_while_messages_come_is_created_again(
    kafka_broker: KafkaBroker, tmp_path: Path
) -> None:
    topic = kafka_broker.topic()
    config = CONFIG.replace("BROKER", kafka_broker.address).replace("TOPIC", topic.name)
    with Daemon(tmp_path, config) as daemon:
        client = daemon.client()
        client.send(range(1, 11))
        until(partial(holds, topic, client.client, range(1, 11)), "messages in the topic")
        kafka_broker.delete(topic.name)
        client.send(range(11, 21))
        client.until_acked(20)
        until(partial(holds, topic, client.client, range(11, 21)), "messages in the topic that was made anew")
        assert max(topic.counted()[client.client].values()) == 1
        client.drop()


def holds(topic: Topic, client: str, seqs: Iterable[int]) -> bool:
    return set(seqs) <= set(topic.counted().get(client, ()))


def kill_all(kills: list[Kill]) -> None:
    """In any order, and each begun again before or after the next is killed."""
    random.shuffle(kills)
    down: list[Callable[[], None]] = []
    for kill, start in kills:
        kill()
        down.append(start)
        if random.random() < 0.5:
            down.pop(0)()
    random.shuffle(down)
    for start in down:
        start()


def rows(database: Database) -> dict[str, tuple[int, int, int]]:
    """Of each client: rows, different messages, the last number."""
    if not database.query("SELECT 1 FROM pg_tables WHERE tablename = 'events'"):
        return {}
    counted = (
        "SELECT client, count(*), count(DISTINCT seq), max(seq) FROM events WHERE service <> 'wafermon' GROUP BY client"
    )
    return {client: (times, different, last) for client, times, different, last in database.query(counted)}


def all_rows(database: Database, wanted: dict[str, int]) -> bool:
    found = rows(database)
    return all(found.get(name, (0, 0, 0))[1] >= seq for name, seq in wanted.items())


def went_on(loads: list[Load], before: list[int]) -> bool:
    return all(one.acked > was for one, was in zip(loads, before, strict=True))


def grew(topic: Topic, before: int) -> bool:
    return topic.end() > before


def all_there(topic: Topic, loads: list[Load]) -> bool:
    found = topic.counted()
    return all(one.acked in found.get(one.name, ()) for one in loads)
