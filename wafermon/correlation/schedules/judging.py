"""What is due and has not happened: runs that have not started, take too long, or are silent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wafermon.correlation.schedules import said
from wafermon.correlation.schedules.clocks import Clocks
from wafermon.correlation.schedules.expectation import MISSED, Expectation, Run
from wafermon.correlation.schedules.expectations import Expectations
from wafermon.correlation.schedules.rules import Rule
from wafermon.correlation.schedules.telling import Teller
from wafermon.correlation.schedules.timetable import FORGET, Timetable
from wafermon.correlation.traces import NEVER
from wafermon.model.schedules import NOT_STARTED, SILENT, TOO_LONG


@dataclass
class Judge:
    clocks: Clocks
    known: Expectations
    timetable: Timetable
    teller: Teller

    def judge(self, one: Expectation) -> None:
        """Its time has come, or may have."""
        rule, now = self.known.rules[one.name], self.clocks.now
        self.timetable.came_up(one)
        if one.name in self.known.paused:
            return
        if now >= self.clocks.hold:
            for run in list(one.runs.values()):
                self._judge_run(one, rule, run)
            if rule.cron:
                self._judge_cron(one, rule)
            elif not one.missed and one.heard + rule.every + rule.grace <= now:
                self._judge_every(one, rule)
            if one.host and not one.runs and one.heard + FORGET <= now:
                why = f"it was not heard for {said.span(FORGET)}, and is not expected any more"
                self.teller.close(one, list(one.open), why)
                self.known.remove(one)
                return
        self.timetable.queue(one)

    def _judge_run(self, one: Expectation, rule: Rule, run: Run) -> None:
        now = self.clocks.now
        if not run.too_long and run.begun + rule.at_most <= now:
            run.too_long = True
            words = f"run {run.id} takes longer than {said.span(rule.at_most)}, and is at {run.percent:g} %"
            self.teller.tell(one, TOO_LONG, words, run=run, opens=True)
        if not run.silent and run.heard + rule.silent <= now:
            run.silent = True
            words = f"run {run.id} has made no progress for {said.span(now - run.heard)}, and is at {run.percent:g} %"
            self.teller.tell(one, SILENT, words, run=run, opens=True)
        if run.heard + FORGET <= now:
            own = one.opened_by(run.id)
            self.known.forget(one, run)
            self.teller.close(one, [*own, *one.overlaps_over(rule.runs)], f"run {run.id} is forgotten")

    def _judge_cron(self, one: Expectation, rule: Rule) -> None:
        date = self.clocks.date
        while one.due != NEVER and rule.judged_at(one.due) <= date:
            if len(one.unheard) >= MISSED:
                self._pass_over(one, rule, date)
                break
            one.unheard.append(one.due)
            one.due = rule.next_due(one.due)
        if not one.unheard:
            return
        last, older = max(one.unheard), len(one.unheard) - 1
        words = f"nothing has started that was due {said.moment(last, rule)}"
        more: dict[str, Any] = {}
        if older:
            more = {"older": older, "first_due": min(one.unheard)}
            others = f"{'more than ' if one.more_unheard else ''}{older}"
            words += f", nor what was due at {others} times since {said.moment(more['first_due'], rule)}"
        newer = any(run.due > last for run in [*one.runs.values(), *one.ended.values()])
        one.unheard.clear()
        one.more_unheard = False
        one.missed = 0 if newer else last
        self.teller.tell(one, NOT_STARTED, words, due=last, opens=True, alone=True, more=more)
        if newer:
            self.teller.close(one, [NOT_STARTED])

    def _pass_over(self, one: Expectation, rule: Rule, date: int) -> None:
        """There are too many due times up to now to tell them all: come to the last one."""
        one.more_unheard = True
        due = rule.last_due(date)
        while rule.judged_at(due) > date:
            due = rule.last_due(due - 1)
        one.unheard[-1] = due
        one.due = rule.next_due(due)

    def _judge_every(self, one: Expectation, rule: Rule) -> None:
        one.missed = due = one.heard + self.clocks.offset + rule.every
        waited = said.span(self.clocks.now - one.heard)
        if rule.job:
            words = f"nothing has started for {waited}, and it should each {said.span(rule.every)}"
        else:
            words = f"nothing was heard of it for {waited}, and something should be each {said.span(rule.every)}"
        state = SILENT if one.last and not rule.job else NOT_STARTED
        more = {"last": one.last} if one.last else {}
        self.teller.tell(one, state, words, due=due, opens=True, alone=True, more=more)
