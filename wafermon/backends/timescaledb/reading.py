"""What the tables say of the past, in the shapes of `wafermon.model.records`. Blocks; raises CannotAsk, which says what to do.

Kinds of jobs and of errors are told apart here, not in SQL: whatever can be asked means the same in every place.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psycopg2
from psycopg2.extensions import parse_dsn
from psycopg2.extras import RealDictCursor
from psycopg2.sql import SQL, Identifier

from wafermon.backends.timescaledb.failures import failure_of
from wafermon.model.asking import (
    CannotAsk,
    ErrorFilter,
    EventFilter,
    Found,
    JobFilter,
    Page,
    error_place,
    job_place,
    page_of,
)
from wafermon.model.kinds import Kinds, kind_of
from wafermon.model.messages import LEVELS
from wafermon.model.progress import nothing_reached, reach
from wafermon.model.records import (
    ErrorRecord,
    EventRecord,
    JobRecord,
    KindRecord,
    PointRecord,
    ServiceRecord,
    TraceRecord,
)
from wafermon.model.span_tree import tree

JOBS = 10_000
"""The most jobs that are looked at, the ones heard of last."""
ERRORS = 10_000
"""The most kinds of errors, as SQL tells them apart."""
STEPS = ("1 day", "7 days", "30 days", "90 days", "365 days", "")
"""How far back a trace that is not summed up is looked for, step by step; at last everywhere."""
FOREVER = "infinity"
Query = Callable[[str, Mapping[str, Any] | Sequence[Any]], list[dict[str, Any]]]


class Reader:
    """One database. Its methods may be called in several threads at a time."""

    def __init__(self, dsn: str | Callable[[], Mapping[str, str]], schema: str = "public") -> None:
        """`dsn`: libpq's connection string or URL, or what answers with its parameters by name (it may block)."""
        self._dsn = dsn
        self._schema = schema
        self._kinds = Kinds()
        self._connections: set[Any] = set()

    def stop(self) -> None:
        """Let every question that is under way fail soon."""
        for connection in list(self._connections):
            with suppress(OSError, psycopg2.Error), socket.socket(fileno=os.dup(connection.fileno())) as line:
                line.shutdown(socket.SHUT_RDWR)

    def jobs(self, wanted: JobFilter, page: Page) -> Found[JobRecord]:
        with self._reading() as query:
            rows = self._jobs(query, wanted.since, wanted.until, wanted.traces)
            found = page_of(filter(wanted.takes, rows), page, job_place)
            _complete(query, found.records)
            return Found(found.records, found.more, found.total if len(rows) < JOBS else None)

    def kinds(self, since: int, until: int) -> list[KindRecord]:
        known: dict[str, KindRecord] = {}
        with self._reading() as query:
            for job in self._jobs(query, since, until):
                one = known.setdefault(job["kind"], {"kind": job["kind"], "runs": 0, "last": 0, "states": {}})
                one["runs"] += 1
                one["last"] = max(one["last"], job["last_progress"])
                one["states"][job["state"]] = one["states"].get(job["state"], 0) + 1
        return sorted(known.values(), key=lambda one: (one["last"], one["kind"]), reverse=True)

    def find(self, prefix: str, limit: int) -> list[str]:
        with self._reading() as query:
            rows = query(_FIND, [*(prefix, prefix) * 4, limit])
            return [row["trace_id"] for row in rows]

    def trace(self, trace_id: str, messages: int) -> TraceRecord | None:
        with self._reading() as query:
            since, until = _stretch(query, trace_id)
            known = {"trace": trace_id, "since": since, "until": until, "limit": messages}
            [head] = query(_TRACE, known)
            if not head["services"]:
                return None
            points = {name: _points(query, name, known) for name in POINTS}
            jobs = self._jobs(query, 0, 0, frozenset({trace_id}))
            _complete(query, jobs)
            counts = head["counts"]
            left_out = {
                name: max(0, int(counts.get(kind, 0)) - len(points[name])) for name, (kind, _, _) in POINTS.items()
            }
            whole: Any = {
                "trace_id": trace_id,
                **head,
                "jobs": sorted(jobs, key=lambda job: (job["first"], job["job_id"])),
                "spans": list(tree(query(_SPANS, known))),
                **points,
                "series": query(_SERIES, known),
                "left_out": {"spans": 0, **left_out},
            }
            made: TraceRecord = whole
            return made

    def events(self, wanted: EventFilter, page: Page) -> Found[EventRecord]:
        conditions, values = _event_conditions(wanted)
        if page.after is not None:
            conditions.append(f"({_us('time')}, {_EVENT_KEY}) < (%s, %s)")
            conditions.append("time <= to_timestamp(%s::double precision / 1000000)")
            values += [page.after.time, page.after.key, page.after.time + 1000]
        where = " AND ".join(["true", *conditions])
        with self._reading() as query:
            rows = query(
                f"{_EVENT} WHERE {where} ORDER BY 1 DESC, {_EVENT_KEY} DESC LIMIT %s", [*values, page.limit + 1]
            )
        events = [_without_nulls(row) for row in rows]
        return Found(events[: page.limit], len(events) > page.limit)

    def errors(self, wanted: ErrorFilter, page: Page) -> Found[ErrorRecord]:
        known: dict[tuple[str, str], ErrorRecord] = {}
        with self._reading() as query:
            for row in query(_ERRORS, [*_times(wanted.since, wanted.until), ERRORS]):
                row["pattern"] = kind_of(row["message"][:128])
                key = (row["service"], row["pattern"])
                one: Any = row
                known[key] = _join(known[key], one) if key in known else one
        return page_of(filter(wanted.takes, known.values()), page, error_place)

    def services(self, since: int, until: int) -> list[ServiceRecord]:
        known: dict[str, ServiceRecord] = {}
        with self._reading() as query:
            for row in query(_SERVICES, _times(since, until)):
                first, last = row["first"] // HOUR * HOUR, row["last"] // HOUR * HOUR
                one = known.setdefault(
                    row["service"], {"service": row["service"], "first": first, "last": last, "counts": {}}
                )
                one["first"], one["last"] = min(one["first"], first), max(one["last"], last)
                keys = [row["type"], f"level.{row['level']}"] if row["type"] == "event" else [row["type"]]
                for key in keys:
                    one["counts"][key] = one["counts"].get(key, 0) + row["count"]
        return sorted(known.values(), key=lambda one: one["service"])

    def _jobs(self, query: Query, since: int, until: int, traces: frozenset[str] = frozenset()) -> list[JobRecord]:
        """Those that were heard of last in this time, as far as the view tells them."""
        condition = "WHERE trace_id = ANY(%s)" if traces else "WHERE %s::text IS NULL"
        rows = query(
            f"{_JOBS} {condition} AND last_progress >= {_SINCE} AND last_progress < {_UNTIL}"
            " ORDER BY last_progress DESC, trace_id DESC, job_id DESC LIMIT %s",
            [sorted(traces) or None, *_times(since, until), JOBS],
        )
        return [self._job(row) for row in rows]

    def _job(self, row: dict[str, Any]) -> JobRecord:
        whole: Any = {
            **row,
            "kind": self._kinds.of(row["job_id"]),
            "stalled": row["state"] == "stalled",
            "gone": row["state"] == "gone",
            "services": [],
            "errors": 0,
            "reached": nothing_reached(),
            "eta": None,
        }
        made: JobRecord = whole
        return made

    @contextmanager
    def _reading(self) -> Iterator[Query]:
        """A query in one read-only transaction: all its answers are of the same moment."""
        try:
            given = parse_dsn(self._dsn) if isinstance(self._dsn, str) else self._dsn()
            parameters: dict[str, Any] = {"connect_timeout": "10", **given}
            connection = psycopg2.connect(
                **parameters, fallback_application_name="wafermon", cursor_factory=RealDictCursor
            )
        except psycopg2.Error as error:
            raise CannotAsk(failure_of(error, "the database").text) from None
        except (OSError, UnicodeDecodeError) as error:
            raise CannotAsk(f"password_file: {error}") from None
        self._connections.add(connection)
        try:
            connection.set_session("REPEATABLE READ", readonly=True)
            with connection, connection.cursor() as cursor:

                def query(sql: str, values: Mapping[str, Any] | Sequence[Any]) -> list[dict[str, Any]]:
                    cursor.execute(sql, values)
                    return list(map(dict, cursor.fetchall()))

                # No other schema than this: tables of the same name elsewhere are another sidecar's.
                # Compiling takes seconds where there are hundreds of chunks, and gains nothing: few rows are read.
                settings = SQL("SET LOCAL statement_timeout = '60s'; SET LOCAL jit = off; SET LOCAL search_path = {}")
                cursor.execute(settings.format(Identifier(self._schema)))
                yield query
        except psycopg2.Error as error:
            raise CannotAsk(failure_of(error, "the database").text) from None
        finally:
            self._connections.discard(connection)
            connection.close()


