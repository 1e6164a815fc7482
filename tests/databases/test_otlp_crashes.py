"""Whoever fails under load, the sidecar, the collector or one of its signals: every acknowledged message is at the collector, and what
is there twice is what was on its way when something was killed. `WAFERMON_TEST_ROUNDS` says how often."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from collector import Taken, attributes
from commands import wafermon
from daemon import Daemon, Load, until
from otlp_answers import AnsweringServer, Asked, Reply

ROUNDS = int(os.environ.get("WAFERMON_TEST_ROUNDS", "3"))
BATCH = 200
CONFIG = """
listen: ["tcp:{{port}}:interface=127.0.0.1"]
http: unix:http.sock:mode=600
reload: signal
journal: {{{{dir: journal, segment_bytes: 1MiB, max_bytes: 0, spill_dir: false}}}}
backends:
  otlp:
    plugin: otlp
    url: {url}
    resource: {resource}
    batch: {{{{age: 50ms, messages: {batch}}}}}
    retry: {{{{max: 200ms}}}}
routes:
  - {{{{match: {{{{service: wafermon}}}}, to: []}}}}
  - {{{{to: [otlp]}}}}
dead_letters: {{{{dir: dead-letters}}}}
"""
SPAN = {
    "type": "span_end",
    "name": "s",
    "status": "ok",
    "start": 1_795_500_000_000_000,
    "duration": 1,
    "trace_id": "job-1",
}


def sidecar(directory: Path, taken: Taken, url: str = "") -> Daemon:
    resource = json.dumps(taken.resource).replace("{", "{{").replace("}", "}}")
    return Daemon(directory, CONFIG.format(url=url or taken.collector.url, resource=resource, batch=BATCH))


@contextmanager
def loaded(daemon: Daemon, taken: Taken, twice_at_most: int) -> Iterator[list[Load]]:
    """Under load; at the end of it all that was acknowledged is stored."""
    loads = [Load(daemon, number) for number in range(1, 4)]
    try:
        until(lambda: all(load.acked for load in loads), "some load")
        yield loads
        before = [load.acked for load in loads]
        until(lambda: all(load.acked > acked for load, acked in zip(loads, before, strict=True)), "load after it all")
    finally:
        for load in loads:
            load.join()
    acked = {(load.name, seq) for load in loads for seq in range(1, load.acked + 1)}
    until(lambda: acked <= set(taken.uids()), "everything at the collector", patience=300)
    found = Counter(taken.uids())
    twice = sum(count - 1 for count in found.values())
    assert twice <= twice_at_most, f"{twice} of {len(found)} are there twice, more than {twice_at_most}"
    assert daemon.letters() == []
    log = daemon.log()
    assert "Traceback" not in log, log


def test_sigkill_of_the_sidecar(tmp_path: Path, taken: Taken) -> None:
    with sidecar(tmp_path, taken) as daemon, loaded(daemon, taken, ROUNDS * BATCH):
        for _ in range(ROUNDS):
            time.sleep(random.uniform(0.05, 0.8))
            daemon.kill()
            daemon.start()


def test_crashes_of_the_collector(tmp_path: Path, taken: Taken) -> None:
    with sidecar(tmp_path, taken) as daemon, loaded(daemon, taken, ROUNDS * BATCH):
        for _ in range(ROUNDS):
            time.sleep(random.uniform(0.05, 0.6))
            with taken.collector.down():
                pass
        assert daemon.process is not None and daemon.process.poll() is None


def test_503s_without_end_of_one_signal_double_nothing(tmp_path: Path, taken: Taken) -> None:
    """The collector takes logs, and nobody takes spans, over a restart too; then they are taken, and all is there once."""
    failing = True

    def rule(asked: Asked) -> Reply:
        if failing and asked.signal == "traces":
            return Reply(503)
        return Reply(*taken.collector.post(asked.signal, asked.body))

    server = AnsweringServer()
    server.rule = rule
    with server.running(), sidecar(tmp_path, taken, server.url) as daemon:
        client = daemon.client()
        client.send_all(
            {**client.line(seq), **(SPAN if seq % 2 else {}), "span_id": f"{seq:016x}"} for seq in range(1, 1001)
        )
        client.until_acked(1000)
        until(lambda: len(server.of("traces")) > 5, "spans that are refused")
        daemon.stop()
        daemon.start()
        refused = len(server.of("traces"))
        until(lambda: len(server.of("traces")) > refused + 5, "spans that are refused again")
        failing = False
        until(lambda: len(taken.spans()) >= 500 and len(taken.uids()) >= 500, "all of it")
        assert Counter(taken.uids()) == Counter((client.client, seq) for seq in range(2, 1001, 2))
        assert Counter(span["spanId"] for _, span in taken.spans()) == Counter(
            f"{seq:016x}" for seq in range(1, 1000, 2)
        )
        client.drop()
        assert daemon.letters() == []


def test_what_is_there_of_a_job(tmp_path: Path, taken: Taken) -> None:
    """Through the whole sidecar; and `status` says how often a message is stored."""
    with sidecar(tmp_path, taken) as daemon:
        client = daemon.client()
        client.send([1], trace_id="job-4711", context={"rows": 3})
        client.send_line({**client.line(2), **SPAN, "trace_id": "job-4711", "span_id": "a" * 16, "tags": {"tool": "x"}})
        client.send_line({**client.line(3), "type": "metric", "name": "wafers", "value": 25, "kind": "counter"})
        client.until_acked(3)
        until(lambda: taken.logs() and taken.spans() and taken.metrics(), "all of it")
        [(resource, record)], [(_, span)], [(_, metric)] = taken.logs(), taken.spans(), taken.metrics()
        assert resource["service.name"] == "test" and attributes(record)["job.id"] == "job-4711"
        assert record["traceId"] == span["traceId"] and attributes(span)["tool"] == "x"
        assert metric["sum"]["aggregationTemporality"] == 1 and metric["sum"]["isMonotonic"]
        url = f"unix://{daemon.directory}/http.sock"
        assert (
            json.loads(wafermon("status", "--json", "--http", url).stdout)["backends"]["otlp"]["exactly_once"] is False
        )
        client.drop()
