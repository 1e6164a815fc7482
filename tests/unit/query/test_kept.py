"""What is stored of a trace that is watched is remembered for a while, and shows no gap."""

from __future__ import annotations

import asyncio
from typing import Any

from wafermon.model.position import Position
from wafermon.query import Query
from wafermon.query.query import KEPT, KEPT_SECONDS, without_gap


def trace(*stamps: int, events: int = 0, status: str = "running") -> Any:
    return {
        "trace_id": "t", "part": 1, "status": status, "first": 1, "last": 9, "services": [], "errors": 0,
        "counts": {"event": events or len(stamps)}, "jobs": [], "spans": [], "metrics": [], "progress": [], "resources": [],
        "events": [{"ts": ts, "client": "c", "seq": ts} for ts in stamps], "series": [], "left_out": {"spans": 0},
    }  # fmt: skip


def test_what_may_have_a_gap_is_left_out() -> None:
    assert without_gap(trace(1, 2), trace(8, 9, events=9))["events"] == []


def test_what_overlaps_or_is_all_there_is_stays() -> None:
    stored = trace(1, 2, 3)
    assert without_gap(stored, trace(3, 4, events=9))["events"] == stored["events"]
    assert without_gap(stored, trace(8, 9, events=5))["events"] == stored["events"]
    assert without_gap(stored, trace(events=9))["events"] == stored["events"]


class Place:
    """A stored place that counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def trace(self, trace_id: str, messages: int) -> Any:
        self.asked += 1
        return trace(1, 2)


class Live:
    end = Position("j", 1, 0)

    def __init__(self) -> None:
        self.status = "running"

    def has_read(self, until: Position) -> bool:
        return True

    def has_stored(self, backend: str, until: Position) -> bool:
        return True

    async def trace(self, trace_id: str, kinds: object, messages: int, slices: object) -> Any:
        return trace(2, 3, events=3, status=self.status)


class Asked:
    def __init__(self) -> None:
        self.now, self.place, self.live = 10_000_000, Place(), Live()
        live: Any = self.live
        self.query = Query(lambda: live, lambda: {"history": self.place}, lambda: self.now, asyncio.sleep)

    def ask(self, trace_id: str = "t", *, kept: bool = True) -> Any:
        return asyncio.run(self.query.trace(trace_id, 100, kept=kept))


def test_who_asks_again_and_again_has_it_read_seldom() -> None:
    asked = Asked()
    for _ in range(5):
        answer = asked.ask()
        assert [event["ts"] for event in answer.found["events"]] == [1, 2, 3]
        assert answer.sources == ["live", "history"]
    assert asked.place.asked == 1
    asked.now += int(KEPT_SECONDS * 1e6)
    asked.ask()
    assert asked.place.asked == 2


def test_others_and_traces_that_are_over_are_answered_from_what_is_stored_now() -> None:
    asked = Asked()
    asked.ask()
    asked.ask(kept=False)
    asked.live.status = "done"
    asked.ask()
    asked.ask()
    assert asked.place.asked == 4


def test_few_traces_are_remembered() -> None:
    asked = Asked()
    for number in range(KEPT * 2):
        asked.ask(f"t{number}")
    assert len(asked.query._traces) == KEPT
