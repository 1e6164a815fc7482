"""What should start, go on and end in time: each state, and what is over when."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from expected import D, H, M, S, World, date, rules

NIGHTLY: dict[str, Any] = {
    "match": {"job": "load-*", "service": "etl"}, "cron": "30 2 * * *", "start_grace": "5m", "early": "5m",
    "at_least": "10m", "at_most": "3h", "silent": "15m",
}  # fmt: skip


def nightly(**more: Any) -> World:
    return World({"nightly": {**NIGHTLY, **more}})


def test_a_night_as_it_should_be() -> None:
    world = nightly()
    world.until("2026-11-27 02:30")
    world.run("load-27", 14 * M)
    assert world.said() == ["running", "done"]
    assert world.state("nightly")["state"] == "done"
    assert world.state("nightly")["next"] == date("2026-11-28 02:30")
    world.until("2026-11-28 02:31")
    world.run("load-28", 14 * M)
    running, done = world.events
    assert (running["due"], running["run"], running["times"]) == (date("2026-11-28 02:30"), "load-28", 2)
    assert (done["due"], done["took"], done["times"]) == (date("2026-11-28 02:30"), 14 * M, 2)
    assert running["message"] == "schedule nightly: run load-28 has started"


def test_a_run_of_a_schedule_that_is_gone_is_none_of_another() -> None:
    world = nightly()
    world.until("2026-11-27 02:30")
    world.progress("load-27", 10)
    world.progress("other-1", 10)
    world.configure({"other": {"match": {"job": "other-*"}, "every": "1h"}})
    world.told()
    world.progress("load-27", 20)
    world.progress("other-1", 20)
    assert world.said() == ["running"]
    assert world.state("other")["state"] == "running"


def test_the_program_of_a_job_that_no_schedule_knows_is_gone_without_a_word() -> None:
    world = nightly()
    world.connection("came", "c7")
    world.reported("other-1", 10)
    world.connection("went", "c7")
    world.wait(H)
    assert world.said() == []


def test_what_does_not_start_is_told_once_and_is_late_when_it_does() -> None:
    world = nightly()
    world.until("2026-11-27 02:34:59")
    assert world.said() == []
    world.until("2026-11-27 02:36:00")
    [event] = world.told()
    assert event["kind"] == "not_started"
    assert event["ts"] == date("2026-11-27 02:35:00")
    assert event["due"] == date("2026-11-27 02:30")
    assert event["message"] == "schedule nightly: nothing has started that was due 2026-11-27 02:30:00 UTC"
    world.until("2026-11-27 02:50")
    assert world.said() == []
    assert world.state("nightly")["state"] == "not_started"
    world.progress("load-27", 0)
    [event] = world.told()
    assert (event["kind"], event["run"], event["late"]) == ("late", "load-27", 20 * M)
    assert world.state("nightly")["state"] == "late"
    world.wait(12 * M)
    world.progress("load-27", 100, "done")
    assert [event["kind"] for event in world.events] == ["done", "recovered"]
    [event] = world.told()
    assert (event["level"], event["after"], event["since"]) == (
        "info",
        ["not_started", "late"],
        date("2026-11-27 02:35:00"),
    )
    assert world.state("nightly")["state"] == "done"


def test_a_due_time_that_nothing_kept_is_over_when_the_next_run_starts() -> None:
    world = nightly()
    world.until("2026-11-28 02:29")
    assert world.said() == ["not_started"]
    world.progress("load-28", 0)
    assert world.said() == ["running", "recovered"]
    assert world.state("nightly")["next"] == date("2026-11-29 02:30")


def test_each_due_time_is_told_by_itself() -> None:
    world = nightly()
    world.until("2026-11-30 00:00")
    told = world.told()
    assert [(event["kind"], event["due"], event["times"]) for event in told] == [
        ("not_started", date(f"2026-11-{day} 02:30"), times) for times, day in enumerate((27, 28, 29), 1)
    ]


def test_a_run_that_is_early_counts_for_the_next_due_time() -> None:
    world = nightly()
    world.until("2026-11-27 02:26")
    world.run("load-27", 12 * M)
    world.until("2026-11-27 23:00")
    assert world.said() == ["running", "done"]


def test_a_run_that_is_too_early_counts_for_none() -> None:
    world = nightly()
    world.until("2026-11-27 02:24")
    world.run("load-27", 12 * M)
    assert world.said() == ["running", "not_started", "done"]
    assert world.state("nightly")["state"] == "not_started"


def test_a_further_run_between_two_due_times_is_just_a_run() -> None:
    world = nightly()
    world.until("2026-11-27 02:30")
    world.run("load-27", 12 * M)
    world.until("2026-11-27 12:00")
    world.run("load-27b", 12 * M)
    assert "due" not in world.events[-1]
    assert world.said() == ["running", "done"] * 2


def test_a_run_that_takes_too_long() -> None:
    world = nightly(silent=0)
    world.until("2026-11-27 02:30")
    world.progress("load-27", 0)
    world.wait(3 * H + M)
    assert world.said() == ["running", "too_long"]
    world.wait(H)
    assert world.state("nightly")["state"] == "too_long"
    world.progress("load-27", 100, "done")
    assert world.said() == ["done", "recovered"]


def test_progress_moves_the_end_of_silence() -> None:
    world = nightly()
    world.until("2026-11-27 02:30")
    for percent in range(8):
        world.progress("load-27", percent)
        world.wait(14 * M)
    assert world.said() == ["running"]
    world.wait(M + 1)
    [event] = world.told()
    assert (event["kind"], event["percent"], event["ts"]) == ("silent", 7, date("2026-11-27 04:23"))
    world.progress("load-27", 7)
    assert world.said() == ["recovered"]
    assert world.state("nightly")["state"] == "running"
    world.wait(15 * M)
    assert world.said() == ["silent"]
    world.progress("load-27", 100, "done")
    assert world.said() == ["recovered", "done"]


def test_a_run_that_was_too_quick_to_be_true() -> None:
    world = nightly()
    world.until("2026-11-27 02:30")
    world.run("load-27", 2 * S)
    [event] = world.told()
    assert (event["kind"], event["took"]) == ("too_fast", 2 * S)
    assert event["message"] == "schedule nightly: run load-27 was done after 2s, sooner than 10m"
    world.until("2026-11-28 02:30")
    world.run("load-28", 12 * M)
    assert world.said() == ["running", "done", "recovered"]


def test_a_run_of_one_message_has_no_length() -> None:
    world = nightly()
    world.until("2026-11-27 02:30")
    world.progress("load-27", 100, "done")
    assert world.said() == ["running", "done"]


def test_a_run_that_fails_and_the_next_one_that_does_not() -> None:
    world = nightly()
    world.until("2026-11-27 02:30")
    world.run("load-27", 12 * M, "failed")
    [event] = world.told()
    assert (event["kind"], event["failures"]) == ("failed", 1)
    assert world.state("nightly")["state"] == "failed"
    world.until("2026-11-28 02:30")
    world.run("load-28", 12 * M)
    assert world.said() == ["running", "done", "recovered"]
    assert world.state("nightly")["failures"] == 0


def test_so_many_failures_in_a_row_as_are_asked_for() -> None:
    world = nightly(failures=3)
    for day in (27, 28, 29, 30):
        world.until(f"2026-11-{day} 02:30")
        world.run(f"load-{day}", 12 * M, "failed")
    events = [event for event in world.events if event["kind"] == "failed"]
    assert [(event["level"], event["failures"]) for event in events] == [
        ("info", 1), ("info", 2), ("warning", 3), ("warning", 4),
    ]  # fmt: skip
    assert events[-1]["message"].endswith("run load-30 has failed, 4 in a row")
    world.said()
    world.until("2026-12-01 02:30")
    world.run("load-1", 12 * M)
    assert world.said() == ["running", "done", "recovered"]


def test_a_run_that_is_cancelled_is_neither() -> None:
    world = nightly()
    world.until("2026-11-27 02:30")
    world.run("load-27", 20 * S, "cancelled")
    assert (world.events[-1]["kind"], world.events[-1]["status"]) == ("done", "cancelled")
    assert world.said() == ["running", "done"]


def test_what_was_told_of_a_run_that_fails_is_over_with_the_next_good_one() -> None:
    world = nightly(failures=2)
    world.until("2026-11-27 02:40")
    world.run("load-27", 10 * M, "failed")
    assert world.said() == ["not_started", "late", "failed"]
    assert world.state("nightly")["state"] == "late"
    world.until("2026-11-28 02:30")
    world.run("load-28", 12 * M)
    assert world.said() == ["running", "done", "recovered"]


def test_runs_that_overlap() -> None:
    world = nightly(silent=0)
    world.until("2026-11-27 02:30")
    world.progress("load-27", 0)
    world.wait(M)
    world.progress("load-27b", 0)
    [event] = world.told()
    assert (event["kind"], event["run"], event["others"]) == ("overlapping", "load-27b", ["load-27"])
    world.wait(12 * M)
    world.progress("load-27", 100, "done")
    assert world.said() == ["done", "recovered"]
    world.progress("load-27b", 100, "done")
    assert world.said() == ["done"]


@pytest.mark.parametrize(("runs", "overlapping"), [(0, 0), (1, 3), (2, 2), (4, 0)])
def test_as_many_runs_at_once_as_are_asked_for(runs: int, overlapping: int) -> None:
    world = nightly(runs=runs)
    world.until("2026-11-27 02:30")
    for number in range(4):
        world.progress(f"load-{number}", 0)
    assert world.said().count("overlapping") == overlapping


def test_a_job_of_the_same_id_each_night() -> None:
    world = World({"backup": {"match": {"job": "backup"}, "cron": "@daily"}})
    for day in (28, 29, 30):
        world.until(f"2026-11-{day} 00:00:10")
        world.run("backup", 12 * M)
    assert world.said() == ["running", "done"] * 3
    assert world.state("backup")["times"] == {"running": 3, "done": 3}


def test_an_end_that_comes_before_the_beginning() -> None:
    """A part of a stream that went through a spill file overtook the other."""
    world = nightly()
    world.until("2026-11-27 02:30")
    world.progress("load-27", 100, "done")
    world.progress("load-27", 5, ts=world.now - 5 * M)
    world.progress("load-27", 100, "done", ts=world.now + 1)
    assert world.said() == ["running", "done"]


def test_a_failure_that_is_done_in_the_end() -> None:
    world = nightly()
    world.until("2026-11-27 02:30")
    world.run("load-27", 12 * M, "failed")
    world.wait(M)
    world.progress("load-27", 100, "done")
    assert world.said() == ["running", "failed", "done", "recovered"]


def test_a_run_begins_again_after_it_fell_silent() -> None:
    """Its program was killed, and the next night's has the same id."""
    world = World({"backup": {"match": {"job": "backup"}, "cron": "@daily", "silent": "15m"}})
    world.until("2026-11-28 00:00")
    world.progress("backup", 60)
    world.until("2026-11-29 00:00")
    assert world.said() == ["running", "silent"]
    world.progress("backup", 0)
    assert world.said() == ["failed", "running"]
    world.wait(M)
    world.progress("backup", 100, "done")
    assert world.said() == ["done", "recovered"]


