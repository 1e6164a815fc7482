"""When each expectation is looked at next, and when a pause ends: on `elapsed` and by the date, since the one moves against the other.

An expectation waits under a deadline of each kind that is never later than the real one; what is in a heap and is not its deadline any
more is passed over.
"""

from __future__ import annotations

import heapq

from wafermon.correlation.schedules.clocks import Clocks
from wafermon.correlation.schedules.expectation import Expectation
from wafermon.correlation.schedules.expectations import Expectations
from wafermon.correlation.traces import NEVER

FORGET = 7 * 86_400_000_000
"""A run, or a host, that was not heard for so long is forgotten."""
PAUSE = "!"
"""Before a schedule's name among the deadlines of dates: that of its pause."""
_Heap = list[tuple[int, str]]


class Timetable:
    def __init__(self, clocks: Clocks, expectations: Expectations) -> None:
        self._clocks = clocks
        self._known = expectations
        self._elapsed: _Heap = []
        self._dates: _Heap = []

    @property
    def by_date(self) -> bool:
        """Whether something goes by the date."""
        return bool(self._dates)

    def next_at(self) -> int:
        """On `elapsed`: when something is due next; NEVER where nothing is."""
        return self._first()[0]

    def pop(self) -> str:
        """What that is: an expectation's key, or `PAUSE` and the name of a schedule whose pause ends."""
        return heapq.heappop(self._first()[1])[1]

    def _first(self) -> tuple[int, _Heap]:
        """When something is due next, and the heap whose first it is. Of two at once, durations come before dates."""
        heap, by_key = self._elapsed, self._known.by_key
        while heap and ((one := by_key.get(heap[0][1])) is None or one.queued != heap[0][0]):
            heapq.heappop(heap)
        dates = self._dates
        while dates and not self._waits(*dates[0]):
            heapq.heappop(dates)
        at = heap[0][0] if heap else NEVER
        dated = dates[0][0] - self._clocks.offset if dates else NEVER
        return (at, heap) if at <= dated else (dated, dates)

    def _waits(self, at: int, key: str) -> bool:
        if key.startswith(PAUSE):
            return self._known.paused.get(key.removeprefix(PAUSE)) == at
        one = self._known.by_key.get(key)
        return one is not None and one.queued_date == at

    def pause(self, name: str, until: int) -> None:
        """The pause of a schedule ends at a date; with NEVER it does not."""
        if until != NEVER:
            heapq.heappush(self._dates, (until, PAUSE + name))

    def queue(self, one: Expectation) -> None:
        """See to it that it comes up no later than something is due."""
        if one.name in self._known.paused:
            return
        at, date = self._deadlines(one)
        if at < one.queued:
            one.queued = at
            heapq.heappush(self._elapsed, (at, one.key))
        if date < one.queued_date:
            one.queued_date = date
            heapq.heappush(self._dates, (date, one.key))

    def queue_anew(self, one: Expectation) -> None:
        """What it waited for may have moved further away."""
        one.queued = one.queued_date = NEVER
        self.queue(one)

    def came_up(self, one: Expectation) -> None:
        """What it waited for is now, or was before."""
        if one.queued <= self._clocks.now:
            one.queued = NEVER
        if one.queued_date <= self._clocks.date:
            one.queued_date = NEVER

    def _deadlines(self, one: Expectation) -> tuple[int, int]:
        """On `elapsed`, and by the date."""
        rule, clocks = self._known.rules[one.name], self._clocks
        at, date = NEVER, NEVER
        for run in one.runs.values():
            at = min(at, run.heard + FORGET)
            if not run.too_long:
                at = min(at, run.begun + rule.at_most)
            if not run.silent:
                at = min(at, run.heard + rule.silent)
        if one.host and not one.runs:
            at = min(at, one.heard + FORGET)
        if rule.cron:
            date = rule.judged_at(one.due)
            if one.unheard:
                at = min(at, max(clocks.now, clocks.hold))
            if date - clocks.offset < clocks.hold:
                at, date = min(at, clocks.hold), NEVER
        elif not one.missed:
            at = min(at, one.heard + rule.every + rule.grace)
        return max(at, clocks.hold), date
