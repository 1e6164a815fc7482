"""A sidecar that is killed at the transitions of its schedules: each is in the files once, none is lost, the hook is told of each alarm, and
what channels triggered is resolved.

`times` says how often a schedule was in a state. Where one were lost there would be a hole in these numbers; where one came twice, a number twice.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alarm_server import AlarmServer
from daemon import PATIENCE, Client, read_lines, until
from served import Served

from wafermon.model.schedules import ALARMS, DONE, RECOVERED, RUNNING, TOLD

CONFIG = """
listen: ["tcp:{{port}}:interface=127.0.0.1"{{listen}}]
http: tcp:{{limits}}:interface=127.0.0.1
reload: signal
journal: {{{{dir: journal, segment_bytes: 64KiB, max_bytes: 16MiB, spill_dir: spill}}}}
correlation: {{{{after_start: 200ms}}}}
backends:
  files: {{{{plugin: filesystem, path: "logs/{{{{service}}}}.jsonl", batch: {{{{age: 20ms}}}}}}}}
hooks:
  command: "{python} hook.py"
  on: [not_started, late, silent, too_long, too_fast, overlapping, failed, recovered]
  at_most: 0
alerts:
  pager: {{{{plugin: webhook, format: pagerduty, url: "{pager}", routing_key: k, at_most: 0, on: [{alarms}], match: {{{{service: etl}}}}}}}}
  manager: {{{{plugin: webhook, format: alertmanager, url: "{manager}", at_most: 0, on: [{alarms}]}}}}
schedules:
  load: {{{{match: {{{{job: "load-*"}}}}, every: 700ms, start_grace: 100ms, at_least: 300ms, at_most: 900ms, silent: 500ms}}}}
  beat: {{{{match: {{{{service: beat}}}}, every: 400ms, start_grace: 100ms, per_host: true}}}}
  never: {{{{match: {{{{job: "never"}}}}, every: 500ms, start_grace: 0}}}}
"""
HOOK = """
import os, sys
with open("told", "ab", buffering=0) as file:
    os.write(file.fileno(), sys.stdin.buffer.read())
