"""What is kept of one trace while it lives, and the rules by which it ends. Times are microseconds.

There are two clocks here: `ts`, `first`, `last` and `started` are the clients' own; everything that a deadline is
counted from is a group's `elapsed`, a time that nobody sets.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from msgspec import Struct, field

from wafermon.model.messages import LEVELS, TERMINAL, Progress

NEVER = 2**62
"""Later than any time, and still small enough to be added to one."""
LINGER = 5_000_000
"""How long a trace that has nothing left to do waits for stragglers."""
SERVICES = 64
SPANS = 1_000
JOBS = 16
TEXT = 128
"""The longest text that is kept of a name, in characters."""
_WORK = frozenset({"span_start", "span_end", "progress"})
_NONE: dict[str, Any] = {}
"""Of traces that have none: there may be as many as messages. Nobody changes it."""


class Delays(NamedTuple):
    """The settings in microseconds; NEVER where there is no limit."""

    stalled: int
    idle: int
    longest: int


class Span(Struct, gc=False):
    name: str
    service: str
    started: int
    parent_id: str
    program: str = ""
    """The one that opened it; empty where that is not connected, and in snapshots of before it was kept."""


class Job(Struct, gc=False):
    percent: float
    status: str
    service: str
    ts: int
    heard: int
    """When its last progress was received, on `elapsed`."""
    reported: bool = False
    """It was found stalled and has made no progress since."""
    first: int = 0
    """The `ts` of the progress that was heard first; 0 in snapshots of before it was kept."""
    program: str = ""
    """The one that reported last; empty where that is not connected, and in snapshots of before it was kept."""
    gone: bool = False
    """Its program ended without saying so, and it has not been heard of since."""

    @property
    def over(self) -> bool:
        return self.status in TERMINAL

    def take(self, message: Progress, ts: int, service: str, now: int) -> None:
        """The next progress message.

        Streams overtake each other when a part of one went through a spill file: an older message shows that the job
        lives, but does not undo a newer one. An end counts although it looks older, since hosts' clocks differ and an
        end that is missed would leave the job unfinished for good."""
        status = message.status[:TEXT] if message.status else self.status
        self.heard = now
        self.reported = self.gone = False
        if ts >= self.ts or (not self.over and status in TERMINAL):
            self.percent, self.status, self.service = message.percent, status, service
            self.ts = max(self.ts, ts)

    def stalls_at(self, delays: Delays) -> int:
        return NEVER if self.reported or self.gone or self.over else self.heard + delays.stalled


class LiveTrace(Struct, gc=False):
    """One part of a trace, from its first message until it ends."""

    id: str
    part: int
    begun: int
    heard: int
    first: int
    last: int
    settled: int = 0
    """When a span closed or a job ended last; 0 where none did yet."""
    services: dict[str, None] = field(default_factory=dict)
    """In the order in which they were first heard."""
    counts: dict[str, int] = field(default_factory=dict)
    """Messages by type, but events by level alone: one step less for each message."""
    failures: int = 0
    """Spans that ended in error."""
    spans: dict[str, Span] = field(default_factory=lambda: _NONE)
    """The open ones, by span id. Put in by `open` alone."""
    early: set[str] | None = None
    """Spans whose end overtook their start; made when there is one."""
    jobs: dict[str, Job] = field(default_factory=lambda: _NONE)
    """By job id. Put in by `begin` alone."""
    derived: bool = False
    """Another sidecar forwards what comes of it."""
    queued: int = NEVER
    """The deadline under which the engine looks at it next; never later than `due`."""

    def open(self, span_id: str, span: Span) -> None:
        self.spans = self.spans or {}
        self.spans[span_id] = span

    def begin(self, job_id: str, job: Job) -> None:
        self.jobs = self.jobs or {}
        self.jobs[job_id] = job

    def only_counts(self) -> bool:
        """Whether it never had a span or a job."""
        return _WORK.isdisjoint(self.counts)

    def is_of_one(self) -> bool:
        """Whether it has one message."""
        return len(self.counts) == 1 and 1 in self.counts.values()

    def span_ids(self) -> int:
        """How many are held."""
        return len(self.spans) + len(self.early or ())

    def running(self) -> bool:
        if self.spans:
            return True
        for job in self.jobs.values():  # noqa: SIM110  # a generator costs more than all of this
            if job.status not in TERMINAL:
                return True
        return False

    def ends_at(self, delays: Delays) -> int:
        longest = self.begun + delays.longest
        if self.running():
            return longest
        return min(longest, self.settled + LINGER if self.settled else self.heard + delays.idle)

    def due(self, delays: Delays) -> int:
        """When something happens to it next if nothing more is heard."""
        if not (self.settled or self.jobs or self.spans):  # so it is with most where there are many
            return min(self.begun + delays.longest, self.heard + delays.idle)
        due = self.ends_at(delays)
        for job in self.jobs.values():
            due = min(due, job.stalls_at(delays))
        return due

    def stalled(self, now: int, delays: Delays) -> Iterator[tuple[str, Job]]:
        """The jobs to report, by id, so that the order is always the same."""
        for job_id, job in sorted(self.jobs.items()):
            if job.stalls_at(delays) <= now:
                yield job_id, job

    def outcome(self) -> str:
        """Its status if it ends now: what its jobs say, then whether it came to an end by itself."""
        ends = {job.status for job in self.jobs.values()}
        if "failed" in ends:
            return "failed"
        if "cancelled" in ends:
            return "cancelled"
        return "done" if self.settled and not self.running() else "idle"

    def tally(self) -> dict[str, int]:
        """Messages by type, and events by level, as `trace` has them."""
        if self.counts.keys().isdisjoint(LEVELS):
            return dict(self.counts)
        levels = {level: self.counts[level] for level in LEVELS if level in self.counts}
        counts = {"event": sum(levels.values())}
        counts |= {kind: count for kind, count in self.counts.items() if kind not in levels}
        return counts | {f"level.{level}": count for level, count in levels.items()}

    def errors(self) -> int:
        """Events of level error and critical, and spans that ended in error."""
        return self.counts.get("error", 0) + self.counts.get("critical", 0) + self.failures
