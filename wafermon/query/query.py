"""The one read model: live memory first, then what is stored, as one answer without doubles.

One stored place is asked for lists, the first of the config unless another is named: two of them hold the same, and counting
both would count twice. A place that can't be asked is a problem that the answer names; what is live is answered all the same.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from glob import escape
from statistics import median
from typing import Any, Generic, NamedTuple, TypeVar

from wafermon.model.asking import (
    MOST,
    OPEN,
    ErrorFilter,
    EventFilter,
    Found,
    JobFilter,
    Page,
    event_place,
    job_key,
    job_place,
    merged,
    page_of,
)
from wafermon.model.asking import Place as JobPlace
from wafermon.model.errors import RetryableError
from wafermon.model.kinds import Kinds
from wafermon.model.messages import OWN_SERVICE, TERMINAL
from wafermon.model.progress import joined
from wafermon.model.records import (
    ErrorRecord,
    EventRecord,
    JobRecord,
    KindRecord,
    Receipt,
    ServiceRecord,
    SpanRecord,
    TraceRecord,
)
from wafermon.model.schedules import Schedules
from wafermon.model.slices import Sleep, Slices
from wafermon.model.span_tree import tree
from wafermon.query.compare import Comparison, Shape, compare, middle_of, shape_of
from wafermon.query.eta import RUNS, eta
from wafermon.query.live import POINTS, Live
from wafermon.query.reached import Reached
from wafermon.query.receipts import Place, receipt, record_without_one, stored_record
from wafermon.query.rehearsal import Rehearsal, rehearse

T = TypeVar("T")
CANDIDATES = 10
"""How many ids are named where the beginning of one is not enough."""
BASELINE_SECONDS = 30.0
"""For so long the last runs of a kind are remembered."""
BASELINES = 256
KEPT = 16
"""What is stored of so many traces that go on is remembered for a while, …"""
KEPT_SECONDS = 5.0
KEPT_SHARE = 50
"""… at least so long, or so many times as long as it took to read."""
PAGES = 20
"""So many pages of jobs, and of events, are looked at for one schedule."""
OWN_EVENTS = 1_000
"""The most messages of each type, and of the sidecar's own events, that are looked at for the receipt of a stored trace."""


class BadQuestion(ValueError):
    """What is wrong with a question, for the one who asked it."""


@dataclass
class Answer(Generic[T]):
    """What was found, and where."""

    found: T
    sources: list[str] = field(default_factory=list)
    """``live``, and the names of the backends that were asked."""
    problems: list[str] = field(default_factory=list)
    """Why one of them could not be."""
    sure: bool = True
    """Whether it is what was meant, whatever else there may be."""


class _Kept(NamedTuple):
    """What is stored of a trace, as it was a while ago."""

    record: TraceRecord
    sources: list[str]
    until: int


