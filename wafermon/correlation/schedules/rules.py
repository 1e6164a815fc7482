"""A schedule as it is judged: the config's, with its times in microseconds."""

from __future__ import annotations

from msgspec import Struct

from wafermon.correlation.traces import NEVER
from wafermon.model.cron import last_due, next_due
from wafermon.model.schedules import Schedule, Schedules


class Rule(Struct, frozen=True):
    """Times are microseconds; `at_most` and `silent` are NEVER where there is no limit."""

    job: tuple[str, ...]
    """Globs; empty where it is about messages."""
    service: tuple[str, ...]
    host: tuple[str, ...]
    cron: str
    """Empty where `every` says it."""
    zone: str
    every: int
    grace: int
    early: int
    at_least: int
    at_most: int
    silent: int
    runs: int
    """0 is no limit."""
    failures: int
    per_host: bool

    def next_due(self, after: int) -> int:
        """The first time by the cron expression that is later than a date; NEVER where there is none."""
        return next_due(self.cron, self.zone, after) or NEVER

    def last_due(self, before: int) -> int:
        """The last time up to a date; 0 where there is none."""
        return last_due(self.cron, self.zone, before) or 0

    def due_of(self, started: int) -> int:
        """The due time that a run which began at a date belongs to: the last one, or the next one where it is just before that; 0
        where there is none."""
        before, after = self.last_due(started), self.next_due(started)
        return after if after - started <= self._early(before, after) else before

    def judged_at(self, due: int) -> int:
        """When a due time is judged by which nothing has started: once its grace is over, or when the turn of the next one comes."""
        if due == NEVER:
            return NEVER
        after = self.next_due(due)
        return min(due + self.grace, after - self._early(due, after))

    def _early(self, before: int, after: int) -> int:
        """How long before `after` a run counts for it: never more than half of the time between the two."""
        return min(self.early, (after - before) // 2)

    def rhythm(self) -> tuple[object, ...]:
        """What due times depend on."""
        return self.cron, self.zone, self.every, self.per_host, bool(self.job)


def rule_of(schedule: Schedule) -> Rule:
    match = schedule.match
    return Rule(
        match.job,
        match.service,
        match.host,
        schedule.cron or "",
        schedule.timezone,
        _microseconds(schedule.every or 0),
        _microseconds(schedule.start_grace),
        _microseconds(schedule.early),
        _microseconds(schedule.at_least),
        _microseconds(schedule.at_most) or NEVER,
        _microseconds(schedule.silent) or NEVER,
        schedule.runs,
        schedule.failures,
        schedule.per_host,
    )


def rules_of(schedules: Schedules) -> dict[str, Rule]:
    """A config's schedules, by name."""
    return {name: rule_of(schedule) for name, schedule in schedules.items()}


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)
