"""Schedules in the follower that correlates: a start is journalled first, a date that is set while nothing comes, and a crash."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from expected import rules
from inline import BEGIN, World

from wafermon.correlation import Correlator, Engine, key_of
from wafermon.correlation.correlator import ADVANCE_SECONDS
from wafermon.correlation.schedules import said
from wafermon.model.messages import OWN_SERVICE, Event

EACH = {"match": {"job": "a-*"}, "every": "10m", "start_grace": 0}
HOURLY = {"match": {"job": "b-*"}, "cron": "0 * * * *", "start_grace": "5m"}


class Scene:
    """A correlator with schedules; a second one in the same directory is the same sidecar after a restart."""

    def __init__(self, directory: Path, schedules: Mapping[str, Mapping[str, Any]]) -> None:
        self.world = World(directory)
        self.wall = 0.0
        """By how much the date was set."""
        journal = self.world.journal
        journal._clock._wall = lambda: BEGIN + self.world.loop.seconds() + self.wall
        pool = cast(Any, self.world.pool)
        self.correlator = Correlator(
            Engine(rules(schedules), journal.id), journal, journal.dir / "correlation", pool, self.world.loop
        )
        if schedules:
            self.correlator.tell_began()
        self.world.start(self.correlator)
        self.world.loop.pass_time(ADVANCE_SECONDS)

    def own(self) -> list[tuple[str, str]]:
        """Kind and schedule of what was journalled; each transition is there once."""
        blocks = [block for group in self.world.groups() for _, block in group.blocks]
        events = [
            one for block in blocks for one in block.messages if one.service == OWN_SERVICE and isinstance(one, Event)
        ]
        keys = [key for one in events if (key := key_of(one)) is not None]
        assert len(keys) == len(set(keys))
        found: list[Any] = [one.context for one in events]
        return [(context["kind"], context.get("schedule", "")) for context in found]

    def crash(self) -> None:
        self.world.journal._disk.close()
        self.world.forget()


def test_a_start_is_journalled_before_all_else_with_how_long_it_was_away(tmp_path: Path) -> None:
    first = Scene(tmp_path, {"each": EACH})
    first.world.put({"type": "progress", "job_id": "a-1", "trace_id": "a-1", "percent": 1})
    first.world.loop.pass_time(1)
    first.crash()
    second = Scene(tmp_path, {"each": EACH})
    own = [one for group in second.world.groups() for _, block in group.blocks for one in block.messages]
    gaps = [gap for one in own if (gap := said.gap_of(one)) is not None]
    assert len(gaps) == 2
    assert gaps[0] == 0
    assert second.own()[:1] == [("started", "")]
    second.world.stop()


def test_each_transition_is_journalled_once_over_a_crash(tmp_path: Path) -> None:
    first = Scene(tmp_path, {"each": EACH})
    first.world.loop.pass_time(700)
    assert first.own() == [("started", ""), ("not_started", "each")]
    first.crash()
    second = Scene(tmp_path, {"each": EACH})
    second.world.loop.pass_time(100)
    assert second.own() == [("started", ""), ("not_started", "each"), ("started", "")]
    second.world.stop()


def test_a_schedule_that_is_gone_after_a_crash_is_let_go_of_once(tmp_path: Path) -> None:
    first = Scene(tmp_path, {"each": EACH})
    first.world.loop.pass_time(700)
    first.crash()
    second = Scene(tmp_path, {})
    second.world.loop.pass_time(100)
    assert second.own()[-1] == ("recovered", "each")
    second.crash()
    third = Scene(tmp_path, {})
    third.world.loop.pass_time(100)
    assert third.own().count(("recovered", "each")) == 1
    third.world.stop()


def test_a_date_that_is_set_while_nothing_comes(tmp_path: Path) -> None:
    """22:13:20 is the date at first; the hour that is due then is found by the date as it is now."""
    scene = Scene(tmp_path, {"hourly": HOURLY})
    scene.world.loop.pass_time(60)
    scene.wall = 3_600
    scene.world.loop.pass_time(10)
    assert scene.own() == [("started", ""), ("clock_set", "")]
    scene.world.loop.pass_time(59)
    assert scene.own()[2:] == [("not_started", "hourly")]
    scene.world.loop.pass_time(3_600)
    assert scene.own()[2:] == [("not_started", "hourly")] * 2
    scene.world.stop()


def test_a_date_that_goes_on_as_it_was_is_not_journalled(tmp_path: Path) -> None:
    scene = Scene(tmp_path, {"hourly": HOURLY})
    scene.world.loop.pass_time(1_000)
    assert scene.own() == [("started", "")]
    scene.world.stop()


def test_where_nothing_goes_by_the_date_it_may_be_set(tmp_path: Path) -> None:
    scene = Scene(tmp_path, {"each": EACH})
    scene.wall = 3_600
    scene.world.loop.pass_time(100)
    assert scene.own() == [("started", "")]
    scene.world.stop()


def test_what_is_due_all_at_once_is_told_part_by_part(tmp_path: Path) -> None:
    many = {f"each-{n}": EACH for n in range(1_000)}
    scene = Scene(tmp_path, many)
    scene.world.loop.pass_time(610)
    own = scene.own()
    assert own.count(("started", "")) == 1
    assert sorted(own[1:]) == sorted(("not_started", name) for name in many)
    scene.world.stop()


def test_a_pause_is_journalled_and_answered_then(tmp_path: Path) -> None:
    scene = Scene(tmp_path, {"each": EACH})
    done: list[None] = []
    scene.correlator.ask("paused", "each", 0, "anna").addCallback(done.append)
    assert done == []
    scene.world.loop.pass_time(1)
    assert done == [None]
    assert scene.correlator.engine.schedules.records()[0]["state"] == "paused"
    scene.world.loop.pass_time(3_600)
    assert scene.own() == [("started", ""), ("paused", "each")]
    scene.crash()
    again = Scene(tmp_path, {"each": EACH})
    assert again.correlator.engine.schedules.records()[0]["state"] == "paused"
    again.world.stop()