class Query:
    """Asks all that know something. Keeps nothing but the last runs of some kinds of job, and traces that are watched, for a while."""

    def __init__(
        self,
        live: Callable[[], Live | None],
        stored: Callable[[], Mapping[str, Any]],
        now: Callable[[], int],
        sleep: Sleep,
        schedules: Callable[[], Schedules] = dict,
    ) -> None:
        """`live`: None where no sidecar runs; `stored`: the backends that are an `IHistory`, by name, in the config's order;
        `now`: microseconds since the epoch; `sleep`: waits so many seconds; `schedules`: those of the config."""
        self._live = live
        self._stored = stored
        self.now = now
        self.schedules = schedules
        self._sleep = sleep
        self._baselines: dict[str, tuple[int, list[JobRecord]]] = {}
        self._traces: dict[tuple[str, int], _Kept] = {}

    # -- jobs

    async def jobs(self, wanted: JobFilter, page: Page, source: str = "") -> Answer[Found[JobRecord]]:
        """Jobs by the time that they were last heard of, with the end that is foreseen of those that run."""
        answer: Answer[Found[JobRecord]] = Answer(Found())
        name, store = self._store(source)
        live = self._live()
        if live is not None:
            let_go = {name: live.let_go} if store is not None and live.let_go else {}
            answer.problems += await Reached(live, live.end, let_go).wait(self._sleep)
        parts, known = [], frozenset[str]()
        if live is not None:
            answer.sources.append("live")
            slices, kinds = Slices(self._sleep), self._kinds(store)
            looked = await slices.gather(live.look(wanted, kinds))
            known = frozenset(key for key, _ in looked)
            await slices.turn()
            shown = page_of((job for _, job in looked if job is not None), page, job_place)
            await slices.turn()
            records = await slices.gather(live.record(job, kinds) for job in shown.records)
            parts.append(replace(shown, records=records))
        if store is not None:
            found = await self._try(answer, name, store.jobs(replace(wanted, without=known), page))
            parts += [found] if found is not None else []
        answer.found = merged(parts, page, job_place)
        await self._complete(answer, store)
        return answer

    def jobs_now(self, trace_ids: Iterable[str]) -> list[JobRecord]:
        """The jobs of these traces by memory alone: without what is stored of them, and without the end that is foreseen."""
        live = self._live()
        if live is None:
            return []
        kinds = self._kinds(self._store("")[1])
        return [job for trace_id in trace_ids for job in live.jobs_of(trace_id, kinds)]

    async def kinds(self, since: int, until: int, source: str = "") -> Answer[list[KindRecord]]:
        """The kinds of jobs, the latest first. Counts are of what is stored; without that, of what is live."""
        answer: Answer[list[KindRecord]] = Answer([])
        name, store = self._store(source)
        if store is not None:
            found = await self._try(answer, name, store.kinds_of_jobs(since, until))
            if found is not None:
                answer.found = found
                return answer
        live = self._live()
        if live is not None:
            answer.sources.append("live")
            jobs = await Slices(self._sleep).gather(live.jobs(self._kinds(store)))
            answer.found = _kinds_of(jobs, since, until)
        return answer

    async def runs(
        self, name: str, page: Page, wanted: JobFilter, source: str = ""
    ) -> tuple[str, Answer[Found[JobRecord]]]:
        """The runs of one kind of job, which is named by itself or by the id of one of its jobs."""
        kind = self._kinds(self._store(source)[1]).of(name)
        for candidate in dict.fromkeys((name, kind)):
            answer = await self.jobs(replace(wanted, kind=candidate), page, source)
            if answer.found.records or answer.problems:
                return candidate, answer
        return name, answer

    async def _complete(self, answer: Answer[Found[JobRecord]], store: Any) -> None:
        """What live memory does not keep of the jobs that run: how they came so far; and when they will end."""
        open_jobs = [job for job in answer.found.records if job["state"] in OPEN]
        if not open_jobs:
            return
        if store is not None:
            traces = frozenset(job["trace_id"] for job in open_jobs)
            asked = store.jobs(JobFilter(traces=traces), Page(4 * len(open_jobs)))
            found = await self._try(None, "", asked)
            stored = {job_key(job["trace_id"], job["job_id"]): job for job in (found.records if found else ())}
            for job in open_jobs:
                if known := stored.get(job_key(job["trace_id"], job["job_id"])):
                    job["first"] = min(job["first"], known["first"])
                    job["reached"] = joined(job["reached"], known["reached"])
        await self._foresee(open_jobs, store)

    async def _foresee(self, open_jobs: Sequence[JobRecord], store: Any) -> None:
        slices = Slices(self._sleep)
        for job in open_jobs:
            job["eta"] = eta(job, await self.baseline(job["kind"], store), self.now())
            await slices.turn()

    async def baseline(self, kind: str, store: Any) -> list[JobRecord]:
        """The last runs of a kind that are done, the latest first."""
        now = self.now()
        known = self._baselines.get(kind)
        if known is not None and 0 <= now - known[0] < BASELINE_SECONDS * 1e6:
            return known[1]
        if store is None:
            return []
        found = await self._try(None, "", store.jobs(JobFilter(kind=kind, states=frozenset({"done"})), Page(RUNS)))
        runs = list(found.records) if found is not None else []
        if len(self._baselines) >= BASELINES:
            self._baselines.clear()
        self._baselines[kind] = (now, runs)
        return runs

    # -- one trace

    async def resolve(self, given: str, source: str = "") -> Answer[list[str]]:
        """The trace that is meant by its id, by the id of a job, or by the beginning of one of these: the ids of all that it may
        be."""
        return await self._sure(source, lambda: self._resolve(given, source))

    async def _resolve(self, given: str, source: str) -> Answer[list[str]]:
        answer: Answer[list[str]] = Answer([])
        name, store = self._store(source)
        live = self._live()
        found: dict[str, None] = {}
        if live is not None:
            answer.sources.append("live")
            if live.knows(given):
                answer.found = [given]
                return answer
            jobs = await Slices(self._sleep).gather(live.jobs(self._kinds(store)))
            exact = max((job for job in jobs if job["job_id"] == given), key=job_place, default=None)
            if exact is not None:
                answer.found = [exact["trace_id"]]
                return answer
            ids = live.trace_ids()
            found |= dict.fromkeys(one for one in ids if one.startswith(given))
            found |= {job["trace_id"]: None for job in jobs if job["job_id"].startswith(given)}
        if store is not None:
            more = await self._try(answer, name, store.find(given, CANDIDATES + 1)) or []
            found |= dict.fromkeys(more)
            if len(found) > 1 and (named := await self._named(answer, given, name, store)):
                answer.found = [named]
                return answer
        answer.sure = given in found
        answer.found = [given] if answer.sure else sorted(found)
        return answer

    async def _named(self, answer: Answer[Any], given: str, name: str, store: Any) -> str:
        """The stored trace of exactly this id, else that of the latest job of this id; empty where there is none."""
        if await self._try(answer, name, store.trace(given, 0)) is not None:
            return given
        jobs = await self._try(answer, name, store.jobs(JobFilter(name=escape(given)), Page(1)))
        return jobs.records[0]["trace_id"] if jobs is not None and jobs.records else ""

    async def _sure(self, source: str, question: Callable[[], Awaitable[Answer[T]]]) -> Answer[T]:
        """The answer to a question about one thing; nothing is found only where nobody who is asked can have it. See `reached`."""
        live, (name, store) = self._live(), self._store(source)
        if live is None:
            return await question()
        return await Reached(live, live.end, {name: live.end} if store is not None else {}).ask(question, self._sleep)

    async def trace(
        self, trace_id: str, messages: int, source: str = "", *, kept: bool = False
    ) -> Answer[TraceRecord | None]:
        """One trace, from memory and from what is stored. With `kept`, what is stored of a trace that goes on may be some seconds old:
        for who asks again and again."""
        return await self._sure(source, lambda: self._trace(trace_id, messages, source, kept))

    async def _trace(self, trace_id: str, messages: int, source: str, kept: bool = False) -> Answer[TraceRecord | None]:
        answer: Answer[TraceRecord | None] = Answer(None)
        name, store = self._store(source)
        live = self._live()
        kinds = self._kinds(store)
        here = await live.trace(trace_id, kinds, messages, Slices(self._sleep)) if live is not None else None
        if live is not None:
            answer.sources.append("live")
        watched = kept and not source and here is not None and here["status"] == "running"
        if watched and (known := self._traces.get((trace_id, messages))) is not None and self.now() < known.until:
            answer.sources += known.sources
            assert here is not None
            answer.found = join_traces(here, without_gap(known.record, here), messages)
            await self._complete(Answer(Found(answer.found["jobs"] if answer.found else ())), store)
            return answer
        begun = self.now()
        there: TraceRecord | None = None
        for other, place in [(name, store)] if source else self._stored().items():
            if place is not None and there is None:
                there = await self._try(answer, other, place.trace(trace_id, messages))
        if there is not None and here is None and live is not None:
            there = without_summary(there)
        if watched and there is not None:
            self._keep_trace((trace_id, messages), there, [one for one in answer.sources if one != "live"], begun)
        answer.found = join_traces(here, there, messages)
        if answer.found is not None:
            jobs: Answer[Found[JobRecord]] = Answer(Found(answer.found["jobs"]))
            await self._complete(jobs, store)
        return answer

    async def trace_now(self, trace_id: str, messages: int) -> Answer[TraceRecord | None]:
        """One trace by memory alone. What is stored of it is not read; what was read of its jobs a while ago is taken."""
        answer: Answer[TraceRecord | None] = Answer(None)
        store, live = self._store("")[1], self._live()
        if live is None:
            return answer
        answer.sources.append("live")
        answer.found = await live.trace(trace_id, self._kinds(store), messages, Slices(self._sleep))
        if answer.found is not None:
            read = [known.record["jobs"] for (one, _), known in self._traces.items() if one == trace_id]
            jobs = join_jobs(answer.found["jobs"], read[-1]) if read else answer.found["jobs"]
            await self._foresee([job for job in jobs if job["state"] in OPEN], store)
        return answer

    def _keep_trace(self, key: tuple[str, int], record: TraceRecord, sources: list[str], begun: int) -> None:
        """The dearer it was, the longer."""
        now = self.now()
        lasts = max(KEPT_SECONDS * 1e6, KEPT_SHARE * (now - begun))
        self._traces.pop(key, None)
        while len(self._traces) >= KEPT:
            del self._traces[next(iter(self._traces))]
        self._traces[key] = _Kept(copy_of(record), sources, now + round(lasts))

    async def compare(self, trace_id: str, other_id: str, source: str = "") -> Answer[Comparison | None]:
        """A run beside another, or, without an id of that, beside the median of the last ones of its kind. None where nothing
        is known of one of them; raises BadQuestion where there are no others."""
        answer: Answer[Comparison | None] = Answer(None)
        name, store = self._store(source)
        run = await self._shape(trace_id, source, answer)
        other = await self._shape(other_id, source, answer) if other_id else None
        if run is None or (other_id and other is None):
            return answer
        kind = run[1]
        past: list[Shape] = []
        if store is not None and kind:
            wanted = JobFilter(kind=kind, states=frozenset({"done"}))
            found = await self._try(answer, name, store.jobs(wanted, Page(RUNS + 2)))
            known = {trace_id, other_id}
            ids = [job["trace_id"] for job in (found.records if found else ()) if job["trace_id"] not in known]
            for one in ids[:RUNS]:
                if (shape := await self._shape(one, source, None)) is not None:
                    past.append(shape[0])
        if other is None and not past:
            raise BadQuestion(f"no other run of {kind or trace_id} that is done is known; name the one to compare with")
        answer.found = compare(run[0], other[0] if other else middle_of(past), past)
        answer.sources = list(dict.fromkeys(answer.sources))
        return answer

    async def _shape(self, trace_id: str, source: str, answer: Answer[Any] | None) -> tuple[Shape, str] | None:
        """A run as it is compared, and the kind of its first job."""
        found = await self.trace(trace_id, 0, source)
        if answer is not None:
            answer.sources += found.sources
            answer.problems += found.problems
        if found.found is None:
            return None
        jobs = found.found["jobs"]
        return shape_of(found.found), jobs[0]["kind"] if jobs else ""

    async def receipt(self, name: str, source: str = "") -> Answer[Receipt | None]:
        """Whether all of the trace of this id, or of the latest job of this id, arrived: by what memory knows, else by what
        was kept when it had ended."""
        return await self._sure(source, lambda: self._receipt(name, source))

    async def _receipt(self, name: str, source: str) -> Answer[Receipt | None]:
        answer: Answer[Receipt | None] = Answer(None)
        live = self._live()
        if live is not None:
            answer.sources.append("live")
            answer.found = live.receipt(name)
            if answer.found is not None:
                return answer
        meant = await self._resolve(name, source)
        known = await self._trace(meant.found[0], OWN_EVENTS, source) if len(meant.found) == 1 else Answer(None)
        answer.problems += meant.problems + known.problems
        trace, (store_name, store) = known.found, self._store(source)
        if trace is None or name not in (trace["trace_id"], *(job["job_id"] for job in trace["jobs"])):
            return answer
        record = None
        if store is not None:
            wanted = EventFilter(trace_id=trace["trace_id"], service=OWN_SERVICE)
            found = await self._try(answer, store_name, store.events(wanted, Page(OWN_EVENTS)))
            record = stored_record(list(found.records)[::-1]) if found is not None else None
        if not answer.problems:
            place_of = live.place_of if live is not None else lambda backend: Place(None)
            answer.found = receipt(trace["trace_id"], record or record_without_one(trace), place_of)
        return answer

    # -- schedules

    async def rehearse(self, name: str, since: int, until: int, source: str = "") -> Answer[Rehearsal | None]:
        """What a schedule of the config would have said from `since` to `until`. None where there is none of this name; raises
        BadQuestion where too much would have to be looked at."""
        answer: Answer[Rehearsal | None] = Answer(None)
        schedule = self.schedules().get(name)
        if schedule is None:
            return answer
        jobs: dict[str, JobRecord] = {}
        for glob in schedule.match.job or ("*",):
            jobs_of: Any = partial(self.jobs, JobFilter(name=glob, since=since, until=until))
            async for job in self._all(answer, jobs_of, source, job_place):
                jobs[job_key(job["trace_id"], job["job_id"])] = job
        heard: list[tuple[int, str]] = []
        if not schedule.of_jobs:
            heard = [(ts, job["service"]) for job in jobs.values() for ts in (job["first"], job["last_progress"])]
            for glob in schedule.match.service or ("*",):
                events_of: Any = partial(self.events, EventFilter(since, until, service=glob))
                async for event in self._all(answer, events_of, source, event_place):
                    heard.append((event["ts"], event["service"]))
        answer.sources = list(dict.fromkeys(answer.sources))
        answer.problems = list(dict.fromkeys(answer.problems))
        answer.found = rehearse(name, schedule, list(jobs.values()), heard, since, until)
        return answer

    async def _all(
        self,
        answer: Answer[Any],
        ask: Callable[[Page, str], Awaitable[Answer[Found[Any]]]],
        source: str,
        place: Callable[[Any], JobPlace],
    ) -> AsyncIterator[Any]:
        """All pages of a list."""
        after: JobPlace | None = None
        for _ in range(PAGES):
            part = await ask(Page(MOST, after), source)
            answer.sources += part.sources
            answer.problems += part.problems
            for one in part.found.records:
                yield one
            if not (part.found.more and part.found.records):
                return
            after = place(part.found.records[-1])
        raise BadQuestion(f"since: more than {PAGES * MOST:,} jobs or events would be looked at; name a later time")

    # -- messages and roll-ups

    async def events(self, wanted: EventFilter, page: Page, source: str = "") -> Answer[Found[EventRecord]]:
        """Stored events: live memory keeps too few to search."""
        return await self._of_store(Found[EventRecord](), source, lambda store: store.events(wanted, page))

    async def errors(self, wanted: ErrorFilter, page: Page, source: str = "") -> Answer[Found[ErrorRecord]]:
        return await self._of_store(Found[ErrorRecord](), source, lambda store: store.errors(wanted, page))

    async def services(self, since: int, until: int, source: str = "") -> Answer[list[ServiceRecord]]:
        return await self._of_store(list[ServiceRecord](), source, lambda store: store.services(since, until))

    async def _of_store(self, nothing: T, source: str, ask: Callable[[Any], Awaitable[T]]) -> Answer[T]:
        answer = Answer(nothing)
        name, store = self._store(source)
        if store is None:
            answer.problems.append(
                "nothing is stored that can be asked: add a backend with `plugin: history`, or name one with --history or --dsn"
            )
            return answer
        found = await self._try(answer, name, ask(store))
        if found is not None:
            answer.found = found
        return answer

    # -- what is asked

    def _store(self, source: str) -> tuple[str, Any]:
        """The stored place to ask, by name. Raises BadQuestion where there is none of that name."""
        known = self._stored()
        if source:
            if source not in known:
                names = ", ".join(known) or "none"
                raise BadQuestion(
                    f"source: no backend {source[:64]!r} can be asked for what it holds; these can: {names}"
                )
            return source, known[source]
        return next(iter(known.items()), ("", None))

    def _kinds(self, store: Any) -> Kinds:
        kinds: Kinds = getattr(store, "kinds", None) or Kinds()
        return kinds

    async def _try(self, answer: Answer[Any] | None, name: str, asked: Awaitable[T]) -> T | None:
        try:
            found = await asked
        except RetryableError as error:
            if answer is not None:
                answer.problems.append(str(error))
            return None
        if answer is not None and name not in answer.sources:
            answer.sources.append(name)
        if answer is not None:
            answer.problems += [one for one in _unread(self._stored().get(name)) if one not in answer.problems]
        return found