def _stretch(query: Query, trace_id: str) -> tuple[str, str]:
    """Where all of a trace lies in time: from the first on, before the second. Chunks beyond that are not looked into, and
    a compressed one that is costs its whole size.

    A summary says it, with a day around it for what it does not count yet, and the last day of all. A trace without one is
    looked for from the latest chunks back, until there is nothing more of it."""
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


def _complete(query: Query, jobs: Sequence[JobRecord]) -> None:
    """What other tables than that of progress know of jobs."""
    traces = sorted({job["trace_id"] for job in jobs})
    if not traces:
        return
    ended = {row["trace_id"]: row for row in query(_ENDED, [traces])}
    shapes: dict[tuple[str, str], list[int | None]] = {}
    since, until = min(job["first"] for job in jobs), max(job["last_progress"] for job in jobs) + 1
    for row in query(_PERCENTS, [traces, since, until]):
        reach(shapes.setdefault((row["trace_id"], row["job_id"]), nothing_reached()), row["percent"], row["ts"])
    for job in jobs:
        job["reached"] = shapes.get((job["trace_id"], job["job_id"]), job["reached"])
        if known := ended.get(job["trace_id"]):
            job["services"], job["errors"] = known["services"], known["errors"]


def _points(query: Query, name: str, known: Mapping[str, Any]) -> list[PointRecord]:
    if not known["limit"]:
        return []
    _, table, columns = POINTS[name]
    rows = query(
        f"SELECT {_us('time')} AS ts, service, host, pid, {columns}, span_id, client, seq FROM {table}"
        f" WHERE {_WITHIN} ORDER BY time DESC, client DESC, seq DESC LIMIT %(limit)s",
        known,
    )
    return [_without_nulls(row) for row in reversed(rows)]


