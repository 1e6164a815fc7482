"""Items -> requests: grouped as OTLP has it, cut to size, counters added up. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, NamedTuple

from msgspec.structs import replace

from wafermon import __version__
from wafermon.backends.otlp.mapping import Item, Origin, Point, resource_of
from wafermon.wire.otlp.shapes import (
    CUMULATIVE,
    DELTA,
    Gauge,
    LogRecord,
    Logs,
    Metric,
    Metrics,
    NumberDataPoint,
    Request,
    Resource,
    ResourceLogs,
    ResourceMetrics,
    ResourceSpans,
    Scope,
    ScopeLogs,
    ScopeMetrics,
    ScopeSpans,
    Signal,
    Span,
    Sum,
    Traces,
)
from wafermon.wire.otlp.values import long_of

SERIES_MOST = 100_000
"""Counters that are remembered; beyond it the one that was used longest ago is forgotten, and begins anew."""


class Series(NamedTuple):
    """One counter of one program."""

    origin: Origin
    name: str
    unit: str
    tags: tuple[tuple[str, Any], ...]


class Reached(NamedTuple):
    """How far a counter is."""

    total: float
    start: int
    """Since when it counts, in nanoseconds since the Unix epoch."""
    last: int
    """When it was heard of last."""


Changes = dict[Series, Reached]


class Counters:
    """What must be known of counters from one request to the next. Nothing changes before a request was taken, so that the
    same messages, sent again, say the same."""

    def __init__(self, cumulative: bool, opened: int) -> None:
        """`opened`: in nanoseconds since the Unix epoch."""
        self.temporality = CUMULATIVE if cumulative else DELTA
        self._since = opened
        self._known: OrderedDict[Series, Reached] = OrderedDict()

    def add(self, series: Series, value: float, time: int, changes: Changes) -> tuple[float, int, int]:
        """Take an increment in; answers with the value, the start and the time of its point. `changes` are those of the request."""
        before = changes.get(series) or self._known.get(series)
        if before is None:
            before = Reached(0.0, min(self._since, time), min(self._since, time))
        last = max(before.last, time)
        changes[series] = Reached(before.total + value, before.start, last)
        if self.temporality == CUMULATIVE:
            return before.total + value, before.start, last
        return value, min(before.last, time), time

    def keep(self, changes: Changes, now: int) -> None:
        """A request was taken. `now` is in nanoseconds since the Unix epoch."""
        for series, reached in changes.items():
            self._known[series] = reached
            self._known.move_to_end(series)
        while len(self._known) > SERIES_MOST:
            self._known.popitem(last=False)
            self._since = max(self._since, now)


class Made(NamedTuple):
    """A request, and what will be known of counters once it is taken."""

    request: Request
    changes: Changes
    records: int
    """Log records, data points or spans in it."""


def request_of(signal: Signal, items: Sequence[Item], more: Mapping[str, str], counters: Counters) -> Made:
    """`more` are attributes of every resource."""
    by_origin: dict[Origin, list[Item]] = {}
    for item in items:
        by_origin.setdefault(item.origin, []).append(item)
    scope = Scope("wafermon", __version__)
    resources = [(Resource(resource_of(origin, dict(more))), found) for origin, found in by_origin.items()]
    if signal == "logs":
        records = [(of, [one.what for one in found if isinstance(one.what, LogRecord)]) for of, found in resources]
        return Made(Logs([ResourceLogs(of, [ScopeLogs(scope, these)]) for of, these in records]), {}, len(items))
    if signal == "traces":
        spans = [(of, [one.what for one in found if isinstance(one.what, Span)]) for of, found in resources]
        return Made(Traces([ResourceSpans(of, [ScopeSpans(scope, these)]) for of, these in spans]), {}, len(items))
    changes: Changes = {}
    groups, points = [], 0
    for of, found in resources:
        metrics = _metrics(found, counters, changes)
        points += sum(len(_points_of(metric)) for metric in metrics)
        groups.append(ResourceMetrics(of, [ScopeMetrics(scope, metrics)]))
    return Made(Metrics(groups), changes, points)


def _metrics(items: Sequence[Item], counters: Counters, changes: Changes) -> list[Metric]:
    """Of one origin. The increments of a counter become one point."""
    metrics: dict[tuple[str, str, str], Metric] = {}
    added: dict[Series, tuple[NumberDataPoint, float]] = {}
    for item in items:
        point = item.what
        if not isinstance(point, Point):
            continue
        key = (point.name, point.unit, point.kind)
        metric = metrics.get(key)
        if metric is None:
            metric = metrics[key] = _metric(point, counters.temporality)
        if point.kind != "counter" or not isfinite(point.value):
            _points_of(metric).append(point.data)
            continue
        series = Series(item.origin, point.name, point.unit, point.tags)
        value, start, time = counters.add(series, point.value, long_of(point.data.time_unix_nano), changes)
        held = added.get(series)
        if held is None:
            data = replace(point.data)  # the items may go into another request, cut in another way
            _points_of(metric).append(data)
        else:
            data, before = held
            if counters.temporality == DELTA:
                value, start = before + value, min(start, long_of(data.start_time_unix_nano))
                time = max(time, long_of(data.time_unix_nano))
            data.exemplars = point.data.exemplars or data.exemplars
        added[series] = (data, value)
        data.as_double, data.start_time_unix_nano, data.time_unix_nano = value, str(start), str(time)
    return list(metrics.values())


def _metric(point: Point, temporality: int) -> Metric:
    if point.kind == "gauge":
        return Metric(point.name, point.unit, gauge=Gauge([]))
    own = CUMULATIVE if point.kind in ("total", "level") else temporality
    return Metric(point.name, point.unit, sum=Sum([], own, point.kind != "level"))


def _points_of(metric: Metric) -> list[NumberDataPoint]:
    held = metric.gauge or metric.sum
    assert held is not None
    return held.data_points
