"""What the tables say of jobs and traces, for commands: plain dicts of JSON values, as the daemon's HTTP answers.

Blocks. Times are microseconds since the Unix epoch. Raises ReadError with one line that says what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg2
from psycopg2.extensions import parse_dsn
from psycopg2.extras import RealDictCursor
from psycopg2.sql import SQL, Identifier

from wafermon.backends.timescaledb.failures import failure_of
from wafermon.model.span_tree import tree

EVENTS = 10_000
"""The most events of one trace that are read: the latest."""
JOBS = 10_000
"""The most jobs that are read, the ones heard of last: as many as a sidecar can be asked for."""

STEPS = ("1 day", "7 days", "30 days", "90 days", "365 days", "")
"""How far back a trace that is not summed up is looked for, step by step; at last everywhere."""
FOREVER = "infinity"


class ReadError(Exception):
    """The database can't be read."""


def jobs(dsn: str, schema: str = "public") -> list[dict[str, Any]]:
    """The jobs, the one that was heard last first: ``job_id``, ``trace_id``, ``percent``, ``status`` (may be empty),
    ``service``, ``first``, ``last_progress``, ``stalled``, ``gone``."""
    with _reading(dsn, schema) as query:
        return query(_JOBS + " ORDER BY last_progress DESC, job_id LIMIT %(limit)s", {"limit": JOBS})


def trace(dsn: str, trace_id: str, schema: str = "public") -> dict[str, Any] | None:
    """One trace, or None where nothing is known of it: ``trace_id``, ``part``, ``status`` (``running`` until the sidecar
    has summed it up), ``first``, ``last``, ``services``, ``counts``, ``errors``, its ``jobs``, its ``spans`` and its
    ``events`` in order of time.

    A span has ``span_id``, ``parent_id`` (may be empty), ``name``, ``service``, ``start``, ``duration`` (microseconds),
    ``status`` and ``depth``; duration and status are None while it is open, and the status is ``abandoned`` where the
    sidecar has given it up."""
    with _reading(dsn, schema) as query:
        span = _span(query, trace_id)
        known = {"trace": trace_id, "since": span[0], "until": span[1], "limit": EVENTS}
        [found] = query(_TRACE, known)
        if not found["services"]:
            return None
        events = query(_EVENTS, known)
        return {
            "trace_id": trace_id,
            **found,
            "jobs": query(_JOBS + " WHERE trace_id = %(trace)s ORDER BY first, job_id", known),
            "spans": list(tree(query(_SPANS, known))),
            "events": [{key: value for key, value in event.items() if value is not None} for event in events[::-1]],
        }


Query = Callable[[str, Mapping[str, Any]], list[dict[str, Any]]]


def _span(query: Query, trace_id: str) -> tuple[str, str]:
    """Where all of a trace lies in time: from the first on, before the second. Chunks beyond that are not looked into, and
    a compressed one that is costs its whole size.

    A summary says it, with a day around it for what it does not count yet, and the last day of all. A trace without one is looked for from the latest
    chunks back, until there is nothing more of it."""
    summed = query(_SUMMED, {"trace": trace_id})
    if summed:
        since, until = str(summed[0]["since"]), str(summed[0]["until"])
        return since, FOREVER if _there(query, trace_id, str(summed[0]["late"]), FOREVER) else until
    since, until = FOREVER, FOREVER
    for back in STEPS:
        [row] = (
            query("SELECT (now() - %(back)s::interval)::text AS since", {"back": back})
            if back
            else [{"since": "-infinity"}]
        )
        found = _there(query, trace_id, row["since"], until)
        if not found and since != FOREVER:
            break
        until = row["since"]
        since = until if found else since
    return since, FOREVER


def _there(query: Query, trace_id: str, since: str, until: str) -> bool:
    """Whether there is anything of it in this time."""
    return bool(query(_ANY, {"trace": trace_id, "since": since, "until": until}))


