"""What people see of schedules: plain dicts of JSON values. Dates are microseconds since the Unix epoch, durations microseconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from itertools import islice
from typing import Any

from wafermon.correlation.schedules.expectation import Expectation
from wafermon.correlation.schedules.expectations import Expectations
from wafermon.correlation.schedules.rules import Rule
from wafermon.correlation.traces import NEVER


def records(known: Expectations, date: int, name: str, states: Container[str], limit: int) -> list[dict[str, Any]]:
    """The first expectations of these names (a glob) in these states (0: all of them), in the config's order, then by host. `date` is
    what is added to `elapsed` for the date."""
    found = (one for one in known.in_order(name) if known.state(one) in states)
    return [
        record(one, known.rules[one.name], known.paused.get(one.name, 0), date) for one in islice(found, limit or None)
    ]


def count(known: Expectations, name: str, states: Container[str]) -> int:
    """How many they are."""
    return sum(known.state(one) in states for one in known.in_order(name))


def states(known: Expectations) -> dict[str, int]:
    """How many expectations are in which state."""
    return dict(Counter(map(known.state, known.by_key.values())))


def troubled(known: Expectations) -> dict[str, int]:
    """Schedule -> how many of its expectations are not as they should be."""
    return {name: sum(bool(one.open) for one in known.of.get(name, {}).values()) for name in known.rules}


def troubles_of(known: Expectations, job: str) -> list[str]:
    """What was told of a run that is under way and is not over: states, in the order in which they were told."""
    found = {
        key.partition(" ")[0]: None for one in known.that_know(job) if job in one.runs for key in one.opened_by(job)
    }
    return [*found]


def record(one: Expectation, rule: Rule, paused: int, date: int) -> dict[str, Any]:
    """One expectation. `paused`: until when, 0 where it is not."""
    due = one.due if rule.cron else one.heard + date + rule.every
    return {
        "schedule": one.name,
        "host": one.host,
        "state": one.state(paused=bool(paused)),
        "changed": one.changed,
        "since": one.since,
        "next": None if due == NEVER or paused else due,
        "last": one.last or None,
        "missed": one.missed or None,
        "paused": bool(paused),
        "paused_until": paused if 0 < paused < NEVER else None,
        "open": [
            {"state": key.partition(" ")[0], "run": key.partition(" ")[2], "since": since}
            for key, since in one.open.items()
        ],
        "failures": one.failures,
        "times": dict(one.times),
        "runs": [
            {
                "run": run.id,
                "trace_id": run.trace_id,
                "due": run.due or None,
                "started": run.started,
                "heard": run.heard + date,
                "percent": run.percent,
                "status": run.status,
                "service": run.service,
                "silent": run.silent,
                "too_long": run.too_long,
            }
            for run in one.runs.values()
        ],
        "last_run": None
        if one.last_run is None
        else {
            "run": one.last_run.run,
            "trace_id": one.last_run.trace_id,
            "state": one.last_run.state,
            "started": one.last_run.started,
            "ended": one.last_run.ended,
            "took": one.last_run.took,
        },
        "expects": expects(rule),
    }


def expects(rule: Rule) -> dict[str, Any]:
    """What a schedule asks for; durations of 0 are not asked for."""
    said: dict[str, Any] = {
        "match": {"job": list(rule.job), "service": list(rule.service), "host": list(rule.host)},
        "cron": rule.cron or None,
        "timezone": rule.zone,
        "every": rule.every or None,
        "start_grace": rule.grace,
        "per_host": rule.per_host,
    }
    if rule.job:
        said |= {
            "early": rule.early,
            "at_least": rule.at_least,
            "at_most": 0 if rule.at_most == NEVER else rule.at_most,
            "silent": 0 if rule.silent == NEVER else rule.silent,
            "runs": rule.runs,
            "failures": rule.failures,
        }
    return said
