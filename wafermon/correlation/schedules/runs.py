"""The runs of jobs, from the first progress to the end: when each was due, how it began, went on and ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wafermon.correlation.schedules import said
from wafermon.correlation.schedules.clocks import JUMP, SECOND, Clocks
from wafermon.correlation.schedules.expectation import MISSED, Ended, Expectation, Run
from wafermon.correlation.schedules.expectations import Expectations
from wafermon.correlation.schedules.rules import Rule
from wafermon.correlation.schedules.telling import Teller
from wafermon.correlation.schedules.timetable import Timetable
from wafermon.correlation.traces import NEVER, TEXT
from wafermon.model.messages import TERMINAL, Progress
from wafermon.model.schedules import (
    DONE,
    FAILED,
    LATE,
    NOT_STARTED,
    OVERLAPPING,
    RUNNING,
    SILENT,
    TOO_FAST,
    TOO_LONG,
)

LINGER = 5 * SECOND
"""So long after a run's end its progress that comes late is not taken for another run."""
RUNS = 64
"""So many runs of an expectation are followed at once."""
ALL_RUNS = 50_000


@dataclass
class Runs:
    clocks: Clocks
    known: Expectations
    timetable: Timetable
    teller: Teller

    def take(self, one: Expectation, message: Progress, program: str) -> None:
        """Progress of a job that an expectation is about, by a program."""
        rule, job, ts = self.known.rules[one.name], message.job_id, message.ts or 0
        run = one.runs.get(job)
        ended = one.ended.get(job) if run is None else None
        if ended is not None:
            if self._is_late_word(ended, message, program):
                if message.status == FAILED != ended.status:
                    self._failed_before(one, rule, ended)
                return
            if message.status in TERMINAL or (ended.gone and ended.program == program):
                run = self._again(one, rule, ended)
        elif run is not None and run.silent and message.percent < run.percent and ts > run.last:
            self._end(one, rule, run, FAILED, "it began again without an end")
            run = None
        if run is None:
            run = self._start(one, rule, message, program)
            if run is None:
                return
        else:
            run.messages, run.program = 2, program
        self._go_on(one, rule, run, message)

    def gone(self, job: str, program: str) -> list[str]:
        """The program of a job ended without saying so -> the schedules for which a run has failed by that."""
        told = []
        for one in self.known.that_follow(job):
            run = one.runs[job]
            if run.program == program:
                run.gone = True
                self._end(one, self.known.rules[one.name], run, FAILED, "its program is gone")
                told.append(one.name)
        return told

    def _failed_before(self, one: Expectation, rule: Rule, run: Run) -> None:
        """That a run has failed comes after the end of the one that made good for it."""
        alarm = rule.failures == 1
        was_open = FAILED in one.open
        words = f"run {run.id} had failed before it ended otherwise"
        self.teller.tell(one, FAILED, words, run=run, opens=alarm, alone=True)
        if alarm and not was_open:
            self.teller.close(one, [FAILED])

    def _is_late_word(self, run: Run, message: Progress, program: str) -> bool:
        """Whether what comes after a run's end says nothing new."""
        ts = message.ts or 0
        if message.status in TERMINAL:
            return message.status == run.status or ts < run.last
        if run.gone and run.program == program:
            return False
        return ts <= run.last or (message.percent >= run.percent and self.clocks.now - run.over < LINGER)

    def _start(self, one: Expectation, rule: Rule, message: Progress, program: str) -> Run | None:
        elapsed, now, ts = self.clocks.now, self.clocks.date, message.ts or 0
        was_away = self.clocks.was_away(ts)
        if ts < self.clocks.oldest and not was_away:
            self.known.counters["past"] += 1
            return None
        if (len(one.runs) >= RUNS or self.known.runs >= ALL_RUNS) and message.status not in TERMINAL:
            self.known.counters["runs_over"] += 1  # one that is over with this message takes no place
            return None
        started = min(ts, now) if was_away else now
        begun = elapsed - (now - started)
        due, is_late = self._due_of(one, rule, started)
        service: Any = message.service
        trace_id: Any = message.trace_id or message.job_id
        run = Run(
            message.job_id, trace_id, due, begun, elapsed, started, ts, ts, message.host or "", message.percent, service[:TEXT],
            program,
        )  # fmt: skip
        others = len(one.runs)
        self.known.put(one, run)
        one.last, one.heard = max(one.last, started), max(one.heard, begun)
        if is_late:
            words = f"run {run.id} has started {said.span(started - due)} after it was due, {said.moment(due, rule)}"
            self.teller.tell(one, LATE, words, run=run, opens=True, more={"late": started - due})
        if rule.runs and others >= rule.runs:
            words = f"run {run.id} has started while {others} {'is' if others == 1 else 'are'} under way"
            self.teller.tell(one, OVERLAPPING, words, run=run, opens=True, more={"others": [*one.runs][:-1][:8]})
        elif not is_late:
            self.teller.tell(one, RUNNING, f"run {run.id} has started", run=run)
        if due >= max(one.missed, 1):
            one.missed = 0
            self.teller.close(one, [NOT_STARTED])
        self.timetable.queue(one)
        return run

    def _due_of(self, one: Expectation, rule: Rule, started: int) -> tuple[int, bool]:
        """The time that a run which began then was due at (0: it was not), and whether it is late. That time is not waited for
        any more."""
        if rule.every:
            return one.missed or one.heard + self.clocks.offset + rule.every, bool(one.missed)
        due = rule.due_of(started)
        if due < one.since:
            return 0, False
        if due >= one.due:
            while one.due < due and len(one.unheard) < MISSED:
                one.unheard.append(one.due)
                one.due = rule.next_due(one.due)
            one.more_unheard |= one.due < due
            one.due = rule.next_due(due)
        elif due in one.unheard:
            one.unheard.remove(due)
        elif due != one.missed:
            return 0, False
        return due, started > due + rule.grace or due == one.missed

    def _go_on(self, one: Expectation, rule: Rule, run: Run, message: Progress) -> None:
        ts = message.ts or 0
        run.heard = self.clocks.now
        if run.silent:
            run.silent = False
            self.teller.close(one, [f"{SILENT} {run.id}"])
        status = message.status[:TEXT] if message.status else ""
        if ts >= run.last or status in TERMINAL:
            run.percent = message.percent
            run.status = status or run.status
        run.last = max(run.last, ts)
        if status in TERMINAL:
            self._end(one, rule, run, status, "", ts if (message.host or "") == run.host else 0)
        elif rule.silent != NEVER:
            self.timetable.queue(one)

    def _end(self, one: Expectation, rule: Rule, run: Run, status: str, why: str, ts: int = 0) -> None:
        """`ts`: when it ended by the clock by which it began; 0 where that is not known."""
        here = self.clocks.now - run.begun
        there = max(0, ts - run.first) if ts else here
        took = there if self.clocks.date - ts > JUMP else here
        run.over, run.status = self.clocks.now, status
        self.known.end(one, run)
        state = FAILED if status == FAILED else DONE
        one.last_run = Ended(run.id, run.trace_id, state, run.started, run.started + took, took)
        more: dict[str, Any] = {"took": took}
        if rule.at_most != NEVER and took > rule.at_most and not run.too_long and not run.gone:
            run.too_long = True
            words = f"run {run.id} has taken {said.span(took)}, longer than {said.span(rule.at_most)}"
            self.teller.tell(one, TOO_LONG, words, run=run, opens=True, more=more)
        if status == FAILED:
            self._tell_failed(one, rule, run, why, more)
        elif status == DONE:
            self._tell_done(one, rule, run, max(here, there), more)
        else:
            words = f"run {run.id} was cancelled after {said.span(took)}"
            self.teller.tell(one, DONE, words, run=run, more={**more, "status": status})
            one.keep_open(one.opened_by(run.id))
        self.teller.close(one, one.overlaps_over(rule.runs))
        self.timetable.queue(one)

    def _tell_failed(self, one: Expectation, rule: Rule, run: Run, why: str, more: dict[str, Any]) -> None:
        own = one.opened_by(run.id)
        one.failures += 1
        words = f"run {run.id} has failed" + (f": {why}" if why else "")
        words += f", {one.failures} in a row" if one.failures > 1 else ""
        more = {**more, "failures": one.failures, **({"reason": why} if why else {})}
        self.teller.tell(one, FAILED, words, run=run, opens=one.failures >= rule.failures, alone=True, more=more)
        one.keep_open(own)

    def _tell_done(self, one: Expectation, rule: Rule, run: Run, long: int, more: dict[str, Any]) -> None:
        """`long`: the longer one of its durations by the two clocks."""
        own = one.opened_by(run.id)
        one.failures = 0
        fast = long < rule.at_least and run.messages > 1
        if fast:
            words = f"run {run.id} was done after {said.span(long)}, sooner than {said.span(rule.at_least)}"
            self.teller.tell(one, TOO_FAST, words, run=run, opens=True, alone=True, more=more)
        else:
            self.teller.tell(one, DONE, f"run {run.id} is done after {said.span(more['took'])}", run=run, more=more)
        plain = [key for key in one.open if " " not in key and key not in (NOT_STARTED, TOO_FAST if fast else "")]
        self.teller.close(one, [*own, *plain, *one.overlaps_over(rule.runs)])

    def _again(self, one: Expectation, rule: Rule, run: Run) -> Run:
        """What had ended goes on, or ends otherwise."""
        self.known.put(one, run)
        if run.status == FAILED:
            one.failures = max(0, one.failures - 1)
        was_gone, run.gone, run.over, run.status = run.gone, False, 0, ""
        if was_gone:
            self.teller.tell(one, RUNNING, f"run {run.id} goes on: its program is back", run=run)
            if one.failures < rule.failures:
                self.teller.close(one, [FAILED])
        return run
