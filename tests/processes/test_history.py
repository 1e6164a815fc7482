"""Jobs, runs, traces, events and errors, of a sidecar that runs and of one that does not, live and stored as one answer."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from commands import wafermon
from daemon import until
from history_places import read_lines
from served import CONFIG, Served

BACKENDS = CONFIG[: CONFIG.index("  files:")] + (
    '  files: {{plugin: filesystem, path: "logs/{{service}}.jsonl", batch: {{age: 50ms}}}}\n'
    "  history: {{plugin: history, dir: history, index: [wafer], batch: {{age: 50ms}}}}\n"
)
HOUR = 3_600_000_000


class Story:
    """A client that tells of jobs, each message at a time of its own."""

    def __init__(self, served: Served) -> None:
        self.client = served.client(service="loader")
        self.seq = 0

    def say(self, kind: str, trace: str, ts: int, **fields: Any) -> None:
        self.seq += 1
        head = {"v": 2, "type": kind, "ts": ts, "service": "loader", "client": self.client.client, "seq": self.seq}
        self.client.send_line({**head, "trace_id": trace, **fields})

    def job(self, name: str, start: int, seconds: float, status: str = "done", **fields: Any) -> None:
        """One with a root span, two steps in it, a metric and events."""
        us, root, steps = round(seconds * 1e6), f"{self.seq + 1:016x}", (("read", 0.25), ("load", 0.75))
        self.say("span_start", name, start, span_id=root, name="whole")
        self.say("progress", name, start, job_id=name, percent=0)
        at = start
        for number, (step, share) in enumerate(steps):
            long = round(us * share)
            self.say("span_end", name, at + long, span_id=f"{self.seq + 1:016x}", parent_id=root, name=step, status="ok",
                     start=at, duration=long)  # fmt: skip
            at += long
            self.say("progress", name, at, job_id=name, percent=25 if number == 0 else 99)
        self.say("metric", name, at, name="rows", value=fields.get("rows", 100), unit="1")
        self.say("event", name, at, level="error" if status == "failed" else "info", message=f"lot {name} {status}",
                 context={"wafer": fields.get("wafer", "W1"), "lot": name})  # fmt: skip
        self.say("span_end", name, at, span_id=root, name="whole", status="ok", start=start, duration=us)
        self.say("progress", name, at, job_id=name, percent=100, status=status)

    def close(self) -> None:
        """Say that this is all."""
        self.seq += 1
        self.client.send_line({
            "v": 2, "type": "stats", "client": self.client.client, "seq": self.seq, "service": "loader", "called": self.seq - 1,
            "dropped": 0, "unsent": 0, "last": self.seq - 1, "streams": [], "final": True,
        })  # fmt: skip

    def done(self) -> None:
        self.client.until_acked(self.seq)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Twelve jobs of yesterday, all but live since the sidecar was restarted without its memory; then one that runs."""
    directory = tmp_path_factory.mktemp("history")
    with Served(directory, BACKENDS) as daemon:
        story = Story(daemon)
        yesterday = time.time_ns() // 1000 - 24 * HOUR
        for n in range(12):
            status = "failed" if n == 5 else "done"
            story.job(f"load-{n}", yesterday + n * HOUR, 100 + n, status, wafer=f"W{n}", rows=100 + n)
        story.close()
        story.done()
        until(
            lambda: len(read_lines(directory / "history")) >= story.seq + 24, "all stored, with summaries and receipts"
        )
        daemon.stop()
        for place in ("journal/correlation", "journal"):
            shutil.rmtree(directory / place, ignore_errors=True)
        daemon.start()
        assert daemon.process is not None
        now = time.time_ns() // 1000
        again = Story(daemon)
        again.say("span_start", "load-99", now - 50_000_000, span_id="f" * 16, name="whole")
        again.say("progress", "load-99", now - 50_000_000, job_id="load-99", percent=0)
        again.say("progress", "load-99", now - 1_000_000, job_id="load-99", percent=50, status="loading")
        again.say("event", "load-99", now, level="warning", message="half of it")
        again.done()
        until(lambda: daemon.get("/api/traces/load-99").get("progress"), "the job that runs")
        yield daemon


