"""Two runs of a job, or one beside the last ones of its kind: where the time went, and what else differs. Pure.

A step is all spans with one place: service and name (without digits and dates), and those of all spans above it. A step's time of its own is what none of its
children covers, so that the steps' own times add up to what the run took, as far as nothing ran side by side.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, TypedDict

from wafermon.model.kinds import kind_of
from wafermon.model.records import SpanRecord, TraceRecord

DIFFERS = 0.2
"""A metric differs where it does by more than this share, …"""
DEVIATIONS = 3.0
"""… and by more than so many median deviations of the last runs, where there are some."""
Place = tuple[str, ...]
"""``SERVICE/NAME`` of a span and of those above it, the root first."""


class StepDifference(TypedDict):
    """One step of the two runs. Durations are microseconds; None where a run does not have the step."""

    place: list[str]
    service: str
    name: str
    depth: int
    count: int | None
    other_count: int | None
    duration: int | None
    other_duration: int | None
    own: int
    """How much of it none of its children covers; 0 where the step is not there."""
    other_own: int
    lost: int
    """How much longer its own time is than in the other run; below 0: shorter."""
    critical: bool
    """Whether it is on the critical path: what it took, the run took."""
    other_critical: bool
    failed: int
    other_failed: int


class NumberDifference(TypedDict):
    """A count or a metric that differs."""

    name: str
    service: str
    value: float
    other: float
    change: float | None
    """By which share of the other it is larger; None where that is 0."""


class Side(TypedDict):
    """One of the two that are compared."""

    trace_id: str
    """Empty for what comes from several runs."""
    status: str
    first: int
    duration: int
    errors: int
    critical_path: list[str]
    """``SERVICE/NAME``, in the order of time."""


class Comparison(TypedDict):
    """What differs."""

    run: Side
    other: Side
    runs: int
    """How many runs `other` comes from."""
    steps: list[StepDifference]
    """In the order of the tree; what is gained and lost adds up to the difference of what the runs took."""
    counts: list[NumberDifference]
    metrics: list[NumberDifference]


@dataclass
class Step:
    """All spans of one run with one place."""

    count: int = 0
    duration: int = 0
    own: int = 0
    failed: int = 0
    critical: bool = False
    start: int = 0


@dataclass
class Shape:
    """A run as it is compared."""

    side: Side
    steps: dict[Place, Step] = field(default_factory=dict)
    counts: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """Service and name -> mean."""


def shape_of(trace: TraceRecord) -> Shape:
    """A trace -> what is compared of it. Spans that are open count until the trace's last message."""
    last = trace["last"]
    spans = {span["span_id"]: span for span in trace["spans"]}
    places = _places(trace["spans"])
    children: dict[str, list[SpanRecord]] = {}
    for span in trace["spans"]:
        parent = span["parent_id"] if span["parent_id"] in spans else ""
        children.setdefault(parent, []).append(span)
    critical = _critical(children, last)
    steps: dict[Place, Step] = {}
    for span in trace["spans"]:
        step = steps.setdefault(places[span["span_id"]], Step(start=span["start"]))
        begin, end = span["start"], _end(span, last)
        step.count += 1
        step.duration += end - begin
        step.own += (end - begin) - _covered(begin, end, children.get(span["span_id"], ()), last)
        step.failed += span["status"] == "error"
        step.critical |= span["span_id"] in critical
    side: Side = {
        "trace_id": trace["trace_id"], "status": trace["status"], "first": trace["first"],
        "duration": last - trace["first"], "errors": trace["errors"],
        "critical_path": [places[one][-1] for one in critical],
    }  # fmt: skip
    metrics = {(one["service"], one["name"]): one["mean"] for one in trace["series"]}
    return Shape(side, steps, dict(trace["counts"]), metrics)


def critical_path(trace: TraceRecord) -> list[str]:
    """The ids of the spans that the end of a trace waited for, in the order of time."""
    spans = {span["span_id"] for span in trace["spans"]}
    children: dict[str, list[SpanRecord]] = {}
    for span in trace["spans"]:
        children.setdefault(span["parent_id"] if span["parent_id"] in spans else "", []).append(span)
    return _critical(children, trace["last"])