def test_a_run_each_so_often() -> None:
    world = World({"sync": {"match": {"job": "sync-*"}, "every": "10m", "start_grace": "2m"}})
    for number in range(5):
        world.wait(11 * M)
        world.run(f"sync-{number}", M // 2)
    assert world.said() == ["running", "done"] * 5
    world.wait(30 * M)
    [event] = world.told()
    assert (event["kind"], event["times"]) == ("not_started", 1)
    assert event["message"] == "schedule sync: nothing has started for 12m, and it should each 10m"
    world.run("sync-9", M)
    assert world.said() == ["late", "done", "recovered"]


def test_the_first_run_is_waited_for_as_long_as_any_other() -> None:
    world = World({"sync": {"match": {"job": "sync-*"}, "every": "10m", "start_grace": "2m"}})
    world.wait(12 * M - 1)
    assert world.said() == []
    world.wait(1)
    assert world.said() == ["not_started"]


def event(service: str, host: str = "fab1", **more: Any) -> dict[str, Any]:
    return {"type": "event", "level": "info", "message": "x", "service": service, "host": host, **more}


INTAKE = {"match": {"service": "file-receiver"}, "every": "10m", "start_grace": "2m"}


def test_a_service_that_falls_silent() -> None:
    world = World({"intake": INTAKE})
    for _ in range(10):
        world.wait(11 * M)
        world.group(event("file-receiver", ts=world.now), event("other", ts=world.now))
    assert world.said() == ["running"]
    world.wait(11 * M)
    world.group(event("other", ts=world.now))
    world.wait(H)
    [told] = world.told()
    assert told["kind"] == "silent"
    assert told["message"] == "schedule intake: nothing was heard of it for 12m, and something should be each 10m"
    assert world.state("intake")["state"] == "silent"
    world.group(event("file-receiver", ts=world.now))
    assert world.said() == ["recovered"]
    world.wait(12 * M)
    assert world.said() == ["silent"]


def test_a_service_that_was_never_heard() -> None:
    world = World({"intake": INTAKE})
    world.wait(12 * M)
    assert world.said() == ["not_started"]
    world.group(event("file-receiver", ts=world.now))
    assert world.said() == ["recovered"]


def test_a_service_on_each_of_its_hosts() -> None:
    world = World({"intake": {**INTAKE, "per_host": True}})
    world.wait(H)
    assert world.said() == []
    world.group(event("file-receiver", "fab1", ts=world.now), event("file-receiver", "fab2", ts=world.now))
    assert world.said() == ["running", "running"]
    for _ in range(3):
        world.wait(10 * M)
        world.group(event("file-receiver", "fab2", ts=world.now))
    [told] = world.told()
    assert (told["kind"], told["host"]) == ("silent", "fab1")
    assert told["message"].startswith("schedule intake on fab1: ")
    assert world.state("intake", "fab2")["state"] == "running"
    world.wait(8 * D)
    assert world.said() == ["silent", "recovered", "recovered"]
    assert world.engine.schedules.records() == []


def test_what_is_replayed_keeps_no_service_alive() -> None:
    world = World({"intake": INTAKE, "nightly": NIGHTLY})
    world.group(event("file-receiver", ts=world.now))
    world.wait(11 * M)
    world.group(event("file-receiver", ts=world.now - 2 * D))
    world.group(event("file-receiver", ts=world.now, replay_to="files"))
    world.progress("load-1", 1, ts=world.now - 2 * D)
    world.wait(M)
    assert world.said() == ["running", "silent"]


def test_which_jobs_are_meant() -> None:
    world = World({
        "a": {"match": {"job": ["load-?", "x*"], "host": "fab[12]"}, "every": "1d"},
        "b": {"match": {"job": "load-1"}, "every": "1d"},
        "c": {"match": {"job": "*", "service": ["etl", "other"]}, "every": "1d", "runs": 0},
    })  # fmt: skip
    for job, host, service in (
        ("load-1", "fab1", "etl"), ("load-1", "fab3", "etl"), ("load-22", "fab1", "no"), ("xy", "fab2", "no"), ("y", "", "other"),
    ):  # fmt: skip
        world.progress(job, 1, host=host, service=service)
    assert [(event["schedule"], event["run"]) for event in world.events] == [
        ("a", "load-1"), ("b", "load-1"), ("c", "load-1"), ("a", "xy"), ("c", "y"),
    ]  # fmt: skip


def test_a_schedule_that_is_paused() -> None:
    world = nightly()
    world.ask("paused", "nightly", until=date("2026-11-29 12:00"))
    assert world.state("nightly")["state"] == "paused"
    assert world.state("nightly")["paused_until"] == date("2026-11-29 12:00")
    world.until("2026-11-29 11:59")
    assert world.said() == []
    world.until("2026-11-29 13:00")
    assert world.said() == ["resumed"]
    assert world.state("nightly")["next"] == date("2026-11-30 02:30")
    world.until("2026-11-30 02:36")
    assert world.said() == ["not_started"]


def test_a_schedule_that_is_paused_until_it_is_resumed() -> None:
    world = World({"intake": INTAKE, "nightly": NIGHTLY})
    world.group(event("file-receiver", ts=world.now))
    world.said()
    world.ask("paused", "intake")
    world.wait(D)
    assert world.said() == ["not_started"]
    world.ask("resumed", "intake")
    world.ask("paused", "nobody")
    world.wait(11 * M)
    assert world.said() == []
    world.wait(M)
    assert world.said() == ["silent"]


def test_a_run_that_recovers_while_it_is_paused_says_so() -> None:
    world = nightly()
    world.until("2026-11-27 02:40")
    world.progress("load-27", 0)
    assert world.said() == ["not_started", "late"]
    world.ask("paused", "nightly")
    world.wait(12 * M)
    world.progress("load-27", 100, "done")
    assert world.said() == ["recovered"]


@pytest.mark.parametrize("status", ["done", "failed", "cancelled"])
def test_a_run_that_took_too_long_while_it_was_paused(status: str) -> None:
    world = nightly()
    world.until("2026-11-27 02:30")
    world.progress("load-27", 0)
    world.ask("paused", "nightly")
    world.wait(4 * H)
    world.progress("load-27", 100, status)
    assert world.said() == ["running"]
    assert world.state("nightly")["open"] == []


def test_other_schedules_come_into_force() -> None:
    world = World({"nightly": NIGHTLY, "gone": {"match": {"job": "x"}, "every": "1h"}})
    world.until("2026-11-27 02:40")
    assert world.said() == ["not_started", "not_started"]
    world.configure({"nightly": {**NIGHTLY, "cron": "0 4 * * *"}, "new": {"match": {"job": "y"}, "every": "1h"}})
    [over] = world.told()
    assert (over["kind"], over["schedule"], over["reason"]) == ("recovered", "gone", "it is not in the config any more")
    assert world.state("nightly")["next"] == date("2026-11-27 04:00")
    assert world.state("nightly")["state"] == "not_started"
    world.until("2026-11-27 03:46")
    assert world.said() == ["not_started"]
    world.until("2026-11-27 04:00")
    world.run("load-27", 12 * M)
    assert world.said() == ["running", "recovered", "done"]


def test_a_config_that_says_the_same_changes_nothing() -> None:
    world = nightly()
    world.until("2026-11-27 02:30")
    world.progress("load-27", 0)
    before = world.state("nightly")
    world.configure({"nightly": NIGHTLY})
    assert world.state("nightly") == before


def test_what_is_due_more_often_than_runs_may_be_early() -> None:
    """`early` is a minute: half of the time between two due times is what counts then."""
    world = World({"minute": {"match": {"job": "m-*"}, "cron": "* * * * *", "start_grace": "5m"}})
    for number in range(4):
        world.wait(M)
        world.progress(f"m-{number}", 100, "done")
    world.wait(M - 20 * S)
    world.progress("m-4", 100, "done")
    world.wait(M)
    world.progress("m-5", 100, "done")
    begun = [event for event in world.events if event["kind"] == "running"]
    assert [event["due"] for event in begun] == [date(f"2026-11-27 00:0{minute}") for minute in range(1, 7)]
    world.said()
    world.wait(2 * M)
    assert world.said() == ["not_started"]


def test_a_run_whose_program_is_gone() -> None:
    world = nightly()
    world.until("2026-11-27 02:30")
    world.connection("came", "c7")
    world.reported("load-27", 5)
    world.wait(M)
    world.connection("went", "c7")
    world.wait(5 * S)
    [event] = world.told()
    assert (event["kind"], event["reason"], event["percent"]) == ("failed", "its program is gone", 5)
    assert event["message"] == "schedule nightly: run load-27 has failed: its program is gone"
    assert world.state("nightly")["runs"] == []


def test_a_program_that_was_gone_comes_back() -> None:
    world = nightly()
    world.until("2026-11-27 02:30")
    world.connection("came", "c7")
    world.reported("load-27", 5)
    world.connection("went", "c7")
    world.wait(M)
    assert world.said() == ["running", "failed"]
    world.connection("came", "c7")
    world.reported("load-27", 6)
    assert world.said() == ["running", "recovered"]
    world.wait(10 * M)
    world.reported("load-27", 100, "done")
    assert world.said() == ["done"]
    assert world.state("nightly")["last_run"]["took"] == 11 * M


def test_another_program_takes_the_place_of_one_that_is_gone() -> None:
    world = World({"backup": {"match": {"job": "backup"}, "cron": "@daily"}})
    world.until("2026-11-28 00:00")
    world.connection("came", "c7")
    world.reported("backup", 5)
    world.connection("went", "c7")
    world.wait(M)
    assert world.said() == ["running", "failed"]
    world.connection("came", "c8", pid=8)
    world.reported("backup", 0, pid=8)
    world.reported("backup", 100, "done", pid=8)
    assert world.said() == ["running", "done", "recovered"]


def test_a_program_that_was_gone_after_a_deadline_that_is_older() -> None:
    """Both are found at the same look; the older one counts first."""
    world = World({"a": {"match": {"job": "a"}, "every": "1d", "at_most": "3s"}})
    world.connection("came", "c7")
    world.reported("a", 5)
    world.connection("went", "c7")
    world.wait(M)
    assert world.said() == ["running", "too_long", "failed"]


def test_a_job_goes_on_under_another_service() -> None:
    world = nightly()
    world.until("2026-11-27 02:30")
    world.progress("load-27", 0)
    world.wait(12 * M)
    world.progress("load-27", 100, "done", service="writer")
    world.progress("load-27b", 100, "done", service="writer")
    assert world.said() == ["running", "done"]


def test_a_job_of_one_id_on_two_hosts_that_are_expected_each() -> None:
    world = World({"backup": {"match": {"job": "backup"}, "cron": "@daily", "per_host": True}})
    for host in ("a", "b"):
        world.progress("backup", 0, host=host)
    world.wait(M)
    world.progress("backup", 100, "done", host="a")
    world.until("2026-11-28 00:01")
    world.progress("backup", 0, host="b")
    assert [(event["kind"], event["host"]) for event in world.events] == [
        ("running", "a"), ("running", "b"), ("done", "a"),
    ]  # fmt: skip
    world.until("2026-11-28 00:10")
    assert [(event["kind"], event["host"]) for event in world.told()] == [("not_started", "a"), ("not_started", "b")]


def test_runs_and_hosts_beyond_what_is_followed() -> None:
    world = World({"jobs": {"match": {"job": "*"}, "every": "1d", "runs": 0}, "hosts": {**INTAKE, "per_host": True}})
    world.group(*(
        {"type": "progress", "job_id": f"j{n}", "trace_id": "t", "percent": 1, "service": "s", "ts": world.now} for n in range(80)
    ))  # fmt: skip
    world.group(*(event("file-receiver", f"host-{n}", ts=world.now) for n in range(1_010)))
    assert world.engine.schedules.counters == {"runs_over": 16, "hosts_over": 10, "past": 0}
    assert len(world.engine.schedules.records("hosts", limit=7)) == 7
    assert world.engine.schedules.count("hosts") == 1_000


def test_a_run_that_fails_and_could_not_be_followed_is_told() -> None:
    world = World({
        "jobs": {"match": {"job": "j*"}, "every": "1d", "runs": 0},
        "hosts": {"match": {"job": "h*"}, "every": "1d", "per_host": True, "failures": 3},
    })  # fmt: skip
    for n in range(70):
        world.progress(f"j{n}", 1)
    world.progress("j69", 50, "failed")
    [failed] = [event for event in world.told() if event["kind"] == "failed"]
    assert (failed["schedule"], failed["run"], failed["level"]) == ("jobs", "j69", "warning")
    world.group(*(
        {"type": "progress", "job_id": f"h{n}", "trace_id": "t", "percent": 1, "service": "s", "host": f"host-{n}", "ts": world.now}
        for n in range(1_001)
    ))  # fmt: skip
    world.said()
    world.progress("h1000", 60, "failed", host="host-1000")
    [failed] = world.told()
    assert (failed["schedule"], failed["run"], failed["host"]) == ("hosts", "h1000", "host-1000")
    assert world.engine.schedules.count("hosts") == 1_000


def test_a_failure_that_comes_after_the_run_that_made_good_for_it_is_told_and_over() -> None:
    world = nightly(at_least=0)
    world.until("2026-11-27 02:30")
    first = world.now
    world.run("load-27", 14 * M)
    world.said()
    world.progress("load-27", 40, "failed", ts=first + M)
    assert world.said() == ["failed", "recovered"]
    assert world.state("nightly")["state"] == "done"
    world.progress("load-27", 100, "done", ts=first + 2 * M)
    assert world.said() == []


def test_what_is_derived_of_a_job_names_the_schedules_that_judge_it() -> None:
    """A schedule that asks for another host does not: what it leaves out is told of the job."""
    expected = {
        "here": {"match": {"job": "load-*", "host": "fab1"}, "every": "1d"},
        "there": {"match": {"job": "load-*", "host": "fab2"}, "every": "1d"},
        "all": {"match": {"job": "load-*"}, "every": "1d"},
    }
    world = World(expected)
    world.engine.configure(dataclasses.replace(world.settings, stalled_after=60))
    world.connection("came", "c7")
    world.reported("load-1", 5)
    world.wait(2 * M)
    world.connection("went", "c7")
    world.wait(M)
    named = {
        event["kind"]: event["schedules"] for event in world.others if event.get("kind") in ("job_stalled", "gone")
    }
    assert named == {"job_stalled": ["all", "here"], "gone": ["all", "here"]}


def test_a_run_that_is_never_heard_again_is_forgotten() -> None:
    world = World({"jobs": {"match": {"job": "a"}, "every": "30d"}})
    world.progress("a", 1)
    world.wait(7 * D - 1)
    assert len(world.state("jobs")["runs"]) == 1
    world.wait(1)
    assert world.state("jobs")["runs"] == []
    world.progress("a", 2)
    assert world.said() == ["running", "running"]


def test_a_schedule_that_is_gone_after_a_restart_says_nothing_of_the_absence() -> None:
    """Its start is not journalled where the config has no schedules."""
    world = nightly()
    world.settings = rules({})
    world.away(2 * D, told=False)
    world.wait(D)
    assert world.said() == ["recovered"]
    assert world.engine.awaiting == 0


def test_more_is_due_than_is_judged_at_a_time() -> None:
    world = World({f"s-{n}": {"match": {"service": f"s-{n}"}, "every": "10m", "start_grace": 0} for n in range(500)})
    world.now, world.elapsed = world.now + H, world.elapsed + H
    found = world.engine.advance(world.elapsed)
    assert len(found) == 200
    assert world.engine.behind
    world._take(found)
    while world.engine.behind:
        world._take(world.engine.advance(world.elapsed))
    assert world.said() == ["not_started"] * 500


def test_where_there_are_no_schedules_nothing_is_kept_of_them() -> None:
    world = World({})
    world.progress("a", 1)
    world.wait(D)
    assert world.events == []
    assert world.engine.schedules.records() == []
    *_, snapshot = world.engine.schedules.snapshot_in_parts(), b""
    assert snapshot == b""