def _unread(store: Any) -> Sequence[str]:
    """What its last answer is without; a place that can't say so leaves nothing out."""
    found: Sequence[str] = getattr(store, "unread", ())
    return found


def median_run(runs: Sequence[JobRecord]) -> int | None:
    """How long a run takes, in microseconds; None without one."""
    took = [run["last_progress"] - run["first"] for run in runs]
    return round(median(took)) if took else None


def without_summary(stored: TraceRecord) -> TraceRecord:
    """A trace that is not followed (any more). One that never had a span or a job, and ended early, has no summary that says so."""
    if stored["status"] != "running" or stored["jobs"] or stored["spans"]:
        return stored
    return {**stored, "status": "idle"}


def join_traces(here: TraceRecord | None, there: TraceRecord | None, messages: int) -> TraceRecord | None:
    """What memory and what a stored place know of one trace. Memory is up to date; the stored place may have more."""
    if here is None or there is None:
        return here or there
    head: Any = here if here["part"] >= there["part"] else there
    points: dict[str, Any] = {name: _join_points(here, there, name, messages) for name in POINTS.values()}
    left_out = {
        name: max(0, int(head["counts"].get(kind, 0)) - len(points[name])) for kind, name in POINTS.items()
    }  # fmt: skip
    whole: Any = {
        **head,
        "first": min(here["first"], there["first"]),
        "last": max(here["last"], there["last"]),
        "services": list(dict.fromkeys([*here["services"], *there["services"]])),
        **points,
        "jobs": join_jobs(here["jobs"], there["jobs"]),
        "spans": _join_spans(here["spans"], there["spans"]),
        "series": there["series"],
        "left_out": {"spans": 0, **left_out},
    }
    made: TraceRecord = whole
    return made