def ids(found: dict[str, Any], name: str = "jobs") -> list[str]:
    return [one["job_id"] for one in found[name]]


def test_live_and_stored_jobs_are_one_list_without_doubles(served: Served) -> None:
    found = served.get("/api/jobs")
    assert ids(found) == ["load-99", *(f"load-{n}" for n in reversed(range(12)))]
    assert (found["total"], found["left_out"], found["more"], found["next"]) == (13, 0, False, "")
    assert found["sources"] == ["live", "history"] and found["problems"] == []
    until(lambda: served.get("/api/services")["services"][0]["counts"].get("progress") == 50, "the live job stored too")
    again = served.get("/api/jobs")
    assert ids(again) == ids(found) and again["total"] == 13
    assert [job["state"] for job in again["jobs"]].count("failed") == 1
    assert again["jobs"][1]["services"] == ["loader"]


def test_the_list_goes_on_page_by_page(served: Served) -> None:
    seen: list[str] = []
    cursor = ""
    while True:
        found = served.get(f"/api/jobs?limit=5&after={quote(cursor)}")
        seen += ids(found)
        cursor = found["next"]
        if not cursor:
            break
    assert seen == ["load-99", *(f"load-{n}" for n in reversed(range(12)))]


@pytest.mark.parametrize(("asked", "expected"), [
    ("state=running,stalled", ["load-99"]),
    ("state=failed", ["load-5"]),
    ("name=load-1*", ["load-11", "load-10", "load-1"]),
    ("since=3h", ["load-99"]),
    ("service=x*", []),
    ("kind=load-*&limit=1", ["load-99"]),
])  # fmt: skip
def test_jobs_that_are_filtered(served: Served, asked: str, expected: list[str]) -> None:
    assert ids(served.get(f"/api/jobs?{asked}")) == expected


@pytest.mark.parametrize(("path", "problem"), [
    ("jobs?states=x", "unknown argument 'states'; "),
    ("jobs?state=happy", "state: 'happy' is none; expected some of running,"),
    ("jobs?limit=-1", "limit: expected a whole number from 0 to 10000"),
    ("jobs?after=junk", "after: this is no cursor that an answer gave"),
    ("jobs?since=yesterday", "since: expected a time ago such as 2h"),
    ("jobs?since=1h&until=2h", "until: expected a time after since"),
    ("jobs?source=files", "source: no backend 'files' can be asked for what it holds; these can: history"),
    ("events/search?level=loud", "level: expected the least one, of debug, info,"),
    ("events/search?context=wafer", "context: expected KEY=VALUE"),
    ("runs?of=x&limit=x", "limit: expected a whole number"),
])  # fmt: skip
def test_a_question_that_can_not_be_is_named(served: Served, path: str, problem: str) -> None:
    status, body = served.request(f"/api/{path}")
    assert status == 400
    assert problem in body.decode()


def test_the_end_of_a_job_is_foreseen_from_the_last_runs(served: Served) -> None:
    [job] = served.get("/api/jobs?state=running")["jobs"]
    eta = job["eta"]
    assert (eta["source"], eta["runs"]) == ("runs", 10)
    assert eta["earliest"] <= eta["at"] <= eta["latest"]
    # At 50 % after 49 s, where past runs were at a third of the way from 25 % to 99 % of 100 to 111 s.
    assert 30e6 < eta["at"] - (job["last_progress"]) < 80e6


def test_the_runs_of_a_kind(served: Served) -> None:
    [kind] = served.get("/api/runs")["kinds"]
    assert (kind["kind"], kind["states"]["done"], kind["states"]["failed"]) == ("load-*", 11, 1)
    for name in ("load-*", "load-3"):
        found = served.get(f"/api/runs?of={quote(name)}&limit=4")
        assert (found["kind"], ids(found, "runs")) == ("load-*", ["load-99", "load-11", "load-10", "load-9"])
        assert found["median"] == 110_000_000
        assert found["left_out"] == 9


