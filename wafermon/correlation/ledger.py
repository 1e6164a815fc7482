"""What receipts are computed from: what came of each trace, by stream and by route, and what each stream says of itself. Pure.

It observes the journal's groups in order, and is a function of them. Nothing is derived from it: it is asked (`facts`). Whether a
backend has what was routed to it is not known here.

A stream is judged by its numbers: the marks of a group say how far each stream is, its messages and rejected lines how many came.
Only where these differ is it looked for what is missing. A stream is *closed* for a trace by a stats line of its SDK that says that
nothing is unsent, with no gap before it, with all of the SDK's spill files there, and with nothing dropped since the trace
began; and that is a final one, or came after the trace's end. What is closed is folded into a count.

What other sidecars forwarded is not judged by its numbers here: that was done where its programs are connected. It is counted, and
each of these sidecars tells its own receipt of a trace, which is kept beside that count.

Everything is bounded. Where a bound is reached the trace says that something of it is not judged, so that nobody takes it for
complete.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple, Protocol

import msgspec
from msgspec import UNSET, Struct, field

from wafermon.journal import FORWARD, KAFKA, Group, Mark, Rejected
from wafermon.model.blocks import Block
from wafermon.model.messages import (
    OWN_SERVICE,
    TERMINAL,
    TRACE_ID,
    Event,
    Kind,
    Message,
    Progress,
    Stats,
    Trace,
    loads,
)

TRACES = 20_000
STREAMS = 50_000
DONE = 10_000
"""Streams that have said their last word, of which only the mark is remembered."""
SHARES = 1_000
"""Streams of one trace that are not folded."""
ALL_SHARES = 200_000
GAPS = 16
"""Of one stream that are known one by one."""
CHANGES = 16
JOBS = 16
SEGMENTS = 64
"""Of one trace and route: what lies in older ones counts as in the first of these."""
ALL_FILES = 100_000
"""Spill files of all SDKs together that were named and are not there."""
FORGOTTEN = 30 * 86_400_000_000
"""So long, in microseconds, marks are remembered: a stream that comes again later begins anew."""
TOLD_AFTER = 60_000_000
"""So long after a job's end its receipt is told, in microseconds, where not all of its streams are closed before."""
PART = 100
"""So many traces or streams of a snapshot are written at a time."""
_ARRAY = b"\xdd"
_Alike = tuple[Any, str]
"""The backend that messages are replayed to, and the names of those that they go to."""
RECEIPT = "receipt"
"""The kind of the event that keeps a receipt."""
NO_ROUTE = "no route"
"""In place of those names. No backend's name holds a space."""
ROUTES = 65_536
COUNT_MAX = 1 << 53
"""Of what other sidecars say in their receipts."""
EDGES = 1_000
"""Other sidecars whose receipts of one trace are kept."""


class Route(Protocol):
    """Where a message goes."""

    @property
    def backends(self) -> tuple[str, ...]: ...
    @property
    def matched(self) -> bool: ...


class Table(Protocol):
    """What says it."""

    def route(self, service: str, type: str, level: object, host: object) -> Route: ...


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
    def running(self) -> bool:
        """Whether it has a job that is not over."""
        return any(not over for _, over in self.jobs.values())


class Gap(NamedTuple):
    """Numbers of a stream that are not there."""

    client: str
    first: int
    last: int
    alone: bool
    """Whether the stream served this trace alone: else they may belong to something else."""
    pending: bool
    """Whether they may still come: they are said to lie in a spill file."""


class Facts(NamedTuple):
    """What is known of a trace, backends apart."""

    trace_id: str
    account: Account
    sent: int | None
    """None where some stream served more than this trace, or is not closed."""
    dropped: int
    rejected: int
    gaps: Sequence[Gap]
    more_gaps: int
    """Numbers in gaps that are not among them."""
    unclosed: Sequence[str]
    services: dict[str, str]
    """Of the clients named in gaps and unclosed."""


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


