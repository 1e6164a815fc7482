"""Receipts that a history keeps: found by trace and by job, and not where it can't be asked."""

from __future__ import annotations

from typing import Any

from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, fail, succeed

from wafermon.interfaces import RetryableError
from wafermon.model.position import Position
from wafermon.query.kept import kept_receipt
from wafermon.query.receipts import Place

RECORD = {
    "received": 3, "sent": 3, "rejected": 0, "dropped": 0, "gaps": [], "more_gaps": 0, "unclosed": [], "open": 0,
    "more_unclosed": 0, "closed": 1, "unjudged": 0, "unnumbered": 0, "no_route": 0, "begun_before": False, "running": False,
    "services": {}, "routed": {"db,files": [3, 7, 900, {"7": 3}]}, "dead": {},
}  # fmt: skip
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class History:
    """Holds one trace with one job."""

    def __init__(self, *, fails: bool = False, kept: bool = True) -> None:
        event = {"service": "wafermon", "context": {"kind": "receipt", **RECORD}}
        self.found = {"jobs": [{"job_id": "lot-1"}], "events": [event] if kept else []}
        self.fails = fails

    def find(self, prefix: str, limit: int) -> Deferred[list[str]]:
        if self.fails:
            return fail(RetryableError("it is away"))
        return succeed([TRACE] if TRACE.startswith(prefix) or "lot-1".startswith(prefix) else [])

    def trace(self, trace_id: str, messages: int) -> Deferred[dict[str, Any] | None]:
        return succeed(self.found if trace_id == TRACE else None)


def place(name: str) -> Place:
    return Place(Position("j", 7, 1_000 if name == "db" else 10))


@ensureDeferred
async def test_it_is_found_by_its_trace_and_by_its_job() -> None:
    for name in (TRACE, "lot-1"):
        found = await kept_receipt([History(fails=True), History(kept=False), History()], name, place)
        assert found is not None
        assert (found["job"], found["complete"], found["sent"]) == (TRACE, False, 3)
        assert [found["backends"][backend]["stored"] for backend in ("db", "files")] == [3, None]


@ensureDeferred
async def test_the_beginning_of_an_id_is_not_enough() -> None:
    assert await kept_receipt([History()], "lot", place) is None
    assert await kept_receipt([History()], TRACE[:8], place) is None
    assert await kept_receipt([], TRACE, place) is None