def test_a_stored_trace_by_the_beginning_of_its_id(served: Served) -> None:
    found = served.get("/api/traces/load-3")
    assert (found["trace_id"], found["status"], found["part"]) == ("load-3", "done", 1)
    assert [(span["name"], span["depth"]) for span in found["spans"]] == [("whole", 0), ("read", 1), ("load", 1)]
    assert [len(found[name]) for name in ("events", "metrics", "progress", "resources")] == [2, 1, 4, 0], (
        "with the receipt"
    )
    assert found["series"][0]["mean"] == 103
    status, body = served.request("/api/traces/load-")
    assert status == 404 and "is the beginning of several: load-0, load-1," in json.loads(body)["error"]
    assert json.loads(body)["candidates"][:2] == ["load-0", "load-1"]
    assert served.request("/api/traces/nothing")[0] == 404
    assert served.get("/api/traces/load-9")["trace_id"] == "load-9", "the whole id is meant where there is one"


def test_a_live_trace_is_told_once_however_much_is_stored(served: Served) -> None:
    until(lambda: len(served.get("/api/events/search?trace=load-99")["events"]) == 1, "the event stored too")
    found = served.get("/api/traces/load-99")
    assert (found["status"], len(found["events"]), len(found["progress"]), len(found["spans"])) == ("running", 1, 2, 1)
    assert found["sources"] == ["live", "history"]


@pytest.mark.parametrize(("asked", "expected"), [
    ("context=wafer=W7", ["lot load-7 done"]),
    ("context=lot=load-8", ["lot load-8 done"]),
    ("text=LOAD-1&limit=2", ["lot load-11 done", "lot load-10 done"]),
    ("level=error", ["lot load-5 failed"]),
    ("service=load*&level=warning", ["half of it", "lot load-5 failed"]),
    ("trace=load-2&service=loader", ["lot load-2 done"]),
])  # fmt: skip
def test_events_of_yesterday(served: Served, asked: str, expected: list[str]) -> None:
    until(lambda: len(served.get("/api/events/search?trace=load-99")["events"]) == 1, "the last event stored")
    assert [event["message"] for event in served.get(f"/api/events/search?{asked}")["events"]] == expected


def test_errors_of_yesterday(served: Served) -> None:
    [error] = served.get("/api/errors")["errors"]
    assert (error["service"], error["count"], error["message"], error["trace_id"]) == (
        "loader",
        1,
        "lot load-5 failed",
        "load-5",
    )


def test_the_commands_say_the_same_of_a_sidecar_and_of_its_directory(served: Served) -> None:
    until(lambda: len(served.get("/api/events/search?trace=load-99")["events"]) == 1, "all stored")
    places = (["--http", f"http://127.0.0.1:{served.http_port}"], ["--history", str(served.directory / "history")])
    asked: list[list[str]] = [
        ["jobs", "--failed"], ["jobs", "--name", "load-1?", "--limit", "1"], ["runs"], ["runs", "load-4", "--failed"],
        ["trace", "load-4"], ["events", "--context", "wafer=W7"], ["events", "load-6"], ["events", "--grep", "half"], ["errors"],
    ]  # fmt: skip
    for arguments in asked:
        live, stored = (wafermon(*arguments, *place) for place in places)
        assert live.returncode == stored.returncode == 0, live.stderr + stored.stderr
        without_ago = [[line.split("ago")[-1] for line in one.stdout.splitlines()] for one in (live, stored)]
        assert without_ago[0] == without_ago[1], arguments
        assert live.stderr == stored.stderr, arguments
    cut = wafermon("jobs", "--limit", "3", *places[1])
    assert "10 more jobs left out: --after " in cut.stdout
    cursor = cut.stdout.split("--after ")[1].split(" ")[0]
    assert wafermon("jobs", "--limit", "1", "--after", cursor, *places[1]).stdout.splitlines()[1].startswith("load-9 ")