def middle_of(shapes: Sequence[Shape]) -> Shape:
    """The run in the middle of several: each step, count and metric by its own median. A step counts where at least half of them
    have it."""
    newest = shapes[0].side
    durations = sorted(shapes, key=lambda shape: shape.side["duration"])
    typical = durations[len(durations) // 2]
    side: Side = {
        "trace_id": "", "status": newest["status"], "first": newest["first"],
        "duration": round(median(shape.side["duration"] for shape in shapes)),
        "errors": round(median(shape.side["errors"] for shape in shapes)),
        "critical_path": typical.side["critical_path"],
    }  # fmt: skip
    steps = {}
    for place in dict.fromkeys(place for shape in (typical, *shapes) for place in shape.steps):
        having = [shape.steps[place] for shape in shapes if place in shape.steps]
        if 2 * len(having) < len(shapes):
            continue
        steps[place] = Step(
            round(median(one.count for one in having)), round(median(one.duration for one in having)),
            round(median(one.own for one in having)), round(median(one.failed for one in having)),
            place in typical.steps and typical.steps[place].critical,
        )  # fmt: skip
    names = {name for shape in shapes for name in shape.counts}
    counts = {name: median(shape.counts.get(name, 0) for shape in shapes) for name in names}
    metrics = {
        key: median(shape.metrics[key] for shape in shapes if key in shape.metrics)
        for key in dict.fromkeys(key for shape in shapes for key in shape.metrics)
    }
    return Shape(side, steps, counts, metrics)


def compare(run: Shape, other: Shape, runs: Sequence[Shape] = ()) -> Comparison:
    """`runs`: the last ones of the kind, by which it is judged whether a metric differs more than it always does; and from which
    `other` may come."""
    return {
        "run": run.side,
        "other": other.side,
        "runs": 1 if other.side["trace_id"] else len(runs),
        "steps": [_step(place, run.steps.get(place), other.steps.get(place)) for place in _in_order(run, other)],
        "counts": _counts(run, other),
        "metrics": _metrics(run, other, runs),
    }


def _places(spans: Iterable[SpanRecord]) -> dict[str, Place]:
    """Span id -> its place. Parents come before their children."""
    found: dict[str, Place] = {}
    for span in spans:
        above = found.get(span["parent_id"], ())
        found[span["span_id"]] = (*above, f"{span['service']}/{kind_of(span['name'])}")
    return found


def _end(span: SpanRecord, last: int) -> int:
    end = last if span["duration"] is None else span["start"] + span["duration"]
    return max(span["start"], end)


def _covered(begin: int, end: int, children: Iterable[SpanRecord], last: int) -> int:
    """How much of a span its children cover, which may overlap, and reach beyond it."""
    covered, at = 0, begin
    for start, stop in sorted((child["start"], _end(child, last)) for child in children):
        start, stop = max(start, at), min(stop, end)
        if stop > start:
            covered += stop - start
            at = stop
    return covered


def _critical(children: Mapping[str, Sequence[SpanRecord]], last: int) -> list[str]:
    """The spans of the critical path, in the order of time: from the end of each back, the child that ended last, then the one
    that ended last before that began, and so on. A span's end is that of all below it: what a queue hands on may go on when the
    span that handed it on has ended, and the run waits for it all the same."""
    ends = _ends(children, last)
    found: dict[str, SpanRecord] = {}
    stack: list[tuple[str, int]] = [("", 2**63)]
    while stack:
        parent, until = stack.pop()
        # The roots' own order: only the one that ends last decides where there are several side by side.
        for child in sorted(children.get(parent, ()), key=lambda span: ends[span["span_id"]], reverse=True):
            end = ends[child["span_id"]]
            if child["span_id"] in found or end > until:
                continue
            found[child["span_id"]] = child
            stack.append((child["span_id"], end))
            until = child["start"]
    return sorted(found, key=lambda span_id: (found[span_id]["start"], found[span_id]["depth"]))


def _ends(children: Mapping[str, Sequence[SpanRecord]], last: int) -> dict[str, int]:
    """When each span and all below it had ended."""
    reached = {span["span_id"]: _end(span, last) for span in children.get("", ())}
    for span_id in (order := list(reached)):  # grows: parents stand before their children
        for child in children.get(span_id, ()):
            if child["span_id"] not in reached:
                reached[child["span_id"]] = _end(child, last)
                order.append(child["span_id"])
    for span_id in reversed(order):
        below = (reached[child["span_id"]] for child in children.get(span_id, ()))
        reached[span_id] = max(reached[span_id], *below, 0)
    return reached


def _in_order(run: Shape, other: Shape) -> list[Place]:
    """The places of both as a tree: after each step what is below it, in the order of the run, then what only the other has."""
    rank: dict[Place, int] = {}
    for shape in (run, other):
        for place in shape.steps:
            for depth in range(1, len(place) + 1):
                rank.setdefault(place[:depth], len(rank))
    known = {*run.steps, *other.steps}
    return sorted(known, key=lambda place: [rank[place[:depth]] for depth in range(1, len(place) + 1)])


def _step(place: Place, step: Step | None, other: Step | None) -> StepDifference:
    service, _, name = place[-1].partition("/")
    own, other_own = (step.own if step else 0), (other.own if other else 0)
    return {
        "place": list(place), "service": service, "name": name, "depth": len(place) - 1,
        "count": step.count if step else None, "other_count": other.count if other else None,
        "duration": step.duration if step else None, "other_duration": other.duration if other else None,
        "own": own, "other_own": other_own, "lost": own - other_own,
        "critical": step.critical if step else False, "other_critical": other.critical if other else False,
        "failed": step.failed if step else 0, "other_failed": other.failed if other else 0,
    }  # fmt: skip


def _counts(run: Shape, other: Shape) -> list[NumberDifference]:
    names = sorted({*run.counts, *other.counts})
    pairs = [(name, run.counts.get(name, 0), other.counts.get(name, 0)) for name in names]
    return [_number(name, "", one, two) for name, one, two in pairs if one != two]


def _metrics(run: Shape, other: Shape, runs: Sequence[Shape]) -> list[NumberDifference]:
    found = []
    for key in sorted({*run.metrics} & {*other.metrics}):
        one, two = run.metrics[key], other.metrics[key]
        past = [shape.metrics[key] for shape in runs if key in shape.metrics]
        if abs(one - two) > DIFFERS * abs(two) and not _as_always(one, past):
            found.append(_number(key[1], key[0], one, two))
    return found


def _as_always(value: float, past: Sequence[float]) -> bool:
    """Whether it lies where the last runs' values lie, as far as there are enough of them to tell."""
    if len(past) < 3:
        return False
    middle = median(past)
    return abs(value - middle) <= DEVIATIONS * median(abs(one - middle) for one in past)


def _number(name: str, service: str, value: float, other: float) -> NumberDifference:
    change: Any = (value - other) / abs(other) if other else None
    return {"name": name, "service": service, "value": value, "other": other, "change": change}