def copy_of(record: TraceRecord) -> TraceRecord:
    """Its jobs are changed by who answers with them."""
    jobs: Any = [{**job, "reached": list(job["reached"])} for job in record["jobs"]]
    return {**record, "jobs": jobs}


def without_gap(there: TraceRecord, here: TraceRecord) -> TraceRecord:
    """What was stored a while ago, without the messages of those types of which some may lie between it and what memory holds."""
    whole: Any = copy_of(there)
    shown: Any = here
    for kind, name in POINTS.items():
        if not (whole[name] and shown[name]):
            continue
        apart = min(point["ts"] for point in shown[name]) > max(point["ts"] for point in whole[name])
        if apart and len(whole[name]) + len(shown[name]) < here["counts"].get(kind, 0):
            whole[name] = []
    made: TraceRecord = whole
    return made


def _join_points(here: Any, there: Any, name: str, most: int) -> list[dict[str, Any]]:
    found: dict[Any, dict[str, Any]] = {}
    for point in [*there[name], *here[name]]:
        seq = point.get("seq")
        key = (point.get("client"), seq) if seq is not None else json.dumps(point, sort_keys=True)
        found[key] = point
    points = sorted(found.values(), key=lambda point: (point["ts"], str(point.get("client", "")), point.get("seq", 0)))
    return points[-most:] if most else []