def test_a_sidecar_without_anything_stored_answers_from_memory(tmp_path: Path) -> None:
    with Served(tmp_path) as daemon:
        story = Story(daemon)
        story.job("load-1", time.time_ns() // 1000 - 10_000_000, 5)
        story.done()
        found = until(lambda: (seen := daemon.get("/api/jobs"))["jobs"] and seen, "the job")
        assert (ids(found), found["sources"]) == (["load-1"], ["live"])
        assert [kind["kind"] for kind in daemon.get("/api/runs")["kinds"]] == ["load-*"]
        status, body = daemon.request("/api/events/search")
        assert status == 503 and "add a backend with `plugin: history`" in json.loads(body)["error"]


def test_stats_lines_are_stored_though_no_rule_names_them(served: Served) -> None:
    client = served.client(service="stats-test")
    client.send_line({
        "v": 2, "type": "stats", "client": client.client, "seq": 1, "called": 0, "dropped": 0, "unsent": 0, "last": 0,
        "streams": [], "final": True,
    })  # fmt: skip
    client.until_acked(1)
    client.close()
    until(lambda: (client.client, 1) in read_lines(served.directory / "history"), "the stats line in history")
    assert served.stored("stats-test") == []


def test_a_run_beside_another_and_beside_the_last_ones(served: Served) -> None:
    found = served.get("/api/compare?run=load-11&other=load-0")
    assert [(step["name"], step["lost"] > 0, step["critical"]) for step in found["steps"]] == [
        ("whole", False, True), ("read", True, True), ("load", True, True),
    ]  # fmt: skip
    assert (
        sum(step["lost"] for step in found["steps"])
        == found["run"]["duration"] - found["other"]["duration"]
        == 11_000_000
    )
    assert found["run"]["critical_path"] == ["loader/whole", "loader/read", "loader/load"]
    beside = served.get("/api/compare?run=load-5")
    assert (beside["runs"], beside["other"]["trace_id"]) == (10, "")
    assert {one["name"] for one in beside["counts"]} == {"level.error", "level.info"}
    for path, code, what in (
        ("run=load-1&other=load-1", 400, "name two runs"),
        ("other=load-1", 400, "missing: the id of a trace or a job"),
        ("run=nothing", 404, "nothing is known of"),
    ):
        status, body = served.request(f"/api/compare?{path}")
        assert status == code and what in body.decode()
    said = wafermon("compare", "load-11", "load-0", "--history", served.directory / "history").stdout
    assert said.startswith("load-11 done, 1 min 51 s, beside load-0, 1 min 40 s: 11.0 s longer\n")
    assert "critical path  loader/whole > loader/read > loader/load" in said


def test_the_receipt_of_a_job_that_memory_has_forgotten(served: Served) -> None:
    found = served.get("/api/traces/load-3/receipt")
    assert (found["job"], found["received"], found["closed"], found["unclosed"]) == ("load-3", 10, 1, [])
    assert served.get("/api/traces/load-99/receipt")["running"] is True
    assert served.request("/api/traces/nothing/receipt")[0] == 404


def test_who_is_connected_and_who_was(served: Served) -> None:
    there = served.client(service="client-test", sdk="test/1", host="fab7", pid=42)
    there.send(range(1, 4), service="client-test")
    there.until_acked(3)
    [known] = served.get("/api/clients?service=client-test")["clients"]
    assert (known["connected"], known["messages"], known["sdk"], known["host"], known["pid"]) == (
        True,
        3,
        "test/1",
        "fab7",
        42,
    )
    assert (known["closed"], known["dropped"]) == (False, None)
    there.send_line({
        "v": 2, "type": "stats", "client": there.client, "seq": 4, "called": 3, "dropped": 2, "unsent": 0, "last": 3, "streams": [],
        "final": True,
    })  # fmt: skip
    there.until_acked(4)
    there.close()
    until(lambda: served.get("/api/clients?service=client-test&connected=false")["total"] == 1, "that it left")
    [known] = served.get("/api/clients?service=client-test")["clients"]
    assert (known["closed"], known["dropped"], known["messages"]) == (True, 2, 4)
    said = wafermon("clients", "--service", "client-test", "--http", f"http://127.0.0.1:{served.http_port}").stdout
    assert " said all" in said and "fab7:42" in said
    assert served.request("/api/clients?connected=perhaps")[0] == 400


def test_one_screen_of_all(served: Served) -> None:
    said = wafermon("top", "--http", f"http://127.0.0.1:{served.http_port}")
    assert said.returncode == 0, said.stderr
    assert "BACKEND" in said.stdout and "history  ok" in said.stdout
    assert any(line.startswith("load-99") and "██" in line for line in said.stdout.splitlines())
