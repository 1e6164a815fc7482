"""What people ask about shortly after it happened: the finished spans and jobs of the latest traces, and their events.

The engine forgets a span when it ends and a trace when it is over. This is a memory beside it, for looking at only:
nothing is derived from it, it is in no snapshot, and it is bounded whatever clients send. After a restart it is filled
again from what the journal still holds (`Correlator`).

A message costs something only if it starts or ends a span or reports progress, or came in one block with such a one. Blocks
with events of traces are kept whole, without being looked into, until newer ones push them out; a question about a trace
reads those that concern it.
"""

from __future__ import annotations

import re
from collections import OrderedDict, deque
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from msgspec import UNSET, Struct, field

from wafermon.correlation.traces import JOBS, TEXT, Job
from wafermon.model.blocks import Block
from wafermon.model.messages import (
    OWN_SERVICE,
    Event,
    Message,
    Progress,
    SpanEnd,
    SpanStart,
    Trace,
    decode_object,
)
from wafermon.model.position import Position

TRACES = 1_000
SPANS = 1_000
"""Of one trace."""
ALL_SPANS = 20_000
BLOCK_BYTES = 4 << 20
"""Blocks with messages of traces."""
BLOCK_COST = 600
"""What a kept block takes beside its lines, in bytes."""
TOLD = 64
"""Of a block with more traces it is not kept which they are: it is searched."""
TRACE_COST = 256
"""What it takes to know one."""
_SHOWN = ("event", "metric", "progress", "resource")
_TRACE_ID = b'"trace_id"'
_TYPE_FIRST = b'{"type":"'
"""As our own libraries begin a line: its type is seen without reading it."""
_PLAIN = re.compile(r"[A-Za-z0-9_.:@+-]+").fullmatch
"""Ids whose letters no escape but one of a number stands for."""


class _Kept(NamedTuple):
    """A block's lines."""

    raw: bytes
    traces: frozenset[str] | None
    """Those that it has messages of; None where these are many, or nobody has counted them."""

    @property
    def cost(self) -> int:
        """The bytes that it takes."""
        return len(self.raw) + BLOCK_COST + TRACE_COST * len(self.traces or ())


class RecentSpan(Struct, gc=False):
    """`duration` is microseconds; it and `status` are None while the span is open."""

    name: str
    service: str
    parent_id: str
    start: int
    duration: int | None = None
    status: str | None = None


class RecentTrace(Struct, gc=False):
    spans: dict[str, RecentSpan] = field(default_factory=dict)
    """By span id."""
    jobs: dict[str, Job] = field(default_factory=dict)
    summary: Trace | None = None
    more_spans: int = 0
    """Spans that ended and are not kept, since there were SPANS already."""
    end: Position | None = None
    """Where the last group that told of it ends."""