def join_jobs(here: Sequence[JobRecord], there: Sequence[JobRecord]) -> list[JobRecord]:
    found = {job["job_id"]: job for job in there}
    for job in here:
        known = found.get(job["job_id"])
        if known is not None:
            job["first"] = min(job["first"], known["first"])
            job["reached"] = joined(job["reached"], known["reached"])
            if known["status"] in TERMINAL and job["status"] not in TERMINAL:
                continue
        found[job["job_id"]] = job
    return sorted(found.values(), key=lambda job: (job["first"], job["job_id"]))


def _join_spans(here: Sequence[SpanRecord], there: Sequence[SpanRecord]) -> list[SpanRecord]:
    found: dict[str, Any] = {span["span_id"]: dict(span) for span in there}
    for span in here:
        known = found.get(span["span_id"])
        if known is None or known["duration"] is None:
            found[span["span_id"]] = dict(span)
    joined_spans: Any = list(tree(found.values()))
    made: list[SpanRecord] = joined_spans
    return made


def _kinds_of(jobs: Sequence[JobRecord], since: int, until: int) -> list[KindRecord]:
    known: dict[str, KindRecord] = {}
    for job in jobs:
        if job["last_progress"] < since or (until and job["last_progress"] >= until):
            continue
        one = known.setdefault(job["kind"], {"kind": job["kind"], "runs": 0, "last": 0, "states": {}})
        one["runs"] += 1
        one["last"] = max(one["last"], job["last_progress"])
        one["states"][job["state"]] = one["states"].get(job["state"], 0) + 1
    return sorted(known.values(), key=lambda one: (one["last"], one["kind"]), reverse=True)
