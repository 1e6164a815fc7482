"""What the ledger keeps of each trace. Pure.

Where each message begins a trace of its own, most of what is kept is traces of which nothing more ever comes: such a one is a `Brief`,
and becomes an `Account` when it is more than that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from msgspec import Struct, field

from wafermon.journal import Group

SEGMENTS = 64
"""Of one trace and route: what lies in older ones counts as in the first of these."""
NO_ROUTE = "no route"
"""In place of the backends' names. No backend's name holds a space."""


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

    def shares_of(self, root: str, family: Iterable[str]) -> list[str]:
        """Those of an SDK's streams that have something of the trace that is not closed."""
        return [name for name in (root, *family) if name in self.shares]


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
