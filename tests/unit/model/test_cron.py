"""When a cron expression is due: two nights in which clocks are set, leap years, and what can't be."""

from __future__ import annotations

from datetime import datetime, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wafermon.model.cron import ALIASES, SECOND, check_cron, last_due, next_due, zone_of

BERLIN = "Europe/Berlin"
HOUR = 3600 * SECOND


def at(text: str, zone: str = BERLIN, fold: int = 0) -> int:
    """A local time -> microseconds since the epoch."""
    moment = datetime.fromisoformat(text).replace(tzinfo=zone_of(zone), fold=fold)
    return int(moment.timestamp()) * SECOND


def said(moment: int | None, zone: str = BERLIN) -> str:
    assert moment is not None
    return datetime.fromtimestamp(moment / SECOND, zone_of(zone)).strftime("%Y-%m-%d %H:%M %z")


def dues(cron: str, begin: int, count: int, zone: str = BERLIN) -> list[str]:
    found = []
    for _ in range(count):
        due = next_due(check_cron(cron), zone, begin)
        assert due is not None
        begin = due
        found.append(said(due, zone))
    return found


def test_the_night_in_which_an_hour_is_left_out() -> None:
    assert dues("30 2 * * *", at("2026-03-28 00:00"), 3) == [
        "2026-03-28 02:30 +0100",
        "2026-03-29 03:00 +0200",
        "2026-03-30 02:30 +0200",
    ]


def test_the_night_in_which_an_hour_comes_twice() -> None:
    assert dues("30 2 * * *", at("2026-10-24 00:00"), 3) == [
        "2026-10-24 02:30 +0200",
        "2026-10-25 02:30 +0200",
        "2026-10-26 02:30 +0100",
    ]


@pytest.mark.parametrize("cron", ["30 2 * * *", "*/5 * * * *", "10,50 1-3 * * *"])
def test_no_time_is_answered_twice_whenever_it_is_asked(cron: str) -> None:
    """Asked each five minutes of both nights, also in the second one of the hour that comes twice."""
    for day in ("2026-03-29", "2026-10-25"):
        begin = at(f"{day} 00:00")
        for step in range(0, 6 * HOUR, 300 * SECOND):
            now = begin + step
            found = next_due(cron, BERLIN, now)
            assert found is not None
            assert found > now
            before = last_due(cron, BERLIN, now)
            assert before is not None
            assert before <= now
            following = next_due(cron, BERLIN, before)
            assert following == found, f"{said(now)}: {said(before)}, {said(following)} and {said(found)}"


def test_each_minute_is_due_once_in_both_nights() -> None:
    for day, hours in (("2026-03-29", 23), ("2026-10-25", 25)):
        begin, count = at(f"{day} 00:00") - 1, 0
        end = begin + hours * HOUR
        while (begin := next_due("* * * * *", BERLIN, begin) or end + 1) <= end:
            count += 1
        assert count == hours * 60


def test_a_leap_year() -> None:
    assert dues("0 0 29 2 *", at("2026-01-01 00:00", "UTC"), 2, "UTC") == [
        "2028-02-29 00:00 +0000",
        "2032-02-29 00:00 +0000",
    ]
    assert said(next_due("0 0 29 2 *", "UTC", at("2096-03-01 00:00", "UTC")), "UTC") == "2104-02-29 00:00 +0000"
    assert dues("0 6 L 2 *", at("2027-01-01 00:00"), 2) == ["2027-02-28 06:00 +0100", "2028-02-29 06:00 +0100"]


def test_a_weekday_and_a_day_of_the_month() -> None:
    assert dues("0 4 * * MON-FRI", at("2026-11-27 05:00"), 2) == ["2026-11-30 04:00 +0100", "2026-12-01 04:00 +0100"]
    assert dues("0 4 * * FRI#2", at("2026-11-01 00:00"), 1) == ["2026-11-13 04:00 +0100"]


@pytest.mark.parametrize("alias", ALIASES)
def test_what_stands_for_an_expression(alias: str) -> None:
    assert next_due(check_cron(alias), "UTC", at("2026-01-01 00:00", "UTC")) is not None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("0 0 30 2 *", "'0 0 30 2 *': its day of month can't be"),
        ("@reboot", "'@reboot' is none of @hourly"),
        ("61 * * * *", "'61 * * * *': its minute can't be"),
        ("* * * *", "expected five fields"),
        ("0 * * * * *", "expected five fields"),
        ("", "expected five fields"),
        ("*/0 * * * *", "its minute can't be"),
        ("9" * 300, "longer than 256 characters"),
    ],
)
def test_what_can_not_be(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem.replace("*", r"\*")):
        check_cron(text)


@pytest.mark.parametrize("name", ["Europe", "../../etc/passwd", "/etc/localtime", "Nowhere/X", "Europe/Berlin\0", ""])
def test_a_zone_that_is_not_there(name: str) -> None:
    with pytest.raises(ValueError, match="no time zone"):
        zone_of(name)


def test_beyond_all_dates() -> None:
    last = int(
        (datetime(9999, 12, 31, 23, tzinfo=timezone.utc) - datetime(1970, 1, 1, tzinfo=timezone.utc)).total_seconds()
    )
    assert next_due("0 0 1 1 *", "UTC", last * SECOND) is None
    assert zone_of(BERLIN) == ZoneInfo(BERLIN)


@given(
    st.sampled_from(["30 2 * * *", "*/7 * * * *", "0 0 1 * *", "15 1-4 * * SUN", "0 3 L * *", "59 23 * * 5L"]),
    st.sampled_from([BERLIN, "UTC", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"]),
    st.integers(1_500_000_000, 2_500_000_000),
)
def test_the_next_and_the_last_agree(cron: str, zone: str, seconds: int) -> None:
    now = seconds * SECOND + 1
    found, before = next_due(cron, zone, now), last_due(cron, zone, now)
    assert found is not None
    assert before is not None
    assert before <= now < found
    assert last_due(cron, zone, found) == found
    assert next_due(cron, zone, before) == found
