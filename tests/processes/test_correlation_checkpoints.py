"""Checkpoints of many live traces, which are encoded in parts while the sidecar goes on."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from daemon import Daemon, until

from wafermon.correlation.engine import PART

CONFIG = """
listen: ["tcp:{port}:interface=127.0.0.1"{listen}]
http: false
reload: signal
journal: {{dir: journal, segment_bytes: 64KiB, max_bytes: 16MiB, spill_dir: false}}
correlation: {{max_traces: {limits}}}
backends:
  files: {{plugin: filesystem, path: "logs/{{service}}.jsonl", batch: {{age: 50ms}}}}
"""
TRACES, LIVE = 12_000, 15 * PART
JOB = {"job_id": "lot", "percent": 1, "status": "running"}
"""A trace that has one ends with a summary."""


@pytest.mark.parametrize("end", [Daemon.kill, Daemon.stop])
def test_each_trace_has_one_summary_whatever_comes_between_the_parts(
    tmp_path: Path, end: Callable[[Daemon], object]
) -> None:
    """Each segment has a checkpoint; settings change and the process ends in the midst of them."""
    config = tmp_path / "wafermon.yaml"
    with Daemon(tmp_path, CONFIG, limits=str(LIVE)) as daemon:
        for begin in range(0, TRACES, 1_000):
            client = daemon.client()
            for n in range(1_000):
                client.send([n + 1], type="progress", trace_id=f"job-{begin + n}", **JOB)
                if n % 300 == 299 and daemon.process is not None:
                    before, after = (LIVE, LIVE - 1) if n % 600 == 599 else (LIVE - 1, LIVE)
                    text = config.read_text()
                    config.write_text(text.replace(f"max_traces: {before}", f"max_traces: {after}"))
                    daemon.process.send_signal(signal.SIGHUP)
            client.until_acked(1_000)
            client.drop()
            if begin % 3_000 == 0:
                end(daemon)
                daemon.start()
        until(lambda: len(summaries(daemon)) >= TRACES - LIVE, "the summaries")
        daemon.stop()
        assert "of no use" not in daemon.log()
        assert "Traceback" not in daemon.log()
        assert "can't save its checkpoint" not in daemon.log()
        found = summaries(daemon)
        assert set(found.values()) == {1}
        assert TRACES - LIVE <= len(found) <= TRACES - LIVE + 1


def summaries(daemon: Daemon) -> Counter[str]:
    return Counter(one["trace_id"] for one in daemon.stored("wafermon") if one["type"] == "trace")
