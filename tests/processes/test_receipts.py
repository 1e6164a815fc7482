"""Receipts and programs that are gone: real SDKs, a real sidecar, real kills."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from commands import wafermon
from daemon import ROOT, until
from drivers import Driver
from served import Served

CONFIG = """
listen: ["tcp:{port}:interface=127.0.0.1"{listen}]
http: tcp:{limits}:interface=127.0.0.1
reload: signal
journal: {{dir: journal, segment_bytes: 1MiB, max_bytes: 16MiB, spill_dir: spill}}
backends:
  files: {{plugin: filesystem, path: "logs/{{service}}.jsonl", batch: {{age: 50ms}}}}
  metrics: {{plugin: filesystem, path: "metrics/{{service}}.jsonl", batch: {{age: 50ms}}}}
routes:
  - match: {{type: metric}}
    to: [files, metrics]
  - to: [files]
"""
HISTORY = CONFIG.replace("routes:", "  past: {{plugin: history, dir: past, batch: {{age: 50ms}}}}\nroutes:").replace(
    "to: [files", "to: [past, files"
)
LANGUAGES = ["python", "perl", "c", "go", "java", "node", "r"]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Served]:
    with Served(tmp_path, CONFIG) as running:
        yield running


def driver(daemon: Served, language: str = "python") -> Driver:
    return Driver(language, daemon.directory, WAFERMON_URL=f"tcp://127.0.0.1:{daemon.port}")


def receipt(daemon: Served, job: str) -> Any:
    return daemon.get(f"/api/traces/{job}/receipt")


def site(daemon: Served) -> str:
    return f"http://127.0.0.1:{daemon.http_port}"


def job_of(daemon: Served, name: str) -> dict[str, Any]:
    return next((job for job in daemon.get("/api/jobs")["jobs"] if job["job_id"] == name), {})


def events_of(daemon: Served, kind: str) -> list[dict[str, Any]]:
    """What the sidecar found out itself, as the files have it."""
    return [one for one in daemon.stored("wafermon") if one.get("context", {}).get("kind") == kind]


def gone_events(daemon: Served) -> list[dict[str, Any]]:
    return events_of(daemon, "gone")


def begin(sdk: Driver, daemon: Served, job: str = "job-1", events: int = 50) -> None:
    sdk("open", service="loader", url=f"tcp://127.0.0.1:{daemon.port}", trace_id=job)
    sdk("log_progress", job_id=job, percent=1, status="loading")
    sdk("burst", n=events)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_job_that_closes_is_complete_and_one_that_is_killed_is_gone(daemon: Served, language: str) -> None:
    with driver(daemon, language) as sdk:
        begin(sdk, daemon)
        sdk("log_metric", name="rows", value=7)
        sdk("log_progress", job_id="job-1", percent=100, status="done")
        assert sdk("flush", timeout=30)
        open_still = receipt(daemon, "job-1")
        sdk("close")
    assert open_still["complete"] is False and len(open_still["unclosed"]) == 1
    done = wafermon("receipt", "job-1", "--wait", "60s", "--http", site(daemon))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "job-1  complete" in done.stdout
    found = receipt(daemon, "job-1")
    assert (found["complete"], found["sent"], found["received"]) == (True, 53, 53)
    backends = {name: (one["routed"], one["stored"]) for name, one in found["backends"].items()}
    assert backends == {"files": (53, 53), "metrics": (1, 1)}
    assert len([line for line in daemon.stored("loader") if line["trace_id"] == "job-1"]) == 53

    victim = driver(daemon, language)
    begin(victim, daemon, "job-2")
    assert victim("flush", timeout=30)
    killed = time.monotonic()
    victim.process.kill()
    victim.process.wait()
    until(lambda: job_of(daemon, "job-2")["gone"], "the job that is gone")
    assert time.monotonic() - killed < 30
    job = job_of(daemon, "job-2")
    assert (job["gone"], job["stalled"], job["status"]) == (True, False, "loading")
    found = receipt(daemon, "job-2")
    assert (found["complete"], found["received"], len(found["unclosed"]), found["sent"]) == (False, 51, 1, None)
    assert found["services"] == dict.fromkeys(found["unclosed"], "loader")
    done = wafermon("receipt", "job-2", "--http", site(daemon))
    assert done.returncode == 1
    assert "not closed" in done.stdout
    shown = wafermon("jobs", "--http", site(daemon)).stdout
    assert [line.split()[3] for line in shown.splitlines() if line.startswith("job-2")] == ["gone"]
    [event] = until(lambda: gone_events(daemon), "the event")
    assert (event["context"]["job_id"], event["trace_id"], event["level"]) == ("job-2", "job-2", "warning")
    assert daemon.metrics()["wafermon_jobs_gone_total"] == 1


def has_closed(daemon: Served, count: int) -> bool:
    return bool(receipt(daemon, "lot-1")["closed"] == count)


def test_one_job_of_programs_in_several_languages(daemon: Served) -> None:
    """Each says a part; the job is complete once the last of them has closed, whoever that is."""
    languages = ["java", "node", "r", "perl"]
    with ExitStack() as stack:
        sdks = {language: stack.enter_context(driver(daemon, language)) for language in languages}
        for language, sdk in sdks.items():
            sdk("open", service=language, url=f"tcp://127.0.0.1:{daemon.port}", trace_id="lot-1")
            sdk("log_progress", job_id="lot-1", percent=1, status=language)
            sdk("burst", n=100)
        sdks["r"]("log_progress", job_id="lot-1", percent=100, status="done")
        for n, (language, sdk) in enumerate(sdks.items(), 1):
            assert receipt(daemon, "lot-1").get("complete", False) is False, f"before {language} closed"
            sdk("close")
            until(partial(has_closed, daemon, n), f"{language} closed")
    done = wafermon("receipt", "lot-1", "--wait", "60s", "--json", "--http", site(daemon))
    found = json.loads(done.stdout)
    assert (done.returncode, found["complete"], found["closed"]) == (0, True, 4), found
    assert (found["sent"], found["received"], found["backends"]["files"]["stored"]) == (405, 405, 405)
    assert {language: len(daemon.stored(language)) for language in languages} == {
        "java": 101, "node": 101, "r": 102, "perl": 101,
    }  # fmt: skip


def test_what_is_known_outlives_the_sidecar(daemon: Served) -> None:
    """Killed before and after: the programs that come back are not gone, and the one that died meanwhile is."""
    victim, survivor = driver(daemon), driver(daemon)
    begin(victim, daemon, "job-1")
    begin(survivor, daemon, "job-2")
    for sdk in (victim, survivor):
        assert sdk("flush", timeout=30)
    daemon.kill()
    victim.process.kill()
    victim.process.wait()
    daemon.start()
    with survivor:
        survivor("log_progress", job_id="job-2", percent=100, status="done")
        assert survivor("flush", timeout=60)
        survivor("close")
    assert wafermon("receipt", "job-2", "--wait", "60s", "--http", site(daemon)).returncode == 0
    until(lambda: job_of(daemon, "job-1").get("gone"), "the job that is gone", 120)
    assert not job_of(daemon, "job-2")["gone"]
    before = receipt(daemon, "job-1"), receipt(daemon, "job-2")
    daemon.kill()
    daemon.start()
    until(lambda: (receipt(daemon, "job-1"), receipt(daemon, "job-2")) == before, "the same receipts")
    until(lambda: gone_events(daemon), "the event")
    assert wafermon("drain", "--http", site(daemon)).returncode == 0
    assert len(gone_events(daemon)) == 1


def test_a_program_that_dies_while_the_sidecar_is_away_is_gone_though_nobody_comes_back(daemon: Served) -> None:
    victim = driver(daemon)
    begin(victim, daemon)
    assert victim("flush", timeout=30)
    daemon.kill()
    victim.process.kill()
    victim.process.wait()
    daemon.start()
    until(lambda: job_of(daemon, "job-1").get("gone"), "the job that is gone", 180)


def test_what_lies_in_a_spill_file_is_waited_for(daemon: Served) -> None:
    """The sidecar is away while a program ends: its file is taken up later."""
    with driver(daemon) as sdk:
        begin(sdk, daemon, "job-1", 10)
        assert sdk("flush", timeout=30)
        daemon.kill()
        sdk("burst", n=2_000)
        sdk("log_progress", job_id="job-1", percent=100, status="done")
        sdk("close")
    daemon.start()
    assert receipt(daemon, "job-1")["complete"] is False
    left = list((daemon.directory / "of-the-sdk").iterdir())
    assert left
    done = wafermon("replay", *left, "--url", f"tcp://127.0.0.1:{daemon.port}")
    assert done.returncode == 0, done.stderr
    done = wafermon("receipt", "job-1", "--wait", "60s", "--json", "--http", site(daemon))
    found = json.loads(done.stdout)
    assert (done.returncode, found["complete"], found["sent"], found["received"]) == (0, True, 2_012, 2_012)


def test_the_commands_for_shells_close_what_they_send(daemon: Served) -> None:
    at = ["--service", "cron", "--url", f"tcp://127.0.0.1:{daemon.port}"]
    assert wafermon("send", "progress", *at, "job-1", "10", "--status", "loading").returncode == 0
    assert wafermon("send", "event", *at, "--trace", "job-1", "half way").returncode == 0
    assert wafermon("send", "progress", *at, "job-1", "100", "--status", "done").returncode == 0
    done = wafermon("receipt", "job-1", "--wait", "60s", "--json", "--http", site(daemon))
    found = json.loads(done.stdout)
    assert (done.returncode, found["sent"], found["received"], found["closed"]) == (0, 3, 3, 3)
    run = wafermon("run", "--job", "job-2", *at, "--", sys.executable, "-c", "print('done')")
    assert run.returncode == 0, run.stderr
    done = wafermon("receipt", "job-2", "--wait", "60s", "--http", site(daemon))
    assert done.returncode == 0, done.stdout


def test_what_is_replayed_is_closed_and_once(daemon: Served, tmp_path: Path) -> None:
    """A file of lines that were never numbered: the replay says that this is all, also the second time."""
    common = {"service": "old", "trace_id": "job-1"}
    line = {"type": "event", "level": "info", "message": "from a file", **common}
    over = {"type": "progress", "job_id": "job-1", "percent": 100, "status": "done", **common}
    file = tmp_path / "lines.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in [*[line] * 1_000, over]))
    for known in ("", ", 1001 were there already"):
        done = wafermon("replay", str(file), "--url", f"tcp://127.0.0.1:{daemon.port}")
        count = 0 if known else 1_001
        assert (done.returncode, done.stdout) == (0, f"{file}: {count} messages acknowledged{known}\n"), done.stderr
        done = wafermon("receipt", "job-1", "--wait", "60s", "--json", "--http", site(daemon))
        found = json.loads(done.stdout)
        assert (done.returncode, found["sent"], found["received"], found["closed"]) == (0, 1_001, 1_001, 1), found


def test_lines_without_a_number_make_it_unknowable(daemon: Served) -> None:
    with daemon.bare() as bare:
        bare.sendall(b'{"type":"event","service":"nc","trace_id":"job-1","level":"info","message":"hello"}\n')
    until(lambda: receipt(daemon, "job-1").get("received"), "the line")
    found = receipt(daemon, "job-1")
    assert (found["unnumbered"], found["complete"]) == (1, None)
    assert wafermon("receipt", "job-1", "--http", site(daemon)).returncode == 1


def test_what_is_not_known_is_told_apart(daemon: Served) -> None:
    done = wafermon("receipt", "nobody", "--http", site(daemon))
    assert (done.returncode, done.stdout) == (2, "")
    assert "nothing is" in done.stderr
    assert wafermon("receipt", "nobody", "--http", "http://127.0.0.1:1").returncode == 2
    assert wafermon("receipt", "nobody", "--wait", "soon", "--http", site(daemon)).returncode == 2
    assert daemon.request("/api/traces/nobody/receipt")[0] == 404


def test_a_history_keeps_the_receipt_of_a_job_that_the_sidecar_has_let_go_of(tmp_path: Path) -> None:
    with Served(tmp_path, HISTORY) as daemon:
        with driver(daemon) as sdk:
            begin(sdk, daemon)
            sdk("log_progress", job_id="job-1", percent=100, status="done")
            sdk("close")
        assert wafermon("receipt", "job-1", "--wait", "60s", "--http", site(daemon)).returncode == 0
        live = receipt(daemon, "job-1")
        until(lambda: events_of(daemon, "receipt"), "the event that keeps it")
        assert wafermon("drain", "--http", site(daemon)).returncode == 0
        daemon.stop()
        shutil.rmtree(tmp_path / "journal" / "correlation")
        daemon.start()
        until(lambda: receipt(daemon, "job-1").get("complete"), "a receipt from the history")
        assert daemon.metrics()["wafermon_traces_live"] == 0
        assert receipt(daemon, "job-1") == live
        assert daemon.request("/api/traces/nobody/receipt")[0] == 404
        assert daemon.request("/api/traces/job-1/receipt", "HEAD")[0] == 200
        assert daemon.request("/api/traces/job-1/receipt?limit=1")[0] == 400


PICKY = """
import os
from twisted.internet.defer import fail, succeed
from zope.interface import implementer
from wafermon.interfaces import Health, IBackend, IBackendFactory, Options, Refused
from twisted.plugin import IPlugin


