"""The engine: journal groups in, derived messages out.

What it answers is a function of the groups and their times alone: the same groups give the same messages, wherever a
snapshot was taken and restored between them. Three rules make it so:

- Deadlines go by the groups' `elapsed`, which nobody sets: a date that is wrong, and put right, neither fires nor delays them. One fires at its own
  time and names the date of that time, as the group before had it, however late the next group comes; before a group is taken, everything due
  by then has fired.
- What was derived stays in `awaiting`, also in snapshots, until it comes back through the journal. After a restart
  the groups after the snapshot derive the same keys again, the stored ones strike theirs, and what is left was lost.
- Everything that decides is in the snapshot, the settings in force too.

Of most messages nothing but the number in a trace is looked at. A trace waits under one deadline that is never later than the real one: messages
only move the real one, and the trace follows when it comes up.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Container, Iterable, Iterator, Sequence, Set
from dataclasses import replace
from typing import Any

import msgspec

from wafermon.correlation import derived, views
from wafermon.correlation.deadlines import Deadlines
from wafermon.correlation.derived import Derived, key_of
from wafermon.correlation.ledger import Ledger
from wafermon.correlation.programs import Program, Programs
from wafermon.correlation.recent import Recent
from wafermon.correlation.schedules import Schedules, said
from wafermon.correlation.snapshot import READABLE, VERSION, Settings, Snapshot
from wafermon.correlation.traces import JOBS, NEVER, SERVICES, SPANS, TEXT, Job, LiveTrace, Span
from wafermon.journal import Presence, program_of
from wafermon.model.blocks import Block, Tally
from wafermon.model.messages import OWN_SERVICE, Event, Kind, Message, Progress, SpanEnd, SpanStart, Stats, Trace
from wafermon.model.schedules import RECOVERED

_SERVICE, _TYPE, _LEVEL = map(Kind._fields.index, ("service", "type", "level"))
_ARRAY = b"\xdd"
"""In MessagePack, before an array's length in 32 bits."""
PART = 100
"""So many traces of a snapshot are written at a time: 0.2 ms."""
SLICE = 200
"""So many schedules are judged at a time while nothing comes."""
ALL_SPANS = 200_000
"""How many span ids are held in all traces together."""
_PROGRAM = " "
"""Before a program's id among the deadlines: no trace id holds a space."""
_EVICTED = ""
"""Among the deadlines: to tell of evicted traces. No trace id is empty."""
MINUTE = 60_000_000
ONES = 4096


