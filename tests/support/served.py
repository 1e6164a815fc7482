"""A sidecar in a process of its own that also serves HTTP, and a whole job for it."""

from __future__ import annotations

import http.client
import json
import time
from pathlib import Path
from typing import Any

from daemon import Daemon, until
from ports import free_port
from prometheus_client.parser import text_string_to_metric_families

CONFIG = """
listen: ["tcp:{port}:interface=127.0.0.1"{listen}]
http: tcp:{limits}:interface=127.0.0.1
reload: signal
journal: {{dir: journal, segment_bytes: 1MiB, max_bytes: 4MiB, spill_dir: spill}}
correlation: {{stalled_after: 2s}}
backends:
  files: {{plugin: filesystem, path: "logs/{{service}}.jsonl", batch: {{age: 50ms}}, retry: {{initial: 50ms, max: 200ms}}}}
"""
SPAN = "0123456789abcdef"


class Served(Daemon):
    """A daemon with HTTP on `http_port`."""

    def __init__(self, directory: Path, config: str = CONFIG, *, listen: str = "") -> None:
        self.http_port = free_port()
        super().__init__(directory, config, limits=str(self.http_port), listen=listen)

    def request(self, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=30)
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        return json.loads(self.request(path)[1])

    def metrics(self) -> dict[str, float]:
        """Samples by name, with their labels as Prometheus writes them."""
        status, body = self.request("/metrics")
        assert status == 200
        found = {}
        for family in text_string_to_metric_families(body.decode()):
            for sample in family.samples:
                labels = ",".join(f'{name}="{value}"' for name, value in sample.labels.items())
                found[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
        return found

    def start(self) -> None:
        """Returns when it listens and serves HTTP."""
        super().start()
        until(self.answers, "HTTP")

    def answers(self) -> bool:
        try:
            return self.request("/health/live") == (200, b"live\n")
        except OSError:
            return False


def job(daemon: Served, trace: str, *, start: int = 1, status: str = "done") -> int:
    """A job with a span in a span, an event in the inner one and its progress; answers with its first `ts`."""
    client = daemon.client()
    ts = time.time_ns() // 1000 - 10_000_000
    inner = "fedcba9876543210"
    common = {"trace_id": trace, "v": 2}
    lines = [
        {"type": "progress", "ts": ts, "job_id": trace, "percent": 0, "status": "running"},
        {"type": "span_start", "ts": ts + 100, "span_id": SPAN, "name": "load"},
        {"type": "span_start", "ts": ts + 200, "span_id": inner, "parent_id": SPAN, "name": "parse"},
        {"type": "event", "ts": ts + 300, "span_id": inner, "level": "info", "message": "parsed", "context": {"rows": 7}},
        {"type": "span_end", "ts": ts + 1_200, "span_id": inner, "parent_id": SPAN, "name": "parse", "status": "ok",
         "start": ts + 200, "duration": 1_000},
        {"type": "span_end", "ts": ts + 2_100, "span_id": SPAN, "name": "load", "status": "error",
         "start": ts + 100, "duration": 2_000},
        {"type": "progress", "ts": ts + 3_000, "job_id": trace, "percent": 100, "status": status},
    ]  # fmt: skip
    for seq, line in enumerate(lines, start):
        client.send_line({**common, **line, "service": "loader", "client": client.client, "seq": seq})
    client.until_acked(len(lines))
    client.close()
    return ts