class Settings(Options):
    pass


@implementer(IBackend)
class Picky:
    outstanding = 1

    def __init__(self, context):
        self.reached = None

    def open(self):
        return succeed(self.reached)

    def write(self, batch):
        odd = {} if os.path.exists("lenient") else {
            n: "it is odd" for n, line in enumerate(batch.lines) if b"burst 3" in line
        }
        if odd and len(odd) < len(batch.lines):
            return fail(Refused(odd))
        self.reached = batch.end
        return succeed(None)

    def close(self):
        return succeed(None)

    def health(self):
        return Health("ok")


@implementer(IPlugin, IBackendFactory)
class Factory:
    name = "picky"
    options = Settings

    def build(self, options, context):
        return Picky(context)


factory = Factory()
"""


def test_dead_letters_of_a_backend_are_counted_until_they_are_replayed(tmp_path: Path) -> None:
    package = tmp_path / "plugins" / "wafermon" / "backends"
    package.mkdir(parents=True)
    (package / "picky.py").write_text(PICKY)
    config = CONFIG.replace("routes:", "  db: {{plugin: picky, batch: {{age: 50ms}}}}\nroutes:").replace(
        "- to: [files]", "- to: [files, db]"
    )
    daemon = Served(tmp_path, config)
    daemon.environ["PYTHONPATH"] = f"{ROOT}:{tmp_path / 'plugins'}"
    with daemon:
        client = daemon.client(pid=7)
        lines: list[dict[str, Any]] = [
            {"type": "event", "level": "info", "message": f"burst {n}", "trace_id": "job-1", "context": {"i": n}}
            for n in range(1, 9)
        ]
        stats = {"called": 8, "dropped": 0, "unsent": 0, "last": 8, "streams": [], "final": True, "type": "stats"}
        for seq, line in enumerate([*lines, stats], 1):
            client.send_line({**line, "service": "loader", "client": client.client, "seq": seq})
        client.until_acked(9)
        client.close()
        until(lambda: receipt(daemon, "job-1")["backends"].get("db", {}).get("dead") == 1, "a dead letter")
        until(lambda: receipt(daemon, "job-1")["backends"]["db"]["stored"] == 7, "the rest")
        found = receipt(daemon, "job-1")
        assert (found["complete"], found["backends"]["files"]["stored"], found["received"]) == (False, 8, 8)
        [event] = until(lambda: events_of(daemon, "dead_letter"), "the event")
        assert (event["context"], event["trace_id"]) == ({"kind": "dead_letter", "backend": "db", "count": 1}, "job-1")
        (tmp_path / "lenient").touch()
        letters = list((tmp_path / "dead-letters").glob("*.jsonl"))
        done = wafermon("replay", *letters, "--url", f"tcp://127.0.0.1:{daemon.port}")
        assert done.returncode == 0, done.stderr
        done = wafermon("receipt", "job-1", "--wait", "60s", "--http", site(daemon))
        assert done.returncode == 0, done.stdout
        assert receipt(daemon, "job-1")["received"] == 8
