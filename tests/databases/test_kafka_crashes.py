"""Kills of sidecar and broker at random, under load; what was acknowledged must be in the topic, once. `WAFERMON_TEST_ROUNDS` says how often
they are killed."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

from daemon import Daemon, Load, until
from kafka_broker import KafkaBroker, Topic

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


def test_kills_of_sidecar_and_broker(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    topic = kafka_broker.topic()
    config = CONFIG.replace("BROKER", kafka_broker.address).replace("TOPIC", topic.name)
    with Daemon(tmp_path, config) as daemon:
        loads = [Load(daemon, number, TRACES) for number in (1, 2)]
        try:
            for _ in range(ROUNDS):
                until(partial(went_on, loads, [one.acked for one in loads]), "acks")
                until(partial(grew, topic, topic.end()), "records")
                kill_in_turn(kafka_broker, daemon)
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


def kill_in_turn(broker: KafkaBroker, daemon: Daemon) -> None:
    """Both, in any order, and each begun again before or after the other is killed."""
    kills: list[tuple[Callable[[], None], Callable[[], None]]] = [
        (broker.kill, broker.start),
        (daemon.kill, daemon.start),
    ]
    random.shuffle(kills)
    (kill, start), (kill_other, start_other) = kills
    kill()
    if both := random.random() < 0.5:
        kill_other()
    start()
    if not both:
        kill_other()
    start_other()


def went_on(loads: list[Load], before: list[int]) -> bool:
    return all(one.acked > was for one, was in zip(loads, before, strict=True))


def grew(topic: Topic, before: int) -> bool:
    return topic.end() > before


def all_there(topic: Topic, loads: list[Load]) -> bool:
    found = topic.counted()
    return all(one.acked in found.get(one.name, ()) for one in loads)
