"""Schedules in a real sidecar: commands, HTTP, reload, restart, and what lands in files, metrics and the hook."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

from commands import wafermon
from daemon import read_lines, until
from served import Served

CONFIG = """
listen: ["tcp:{port}:interface=127.0.0.1"{listen}]
http: tcp:{limits}:interface=127.0.0.1
reload: signal
journal: {{dir: journal, segment_bytes: 1MiB, max_bytes: 16MiB, spill_dir: spill}}
correlation: {{after_start: 1s}}
backends:
  files: {{plugin: filesystem, path: "logs/{{service}}.jsonl", batch: {{age: 20ms}}}}
  history: {{plugin: history, dir: history, batch: {{age: 20ms}}}}
hooks: {{command: "PYTHON hook.py", at_most: 0}}
schedules:
  load: {{match: {{job: "load-*", service: etl}}, every: 1h, silent: 1s, at_least: 10m}}
  sync: {{match: {{job: "sync-*"}}, every: 1s, start_grace: 500ms}}
  nightly: {{match: {{job: "nightly-*"}}, cron: "30 2 * * *", timezone: Europe/Berlin}}
""".replace("PYTHON", sys.executable)
HOOK = """
import os, sys
with open("told", "ab", buffering=0) as file:
    os.write(file.fileno(), sys.stdin.buffer.read())
