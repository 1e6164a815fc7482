"""When a job that runs will end. Pure.

From the last runs of its kind: each of them says how long it took from where this job is now to its end. Where this job is
slower or faster than that run was so far, so is the rest. Without such runs, from its own progress alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from wafermon.model.progress import STEPS
from wafermon.model.records import Eta, JobRecord

RUNS = 10
"""How many of the last runs are looked at."""
PACE = (0.5, 2.0)
"""How much slower or faster than a past run a job is taken to be at most."""
STEADY = 0.1
"""From this share of a run on its pace is looked at: before, it says nothing."""


class _Run(NamedTuple):
    """A past run, by the time since its start."""

    took: int
    steps: Sequence[int | None]
    """When each step was reached."""

    def at(self, percent: float) -> float:
        """When it was so far, between the steps by rule of three."""
        place = percent * STEPS / 100
        below, above = (0.0, 0.0), (float(STEPS), float(self.took))
        for number, reached in enumerate(self.steps, 1):
            if reached is None:
                continue
            if number <= place:
                below = (float(number), float(reached))
            elif number < above[0]:
                above = (float(number), float(reached))
                break
        width = above[0] - below[0]
        return below[1] + (above[1] - below[1]) * ((place - below[0]) / width if width else 0.0)


def eta(job: JobRecord, runs: Sequence[JobRecord], now: int) -> Eta | None:
    """`runs`: the last ones of its kind that are done. None where nothing can be said: no run, and no progress."""
    elapsed = max(0, now - job["first"])
    past = [_run(one) for one in runs[:RUNS] if one["last_progress"] > one["first"]]
    if past:
        rests = sorted(_rest(run, job, elapsed, now) for run in past)
        low, high = _share(rests, 0.1), _share(rests, 0.9)
        return _eta(now, median(rests), low, high, "runs", len(past))
    return _by_progress(job, now)


def _run(job: JobRecord) -> _Run:
    steps = [None if ts is None else max(0, ts - job["first"]) for ts in job["reached"]]
    return _Run(job["last_progress"] - job["first"], steps)


def _rest(run: _Run, job: JobRecord, elapsed: int, now: int) -> float:
    """How long it still takes if it goes on as that run did."""
    then = run.at(job["percent"])
    since = max(0, now - job["last_progress"])
    so_far = max(1, elapsed - since)
    pace = 1.0
    if then >= STEADY * run.took:
        pace = min(PACE[1], max(PACE[0], so_far / then))
    return max(0.0, (run.took - then) * pace - since)


def _by_progress(job: JobRecord, now: int) -> Eta | None:
    """By how fast it came so far; the spread is that of its slowest and fastest quarter, where these are known."""
    took = job["last_progress"] - job["first"]
    if not 0 < job["percent"] < 100 or took <= 0:
        return None
    since = max(0, now - job["last_progress"])
    rest = 100 - job["percent"]
    speeds = _speeds(job)
    whole = job["percent"] / took
    slowest, fastest = (min(speeds), max(speeds)) if speeds else (whole / 2, whole * 2)
    low, middle, high = (max(0.0, rest / speed - since) for speed in (max(fastest, whole), whole, min(slowest, whole)))
    return _eta(now, middle, low, high, "progress", 0)


def _speeds(job: JobRecord) -> list[float]:
    """Percent per microsecond over stretches of five steps."""
    known = [(number * 100 / STEPS, ts) for number, ts in enumerate(job["reached"], 1) if ts is not None]
    points = [(0.0, job["first"]), *known]
    found = []
    for (percent, ts), (later, then) in zip(points, points[5:], strict=False):
        if then > ts:
            found.append((later - percent) / (then - ts))
    return found


def _share(given: Sequence[float], share: float) -> float:
    """Of sorted values the one that this share of them is below."""
    place = share * (len(given) - 1)
    low = int(place)
    high = min(low + 1, len(given) - 1)
    return given[low] + (given[high] - given[low]) * (place - low)


def _eta(now: int, rest: float, low: float, high: float, source: str, runs: int) -> Eta:
    return {
        "at": now + round(rest), "earliest": now + round(low), "latest": now + round(high), "source": source, "runs": runs,
    }  # fmt: skip
