"""What is known of one expectation: when something is due, what runs, what is not as it should be.

Times are microseconds. `begun`, `heard` and `over` are on `elapsed`, which nobody sets: durations are counted on it. What is due, and
what people are told, are dates.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct, field

from wafermon.correlation.traces import NEVER
from wafermon.model.schedules import OVERLAPPING, PAUSED, RUNNING, WAITING

ENDED = 16
"""So many runs that ended are remembered, so that what comes late of them is not taken for another run."""
MISSED = 100
"""So many due times of an absence are told one by one."""


class Run(Struct, gc=False):
    """One run of a job."""

    id: str
    trace_id: str
    due: int
    """The time that it was due at; 0 where it was not."""
    begun: int
    heard: int
    """When its last progress came."""
    started: int
    """The date at which it began."""
    first: int
    """The `ts` of the progress that was heard first, on its host's clock."""
    last: int
    """The greatest `ts`."""
    host: str
    percent: float
    service: str
    program: str
    status: str = ""
    over: int = 0
    """When it ended; 0 while it goes on."""
    gone: bool = False
    """It ended because its program was gone."""
    messages: int = 1
    """How many were heard; counted to 2."""
    silent: bool = False
    """It was told as silent, and has not been heard since."""
    too_long: bool = False
    """It was told so."""


class Ended(Struct, gc=False):
    """The run that ended last, for people."""

    run: str
    trace_id: str
    state: str
    """``done`` or ``failed``."""
    started: int
    ended: int
    took: int


class Expectation(Struct, gc=False):
    """One schedule, or one host of it."""

    name: str
    host: str
    since: int
    """The date from which on it is expected."""
    due: int = NEVER
    """The next date at which a run is due by cron."""
    heard: int = 0
    """When the last run began, or the last message came."""
    last: int = 0
    """The date of that; 0: never."""
    missed: int = 0
    """The due time that was told as not started and has not started since; 0: none."""
    unheard: list[int] = field(default_factory=list)
    """Due times of the sidecar's absence by which nothing started as far as is known, and which are still to be told."""
    more_unheard: bool = False
    """There are others between them."""
    runs: dict[str, Run] = field(default_factory=dict)
    """Those under way, by job id."""
    ended: dict[str, Run] = field(default_factory=dict)
    """The last ones that are over. The latest comes last."""
    open: dict[str, int] = field(default_factory=dict)
    """What is not as it should be: ``STATE`` or ``STATE RUN``, and the date since when. The newest comes last."""
    troubles: dict[str, int] = field(default_factory=dict)
    """The states that were told since all was well, and when first."""
    failures: int = 0
    """Runs that failed one after the other."""
    times: dict[str, int] = field(default_factory=dict)
    """How often it was in which state."""
    changed: int = 0
    """The date of what was told last."""
    last_run: Ended | None = None
    queued: int = NEVER
    """The deadline on `elapsed` at which it is looked at next; never later than the real one."""
    queued_date: int = NEVER
    """The same for a date."""

    @property
    def key(self) -> str:
        """No name holds a space."""
        return f"{self.name} {self.host}"

    def state(self, *, paused: bool) -> str:
        """What it is in now."""
        if paused:
            return PAUSED
        if self.open:
            return next(reversed(self.open)).partition(" ")[0]
        if self.runs:
            return RUNNING
        if self.last_run is not None:
            return self.last_run.state
        return RUNNING if self.last else WAITING

    def remember(self, run: Run) -> list[str]:
        """It is over -> the jobs that are forgotten for it."""
        self.runs.pop(run.id, None)
        self.ended.pop(run.id, None)
        self.ended[run.id] = run
        forgotten = [*self.ended][:-ENDED]
        for job in forgotten:
            del self.ended[job]
        return [job for job in forgotten if job not in self.runs]

    def opened_by(self, run: str) -> list[str]:
        """What of `open` is about a run."""
        return [key for key in self.open if key.partition(" ")[2] == run]

    def overlaps_over(self, most: int) -> list[str]:
        """What was told as overlapping and is so no more, where so many runs may be under way (0: any number)."""
        if most and len(self.runs) > most:
            return []
        return [key for key in self.open if key.startswith(f"{OVERLAPPING} ")]

    def keep_open(self, keys: Iterable[str]) -> None:
        """What was told of a run that did not end well is over when another one does."""
        for key in keys:
            since, state = self.open.pop(key), key.partition(" ")[0]
            if state != OVERLAPPING:
                self.open.setdefault(state, since)
