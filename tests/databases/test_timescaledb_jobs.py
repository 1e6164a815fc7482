"""`jobs` is kept by the statement that stores: it must say what the rows say, in whatever order and batches they came."""

from __future__ import annotations

from typing import Any

import psycopg2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from postgres import Database, backend
from pytest_twisted import ensureDeferred

from wafermon.backends.timescaledb.statements import store
from wafermon.model.messages import dumps

MOVE = b"UPDATE deliveries SET moved = now()"
T0 = 1_795_500_000_000_000
SAID = """EXISTS (
    SELECT FROM events AS e WHERE e.trace_id = p.trace_id AND e.service = 'wafermon' AND e.context ->> 'kind' = '{}'
    AND e.context ->> 'job_id' = p.job_id AND e.time > max(p.time)
)"""
OPEN = """coalesce((array_agg(status ORDER BY time DESC, coalesce(seq, 0) DESC) FILTER (WHERE status IS NOT NULL))[1], '')
    NOT IN ('done', 'failed', 'cancelled')"""
COUNTED = """
    SELECT job_id, trace_id, min(time), max(time), count(*),
        (array_agg(percent ORDER BY time DESC, coalesce(seq, 0) DESC))[1],
        (array_agg(service ORDER BY time DESC, coalesce(seq, 0) DESC))[1],
        (array_agg(status ORDER BY time DESC, coalesce(seq, 0) DESC) FILTER (WHERE status IS NOT NULL))[1] AS status,
        {open_} AND {stalled} AND NOT {gone}, {open_} AND {gone}
    FROM progress AS p GROUP BY job_id, trace_id
""".format(open_=OPEN, stalled=SAID.format("job_stalled"), gone=SAID.format("gone"))
"""The jobs as they follow from the rows."""
KEPT = "SELECT job_id, trace_id, first, last_progress, messages, percent, service, status, stalled, gone FROM jobs"


@st.composite
def said(draw: st.DrawFn) -> dict[str, Any]:
    """Progress of one of few jobs at one of few times, or that one has stalled."""
    job = draw(st.sampled_from(["a", "b", "job-1"]))
    head: dict[str, Any] = {"ts": T0 + draw(st.integers(0, 5)), "trace_id": draw(st.sampled_from([job, "t"]))}
    if draw(st.integers(0, 3)) == 0:
        about = {"kind": draw(st.sampled_from(["job_stalled", "gone", "span_abandoned"])), "job_id": job}
        service = draw(st.sampled_from(["wafermon", "other"]))
        return {**head, "type": "event", "service": service, "level": "warning", "message": "", "context": about}
    status = draw(st.sampled_from([None, "running", "done", "failed"]))
    return {
        **head, "type": "progress", "job_id": job, "service": draw(st.sampled_from("xyz")),
        "percent": draw(st.integers(0, 100)), **({"status": status} if status else {}),
    }  # fmt: skip


@given(st.lists(st.lists(said(), min_size=1, max_size=8), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def check(connection: Any, batches: list[list[dict[str, Any]]]) -> None:
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE progress, events, job_states")
        number = 0
        for messages in batches:
            lines = []
            for message in messages:
                number += 1
                lines.append(dumps({**message, "seq": number}).encode() + b"\n")
            cursor.execute(store(b"".join(lines), len(lines), {message["type"] for message in messages}, MOVE))
        for sql in (KEPT, "SELECT refresh_jobs() IS NULL", KEPT):
            cursor.execute(sql)
            kept = cursor.fetchall()
            if sql == KEPT:
                cursor.execute(COUNTED)
                assert sorted(map(repr, kept)) == sorted(map(repr, cursor.fetchall()))


@ensureDeferred
async def test_what_is_kept_is_what_the_rows_say(database: Database) -> None:
    with backend(database) as writer:
        await writer.open()
        connection = psycopg2.connect(database.dsn)
        connection.autocommit = True
        try:
            check(connection)
        finally:
            connection.close()