class Ledger:
    """One journal's streams and traces. `journal_id` is the `client` of the sidecar's own messages."""

    def __init__(self, journal_id: str) -> None:
        self._journal = journal_id
        self._order = 0
        self._group = 0
        """The order at the beginning of the group."""
        self._now = 0
        self._sure = 0
        """From here on a stream that is not known is new, and its first number is 1."""
        self._blind = False
        """Whether it is not known which traces had begun before anything was counted."""
        self._streams: OrderedDict[str, Stream] = OrderedDict()
        """The one heard last comes last; so it is with traces."""
        self._done: OrderedDict[str, int] = OrderedDict()
        self._traces: OrderedDict[str, Account] = OrderedDict()
        self._shares = 0
        self._files = 0
        self._table: Table | None = None
        self._routes: dict[tuple[Any, ...], str] = {}
        """What that table says, remembered."""
        self._expected: dict[str, str] = {}
        """The SDKs that named spill files of which nothing has come, by the file's client."""
        self._due: deque[tuple[int, str]] = deque()
        """When to tell of jobs that have ended, in order of time."""
        self._to_tell: dict[str, None] = {}
        """The traces of which the group tells a receipt."""
        self._forwards = False
        """Whether something in the group was forwarded by another sidecar."""
        self._last_words: list[str] = []
        """Clients of this group that have said that nothing follows."""
        self._forgotten: dict[str, None] = {}
        """Traces that end with the group, and no summary says so."""

    def begin_late(self, elapsed: int, traces: Iterable[str] | None) -> None:
        """There are groups before the first one to come that were not observed, or not counted: streams that begin in the middle
        may have begun before, and so have these traces. None: it is not known which."""
        self._sure = max(self._sure, elapsed + FORGOTTEN)
        self._blind = traces is None
        for trace_id in traces or ():
            self._traces[trace_id] = Account(0, elapsed, before=True)

    def forgotten(self, trace_id: str) -> None:
        """It ends with the group that is observed next, and no summary says so."""
        if len(self._forgotten) < TRACES:
            self._forgotten[trace_id] = None

    # -- groups

    def observe(self, group: Group, table: Table) -> None:
        """`table` is the routing table of the group."""
        self._now = max(self._now, group.elapsed)
        self._order += 1
        self._group = self._order
        came = Counter[Any]()
        for _, block in group.blocks:
            for tally in block.tallies():
                came[tally.client] += tally.count
        refused: dict[str, list[Rejected]] = {}
        for _, one in group.rejected:
            refused.setdefault(one.client, []).append(one)
        # What was read from elsewhere is judged where its programs are connected.
        marks = [mark for mark in group.marks if not mark.principal.startswith((FORWARD, KAFKA))]
        self._forwards = any(mark.principal.startswith(FORWARD) for mark in group.marks)
        for mark in marks:
            self._take_mark(mark, group, came[mark.client], refused.get(mark.client, ()))
        numbered = {mark.client for mark in marks}
        for _, one in group.rejected:
            self._take_rejected(one)
        for _, block in group.blocks:
            if Stats.type in block.types:
                self._take_in_parts(block, group, table, numbered)
            else:
                self._take_counts(block, group, table, numbered)
        for trace_id in self._forgotten:
            if account := self._traces.get(trace_id):
                account.ended = account.ended or self._order
        self._forgotten.clear()
        for client in numbered:
            self._look_at_files(client)
        for client in self._last_words:
            self._end_stream(client)
        self._last_words = []
        while self._due and self._due[0][0] <= self._now:
            _, trace_id = self._due.popleft()
            if trace_id in self._traces and not self._traces[trace_id].told:
                self._to_tell[trace_id] = None
        self._trim()

    def take_told(self) -> list[Facts]:
        """The traces of jobs whose receipts are to be kept now: all that is to be known of them is, or they ended a while ago."""
        told, self._to_tell = list(self._to_tell), {}
        found = []
        for trace_id in told:
            account = self._traces.get(trace_id)
            facts = self.facts(trace_id)
            if account is not None and facts is not None and account.ended and (account.jobs or account.told):
                account.told += 1
                found.append(facts)
        return found

    def end(self, trace_id: str) -> Facts | None:
        """A trace has ended, and no summary of it is journalled. Answers where that is to be told here, since no job's end tells it."""
        account = self._traces.get(trace_id)
        if account is None:
            return None
        account.ended = account.ended or self._order
        if account.jobs:
            return None
        account.told += 1
        return self.facts(trace_id)

    def _take_in_parts(self, block: Block, group: Group, table: Table, numbered: set[str]) -> None:
        """A stats line closes what came before it, and nothing after."""
        start, messages = 0, block.messages
        for index, message in enumerate(messages):
            if isinstance(message, Stats):
                self._take_counts(Block.of(b"", messages[start:index]), group, table, numbered)
                if message.client in numbered:
                    self._take_stats(message)
                start = index + 1
        self._take_counts(Block.of(b"", messages[start:]), group, table, numbered)

    def _take_counts(self, block: Block, group: Group, table: Table, numbered: set[str]) -> None:
        self._order += 1
        if table is not self._table:
            self._table, self._routes = table, {}
        for tally in block.tallies():
            client = tally.client if isinstance(tally.client, str) and tally.client in numbered else ""
            if client:
                self._streams[client].messages += tally.count
                if not self._streams[client].service:
                    self._streams[client].service = str(Kind(*next(iter(tally.counts))).service)
            if isinstance(tally.trace_id, str):
                found = Counter[_Alike]()
                for kind, count in tally.counts.items():
                    found[self._alike(Kind(*kind))] += count
                for (replay_to, route), count in found.items():
                    forwarded = self._forwards and not client and tally.client is not UNSET
                    self._take_alike(tally.trace_id, client, replay_to, route, count, group, forwarded=forwarded)
        self._take_own(block.of_service(OWN_SERVICE))
        self._take_progress(block.followed)

    def _alike(self, kind: Kind) -> _Alike:
        where = (kind.service, kind.type, kind.level, kind.host)
        route = self._routes.get(where)
        if route is None:
            found = self._table.route(*where) if self._table else None
            if len(self._routes) >= ROUTES:
                self._routes.clear()
            route = self._routes[where] = ",".join(found.backends) if found and found.matched else NO_ROUTE
        return kind.replay_to, route

    def _take_alike(
        self, trace_id: str, client: str, replay_to: Any, route: str, count: int, group: Group, *, forwarded: bool
    ) -> None:
        account = self._account(trace_id)
        if replay_to:
            account.dead[replay_to] = max(0, account.dead.get(replay_to, 0) - count)
            return
        if account.ended and not account.jobs:
            account.ended = 0
        account.received += count
        if client:
            self._share(trace_id, account, client, count)
        elif forwarded:
            account.forwarded += count
        else:
            account.unnumbered += count
        if route == NO_ROUTE:
            account.no_route += count
        elif route:
            routed = account.routed.get(route)
            if routed is None:
                routed = account.routed[route] = Routed()
            routed.add(count, group)

    def _share(self, trace_id: str, account: Account, client: str, count: int) -> None:
        share = account.shares.get(client)
        if share is not None:
            share.count += count
            share.order = self._order
            return
        if len(account.shares) >= SHARES or self._shares >= ALL_SHARES:
            account.unjudged += 1
            return
        account.shares[client] = Share(count, self._order)
        self._shares += 1
        self._streams[self._root(client)].traces[trace_id] = None

    def _account(self, trace_id: str) -> Account:
        account = self._traces.get(trace_id)
        if account is None:
            account = self._traces[trace_id] = Account(
                self._group, self._now, before=self._blind and self._now < self._sure
            )
        elif account.heard != self._now:
            account.heard = self._now
            self._traces.move_to_end(trace_id)
        return account

    # -- streams

    def _take_mark(self, mark: Mark, group: Group, came: int, refused: Sequence[Rejected]) -> None:
        stream = self._streams.get(mark.client)
        if stream is None:
            first = self._done.pop(mark.client, None)
            if first is None:
                unsure = self._now < self._sure
                first = min(_numbers(group, mark.client, refused), default=mark.seq) - 1 if unsure else 0
            stream = self._streams[mark.client] = Stream(first, self._now)
        elif stream.heard != self._now:
            stream.heard = self._now
            self._streams.move_to_end(mark.client)
        if mark.seq <= stream.mark:
            return
        if mark.seq - stream.mark != came + len(refused):
            self._find_gaps(stream, mark, _numbers(group, mark.client, refused))
        stream.mark = mark.seq

    def _find_gaps(self, stream: Stream, mark: Mark, numbers: Iterable[int]) -> None:
        at = stream.mark
        for number in [*sorted(n for n in set(numbers) if stream.mark < n <= mark.seq), mark.seq + 1]:
            if number > at + 1:
                if len(stream.gaps) < GAPS:
                    stream.gaps.append((at + 1, number - 1))
                else:
                    stream.more_gaps += number - 1 - at
            at = number

    def _take_rejected(self, one: Rejected) -> None:
        """It fills the place of its number; its trace is what the line says, if that can be read."""
        trace_id = _trace_of(one.line)
        if trace_id:
            account = self._account(trace_id)
            account.rejected += 1
            if one.client in self._streams:
                self._share(trace_id, account, one.client, 0)
        elif one.client in self._streams:
            rejected = self._streams[one.client].rejected
            rejected.to(self._order, rejected.now + 1)

    def _root(self, client: str) -> str:
        """The SDK whose stream this is."""
        stream = self._streams.get(client)
        return stream.owner if stream is not None and stream.owner in self._streams else client

    def _family(self, root: str) -> list[Stream]:
        return [self._streams[client] for client in (root, *self._streams[root].family) if client in self._streams]

    def _take_stats(self, message: Stats) -> None:
        client: Any = message.client
        stream = self._streams[client]
        self._order += 1
        stream.dropped.to(self._order, message.dropped)
        said = Said(self._order, message.called, message.dropped, message.unsent, message.last, message.final is True)
        stream.said = said
        self._drop_files(stream)
        for file in message.streams:
            if file.client != client:
                self._name_file(client, stream, file.client, file.last)
        self._close_all(client, stream)

    def _drop_files(self, stream: Stream) -> None:
        for name in stream.files:
            if self._streams.get(self._expected.get(name, "")) in (stream, None):
                self._expected.pop(name, None)
        self._files -= len(stream.files)
        stream.files, stream.more_files = {}, 0

    def _name_file(self, client: str, stream: Stream, name: str, last: int) -> None:
        file = self._streams.get(name)
        there = file.mark if file is not None else self._done.get(name, -1)
        if there < last:
            if self._files >= ALL_FILES:
                stream.more_files += 1
                return
            self._files += name not in stream.files
            stream.files[name] = last
        if file is None:
            if there < last:
                self._expected.setdefault(name, client)
            return
        file.named = max(file.named, last)
        if not file.owner and file.said is None:
            file.owner = client
            stream.family.append(name)
            stream.traces.update(file.traces)
            file.traces = {}

    def _look_at_files(self, client: str) -> None:
        """A spill file that was waited for may be there now."""
        stream = self._streams.get(client)
        expected = self._expected.pop(client, "")
        if stream is None:
            return
        if expected in self._streams:
            self._name_file(expected, self._streams[expected], client, self._streams[expected].files.get(client, 0))
        owner = self._streams.get(stream.owner)
        if owner is None or stream.mark < owner.files.get(client, 0):
            return
        if owner.files.pop(client, None) is not None:
            self._files -= 1
        self._close_all(stream.owner, owner)

    def _close_all(self, client: str, stream: Stream) -> None:
        """Fold what can be."""
        said = stream.said
        if said is None or said.unsent or stream.files or stream.more_files:
            return
        family = self._family(client)
        if not stream.gap_up_to(said.last) and not any(one.gaps for one in family[1:]):
            for trace_id in list(stream.traces):
                self._close(trace_id, client, stream, said)
        if said.final:
            self._last_words.append(client)

    def _close(self, trace_id: str, root: str, stream: Stream, said: Said) -> None:
        account = self._traces.get(trace_id)
        if account is None:
            del stream.traces[trace_id]
            return
        if not (said.final or 0 < account.ended < said.order) or stream.dropped.since(account.begun):
            return
        members = [name for name in (root, *stream.family) if name in account.shares]
        if not all(self._covered(name, root, account, said) for name in members):
            return
        family = self._family(root)
        came = sum(account.shares.pop(name).count for name in members)
        self._shares -= len(members)
        account.near += sum(one.rejected.since(account.begun) for one in family)
        account.alone = account.alone and came == sum(one.messages for one in family)
        account.sent += said.called
        account.closed += 1
        del stream.traces[trace_id]
        if account.ended and not account.shares:
            self._to_tell[trace_id] = None

    def _covered(self, name: str, root: str, account: Account, said: Said) -> bool:
        """Whether a stats line was said after all that a stream has of a trace."""
        if name == root:
            return account.shares[name].order <= said.order
        return self._streams[name].named >= self._streams[name].mark

    def _end_stream(self, client: str) -> None:
        """Nothing is to be known of it any more, nor of its spill files, but how far it was."""
        stream = self._streams.get(client)
        if stream is None or stream.traces:
            return
        self._drop_files(stream)
        for name in (client, *stream.family):
            ended = self._streams.pop(name, None)
            if ended is not None:
                self._done[name] = ended.mark
        while len(self._done) > DONE:
            self._done.popitem(last=False)

    # -- traces

    def _take_progress(self, messages: Iterable[Message]) -> None:
        for message in messages:
            if not isinstance(message, Progress) or message.trace_id is UNSET or message.replay_to:
                continue
            account, ts = self._traces.get(message.trace_id), message.ts or 0
            if account is None:
                continue
            known, over = account.jobs.get(message.job_id, (0, False))
            if message.job_id not in account.jobs and len(account.jobs) >= JOBS:
                continue
            ends = message.status in TERMINAL if message.status else over
            if ts >= known or (ends and not over):
                account.jobs[message.job_id] = (max(ts, known), ends)
            if account.running:
                account.ended = 0
            elif not account.ended:
                account.ended = self._order
                self._due.append((self._now + TOLD_AFTER, message.trace_id))
                if not account.shares:
                    self._to_tell[message.trace_id] = None

    def _take_own(self, messages: Iterable[Message]) -> None:
        for message in messages:
            if message.trace_id is UNSET:
                continue
            account = self._traces.get(message.trace_id)
            if account is None:
                continue
            if message.client != self._journal:
                self._take_edge(account, message)
            elif isinstance(message, Trace):
                account.ended = account.ended or self._order
            elif isinstance(message, Event) and message.context and message.context.get("kind") == "dead_letter":
                backend, count = message.context.get("backend"), message.context.get("count")
                if isinstance(backend, str) and isinstance(count, int):
                    account.dead[backend] = account.dead.get(backend, 0) + count

    def _take_edge(self, account: Account, message: Message) -> None:
        """What another sidecar derived. Its receipt of a trace comes after all that it has of it."""
        if not isinstance(message, Event) or not message.context or message.context.get("kind") != RECEIPT:
            return
        edge = _edge_of(message.context)
        if edge is None or not isinstance(message.client, str):
            return
        if message.client in account.edges or len(account.edges) < EDGES:
            account.edges[message.client] = edge
            if account.ended and isinstance(message.trace_id, str):
                self._to_tell[message.trace_id] = None

    # -- bounds

    def _trim(self) -> None:
        while len(self._traces) > TRACES:
            trace_id, account = self._traces.popitem(last=False)
            self._shares -= len(account.shares)
            for client in account.shares:
                stream = self._streams.get(self._root(client))
                if stream is not None:
                    stream.traces.pop(trace_id, None)
        while len(self._streams) > STREAMS:
            client, stream = self._streams.popitem(last=False)
            self._sure = max(self._sure, self._now + FORGOTTEN)
            self._drop_files(stream)
            for trace_id in stream.traces:
                account = self._traces[trace_id]
                for name in (client, *stream.family):
                    if account.shares.pop(name, None) is not None:
                        self._shares -= 1
                        account.unjudged += 1

    # -- what is asked

    def find(self, name: str) -> str:
        """The trace of this id, or else that of the job of this id, the latest one; empty where neither is known."""
        if name in self._traces:
            return name
        return next((one for one, account in reversed(self._traces.items()) if name in account.jobs), "")

    def facts(self, trace_id: str) -> Facts | None:
        """What is known of a trace; None where nothing is."""
        account = self._traces.get(trace_id)
        if account is None:
            return None
        roots = {self._root(client): None for client in account.shares}
        gaps, unclosed, services = list[Gap](), list[str](), dict[str, str]()
        dropped, rejected, more_gaps = 0, account.rejected + account.near, 0
        for root in roots:
            stream = self._streams.get(root)
            if stream is None or not self._is_said(root, stream, account):
                unclosed.append(root)
            if stream is None:
                continue
            family = self._family(root)
            members = [name for name in (root, *stream.family) if name in account.shares]
            alone = sum(account.shares[name].count for name in members) == sum(one.messages for one in family)
            dropped += stream.dropped.since(account.begun)
            rejected += sum(one.rejected.since(account.begun) for one in family)
            more_gaps += sum(one.more_gaps for one in family)
            for name in (root, *stream.family):
                if name in self._streams:
                    gaps += [Gap(name, first, last, alone, False) for first, last in self._streams[name].gaps]
            for name, last in stream.files.items():
                first = self._streams[name].mark + 1 if name in self._streams else 1
                gaps.append(Gap(name, first, last, alone, True))
            services |= dict.fromkeys((root, *(gap.client for gap in gaps)), stream.service) | services
        sent = account.sent if account.alone and not roots and account.closed else None
        return Facts(trace_id, account, sent, dropped, rejected, gaps, more_gaps, unclosed, services)

    def _is_said(self, root: str, stream: Stream, account: Account) -> bool:
        """Whether the SDK has said that nothing is unsent of a trace: what is missing then is known."""
        said = stream.said
        if said is None or said.unsent or not (said.final or (account.ended and said.order > account.ended)):
            return False
        members = [name for name in (root, *stream.family) if name in account.shares]
        return all(self._covered(name, root, account, said) for name in members)

    # -- snapshots

    def snapshot_in_parts(self) -> Iterator[bytes]:
        """Nothing a few times, then the snapshot."""
        encoder = msgspec.msgpack.Encoder()
        parts = []
        for held in (self._streams, self._traces):
            data = bytearray(_ARRAY + len(held).to_bytes(4, "big"))
            for n, item in enumerate(held.items(), 1):
                encoder.encode_into(item, data, -1)
                if n % PART == 0:
                    yield b""
            parts.append(msgspec.Raw(data))
        streams: Any
        traces: Any
        streams, traces = parts
        done = list(self._done.items())
        yield encoder.encode(
            State(
                self._order, self._now, self._sure, self._blind, done, streams, traces, self._expected, list(self._due)
            )
        )

    def restore(self, data: bytes) -> None:
        """Go back to a snapshot. Raises msgspec.DecodeError."""
        state = msgspec.msgpack.decode(data, type=State)
        self._order, self._now, self._sure, self._blind = state.order, state.now, state.sure, state.blind
        self._done = OrderedDict(state.done)
        self._streams = OrderedDict(state.streams)
        self._traces = OrderedDict(state.traces)
        self._shares = sum(len(account.shares) for account in self._traces.values())
        self._files = sum(len(stream.files) for stream in self._streams.values())
        self._expected = state.expected
        self._due = deque(state.due)


