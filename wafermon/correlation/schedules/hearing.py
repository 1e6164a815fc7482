"""What a group says of schedules: which were heard, and whose runs made progress."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from msgspec import UNSET

from wafermon.correlation.schedules.clocks import Clocks
from wafermon.correlation.schedules.expectation import Expectation
from wafermon.correlation.schedules.expectations import Expectations
from wafermon.correlation.schedules.runs import Runs
from wafermon.correlation.schedules.telling import Teller
from wafermon.correlation.schedules.timetable import Timetable
from wafermon.model.blocks import Block
from wafermon.model.messages import OWN_SERVICE, Kind, Message, Progress
from wafermon.model.schedules import FAILED, NOT_STARTED, RUNNING, SILENT

HOSTS = 1_000
"""So many hosts of a schedule are expected."""
_SERVICE, _HOST, _REPLAY = map(Kind._fields.index, ("service", "host", "replay_to"))


@dataclass
class Hearing:
    clocks: Clocks
    known: Expectations
    timetable: Timetable
    teller: Teller
    runs: Runs

    def take(self, blocks: Sequence[Block], program_of: Callable[[Message], str]) -> None:
        if self.known.matching.of_messages:
            self._take_messages(blocks)
        for block in blocks:
            for message in block.followed:
                if isinstance(message, Progress) and not message.replay_to and message.service != OWN_SERVICE:
                    self._take_progress(message, program_of)

    def _take_messages(self, blocks: Sequence[Block]) -> None:
        oldest, matching = self.clocks.oldest, self.known.matching
        heard: dict[tuple[str, str], None] = {}
        for tally in chain.from_iterable(block.tallies() for block in blocks):
            if tally.last < oldest and not self.clocks.was_away(tally.last):
                continue
            for kind in tally.counts:
                host = "" if kind[_HOST] is UNSET else kind[_HOST]
                if kind[_REPLAY] is UNSET:
                    for name in matching.messages(kind[_SERVICE], host):
                        heard[name, host] = None
        for name, host in sorted(heard):
            one = self._find(name, host)
            if one is not None:
                self._heard(one)

    def _find(self, name: str, host: str) -> Expectation | None:
        """The expectation that a message of a host is about; None where there are too many hosts."""
        known, hosts = self.known, self.known.of[name]
        place = host if known.rules[name].per_host else ""
        one = hosts.get(place)
        if one is None:
            if len(hosts) >= HOSTS:
                known.counters["hosts_over"] += 1
                return None
            one = known.add(name, place)
            self.timetable.queue(one)
        return one

    def _heard(self, one: Expectation) -> None:
        first, one.heard, one.last = not one.last, self.clocks.now, self.clocks.date
        if one.missed or one.open:
            one.missed = 0
            self.teller.close(one, [NOT_STARTED, SILENT])
            self.timetable.queue(one)
        elif first:
            self.teller.tell(one, RUNNING, "it is heard")

    def _take_progress(self, message: Progress, program_of: Callable[[Message], str]) -> None:
        job, host = message.job_id, message.host or ""
        service: Any = message.service
        known = {one.name: one for one in self.known.that_know(job) if one.host in ("", host)}
        names = self.known.matching.jobs(job, service, host)
        if not (known or names):
            return
        program = program_of(message)
        # An expectation that knows a run of it goes on with that, whatever service reports it now.
        for name in [*names, *sorted(known.keys() - set(names))]:
            one = known.get(name) or self._find(name, host)
            if one is not None:
                self.runs.take(one, message, program)
            elif message.status == FAILED:
                self._failed_unfollowed(name, message)

    def _failed_unfollowed(self, name: str, message: Progress) -> None:
        """A run has failed on a host that is one too many to be expected: that is told all the same."""
        if (message.ts or 0) < self.clocks.oldest:
            return
        job, apart = message.job_id, Expectation(name, message.host or "", self.clocks.date)
        words = f"run {job} has failed, on a host that is one too many to be expected"
        more = {"run": job, "percent": message.percent}
        self.teller.tell(apart, FAILED, words, opens=True, alone=True, more=more)
