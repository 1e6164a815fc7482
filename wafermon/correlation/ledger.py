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

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence, Set
from itertools import chain, islice
from typing import Any, Protocol

import msgspec
from msgspec import UNSET

from wafermon.correlation.accounts import NO_ROUTE, Account, Brief, Met, Routed, Said, Share, State, Stream
from wafermon.correlation.edges import edge_of
from wafermon.correlation.facts import Facts, Gap
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
JOBS = 16
ALL_FILES = 100_000
"""Spill files of all SDKs together that were named and are not there."""
FORGOTTEN = 30 * 86_400_000_000
"""So long, in microseconds, marks are remembered: a stream that comes again later begins anew."""
TOLD_AFTER = 60_000_000
"""So long after a job's end its receipt is told, in microseconds, where not all of its streams are closed before."""
PART = 100
"""So many traces or streams of a snapshot are written at a time."""
_ARRAY = b"\xdd"
_Way = tuple[Any, str]
"""The backend that messages are replayed to, and the names of those that they go to (with commas between them), or `NO_ROUTE`."""
WAYS = 65_536
RECEIPT = "receipt"
"""The kind of the event that keeps a receipt."""
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


class Ledger:
    """One journal's streams and traces. `journal_id` is the `client` of the sidecar's own messages."""

    def __init__(self, journal_id: str) -> None:
        self._journal = journal_id
        self._ids: Set[str] = {journal_id}
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
        self._traces: dict[str, Account | Brief] = {}
        self._shares = 0
        self._files = 0
        self._table: Table | None = None
        self._ways: dict[tuple[Any, ...], _Way] = {}
        """What that table says of each kind, remembered."""
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
            self._take_mark(mark, group, came.get(mark.client, 0), refused.get(mark.client, ()))
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
            self._look_at_files(client)
        for client in self._last_words:
            self._end_stream(client)
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
        if table is not self._table:
            self._table, self._ways = table, {}
        end = group.end
        met = Met(self._group, self._order, self._now, self._blind and self._now < self._sure, end.segment, end.offset)
        traces, client, stream, served = self._traces, "", None, dict[str, None]()
        counts, ways = dict[tuple[Any, ...], int](), dict[_Way, int]()
        for tally in block.tallies():
            if tally.client != client:
                client = tally.client if isinstance(tally.client, str) and tally.client in numbered else ""
                stream = self._streams[client] if client else None
                served = self._streams[self._root(client)].traces if client else {}
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
                ways = self._ways_of(counts)
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

    def _ways_of(self, counts: dict[tuple[Any, ...], int]) -> dict[_Way, int]:
        """How many messages go which way, where these are those of each kind."""
        known, found = self._ways, dict[_Way, int]()
        for kind, count in counts.items():
            way = known.get(kind) or self._find_way(kind)
            found[way] = found.get(way, 0) + count
        return found

    def _find_way(self, kind: tuple[Any, ...]) -> _Way:
        service, type_, level, host, replay_to = kind
        found = self._table.route(service, type_, level, host) if self._table else None
        if len(self._ways) >= WAYS:
            self._ways.clear()
        way = self._ways[kind] = replay_to, ",".join(found.backends) if found and found.matched else NO_ROUTE
        return way

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
        """That of a trace of which something came."""
        account = self._known(trace_id)
        if account is None:
            account = self._traces[trace_id] = Account(
                self._group, self._now, before=self._blind and self._now < self._sure
            )
        elif account.heard != self._now:
            account.heard = self._now
            self._traces[trace_id] = self._traces.pop(trace_id)
        return account

    def _known(self, trace_id: str) -> Account | None:
        """What is known of a trace, at length."""
        known = self._traces.get(trace_id)
        if isinstance(known, Brief):
            known = self._traces[trace_id] = known.account()
        return known

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

    def sdk_of(self, client: str) -> str:
        """The stream of the SDK whose stream this is; itself where that is not known."""
        return self._root(client)

    def dropped_by(self, client: str) -> int:
        """How many messages this stream's stats lines say that its SDK had to drop."""
        stream = self._streams.get(client)
        return stream.dropped.now if stream is not None else 0

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
        known = self._traces.get(trace_id)
        if known is not None and not (said.final or 0 < known.ended < said.order):
            return
        account = self._known(trace_id)
        if account is None:
            del stream.traces[trace_id]
            return
        if stream.dropped.since(account.begun):
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
        stream = self._streams.get(name)  # it may have been forgotten
        return stream is not None and stream.named >= stream.mark

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
                    root = self._streams.get(self._root(client))
                    served = streams[client] = root.traces if root is not None else {}
                served.pop(trace_id, None)
        while len(self._streams) > STREAMS:
            client, stream = self._streams.popitem(last=False)
            self._sure = max(self._sure, self._now + FORGOTTEN)
            self._drop_files(stream)
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
        held: dict[str, Any]
        for held in (self._streams, self._traces):
            data = bytearray(_ARRAY + len(held).to_bytes(4, "big"))
            for n, (name, one) in enumerate(held.items(), 1):
                encoder.encode_into((name, one.account() if isinstance(one, Brief) else one), data, -1)
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
        self._traces = dict(state.traces)
        self._shares = sum(len(account.shares) for _, account in state.traces)
        self._files = sum(len(stream.files) for stream in self._streams.values())
        self._expected = state.expected
        self._due = deque(state.due)


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