def _edge_of(record: dict[str, Any]) -> Edge | None:
    """What `receipts.record_of` made elsewhere; None where it can't be read, or says more than can be."""
    sums = ("received", "rejected", "dropped", "more_gaps", "more_unclosed", "unjudged", "unnumbered", "no_route")
    numbers = {name: record.get(name, 0) for name in sums}
    sends, gaps, unclosed = record.get("forwards", {}), record.get("gaps", []), record.get("unclosed", [])
    if not (isinstance(sends, dict) and isinstance(gaps, list) and isinstance(unclosed, list)):
        return None
    missing = [_width(gap) for gap in gaps]
    if not all(map(_is_count, (*numbers.values(), *sends.values(), *missing))):
        return None
    sent = record.get("sent")
    return Edge(
        received=numbers["received"],
        forwarded=max(sends.values(), default=0),
        rejected=numbers["rejected"] + numbers["no_route"],
        dropped=numbers["dropped"],
        gaps=sum(missing) + numbers["more_gaps"],
        unclosed=len(unclosed) + numbers["more_unclosed"] + numbers["unjudged"],
        uncertain=bool(numbers["unnumbered"] or record.get("begun_before")),
        sent=sent if _is_count(sent) else None,
    )


def _is_count(value: Any) -> bool:
    """A number that a JSON reader of any language keeps."""
    return type(value) is int and 0 <= value <= COUNT_MAX


def _width(gap: Any) -> Any:
    """How many numbers a gap of a receipt has; no count where it can't be read."""
    match gap:
        case [_, int(first), int(last), *_]:
            return last - first + 1
    return None


def _numbers(group: Group, client: str, refused: Sequence[Rejected]) -> list[int]:
    """Those of a client's lines in a group."""
    blocks = [block for _, block in group.blocks if any(tally.client == client for tally in block.tallies())]
    messages = chain.from_iterable(block.messages for block in blocks)
    numbers = [message.seq for message in messages if message.client == client and message.seq is not UNSET]
    return [*numbers, *(one.seq for one in refused)]


def _trace_of(line: bytes) -> str:
    """The trace that a refused line names; empty where that can't be read."""
    try:
        value = loads(line)
    except (ValueError, RecursionError, UnicodeDecodeError):
        return ""
    if not isinstance(value, dict):
        return ""
    trace_id = value.get("trace_id", value.get("job_id") if value.get("type") == Progress.type else None)
    return trace_id if isinstance(trace_id, str) and TRACE_ID.fullmatch(trace_id) else ""
