"""What the ledger keeps of each stream and each trace, and its snapshot. Pure.

Where each message begins a trace of its own, most of what is kept is traces of which nothing more ever comes: such a one is a `Brief`,
and becomes an `Account` when it is more than that.
"""

from __future__ import annotations

from collections.abc import Collection

from msgspec import Struct, field

from wafermon.journal import Group

CHANGES = 16
SEGMENTS = 64
"""Of one trace and route: what lies in older ones counts as in the first of these."""
NO_ROUTE = "no route"
"""In place of the backends' names. No backend's name holds a space."""


class Said(Struct, gc=False):
    """An SDK's last stats line."""

    order: int
    called: int
    dropped: int
    unsent: int
    last: int
    final: bool


class Changes(Struct, gc=False):
    """A count that only grows, with when it did."""

    at: list[tuple[int, int]] = field(default_factory=list)
    """(order, count from then on), the latest `CHANGES`."""

    @property
    def now(self) -> int:
        return self.at[-1][1] if self.at else 0

    def to(self, order: int, count: int) -> None:
        if count > self.now:
            self.at.append((order, count))
            del self.at[:-CHANGES]

    def since(self, order: int) -> int:
        """How much it grew since then; rather more, where that was too long ago."""
        before = 0
        for at, count in self.at:
            if at >= order:
                break
            before = count
        return self.now - before


class Stream(Struct, gc=False):
    """One client's numbers."""

    mark: int
    """Everything up to here has come, or never will."""
    heard: int
    messages: int = 0
    """Accepted ones, without stats lines."""
    gaps: list[tuple[int, int]] = field(default_factory=list)
    """First and last number of each that never came."""
    more_gaps: int = 0
    """Numbers in further gaps."""
    rejected: Changes = field(default_factory=Changes)
    """Lines whose trace can't be read."""
    dropped: Changes = field(default_factory=Changes)
    said: Said | None = None
    owner: str = ""
    """The SDK whose spill file it is, once that has said so."""
    named: int = 0
    """Up to here its owner's stats lines have named it."""
    files: dict[str, int] = field(default_factory=dict)
    """The spill files that its last stats line named and that are not there in full, with their last number."""
    more_files: int = 0
    """Those of them that there was no room for."""
    family: list[str] = field(default_factory=list)
    """Its spill files that are known here."""
    traces: dict[str, None] = field(default_factory=dict)
    """Those for which it, or a file of its family, is not closed."""
    service: str = ""

    def gap_up_to(self, last: int) -> bool:
        return any(first <= last for first, _ in self.gaps)


class Routed(Struct, gc=False):
    """What goes the same way of one trace."""

    count: int = 0
    segment: int = 0
    """With `offset`: where the journal holds the last of it, or some place after that."""
    offset: int = 0
    segments: dict[int, int] = field(default_factory=dict)
    """How many of them stand in each segment."""

    def add(self, count: int, group: Group) -> None:
        end = group.end
        self.count += count
        self.segment, self.offset = end.segment, end.offset
        self.segments[end.segment] = self.segments.get(end.segment, 0) + count
        if len(self.segments) > SEGMENTS:
            oldest, second = sorted(self.segments)[:2]
            self.segments[second] += self.segments.pop(oldest)


class Share(Struct, gc=False):
    """What one stream has of a trace."""

    count: int
    order: int
    """When the last of it came."""


class Edge(Struct, gc=False):
    """What another sidecar, at which some of a trace's programs are, tells of it in its own receipt."""

    received: int
    forwarded: int
    """What it sends on; here, should it have more than one place to forward to, that of which most is sent."""
    rejected: int
    dropped: int
    gaps: int
    """Numbers that never came there."""
    unclosed: int
    """Programs that have not said that they sent everything, or that are not judged."""
    uncertain: bool
    """Something of it can't be known there."""
    sent: int | None = None


class Account(Struct, gc=False):
    """What is known of one trace."""

    begun: int
    """The order of its first message's group."""
    heard: int
    received: int = 0
    unnumbered: int = 0
    rejected: int = 0
    """Lines that name the trace."""
    near: int = 0
    """Rejected lines of folded streams that say nothing of their trace."""
    no_route: int = 0
    shares: dict[str, Share] = field(default_factory=dict)
    """By client: what is not closed."""
    closed: int = 0
    """SDKs that are."""
    sent: int = 0
    """What those have called."""
    alone: bool = True
    """They said nothing else."""
    unjudged: int = 0
    """Streams that there was no room for."""
    before: bool = False
    """Something of it may have come before anything was counted."""
    routed: dict[str, Routed] = field(default_factory=dict)
    """By the backends' names, with commas between them."""
    dead: dict[str, int] = field(default_factory=dict)
    """Dead letters by backend."""
    jobs: dict[str, tuple[int, bool]] = field(default_factory=dict)
    """The `ts` of what was heard last, and whether it is over."""
    ended: int = 0
    """When it ended; 0 while it has not."""
    told: int = 0
    """How often its receipt was told."""
    forwarded: int = 0
    """Messages that came from other sidecars."""
    edges: dict[str, Edge] = field(default_factory=dict)
    """What those have told of it, by their journals."""

    @property
    def clients(self) -> Collection[str]:
        """Of `shares`."""
        return self.shares

    @property
    def running(self) -> bool:
        """Whether it has a job that is not over."""
        return any(not over for _, over in self.jobs.values())


class Met(Struct, gc=False):
    """When and where some messages came: what traces that began with them have in common."""

    begun: int
    """With `heard` and `before`: see `Account`."""
    order: int
    heard: int
    before: bool
    segment: int
    offset: int


class Brief(Struct, gc=False):
    """A trace of which messages of one client came at once, and went one way."""

    met: Met
    client: str
    """Empty where they had no numbers."""
    route: str
    count: int
    forwarded: bool
    """They came from another sidecar."""
    ended: int = 0
    """See `Account`."""

    @property
    def clients(self) -> Collection[str]:
        """See `Account`."""
        return (self.client,) if self.client else ()

    def account(self) -> Account:
        """The same at length."""
        met, count, routed = self.met, self.count, dict[str, Routed]()
        if self.route and self.route != NO_ROUTE:
            routed[self.route] = Routed(count, met.segment, met.offset, {met.segment: count})
        return Account(
            met.begun,
            met.heard,
            count,
            unnumbered=0 if self.client or self.forwarded else count,
            no_route=count if self.route == NO_ROUTE else 0,
            shares={self.client: Share(count, met.order)} if self.client else {},
            before=met.before,
            routed=routed,
            ended=self.ended,
            forwarded=count if self.forwarded else 0,
        )


class State(Struct):
    """A snapshot."""

    order: int
    now: int
    sure: int
    blind: bool
    done: list[tuple[str, int]]
    streams: list[tuple[str, Stream]]
    traces: list[tuple[str, Account]]
    expected: dict[str, str]
    due: list[tuple[int, str]]
