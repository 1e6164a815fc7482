"""The Kafka receiver on a real broker: what becomes of each record, and of topics that change under it."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewPartitions  # type: ignore[attr-defined]  # not in its __all__
from daemon import until
from kafka_broker import KafkaBroker
from kafka_central import TIME, Central, events


def test_each_record_once_whatever_it_holds(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    topic = kafka_broker.create()
    trace = {
        "v": 2, "type": "trace", "service": "wafermon", "ts": TIME, "trace_id": "job-1", "first": TIME, "last": TIME, "services": ["edge"],
        "counts": {}, "errors": 0, "status": "done", "part": 1, "client": "00000000000000e1", "seq": 1,
    }  # fmt: skip
    kafka_broker.send(
        topic.name, [*events(range(1, 1001)), None, b"no JSON", b'{"type":"event"}', b"x" * 70_000, trace]
    )
    two = b"\n".join(json.dumps(event).encode() for event in events([1001, 1002]))
    kafka_broker.send(topic.name, [two + b"\n"])
    with Central(tmp_path, kafka_broker, topic) as central:
        until(lambda: central.figures()["messages"] >= 1003, "messages")
        until(lambda: len(central.stored("edge")) == 1002 and len(central.letters()) >= 3, "files and dead letters")
        assert central.figures() == {"messages": 1003, "rejected": 3, "skipped": 1, "lost": 0}
        assert central.seqs() == list(range(1, 1003))
        codes = sorted(letter["code"] for letter in central.letters())
        assert codes == ["bad_json", "bad_message", "line_too_long"]
        assert all(letter["peer"].startswith(f"kafka:{topic.name}/") for letter in central.letters())
        until(lambda: [one["lag"] for one in central.source()["partitions"]] == [0] * 4, "no lag")
        central.kill()
        kafka_broker.send(topic.name, events(range(1003, 1011)))
        central.start()
        until(lambda: len(central.stored("edge")) == 1010, "what came meanwhile")
        assert central.seqs() == list(range(1, 1011))


def test_topics_that_change(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    topic = kafka_broker.create(2)
    with Central(tmp_path, kafka_broker, topic) as central:
        kafka_broker.send(topic.name, events(range(1, 101)))
        until(lambda: len(central.stored("edge")) == 100, "messages")
        kafka_broker.admin.create_partitions([NewPartitions(topic.name, 3)])[topic.name].result(30)
        kafka_broker.send(topic.name, events(range(101, 111)), 2)
        until(lambda: len(central.stored("edge")) == 110, "those of a new partition")

        kafka_broker.delete(topic.name)
        kafka_broker.create(1, topic.name)
        kafka_broker.send(topic.name, events(range(111, 121)))
        until(lambda: len(central.stored("edge")) == 120, "those of a topic that was made anew")
        central.stop()

        kafka_broker.send(topic.name, events(range(121, 141)))
        taken = [TopicPartition(topic.name, 0, 16)]
        for answer in kafka_broker.admin.delete_records(taken).values():
            answer.result(30)
        central.start()
        until(lambda: len(central.stored("edge")) == 134, "those that retention left")
        assert central.figures()["lost"] == 6
        assert "retention took 6 offsets before they were read, 10 to 15" in central.log()
        assert central.seqs() == [*range(1, 121), *range(127, 141)]
        central.stop()

        with sqlite3.connect(tmp_path / "journal" / "state.db") as state:
            moved = "UPDATE marks SET seq = seq + 1000 WHERE principal LIKE 'kafka:%' AND seq = 30"
            assert state.execute(moved).rowcount == 1
        central.start()
        (problem,) = until(lambda: central.problems(), "a partition that is stopped")
        assert f"{topic.name}/0 ends at 30, and was read up to 1030 already" in problem
        assert central.source()["partitions"][0]["state"] == "stopped"


def test_a_broker_that_hangs_holds_no_stop_up(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    topic = kafka_broker.create(1)
    with Central(tmp_path, kafka_broker, topic) as central:
        kafka_broker.send(topic.name, events([1]))
        until(lambda: len(central.stored("edge")) == 1, "messages")
        with kafka_broker.frozen():
            central.stop()
        assert "has not stopped within" not in central.log()
        central.start()
        kafka_broker.send(topic.name, events([2]))
        until(lambda: len(central.stored("edge")) == 2, "messages again")
        assert "Traceback" not in central.log(), central.log()


@pytest.mark.parametrize("count", [20_000])
def test_partitions_pause_while_the_journal_wants_no_more(
    kafka_broker: KafkaBroker, tmp_path: Path, count: int
) -> None:
    topic = kafka_broker.create(2)
    kafka_broker.send(topic.name, events(range(1, count + 1)))
    with Central(tmp_path, kafka_broker, topic) as central:
        until(lambda: len(central.stored("edge")) == count, "all of it")
        assert central.seqs() == list(range(1, count + 1))