@contextmanager
def _reading(dsn: str, schema: str) -> Iterator[Query]:
    """A query in one read-only transaction: all its answers are of the same moment."""
    try:
        known = {"connect_timeout": "10", **parse_dsn(dsn)}
        connection = psycopg2.connect(**known, fallback_application_name="wafermon", cursor_factory=RealDictCursor)
    except psycopg2.Error as error:
        raise ReadError(failure_of(error, "the database").text) from None
    try:
        connection.set_session("REPEATABLE READ", readonly=True)
        with connection, connection.cursor() as cursor:

            def query(sql: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
                cursor.execute(sql, parameters)
                return list(map(dict, cursor.fetchall()))

            # No other schema than this: tables of the same name elsewhere are another sidecar's.
            # Compiling takes seconds where there are hundreds of chunks, and gains nothing: few rows are read.
            settings = SQL("SET LOCAL statement_timeout = '60s'; SET LOCAL jit = off; SET LOCAL search_path = {}")
            cursor.execute(settings.format(Identifier(schema)))
            yield query
    except psycopg2.Error as error:
        raise ReadError(failure_of(error, "the database").text) from None
    finally:
        connection.close()


def _us(expression: str) -> str:
    """A time as microseconds since the epoch."""
    return f"(extract(epoch FROM {expression}) * 1000000)::bigint"


_JOBS = f"""
    SELECT job_id, trace_id, percent, coalesce(status, '') AS status, service, {_us("first")} AS first,
        {_us("last_progress")} AS last_progress, stalled, gone
    FROM jobs
"""
# The times as text: a statement is planned with them as constants, which leaves out the chunks beyond them.
_SUMMED = """
    SELECT since::text, until::text, greatest(until, now() - interval '1 day')::text AS late
    FROM (
        SELECT first - interval '1 day' AS since, greatest(last, time) + interval '1 day' AS until
        FROM traces WHERE trace_id = %(trace)s
    ) AS summed
"""
_WITHIN = "trace_id = %(trace)s AND time >= %(since)s AND time < %(until)s"
_ANY = f"SELECT 1 AS one FROM timeline WHERE {_WITHIN} LIMIT 1"
_SPANS = f"""
    SELECT DISTINCT ON (start, span_id) span_id, coalesce(parent_id, '') AS parent_id, name, service,
        {_us("start")} AS start, (duration * 1000000)::bigint AS duration, status
    FROM spans_between(%(since)s, %(until)s) WHERE trace_id = %(trace)s ORDER BY start, span_id
"""
_EVENTS = f"""
    SELECT {_us("time")} AS ts, service, host, pid, level, message, context, span_id, client, seq
    FROM events WHERE {_WITHIN} ORDER BY time DESC, seq DESC LIMIT %(limit)s
"""
# The sidecar's summary holds until more has come than it had counted; what has no summary is counted here.
_TRACE = f"""
    WITH line AS MATERIALIZED (
        SELECT time, service, type, level FROM timeline WHERE {_WITHIN} AND service <> 'wafermon'
    ),
    counted AS (
        SELECT min(time) AS first, max(time) AS last,
            ARRAY(SELECT service FROM line GROUP BY service ORDER BY min(time)) AS services,
            count(*) FILTER (WHERE level IN ('error', 'critical')) AS errors, count(*) AS messages
        FROM line
    ),
    counts AS (
        SELECT coalesce(jsonb_object_agg(key, count), '{{}}') AS counts FROM (
            SELECT type AS key, count(*) FROM line GROUP BY type
            UNION ALL SELECT 'level.' || level, count(*) FROM line WHERE type = 'event' GROUP BY level
        ) AS each_key
    ),
    summary AS (
        SELECT t.*, (
            SELECT coalesce(sum(value::bigint), 0) FROM jsonb_each_text(t.counts) WHERE key NOT LIKE 'level.%%'
        ) >= counted.messages AS whole
        FROM traces AS t CROSS JOIN counted WHERE trace_id = %(trace)s
    )
    SELECT coalesce(s.part + (NOT s.whole)::int, 1) AS part, CASE WHEN s.whole THEN s.status ELSE 'running' END AS status,
        {_us("CASE WHEN s.whole THEN s.first ELSE counted.first END")} AS first,
        {_us("CASE WHEN s.whole THEN s.last ELSE counted.last END")} AS last,
        CASE WHEN s.whole THEN s.services ELSE counted.services END AS services,
        CASE WHEN s.whole THEN s.counts ELSE counts.counts END AS counts,
        CASE WHEN s.whole THEN s.errors ELSE counted.errors END AS errors
    FROM counted CROSS JOIN counts LEFT JOIN summary AS s ON true
"""
