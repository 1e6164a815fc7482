"""What is sent to a release before its data are kept, and the config that it has; today's sidecar goes on with both."""

from __future__ import annotations

import time
from typing import Any

CLIENT = "00000000000a11ce"
JOB = "load-4711"
SPAN = "0123456789abcdef"
DELIVERED, PENDING = 60, 40
"""Events of the two services, of which the files get the first alone."""
CONFIG = """
listen: ["tcp:{port}:interface=127.0.0.1"{listen}]
http: false
reload: signal
journal: {{dir: journal, segment_bytes: 64KiB, max_bytes: 16MiB, spill_dir: spill}}
dead_letters: {{dir: dead-letters}}
backends:
  files: {{plugin: filesystem, path: "logs/{{service}}.jsonl", batch: {{age: 50ms}}, retry: {{initial: 50ms, max: 200ms}}}}
  db: {{plugin: timescaledb, dsn: "{limits}", batch: {{age: 50ms}}}}
routes: [{{to: [files, db]}}]
"""
"""`limits` is the database's dsn."""


def lines() -> list[dict[str, Any]]:
    """An unfinished job with an open span, and events of two services, numbered from 1."""
    now = time.time_ns() // 1000
    job: list[dict[str, Any]] = [
        {"type": "progress", "job_id": JOB, "percent": 40, "status": "running", "trace_id": JOB},
        {"type": "span_start", "span_id": SPAN, "name": "load", "trace_id": JOB},
        {"type": "metric", "name": "rows", "value": 7, "trace_id": JOB},
        {"type": "resource", "cpu": 12.5, "mem": 1024},
    ]
    shared = [{**line, "service": "delivered"} for line in job]
    first = [event("delivered", n) for n in range(DELIVERED)]
    return [
        {**line, "v": 2, "ts": now + n, "client": CLIENT, "seq": n + 1}
        for n, line in enumerate([*shared, *first, *(event("pending", n) for n in range(PENDING))])
    ]


def event(service: str, number: int) -> dict[str, Any]:
    return {"type": "event", "service": service, "level": "info", "message": f"{service} {number}"}
