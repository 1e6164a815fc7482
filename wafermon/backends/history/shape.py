"""A batch -> the rows that it adds. Pure.

What a batch has in common is taken from its kinds, so that most messages are looked at by C code alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from wafermon.model.asking import as_text
from wafermon.model.batch import Batch
from wafermon.model.blocks import Block
from wafermon.model.kinds import kind_of
from wafermon.model.messages import (
    LEVELS,
    OWN_SERVICE,
    TERMINAL,
    Event,
    Kind,
    Measured,
    Metric,
    Progress,
    SpanEnd,
    SpanStart,
    Trace,
    dumps,
)
from wafermon.model.progress import Reached, nothing_reached, reach

HOUR = 3_600_000_000
TEXT = 128
"""The longest name or value of a context key that is kept, in characters."""
MESSAGE = 500
"""The longest message of an error that is kept."""
STATE_OF = {"job_stalled": "stalled", "gone": "gone"}
"""Derived events about a job -> the state that they put it in."""
SPAN_TEXT = 128
LONGEST = 2.0**62
"""What SQLite takes of a duration, in microseconds."""
_ERRORS = ("error", "critical")
_SERVICE, _TYPE, _LEVEL = map(Kind._fields.index, ("service", "type", "level"))
_stamped = attrgetter("ts", "service", "type", "level")


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


@dataclass
class Rows:
    """What one batch adds to the tables of a file."""

    chunk: tuple[int, int, int, int, int] = (0, 0, 0, 0, -1)
    """first, last, received, messages, worst"""
    traces: Sequence[str] = ()
    services: Sequence[str] = ()
    context: Sequence[tuple[str, str]] = ()
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


def shape(batch: Batch, indexed: Iterable[str], received: int) -> Rows:
    """`indexed`: the context keys whose values are looked up later; `received`: when the last of the batch was."""
    block = batch.block
    if not block.count:
        return Rows()
    keys = tuple(indexed)
    levels = {kind[_LEVEL] for kind in block.kinds if kind[_LEVEL]}
    followed, events, metrics, traces = list[Any](), list[Any](), list[Metric | Measured](), set[str]()
    for part in block.parts:
        followed += part.followed
        events += part.of_kinds({kind for kind in part.kinds if _is_looked_at(kind, any_event=bool(keys))})
        metrics += part.metrics()
        traces |= part.trace_ids()
    states, abandoned = _found_out(events)
    spans, starts, roots = _spans(followed)
    return Rows(
        (block.first, block.last, received, block.count, max((LEVELS.index(level) for level in levels), default=-1)),
        traces=sorted(traces),
        services=sorted({kind[_SERVICE] for kind in block.kinds}),
        hours=_hours(block),
        context=_context(events, keys),
        errors=_errors(events),
        spans=spans,
        starts=starts,
        roots=roots,
        series=_series(metrics),
        progress=[one for one in followed if type(one) is Progress and one.trace_id],
        summaries=[_summary(one) for one in followed if type(one) is Trace],
        states=states,
        abandoned=abandoned,
    )


def _is_looked_at(kind: tuple[Any, ...], *, any_event: bool) -> bool:
    """Whether messages of this kind are events that are parsed."""
    return kind[_TYPE] == Event.type and (any_event or kind[_LEVEL] in _ERRORS or kind[_SERVICE] == OWN_SERVICE)


def _hours(block: Block) -> dict[tuple[int, str, str], int]:
    """hour, service, type or level -> messages"""
    counted = Counter[tuple[int, str, str, str]]()
    hour = block.first // HOUR
    for part in block.parts:
        if part.first // HOUR == part.last // HOUR == hour:
            table, column = part.columns
            for number, count in Counter(column).items():
                kind = table[number]
                counted[hour, kind[_SERVICE], kind[_TYPE], kind[_LEVEL]] += count
        else:
            counted.update((ts // HOUR, *kind) for ts, *kind in map(_stamped, part.messages))
    return {
        (hour, service, f"level.{level}" if level else kind): count
        for (hour, service, kind, level), count in counted.items()
    }


def _context(events: Iterable[Event], keys: Sequence[str]) -> list[tuple[str, str]]:
    found = {
        (key, as_text(event.context[key])[:TEXT])
        for event in events
        if event.context
        for key in keys
        if key in event.context
    }
    return sorted(found)


def _errors(events: Iterable[Event]) -> list[tuple[Any, ...]]:
    """hour, service, pattern, count, first, last, message, trace_id"""
    found: dict[tuple[int, str, str], list[Any]] = {}
    for event in events:
        if event.level not in _ERRORS:
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


def _series(metrics: Iterable[Metric | Measured]) -> list[tuple[Any, ...]]:
    """trace_id, service, name, unit, count, total, least, greatest; in the order of the table, which writes them sooner"""
    found: dict[tuple[Any, ...], list[float]] = {}
    for one in metrics:
        if not one.trace_id:
            continue
        value = one.value
        if isinstance(value, str) or not math.isfinite(value):
            continue
        key = (one.trace_id, one.service, one.name[:TEXT], one.unit[:TEXT] if one.unit else "")
        known = found.get(key)
        if known is None:
            found[key] = [1, value, value, value]
            continue
        known[0] += 1
        known[1] += value
        if value < known[2]:
            known[2] = value
        elif value > known[3]:
            known[3] = value
    return [(*key, *values) for key, values in sorted(found.items())]


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
