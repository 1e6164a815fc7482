"""What the sidecar knows of jobs and traces now: the correlation's memory, for reading, in the shapes of `wafermon.model.records`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

from wafermon.correlation import Correlator
from wafermon.correlation.receipts import record_of
from wafermon.correlation.recent import latest
from wafermon.correlation.schedules import Schedules
from wafermon.model.asking import MOST, OPEN, JobFilter, job_key
from wafermon.model.kinds import ANY, Kinds, kind_of_root
from wafermon.model.messages import TERMINAL
from wafermon.model.position import Position
from wafermon.model.progress import nothing_reached
from wafermon.model.records import JobRecord, Receipt, TraceRecord
from wafermon.model.slices import Slices
from wafermon.query.receipts import Place, receipt

POINTS = {"event": "events", "metric": "metrics", "progress": "progress", "resource": "resources"}
"""Type of message -> where a trace has them."""


class Places(Protocol):
    """What is asked of the journal."""

    @property
    def end(self) -> Position:
        """Everything that was acknowledged is before it."""

    def stored(self, name: str) -> Position | None:
        """Where a cursor is; None for an unknown name."""

    def follow(self, position: Position) -> Position: ...
    def skipped(self, name: str) -> Sequence[tuple[Position, Position]]: ...


class Live:
    """Reads one correlator, and the journal that it follows. Nothing is kept between two calls."""

    def __init__(self, correlator: Correlator, places: Places) -> None:
        self._correlator = correlator
        self._places = places

    @property
    def end(self) -> Position:
        """Everything that was acknowledged is before it."""
        return self._places.end

    @property
    def let_go(self) -> Position | None:
        """What is before it may be in memory no more; None where it holds all that the journal has."""
        return self._correlator.recent.let_go

    def has_read(self, until: Position) -> bool:
        """Whether memory has everything before it."""
        reached = self._correlator.reached
        return reached is not None and self._places.follow(reached) >= self._places.follow(until)

    def has_stored(self, backend: str, until: Position) -> bool:
        """Whether a backend has everything before it, or has passed it."""
        kept = self._places.stored(backend)
        return kept is not None and self._places.follow(kept) >= self._places.follow(until)

    def receipt(self, name: str) -> Receipt | None:
        """Of the trace of this id, or of the latest that has a job of this id; None where nothing is known of it."""
        facts = self._correlator.receipt_facts(name)
        return receipt(facts.trace_id, record_of(facts), self.place_of) if facts is not None else None

    def place_of(self, backend: str) -> Place:
        """How far a backend is."""
        kept = self._places.stored(backend)
        return Place(kept and self._places.follow(kept), self._places.skipped(backend))

    def jobs(self, kinds: Kinds) -> Iterator[JobRecord]:
        """All of them, in no order."""
        return (self.record(job, kinds) for _, job in self.look(JobFilter(), kinds) if job is not None)

    def look(self, wanted: JobFilter, kinds: Kinds) -> Iterator[tuple[str, Any]]:
        """The `job_key` of each job, in no order, and the job where it is wanted, else None. Such a one has what `record` makes a record of; of
        a record's fields those by which it is chosen and put in order."""
        for job, over in islice(self._correlator.walk_jobs(), MOST):
            job["state"] = _state(job, over=over)
            if wanted.kind:
                job["kind"] = self._kind(job, kinds)
            taken: Any = job
            yield job_key(job["trace_id"], job["job_id"]), job if wanted.takes(taken) else None

    def jobs_of(self, trace_id: str, kinds: Kinds) -> list[JobRecord]:
        """Those of one trace."""
        return self._records(self._correlator.jobs_of(trace_id), kinds)

    @property
    def job_count(self) -> int:
        """How many there are."""
        return self._correlator.count_jobs()

    def knows(self, trace_id: str) -> bool:
        """Whether something is known of a trace."""
        return self._correlator.knows(trace_id)

    def trace_ids(self) -> list[str]:
        """Of the traces that something is known of."""
        return self._correlator.trace_ids()

    async def trace(self, trace_id: str, kinds: Kinds, messages: int, slices: Slices) -> TraceRecord | None:
        """With at most so many messages of each type; None where nothing is known of it."""
        found = self._correlator.trace(trace_id, events=0)  # they are among the messages below
        if found is None:
            return None
        counts = found["counts"]
        # Counts are those of the last part, memory may have messages of earlier ones.
        known = counts if found["part"] == 1 else None
        said = latest(await slices.gather(self._correlator.search(trace_id, messages, known)), messages)
        await slices.turn()
        points = {POINTS[kind]: given for kind, given in said.items()}
        missing = {name: max(0, int(counts.get(kind, 0)) - len(points[name])) for kind, name in POINTS.items()}
        whole: Any = {
            **found,
            **points,
            "jobs": self._records(found["jobs"], kinds),
            "series": [],
            "left_out": {**found["left_out"], **missing},
        }
        made: TraceRecord = whole
        return made

    def _records(self, jobs: Iterable[Mapping[str, Any]], kinds: Kinds) -> list[JobRecord]:
        """Of jobs of one trace."""
        found = []
        for job in jobs:
            over = self._correlator.about(job["trace_id"])["over"]
            found.append(self.record({**job, "state": _state(job, over=over)}, kinds))
        return found

    def _kind(self, job: Mapping[str, Any], kinds: Kinds) -> str:
        kind = kinds.of(job["job_id"])
        if kind == ANY and (root := self._correlator.root_of(job["trace_id"])):
            return kind_of_root(*root)
        return kind

    def record(self, job: Mapping[str, Any], kinds: Kinds) -> JobRecord:
        """A job that is known to be in a state, with all that is known of it."""
        about = self._correlator.about(job["trace_id"])
        whole: Any = {
            **job,
            "kind": self._kind(job, kinds),
            "services": about["services"],
            "errors": about["errors"],
            "reached": nothing_reached(),
            "eta": None,
        }
        if whole["state"] in OPEN and (troubles := self.schedules.troubles_of(job["job_id"])):
            whole["troubles"] = troubles
        made: JobRecord = whole
        return made

    @property
    def schedules(self) -> Schedules:
        """What is expected, and how that is."""
        return self._correlator.engine.schedules

    @property
    def sdk_dropped(self) -> int:
        """Messages that SDKs say they had to drop, since the start."""
        return self._correlator.sdk_dropped

    @property
    def traces(self) -> int:
        """How many traces are followed now."""
        return self._correlator.engine.live

    @property
    def counters(self) -> Mapping[str, int]:
        """What the correlation counts, since the start."""
        return self._correlator.engine.counters


def _state(job: Mapping[str, Any], *, over: bool) -> str:
    if job["status"] in TERMINAL:
        return str(job["status"])
    if job.get("gone"):
        return "gone"
    if over:
        return "unfinished"
    return "stalled" if job["stalled"] else "running"