class Engine:
    """One journal's traces. `journal_id` is the `client` of the sidecar's own messages."""

    def __init__(self, settings: Settings, journal_id: str) -> None:
        self.settings = settings
        self.journal_id = journal_id
        self.ids: Set[str] = {journal_id}
        """The ids under which the sidecar's own messages stand in what is observed now: a journal may have had other ones."""
        self.ledger = Ledger(journal_id)
        """What came of each trace. It is snapshotted and restored with the engine, and observes the same groups."""
        self.counters = {"evicted_traces": 0, "services_over": 0, "spans_over": 0, "jobs_over": 0, "jobs_gone": 0}
        """Traces that ended early to make room, messages whose service, span or job was one too many to keep, and jobs whose
        program was gone."""
        self._rules = settings
        self._delays = settings.delays()
        self._now = 0
        """On `elapsed`, as are all times of `LiveTrace` that deadlines are counted from."""
        self._date = 0
        """What is added to `_now` for the date, as the last group had it."""
        self._live: OrderedDict[str, LiveTrace] = OrderedDict()
        self._ended: OrderedDict[str, int] = OrderedDict()
        self._awaiting: dict[str, Derived] = {}
        self._deadlines = Deadlines()
        self._programs = Programs()
        self.schedules = Schedules(journal_id, self._emit)
        """What should start, go on and end in time. It is snapshotted with the engine, and told of the same groups."""
        self.behind = False
        """Whether `advance` has left something that is due for the next call."""
        self._span_ids = 0
        self._evicted = 0
        """See `Snapshot`."""
        self._evicted_due = 0
        self._out: list[Derived] = []
        self._ones: dict[tuple[Any, ...], tuple[dict[str, None], dict[str, int]]] = {}
        """What a trace says of its services and its counts while it has one message, by that one's kind."""
        self._handlers: dict[str, Callable[[LiveTrace, Any], None]] = {
            "progress": self._progress,
            "span_start": self._span_start,
            "span_end": self._span_end,
        }

    @property
    def awaiting(self) -> int:
        """How many derived messages have not come back through the journal yet."""
        return len(self._awaiting)

    @property
    def live(self) -> int:
        """How many traces are live."""
        return len(self._live)

    @property
    def programs_connected(self) -> bool:
        """Whether a program is connected, as far as the groups say."""
        return any(program.connected for program in self._programs)

    def traces(self, limit: int = 100) -> list[dict[str, Any]]:
        return views.traces(self._live, limit)

    def trace(self, trace_id: str, recent: Recent | None = None, events: int = views.EVENTS) -> dict[str, Any] | None:
        return views.trace(self._live, recent or Recent(), trace_id, self._programs, events)

    def about(self, trace_id: str, recent: Recent) -> dict[str, Any]:
        return views.about(self._live, recent, trace_id)

    def root_of(self, trace_id: str, recent: Recent) -> tuple[str, str] | None:
        return views.root_of(self._live, recent, trace_id)

    def knows(self, trace_id: str, recent: Recent) -> bool:
        return trace_id in self._live or trace_id in recent.traces

    def trace_ids(self, recent: Recent) -> list[str]:
        return views.trace_ids(self._live, recent)

    def jobs(self, recent: Recent | None = None, limit: int = 1_000) -> list[dict[str, Any]]:
        return views.jobs(self._live, recent or Recent(), limit)

    def walk_jobs(self, recent: Recent) -> Iterator[tuple[dict[str, Any], bool]]:
        """See `views.walk`."""
        return views.walk(self._live, recent)

    def jobs_of(self, trace_id: str, recent: Recent) -> list[dict[str, Any]]:
        """See `views.jobs_of`."""
        return views.jobs_of(self._live, recent, trace_id)

    def count_jobs(self, recent: Recent) -> int:
        """See `views.count_jobs`."""
        return views.count_jobs(self._live, recent)

    def observe(self, messages: Sequence[Message], time: int, elapsed: int | None = None) -> list[Derived]:
        """One whole group of the journal, received at the date `time` (microseconds since the epoch), at `elapsed` on the time that
        deadlines go by (microseconds; None: the same) -> what is to be journalled because of it, in order. During a replay the caller
        lets go of the answers and asks `pending`."""
        return self.observe_blocks([Block.of(b"", messages)], time, elapsed)

    def observe_blocks(self, blocks: Iterable[Block], time: int, elapsed: int | None = None) -> list[Derived]:
        """The same for a group in blocks. How it was cut into blocks makes no difference: the group is taken trace by trace, in the
        order in which they are met. What only counts is not looked at message by message."""
        self._pass(time, elapsed)
        blocks, others = list(blocks), list[Message]()
        for block in blocks:
            self._take_stats(block.of_types((Stats.type,)))
            own = block.of_service(OWN_SERVICE)
            self.came_back(own)
            others += [message for message in own if message.client not in self.ids]
        told: dict[str, Tally] = {}
        more: dict[str, list[Tally]] = {}
        followed: dict[Any, list[Message]] = {}
        for block in blocks:
            for tally in block.tallies():
                if isinstance(tally.trace_id, str) and told.setdefault(tally.trace_id, tally) is not tally:
                    more.setdefault(tally.trace_id, []).append(tally)
            trace_id, some = None, list[Message]()
            for message in block.followed:
                if message.trace_id != trace_id:  # neighbours have one
                    trace_id = message.trace_id
                    some = followed.setdefault(trace_id, [])
                some.append(message)
        for one, tally in told.items():
            self._observe_trace(one, [tally, *more.get(one, ())], followed.get(one, ()))
        self._take_forwarded(others)
        if self.schedules:
            self.schedules.take(blocks, self._program_of)
        return self._taken()

    def _observe_trace(self, trace_id: str, tallies: Sequence[Tally], followed: Sequence[Message]) -> None:
        """What a group says of one trace: what was counted, and the messages of its spans and jobs."""
        trace = self._live.get(trace_id)
        if trace is None:
            if len(tallies) == 1 and tallies[0].count == 1:
                trace, tallies = self._begin_with_one(trace_id, tallies[0]), ()
            else:
                trace = self._begin(trace_id, tallies[0].first, {}, {})
        elif trace.is_of_one():  # it may share these
            trace.services, trace.counts = dict(trace.services), dict(trace.counts)
        if trace.heard != self._now:
            trace.heard = self._now
            self._live.move_to_end(trace_id)
        services, counts = trace.services, trace.counts
        for tally in tallies:
            if tally.first < trace.first:
                trace.first = tally.first
            if tally.last > trace.last:
                trace.last = tally.last
            for kind, count in tally.counts.items():
                service = kind[_SERVICE]
                if service not in services:
                    if len(services) < SERVICES:
                        services[service] = None
                    else:
                        self.counters["services_over"] += count
                name = kind[_LEVEL] or kind[_TYPE]
                counts[name] = counts.get(name, 0) + count
        for message in followed:
            if message.service != OWN_SERVICE:
                self._handlers[message.type](trace, message)
        if trace.queued == NEVER:
            self._queue(trace)

    def _begin_with_one(self, trace_id: str, tally: Tally) -> LiveTrace:
        """By the first message of a trace. All that begin with a message of the same kind share what it says until they have more: there may
        be as many as messages."""
        [kind] = tally.counts
        one = self._ones.get(kind)
        if one is None:
            if len(self._ones) >= ONES:
                self._ones.clear()
            one = self._ones[kind] = {kind[_SERVICE]: None}, {kind[_LEVEL] or kind[_TYPE]: 1}
        return self._begin(trace_id, tally.first, *one)

    def begin(self, blocks: Iterable[Block], time: int, elapsed: int) -> None:
        """The group that comes now may be the first one after the sidecar was away: nothing is judged of schedules then until what was
        sent meanwhile has come."""
        if not self.schedules:
            return
        for block in blocks:
            for message in block.of_service(OWN_SERVICE):
                if message.client in self.ids and (gap := said.gap_of(message)) is not None:
                    self._fire(elapsed - gap)
                    self.schedules.away(gap, time, elapsed)

    def follow(self, presence: Iterable[Presence], elapsed: int) -> None:
        """Connections came and went, says a group that was received at `elapsed`. Its blocks come next, and what is derived is
        answered then."""
        self._fire(elapsed)
        for one in presence:
            self._changed(self._programs.take(one, self._now))

    def tell_receipts(self, time: int) -> list[Derived]:
        """What is to be journalled of receipts because of the group that the ledger has just observed, received at the date
        `time`."""
        for facts in self.ledger.take_told():
            self._emit(derived.receipt(facts, self.journal_id, time, self._rules.forwards), always=True)
        return self._taken()

    def _take_stats(self, messages: Iterable[Message]) -> None:
        for message in messages:
            if isinstance(message, Stats):
                self._changed(self._programs.close(message))

    def _changed(self, programs: Iterable[Program]) -> None:
        """They came, went, or said that they end."""
        for program in programs:
            if program.due:
                self._deadlines.put(_PROGRAM + program.id, program.due)
                continue
            for trace in filter(None, map(self._live.get, program.traces)):
                for job in trace.jobs.values():
                    if job.gone and job.program == program.id:
                        job.gone = False
                        job.heard = self._now
                        self._queue(trace)

    def _lost(self, program_id: str, at: int) -> None:
        """A program did not come back until then."""
        program = self._programs.get(program_id)
        if program is None or program.due != at:
            return
        for trace in filter(None, map(self._live.get, sorted(program.traces))):
            for job_id, job in sorted(trace.jobs.items()):
                if job.program == program_id and not (job.over or job.gone):
                    job.gone = True
                    self.counters["jobs_gone"] += 1
                    told = self.schedules.gone(job_id, program_id, at)
                    self._emit(derived.job_gone(trace, job_id, job, self.journal_id, at + self._date, told))
        self._programs.lost(program)

    def _program_of(self, message: Message) -> str:
        return self._programs.of(message.client) or program_of(
            message.service, message.host, message.pid, message.client
        )

    def came_back(self, messages: Iterable[Message]) -> None:
        """Take the sidecar's own among them for journalled, and nothing else of them."""
        for message in messages:
            if message.service == OWN_SERVICE and message.client in self.ids:
                self._awaiting.pop(key_of(message) or "", None)
                if self.schedules and isinstance(message, Event) and said.is_asked(message):
                    self.schedules.asked(message)

    def _take_forwarded(self, messages: Iterable[Message]) -> None:
        """What another sidecar derived is kept as it came: the trace is not summed up a second time."""
        for message in messages:
            if not (isinstance(message, Trace) or derived.is_alarm(message)):
                continue
            trace = self._live.get(str(message.trace_id))
            if trace is not None:
                trace.derived = True

    def advance(self, elapsed: int) -> list[Derived]:
        """Move the clock while the journal is idle -> what is to be journalled. No group received before `elapsed` may
        come afterwards: a replay, which knows the groups alone, would see another order.

        Of schedules so many are judged at a time; where there are more, it is `behind`, and is to be called again soon."""
        self._fire(elapsed, SLICE)
        return self._taken()

    def pending(self) -> list[Derived]:
        """Everything that was derived and did not come back through the journal. Once, when the replay is done: what
        is left is to be journalled now, after a snapshot. From here on the engine's own settings are in force."""
        self.configure(self.settings)
        for key in [key for key, one in self._awaiting.items() if self._is_of_none(one)]:
            del self._awaiting[key]
        self._taken()  # what other schedules have just ended is among them
        return list(self._awaiting.values())

    def _is_of_none(self, one: Derived) -> bool:
        """Whether it is about a schedule that is gone: judged by the config of before, and without the start that was not
        journalled for it."""
        context: Any = getattr(one.message, "context", None)
        gone = derived.is_of_schedule(one.message) and context["schedule"] not in self.schedules.rules
        return gone and context["kind"] != RECOVERED

    def configure(self, settings: Settings) -> None:
        """Put other settings in force. Take a snapshot at once: a replay can't see when this happened."""
        self.settings = settings
        if settings != self._rules:
            self._rules = settings
            self._delays = settings.delays()
            self._requeue()
        self.schedules.wait_after_start(round(settings.after_start * 1e6))
        self.schedules.configure(settings.schedules)

    def snapshot(self) -> bytes:
        """The whole state, as of the end of the last group that was observed."""
        *_, snapshot = self.snapshot_in_parts()
        return snapshot

    def snapshot_in_parts(self) -> Iterator[bytes]:
        """Nothing a few times, then the snapshot: others may have their turn in between, but not with this engine."""
        traces = bytearray(_ARRAY + len(self._live).to_bytes(4, "big"))
        encode_into = msgspec.msgpack.Encoder().encode_into
        for n, trace in enumerate(self._live.values(), 1):
            encode_into(trace, traces, -1)
            if n % PART == 0:
                yield b""
        ended, live = list(self._ended.items()), msgspec.Raw(traces)
        older, newer, places = list[Any](), list[Any](), list[int]()
        for place, one in enumerate(self._awaiting.values()):
            if derived.is_older(one.message):
                older.append(one.message)
            else:
                newer.append(one.message)
                places.append(place)
        ledger = b""
        for ledger in self.ledger.snapshot_in_parts():
            if not ledger:
                yield b""
        schedules = b""
        for schedules in self.schedules.snapshot_in_parts():
            if not schedules:
                yield b""
        yield msgspec.msgpack.encode(
            Snapshot(
                VERSION,
                self.journal_id,
                replace(self._rules, schedules={}),
                self._now,
                live,  # type: ignore[arg-type]  # encoded already
                ended,
                older,
                self.counters,
                self._date,
                list(self._programs),
                newer,
                ledger,
                self._evicted,
                self._evicted_due,
                places,
                schedules,
            )
        )

    def restore(self, data: bytes, formerly: Container[str] = ()) -> None:
        """Go back to a snapshot, under the settings of then, until `pending`. `formerly` are the ids that the journal had before. Raises
        ValueError where `data` is no snapshot of this version and journal; the engine is then as it was."""
        ledger, schedules = Ledger(self.journal_id), Schedules(self.journal_id, self._emit)
        try:
            state = msgspec.msgpack.decode(data, type=Snapshot)
            if state.ledger:
                ledger.restore(state.ledger)
            else:
                ledger.begin_late(state.now, [trace.id for trace in state.live])
            if state.schedules:
                schedules.restore(state.schedules)
            else:
                schedules.begin_late(state.now, state.date)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"not a snapshot of the correlation engine: {error}") from None
        if state.version not in READABLE or not (state.journal == self.journal_id or state.journal in formerly):
            raise ValueError(
                f"a snapshot of version {state.version} and journal {state.journal!r}, "
                f"expected {VERSION} and {self.journal_id!r}"
            )
        self.ledger, self.schedules = ledger, schedules
        self.schedules.wait_after_start(round(state.settings.after_start * 1e6))
        self._rules = replace(state.settings, schedules=schedules.rules)
        self._delays = state.settings.delays()
        self._now = state.now
        self._date = state.date
        self._live = OrderedDict((trace.id, trace) for trace in state.live)
        self._ended = OrderedDict(state.ended)
        awaiting = state.awaited()
        for one in awaiting:
            one.client = self.journal_id  # it is journalled from now on
        self._awaiting = {one.key: one for one in map(derived.derived, awaiting)}
        self._programs = Programs(state.programs)
        self._span_ids = sum(trace.span_ids() for trace in state.live)
        self.counters |= state.counters
        self._evicted, self._evicted_due = state.evicted, state.evicted_due
        self._requeue()

    def _taken(self) -> list[Derived]:
        out, self._out = self._out, []
        return out

    def _emit(self, message: Any, *, always: bool = False) -> None:
        if self._rules.derive == "never" and not always:
            return
        one = derived.derived(message)
        while one.key in self._awaiting:  # the same trace evicted twice within one group
            message.ts += 1
            one = derived.derived(message)
        self._awaiting[one.key] = one
        self._out.append(one)

    def _begin(self, trace_id: str, ts: int, services: dict[str, None], counts: dict[str, int]) -> LiveTrace:
        part = self._ended.pop(trace_id, 0) + 1
        room = self._rules.max_traces
        while room and len(self._live) >= room:
            self.counters["evicted_traces"] += 1
            oldest = next(iter(self._live.values()))
            if oldest.only_counts():
                self._forget(oldest)
            else:
                self._end(oldest, self._now + self._date)
        trace = LiveTrace(trace_id, part, self._now, self._now, ts, ts, 0, services, counts)
        self._live[trace_id] = trace
        return trace

    def _forget(self, trace: LiveTrace) -> None:
        """It ends without a summary: where each message is of a trace of its own, that would be as many messages again. How many they are is
        told once per minute. A part that nobody was told of was none."""
        del self._live[trace.id]
        self._deadlines.remove(trace.id, trace.queued)
        self.ledger.forgotten(trace.id)
        if trace.part > 1:
            self._remember(trace.id, trace.part - 1)
        self._evicted += 1
        if not self._evicted_due:
            self._evicted_due = self._now - self._now % MINUTE + MINUTE
            self._deadlines.put(_EVICTED, self._evicted_due)

    def _tell_evicted(self, at: int) -> None:
        self._emit(derived.traces_evicted(at // MINUTE - 1, self._evicted, self.journal_id, at + self._date))
        self._evicted = self._evicted_due = 0

    def _remember(self, trace_id: str, part: int) -> None:
        self._ended[trace_id] = part
        room = self._rules.max_traces
        while room and len(self._ended) > room:
            self._ended.popitem(last=False)

    def _progress(self, trace: LiveTrace, message: Progress) -> None:
        ts: Any = message.ts
        service: Any = message.service
        job, waits = trace.jobs.get(message.job_id), False
        if job is not None:
            waits = not (job.reported or job.gone or job.over)
            job.take(message, ts, service, self._now)
        elif len(trace.jobs) < JOBS:
            status = message.status[:TEXT] if message.status else ""
            job = Job(message.percent, status, service, ts, self._now, first=ts)
            trace.begin(message.job_id, job)
        else:
            self.counters["jobs_over"] += 1
            return
        program = self._program_of(message)
        if program != job.program:
            self._programs.release(job.program, trace.id)
            self._programs.serves(program, trace.id)
            job.program = program
        over = job.over
        if over:
            trace.settled = self._now
        if over or not waits:
            self._queue(trace)

    def _span_start(self, trace: LiveTrace, message: SpanStart) -> None:
        span_id: Any = message.span_id
        if trace.early and span_id in trace.early:
            trace.early.remove(span_id)
            self._span_ids -= 1
        elif span_id not in trace.spans:
            if self._room_for_span(trace):
                service: Any = message.service
                started: Any = message.ts
                program = self._program_of(message)
                self._programs.serves(program, trace.id)
                trace.open(span_id, Span(message.name[:TEXT], service, started, message.parent_id or "", program))
            else:
                self.counters["spans_over"] += 1

    def _span_end(self, trace: LiveTrace, message: SpanEnd) -> None:
        span_id: Any = message.span_id
        if message.status == "error":
            trace.failures += 1
        if span := trace.spans.pop(span_id, None):
            self._span_ids -= 1
            self._programs.release(span.program, trace.id)
        elif not (trace.early and span_id in trace.early) and self._room_for_span(trace):
            trace.early = trace.early or set()
            trace.early.add(span_id)
        trace.settled = self._now
        if not trace.spans:
            self._queue(trace)

    def _room_for_span(self, trace: LiveTrace) -> bool:
        if trace.span_ids() >= SPANS or self._span_ids >= ALL_SPANS:
            return False
        self._span_ids += 1
        return True

    def _queue(self, trace: LiveTrace) -> None:
        """See to it that the trace comes up no later than it is due."""
        due = trace.due(self._delays)
        if due < trace.queued:
            if trace.queued != NEVER:
                self._deadlines.remove(trace.id, trace.queued)
            self._deadlines.put(trace.id, due)
            trace.queued = due

    def _requeue(self) -> None:
        """After every deadline may have become another one."""
        self._deadlines = Deadlines()
        for trace in self._live.values():
            trace.queued = NEVER
            self._queue(trace)
        for program in self._programs:
            if program.due:
                self._deadlines.put(_PROGRAM + program.id, program.due)
        if self._evicted_due:
            self._deadlines.put(_EVICTED, self._evicted_due)

    def _pass(self, time: int, elapsed: int | None) -> None:
        """Come to the next group."""
        self._fire(time if elapsed is None else elapsed)
        self._date = 0 if elapsed is None else time - elapsed
        self.schedules.moved(time, time if elapsed is None else elapsed)

    def _fire(self, elapsed: int, most: int = 0) -> None:
        """Move the clock, which never goes back, and let everything happen that is due by then, in order of time,
        then id; of schedules at most so many (0: all)."""
        self._now = now = max(self._now, elapsed)
        while due := self._deadlines.pop(now):
            queued, trace_id = due
            if trace_id == _EVICTED:
                self._tell_evicted(queued)
                continue
            if trace_id.startswith(_PROGRAM):
                self._lost(trace_id.removeprefix(_PROGRAM), queued)
                continue
            trace = self._live.get(trace_id)
            if trace is None or trace.queued != queued:
                continue
            if trace.due(self._delays) <= queued:
                for job_id, job in trace.stalled(queued, self._delays):
                    job.reported = True
                    if trace.derived:
                        continue
                    follow, ts = self.schedules.that_follow(job_id), queued + self._date
                    self._emit(derived.job_stalled(trace, job_id, job, self.journal_id, ts, follow))
                if trace.ends_at(self._delays) <= queued:
                    self._end(trace, queued + self._date, give_up=True)
                    continue
            trace.queued = NEVER
            self._queue(trace)
        self.behind = not self.schedules.advance(now, most)

    def _end(self, trace: LiveTrace, ts: int, give_up: bool = False) -> None:
        del self._live[trace.id]
        self._deadlines.remove(trace.id, trace.queued)
        if give_up and not trace.derived:
            for span_id, span in sorted(trace.spans.items()):
                gone = self._programs.is_gone(span.program)
                self._emit(derived.span_abandoned(trace, span_id, span, self.journal_id, ts, gone=gone))
        for span in trace.spans.values():
            self._programs.release(span.program, trace.id)
        for job in trace.jobs.values():
            self._programs.release(job.program, trace.id)
        self._span_ids -= trace.span_ids()
        if not trace.derived:
            self._emit(derived.trace_ended(trace, self.journal_id, ts, trace.outcome()))
        if self._rules.derive == "never" and (facts := self.ledger.end(trace.id)) is not None:
            self._emit(derived.receipt(facts, self.journal_id, ts, self._rules.forwards), always=True)
        self._remember(trace.id, trace.part)
