"""What a metric looks like to CloudWatch: the line as it is, with what makes a metric of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wafermon.backends.cloudwatch.metrics import UNITS, embedded
from wafermon.contract import line
from wafermon.model.messages import Metric, decode_stored

AWS_UNITS = {
    "Seconds", "Microseconds", "Milliseconds", "Bytes", "Kilobytes", "Megabytes", "Gigabytes", "Terabytes", "Bits", "Kilobits",
    "Megabits", "Gigabits", "Terabits", "Percent", "Count", "Bytes/Second", "Kilobytes/Second", "Megabytes/Second",
    "Gigabytes/Second", "Terabytes/Second", "Bits/Second", "Kilobits/Second", "Megabits/Second", "Gigabits/Second",
    "Terabits/Second", "Count/Second", "None",
}  # fmt: skip
"""All that the service knows."""


def metric(dimensions: tuple[str, ...] = ("service",), **fields: Any) -> dict[str, Any] | None:
    """A metric with these fields -> its log event; None where it is none."""
    made = line(1, **{"type": "metric", "name": "rate", "value": 3, **fields})
    made = made.replace(b',"level":"info","message":"wafer 1"', b"")
    message = decode_stored(made)
    assert isinstance(message, Metric)
    found = embedded(made, message, "fab", dimensions)
    if found is None:
        return None
    pairs = json.loads(found, object_pairs_hook=list)
    assert len({key for key, _ in pairs}) == len(pairs), "a key is there twice"
    return json.loads(found)  # type: ignore[no-any-return]


def taken(event: dict[str, Any] | None) -> tuple[dict[str, str], dict[str, float], str]:
    """What CloudWatch makes of an event, by its specification: (dimensions, values by name, unit)."""
    assert event is not None
    [directive] = event["_aws"]["CloudWatchMetrics"]
    [names], [found] = directive["Dimensions"], directive["Metrics"]
    assert directive["Namespace"] == "fab" and found["Unit"] in AWS_UNITS
    assert all(isinstance(event[name], str) and event[name].isascii() and event[name].strip() for name in names)
    return {name: event[name] for name in names}, {found["Name"]: event[found["Name"]]}, found["Unit"]


def test_a_metric() -> None:
    event = metric(unit="ms")
    assert taken(event) == ({"service": "queue-service"}, {"rate": 3}, "Milliseconds")
    assert event is not None
    assert event["_aws"]["Timestamp"] == 1_795_500_000_000
    assert (event["seq"], event["name"], event["value"]) == (1, "rate", 3)


def test_tags_are_dimensions_where_they_are_named() -> None:
    event = metric(("service", "host", "tool", "lane", "absent"), tags={"tool": "etch-1", "lane": 2, "n": 1})
    assert taken(event)[0] == {"service": "queue-service", "host": "fab1", "tool": "etch-1", "lane": "2"}


def test_a_dimension_that_no_metric_can_have_is_left_out() -> None:
    tags = {"blank": " ", "wide": "ü", "long": "x" * 1025, "type": "y", "none": None}
    assert taken(metric(("blank", "wide", "long", "type", "none"), tags=tags))[0] == {}


@pytest.mark.parametrize(
    ("unit", "known"), [("By", "Bytes"), ("%", "Percent"), ("1/s", "Count/Second"), ("µs", "Microseconds")]
)
def test_units_that_cloudwatch_has(unit: str, known: str) -> None:
    assert taken(metric(unit=unit)) == ({"service": "queue-service"}, {"rate": 3}, known)


def test_a_unit_that_it_has_not_is_a_dimension() -> None:
    assert taken(metric(unit="Cel")) == ({"service": "queue-service", "unit": "Cel"}, {"rate": 3}, "None")
    assert taken(metric(unit="°C")) == ({"service": "queue-service"}, {"rate": 3}, "None")


def test_every_unit_is_one_of_cloudwatchs() -> None:
    assert set(UNITS.values()) <= AWS_UNITS


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", 1e300, -1e110, 1e-200])
def test_values_that_it_has_not_stay_log_events(value: Any) -> None:
    assert metric(value=value) is None


@pytest.mark.parametrize("name", ["", " ", "größe", "x" * 256, "a\nb"])
def test_names_that_it_has_not_stay_log_events(name: str) -> None:
    assert metric(name=name) is None


@pytest.mark.parametrize("name", ["value", "service", "seq", "name"])
def test_a_name_that_is_a_field_is_told_apart(name: str) -> None:
    _, values, _ = taken(metric(name=name))
    assert values == {f"metric.{name}": 3}


@given(
    name=st.text(max_size=20), value=st.floats() | st.integers(-(2**53), 2**53), unit=st.text(max_size=8),
    tags=st.dictionaries(st.text(max_size=8), st.text(max_size=8) | st.floats(allow_nan=False, allow_infinity=False) | st.none()),
)  # fmt: skip
def test_whatever_it_is_the_event_is_one(name: str, value: float, unit: str, tags: dict[str, Any]) -> None:
    said = value if abs(value) < float("inf") else "NaN"
    event = metric(
        ("service", *(tag for tag in tags if tag not in ("_aws", "unit"))), name=name, value=said, unit=unit, tags=tags
    )
    if event is not None:
        _, values, _ = taken(event)
        assert list(values.values()) == [value]
