"""Schedules over nights in which clocks are set, over a sidecar's absence, and over a date that was wrong."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from expected import D, H, M, S, World, date

BERLIN = "Europe/Berlin"
NIGHTLY: dict[str, Any] = {"match": {"job": "load-*"}, "cron": "30 2 * * *", "timezone": BERLIN, "start_grace": "10m"}


def dues(world: World) -> list[int]:
    return [event["due"] for event in world.told() if event["kind"] == "not_started"]


def test_two_nights_in_which_clocks_are_set_and_a_leap_year() -> None:
    """2028 is a leap year. Each night one due time, at most one; and each comes once."""
    world = World({"nightly": NIGHTLY, "leap": {"match": {"job": "leap"}, "cron": "0 12 29 2 *"}}, "2028-01-01 00:00")
    world.wait(366 * D, H)
    events = [event for event in world.events if event["schedule"] == "nightly"]
    found = [event["due"] for event in events]
    assert len(found) == len(set(found)) == 366
    gaps = {after - before for before, after in pairwise(found)}
    # 02:30 is not there on March 26, so that it comes at 03:00; the hour from 02:00 on October 29 comes twice.
    assert gaps == {D, D - H + 30 * M, D - 30 * M, D + H}
    assert date("2028-03-26 03:00", BERLIN) in found
    assert date("2028-10-29 02:30", BERLIN) in found
    assert [event["due"] for event in world.events if event["schedule"] == "leap"] == [date("2028-02-29 12:00")]


@pytest.mark.parametrize("night", ["2026-03-29", "2026-10-25"])
def test_a_job_that_runs_in_such_a_night(night: str) -> None:
    """The host's cron starts it at the same moment."""
    world = World({"nightly": NIGHTLY}, f"{night} 00:00")
    world.until("2026-03-29 03:00" if night == "2026-03-29" else "2026-10-25 02:30", BERLIN)
    world.run("load-1", H)
    world.wait(12 * H)
    assert world.said() == ["running", "done"]


def test_each_quarter_of_an_hour_of_such_a_night() -> None:
    quarter = {"match": {"job": "sync-*"}, "cron": "*/15 * * * *", "timezone": BERLIN, "start_grace": "1m"}
    for night, hours in (("2026-03-29", 23), ("2026-10-25", 25)):
        world = World({"sync": quarter}, "2026-01-01 00:00")
        world.now = date(f"{night} 00:00", BERLIN)
        world.started(0)
        world.configure({})
        world.configure({"sync": quarter})
        world.until(f"{night} 23:59", BERLIN)
        assert len(dues(world)) == hours * 4 - 1


def test_one_due_time_while_the_sidecar_was_away() -> None:
    """The run came while it was away; what the SDK kept comes after the start."""
    world = World({"nightly": {**NIGHTLY, "at_least": "30m", "at_most": "2h"}})
    world.until("2026-11-27 01:00", BERLIN)
    world.away(4 * H)
    world.wait(30 * S)
    started = date("2026-11-27 02:31", BERLIN)
    world.group(
        {"type": "progress", "job_id": "load-27", "trace_id": "t", "percent": 0, "service": "etl", "ts": started, "host": "a"},
        {"type": "progress", "job_id": "load-27", "trace_id": "t", "percent": 100, "service": "etl", "status": "done",
         "ts": started + H, "host": "a"},
    )  # fmt: skip
    world.wait(2 * H)
    running, done = world.events
    assert (running["kind"], running["due"], running["started"]) == (
        "running",
        date("2026-11-27 02:30", BERLIN),
        started,
    )
    assert (done["kind"], done["took"]) == ("done", H)


def test_a_run_that_came_too_late_while_the_sidecar_was_away() -> None:
    world = World({"nightly": NIGHTLY})
    world.until("2026-11-27 01:00", BERLIN)
    world.away(4 * H)
    world.progress("load-27", 0, ts=date("2026-11-27 02:50", BERLIN))
    [event] = world.told()
    assert (event["kind"], event["late"]) == ("late", 20 * M)
    world.wait(10 * M)
    assert world.said() == []


def test_nothing_came_while_the_sidecar_was_away() -> None:
    world = World({"nightly": NIGHTLY})
    world.until("2026-11-27 01:00", BERLIN)
    world.away(4 * H)
    world.wait(59 * S)
    assert world.said() == []
    world.wait(S)
    [event] = world.told()
    assert (event["kind"], event["due"], event["ts"]) == ("not_started", date("2026-11-27 02:30", BERLIN), world.now)
    assert "older" not in event


def test_the_last_due_time_of_an_absence_is_told_and_the_older_ones_with_it() -> None:
    world = World({"nightly": NIGHTLY})
    world.until("2026-11-27 01:00", BERLIN)
    world.away(5 * D)
    world.wait(30 * S)
    world.progress("load-29", 100, "done", ts=date("2026-11-29 02:30", BERLIN))
    assert world.said() == ["running", "done"]
    world.wait(30 * S)
    [event] = world.told()
    assert event["due"] == date("2026-12-01 02:30", BERLIN)
    assert (event["older"], event["first_due"]) == (3, date("2026-11-27 02:30", BERLIN))
    assert event["message"] == (
        "schedule nightly: nothing has started that was due 2026-12-01 02:30:00 CET, nor what was due at 3 times since "
        "2026-11-27 02:30:00 CET"
    )
    world.until("2026-12-02 02:30", BERLIN)
    world.run("load-2", H)
    assert world.said() == ["running", "recovered", "done"]


