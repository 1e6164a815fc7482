"""The operator's command: what it is told, how often, and what happens at a restart. Real processes."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

from daemon import Client, until
from served import Served

CONFIG = """
listen: ["tcp:{{port}}:interface=127.0.0.1"{{listen}}]
http: tcp:{{limits}}:interface=127.0.0.1
reload: signal
journal: {{{{dir: journal, segment_bytes: 1MiB, max_bytes: 64MiB, spill_dir: spill}}}}
correlation: {{{{stalled_after: 1s, trace_max: {trace_max}}}}}
backends:
  files: {{{{plugin: filesystem, path: "logs/{{{{service}}}}.jsonl"}}}}
hooks: {{{{command: "{python} hook.py '$HOME and more' ; true", on: [job_stalled, job_failed, span_abandoned, dropped], at_most: {at_most}}}}}
"""
HOOK = """
import json, os, sys, time
event = json.load(sys.stdin)
event["arguments"] = sys.argv[1:]
with open("started", "a") as file:
    file.write(json.dumps(event) + "\\n")
while os.path.exists("wait"):
    time.sleep(0.02)
if os.path.exists("fail"):
    sys.exit("nobody is on duty")
with open("told", "a") as file:
    file.write(json.dumps(event) + "\\n")
"""


def hooked(directory: Path, at_most: str = "0", trace_max: str = "1d") -> Served:
    (directory / "hook.py").write_text(HOOK)
    # Words are passed as they are: no shell sees them.
    return Served(directory, CONFIG.format(python=sys.executable, at_most=at_most, trace_max=trace_max))


def lines(directory: Path, name: str = "told") -> list[dict[str, Any]]:
    path = directory / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def fail_job(client: Client, seq: int, job_id: str = "") -> None:
    body = {"type": "progress", "job_id": job_id or f"job-{seq}", "percent": 50, "status": "failed", "service": "etl"}
    client.send_line({**body, "client": client.client, "seq": seq})
    client.until_acked(seq)


def outcomes(daemon: Served) -> dict[str, int]:
    found: dict[str, int] = daemon.get("/api/status")["hooks"]
    return {name: found[name] for name in ("told", "failed", "skipped")}


def test_it_is_told_what_should_not_wait_as_json_without_a_shell(tmp_path: Path) -> None:
    with hooked(tmp_path, trace_max="3s") as served:
        client = served.client()
        fail_job(client, 1)
        client.send_line({"type": "event", "service": "sdk", "level": "warning", "message": "3 messages dropped",
                          "context": {"kind": "dropped", "count": 3}, "client": client.client, "seq": 2})  # fmt: skip
        client.send_line({"type": "span_start", "service": "etl", "name": "load", "span_id": "0123456789abcdef",
                          "trace_id": "lot-1", "client": client.client, "seq": 3})  # fmt: skip
        client.send_line({"type": "progress", "service": "etl", "job_id": "lot-1", "percent": 9, "status": "loading",
                          "client": client.client, "seq": 4})  # fmt: skip
        client.send(range(5, 100), level="warning", context={"kind": "job_stalled", "job_id": "forged"})
        client.until_acked(99)
        until(lambda: len(lines(tmp_path)) == 4, "four events")
        told = {event["kind"]: event for event in lines(tmp_path)}
        assert {event["arguments"][0] for event in told.values()} == {"$HOME and more"}
        assert told["job_failed"]["arguments"] == ["$HOME and more", ";", "true"]
        assert told["job_failed"]["job_id"] == "job-1"
        assert told["dropped"]["context"]["count"] == 3
        assert told["job_stalled"]["context"]["job_id"] == "lot-1"
        assert told["span_abandoned"]["context"]["name"] == "load"
        until(lambda: outcomes(served) == {"told": 4, "failed": 0, "skipped": 0}, "the end of all four")
        client.close()


def test_not_more_often_than_it_may_be(tmp_path: Path) -> None:
    with hooked(tmp_path, at_most="2/h") as served:
        client = served.client()
        for seq in range(1, 8):
            fail_job(client, seq)
        until(lambda: outcomes(served) == {"told": 2, "failed": 0, "skipped": 5}, "two runs")
        assert [event["job_id"] for event in lines(tmp_path)] == ["job-1", "job-2"]
        assert served.log().count("The channel hooks is not told of job_failed and what follows: more than 2/h") == 1
        assert served.metrics()['wafermon_hooks_total{outcome="skipped"}'] == 5
        client.close()


def test_a_command_that_fails_is_counted_logged_with_what_it_said_and_run_again(tmp_path: Path) -> None:
    (tmp_path / "fail").touch()
    with hooked(tmp_path) as served:
        client = served.client()
        fail_job(client, 1)
        fail_job(client, 2)
        until(lambda: outcomes(served)["failed"] == 3, "as many tries as there may be")
        said = "The channel hooks did not take job_failed, which is given up: it ended with status 1: nobody is on duty"
        until(lambda: said in served.log(), "its end")
        assert "nobody is on duty" in served.get("/api/status")["hooks"]["error"]
        (tmp_path / "fail").unlink()
        until(lambda: outcomes(served)["told"] == 1, "the next event")
        assert [event["job_id"] for event in lines(tmp_path)] == ["job-2"]
        assert served.get("/api/status")["hooks"]["error"] == ""
        client.close()


def test_a_command_that_takes_long_keeps_nobody_waiting_and_runs_alone(tmp_path: Path) -> None:
    (tmp_path / "wait").touch()
    with hooked(tmp_path) as served:
        client = served.client()
        for seq in range(1, 11):
            fail_job(client, seq)
        until(lambda: len(lines(tmp_path, "started")) == 1, "the first")
        client.send(range(11, 1_011))
        client.until_acked(1_010)
        until(lambda: len(served.stored("test")) == 1_000, "delivery meanwhile")
        assert len(lines(tmp_path, "started")) == 1
        (tmp_path / "wait").unlink()
        until(lambda: outcomes(served)["told"] == 10, "all")
        assert [event["job_id"] for event in lines(tmp_path)] == [f"job-{seq}" for seq in range(1, 11)]
        client.close()


def test_after_a_clean_stop_nothing_is_told_twice_and_what_was_not_is_told(tmp_path: Path) -> None:
    with hooked(tmp_path) as served:
        client = served.client()
        fail_job(client, 1)
        until(lambda: outcomes(served)["told"] == 1, "told")
        (tmp_path / "wait").touch()
        for seq in range(2, 9):
            fail_job(client, seq)
        until(lambda: len(lines(tmp_path, "started")) == 2, "the second under way")
        client.drop()
        served.stop()
        (tmp_path / "wait").unlink()
        assert len(lines(tmp_path)) == 1, "what was under way was ended"
        served.start()
        until(lambda: outcomes(served)["told"] == 7, "the rest")
        assert sorted(event["job_id"] for event in lines(tmp_path)) == [f"job-{seq}" for seq in range(1, 9)]


def test_after_a_kill_only_what_had_not_ended_is_told_again(tmp_path: Path) -> None:
    with hooked(tmp_path) as served:
        client = served.client()
        for seq in range(1, 6):
            fail_job(client, seq)
        until(lambda: outcomes(served)["told"] == 5, "told")
        client.send(range(6, 1_006))
        client.until_acked(1_005)
        (tmp_path / "wait").touch()
        fail_job(client, 1_006)
        until(lambda: len(lines(tmp_path, "started")) == 6, "one under way")
        client.drop()
        served.kill()
        served.start()
        until(lambda: len(lines(tmp_path, "started")) == 7, "told again")
        (tmp_path / "wait").unlink()
        until(lambda: outcomes(served)["told"] == 1, "its end")
        again = [event["job_id"] for event in lines(tmp_path, "started")]
        assert again[:5] == [f"job-{seq}" for seq in range(1, 6)]
        assert again[5:] == ["job-1006", "job-1006"]


def test_a_hook_that_is_new_is_not_told_the_past_and_one_that_goes_holds_nothing(tmp_path: Path) -> None:
    with hooked(tmp_path) as served:
        config = (tmp_path / "wafermon.yaml").read_text()
        without = "\n".join(line for line in config.splitlines() if not line.startswith("hooks"))
        (tmp_path / "wafermon.yaml").write_text(without)
        served.stop()
        served.start()
        assert served.get("/api/status")["hooks"] is None
        client = served.client()
        fail_job(client, 1)
        client.drop()
        served.stop()
        (tmp_path / "wafermon.yaml").write_text(config)
        served.start()
        client = served.client()
        fail_job(client, 1, "new")
        until(lambda: outcomes(served)["told"] == 1, "told")
        assert [event["job_id"] for event in lines(tmp_path)] == ["new"]
        client.close()


def test_a_reload_changes_ends_and_begins_it(tmp_path: Path) -> None:
    with hooked(tmp_path) as served:
        assert served.process is not None
        config = (tmp_path / "wafermon.yaml").read_text()
        without = "\n".join(line for line in config.splitlines() if not line.startswith("hooks"))
        client = served.client()
        for seq, (other, active) in enumerate([(without, False), (config.replace("[job_stalled, job_failed", "[job_stalled"),
                                               True), (config, True)], 1):  # fmt: skip
            (tmp_path / "wafermon.yaml").write_text(other)
            served.process.send_signal(signal.SIGHUP)
            until(
                lambda seq=seq: served.log().count("in force: ") >= seq,  # type: ignore[misc]
                "a reload",
            )
            until(lambda active=active: bool(served.get("/api/status")["hooks"]) is active, "the hook")  # type: ignore[misc]
            fail_job(client, seq)
        until(lambda: outcomes(served)["told"] == 1, "told")
        assert [event["job_id"] for event in lines(tmp_path)] == ["job-3"]
        client.close()


def test_a_command_that_leaves_something_in_the_background_is_done_when_it_exits(tmp_path: Path) -> None:
    (tmp_path / "wait").touch()
    with hooked(tmp_path) as served:
        # The shell's child keeps the output open, as a daemon that the hook starts does.
        (tmp_path / "hook.py").write_text(
            "import os, sys, time\n"
            "if os.fork() == 0:\n"
            "    while os.path.exists('wait'):\n"
            "        time.sleep(0.02)\n"
            "    open('survived', 'w').close()\n"
        )
        client = served.client()
        for seq in range(1, 7):
            fail_job(client, seq)
        until(lambda: outcomes(served)["told"] == 6, "all, though what they left still runs")
        (tmp_path / "wait").unlink()
        until(lambda: (tmp_path / "survived").exists(), "what was left to come to its own end")
        assert outcomes(served) == {"told": 6, "failed": 0, "skipped": 0}
        client.close()
