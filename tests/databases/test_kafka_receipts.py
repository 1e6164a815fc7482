"""Receipts where Kafka stands between: they are made at the edge, and say what is committed in the topic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from daemon import Daemon, until
from kafka_broker import KafkaBroker
from kafka_central import Central
from ports import free_port

CONFIG = """
listen: ["tcp:{port}:interface=127.0.0.1"]
http: tcp:HTTP:interface=127.0.0.1
reload: signal
journal: {{dir: journal, segment_bytes: 1MiB, spill_dir: false}}
backends:
  bus: {{plugin: kafka, brokers: ["BROKER"], topic: TOPIC, timeout: 10s, batch: {{age: 50ms}}, retry: {{max: 1s}}}}
routes: [{{to: [bus]}}]
dead_letters: {{dir: dead-letters}}
"""
COUNT = 20


def receipt(port: int) -> dict[str, Any]:
    with urlopen(f"http://127.0.0.1:{port}/api/traces/job/receipt") as answer:
        found: dict[str, Any] = json.loads(answer.read())
    return found


def test_a_receipt_at_the_edge_tells_what_is_in_the_topic(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    topic, http = kafka_broker.create(4), free_port()
    config = CONFIG.replace("BROKER", kafka_broker.behind).replace("TOPIC", topic.name).replace("HTTP", str(http))
    (tmp_path / "edge").mkdir()
    central = Central(tmp_path / "central", kafka_broker, topic)
    with Daemon(tmp_path / "edge", config) as edge, central:
        client = edge.client(service="edge")
        job = {"service": "edge", "trace_id": "job"}
        with kafka_broker.cut_off():
            client.send(range(1, COUNT), **job)
            client.send_line(
                {**client.line(COUNT, **job), "type": "progress", "job_id": "job", "percent": 100, "status": "done"}
            )
            said = {"called": COUNT, "dropped": 0, "unsent": 0, "last": COUNT, "streams": [], "final": True}
            client.send_line(
                {"v": 2, "type": "stats", "service": "edge", "client": client.client, "seq": COUNT + 1, **said}
            )
            client.until_acked(COUNT + 1)
            found = receipt(http)
            assert (found["received"], found["complete"], found["backends"]["bus"]["stored"]) == (COUNT, False, None)
        found = until(lambda: (one := receipt(http))["complete"] and one, "a receipt that is complete")
        assert (found["sent"], found["received"], found["gaps"], found["forwarded"]) == (COUNT, COUNT, [], 0)
        assert found["backends"]["bus"] == {**found["backends"]["bus"], "routed": COUNT, "stored": COUNT, "dead": 0}
        assert set(topic.counted()[client.client]) == set(range(1, COUNT + 1))
        until(lambda: len(central.seqs()) == COUNT, "all of it behind Kafka")
        behind = receipt(central.http)
        assert (behind["received"], behind["forwarded"], behind["gaps"], behind["unnumbered"]) == (COUNT, COUNT, [], 0)
        assert behind["complete"] is not True, "it can't know what its programs have sent"
        client.drop()
