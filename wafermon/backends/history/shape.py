"""A batch -> the rows that it adds. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from wafermon.backends.history.seen import ERRORS, HOUR, TEXT, Seen, see
from wafermon.model.blocks import Block
from wafermon.model.kinds import kind_of
from wafermon.model.messages import (
    LEVELS,
    OWN_SERVICE,
    TERMINAL,
    Event,
    Progress,
    SpanEnd,
    SpanStart,
    Trace,
    dumps,
)
from wafermon.model.progress import Reached, nothing_reached, reach
from wafermon.wire.sums import Summer

CHUNK_MESSAGES = 5000
CHUNK_BYTES = 2 << 20
"""What is in one chunk at the most; but a chunk has one of the batch's blocks at least."""
MESSAGE = 500
"""The longest message of an error that is kept."""
STATE_OF = {"job_stalled": "stalled", "gone": "gone"}
"""Derived events about a job -> the state that they put it in."""
SPAN_TEXT = 128
LONGEST = 2.0**62
"""What SQLite takes of a duration, in microseconds."""


@dataclass
class Job:
    """A job as far as a batch, or a file, knows it."""

    kind: str
    service: str
    percent: float
    status: str
    state: str
    first: int
    last: int
    reached: Reached
    continues: str | None = None

    def take(self, message: Progress) -> None:
        """The next progress message; an older one does not undo a newer one, but an end counts although it looks older."""
        ts, status = message.ts or 0, message.status[:TEXT] if message.status else self.status
        reach(self.reached, message.percent, ts)
        self.first = min(self.first, ts)
        if ts >= self.last or (self.status not in TERMINAL and status in TERMINAL):
            self.percent, self.status, self.service = message.percent, status, message.service or ""
            self.state = status if status in TERMINAL else "running"
            self.last = max(self.last, ts)


def new_job(message: Progress, kind: str) -> Job:
    ts = message.ts or 0
    job = Job(kind, message.service or "", message.percent, "", "running", ts, ts, nothing_reached())
    job.take(message)
    return job


class Chunk(NamedTuple):
    """Lines that are stored together, and what they are found by."""

    block: Block
    worst: int
    """The greatest level of its events; -1 where it has none."""
    traces: Sequence[str]
    services: Sequence[str]
    context: Sequence[tuple[str, str]]


