"""A sidecar that reads a topic, and what others put there."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from daemon import Daemon
from kafka_broker import KafkaBroker, Topic
from ports import free_port

TIME = 1_790_000_000_000_000
CONFIG = """
listen: ["tcp:{port}:interface=127.0.0.1", {{kafka: {{brokers: ["BROKER"], topics: [TOPIC]MORE}}}}]
http: "tcp:HTTP:interface=127.0.0.1"
reload: signal
journal: {{dir: journal, segment_bytes: 64KiB, max_bytes: 64MiB, spill_dir: false}}
backends:
BACKEND
dead_letters: {{dir: dead-letters}}
"""


FILES = """
  files: {{plugin: filesystem, path: "logs/{{service}}.jsonl", batch: {{age: 50ms}}}}
"""


class Central(Daemon):
    """A sidecar that reads a topic."""

    def __init__(
        self, directory: Path, broker: KafkaBroker, topic: Topic, more: str = "", backend: str = FILES
    ) -> None:
        """`more` are further keys of the entry."""
        directory.mkdir(exist_ok=True)
        self.http = free_port()
        config = CONFIG.replace("BROKER", broker.address).replace("TOPIC", topic.name).replace("HTTP", str(self.http))
        super().__init__(directory, config.replace("MORE", more).replace("BACKEND", backend))

    def source(self) -> dict[str, Any]:
        """What `status` says of the topic."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/api/status") as answer:
            found: dict[str, Any] = json.load(answer)["kafka"][0]
        return found

    def figures(self) -> dict[str, int]:
        (found,) = self.source()["topics"].values()
        return dict(found)

    def problems(self) -> list[str]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/api/status") as answer:
            return list(json.load(answer)["problems"])

    def seqs(self) -> list[int]:
        """Of all that is stored, in order."""
        return sorted(line["seq"] for line in self.stored("edge"))


def events(seqs: Iterable[int]) -> list[dict[str, Any]]:
    return [
        {
            "v": 2, "type": "event", "ts": TIME + seq, "service": "edge", "level": "info", "message": "m", "trace_id": f"job-{seq % 7}",
            "client": "00000000000000ed", "seq": seq,
        }
        for seq in seqs
    ]  # fmt: skip