def _without_nulls(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if value is not None}


def _event_conditions(wanted: EventFilter) -> tuple[list[str], list[Any]]:
    conditions, values = [f"time >= {_SINCE}", f"time < {_UNTIL}"], list[Any](_times(wanted.since, wanted.until))
    for condition, value in (
        ("trace_id = %s", wanted.trace_id),
        ("service ~ %s", _regex(wanted.service)),
        ("level = ANY(%s)", list(LEVELS[LEVELS.index(wanted.level) :]) if wanted.level else []),
        ("position(lower(%s) in lower(message)) > 0", wanted.text),
    ):
        if value:
            conditions.append(condition)
            values.append(value)
    for key, value in wanted.context.items():
        conditions.append("context ->> %s = %s")
        values += [key, value]
    return conditions, values


def _regex(glob: str) -> str:
    """A glob as fnmatch reads it -> a regular expression of PostgreSQL; empty for an empty one."""
    if not glob:
        return ""
    found, at = "^", 0
    while at < len(glob):
        char = glob[at]
        end = glob.find("]", at + 2) if char == "[" else -1
        if end > 0:
            inside = glob[at + 1 : end].replace("\\", "\\\\")
            found += f"[{'^' + inside[1:] if inside.startswith('!') else inside}]"
            at = end
        else:
            found += {"*": ".*", "?": "."}.get(char, f"\\{char}" if not char.isalnum() else char)
        at += 1
    return found + "$"


def _times(since: int, until: int) -> tuple[int | None, int | None]:
    return since or None, until or None


