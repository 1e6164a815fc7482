"""What receipts are computed from: what came of each trace, by stream and by route, and what each stream says of itself. Pure.

It observes the journal's groups in order, and is a function of them. Nothing is derived from it: it is asked (`facts`). Whether a
backend has what was routed to it is not known here.

A stream is judged by its numbers (`streams`). It is *closed* for a trace by a stats line of its SDK that says that nothing is unsent,
with no gap before it, with all of the SDK's spill files there, and with nothing dropped since the trace began; and that is a final
one, or came after the trace's end. What is closed is folded into a count.

What other sidecars forwarded is not judged by its numbers here: that was done where its programs are connected. It is counted, and
each of these sidecars tells its own receipt of a trace, which is kept beside that count.

Everything is bounded. Where a bound is reached the trace says that something of it is not judged, so that nobody takes it for
complete.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Set
from itertools import islice
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from wafermon.correlation.accounts import NO_ROUTE, Account, Brief, Met, Routed, Share
from wafermon.correlation.edges import edge_of
from wafermon.correlation.facts import Facts, facts_of
from wafermon.correlation.stream import Said, Stream
from wafermon.correlation.streams import Streams
from wafermon.correlation.ways import Table, Way, Ways
from wafermon.journal import FORWARD, KAFKA, Group, Rejected
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
SHARES = 1_000
"""Streams of one trace that are not folded."""
ALL_SHARES = 200_000
JOBS = 16
TOLD_AFTER = 60_000_000
"""So long after a job's end its receipt is told, in microseconds, where not all of its streams are closed before."""
PART = 100
"""So many traces or streams of a snapshot are written at a time."""
_ARRAY = b"\xdd"
RECEIPT = "receipt"
"""The kind of the event that keeps a receipt."""
EDGES = 1_000
"""Other sidecars whose receipts of one trace are kept."""


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
        self._ids: Set[str] = {journal_id}
        self._order = 0
        self._group = 0
        """The order at the beginning of the group."""
        self._now = 0
        self._blind = False
        """Whether it is not known which traces had begun before anything was counted."""
        self._streams = Streams()
        self._ways = Ways()
        self._traces: dict[str, Account | Brief] = {}
        """The one heard last comes last."""
        self._shares = 0
        """How many of all traces are not folded."""
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
        self._streams.begin_late(elapsed)
        self._blind = traces is None
        for trace_id in traces or ():
            self._traces[trace_id] = Account(0, elapsed, before=True)

    def forgotten(self, trace_id: str) -> None:
        """It ends with the group that is observed next, and no summary says so."""
        if len(self._forgotten) < TRACES:
            self._forgotten[trace_id] = None

    # -- groups

    def observe(self, group: Group, table: Table, ids: Set[str] = frozenset()) -> None:
        """`table` is the routing table of the group, `ids` the clients of the sidecar's own messages in it; without them that is the
        journal's id."""
        self._ids = ids or {self._journal}
        self._now = max(self._now, group.elapsed)
        self._order += 1
        self._group = self._order
        came = dict[Any, int]()
        for _, block in group.blocks:
            for tally in block.tallies():
                came[tally.client] = came.get(tally.client, 0) + tally.count
        refused: dict[str, list[Rejected]] = {}
        for _, one in group.rejected:
            refused.setdefault(one.client, []).append(one)
        # What was read from elsewhere is judged where its programs are connected.
        marks = [mark for mark in group.marks if not mark.principal.startswith((FORWARD, KAFKA))]
        self._forwards = len(marks) < len(group.marks)
        for mark in marks:
            self._streams.take_mark(mark, group, self._now, came.get(mark.client, 0), refused.get(mark.client, ()))
        numbered = {mark.client for mark in marks}
        for _, one in group.rejected:
            self._take_rejected(one)
        for _, block in group.blocks:
            if Stats.type in block.types:
                self._take_in_parts(block, group, table, numbered)
            else:
                self._take_counts(block, group, table, numbered)
        for trace_id in self._forgotten:
            if known := self._traces.get(trace_id):
                known.ended = known.ended or self._order
        self._forgotten.clear()
        for client in numbered:
            if owner := self._streams.look_at_file(client):
                self._close_all(owner, self._streams.by_client[owner])
        for client in self._last_words:
            self._streams.end(client)
        self._last_words = []
        while self._due and self._due[0][0] <= self._now:
            _, trace_id = self._due.popleft()
            account = self._known(trace_id)
            if account is not None and not account.told:
                self._to_tell[trace_id] = None
        self._trim()

    def take_told(self) -> list[Facts]:
        """The traces of jobs whose receipts are to be kept now: all that is to be known of them is, or they ended a while ago."""
        told, self._to_tell = list(self._to_tell), {}
        found = []
        for trace_id in told:
            account = self._known(trace_id)
            facts = self.facts(trace_id)
            if account is not None and facts is not None and account.ended and (account.jobs or account.told):
                account.told += 1
                found.append(facts)
        return found

    def end(self, trace_id: str) -> Facts | None:
        """A trace has ended, and no summary of it is journalled. Answers where that is to be told here, since no job's end tells it."""
        account = self._known(trace_id)
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
        self._ways.use(table)
        end = group.end
        met = Met(self._group, self._order, self._now, self._is_before(), end.segment, end.offset)
        streams, traces, client, stream, served = self._streams, self._traces, "", None, dict[str, None]()
        counts, ways = dict[tuple[Any, ...], int](), dict[Way, int]()
        for tally in block.tallies():
            if tally.client != client:
                client = tally.client if isinstance(tally.client, str) and tally.client in numbered else ""
                stream = streams.by_client[client] if client else None
                served = streams.by_client[streams.root(client)].traces if client else {}
            if stream is not None:
                stream.messages += tally.count
                if not stream.service:
                    stream.service = str(Kind(*next(iter(tally.counts))).service)
            trace_id = tally.trace_id
            if not isinstance(trace_id, str):
                continue
            forwarded = self._forwards and not client and tally.client is not UNSET
            if tally.counts is not counts:  # those of one message share it
                counts = tally.counts
                ways = self._ways.of(counts)
            if len(ways) == 1 and trace_id not in traces and self._shares < ALL_SHARES:
                [((replay_to, route), count)] = ways.items()
                if not replay_to:
                    traces[trace_id] = Brief(met, client, route, count, forwarded)
                    if client:
                        served[trace_id] = None
                        self._shares += 1
                    continue
            for (replay_to, route), count in ways.items():
                self._take_alike(trace_id, client, replay_to, route, count, group, forwarded=forwarded)
        self._take_own(block.of_service(OWN_SERVICE))
        self._take_progress(block.followed)

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
        self._streams.by_client[self._streams.root(client)].traces[trace_id] = None

    def _account(self, trace_id: str) -> Account:
        """That of a trace of which something came."""
        account = self._known(trace_id)
        if account is None:
            account = self._traces[trace_id] = Account(self._group, self._now, before=self._is_before())
        elif account.heard != self._now:
            account.heard = self._now
            self._traces[trace_id] = self._traces.pop(trace_id)
        return account

    def _is_before(self) -> bool:
        """Whether something of a trace that comes now may have come before anything was counted."""
        return self._blind and self._now < self._streams.sure

    def _known(self, trace_id: str) -> Account | None:
        """What is known of a trace, at length."""
        known = self._traces.get(trace_id)
        if isinstance(known, Brief):
            known = self._traces[trace_id] = known.account()
        return known

    # -- streams

    def _take_rejected(self, one: Rejected) -> None:
        """It fills the place of its number; its trace is what the line says, if that can be read."""
        trace_id = _trace_of(one.line)
        if trace_id:
            account = self._account(trace_id)
            account.rejected += 1
            if one.client in self._streams.by_client:
                self._share(trace_id, account, one.client, 0)
        elif one.client in self._streams.by_client:
            rejected = self._streams.by_client[one.client].rejected
            rejected.to(self._order, rejected.now + 1)

    def sdk_of(self, client: str) -> str:
        """The stream of the SDK whose stream this is; itself where that is not known."""
        return self._streams.root(client)

    def dropped_by(self, client: str) -> int:
        """How many messages this stream's stats lines say that its SDK had to drop."""
        stream = self._streams.by_client.get(client)
        return stream.dropped.now if stream is not None else 0

    def _take_stats(self, message: Stats) -> None:
        client: Any = message.client
        stream = self._streams.by_client[client]
        self._order += 1
        stream.dropped.to(self._order, message.dropped)
        said = Said(self._order, message.called, message.dropped, message.unsent, message.last, message.final is True)
        stream.said = said
        self._streams.drop_files(stream)
        for file in message.streams:
            if file.client != client:
                self._streams.name_file(client, stream, file.client, file.last)
        self._close_all(client, stream)

    def _close_all(self, client: str, stream: Stream) -> None:
        """Fold what can be."""
        said = stream.said
        if said is None or said.unsent or stream.files or stream.more_files:
            return
        family = self._streams.family(client)
        if not stream.gap_up_to(said.last) and not any(one.gaps for one in family[1:]):
            for trace_id in list(stream.traces):
                self._close(trace_id, client, stream, said)
        if said.final:
            self._last_words.append(client)

    def _close(self, trace_id: str, root: str, stream: Stream, said: Said) -> None:
        known = self._traces.get(trace_id)
        if known is not None and not (said.final or 0 < known.ended < said.order):
            return
        account = self._known(trace_id)
        if account is None:
            del stream.traces[trace_id]
            return
        if stream.dropped.since(account.begun):
            return
        members = account.shares_of(root, stream.family)
        if not self._streams.cover(members, root, account, said):
            return
        family = self._streams.family(root)
        came = sum(account.shares.pop(name).count for name in members)
        self._shares -= len(members)
        account.near += sum(one.rejected.since(account.begun) for one in family)
        account.alone = account.alone and came == sum(one.messages for one in family)
        account.sent += said.called
        account.closed += 1
        del stream.traces[trace_id]
        if account.ended and not account.shares:
            self._to_tell[trace_id] = None

    # -- traces

    def _take_progress(self, messages: Iterable[Any]) -> None:
        trace_id: Any = UNSET
        account: Account | None = None
        for message in messages:
            if type(message) is not Progress or message.trace_id is UNSET or message.replay_to:
                continue
            if message.trace_id != trace_id:  # neighbours have one
                trace_id = message.trace_id
                account = self._known(trace_id)
            if account is None:
                continue
            ts = message.ts or 0
            known, over = account.jobs.get(message.job_id, (0, False))
            if message.job_id not in account.jobs and len(account.jobs) >= JOBS:
                continue
            ends = message.status in TERMINAL if message.status else over
            if ts >= known or (ends and not over):
                account.jobs[message.job_id] = (max(ts, known), ends)
            if known and not (ends or over or account.ended):  # it runs on, and its trace does
                continue
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
            account = self._known(message.trace_id)
            if account is None:
                continue
            if message.client not in self._ids:
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
        edge = edge_of(message.context)
        if edge is None or not isinstance(message.client, str):
            return
        if message.client in account.edges or len(account.edges) < EDGES:
            account.edges[message.client] = edge
            if account.ended and isinstance(message.trace_id, str):
                self._to_tell[message.trace_id] = None

    # -- bounds

    def _trim(self) -> None:
        streams = dict[str, dict[str, None]]()
        for trace_id in [*islice(self._traces, max(0, len(self._traces) - TRACES))]:
            for client in self._traces.pop(trace_id).clients:
                self._shares -= 1
                served = streams.get(client)
                if served is None:
                    root = self._streams.by_client.get(self._streams.root(client))
                    served = streams[client] = root.traces if root is not None else {}
                served.pop(trace_id, None)
        for client, stream in self._streams.forget(self._now):
            for trace_id in stream.traces:
                account = self._known(trace_id)
                for name in (client, *stream.family):
                    if account is not None and account.shares.pop(name, None) is not None:
                        self._shares -= 1
                        account.unjudged += 1

    # -- what is asked

    def find(self, name: str) -> str:
        """The trace of this id, or else that of the job of this id, the latest one; empty where neither is known."""
        if name in self._traces:
            return name
        accounts = ((one, known) for one, known in reversed(self._traces.items()) if isinstance(known, Account))
        return next((one for one, account in accounts if name in account.jobs), "")

    def facts(self, trace_id: str) -> Facts | None:
        """What is known of a trace; None where nothing is."""
        account = self._known(trace_id)
        return None if account is None else facts_of(trace_id, account, self._streams)

    # -- snapshots

    def snapshot_in_parts(self) -> Iterator[bytes]:
        """Nothing a few times, then the snapshot."""
        encoder = msgspec.msgpack.Encoder()
        parts = []
        held: dict[str, Any]
        for held in (self._streams.by_client, self._traces):
            data = bytearray(_ARRAY + len(held).to_bytes(4, "big"))
            for n, (name, one) in enumerate(held.items(), 1):
                encoder.encode_into((name, one.account() if isinstance(one, Brief) else one), data, -1)
                if n % PART == 0:
                    yield b""
            parts.append(msgspec.Raw(data))
        streams: Any
        traces: Any
        streams, traces = parts
        known, due = self._streams, list(self._due)
        done = list(known.done.items())
        yield encoder.encode(
            State(self._order, self._now, known.sure, self._blind, done, streams, traces, known.expected, due)
        )

    def restore(self, data: bytes) -> None:
        """Go back to a snapshot. Raises msgspec.DecodeError."""
        state = msgspec.msgpack.decode(data, type=State)
        self._order, self._now, self._blind = state.order, state.now, state.blind
        self._streams.restore(state.sure, state.streams, state.done, state.expected)
        self._traces = dict(state.traces)
        self._shares = sum(len(account.shares) for _, account in state.traces)
        self._due = deque(state.due)


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
