"""Two runs side by side: steps by their place, time lost and gained, critical paths, metrics that differ more than they always do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wafermon.model.records import TraceRecord
from wafermon.model.span_tree import tree
from wafermon.query.compare import Shape, compare, middle_of, shape_of

S = 1_000_000


def trace(name: str, *spans: tuple[str, str, float, float | None], **more: Any) -> TraceRecord:
    """Spans as (name, parent's name or empty, start, duration), in seconds; all of the service ``etl``."""
    made: list[dict[str, Any]] = [
        {
            "span_id": one, "parent_id": parent, "name": one, "service": "etl", "start": round(start * S),
            "duration": None if took is None else round(took * S), "status": None if took is None else "ok",
        }
        for one, parent, start, took in spans
    ]  # fmt: skip
    last = max([span["start"] + (span["duration"] or 0) for span in made], default=0)
    whole: Any = {
        "trace_id": name, "status": "done", "first": 0, "last": more.pop("last", last), "errors": 0, "counts": {}, "series": [],
        "spans": list(tree(made)), **more,
    }  # fmt: skip
    found: TraceRecord = whole
    return found


def steps(run: TraceRecord, other: TraceRecord) -> dict[str, tuple[int | None, int | None, int]]:
    """Place -> both durations and what was lost, in seconds."""
    found = compare(shape_of(run), shape_of(other))

    def seconds(value: int | None) -> int | None:
        return None if value is None else value // S

    return {
        " > ".join(step["place"]): (seconds(step["duration"]), seconds(step["other_duration"]), step["lost"] // S)
        for step in found["steps"]
    }


BEFORE = trace("a", ("lot", "", 0, 100), ("read", "lot", 0, 20), ("load", "lot", 20, 70))
AFTER = trace("b", ("lot", "", 0, 150), ("read", "lot", 0, 20), ("load", "lot", 20, 110), ("check", "lot", 130, 15))


def test_what_is_lost_adds_up_to_the_difference() -> None:
    assert steps(AFTER, BEFORE) == {
        "etl/lot": (150, 100, -5), "etl/lot > etl/read": (20, 20, 0), "etl/lot > etl/load": (110, 70, 40),
        "etl/lot > etl/check": (15, None, 15),
    }  # fmt: skip
    assert sum(lost for _, _, lost in steps(AFTER, BEFORE).values()) == 50
    assert sum(lost for _, _, lost in steps(BEFORE, AFTER).values()) == -50


def test_steps_that_differ_in_digits_alone_are_one() -> None:
    run = trace("a", ("lot", "", 0, 9), ("wafer 1", "lot", 0, 3), ("wafer 2", "lot", 3, 4))
    other = trace("b", ("lot", "", 0, 9), ("wafer 17", "lot", 0, 5))
    assert steps(run, other)["etl/lot > etl/wafer *"] == (7, 5, 2)


def test_a_step_elsewhere_in_the_tree_is_another_one() -> None:
    run = trace("a", ("lot", "", 0, 9), ("read", "lot", 0, 3))
    other = trace("b", ("lot", "", 0, 9), ("load", "lot", 0, 5), ("read", "load", 0, 3))
    assert list(steps(run, other)) == [
        "etl/lot",
        "etl/lot > etl/read",
        "etl/lot > etl/load",
        "etl/lot > etl/load > etl/read",
    ]


def test_children_that_overlap_cover_once() -> None:
    run = trace("a", ("lot", "", 0, 10), ("x", "lot", 1, 5), ("y", "lot", 3, 5), ("z", "lot", 9, 50))
    assert shape_of(run).steps["etl/lot",].own == 2 * S


def test_the_critical_path_is_what_the_end_waited_for() -> None:
    run = trace(
        "a", ("lot", "", 0, 100), ("read", "lot", 0, 30), ("side", "lot", 0, 10), ("load", "lot", 30, 60),
        ("index", "load", 40, 50), ("log", "load", 40, 5),
    )  # fmt: skip
    assert shape_of(run).side["critical_path"] == ["etl/lot", "etl/read", "etl/load", "etl/index"]


def test_the_critical_path_goes_on_with_what_a_queue_handed_on() -> None:
    """The end waits for `load`, which began when the span that put it into the queue was about to end, or had ended."""
    run = trace(
        "a", ("receive", "", 0, 45), ("check", "receive", 1, 10), ("process", "receive", 50, 30),
        ("load", "process", 88, 11), ("log", "receive", 44, 3),
    )  # fmt: skip
    assert shape_of(run).side["critical_path"] == [
        "etl/receive", "etl/check", "etl/log", "etl/process", "etl/load",
    ]  # fmt: skip


def test_a_run_that_goes_on_counts_until_now() -> None:
    run = trace("a", ("lot", "", 0, None), ("read", "lot", 0, 3), last=12 * S)
    assert shape_of(run).steps["etl/lot",].duration == 12 * S


def series(value: float) -> list[dict[str, Any]]:
    return [{"name": "yield", "service": "etl", "unit": "%", "count": 3, "mean": value, "least": 0, "greatest": 0}]


@pytest.mark.parametrize(("value", "other", "past", "named"), [
    (100, 90, [], False),
    (100, 50, [], True),
    (100, 50, [48, 52, 50], True),
    (100, 50, [50, 98, 10, 70, 150], False),
    (50, 100, [98, 102, 99, 101, 100], True),
    (1, 0, [], True),
])  # fmt: skip
def test_a_metric_is_named_where_it_differs_more_than_it_always_does(
    value: float, other: float, past: list[float], named: bool
) -> None:
    shapes = [shape_of(trace(f"p{n}", series=series(one))) for n, one in enumerate(past)]
    found = compare(shape_of(trace("a", series=series(value))), shape_of(trace("b", series=series(other))), shapes)
    assert [one["name"] for one in found["metrics"]] == (["yield"] if named else [])


def test_the_median_of_several_runs() -> None:
    runs = [
        shape_of(trace(f"r{n}", ("lot", "", 0, 10 * n), ("read", "lot", 0, n), counts={"event": n}, series=series(n)))
        for n in (1, 5, 3, 2, 4)
    ]
    middle = middle_of(runs)
    assert (middle.side["duration"], middle.side["trace_id"], middle.counts) == (30 * S, "", {"event": 3})
    assert middle.steps["etl/lot", "etl/read"].duration == 3 * S
    found = compare(shape_of(AFTER), middle, runs)
    assert found["runs"] == 5
    assert {one["name"]: one["other"] for one in found["counts"]} == {"event": 3}


def test_a_step_of_few_runs_is_not_the_kinds() -> None:
    runs = [
        shape_of(trace(f"r{n}", ("lot", "", 0, 10), *([("odd", "lot", 0, 1.0)] if n == 0 else []))) for n in range(3)
    ]
    assert list(middle_of(runs).steps) == [("etl/lot",)]


SPANS = st.lists(
    st.tuples(st.integers(0, 12), st.sampled_from(["", "0", "1", "2", "3"]), st.integers(0, 30), st.none() | st.integers(0, 30)),
    max_size=12, unique_by=lambda span: span[0],
)  # fmt: skip


@given(SPANS, SPANS)
def test_whatever_the_spans_are(one: list[Any], other: list[Any]) -> None:
    shapes: list[Shape] = [
        shape_of(trace(name, *((str(number), parent, start, took) for number, parent, start, took in spans)))
        for name, spans in (("a", one), ("b", other))
    ]
    found = compare(shapes[0], shapes[1])
    assert all(step["own"] >= 0 and step["other_own"] >= 0 for step in found["steps"])
    for shape, spans in zip(shapes, (one, other), strict=True):
        assert sum(step.count for step in shape.steps.values()) == len(spans)
        assert len(shape.side["critical_path"]) <= len(spans)
