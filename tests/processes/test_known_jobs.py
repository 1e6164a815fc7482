"""A job that a program was told is safe is known from then on: to lists, to its trace, to its receipt, whoever has it just now."""

from __future__ import annotations

import http.client
import json
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from commands import wafermon
from daemon import Client
from served import Served

LATE = 3
"""Seconds until the history has what was acknowledged."""
CONFIG = f"""
listen: ["tcp:{{port}}:interface=127.0.0.1"{{listen}}]
http: tcp:{{limits}}:interface=127.0.0.1
reload: signal
journal: {{{{dir: journal, segment_bytes: 1MiB, max_bytes: 64MiB, spill_dir: spill}}}}
correlation: {{{{max_traces: 10}}}}
backends:
  past: {{{{plugin: history, dir: past, batch: {{{{age: {LATE}s, messages: 100000}}}}}}}}
"""
REMEMBERED = 1_000
"""So many traces the sidecar's memory of the recent holds."""


def finish(client: Client, names: Iterable[str], seq: int = 1) -> int:
    """A job of each name begins and ends; returns once all of it is acknowledged, with the next number."""
    for name in names:
        for percent, status in ((0, "running"), (100, "done")):
            line = {"type": "progress", "job_id": name, "trace_id": f"trace-of-{name}", "percent": percent}
            client.send_line({**line, "status": status, "service": "loader", "client": client.client, "seq": seq})
            seq += 1
    client.until_acked(seq - 1)
    return seq


def answers_of(daemon: Served, name: str) -> tuple[int, ...]:
    """The statuses of the questions about one job."""
    paths = (f"/api/traces/{name}", f"/api/traces/trace-of-{name}", f"/api/traces/{name}/receipt")
    return tuple(daemon.request(path)[0] for path in paths)


def listed(daemon: Served, **arguments: Any) -> set[str]:
    query = "&".join(f"{key}={value}" for key, value in arguments.items())
    found = daemon.get(f"/api/jobs?{query}")
    assert not found["problems"]
    return {job["job_id"] for job in found["jobs"]}


def test_at_once_after_its_acknowledgement(tmp_path: Path) -> None:
    with Served(tmp_path, CONFIG) as daemon:
        client, seq = daemon.client(), 1
        for n in range(30):
            seq = finish(client, [f"job-{n}"], seq)
            assert (f"job-{n}" in listed(daemon, name=f"job-{n}"), answers_of(daemon, f"job-{n}")) == (
                True,
                (200, 200, 200),
            )
        client.close()


def test_while_memory_has_let_go_of_it_and_the_history_has_not_taken_it_in(tmp_path: Path) -> None:
    names = [f"job-{n}" for n in range(REMEMBERED + 50)]
    with Served(tmp_path, CONFIG) as daemon:
        client = daemon.client()
        begun = time.monotonic()
        finish(client, names)
        assert answers_of(daemon, "job-0") == (200, 200, 200)
        assert daemon.get("/api/traces/job-0")["sources"][-1] == "past"
        assert listed(daemon, limit=2_000) == set(names)
        assert daemon.request("/api/traces/job-1051")[0] == 404
        client.close()
        assert begun + LATE < time.monotonic(), "nobody had to wait: this proves nothing"


def test_a_list_that_may_lack_some_says_so(tmp_path: Path) -> None:
    with Served(tmp_path, CONFIG.replace(f"age: {LATE}s", "age: 1h")) as daemon:
        client = daemon.client()
        finish(client, [f"job-{n}" for n in range(REMEMBERED + 50)])
        found = daemon.get("/api/jobs?limit=2000")
        assert len(found["jobs"]) == REMEMBERED
        assert [problem.split(";")[0] for problem in found["problems"]] == [
            "past does not have yet everything that was acknowledged"
        ]
        status, body = daemon.request("/api/traces/job-0")
        assert (status, json.loads(body)["error"].split(";")[0]) == (503, found["problems"][0].split(";")[0])
        done = wafermon("trace", "job-0", "--http", f"http://127.0.0.1:{daemon.http_port}")
        assert done.returncode == 1
        assert "ask again" in done.stderr
        assert wafermon("drain", "--http", f"http://127.0.0.1:{daemon.http_port}").returncode == 0
        assert answers_of(daemon, "job-0") == (200, 200, 200)
        client.close()


def test_from_the_first_answer_after_a_start(tmp_path: Path) -> None:
    """From the checkpoint and the journal after it; from the history alone, whose backend opens meanwhile."""
    names = [f"job-{n}" for n in range(300)]
    daemon = Served(tmp_path, CONFIG)
    with daemon:
        client = daemon.client()
        finish(client, names)
        client.close()
        daemon.kill()
        assert first_answers(daemon, names) == {200}
        assert wafermon("drain", "--http", f"http://127.0.0.1:{daemon.http_port}").returncode == 0
        daemon.stop()
        shutil.rmtree(tmp_path / "journal" / "correlation")
        assert first_answers(daemon, names) == {200}


def first_answers(daemon: Served, names: list[str]) -> set[int]:
    """Start it, and ask as soon as somebody answers."""
    before = daemon.answers

    def ask_at_once() -> bool:
        try:
            found.update(answers_of(daemon, names[0]))
            found.update(answers_of(daemon, names[-1]))
        except (OSError, http.client.HTTPException):
            return False
        return True

    found: set[int] = set()
    daemon.answers = ask_at_once  # type: ignore[method-assign]
    daemon.start()
    daemon.answers = before  # type: ignore[method-assign]
    return found


def test_its_id_may_be_the_beginning_of_others(tmp_path: Path) -> None:
    """More of them than are looked at, on the way to it."""
    with Served(tmp_path, CONFIG.replace(f"age: {LATE}s", "age: 50ms")) as daemon:
        client = daemon.client()
        finish(client, ["lot-1", *(f"lot-1{n}" for n in range(REMEMBERED + 50))])
        for _ in range(2):
            found = daemon.get("/api/traces/lot-1")
            assert found["trace_id"] == "trace-of-lot-1"
            receipt = daemon.get("/api/traces/lot-1/receipt")
            assert (receipt["job"], receipt["received"]) == ("trace-of-lot-1", 2)
            daemon.stop()
            shutil.rmtree(tmp_path / "journal" / "correlation")
            daemon.start()
        client.drop()


def test_a_receipt_that_nobody_kept_is_one_of_which_nobody_can_know(tmp_path: Path) -> None:
    """The sidecar was stopped before it kept it, and what it remembered is lost."""
    with Served(tmp_path, CONFIG.replace(f"age: {LATE}s", "age: 50ms")) as daemon:
        client = daemon.client()
        finish(client, ["job-1"])
        assert wafermon("drain", "--http", f"http://127.0.0.1:{daemon.http_port}").returncode == 0
        daemon.kill()
        shutil.rmtree(tmp_path / "journal")
        daemon.start()
        found = daemon.get("/api/traces/job-1/receipt")
        assert (found["complete"], found["begun_before"], found["received"]) == (None, True, 2)
        client.drop()