def _join(one: ErrorRecord, other: ErrorRecord) -> ErrorRecord:
    newer = max(one, other, key=lambda error: error["last"])
    return {**newer, "count": one["count"] + other["count"], "first": min(one["first"], other["first"])}


def _us(expression: str) -> str:
    """A time as microseconds since the epoch."""
    return f"(extract(epoch FROM {expression}) * 1000000)::bigint"


HOUR = 3_600_000_000
_SINCE = "coalesce(to_timestamp(%s::double precision / 1000000), '-infinity')"
_UNTIL = "coalesce(to_timestamp(%s::double precision / 1000000), 'infinity')"
"""A time in microseconds, or none. A constant to the planner, which then plans for no chunk that lies beyond; the sum of a time and an
interval is none."""
POINTS = {
    "events": ("event", "events", "level, message, context"),
    "metrics": ("metric", "metrics", "name, value, unit, kind, tags"),
    "progress": ("progress", "progress", "job_id, percent, status"),
    "resources": ("resource", "resources", "cpu, mem, disk, net"),
}
"""Where a trace has its messages -> their type, their table, and that table's own columns."""
_JOBS = f"""
    SELECT job_id, trace_id, percent, coalesce(status, '') AS status, service, {_us("first")} AS first,
        {_us("last_progress")} AS last_progress,
        CASE
            WHEN status IN ('done', 'failed', 'cancelled') THEN status
            WHEN gone THEN 'gone'
            WHEN EXISTS (
                SELECT FROM traces AS t WHERE t.trace_id = j.trace_id AND t.last >= j.last_progress
            ) THEN 'unfinished'
            WHEN stalled THEN 'stalled'
            ELSE 'running'
        END AS state
    FROM jobs AS j
"""
_ENDED = "SELECT trace_id, services, errors FROM traces WHERE trace_id = ANY(%s)"
_PERCENTS = f"""
    SELECT trace_id, job_id, percent, {_us("time")} AS ts FROM progress
    WHERE trace_id = ANY(%s) AND time >= {_SINCE} AND time < {_UNTIL}
"""
_FIND = """
    SELECT trace_id FROM (
        SELECT trace_id FROM traces WHERE left(trace_id, length(%s)) = %s
        UNION SELECT trace_id FROM progress WHERE left(job_id, length(%s)) = %s
        UNION SELECT trace_id FROM progress WHERE left(trace_id, length(%s)) = %s
        UNION SELECT trace_id FROM span_starts WHERE left(trace_id, length(%s)) = %s
    ) AS found WHERE trace_id IS NOT NULL ORDER BY trace_id LIMIT %s
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
_SERIES = f"""
    SELECT name, service, coalesce(unit, '') AS unit, count(*) AS count, avg(value) AS mean, min(value) AS least,
        max(value) AS greatest
    FROM metrics WHERE {_WITHIN} AND abs(value) < 1e300
    GROUP BY name, service, unit ORDER BY name, service, unit
"""
_EVENT = f"""
    SELECT {_us("time")} AS ts, service, host, pid, trace_id, span_id, level, message, context, client, seq FROM events
"""
_EVENT_KEY = """(CASE WHEN seq IS NULL THEN service || ':' || left(message, 200)
    ELSE coalesce(client, '') || ':' || lpad(seq::text, 16, '0') END COLLATE "C")"""
_ERRORS = f"""
    SELECT service, (array_agg(message ORDER BY time DESC))[1] AS message, count(*) AS count, {_us("min(time)")} AS first,
        {_us("max(time)")} AS last, coalesce((array_agg(trace_id ORDER BY time DESC))[1], '') AS trace_id
    FROM events
    WHERE level IN ('error', 'critical') AND time >= {_SINCE} AND time < {_UNTIL}
    GROUP BY service, regexp_replace(left(message, 128), '[0-9]+', '*', 'g') ORDER BY max(time) DESC LIMIT %s
"""
_SERVICES = f"""
    SELECT service, type, level, count(*) AS count, {_us("min(time)")} AS first, {_us("max(time)")} AS last
    FROM timeline WHERE time >= {_SINCE} AND time < {_UNTIL} GROUP BY service, type, level
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