"""
KILLS = int(os.environ.get("WAFERMON_TEST_ROUNDS", "8"))
EACH = {RUNNING, DONE, RECOVERED, *ALARMS}
Key = tuple[str, str, str, int]
Actions = Iterator[tuple[str, bool]]
"""What is said of an alarm, in order: its key, and whether it is triggered; else it is resolved."""


class Programs:
    """What the jobs and the service say, over kills. Nothing is kept for later."""

    def __init__(self, served: Served, random_: random.Random) -> None:
        self._served, self._random = served, random_
        self._client: Client | None = None
        self._seq = 0
        self._jobs: list[str] = []
        self._number = 0

    def act(self) -> None:
        """Something happens, and is acknowledged where the sidecar lives so long."""
        try:
            if self._client is None:
                self._client, self._seq = self._served.client(service="etl", host="fab1"), 0
            lines = [self._line(**body) for body in self._some()]
            self._client.send_all(lines)
            self._client.until_acked(self._seq)
        except (OSError, AssertionError):
            self.reconnect()

    def reconnect(self) -> None:
        if self._client is not None:
            self._client.drop()
        self._client = None

    def _line(self, **body: Any) -> dict[str, Any]:
        assert self._client is not None
        self._seq += 1
        return {"ts": time.time_ns() // 1000, **body, "client": self._client.client, "seq": self._seq}

    def _some(self) -> list[dict[str, Any]]:
        chosen = self._random.choice(["begin", "begin", "go on", "end", "end", "at once", "beat", "beat", "nothing"])
        if chosen == "begin" or (chosen in ("go on", "end") and not self._jobs):
            self._number += 1
            self._jobs.append(f"load-{self._number}")
            return [self._progress(self._jobs[-1], 0)]
        if chosen == "go on":
            return [self._progress(self._random.choice(self._jobs), 50)]
        if chosen == "end":
            job = self._jobs.pop(self._random.randrange(len(self._jobs)))
            return [self._progress(job, 100, self._random.choice(["done", "done", "failed"]))]
        if chosen == "at once":
            self._number += 1
            return [self._progress(f"load-{self._number}", 0), self._progress(f"load-{self._number}", 100, "done")]
        if chosen == "beat":
            return [
                {
                    "type": "event",
                    "service": "beat",
                    "level": "info",
                    "message": "",
                    "host": self._random.choice(["a", "b"]),
                }
            ]
        return [{"type": "event", "service": "etl", "level": "info", "message": ""}]

    def _progress(self, job: str, percent: float, status: str = "running") -> dict[str, Any]:
        return {"type": "progress", "service": "etl", "job_id": job, "percent": percent, "status": status}


def transitions(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in events if "schedule" in (one.get("context") or {})]


def key(event: dict[str, Any]) -> Key:
    context = event["context"]
    return context["schedule"], context.get("host", ""), context["kind"], context["times"]


def in_files(events: list[dict[str, Any]]) -> Actions:
    """What each alarm should have come to, by the events: triggered by a warning, resolved by a recovery."""
    for one in events:
        if one["level"] == "warning" or one["context"]["kind"] == RECOVERED:
            host = one["context"].get("host")
            yield one["context"]["schedule"] + (f"/{host}" if host else ""), one["level"] == "warning"


def of_pagerduty(bodies: list[dict[str, Any]]) -> Actions:
    for one in bodies:
        yield one["dedup_key"].removeprefix("schedule/"), one["event_action"] == "trigger"


def of_alertmanager(bodies: list[list[dict[str, Any]]]) -> Actions:
    for one in itertools.chain.from_iterable(bodies):
        yield one["labels"]["schedule"], "startsAt" in one


def actions(found: Actions) -> dict[str, list[bool]]:
    """Key -> whether it was triggered or resolved, in turn. The same twice in a row is once: it is at least once that is promised, and
    one alarm that is triggered for several states. What resolves nothing is left out."""
    turns: dict[str, list[bool]] = defaultdict(list)
    for name, triggered in found:
        if triggered != bool(turns[name] and turns[name][-1]):
            turns[name].append(triggered)
    return {name: turn for name, turn in turns.items() if turn}


def config(pager: AlarmServer, manager: AlarmServer) -> str:
    return CONFIG.format(
        python=sys.executable, alarms=", ".join(ALARMS), pager=pager.url, manager=f"http://127.0.0.1:{manager.port}"
    )


def test_each_transition_is_there_once_over_kills(tmp_path: Path) -> None:
    seed = int(os.environ.get("WAFERMON_TEST_SEED", random.randrange(1 << 30)))
    print(f"WAFERMON_TEST_SEED={seed}")
    random_ = random.Random(seed)
    (tmp_path / "hook.py").write_text(HOOK)
    told, files = tmp_path / "told", tmp_path / "logs" / "wafermon.jsonl"
    with AlarmServer() as pager, AlarmServer() as manager, Served(tmp_path, config(pager, manager)) as served:
        programs = Programs(served, random_)
        for number in range(KILLS + 1):
            # Killed as soon as something more has come into the files, or somewhat later; what is just due then is not there.
            seen = len(transitions(read_lines(files))) if files.exists() else 0
            wanted = seen + random_.randrange(6, 14)
            while not (files.exists() and len(transitions(read_lines(files))) >= wanted):
                programs.act()
                time.sleep(random_.uniform(0, 0.1))
            if number < KILLS:
                time.sleep(random_.choice([0, 0.005, 0.02, 0.1]))
                served.kill()
                programs.reconnect()
                served.start()
        deadline = time.monotonic() + PATIENCE
        while not {one["context"]["kind"] for one in transitions(read_lines(files))} >= EACH:
            assert time.monotonic() < deadline, "a state that did not come about"
            programs.act()
            time.sleep(random_.uniform(0, 0.1))
        # Runs that go on, and hosts, are told as silent in the end; then nothing more is due.
        until(lambda: quiet(served), "a state in which nothing is due")
        expected = {(one["schedule"], one["host"], state, times) for one in served.get("/api/schedules")["schedules"]
                    for state, count in one["times"].items() for times in range(1, count + 1)}  # fmt: skip
        until(
            lambda: expected <= {key(one) for one in transitions(served.stored("wafermon"))}, "all of it in the files"
        )
        alarms = {one for one in expected if one[2] in TOLD}
        until(lambda: told.exists() and alarms <= {key(one) for one in read_lines(told)}, "a hook that was told of all")
        events = transitions(served.stored("wafermon"))
        of_runs = [
            one for one in events if one["context"].get("service") == "etl" or one["context"]["kind"] == RECOVERED
        ]
        until(lambda: actions(of_pagerduty(pager.bodies)) == actions(in_files(of_runs)), "PagerDuty's view")
        until(lambda: actions(of_alertmanager(manager.bodies)) == actions(in_files(events)), "Alertmanager's view")
        wanted_ = {key(one) for one in of_runs if one["level"] == "warning"}
        triggered = [one["payload"]["custom_details"] for one in pager.bodies if one["event_action"] == "trigger"]
        assert {key(one) for one in triggered} == wanted_, "none is lost, and none is told that is not"
    found = [key(one) for one in transitions(served.stored("wafermon"))]
    counted: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for schedule, host, kind, times in found:
        counted[schedule, host, kind].append(times)
    for times_ in counted.values():
        assert sorted(times_) == [*range(1, len(times_) + 1)]
    assert set(found) == expected
    assert {key(one) for one in read_lines(told)} == alarms
    assert "Traceback" not in served.log()


def quiet(served: Served) -> bool:
    found = served.get("/api/schedules")["schedules"]
    runs = [run for one in found for run in one["runs"]]
    return all(run["silent"] and run["too_long"] for run in runs) and all(one["open"] for one in found)
