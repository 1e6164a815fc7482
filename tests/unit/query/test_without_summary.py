"""A stored trace of which nothing is followed and no summary was made."""

from __future__ import annotations

from typing import Any

import pytest

from wafermon.query.query import without_summary

BARE: dict[str, Any] = {"trace_id": "t", "part": 1, "status": "running", "jobs": [], "spans": []}


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, "idle"),
        ({"status": "done"}, "done"),
        ({"jobs": [{"job_id": "t"}]}, "running"),
        ({"spans": [{"span_id": "a" * 16}]}, "running"),
    ],
)
def test_its_status(fields: dict[str, Any], status: str) -> None:
    stored: Any = {**BARE, **fields}
    assert without_summary(stored)["status"] == status