class Recent:
    """The latest traces, the one heard of last at the end."""

    def __init__(self) -> None:
        self.traces: OrderedDict[str, RecentTrace] = OrderedDict()
        self._plain: OrderedDict[str, Trace] = OrderedDict()
        """Ended traces without spans and jobs, which must not push out those that have some."""
        self._spans = 0
        self._blocks: deque[_Kept] = deque()
        self._bytes = 0
        self._end: Position | None = None
        """Of the group that is observed."""
        self.let_go: Position | None = None
        """Traces that were heard of last before it may have been dropped; None where none was."""

    def observe(self, blocks: Iterable[Block], time: int, end: Position | None = None) -> None:
        """The blocks of a group that was received at `time` and ends at `end`."""
        self._end = end
        for block in blocks:
            self._follow(block.followed, time)
            self._take_derived(block.of_service(OWN_SERVICE))
            if not block.types.isdisjoint(_SHOWN) and _TRACE_ID in block.raw:
                self._keep(block)

    def events(self, trace_id: str, limit: int) -> list[dict[str, Any]]:
        """The latest events of a trace, in order of their time, as objects with the fields that were sent."""
        return self.messages(trace_id, limit)["event"]

    def messages(
        self, trace_id: str, limit: int, counts: Mapping[str, int] | None = None
    ) -> dict[str, list[dict[str, Any]]]:
        """Likewise its latest events, metrics, progress and resource messages, by type. `counts`: how many of each type there are at
        the most, where that is known, so that what is not there is not looked for."""
        return latest(self.search(trace_id, limit, counts), limit)

    def search(self, trace_id: str, limit: int, counts: Mapping[str, int] | None = None) -> Iterator[dict[str, Any]]:
        """What `latest` makes that of, one message after the other, those of the newest block first. Blocks may come and go meanwhile: those
        that there were at the first step are searched."""
        missing = {kind: limit if counts is None else min(limit, counts.get(kind, 0)) for kind in _SHOWN}
        for block in list(reversed(self._blocks)):
            if all(left <= 0 for left in missing.values()):
                break
            if block.traces is not None and trace_id not in block.traces:
                continue
            # Those of one block are in no order of time, so that all of them count.
            enough = {kind for kind, left in missing.items() if left <= 0}
            for message in _messages_in(block.raw, trace_id, enough):
                missing[message["type"]] -= 1
                yield message

    def _keep(self, block: Block) -> None:
        traces = block.trace_ids() if block.is_counted else None
        kept = _Kept(block.raw, None if traces is None or len(traces) > TOLD else frozenset(traces))
        self._blocks.append(kept)
        self._bytes += kept.cost
        while self._bytes > BLOCK_BYTES:
            self._bytes -= self._blocks.popleft().cost

    def _follow(self, messages: Iterable[Any], time: int) -> None:
        trace_id, trace = "", RecentTrace()
        for message in messages:
            kind, of = type(message), message.trace_id  # `isinstance` asks a struct's metaclass where the answer is no
            if of is UNSET:
                continue
            if kind is Trace:
                self._summary(of, message)
                continue
            if of != trace_id:  # neighbours have one
                trace_id = of
                trace = self._trace(trace_id)
            if kind is SpanStart:
                if message.span_id not in trace.spans:
                    self._add_span(trace, message, message.ts or 0)
            elif kind is SpanEnd:
                self._span_end(trace, message)
            elif kind is Progress:
                self._progress(trace, message, time)

    def _trace(self, trace_id: str) -> RecentTrace:
        trace = self.traces.get(trace_id)
        if trace is None:
            trace = self.traces[trace_id] = RecentTrace()
            if len(self.traces) > TRACES:
                self._let_go_of_oldest()
        else:
            self.traces.move_to_end(trace_id)
        trace.end = self._end
        return trace

    def _summary(self, trace_id: str, summary: Trace) -> None:
        if trace_id in self.traces:
            self.traces[trace_id].summary = summary
            return
        self._plain[trace_id] = summary
        if len(self._plain) > TRACES:
            self._plain.popitem(last=False)

    def summary(self, trace_id: str) -> Trace | None:
        """That of the trace's part that ended last."""
        trace = self.traces.get(trace_id)
        return (trace and trace.summary) or self._plain.get(trace_id)

    def _let_go_of_oldest(self) -> None:
        _, oldest = self.traces.popitem(last=False)
        self._spans -= len(oldest.spans)
        self.let_go = oldest.end

    def _progress(self, trace: RecentTrace, message: Progress, time: int) -> None:
        ts, service = message.ts or 0, message.service or ""
        job = trace.jobs.get(message.job_id)
        if job is not None:
            job.take(message, ts, service, time)
        elif len(trace.jobs) < JOBS:
            status = message.status[:TEXT] if message.status else ""
            trace.jobs[message.job_id] = Job(message.percent, status, service, ts, time, first=ts)

    def _span_end(self, trace: RecentTrace, message: SpanEnd) -> None:
        span = trace.spans.get(message.span_id or "") or self._add_span(trace, message, message.start)
        if span is None:
            trace.more_spans += 1
            return
        span.start, span.duration, span.status = message.start, round(message.duration), message.status

    def _add_span(self, trace: RecentTrace, message: SpanStart | SpanEnd, start: int) -> RecentSpan | None:
        """None where there is no room for it."""
        if len(trace.spans) >= SPANS:
            return None
        span = RecentSpan(message.name[:TEXT], message.service or "", message.parent_id or "", start)
        trace.spans[message.span_id or ""] = span
        self._spans += 1
        while self._spans > ALL_SPANS and len(self.traces) > 1:
            self._let_go_of_oldest()
        return span

    def _take_derived(self, messages: Iterable[Message]) -> None:
        """What the engine found out and journalled: stalled and gone jobs, abandoned spans."""
        for message in messages:
            if not isinstance(message, Event) or message.service != OWN_SERVICE or not message.context:
                continue
            trace, context = self.traces.get(message.trace_id or ""), message.context
            if trace is None:
                continue
            if context.get("kind") == "job_stalled" and (job := trace.jobs.get(str(context.get("job_id")))):
                job.reported = not job.over
            elif context.get("kind") == "gone" and (job := trace.jobs.get(str(context.get("job_id")))):
                job.gone = not job.over
            elif context.get("kind") == "span_abandoned" and (span := trace.spans.get(str(context.get("span_id")))):
                span.status = span.status or "abandoned"


def latest(found: Iterable[dict[str, Any]], limit: int) -> dict[str, list[dict[str, Any]]]:
    """What a search found, by type: at most so many of each, in order of their time, without their type."""
    of_type: dict[str, list[dict[str, Any]]] = {kind: [] for kind in _SHOWN}
    for message in found:
        of_type[message.pop("type")].append(message)
    return {
        kind: sorted(given, key=lambda message: int(message["ts"]))[-limit:] if limit else []
        for kind, given in of_type.items()
    }


def _messages_in(block: bytes, trace_id: str, enough: Container[str]) -> Iterator[dict[str, Any]]:
    """Without those of types of which there are enough."""
    for line in _lines_with(block, trace_id):
        if (
            line.startswith(_TYPE_FIRST)
            and line[len(_TYPE_FIRST) : line.find(b'"', len(_TYPE_FIRST))].decode() in enough
        ):
            continue
        message = decode_object(line)
        kind = message["type"]
        if message.get("trace_id") == trace_id and kind in _SHOWN and kind not in enough:
            yield {key: value for key, value in message.items() if key not in ("v", "trace_id")}


def _lines_with(block: bytes, trace_id: str) -> Iterator[bytes]:
    """The lines of a block that may have it. An escape may stand for any of its letters; what else is escaped is none of a plain id."""
    wanted = trace_id.encode()
    escape = b"\\u" if _PLAIN(trace_id) else b"\\"
    if escape in block:
        yield from (line for line in block.split(b"\n")[:-1] if wanted in line or escape in line)
        return
    place = block.find(wanted)
    while place >= 0:
        end = block.find(b"\n", place)
        yield block[block.rfind(b"\n", 0, place) + 1 : end]
        place = block.find(wanted, end + 1)