def test_the_last_one_was_kept_and_older_ones_were_not() -> None:
    world = World({"nightly": NIGHTLY})
    world.until("2026-11-27 01:00", BERLIN)
    world.away(3 * D)
    world.progress("load-29", 0, ts=date("2026-11-29 02:30", BERLIN))
    world.wait(M)
    assert [event["kind"] for event in world.events] == ["running", "not_started", "recovered"]
    assert (world.events[1]["due"], world.events[1]["older"]) == (date("2026-11-28 02:30", BERLIN), 1)
    assert world.state("nightly")["state"] == "running"


def test_a_long_absence_of_what_is_due_each_minute() -> None:
    world = World({"sync": {"match": {"job": "x"}, "cron": "* * * * *", "start_grace": "10s"}})
    world.away(30 * D)
    world.wait(M)
    [event] = world.told()
    assert event["due"] == date("2026-12-27 00:00")
    assert event["older"] == 99
    assert "at more than 99 times" in event["message"]
    world.wait(70 * S)
    assert len(world.told()) == 2


def test_a_due_time_whose_grace_is_not_over_when_the_sidecar_is_back() -> None:
    world = World({"nightly": NIGHTLY})
    world.until("2026-11-27 01:00", BERLIN)
    world.away(95 * M)
    world.until("2026-11-27 02:39:59", BERLIN)
    assert world.said() == []
    world.wait(S)
    assert world.said() == ["not_started"]


def test_a_run_under_way_while_the_sidecar_is_away() -> None:
    """Neither silence nor length is judged before the clients could say what they kept."""
    world = World({"nightly": {**NIGHTLY, "silent": "15m", "at_most": "2h"}})
    world.until("2026-11-27 02:30", BERLIN)
    world.progress("load-27", 0, host="a")
    world.wait(M)
    world.away(4 * H)
    world.wait(50 * S)
    world.progress("load-27", 100, "done", ts=date("2026-11-27 03:30", BERLIN), host="a")
    assert [event["kind"] for event in world.events] == ["running", "done"]
    assert world.events[-1]["took"] == H


def test_a_run_under_way_of_which_nothing_comes_after_the_absence() -> None:
    world = World({"nightly": {**NIGHTLY, "silent": "15m", "at_most": "2h"}})
    world.until("2026-11-27 02:30", BERLIN)
    world.progress("load-27", 0)
    world.wait(M)
    world.away(4 * H)
    world.wait(M)
    assert world.said() == ["running", "too_long", "silent"]


def test_a_service_is_heard_after_the_absence() -> None:
    world = World({"intake": {"match": {"service": "etl"}, "every": "10s", "start_grace": 0}})
    world.progress("x", ts=world.now)
    world.away(H)
    world.wait(59 * S)
    world.progress("x", ts=world.now)
    world.wait(9 * S)
    assert world.said() == ["running"]
    world.wait(S)
    assert world.said() == ["silent"]


def test_starts_one_after_the_other() -> None:
    """Each begins the grace anew."""
    world = World({"nightly": NIGHTLY})
    world.until("2026-11-27 02:39", BERLIN)
    for _ in range(10):
        world.away(S)
        world.wait(30 * S)
    assert world.said() == []
    world.wait(M)
    assert world.said() == ["not_started"]


def test_the_time_after_a_start_is_the_config_s() -> None:
    world = World({"nightly": NIGHTLY}, after_start=300)
    world.until("2026-11-27 01:00", BERLIN)
    world.away(4 * H)
    world.wait(5 * M - 1)
    assert world.said() == []
    world.wait(1)
    assert world.said() == ["not_started"]


def test_a_date_that_jumps_forward_is_as_an_absence() -> None:
    """The machine slept: no time that is measured passed, but the date is another."""
    world = World({"nightly": NIGHTLY})
    world.until("2026-11-27 01:00", BERLIN)
    world.now += 4 * H
    world.progress("other", service="x")
    world.wait(50 * S)
    assert world.said() == []
    world.wait(10 * S)
    assert dues(world) == [date("2026-11-27 02:30", BERLIN)]


def test_a_date_that_was_wrong_by_a_year_and_is_put_right() -> None:
    world = World({"nightly": NIGHTLY, "paused": NIGHTLY})
    world.ask("paused", "paused", until=date("2026-11-28 12:00"))
    world.until("2026-11-27 01:00", BERLIN)
    world.now += 365 * D
    world.progress("other", service="x")
    world.wait(10 * S)
    world.now -= 365 * D
    world.progress("other", service="x")
    assert world.state("nightly")["next"] == date("2026-11-27 02:30", BERLIN)
    world.until("2026-11-27 02:30", BERLIN)
    world.run("load-27", H)
    world.wait(H)
    assert [event["kind"] for event in world.events if event["schedule"] == "nightly"] == ["running", "done"]


def test_a_date_that_goes_back_an_hour() -> None:
    """What was due is due again: it can not be known which of the two was right."""
    world = World({"nightly": NIGHTLY})
    world.until("2026-11-27 02:30", BERLIN)
    world.run("load-27", 20 * M)
    world.now -= H
    world.progress("other", service="x")
    world.until("2026-11-27 02:30", BERLIN)
    world.run("load-27b", 20 * M)
    assert world.said() == ["running", "done"] * 2


def test_a_date_that_is_slewed() -> None:
    """By a second in each hour, forwards and back: each due time is told once."""
    world = World({"nightly": NIGHTLY})
    for step in range(10 * 24):
        world.now += S if step % 48 < 24 else -S
        world.wait(H)
        world.progress("other", service="x")
    found = dues(world)
    assert len(found) == len(set(found)) == 10
