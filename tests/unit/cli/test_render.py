"""What `wafermon status` says in words."""

from __future__ import annotations

from typing import Any

import pytest

from wafermon.cli import render

BACKEND: dict[str, Any] = {
    "state": "ok",
    "lag_messages": 0,
    "lag_bytes": 0,
    "lag_seconds": 0.0,
    "delivered": 12,
    "retries": 0,
    "dead_letters": 0,
    "detail": "",
    "error": "",
    "error_since": None,
    "exactly_once": True,
    "skipped_messages": 0,
}


@pytest.mark.parametrize(("skipped", "said"), [(0, ""), (12_345, "(skipped 12,345)")])
def test_messages_that_a_backend_does_not_get_are_told(skipped: int, said: str) -> None:
    _, row = render._backends({"files": {**BACKEND, "skipped_messages": skipped}})
    assert row.endswith(f"  {said}" if said else "0"), row
