"""A sidecar that is killed at each transition of a schedule, one after the other: each is in the files once, and each alarm comes to a real
receiver under one id. Where `test_schedules_crash.py` draws what happens, this goes through all states.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from alarm_server import AlarmServer
from daemon import read_lines, until
from served import Served

from wafermon.model.schedules import (
    ALARMS,
    DONE,
    FAILED,
    LATE,
    NOT_STARTED,
    OVERLAPPING,
    PAUSED,
    RECOVERED,
    RUNNING,
    SILENT,
    STATES,
    TOLD,
    TOO_FAST,
    TOO_LONG,
    WAITING,
)

CONFIG = """
listen: ["tcp:{port}:interface=127.0.0.1"{listen}]
http: tcp:{limits}:interface=127.0.0.1
reload: signal
journal: {{dir: journal, segment_bytes: 64KiB, max_bytes: 16MiB, spill_dir: spill}}
correlation: {{after_start: 200ms}}
backends:
  files: {{plugin: filesystem, path: "logs/{{service}}.jsonl", batch: {{age: 20ms}}}}
alerts:
  hook: {{plugin: webhook, url: "URL", at_most: 0, on: [ON]}}
schedules:
  load: {{match: {{job: "load-*"}}, every: 1h, at_least: 200ms, at_most: 1500ms, silent: 700ms}}
  sync: {{match: {{job: "sync-*"}}, every: 1s, start_grace: 0}}
"""
ROUNDS = max(1, int(os.environ.get("WAFERMON_TEST_ROUNDS", "0")) // 12)
Key = tuple[str, str, int]


class Kill(Enum):
    """When the sidecar is killed in a step."""

    ACKED = "once what the programs said is acknowledged, or at once"
    STORED = "once the transition is in the files"
    SENT = "once the receiver has it"


class Step(NamedTuple):
    """What the programs say (job, percent, status), and what comes of it: the kind of the event, which is the state as well unless that
    is named. A step without an event is a state that is looked at."""

    schedule: str
    says: Sequence[tuple[str, float, str]]
    kind: str
    state: str = ""


def steps(number: int) -> list[Step]:
    """In the round of that number."""
    one, two, three, four, five = (f"load-{number}-{n}" for n in range(1, 6))
    sync = f"sync-{number}"
    first = [Step("load", [], "", WAITING)] if number == 0 else []
    return [
        *first,
        Step("sync", [], NOT_STARTED),
        Step("sync", [(sync, 0, "running")], LATE),
        Step("load", [(one, 0, "running")], RUNNING),
        Step("load", [], SILENT),
        Step("load", [], TOO_LONG),
        Step("load", [(one, 100, "done")], DONE),
        Step("load", [], RECOVERED, DONE),
        Step("load", [(two, 0, "running"), (two, 100, "done")], TOO_FAST),
        Step("load", [(three, 0, "running"), (three, 50, "failed")], FAILED),
        Step("load", [(four, 0, "running"), (five, 0, "running")], OVERLAPPING, "*"),
        Step("load", [(four, 100, "done"), (five, 100, "done")], RECOVERED, DONE),
        Step("sync", [(sync, 100, "done")], DONE, "*"),
    ]


def test_all_states_are_gone_through() -> None:
    assert {step.kind or step.state for step in steps(0)} == {*STATES} - {PAUSED}


class Walk:
    """Goes through the steps, with a kill in each."""

    def __init__(self, served: Served, server: AlarmServer) -> None:
        self._served, self._server = served, server
        self._wanted: dict[tuple[str, str], int] = {}
        """How often each kind was waited for."""

    def events(self) -> list[dict[str, Any]]:
        path = self._served.directory / "logs" / "wafermon.jsonl"
        found = read_lines(path) if path.exists() else []
        return [one for one in found if "schedule" in (one.get("context") or {})]

    def states(self, schedule: str) -> set[str]:
        """That which is shown, and what else is not as it should be."""
        [found] = self._served.get(f"/api/schedules?name={schedule}")["schedules"]
        return {found["state"], *(one["state"] for one in found["open"])}

    def take(self, step: Step, kill: Kill) -> None:
        self._say(step.says)
        what = step.schedule, step.kind
        times = self._wanted[what] = self._wanted.get(what, 0) + 1 if step.kind else 0
        key = *what, times
        if step.kind and kill is not Kill.ACKED:
            until(lambda: key in map(key_of, self.events()), f"{key} in the files")
            if kill is Kill.SENT and step.kind in TOLD:
                until(lambda: key in self._told(), f"{key} at the receiver")
        self._served.kill()
        self._served.start()
        until(lambda: self._served.get("/api/schedules")["total"] == 2, "the schedules")
        if step.kind:
            until(lambda: key in map(key_of, self.events()), f"{key} in the files after a kill")
        if step.state != "*":
            until(lambda: (step.state or step.kind) in self.states(step.schedule), f"the state of {key}")

    def _say(self, says: Sequence[tuple[str, float, str]]) -> None:
        if not says:
            return
        client, now = self._served.client(), time.time_ns() // 1000
        client.send_all(
            {"ts": now + seq, "type": "progress", "service": "etl", "host": "fab1", "job_id": job, "percent": percent, "status": status,
             "client": client.client, "seq": seq}
            for seq, (job, percent, status) in enumerate(says, 1)
        )  # fmt: skip
        client.until_acked(len(says))
        client.drop()

    def _told(self) -> set[Key]:
        return {key_of(one["event"]) for one in [*self._server.bodies]}

    def check(self) -> None:
        """Whatever was told is in the files once, and each alarm, with what resolves it, at the receiver under one id."""
        listed = self._served.get("/api/schedules")["schedules"]
        expected = {(one["schedule"], kind, times) for one in listed for kind, count in one["times"].items()
                    for times in range(1, count + 1)}  # fmt: skip
        until(lambda: expected <= set(map(key_of, self.events())), "all transitions in the files")
        found = [*map(key_of, self.events())]
        assert sorted(found) == sorted(expected), "one is lost, or there twice"
        alarms = {key for key in expected if key[1] in TOLD}
        until(lambda: alarms <= self._told(), "all alarms at the receiver")
        ids = {(one["id"], key_of(one["event"])) for one in self._server.bodies}
        assert {key for _, key in ids} == alarms, "one was told that is not"
        assert len(ids) == len(alarms) == len({one for one, _ in ids}), "an alarm has one id, whenever it is sent"
        assert {one["action"] for one in self._server.bodies if one["kind"] == RECOVERED} == {"resolve"}
        assert {one["kind"] for one in self._server.bodies} == {*ALARMS, RECOVERED}


def key_of(event: dict[str, Any]) -> Key:
    context = event["context"]
    return context["schedule"], context["kind"], context["times"]


def test_each_state_is_there_once_over_a_kill_at_each_transition(tmp_path: Path) -> None:
    kills = [*Kill]
    with AlarmServer() as server:
        config = CONFIG.replace("URL", server.url).replace("ON", ", ".join(TOLD))
        with Served(tmp_path, config) as served:
            walk = Walk(served, server)
            until(lambda: served.get("/api/schedules")["total"] == 2, "the schedules")
            for number in range(ROUNDS):
                for place, step in enumerate(steps(number)):
                    walk.take(step, kills[(place + number) % len(kills)])
            walk.check()
            assert "Traceback" not in served.log()
