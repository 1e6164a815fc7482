"""What is seen in a batch's lines: counts, sums, and the few messages that are looked at one by one.

It is found out in two ways with the same answers: from what the blocks have in common and from messages, or by a pass in C over all lines
where that was built.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter, itemgetter
from typing import Any

from wafermon.model.asking import as_text
from wafermon.model.blocks import FOLLOWED, Block
from wafermon.model.messages import OWN_SERVICE, Event, Kind, Measured, Message, Metric, decode_all, decode_value
from wafermon.wire.sums import KEYS_MOST, Listed, Summer

HOUR = 3_600_000_000
TEXT = 128
"""The longest name or value of a context key that is kept, in characters."""
ERRORS = ("error", "critical")
_SERVICE, _TYPE, _LEVEL = map(Kind._fields.index, ("service", "type", "level"))
_stamped = attrgetter("ts", "service", "type", "level")
_number = itemgetter(0)
Series = dict[tuple[Any, ...], list[float]]
"""trace_id, service, name, unit -> count, total, least, greatest"""


@dataclass
class Seen:
    """What is in some lines."""

    counted: Counter[tuple[int, str, str, str]] = field(default_factory=Counter)
    """hour, service, type, level -> messages"""
    traces: set[str] = field(default_factory=set)
    series: Series = field(default_factory=dict)
    context: set[tuple[str, str]] = field(default_factory=set)
    """A key that is looked up, and a value under it."""
    followed: list[Any] = field(default_factory=list)
    """Messages of spans and jobs, and summaries of traces; in order."""
    events: list[Any] = field(default_factory=list)
    """Errors, and what the sidecar says itself; there may be others."""

    def add(self, later: Seen) -> None:
        """What is in the lines that follow."""
        self.counted.update(later.counted)
        self.traces |= later.traces
        self.context |= later.context
        self.followed += later.followed
        self.events += later.events
        for series, values in later.series.items():
            _add(self.series, series, values)


def see(block: Block, keys: Collection[str], summer: Summer | None) -> Seen:
    """`keys`: those of events' contexts whose values are looked up later."""
    if summer is None or len(keys) > KEYS_MOST:
        return by_messages(block, keys)
    found = summer(block.raw, HOUR, keys)
    if 2 * len(found.odd) > block.count:
        return by_messages(block, keys)
    odd = decode_all([line for _, line in found.odd])
    seen = by_messages(Block.of(b"".join([line + b"\n" for _, line in found.odd]), odd), keys) if odd else Seen()
    for hour, service, kind, level, many in found.levels:
        seen.counted[hour, service, kind, level] += many
    seen.traces.update(found.traces)
    for *series, count, total, least, greatest in found.series:
        _add(seen.series, tuple(series), [count, total, least, greatest])
    numbered = [(number, message) for (number, _), message in zip(found.odd, odd, strict=True)]
    seen.followed = _in_order(found.followed, [one for one in numbered if one[1].type in FOLLOWED])
    seen.events = _in_order(found.looked_at, [one for one in numbered if isinstance(one[1], Event)])
    names = tuple(keys)
    seen.context = _context(seen.events, keys)  # some are looked at for that
    seen.context.update((names[key], as_text(decode_value(value))[:TEXT]) for key, value in found.contexts)
    return seen


def _in_order(listed: Listed, others: list[tuple[int, Message]]) -> list[Any]:
    """The messages of these lines and others, by their numbers."""
    messages = decode_all([line for _, line in listed])
    if not others:
        return messages
    numbered = [(number, message) for (number, _), message in zip(listed, messages, strict=True)]
    return [message for _, message in sorted([*numbered, *others], key=_number)]


def by_messages(block: Block, keys: Collection[str]) -> Seen:
    """Without C: this says what is right."""
    seen = Seen()
    metrics = list[Metric | Measured]()
    hour = block.first // HOUR
    for part in block.parts:
        seen.followed += part.followed
        seen.events += part.of_kinds({kind for kind in part.kinds if _is_looked_at(kind, any_event=bool(keys))})
        metrics += part.metrics()
        seen.traces |= part.trace_ids()
        _count(seen.counted, part, hour)
    seen.series = _series(metrics)
    seen.context = _context(seen.events, keys)
    return seen


def _is_looked_at(kind: tuple[Any, ...], *, any_event: bool) -> bool:
    """Whether messages of this kind are events that are parsed."""
    return kind[_TYPE] == Event.type and (any_event or kind[_LEVEL] in ERRORS or kind[_SERVICE] == OWN_SERVICE)


def _count(counted: Counter[tuple[int, str, str, str]], part: Block, hour: int) -> None:
    """Add the part's messages; `hour` is that of most."""
    if part.first // HOUR == part.last // HOUR == hour:
        table, column = part.columns
        for number, count in Counter(column).items():
            kind = table[number]
            counted[hour, kind[_SERVICE], kind[_TYPE], kind[_LEVEL]] += count
    else:
        counted.update((ts // HOUR, *kind) for ts, *kind in map(_stamped, part.messages))


def _context(events: Iterable[Event], keys: Collection[str]) -> set[tuple[str, str]]:
    return {
        (key, as_text(event.context[key])[:TEXT])
        for event in events
        if event.context
        for key in keys
        if key in event.context
    }


def _series(metrics: Sequence[Metric | Measured]) -> Series:
    found: Series = {}
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
    return found


def _add(series: Series, key: tuple[Any, ...], values: list[float]) -> None:
    """What is known of one series already, and more of it."""
    known = series.get(key)
    if known is None:
        series[key] = values
        return
    known[0] += values[0]
    known[1] += values[1]
    known[2] = min(known[2], values[2])
    known[3] = max(known[3], values[3])
