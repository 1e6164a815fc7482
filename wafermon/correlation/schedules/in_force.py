"""Which schedules are expected: those of the config, but for those that an operator has paused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wafermon.correlation.schedules.clocks import Clocks
from wafermon.correlation.schedules.expectations import Expectations
from wafermon.correlation.schedules.rules import Rule
from wafermon.correlation.schedules.telling import Teller
from wafermon.correlation.schedules.timetable import Timetable
from wafermon.correlation.traces import NEVER
from wafermon.model.messages import Event
from wafermon.model.schedules import PAUSED, RESUMED


@dataclass
class InForce:
    clocks: Clocks
    known: Expectations
    timetable: Timetable
    teller: Teller
    begun: bool = True
    """Whether what the rules ask for has begun to be expected: not before the time is known."""

    def configure(self, rules: Mapping[str, Rule]) -> None:
        """Other schedules are in force. Those that stay go on as they are; those that are new are expected from now on."""
        known = self.known
        if rules == known.rules:
            return
        before = known.rules
        known.use(rules)
        if not self.clocks.now:
            self.begun = False
            return
        for name, hosts in sorted(known.of.items()):
            rule = rules.get(name)
            if rule is None or rule.per_host != before[name].per_host or bool(rule.job) != bool(before[name].job):
                why = "it is not in the config any more" if rule is None else "it is another one now"
                for _, one in sorted(hosts.items()):
                    self.teller.close(one, list(one.open), why)
                    known.remove(one)
                known.of.pop(name, None)
        for name in [name for name in known.paused if name not in rules]:
            del known.paused[name]
        for name, rule in rules.items():
            if name not in known.of:
                self._begin(name, rule)
                continue
            for one in known.of[name].values():
                if rule.rhythm() != before[name].rhythm():
                    known.expect_anew(one)
                self.timetable.queue_anew(one)

    def begin(self) -> None:
        """The time is known now."""
        self.begun = True
        for name, rule in self.known.rules.items():
            self._begin(name, rule)

    def _begin(self, name: str, rule: Rule) -> None:
        self.known.of[name] = {}
        if not rule.per_host:
            self.timetable.queue(self.known.add(name, ""))

    def asked(self, message: Event) -> None:
        """An operator wants a schedule paused or resumed, says an event of the sidecar's own."""
        context: Any = message.context
        name, until, paused = context.get("schedule"), context.get("until"), self.known.paused
        if name not in self.known.rules or not self.begun:
            return
        if context.get("kind") == PAUSED:
            paused[name] = until if type(until) is int and until > 0 else NEVER
            self.timetable.pause(name, paused[name])
        elif paused.pop(name, 0):
            self._resume(name)

    def pause_ends(self, name: str) -> None:
        self.known.paused.pop(name, None)
        for _, one in sorted(self.known.of[name].items()):
            self.teller.tell(one, RESUMED, "its pause is over")
        self._resume(name)

    def _resume(self, name: str) -> None:
        for one in self.known.of[name].values():
            self.known.expect_anew(one)
            self.timetable.queue_anew(one)
