"""Which messages should not wait until somebody looks."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from wafermon.model.blocks import Block
from wafermon.model.notable import KINDS, Notable, notables
from wafermon.model.schedules import ALARMS, RECOVERED
from wafermon.model.settings import NotableKind


def found(*bodies: dict[str, Any]) -> list[Notable]:
    whole = [{"ts": 1_700_000_000_000_000, "service": "s", "trace_id": "t", **body} for body in bodies]
    return list(notables(Block.parse(b"".join(json.dumps(body).encode() + b"\n" for body in whole))))


def warning(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": "event", "level": "warning", "message": "m", "context": {"kind": kind, **more}}


FAILED = {"type": "progress", "job_id": "j", "percent": 1, "status": "failed"}


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (FAILED, "job_failed"),
        (warning("dropped", count=3), "dropped"),
        ({**warning("job_stalled", job_id="j"), "service": "wafermon"}, "job_stalled"),
        ({**warning("span_abandoned", span_id="1" * 16), "service": "wafermon"}, "span_abandoned"),
    ],
)
def test_what_is_notable(body: dict[str, Any], kind: str) -> None:
    [one] = found({"type": "event", "level": "info", "message": "m"}, body)
    assert one.kind == kind
    assert one.event()["kind"] == kind
    assert one.event()["type"] == body["type"]


@pytest.mark.parametrize("body", [
    {"type": "event", "level": "info", "message": "m", "context": {"kind": "dropped", "count": 1}},
    {"type": "event", "level": "warning", "message": '"dropped"', "context": {"other": "dropped"}},
    {"type": "event", "level": "warning", "message": '"dropped"'},
    warning("job_stalled"),
    warning("span_abandoned"),
    {"type": "progress", "job_id": "failed", "percent": 1, "status": "fine"},
])  # fmt: skip
def test_what_only_looks_like_it_is_not_notable(body: dict[str, Any]) -> None:
    assert found(body) == []


@pytest.mark.parametrize(
    ("context", "count"), [({"count": 3}, 3), ({}, 0), ({"count": -1}, 0), ({"count": True}, 0), ({"count": "3"}, 0)]
)
def test_how_many_were_dropped(context: dict[str, Any], count: int) -> None:
    [one] = found(warning("dropped", **context))
    assert one.dropped == count


def test_other_kinds_have_dropped_nothing() -> None:
    [one] = found(FAILED)
    assert one.dropped == 0


@pytest.mark.parametrize("kind", [*ALARMS, RECOVERED])
def test_what_is_told_of_a_schedule(kind: str) -> None:
    body = {**warning(kind, schedule="nightly"), "service": "wafermon"}
    if kind == RECOVERED:
        body["level"] = "info"
    [one] = found(body)
    assert (one.kind, one.event()["context"]["schedule"]) == (kind, "nightly")


@pytest.mark.parametrize("body", [
    {**warning("failed", schedule="nightly"), "service": "wafermon", "level": "info"},
    {**warning("done", schedule="nightly"), "service": "wafermon", "level": "info"},
    {**warning("recovered", schedule="nightly"), "level": "info"},
    warning("not_started", schedule="nightly"),
])  # fmt: skip
def test_what_is_no_alarm_of_a_schedule(body: dict[str, Any]) -> None:
    """A run that fails and may, what goes well, and what somebody else says."""
    assert found(body) == []


def test_a_config_may_name_each_kind() -> None:
    assert set(get_args(NotableKind)) == set(KINDS)
