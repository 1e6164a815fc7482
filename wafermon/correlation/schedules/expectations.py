"""All expectations by the rules in force: one of each schedule, or one of each host that was heard; and which of them know a run of a job."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping

import msgspec

from wafermon.correlation.schedules.clocks import Clocks
from wafermon.correlation.schedules.expectation import Expectation, Run
from wafermon.correlation.schedules.rules import Rule
from wafermon.correlation.traces import NEVER
from wafermon.model.matching import Matching


class Expectations:
    """One journal's. They are changed by all that judge them; which there are, and their runs, is changed here."""

    def __init__(self, clocks: Clocks) -> None:
        self.rules: Mapping[str, Rule]
        self.paused: dict[str, int] = {}
        """Schedule -> the date until which; NEVER: until it is resumed."""
        self.by_key: dict[str, Expectation] = {}
        self.of: dict[str, dict[str, Expectation]] = {}
        """By name, then by host."""
        self.runs = 0
        """How many runs are under way in all."""
        self.counters = {"runs_over": 0, "hosts_over": 0, "past": 0}
        """Runs and hosts that were one too many to follow, and messages of runs that were over for a day when they came."""
        self._clocks = clocks
        self._bound: dict[str, list[str]] = {}
        """Job -> the keys of the expectations that know a run of it."""
        self.use({})

    def use(self, rules: Mapping[str, Rule]) -> None:
        """These rules are in force."""
        self.rules = dict(rules)
        self.matching = Matching(rules)
        self.encoded = msgspec.Raw(msgspec.msgpack.encode(self.rules))
        """For snapshots."""

    def add(self, name: str, host: str) -> Expectation:
        """It is expected from now on."""
        one = Expectation(name, host, self._clocks.date)
        self.by_key[one.key] = self.of[name][host] = one
        self.expect_anew(one)
        return one

    def expect_anew(self, one: Expectation) -> None:
        """From now on."""
        rule = self.rules[one.name]
        one.due = rule.next_due(self._clocks.date) if rule.cron else NEVER
        one.heard = self._clocks.now
        one.missed = 0
        one.unheard.clear()

    def restore(self, one: Expectation) -> None:
        """It was in a snapshot."""
        self.by_key[one.key] = self.of[one.name][one.host] = one
        self.runs += len(one.runs)
        for job in [*one.runs, *one.ended]:
            self._bind(job, one)

    def remove(self, one: Expectation) -> None:
        for run in [*one.runs.values(), *one.ended.values()]:
            self._unbind(run.id, one)
        self.runs -= len(one.runs)
        self.by_key.pop(one.key, None)
        self.of[one.name].pop(one.host, None)

    def in_order(self, name: str) -> Iterator[Expectation]:
        """Those of these names (a glob), in the config's order, then by host."""
        for known in fnmatch.filter(self.rules, name):
            for _, one in sorted(self.of.get(known, {}).items()):
                yield one

    def state(self, one: Expectation) -> str:
        return one.state(paused=one.name in self.paused)

    # -- runs

    def put(self, one: Expectation, run: Run) -> None:
        """The run is under way, for the first time or again."""
        one.ended.pop(run.id, None)
        one.runs[run.id] = run
        self._bind(run.id, one)
        self.runs += 1

    def end(self, one: Expectation, run: Run) -> None:
        """It is over, and remembered as that for a while."""
        for job in one.remember(run):
            self._unbind(job, one)
        self.runs -= 1

    def forget(self, one: Expectation, run: Run) -> None:
        """It is not followed any more."""
        del one.runs[run.id]
        self.runs -= 1
        self._unbind(run.id, one)

    def that_know(self, job: str) -> list[Expectation]:
        """Those that know a run of a job, also one that has ended."""
        return [self.by_key[key] for key in self._bound.get(job, ())]

    def that_follow(self, job: str) -> list[Expectation]:
        """Those that have a run of a job under way, by name."""
        return [one for key in sorted(self._bound.get(job, ())) if job in (one := self.by_key[key]).runs]

    def _bind(self, job: str, one: Expectation) -> None:
        keys = self._bound.setdefault(job, [])
        if one.key not in keys:
            keys.append(one.key)

    def _unbind(self, job: str, one: Expectation) -> None:
        keys = self._bound.get(job)
        if keys is not None and one.key in keys:
            keys.remove(one.key)
            if not keys:
                del self._bound[job]
