"""All expectations: what comes of the groups, in order, and what is due.

What is told is a function of the groups and their times, wherever a snapshot was taken and restored between them, as in the engine. There
are two clocks: durations go by the groups' `elapsed`, due times of cron expressions by the date. So each expectation waits under two
deadlines, and the date is looked at as the last group had it. A date that jumps, or a sidecar that was away, begins a grace in which
nothing is judged: what was sent meanwhile comes first.
"""

from __future__ import annotations

import fnmatch
import heapq
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from wafermon.correlation.schedules import said, views
from wafermon.correlation.schedules.expectation import Ended, Expectation, Run
from wafermon.correlation.schedules.rules import Rule
from wafermon.correlation.traces import NEVER, TEXT
from wafermon.model.blocks import Block
from wafermon.model.matching import Matching
from wafermon.model.messages import OWN_SERVICE, TERMINAL, Event, Kind, Message, Progress
from wafermon.model.schedules import (
    DONE,
    FAILED,
    LATE,
    NOT_STARTED,
    OVERLAPPING,
    PAST_SECONDS,
    PAUSED,
    RECOVERED,
    RESUMED,
    RUNNING,
    SILENT,
    STATES,
    TOO_FAST,
    TOO_LONG,
)

SECOND = 1_000_000
DAY = 86_400 * SECOND
AFTER_START = 60 * SECOND
JUMP = 60 * SECOND
"""A date that changes by more was wrong, before or now."""
LINGER = 5 * SECOND
"""So long after a run's end its progress that comes late is not taken for another run."""
PAST = PAST_SECONDS * SECOND
BEFORE_AWAY = 60 * SECOND
"""What was sent so long before the sidecar went may have been lost then, and come again."""
FORGET = 7 * DAY
"""A run, or a host, that was not heard for so long is forgotten."""
RUNS = 64
"""So many runs of an expectation are followed at once."""
ALL_RUNS = 50_000
HOSTS = 1_000
"""So many hosts of a schedule are expected."""
MISSED = 100
"""So many due times of an absence are told one by one."""
PART = 100
"""So many of a snapshot are written at a time."""
_SERVICE, _TYPE, _HOST, _REPLAY = map(Kind._fields.index, ("service", "type", "host", "replay_to"))
_PAUSE = "!"
"""Before a schedule's name among the deadlines of dates: that of its pause."""


