"""The live page in a real browser: tests/browser/page.test.mjs, which looks, and asks here for what is to happen meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from daemon import ROOT, Client, until
from ports import free_port
from served import Served

BROWSER = ROOT / "tests" / "browser"
CONFIG = """
listen: ["tcp:{port}:interface=127.0.0.1"{listen}]
http:
  - tcp:{limits}:interface=127.0.0.1
  - {{endpoint: "tcp:GUARDED:interface=127.0.0.1", token_file: tokens}}
reload: signal
journal: {{dir: journal, segment_bytes: 1MiB, max_bytes: 64MiB, spill_dir: spill}}
backends:
  files: {{plugin: filesystem, path: "logs/{{service}}.jsonl", batch: {{age: 50ms}}}}
  history: {{plugin: history, dir: history, batch: {{age: 100ms}}}}
dead_letters: {{dir: dead-letters}}
schedules:
  belated: {{match: {{job: "belated-*"}}, every: 1s, start_grace: 0}}
  nightly: {{match: {{job: "nightly-*"}}, every: 12h}}
  intake: {{match: {{service: nobody}}, every: 1s, start_grace: 1s}}
"""
BAD = "nonsense: 1\n"
OUTER, INNER = "0123456789abcdef", "fedcba9876543210"


class Scene:
    """A sidecar with a past, and what is to happen in it."""

    def __init__(self, directory: Path) -> None:
        self.guarded = free_port()
        self.tokens = directory / "tokens"
        self.tokens.write_text("right-token\n")
        self.tokens.chmod(0o600)
        self.served = Served(directory, CONFIG.replace("GUARDED", str(self.guarded)))
        self.served.start()
        self.client: Client | None = None
        self.seq = 0
        for number in range(1, 4):
            self.run(f"load-old-{number}", 1_000_000 * number, "done")
        self.run("load-bad-1", 300_000, "failed")
        self.send({"type": "metric", "name": "rows"}, refused=True)
        until(lambda: self.served.get("/api/jobs?source=history")["jobs"], "the past in the history")

    def send(self, *lines: dict[str, Any], refused: bool = False) -> None:
        """As one program that stays connected."""
        if self.client is None:
            self.client = self.served.client(service="loader", sdk="python/2.0.0", host="fab1", pid=4711)
            self.seq = 0
        for line in lines:
            self.seq += 1
            self.client.send_line({"v": 2, "client": self.client.client, "seq": self.seq, **line})
        if not refused:
            self.client.until_acked(self.seq)

    def run(self, job: str, took: int, status: str) -> None:
        """A run in the past, which took so many microseconds."""
        end = time.time_ns() // 1000 - 60_000_000
        start = end - took
        common = {"trace_id": job}
        self.send(
            {"type": "progress", "ts": start, "job_id": job, "percent": 0, "status": "loading"},
            {"type": "span_start", "ts": start, "span_id": OUTER, "name": "load", **common},
            {"type": "event", "ts": start + 10, "level": "debug", "message": "begun", "span_id": OUTER, **common},
            {"type": "event", "ts": start + 100, "level": "info", "message": "parsed", "span_id": INNER, "context": {"rows": 7}, **common},
            *({"type": "metric", "ts": start + step * took // 5, "name": "rows", "value": step * step, "unit": "1", **common} for step in range(5)),
            *({"type": "resource", "ts": start + step * took // 5, "cpu": 10.0 * step, "mem": 1e6 * (9 - step), **common} for step in range(5)),
            {"type": "span_end", "ts": end - 10, "span_id": INNER, "parent_id": OUTER, "name": "parse", "status": "ok", "start": start + 50, "duration": took // 2, **common},
            {"type": "span_end", "ts": end, "span_id": OUTER, "name": "load", "status": "ok" if status == "done" else "error", "start": start, "duration": took, **common},
            {"type": "progress", "ts": end, "job_id": job, "percent": 100, "status": status},
        )  # fmt: skip

    def happen(self, what: dict[str, Any]) -> dict[str, Any]:
        """What page.test.mjs asks for, and what came of it."""
        if "progress" in what:
            self.move(what)
        elif "hostile" in what:
            self.hostile(what["hostile"])
        elif "busy" in what:
            ends = time.monotonic() + what["seconds"]
            percent = 0.0
            while time.monotonic() < ends:
                percent += 0.01
                self.send({"type": "progress", "job_id": what["busy"], "percent": percent})
        elif "streams" in what:
            if "until" in what:
                until(lambda: self.streams() == what["until"], f"{what['until']} streams")
            return {"streams": self.streams()}
        elif "stop" in what:
            self.leave()
            self.served.stop()
        elif "start" in what:
            self.served.start()
        elif "spans" in what:
            self.many_spans(what["spans"], what["count"])
        elif "dropped" in what:
            self.drop(what["dropped"])
        elif "config" in what:
            self.configure(good=what["config"] == "good")
        elif "tokens" in what:
            self.tokens.write_text(f"{what['tokens']}\n")
        else:
            raise AssertionError(what)
        return {}

    def move(self, what: dict[str, Any]) -> None:
        job, now = what["progress"], time.time_ns() // 1000
        common = {"trace_id": job, "ts": now}
        if "span" in what:
            self.send({"type": "span_start", "span_id": OUTER, "name": what["span"], **common})
        if "event" in what:
            self.send({"type": "event", "level": "info", "message": what["event"], "span_id": OUTER, **common})
        if "end" in what:
            self.send({"type": "span_end", "span_id": OUTER, "name": "work", "status": "ok", "start": now - 5_000, "duration": 5_000, **common})  # fmt: skip
        self.send(
            {
                "type": "progress",
                "job_id": job,
                "percent": what["percent"],
                "status": what.get("status", "working"),
                "ts": now,
            }
        )
        if what.get("status") == "done" and "end" in what:
            self.leave()

    def hostile(self, text: str) -> None:
        short = text[:64]
        common = {"trace_id": "hostile-1"}
        self.send(
            {"type": "span_start", "span_id": OUTER, "name": text, "tags": {text: text}, **common},
            {"type": "event", "level": "error", "message": text, "context": {text: text}, **common},
            {"type": "metric", "name": text, "value": 1, "unit": short, **common},
            {"type": "metric", "name": text, "value": 2, "unit": short, **common},
            {"type": "progress", "job_id": "hostile-1", "percent": 5, "status": short},
        )
        bad = self.served.client(service="loader", sdk=text, host=short)
        bad.send_line(text.encode())
        bad.close()

    def many_spans(self, trace: str, count: int) -> None:
        """A span that is open, with ten that ended below it, and the others below these."""
        now = time.time_ns() // 1000
        ended = {
            "type": "span_end",
            "status": "ok",
            "start": now - 5_000,
            "duration": 4_000,
            "trace_id": trace,
            "ts": now,
        }
        upper = [f"{number:016x}" for number in range(1, 11)]
        self.send(
            {"type": "span_start", "span_id": OUTER, "name": "whole", "trace_id": trace, "ts": now - 6_000},
            *({**ended, "span_id": span, "parent_id": OUTER, "name": f"part {span[-1]}"} for span in upper),
            *({**ended, "span_id": f"{100 + number:016x}", "parent_id": upper[number % 10], "name": f"die {number}"} for number in range(count)),
            {"type": "progress", "job_id": trace, "percent": 1},
        )  # fmt: skip

    def drop(self, count: int) -> None:
        """A client says at its end that it had to drop some."""
        client = self.served.client(service="dropper", sdk="perl/2.0.0")
        stats = {"type": "stats", "v": 2, "service": "dropper", "called": count, "dropped": count, "unsent": 0, "last": 0, "streams": [], "final": True}  # fmt: skip
        client.send_line({**stats, "client": client.client, "seq": 1})
        client.until_acked(1)
        client.close()

    def configure(self, *, good: bool) -> None:
        path = self.served.directory / "wafermon.yaml"
        text = path.read_text().removesuffix(BAD)
        path.write_text(text if good else text + BAD)
        assert self.served.process is not None
        self.served.process.send_signal(signal.SIGHUP)

    def leave(self) -> None:
        """Say that this is all, as an SDK does, so that a receipt can be complete."""
        if self.client is not None:
            self.seq += 0
            stats = {"type": "stats", "v": 2, "service": "loader", "called": self.seq, "dropped": 0, "unsent": 0, "last": self.seq, "streams": [], "final": True}  # fmt: skip
            self.client.send_line({**stats, "client": self.client.client, "seq": self.seq + 1})
            self.client.until_acked(self.seq + 1)
            self.client.close()
            self.client = None

    def streams(self) -> int:
        return int(self.served.get("/api/status")["viewers"])

    def close(self) -> None:
        if self.client is not None:
            self.client.drop()
        if self.served.process is not None:
            self.served.stop()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    found = Scene(tmp_path)
    yield found
    found.close()


def missing() -> str:
    """What is not installed; empty where everything is."""
    if shutil.which("node") is None:
        return "no node: apt-get install nodejs"
    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        return "no browser: apt-get install chromium"
    if not (BROWSER / "node_modules" / "playwright-core").is_dir():
        return "no playwright-core: npm --prefix tests/browser install"
    return ""


@pytest.mark.timeout(900)  # twenty tests in one browser: where the machine is busy they take long
def test_the_page_in_a_browser(scene: Scene) -> None:
    if why := missing():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
    environ = {
        **os.environ,
        "PAGE": f"http://127.0.0.1:{scene.served.http_port}/",
        "GUARDED": f"http://127.0.0.1:{scene.guarded}/",
    }
    command = ["node", "page.test.mjs"]
    said: list[str] = []
    with subprocess.Popen(
        command, cwd=BROWSER, env=environ, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as looking:  # fmt: skip
        assert looking.stdin is not None and looking.stdout is not None
        try:
            for line in looking.stdout:
                if line.startswith(">>> "):
                    answer = scene.happen(json.loads(line[4:]))
                    looking.stdin.write(json.dumps(answer) + "\n")
                    looking.stdin.flush()
                else:
                    said.append(line)
        finally:
            print("".join(said), file=sys.stderr)
            looking.stdin.close()
            looking.kill()
    assert looking.returncode == 0, "".join(said)
    assert "Traceback" not in scene.served.log(), scene.served.log()