"""


def served(directory: Path, config: str = CONFIG) -> Served:
    (directory / "hook.py").write_text(HOOK)
    return Served(directory, config)


def said(one: Served, schedule: str) -> list[str]:
    """The states of a schedule that are in the files, in order."""
    found = [event.get("context") or {} for event in one.stored("wafermon")]
    return [context["kind"] for context in found if context.get("schedule") == schedule]


def progress(one: Served, job: str, *steps: tuple[float, str], service: str = "etl") -> None:
    client, now = one.client(), time.time_ns() // 1000
    client.send_all(
        {"ts": now + 1000 * seq, "type": "progress", "service": service, "job_id": job, "percent": percent, "status": status, "client": client.client,
         "seq": seq}
        for seq, (percent, status) in enumerate(steps, 1)
    )  # fmt: skip
    client.until_acked(len(steps))
    client.close()


def state(one: Served, schedule: str) -> dict[str, Any]:
    [found] = one.get(f"/api/schedules?name={schedule}")["schedules"]
    return dict(found)


def command(one: Served, *words: str) -> str:
    done = wafermon("schedules", *words, "--http", f"http://127.0.0.1:{one.http_port}")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_run_that_falls_silent_and_is_done_too_soon(tmp_path: Path) -> None:
    with served(tmp_path) as one:
        until(lambda: one.get("/api/schedules")["total"] == 3, "the schedules")
        progress(one, "load-1", (0, "reading"))
        until(lambda: said(one, "load") == ["running", "silent"], "a silent run")
        assert state(one, "load")["state"] == "silent"
        progress(one, "load-1", (100, "done"))
        until(lambda: said(one, "load") == ["running", "silent", "recovered", "too_fast"], "its end")
        assert state(one, "load")["last_run"]["run"] == "load-1"
        until(lambda: "not_started" in said(one, "sync"), "what does not start")
        told = until(lambda: len(read_lines(tmp_path / "told")) >= 4 and read_lines(tmp_path / "told"), "the hook")
        assert {event["kind"] for event in told} == {"silent", "recovered", "too_fast", "not_started"}
        assert next(event for event in told if event["kind"] == "silent")["context"]["run"] == "load-1"
        metrics = one.metrics()
        assert metrics['wafermon_schedule_troubled{schedule="load"}'] == 1
        assert metrics['wafermon_schedule_troubled{schedule="nightly"}'] == 0
        assert metrics['wafermon_schedule_transitions_total{state="silent"}'] == 1
        assert one.get("/api/status")["schedules"]["troubled"] == ["load", "sync"]
        shown = command(one)
        assert "load " in shown and "too_fast" in shown
        found = json.loads(command(one, "--json", "--state", "too_fast"))
        assert [row["schedule"] for row in found["schedules"]] == ["load"]
        assert "schedules    3, not as they should be: load, sync" in wafermon(
            "status", "--http", f"http://127.0.0.1:{one.http_port}"
        ).stdout  # fmt: skip


def test_a_job_that_is_late_is_so_in_the_list_of_jobs(tmp_path: Path) -> None:
    with served(tmp_path) as one:
        until(lambda: "not_started" in said(one, "sync"), "what does not start")
        progress(one, "sync-1", (0, "reading"))
        progress(one, "load-1", (0, "reading"))

        def listed() -> dict[str, Any]:
            return {job["job_id"]: (job["state"], job.get("troubles")) for job in one.get("/api/jobs")["jobs"]}

        until(lambda: listed().get("sync-1") == ("running", ["late"]), "the late job in the list")
        until(lambda: listed().get("load-1") == ("running", ["silent"]), "the silent one")
        shown = wafermon("jobs", "--http", f"http://127.0.0.1:{one.http_port}").stdout
        assert "reading, late" in shown
        progress(one, "sync-1", (100, "done"))
        until(lambda: listed()["sync-1"] == ("done", None), "its end")


def test_a_schedule_is_paused_and_resumed_over_restarts(tmp_path: Path) -> None:
    with served(tmp_path) as one:
        until(lambda: one.get("/api/schedules")["total"] == 3, "the schedules")
        assert "sync is paused until it is resumed" in command(one, "pause", "sync")
        assert "nightly is paused until " in command(one, "pause", "nightly", "--until", "2h")
        until(lambda: state(one, "sync")["state"] == "paused", "a pause")
        one.kill()
        one.start()
        until(lambda: one.get("/api/schedules")["total"] == 3, "the schedules")
        until(lambda: state(one, "sync")["state"] == "paused", "the pause after a kill")
        assert state(one, "nightly")["paused_until"] > time.time() * 1e6 + 7_000_000
        assert "sync is resumed" in command(one, "resume", "sync")
        until(lambda: said(one, "sync")[-1] == "not_started" and "resumed" in said(one, "sync"), "alarms again")
        since = said(one, "sync").index("paused")
        assert said(one, "sync")[since:] == ["paused", "resumed", "not_started"]
        assert one.request("/api/schedules/sync/pause", "POST")[0] == 403
        status, body = one.request("/api/schedules/nobody/pause", "POST", **{"X-Wafermon": "x"})
        assert (status, json.loads(body)["error"]) == (
            404, "no schedule 'nobody' is in the config; there are load, sync, nightly",
        )  # fmt: skip
        status, body = one.request("/api/schedules/sync/pause?until=yesterday", "POST", **{"X-Wafermon": "x"})
        assert status == 400
        assert body.startswith(b"until: expected a time from now such as 2h")
        assert one.request("/api/schedules/sync/pause?until=2020-01-01", "POST", **{"X-Wafermon": "x"})[0] == 400
        assert one.request("/api/schedules/sync/resume?until=2h", "POST", **{"X-Wafermon": "x"})[0] == 400
        assert one.request("/api/schedules?state=odd")[0] == 400
        assert one.request("/api/schedules/sync/pause")[0] == 405


def test_the_past_is_judged(tmp_path: Path) -> None:
    with served(tmp_path) as one:
        progress(one, "load-1", (0, "reading"), (50, "loading"), (100, "done"))
        progress(one, "load-2", (0, "reading"), (40, "failed"))
        progress(one, "other-1", (0, "reading"), (100, "done"))
        until(lambda: one.get("/api/jobs")["total"] == 3, "the jobs")
        until(lambda: "failed" in said(one, "load"), "the second job's end")
        found = json.loads(command(one, "test", "load", "--since", "1h", "--json"))
        assert found["runs"] == 2
        assert [told["kind"] for told in found["told"]] == ["running", "too_fast", "running", "failed"]
        assert [told["run"] for told in found["told"]] == ["load-1", "load-1", "load-2", "load-2"]
        assert "run load-2 has failed" in command(one, "test", "load", "--all")
        text = (tmp_path / "wafermon.yaml").read_text()
        other = tmp_path / "other.yaml"
        history = tmp_path / "history"
        other.write_text(text.replace("at_least: 10m", "at_least: 0").replace("dir: history", f"dir: {history}"))
        by_config = wafermon("schedules", "test", "load", "--config", str(other), "--json")
        assert by_config.returncode == 0, by_config.stderr
        assert [told["kind"] for told in json.loads(by_config.stdout)["told"]] == [
            "running",
            "done",
            "running",
            "failed",
        ]
        assert one.request("/api/schedules/nobody/test")[0] == 404
        assert one.request("/api/schedules/load/test?since=odd")[0] == 400


def test_other_schedules_come_with_a_reload(tmp_path: Path) -> None:
    with served(tmp_path) as one:
        until(lambda: "not_started" in said(one, "sync"), "an alarm")
        config = tmp_path / "wafermon.yaml"
        text = config.read_text()
        lines = [line for line in text.splitlines() if not line.startswith("  sync:")]
        config.write_text("\n".join([*lines, "  beat: {match: {service: beat}, every: 1s, start_grace: 0}", ""]))
        assert one.process is not None
        one.process.send_signal(signal.SIGHUP)
        until(lambda: said(one, "sync")[-1] == "recovered", "the end of what was told of a schedule that is gone")
        until(lambda: said(one, "beat") == ["not_started"], "a schedule that is new")
        assert "schedules.sync (removed)" in one.log()
        assert "schedules.beat (new)" in one.log()
        one.kill()
        one.start()
        until(lambda: one.get("/api/schedules")["total"] == 3, "the schedules")
        progress(one, "x", (1, "running"), service="beat")
        until(lambda: said(one, "beat")[-2:] == ["recovered", "silent"], "the service, heard and silent again")
        assert said(one, "beat") == ["not_started", "recovered", "silent"]