@dataclass
class Rows:
    """What one batch adds to the tables of a file."""

    chunks: Sequence[Chunk] = ()
    hours: Mapping[tuple[int, str, str], int] = field(default_factory=dict)
    errors: Sequence[tuple[Any, ...]] = ()
    spans: Sequence[tuple[Any, ...]] = ()
    starts: Sequence[tuple[Any, ...]] = ()
    """Spans that began and did not end in this batch."""
    roots: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Trace -> service and name of a span without a parent."""
    series: Sequence[tuple[Any, ...]] = ()
    progress: Sequence[Progress] = ()
    summaries: Sequence[tuple[Any, ...]] = ()
    states: Sequence[tuple[str, str, str]] = ()
    """state, trace_id, job_id: what the sidecar found out of jobs."""
    abandoned: Sequence[tuple[str, str]] = ()
    """trace_id, span_id"""


def shape(block: Block, indexed: Collection[str], summer: Summer | None = None) -> Rows:
    """`indexed`: the context keys whose values are looked up later. `summer`: where there is one it is asked instead of reading the
    messages."""
    if not block.count:
        return Rows()
    chunks, seen = list[Chunk](), Seen()
    for part in cut(block):
        one = see(part, indexed, summer)
        chunks.append(_chunk(part, one))
        if len(chunks) == 1:
            seen = one
        else:
            seen.add(one)
    states, abandoned = _found_out(seen.events)
    spans, starts, roots = _spans(seen.followed)
    # in the order of the tables, which writes them sooner
    return Rows(
        chunks,
        hours={
            (hour, service, f"level.{level}" if level else kind): count
            for (hour, service, kind, level), count in sorted(seen.counted.items())
        },
        errors=_errors(seen.events),
        spans=spans,
        starts=starts,
        roots=roots,
        series=[(*key, *values) for key, values in sorted(seen.series.items())],
        progress=[one for one in seen.followed if type(one) is Progress and one.trace_id],
        summaries=[_summary(one) for one in seen.followed if type(one) is Trace],
        states=states,
        abandoned=abandoned,
    )


def cut(block: Block) -> list[Block]:
    """The same lines, as many together as are good to be read together: a chunk is decompressed whole."""
    found = list[list[Block]]()
    count = size = 0
    for part in block.parts:
        if not found or count + part.count > CHUNK_MESSAGES or size + part.size > CHUNK_BYTES:
            found.append([])
            count = size = 0
        found[-1].append(part)
        count += part.count
        size += part.size
    return [Block.join(parts) for parts in found]


def _chunk(block: Block, seen: Seen) -> Chunk:
    worst = max((LEVELS.index(level) for _, _, _, level in seen.counted if level), default=-1)
    services = {service for _, service, _, _ in seen.counted}
    return Chunk(block, worst, sorted(seen.traces), sorted(services), sorted(seen.context))


def _errors(events: Iterable[Event]) -> list[tuple[Any, ...]]:
    """hour, service, pattern, count, first, last, message, trace_id"""
    found: dict[tuple[int, str, str], list[Any]] = {}
    for event in events:
        if event.level not in ERRORS:
            continue
        ts, message = event.ts or 0, event.message[:MESSAGE]
        key = (ts // HOUR, event.service or "", kind_of(message[:TEXT]))
        known = found.get(key)
        if known is None:
            found[key] = [1, ts, ts, message, event.trace_id or ""]
            continue
        known[0] += 1
        known[1] = min(known[1], ts)
        if ts >= known[2]:
            known[2:] = [ts, message, event.trace_id or ""]
    return [(*key, *values) for key, values in found.items()]


def _spans(
    messages: Iterable[Any],
) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]], dict[str, tuple[str, str]]]:
    """trace_id, span_id, parent_id, name, service, start, duration, status"""
    ended: dict[tuple[str, str], tuple[Any, ...]] = {}
    begun: dict[tuple[str, str], tuple[Any, ...]] = {}
    roots: dict[str, tuple[str, str]] = {}
    for one in messages:
        if type(one) is SpanEnd:
            key = (one.trace_id or "", one.span_id or "")
            name, service = one.name[:SPAN_TEXT], one.service or ""
            ended[key] = (
                *key,
                one.parent_id or "",
                name,
                service,
                one.start,
                round(min(one.duration, LONGEST)),
                one.status,
            )
        elif type(one) is SpanStart:
            key = (one.trace_id or "", one.span_id or "")
            name, service = one.name[:SPAN_TEXT], one.service or ""
            begun[key] = (*key, one.parent_id or "", name, service, one.ts, None, None)
        else:
            continue
        if not one.parent_id:
            roots.setdefault(key[0], (service, name))
    # in the order of the table, which writes them sooner
    return sorted(ended.values()), sorted(row for key, row in begun.items() if key not in ended), roots


def _summary(one: Trace) -> tuple[Any, ...]:
    """trace_id, part, first, last, status, errors, services, counts"""
    return (
        one.trace_id, one.part, one.first, one.last, one.status, one.errors, dumps(one.services), dumps(one.counts),
    )  # fmt: skip


def _found_out(messages: Iterable[Any]) -> tuple[list[tuple[str, str, str]], list[tuple[str, str]]]:
    """What the sidecar derived about jobs and spans."""
    states: list[tuple[str, str, str]] = []
    abandoned: list[tuple[str, str]] = []
    for one in messages:
        if type(one) is not Event or one.service != OWN_SERVICE or not one.context or not one.trace_id:
            continue
        kind = one.context.get("kind")
        if isinstance(kind, str) and kind in STATE_OF:
            states.append((STATE_OF[kind], one.trace_id, str(one.context.get("job_id", ""))))
        elif kind == "span_abandoned":
            abandoned.append((one.trace_id, str(one.context.get("span_id", ""))))
    return states, abandoned
