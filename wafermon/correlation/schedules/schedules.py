"""All expectations, as the engine has them: what comes of the groups, in order, and what is due.

What is told is a function of the groups and their times, wherever a snapshot was taken and restored between them, as in the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from wafermon.correlation.schedules import views
from wafermon.correlation.schedules.clocks import JUMP, Clocks
from wafermon.correlation.schedules.expectation import Expectation
from wafermon.correlation.schedules.expectations import Expectations
from wafermon.correlation.schedules.hearing import Hearing
from wafermon.correlation.schedules.in_force import InForce
from wafermon.correlation.schedules.judging import Judge
from wafermon.correlation.schedules.rules import Rule
from wafermon.correlation.schedules.runs import Runs
from wafermon.correlation.schedules.telling import Teller
from wafermon.correlation.schedules.timetable import PAUSE, Timetable
from wafermon.model.blocks import Block
from wafermon.model.messages import Event, Message
from wafermon.model.schedules import STATES

PART = 100
"""So many of a snapshot are written at a time."""


class State(Struct):
    """A snapshot."""

    rules: dict[str, Rule]
    now: int
    date: int
    """What is added to `now` for the date."""
    hold: int
    away: tuple[int, int]
    paused: dict[str, int]
    counters: dict[str, int]
    told: dict[str, int]
    expected: list[Expectation]
    begun: bool = True


class Schedules:
    """One journal's. `journal_id` is the `client` of the events; `emit` is given each of them."""

    def __init__(self, journal_id: str, emit: Callable[[Event], None]) -> None:
        self._clocks = clocks = Clocks()
        self._known = known = Expectations(clocks)
        self._timetable = timetable = Timetable(clocks, known)
        self._teller = teller = Teller(clocks, known, journal_id, emit)
        self._in_force = InForce(clocks, known, timetable, teller)
        self._judge = Judge(clocks, known, timetable, teller)
        self._runs = Runs(clocks, known, timetable, teller)
        self._hearing = Hearing(clocks, known, timetable, teller, self._runs)

    def __bool__(self) -> bool:
        return bool(self._known.rules)

    @property
    def rules(self) -> Mapping[str, Rule]:
        return self._known.rules

    @property
    def counters(self) -> dict[str, int]:
        """See `Expectations.counters`."""
        return self._known.counters

    @property
    def told(self) -> dict[str, int]:
        """How often what was told."""
        return self._teller.told

    # -- time

    def advance(self, elapsed: int, most: int = 0) -> bool:
        """Judge what is due by then, in order of time, at most so many (0: all) -> whether that was all."""
        judged = 0
        while (at := self._timetable.next_at()) <= elapsed:
            if most and judged >= most:
                return False
            key = self._timetable.pop()
            self._clocks.come_to(at)
            if key.startswith(PAUSE):
                self._in_force.pause_ends(key.removeprefix(PAUSE))
            else:
                self._judge.judge(self._known.by_key[key])
            judged += 1
        self._clocks.come_to(elapsed)
        return True

    def moved(self, time: int, elapsed: int) -> None:
        """A group was received at `elapsed`, by which everything has been judged, at the date `time`."""
        clocks = self._clocks
        before, clocks.offset = clocks.offset, time - elapsed
        clocks.come_to(elapsed)
        if not self:
            return
        if not self._in_force.begun:
            self._in_force.begin()
            return
        if abs(clocks.offset - before) > JUMP:
            self._jumped(elapsed + before, time)
        self.advance(elapsed)

    def begin_late(self, now: int, date: int) -> None:
        """There is a snapshot of before schedules were kept: this is its time; `date` is what is added to `now` for the date."""
        self._clocks.now, self._clocks.offset = now, date

    def away(self, gap: int, time: int, elapsed: int) -> None:
        """The group that comes now, received at `elapsed` and the date `time`, is the first one after the sidecar was away for
        `gap`."""
        clocks = self._clocks
        self.advance(max(clocks.now, elapsed - gap))
        left = clocks.date
        clocks.come_to(elapsed)
        clocks.offset = time - elapsed
        if self and self._in_force.begun:
            self._jumped(left, time)

    def wait_after_start(self, time: int) -> None:
        """So long nothing is judged after the sidecar was away."""
        self._clocks.after_start = time

    def _jumped(self, before: int, after: int) -> None:
        """The date went from one to the other at once."""
        self._clocks.jump(before, after)
        for one in self._known.by_key.values():
            rule = self.rules[one.name]
            if rule.cron and after < before and one.due > (due := rule.next_due(after)):
                one.due = due
                one.missed = 0
                one.unheard.clear()
            self._timetable.queue_anew(one)

    @property
    def date(self) -> int:
        """What is added to `elapsed` for the date, as the last group had it."""
        return self._clocks.offset

    @property
    def by_date(self) -> bool:
        """Whether something goes by the date."""
        return self._timetable.by_date

    # -- what comes

    def configure(self, rules: Mapping[str, Rule]) -> None:
        """Other schedules are in force. Those that stay go on as they are; those that are new are expected from now on."""
        self._in_force.configure(rules)

    def asked(self, message: Event) -> None:
        """An operator wants a schedule paused or resumed, says an event of the sidecar's own."""
        self._in_force.asked(message)

    def take(self, blocks: Sequence[Block], program_of: Callable[[Message], str]) -> None:
        """The blocks of a group whose time is known (`moved`)."""
        if self._in_force.begun:
            self._hearing.take(blocks, program_of)

    def gone(self, job: str, program: str, at: int) -> list[str]:
        """The program of a job ended without saying so, as is known at `at` -> the schedules for which a run has failed by that."""
        if not self:
            return []
        self.advance(at)
        return self._runs.gone(job, program)

    # -- what is asked

    def that_follow(self, job: str) -> list[str]:
        """The schedules, by name, that have a run of this job under way."""
        return [one.name for one in self._known.that_follow(job)]

    def troubles_of(self, job: str) -> list[str]:
        """See `views.troubles_of`."""
        return views.troubles_of(self._known, job)

    def records(self, name: str = "*", states: Container[str] = STATES, limit: int = 0) -> list[dict[str, Any]]:
        """See `views.records`."""
        return views.records(self._known, self.date, name, states, limit)

    def count(self, name: str = "*", states: Container[str] = STATES) -> int:
        """How many these are."""
        return views.count(self._known, name, states)

    def states(self) -> dict[str, int]:
        """How many expectations are in which state."""
        return views.states(self._known)

    def troubled(self) -> dict[str, int]:
        """Schedule -> how many of its expectations are not as they should be."""
        return views.troubled(self._known)

    # -- snapshots

    def snapshot_in_parts(self) -> Iterator[bytes]:
        """Nothing a few times, then the snapshot; of nothing it is empty."""
        if not self:
            return
        known, clocks = self._known, self._clocks
        encoder = msgspec.msgpack.Encoder()
        data = bytearray(b"\xdd" + len(known.by_key).to_bytes(4, "big"))  # an array, and its length in 32 bits
        for n, one in enumerate(known.by_key.values(), 1):
            encoder.encode_into(one, data, -1)
            if n % PART == 0:
                yield b""
        expected: Any = msgspec.Raw(data)
        rules: Any = known.encoded
        yield encoder.encode(
            State(
                rules, clocks.now, clocks.offset, clocks.hold, clocks.away, known.paused, self.counters, self.told, expected,
                self._in_force.begun,
            )
        )  # fmt: skip

    def restore(self, data: bytes) -> None:
        """Go back to a snapshot, under the rules of then. Raises msgspec.DecodeError."""
        state, known, clocks = msgspec.msgpack.decode(data, type=State), self._known, self._clocks
        clocks.now, clocks.offset, clocks.hold, clocks.away = state.now, state.date, state.hold, state.away
        known.use(state.rules)
        known.paused, self._in_force.begun, self._teller.told = state.paused, state.begun, state.told
        known.counters |= state.counters
        known.of = {name: {} for name in self.rules} if state.begun else {}
        for one in state.expected:
            known.restore(one)
        for name, until in known.paused.items():
            self._timetable.pause(name, until)
        for one in state.expected:
            self._timetable.queue_anew(one)
