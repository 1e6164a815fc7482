"""When a job ends, from past runs and from its own progress."""

from __future__ import annotations

import random
from typing import Any

import pytest

from wafermon.model.progress import nothing_reached, reach
from wafermon.model.records import JobRecord
from wafermon.query.eta import eta

S = 1_000_000
T = 1_795_500_000 * S


def run(points: list[tuple[float, float]], *, start: int = T) -> JobRecord:
    """A job that was so far (percent) at these times (seconds since its start)."""
    reached = nothing_reached()
    for second, percent in points:
        reach(reached, percent, start + round(second * S))
    whole: Any = {
        "kind": "k", "percent": points[-1][1], "first": start, "last_progress": start + round(points[-1][0] * S),
        "reached": reached,
    }  # fmt: skip
    made: JobRecord = whole
    return made


SLOW_AT_THE_END = [(0.0, 0.0), (10.0, 50.0), (20.0, 90.0), (100.0, 100.0)]


def at(job: JobRecord, runs: list[JobRecord], seconds: float) -> tuple[float, float, float]:
    """The end that is foreseen then, and its spread, in seconds since the job's start."""
    found = eta(job, runs, job["first"] + round(seconds * S))
    assert found is not None
    return tuple((found[key] - job["first"]) / S for key in ("at", "earliest", "latest"))  # type: ignore[return-value]


def test_a_job_that_goes_as_the_last_ones_did_ends_as_they_did() -> None:
    runs = [run(SLOW_AT_THE_END) for _ in range(5)]
    for second, percent in SLOW_AT_THE_END[:-1]:
        job = run([*[one for one in SLOW_AT_THE_END if one[0] <= second]])
        assert job["percent"] == percent
        assert at(job, runs, second) == pytest.approx((100, 100, 100))
        assert at(job, runs, second + 5) == pytest.approx((100, 100, 100)), "between two reports the end stays"


def test_one_that_is_twice_as_slow_takes_twice_as_long() -> None:
    job = run([(2 * second, percent) for second, percent in SLOW_AT_THE_END[:-1]])
    assert at(job, [run(SLOW_AT_THE_END)], 40) == pytest.approx((200, 200, 200))


def test_the_spread_is_that_of_the_runs() -> None:
    runs = [
        run([(0, 0), (second / 2, 50), (second, 100)]) for second in (90, 95, 100, 105, 110, 100, 100, 100, 100, 100)
    ]
    middle, earliest, latest = at(run([(0, 0)]), runs, 1)
    assert middle == 100 and 90 <= earliest < 100 < latest <= 110


def test_a_job_that_says_nothing_until_its_end() -> None:
    runs = [run([(0, 0), (60, 100)])] * 3
    job = run([(0, 0)])
    assert at(job, runs, 20)[0] == pytest.approx(60)
    assert at(job, runs, 80)[0] == pytest.approx(80), "overdue: any moment"


def test_progress_alone_where_no_run_is_known() -> None:
    steady = run([(second, float(second)) for second in range(0, 51, 5)])
    assert at(steady, [], 50) == pytest.approx((100, 100, 100))
    uneven = run(
        [
            (0, 0),
            *[(second, second / 2) for second in range(10, 60, 10)],
            *[(50 + n, 25 + n * 2.5) for n in range(1, 11)],
        ]
    )
    middle, earliest, latest = at(uneven, [], 60)
    assert earliest < middle < latest
    found = eta(uneven, [], T + 60 * S)
    assert found is not None and (found["source"], found["runs"]) == ("progress", 0)


def test_nothing_can_be_said_without_runs_and_progress() -> None:
    assert eta(run([(0, 0)]), [], T + S) is None


def test_the_forecast_gets_better_as_the_job_goes_on() -> None:
    """Over jobs of one kind whose shapes and lengths differ by chance."""
    chance = random.Random(1)

    def one() -> list[tuple[float, float]]:
        parts = [base * chance.uniform(0.8, 1.25) for base in (5.0, 30.0, 10.0, 40.0, 15.0)]
        points, second = [(0.0, 0.0)], 0.0
        for number, part in enumerate(parts, 1):
            second += part
            points.append((second, number * 20.0))
        return points

    runs = [run(one()) for _ in range(10)]
    off: dict[int, list[float]] = {1: [], 3: [], 4: []}
    for _ in range(50):
        points = one()
        for known, found in off.items():
            job = run(points[: known + 1])
            found.append(abs(at(job, runs, points[known][0])[0] - points[-1][0]) / points[-1][0])
    middle = {known: sorted(found)[25] for known, found in off.items()}
    assert middle[1] < 0.2 and middle[3] < 0.12 and middle[4] < 0.05
