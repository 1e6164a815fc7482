"""What the engine is given to go by, and what is kept of it in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from msgspec import Struct

from wafermon.correlation.programs import Program
from wafermon.correlation.schedules import Rule
from wafermon.correlation.traces import NEVER, Delays, LiveTrace
from wafermon.model.messages import Event, Trace

VERSION = 2
READABLE = (1, VERSION)
"""In 1 the date was what deadlines went by: it goes on as `elapsed`, as the journal's own does."""


@dataclass(frozen=True)
class Settings:
    """Times are seconds; 0 means no limit."""

    stalled_after: float = 300.0
    """A job without progress for this long is reported."""
    trace_idle: float = 600.0
    """A trace that never had a span or a job ends after this long without a message."""
    trace_max: float = 86_400.0
    """Every trace ends after this long."""
    max_traces: int = 20_000
    """How many live traces are kept, and how many ended ones are remembered."""
    derive: str = "here"
    """Or ``never``: traces and jobs are followed all the same, but what comes of them is left to the sidecar that this one forwards to;
    all but the receipts, which only this one can tell."""
    forwards: tuple[str, ...] = ()
    """The backends that forward to other sidecars."""
    after_start: float = 60.0
    """After a start nothing that is due by a schedule is judged for so long."""
    schedules: Mapping[str, Rule] = field(default_factory=dict)
    """By name. In snapshots they are with the schedules."""

    def delays(self) -> Delays:
        return Delays(*(round(s * 1e6) or NEVER for s in (self.stalled_after, self.trace_idle, self.trace_max)))


class Snapshot(Struct):
    version: int
    journal: str
    settings: Settings
    now: int
    live: list[LiveTrace]
    """The one heard last comes last."""
    ended: list[tuple[str, int]]
    awaiting: list[Trace | Event]
    counters: dict[str, int]
    date: int = 0
    """What is added to `elapsed` for the date."""
    programs: list[Program] = []
    """This and what follows was added after 2.0.0, which reads over it. That one's snapshots have none of it."""
    awaiting_more: list[Event] = []
    """Derived messages of the kinds that 2.0.0 does not know."""
    ledger: bytes = b""
    """The ledger's own snapshot."""
    evicted: int = 0
    """Traces that ended without a summary and have not been told of yet."""
    evicted_due: int = 0
    """When they are; 0 where there are none."""
    more_at: list[int] = []
    """Where `awaiting_more` stand among all that are awaited; they come last where that was not kept."""
    schedules: bytes = b""
    """That of the schedules; empty where there are none."""

    def awaited(self) -> list[Trace | Event]:
        """Of both kinds, in order."""
        awaiting = list(self.awaiting)
        places = self.more_at or [len(awaiting) + n for n in range(len(self.awaiting_more))]
        for message, place in zip(self.awaiting_more, places, strict=True):
            awaiting.insert(place, message)
        return awaiting