class State(Struct):
    """A snapshot."""

    rules: dict[str, Rule]
    now: int
    date: int
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
        self.rules: Mapping[str, Rule]
        self.counters = {"runs_over": 0, "hosts_over": 0, "past": 0}
        """Runs and hosts that were one too many to follow, and messages of runs that were over for a day when they came."""
        self.told: dict[str, int] = {}
        """How often what was told."""
        self.after_start = AFTER_START
        """So long nothing is judged after the sidecar was away."""
        self._journal_id = journal_id
        self._emit = emit
        self._now = 0
        """On `elapsed`: up to here everything has been judged."""
        self._date = 0
        """What is added to `elapsed` for the date."""
        self._hold = 0
        """On `elapsed`: nothing is judged before."""
        self._away = (0, 0)
        """The dates between which the sidecar was away last, or which the date jumped over."""
        self._begun = True
        """Whether what the rules ask for has begun to be expected: not before the time is known."""
        self._paused: dict[str, int] = {}
        """Schedule -> the date until which; NEVER: until it is resumed."""
        self._expected: dict[str, Expectation] = {}
        self._of: dict[str, dict[str, Expectation]] = {}
        """By name, then by host."""
        self._set_rules({})
        self._bound: dict[str, list[str]] = {}
        """Job -> the keys of the expectations that know a run of it."""
        self._runs = 0
        self._elapsed: list[tuple[int, str]] = []
        self._dates: list[tuple[int, str]] = []

    def __bool__(self) -> bool:
        return bool(self.rules)

    # -- time

    def advance(self, elapsed: int, most: int = 0) -> bool:
        """Judge what is due by then, in order of time, at most so many (0: all) -> whether that was all."""
        judged = 0
        while True:
            at, heap = self._first()
            if at > elapsed:
                self._now = max(self._now, elapsed)
                return True
            if most and judged >= most:
                return False
            _, key = heapq.heappop(heap)
            self._now = max(self._now, at)
            if key.startswith(_PAUSE):
                self._pause_ends(key.removeprefix(_PAUSE))
            else:
                self._judge(self._expected[key])
            judged += 1

    def _first(self) -> tuple[int, list[tuple[int, str]]]:
        """When something is due next, and the heap whose first it is. Of two at once, durations come before dates."""
        heap = self._elapsed
        while heap and ((one := self._expected.get(heap[0][1])) is None or one.queued != heap[0][0]):
            heapq.heappop(heap)
        dates = self._dates
        while dates and not self._waits(*dates[0]):
            heapq.heappop(dates)
        at = heap[0][0] if heap else NEVER
        dated = dates[0][0] - self._date if dates else NEVER
        return (at, heap) if at <= dated else (dated, dates)

    def _waits(self, at: int, key: str) -> bool:
        if key.startswith(_PAUSE):
            return self._paused.get(key.removeprefix(_PAUSE)) == at
        one = self._expected.get(key)
        return one is not None and one.queued_date == at

    def moved(self, time: int, elapsed: int) -> None:
        """A group was received at `elapsed`, by which everything has been judged, at the date `time`."""
        before, self._date = self._date, time - elapsed
        self._now = max(self._now, elapsed)
        if not self.rules:
            return
        if not self._begun:
            self._begin_all()
            return
        if abs(self._date - before) > JUMP:
            self._jumped(elapsed + before, time)
        self.advance(elapsed)

    def begin_late(self, now: int, date: int) -> None:
        """There is a snapshot of before schedules were kept: this is its time."""
        self._now, self._date = now, date

    def away(self, gap: int, time: int, elapsed: int) -> None:
        """The group that comes now, received at `elapsed` and the date `time`, is the first one after the sidecar was away for
        `gap`."""
        self.advance(max(self._now, elapsed - gap))
        left = self._now + self._date
        self._now, self._date = max(self._now, elapsed), time - elapsed
        if self.rules and self._begun:
            self._jumped(left, time)

    def _jumped(self, before: int, after: int) -> None:
        """The date went from one to the other at once."""
        self._hold = max(self._hold, self._now + self.after_start)
        if before < after:
            self._away = before, after
        for one in self._expected.values():
            rule = self.rules[one.name]
            if rule.cron and after < before and one.due > (due := rule.next_due(after)):
                one.due = due
                one.missed = 0
                one.unheard.clear()
            self._queue_anew(one, rule)

    # -- rules

    def configure(self, rules: Mapping[str, Rule]) -> None:
        """Other schedules are in force. Those that stay go on as they are; those that are new are expected from now on."""
        if rules == self.rules:
            return
        before = self.rules
        self._set_rules(rules)
        if not self._now:
            self._begun = False
            return
        for name, hosts in sorted(self._of.items()):
            rule = rules.get(name)
            if rule is None or rule.per_host != before[name].per_host or bool(rule.job) != bool(before[name].job):
                for _, one in sorted(hosts.items()):
                    self._drop(one, "it is not in the config any more" if rule is None else "it is another one now")
                self._of.pop(name, None)
        for name in [name for name in self._paused if name not in rules]:
            del self._paused[name]
        for name, rule in rules.items():
            if name not in self._of:
                self._begin(name, rule)
                continue
            for one in self._of[name].values():
                if rule.rhythm() != before[name].rhythm():
                    self._expect_anew(one, rule)
                self._queue_anew(one, rule)

    def _set_rules(self, rules: Mapping[str, Rule]) -> None:
        self.rules = dict(rules)
        self._matching = Matching(rules)
        self._raw_rules = msgspec.Raw(msgspec.msgpack.encode(self.rules))

    def _begin_all(self) -> None:
        self._begun = True
        for name, rule in self.rules.items():
            self._begin(name, rule)

    def _begin(self, name: str, rule: Rule) -> None:
        self._of[name] = {}
        if not rule.per_host:
            self._expect(name, "", rule)

    def _expect(self, name: str, host: str, rule: Rule) -> Expectation:
        one = Expectation(name, host, self._now + self._date)
        self._expected[one.key] = self._of[name][host] = one
        self._expect_anew(one, rule)
        self._queue(one, rule)
        return one

    def _expect_anew(self, one: Expectation, rule: Rule) -> None:
        """From now on."""
        one.due = rule.next_due(self._now + self._date) if rule.cron else NEVER
        one.heard = self._now
        one.missed = 0
        one.unheard.clear()

    def _drop(self, one: Expectation, why: str) -> None:
        self._close(one, list(one.open), why)
        for run in [*one.runs.values(), *one.ended.values()]:
            self._unbind(run.id, one)
        self._runs -= len(one.runs)
        self._expected.pop(one.key, None)
        self._of[one.name].pop(one.host, None)

    # -- what comes

    def take(self, blocks: Sequence[Block], program_of: Callable[[Message], str]) -> None:
        """The blocks of a group whose time is known (`moved`)."""
        if not self._begun:
            return
        if self._matching.of_messages:
            self._hear(blocks)
        for block in blocks:
            for message in block.followed:
                if isinstance(message, Progress) and not message.replay_to and message.service != OWN_SERVICE:
                    self._progress(message, program_of)

    def _hear(self, blocks: Sequence[Block]) -> None:
        oldest = self._now + self._date - PAST
        heard: dict[tuple[str, str], None] = {}
        for tally in chain.from_iterable(block.tallies() for block in blocks):
            if tally.last < oldest and not self._was_away(tally.last):
                continue
            for kind in tally.counts:
                host = "" if kind[_HOST] is UNSET else kind[_HOST]
                if kind[_REPLAY] is UNSET:
                    for name in self._matching.messages(kind[_SERVICE], host):
                        heard[name, host] = None
        for name, host in sorted(heard):
            one = self._one(name, host)
            if one is not None:
                self._heard(one)

    def _one(self, name: str, host: str) -> Expectation | None:
        """The expectation that a message of a host is about; None where there are too many hosts."""
        rule, hosts = self.rules[name], self._of[name]
        place = host if rule.per_host else ""
        one = hosts.get(place)
        if one is None:
            if len(hosts) >= HOSTS:
                self.counters["hosts_over"] += 1
                return None
            one = self._expect(name, place, rule)
        return one

    def _heard(self, one: Expectation) -> None:
        first, one.heard, one.last = not one.last, self._now, self._now + self._date
        if one.missed or one.open:
            one.missed = 0
            self._close(one, [NOT_STARTED, SILENT])
            self._queue(one, self.rules[one.name])
        elif first:
            self._tell(one, RUNNING, "it is heard")

    def asked(self, message: Event) -> None:
        """An operator wants a schedule paused or resumed, says an event of the sidecar's own."""
        context: Any = message.context
        name, until = context.get("schedule"), context.get("until")
        if name not in self.rules or not self._begun:
            return
        if context.get("kind") == PAUSED:
            self._paused[name] = until if type(until) is int and until > 0 else NEVER
            if self._paused[name] != NEVER:
                heapq.heappush(self._dates, (self._paused[name], _PAUSE + name))
        elif self._paused.pop(name, 0):
            self._resume(name)

    def _pause_ends(self, name: str) -> None:
        self._paused.pop(name, None)
        for _, one in sorted(self._of[name].items()):
            self._tell(one, RESUMED, "its pause is over")
        self._resume(name)

    def _resume(self, name: str) -> None:
        rule = self.rules[name]
        for one in self._of[name].values():
            self._expect_anew(one, rule)
            self._queue_anew(one, rule)

    # -- runs

    def _progress(self, message: Progress, program_of: Callable[[Message], str]) -> None:
        job, host = message.job_id, message.host or ""
        service: Any = message.service
        bound = [self._expected[key] for key in self._bound.get(job, ())]
        known = {one.name: one for one in bound if one.host in ("", host)}
        names = self._matching.jobs(job, service, host)
        if not (known or names):
            return
        program = program_of(message)
        # An expectation that knows a run of it goes on with that, whatever service reports it now.
        for name in [*names, *sorted(known.keys() - set(names))]:
            one = known.get(name) or self._one(name, host)
            if one is not None:
                self._take(one, message, program)
            elif message.status == FAILED:
                self._failed_unfollowed(name, message)

    def _take(self, one: Expectation, message: Progress, program: str) -> None:
        rule, job, ts = self.rules[one.name], message.job_id, message.ts or 0
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

    def _failed_unfollowed(self, name: str, message: Progress) -> None:
        """A run has failed on a host that is one too many to be expected: that is told all the same."""
        if (message.ts or 0) < self._now + self._date - PAST:
            return
        host, job = message.host or "", message.job_id
        apart = Expectation(name, host, self._now + self._date)
        words = f"run {job} has failed, on a host that is one too many to be expected"
        self._tell(apart, FAILED, words, opens=True, alone=True, more={"run": job, "percent": message.percent})

    def _failed_before(self, one: Expectation, rule: Rule, run: Run) -> None:
        """That a run has failed comes after the end of the one that made good for it."""
        alarm = rule.failures == 1
        was_open = FAILED in one.open
        words = f"run {run.id} had failed before it ended otherwise"
        self._tell(one, FAILED, words, run=run, due=run.due, opens=alarm, alone=True)
        if alarm and not was_open:
            self._close(one, [FAILED])

    def _is_late_word(self, run: Run, message: Progress, program: str) -> bool:
        """Whether what comes after a run's end says nothing new."""
        ts = message.ts or 0
        if message.status in TERMINAL:
            return message.status == run.status or ts < run.last
        if run.gone and run.program == program:
            return False
        return ts <= run.last or (message.percent >= run.percent and self._now - run.over < LINGER)

    def _start(self, one: Expectation, rule: Rule, message: Progress, program: str) -> Run | None:
        now, ts = self._now + self._date, message.ts or 0
        was_away = self._was_away(ts)
        if ts < now - PAST and not was_away:
            self.counters["past"] += 1
            return None
        if (len(one.runs) >= RUNS or self._runs >= ALL_RUNS) and message.status not in TERMINAL:
            self.counters["runs_over"] += 1  # one that is over with this message takes no place
            return None
        started = min(ts, now) if was_away else now
        begun = self._now - (now - started)
        due, is_late = self._due_of(one, rule, started)
        service: Any = message.service
        trace_id: Any = message.trace_id or message.job_id
        run = Run(
            message.job_id, trace_id, due, begun, self._now, started, ts, ts, message.host or "", message.percent, service[:TEXT],
            program,
        )  # fmt: skip
        others = len(one.runs)
        one.runs[run.id] = run
        one.ended.pop(run.id, None)
        self._bind(run.id, one)
        self._runs += 1
        one.last, one.heard = max(one.last, started), max(one.heard, begun)
        if is_late:
            words = f"run {run.id} has started {said.span(started - due)} after it was due, {said.moment(due, rule)}"
            self._tell(one, LATE, words, run=run, due=due, opens=True, more={"late": started - due})
        if rule.runs and others >= rule.runs:
            words = f"run {run.id} has started while {others} {'is' if others == 1 else 'are'} under way"
            self._tell(one, OVERLAPPING, words, run=run, due=due, opens=True, more={"others": [*one.runs][:-1][:8]})
        elif not is_late:
            self._tell(one, RUNNING, f"run {run.id} has started", run=run, due=due)
        if due >= max(one.missed, 1):
            one.missed = 0
            self._close(one, [NOT_STARTED])
        self._queue(one, rule)
        return run

    def _due_of(self, one: Expectation, rule: Rule, started: int) -> tuple[int, bool]:
        """The time that a run which began then was due at (0: it was not), and whether it is late. That time is not waited for
        any more."""
        if rule.every:
            return one.missed or one.heard + self._date + rule.every, bool(one.missed)
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
        run.heard = self._now
        if run.silent:
            run.silent = False
            self._close(one, [f"{SILENT} {run.id}"])
        status = message.status[:TEXT] if message.status else ""
        if ts >= run.last or status in TERMINAL:
            run.percent = message.percent
            run.status = status or run.status
        run.last = max(run.last, ts)
        if status in TERMINAL:
            self._end(one, rule, run, status, "", ts if (message.host or "") == run.host else 0)
        elif rule.silent != NEVER:
            self._queue(one, rule)

    def _end(self, one: Expectation, rule: Rule, run: Run, status: str, why: str, ts: int = 0) -> None:
        """`ts`: when it ended by the clock by which it began; 0 where that is not known."""
        now, here = self._now + self._date, self._now - run.begun
        there = max(0, ts - run.first) if ts else here
        took = there if now - ts > JUMP else here
        run.over, run.status = self._now, status
        for job in one.remember(run):
            self._unbind(job, one)
        self._runs -= 1
        state = FAILED if status == FAILED else DONE
        one.last_run = Ended(run.id, run.trace_id, state, run.started, run.started + took, took)
        more: dict[str, Any] = {"took": took}
        if rule.at_most != NEVER and took > rule.at_most and not run.too_long and not run.gone:
            run.too_long = True
            words = f"run {run.id} has taken {said.span(took)}, longer than {said.span(rule.at_most)}"
            self._tell(one, TOO_LONG, words, run=run, due=run.due, opens=True, more=more)
        own = [key for key in one.open if key.partition(" ")[2] == run.id]
        if status == FAILED:
            one.failures += 1
            alarm = one.failures >= rule.failures
            words = f"run {run.id} has failed" + (f": {why}" if why else "")
            words += f", {one.failures} in a row" if one.failures > 1 else ""
            extra = {**more, "failures": one.failures, **({"reason": why} if why else {})}
            self._tell(one, FAILED, words, run=run, due=run.due, opens=alarm, alone=True, more=extra)
            self._keep_open(one, own)
        elif status == DONE:
            one.failures = 0
            long = max(here, there)
            fast = long < rule.at_least and run.messages > 1
            if fast:
                words = f"run {run.id} was done after {said.span(long)}, sooner than {said.span(rule.at_least)}"
                self._tell(one, TOO_FAST, words, run=run, due=run.due, opens=True, alone=True, more=more)
            else:
                self._tell(one, DONE, f"run {run.id} is done after {said.span(took)}", run=run, due=run.due, more=more)
            plain = [key for key in one.open if " " not in key and key not in (NOT_STARTED, TOO_FAST if fast else "")]
            self._close(one, [*own, *plain, *self._overlaps(one, rule)])
        else:
            words = f"run {run.id} was cancelled after {said.span(took)}"
            self._tell(one, DONE, words, run=run, due=run.due, more={**more, "status": status})
            self._keep_open(one, own)
        self._close(one, self._overlaps(one, rule))
        self._queue(one, rule)

    def _overlaps(self, one: Expectation, rule: Rule) -> list[str]:
        """What was told as overlapping and is so no more."""
        if rule.runs and len(one.runs) > rule.runs:
            return []
        return [key for key in one.open if key.startswith(f"{OVERLAPPING} ")]

    def _keep_open(self, one: Expectation, keys: Iterable[str]) -> None:
        """What was told of a run that did not end well is over when another one does."""
        for key in keys:
            since, state = one.open.pop(key), key.partition(" ")[0]
            if state != OVERLAPPING:
                one.open.setdefault(state, since)

    def _again(self, one: Expectation, rule: Rule, run: Run) -> Run:
        """What had ended goes on, or ends otherwise."""
        one.ended.pop(run.id, None)
        one.runs[run.id] = run
        self._runs += 1
        if run.status == FAILED:
            one.failures = max(0, one.failures - 1)
        was_gone, run.gone, run.over, run.status = run.gone, False, 0, ""
        if was_gone:
            self._tell(one, RUNNING, f"run {run.id} goes on: its program is back", run=run, due=run.due)
            if one.failures < rule.failures:
                self._close(one, [FAILED])
        return run

    def gone(self, job: str, program: str, at: int) -> list[str]:
        """The program of a job ended without a word, as is known at `at` -> the schedules for which a run has failed by that."""
        if not self.rules:
            return []
        self.advance(at)
        told = []
        for key in sorted(self._bound.get(job, ())):
            one = self._expected[key]
            run = one.runs.get(job)
            if run is not None and run.program == program:
                run.gone = True
                self._end(one, self.rules[one.name], run, FAILED, "its program is gone")
                told.append(one.name)
        return told

    def that_follow(self, job: str) -> list[str]:
        """The schedules, by name, that have a run of this job under way."""
        return [one.name for key in sorted(self._bound.get(job, ())) if job in (one := self._expected[key]).runs]

    def troubles_of(self, job: str) -> list[str]:
        """What was told of a run that is under way and is not over: states, in the order in which they were told."""
        found = {
            key.partition(" ")[0]: None
            for place in self._bound.get(job, ())
            if job in (one := self._expected[place]).runs
            for key in one.open
            if key.partition(" ")[2] == job
        }
        return [*found]

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

    def _was_away(self, ts: int) -> bool:
        """Whether a message was sent while the sidecar was away."""
        left, back = self._away
        return left - BEFORE_AWAY <= ts <= back

    # -- what is due

    def _judge(self, one: Expectation) -> None:
        """Its time has come, or may have."""
        rule = self.rules[one.name]
        if one.queued <= self._now:
            one.queued = NEVER
        if one.queued_date <= self._now + self._date:
            one.queued_date = NEVER
        if one.name in self._paused:
            return
        if self._now >= self._hold:
            for run in list(one.runs.values()):
                self._judge_run(one, rule, run)
            if rule.cron:
                self._judge_cron(one, rule)
            elif not one.missed and one.heard + rule.every + rule.grace <= self._now:
                self._judge_every(one, rule)
            if one.host and not one.runs and one.heard + FORGET <= self._now:
                self._drop(one, f"it was not heard for {said.span(FORGET)}, and is not expected any more")
                return
        self._queue(one, rule)

    def _judge_run(self, one: Expectation, rule: Rule, run: Run) -> None:
        if not run.too_long and run.begun + rule.at_most <= self._now:
            run.too_long = True
            words = f"run {run.id} takes longer than {said.span(rule.at_most)}, and is at {run.percent:g} %"
            self._tell(one, TOO_LONG, words, run=run, due=run.due, opens=True)
        if not run.silent and run.heard + rule.silent <= self._now:
            run.silent = True
            words = (
                f"run {run.id} has made no progress for {said.span(self._now - run.heard)}, and is at {run.percent:g} %"
            )
            self._tell(one, SILENT, words, run=run, due=run.due, opens=True)
        if run.heard + FORGET <= self._now:
            own = [key for key in one.open if key.partition(" ")[2] == run.id]
            del one.runs[run.id]
            self._runs -= 1
            self._unbind(run.id, one)
            self._close(one, [*own, *self._overlaps(one, rule)], f"run {run.id} is forgotten")

    def _judge_cron(self, one: Expectation, rule: Rule) -> None:
        date = self._now + self._date
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
        self._tell(one, NOT_STARTED, words, due=last, opens=True, alone=True, more=more)
        if newer:
            self._close(one, [NOT_STARTED])

    def _pass_over(self, one: Expectation, rule: Rule, date: int) -> None:
        """There are too many due times up to now to tell them all: come to the last one."""
        one.more_unheard = True
        due = rule.last_due(date)
        while rule.judged_at(due) > date:
            due = rule.last_due(due - 1)
        one.unheard[-1] = due
        one.due = rule.next_due(due)

    def _judge_every(self, one: Expectation, rule: Rule) -> None:
        one.missed = due = one.heard + self._date + rule.every
        waited = said.span(self._now - one.heard)
        if rule.job:
            words = f"nothing has started for {waited}, and it should each {said.span(rule.every)}"
        else:
            words = f"nothing was heard of it for {waited}, and something should be each {said.span(rule.every)}"
        state = SILENT if one.last and not rule.job else NOT_STARTED
        self._tell(one, state, words, due=due, opens=True, alone=True, more={"last": one.last} if one.last else {})

    # -- what is told

    def _tell(
        self,
        one: Expectation,
        state: str,
        words: str,
        *,
        run: Run | None = None,
        due: int = 0,
        opens: bool = False,
        alone: bool = False,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        """A transition. `opens`: it is an alarm, until it is closed; `alone`: whatever run it is of."""
        if one.name in self._paused and state != RECOVERED:
            return
        now = self._now + self._date
        one.times[state] = one.times.get(state, 0) + 1
        one.changed = now
        self.told[state] = self.told.get(state, 0) + 1
        if opens:
            key = state if alone or run is None else f"{state} {run.id}"
            since = one.open.pop(key, now)
            one.open[key] = since
            one.troubles.setdefault(state, now)
        self._emit(
            said.event(
                state, one, words, alarm=opens, due=due, run=run, client=self._journal_id, ts=now, more=more or {}
            )
        )  # fmt: skip

    def _close(self, one: Expectation, keys: Iterable[str], why: str = "") -> None:
        """So much is over. Where nothing is left, that is told."""
        some = [key for key in keys if one.open.pop(key, None) is not None]
        if not some or one.open:
            return
        troubles, one.troubles = one.troubles, {}
        words = "all is well again after " + ", ".join(state.replace("_", " ") for state in troubles)
        if why:
            words = f"{', '.join(troubles)} is no longer followed: {why}".replace("_", " ")
        more = {"after": [*troubles], "since": min(troubles.values()), **({"reason": why} if why else {})}
        self._tell(one, RECOVERED, words, more=more)

    # -- deadlines

    def _queue(self, one: Expectation, rule: Rule) -> None:
        """See to it that it comes up no later than something is due."""
        if one.name in self._paused:
            return
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
                at = min(at, max(self._now, self._hold))
            if date - self._date < self._hold:
                at, date = min(at, self._hold), NEVER
        elif not one.missed:
            at = min(at, one.heard + rule.every + rule.grace)
        at = max(at, self._hold)
        if at < one.queued:
            one.queued = at
            heapq.heappush(self._elapsed, (at, one.key))
        if date < one.queued_date:
            one.queued_date = date
            heapq.heappush(self._dates, (date, one.key))

    def _queue_anew(self, one: Expectation, rule: Rule) -> None:
        one.queued = one.queued_date = NEVER
        self._queue(one, rule)

    # -- what is asked

    def records(self, name: str = "*", states: Container[str] = STATES, limit: int = 0) -> list[dict[str, Any]]:
        """The first expectations of these names (a glob) in these states (0: all of them), in the config's order, then by host. See
        `views.record`."""
        found = (one for one in self._in_order(name) if self._state(one) in states)
        return [
            views.record(one, self.rules[one.name], self._paused.get(one.name, 0), self._date)
            for one in islice(found, limit or None)
        ]

    def count(self, name: str = "*", states: Container[str] = STATES) -> int:
        """How many they are."""
        return sum(self._state(one) in states for one in self._in_order(name))

    def _in_order(self, name: str) -> Iterator[Expectation]:
        for known in fnmatch.filter(self.rules, name):
            for _, one in sorted(self._of.get(known, {}).items()):
                yield one

    def _state(self, one: Expectation) -> str:
        return one.state(paused=one.name in self._paused)

    def states(self) -> dict[str, int]:
        """How many expectations are in which state."""
        found: dict[str, int] = {}
        for one in self._expected.values():
            state = self._state(one)
            found[state] = found.get(state, 0) + 1
        return found

    def troubled(self) -> dict[str, int]:
        """Schedule -> how many of its expectations are not as they should be."""
        return {name: sum(bool(one.open) for one in self._of.get(name, {}).values()) for name in self.rules}

    @property
    def date(self) -> int:
        """What is added to `elapsed` for the date, as the last group had it."""
        return self._date

    @property
    def by_date(self) -> bool:
        """Whether something goes by the date."""
        return bool(self._dates)

    # -- snapshots

    def snapshot_in_parts(self) -> Iterator[bytes]:
        """Nothing a few times, then the snapshot; of nothing it is empty."""
        if not self.rules:
            return
        encoder = msgspec.msgpack.Encoder()
        data = bytearray(b"\xdd" + len(self._expected).to_bytes(4, "big"))  # an array, and its length in 32 bits
        for n, one in enumerate(self._expected.values(), 1):
            encoder.encode_into(one, data, -1)
            if n % PART == 0:
                yield b""
        expected: Any = msgspec.Raw(data)
        rules: Any = self._raw_rules
        yield encoder.encode(
            State(
                rules, self._now, self._date, self._hold, self._away, self._paused, self.counters, self.told, expected,
                self._begun,
            )
        )  # fmt: skip

    def restore(self, data: bytes) -> None:
        """Go back to a snapshot, under the rules of then. Raises msgspec.DecodeError."""
        state = msgspec.msgpack.decode(data, type=State)
        self._set_rules(state.rules)
        self._now, self._date, self._hold, self._away = state.now, state.date, state.hold, state.away
        self._begun, self._paused = state.begun, state.paused
        self.counters |= state.counters
        self.told = state.told
        self._of = {name: {} for name in self.rules} if self._begun else {}
        for one in state.expected:
            self._expected[one.key] = self._of[one.name][one.host] = one
            self._runs += len(one.runs)
            for job in [*one.runs, *one.ended]:
                self._bind(job, one)
        for name, until in self._paused.items():
            if until != NEVER:
                heapq.heappush(self._dates, (until, _PAUSE + name))
        for one in state.expected:
            self._queue_anew(one, self.rules[one.name])
