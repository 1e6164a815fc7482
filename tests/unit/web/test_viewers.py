"""What viewers are told of changes, and what a slow one costs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, cast

from wafermon.journal import Group
from wafermon.model.blocks import Block
from wafermon.web.viewers import COLLECTED, TRACES, Changes, Viewer, event


class Told:
    """A group of the journal, as far as it is looked at."""

    def __init__(self, *lines: dict[str, Any]) -> None:
        raw = b"".join(json.dumps({"v": 2, "ts": 1_795_908_042_368_637, **line}).encode() + b"\n" for line in lines)
        self.blocks = [("", Block.parse(raw))]


def group(*traces: str, service: str = "s") -> Group:
    return cast(Group, Told(*({"type": "event", "service": service, "level": "info", "message": "x", "trace_id": one} for one in traces)))  # fmt: skip


def progress_of(trace: str, percent: float) -> dict[str, Any]:
    return {
        "job_id": trace, "trace_id": trace, "percent": percent, "status": "", "state": "running", "service": "s", "services": ["s"],
        "errors": 0, "first": 1, "last_progress": 2, "kind": "x", "eta": None, "reached": [None] * 20,
    }  # fmt: skip


class Jobs:
    """As they are now."""

    def __init__(self) -> None:
        self.percent: dict[str, float] = {}

    def __call__(self, traces: Iterable[str]) -> Any:
        return [progress_of(one, self.percent[one]) for one in traces if one in self.percent]


def told(data: bytes) -> Any:
    head, _, rest = data.decode().partition("\n")
    assert head == "event: changes"
    return json.loads(rest.removeprefix("data: "))


def test_nothing_is_told_where_nothing_changed() -> None:
    assert Changes().step(1, Jobs()) == b""


def test_a_change_is_told_and_looked_at_once_more_in_the_step_after() -> None:
    """A message comes here before it is correlated, perhaps."""
    changes, jobs = Changes(), Jobs()
    jobs.percent["a"] = 10
    changes.see(group("a", "b", "a"))
    first = told(changes.step(5, jobs))
    assert (first["now"], first["traces"], first["more"]) == (5, ["a", "b"], False)
    assert [(job["job_id"], job["percent"]) for job in first["jobs"]] == [("a", 10)]
    assert "reached" not in first["jobs"][0]
    jobs.percent["a"] = 20
    second = told(changes.step(6, jobs))
    assert [(job["job_id"], job["percent"]) for job in second["jobs"]] == [("a", 20)]
    assert changes.step(7, jobs) == b""


def test_a_job_that_is_as_it_was_told_is_not_told_again() -> None:
    changes, jobs = Changes(), Jobs()
    jobs.percent["a"] = 10
    changes.see(group("a"))
    changes.step(1, jobs)
    assert told(changes.step(2, jobs))["jobs"] == []


def test_what_the_sidecar_says_itself_of_a_trace_is_a_change() -> None:
    changes = Changes()
    changes.see(group("a", service="wafermon"))
    assert told(changes.step(1, Jobs()))["traces"] == ["a"]


def test_a_step_is_bounded_and_says_so() -> None:
    changes = Changes()
    for number in range(COLLECTED + 500):
        changes.see(group(f"t{number}"))
    step = told(changes.step(1, Jobs()))
    assert (len(step["traces"]), step["more"]) == (TRACES, True)
    assert len(changes._before) <= COLLECTED + 1


def test_a_viewer_that_does_not_read_costs_nothing_and_is_told_that_it_missed_something() -> None:
    written: list[bytes] = []
    viewer = Viewer(written.append)
    viewer.tell(b"1")
    viewer.pauseProducing()
    for _ in range(1_000):
        viewer.tell(b"x" * 1_000)
    assert (written, viewer.missed) == ([b"1"], 1_000)
    viewer.resumeProducing()
    viewer.tell(b"2")
    assert written == [b"1", event(b"missed", b'{"steps":1000}') + b"2"]
    assert viewer.missed == 0
