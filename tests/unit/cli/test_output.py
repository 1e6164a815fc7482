"""What `--json` prints: times as ISO 8601, everything else as it came."""

from __future__ import annotations

import json
from typing import Any

import pytest

from wafermon.cli.output import as_json, iso

WHEN = 1_795_968_000_123_456
TEXT = "2026-11-29T16:00:00.123456Z"


def printed(value: Any, shape: str = "") -> Any:
    return json.loads(as_json(value, shape))


@pytest.mark.parametrize(("microseconds", "text"), [
    (WHEN, TEXT),
    (1_795_968_000_000_000, "2026-11-29T16:00:00.000000Z"),
    (0, "1970-01-01T00:00:00.000000Z"),
    (-1, "1969-12-31T23:59:59.999999Z"),
    (7_258_118_400_000_000, "2200-01-01T00:00:00.000000Z"),
])  # fmt: skip
def test_a_time_is_exact_and_of_one_length(microseconds: int, text: str) -> None:
    assert iso(microseconds) == text


def test_times_are_found_wherever_a_shape_has_them() -> None:
    job = {"first": WHEN, "reached": [WHEN, None], "eta": {"at": WHEN, "runs": 3}, "percent": 33.333333, "errors": 7}
    shown = {"first": TEXT, "reached": [TEXT, None], "eta": {"at": TEXT, "runs": 3}, "percent": 33.333333, "errors": 7}
    assert printed(job, "Job") == shown
    assert printed([job, {"eta": None}], "Job") == [shown, {"eta": None}]
    backend = {"error_since": None, "last_error_at": WHEN, "delivered": WHEN}
    assert printed({"backends": {"db": backend}}, "Status") == {
        "backends": {"db": {"error_since": None, "last_error_at": TEXT, "delivered": WHEN}}
    }


def test_no_time_is_null() -> None:
    assert printed({"searched_to": 0, "now": WHEN}, "Jobs") == {"searched_to": None, "now": TEXT}
    assert printed({"searched_to": WHEN}, "Jobs") == {"searched_to": TEXT}


def test_spans_and_what_no_shape_knows_stay() -> None:
    assert printed({"duration": WHEN, "start": WHEN}, "SpanOfTrace") == {"duration": WHEN, "start": TEXT}
    assert printed({"ts": WHEN, "context": {"ts": WHEN}, "later": WHEN}, "EventFound") == {
        "ts": TEXT, "context": {"ts": WHEN}, "later": WHEN,
    }  # fmt: skip
    assert printed({"now": WHEN}) == {"now": WHEN}


def test_text_is_not_escaped() -> None:
    assert as_json({"job": "Größe"}, "Receipt") == '{"job": "Größe"}'
