"""The one statement that stores a batch and moves the cursor. Pure.

The batch's raw lines become one literal, and the server makes rows of it: no message is looked at here. One statement is
one transaction, in one exchange with the server; it stores nothing where the cursor can't be moved.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

REPLACEMENT = rb"\ufffd"
_NUL_OR_SURROGATE = re.compile(rb"(?i)\\u0000|\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|\\ud[89a-f][0-9a-f]{2}|\\.")


@dataclass(frozen=True)
class Table:
    """Where the messages of one type go: column -> what of the line it is."""

    name: str
    columns: dict[str, str]


# A line's fields are taken as they are named here, by `json_to_recordset`. What only some types have is text at first: a
# line of another type may have a field of its own by that name, and whatever in it.
_COMMON = {
    "ts": "bigint", "service": "text", "host": "text", "pid": "bigint", "trace_id": "text", "span_id": "text",
    "client": "text", "seq": "bigint", "truncated": "boolean", "type": "text",
}  # fmt: skip
_JSON = {"context", "tags", "counts", "services"}
_HEAD = {
    "time": "timestamptz 'epoch' + ts * interval '1 microsecond'", "service": "service", "host": "host", "pid": "pid",
    "trace_id": "trace_id", "span_id": "span_id", "client": "client", "seq": "seq",
    "truncated": "truncated",
}  # fmt: skip
_FIELDS = {
    "event": ("level", "message", "context"),
    "metric": ("name", "value", "unit", "kind", "tags"),
    "progress": ("job_id", "percent", "status"),
    "resource": ("cpu", "mem", "disk", "net"),
    "span_start": ("name", "parent_id", "tags"),
    "span_end": ("name", "parent_id", "status", "start", "duration", "tags"),
    "trace": ("first", "last", "services", "counts", "errors", "status", "part"),
}


def _doubles(*names: str) -> dict[str, str]:
    return {name: f"{name}::float8" for name in names}


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


TABLES = {
    "event": Table("events", _HEAD | _same("level", "message", "context")),
    "metric": Table(
        "metrics", _HEAD | _same("name", "unit", "tags") | _doubles("value") | {"kind": "coalesce(kind, 'gauge')"}
    ),
    "progress": Table("progress", _HEAD | _same("job_id", "status") | _doubles("percent")),
    "resource": Table("resources", _HEAD | _doubles("cpu", "mem", "disk", "net")),
    "span_start": Table("span_starts", _HEAD | _same("name", "parent_id", "tags")),
    "span_end": Table(
        "spans",
        _HEAD
        | _same("name", "parent_id", "status", "tags")
        | {
            "start": "timestamptz 'epoch' + start::bigint * interval '1 microsecond'",
            "duration": "duration::float8 / 1e6",
        },
    ),
}
"""By the message's type; `trace` is apart."""

# The parts of a trace that are in one batch are added up first: a statement can't touch a row twice. All statements touch
# the rows in one order, so that those of two sidecars do not wait for each other.
_TRACES = """
    INSERT INTO traces AS t (time, service, client, seq, trace_id, first, last, services, counts, errors, status, part)
    SELECT timestamptz 'epoch' + max(ts) * interval '1 microsecond', min(service), min(client), max(seq), trace_id,
        timestamptz 'epoch' + min(first::bigint) * interval '1 microsecond',
        timestamptz 'epoch' + max(last::bigint) * interval '1 microsecond',
        sum_services(ARRAY(SELECT jsonb_array_elements_text(services)) ORDER BY ts), sum_counts(counts),
        sum(errors::bigint), sum_status(status), max(part::bigint)
    FROM lines WHERE type = 'trace' GROUP BY trace_id ORDER BY trace_id
    ON CONFLICT (trace_id) DO UPDATE SET
        time = greatest(t.time, excluded.time), client = excluded.client, seq = excluded.seq,
        first = least(t.first, excluded.first), last = greatest(t.last, excluded.last),
        services = add_services(t.services, excluded.services), counts = add_counts(t.counts, excluded.counts),
        errors = t.errors + excluded.errors, status = add_status(t.status, excluded.status),
        part = greatest(t.part, excluded.part)
"""

# What `jobs` shows: the latest progress of each job, by time and then by seq, and when it was last said to have stalled or to be gone. It
# comes from lines of progress, from what was already added up, and from events of the sidecar's own.
_JOB = {
    "job_id": "text", "trace_id": "text", "first": "bigint", "last": "bigint", "last_seq": "bigint", "percent": "float8",
    "service": "text", "status": "text", "status_time": "bigint", "status_seq": "bigint", "messages": "bigint", "stalled": "bigint",
    "gone": "bigint",
}  # fmt: skip
_PROGRESS = """
    SELECT job_id, trace_id, ts, ts, coalesce(seq, 0), percent::float8, service, status,
        CASE WHEN status IS NOT NULL THEN ts END, CASE WHEN status IS NOT NULL THEN coalesce(seq, 0) END, 1, NULL::bigint,
        NULL::bigint
    FROM lines WHERE type = 'progress'
"""
_STALLED = """
    SELECT context ->> 'job_id', trace_id, NULL::bigint, NULL::bigint, NULL::bigint, NULL::float8, NULL, NULL, NULL::bigint,
        NULL::bigint, 0, CASE context ->> 'kind' WHEN 'job_stalled' THEN ts END, CASE context ->> 'kind' WHEN 'gone' THEN ts END
    FROM lines WHERE type = 'event' AND service = 'wafermon' AND context ->> 'kind' IN ('job_stalled', 'gone')
    AND context ->> 'job_id' IS NOT NULL
"""
_LATER = "j.last IS NULL OR (excluded.last, excluded.last_seq) >= (j.last, j.last_seq)"
_LATER_STATUS = "j.status IS NULL OR (excluded.status_time, excluded.status_seq) >= (j.status_time, j.status_seq)"
_LATEST = ", ".join(
    f"{name} = CASE WHEN {later} THEN excluded.{name} ELSE j.{name} END"
    for later, names in ((_LATER, "last last_seq percent service"), (_LATER_STATUS, "status status_time status_seq"))
    for name in names.split()
)
_JOBS = f"""
    INSERT INTO job_states AS j ({", ".join(_JOB)})
    SELECT job_id, trace_id, timestamptz 'epoch' + min(first) * interval '1 microsecond',
        timestamptz 'epoch' + max(last) * interval '1 microsecond',
        (array_agg(last_seq ORDER BY last DESC, last_seq DESC) FILTER (WHERE last IS NOT NULL))[1],
        (array_agg(percent ORDER BY last DESC, last_seq DESC) FILTER (WHERE last IS NOT NULL))[1],
        (array_agg(service ORDER BY last DESC, last_seq DESC) FILTER (WHERE last IS NOT NULL))[1],
        (array_agg(status ORDER BY status_time DESC, status_seq DESC) FILTER (WHERE status IS NOT NULL))[1],
        timestamptz 'epoch' + max(status_time) * interval '1 microsecond',
        (array_agg(status_seq ORDER BY status_time DESC, status_seq DESC) FILTER (WHERE status IS NOT NULL))[1],
        sum(messages), timestamptz 'epoch' + max(stalled) * interval '1 microsecond',
        timestamptz 'epoch' + max(gone) * interval '1 microsecond'
    FROM (@) AS said ({", ".join(_JOB)})
    GROUP BY job_id, trace_id ORDER BY job_id, trace_id
    ON CONFLICT (job_id, (coalesce(trace_id, ''))) DO UPDATE SET
        first = least(j.first, excluded.first), messages = j.messages + excluded.messages,
        stalled = greatest(j.stalled, excluded.stalled), gone = greatest(j.gone, excluded.gone), {_LATEST}
"""

KINDS = frozenset({*TABLES, "trace"})
"""The types of message that have a table."""


def store(raw: bytes, count: int, types: Iterable[str], move: bytes, jobs: bytes = b"") -> bytes:
    """`move` is an UPDATE that touches one row or none. The statement answers with that number; it stores the `count`
    lines of `raw`, which are of these types, only if it is one. `jobs` are lines too, one for each job whose progress is
    stored elsewhere in the same transaction: what is known of it by that, under the names of `job_states`, with times in
    microseconds."""
    types = sorted(types) if count else []
    parts: list[bytes | memoryview] = [b"WITH moved AS (%b RETURNING 1)" % move]
    if types:
        known = _COMMON | {name: "jsonb" if name in _JSON else "text" for kind in types for name in _FIELDS[kind]}
        inserts = ", ".join(f"{kind}_rows AS ({_insert(kind)})" for kind in types)
        lines = _recordset("line", raw, known)
        parts += [b", lines AS MATERIALIZED (SELECT line.* FROM ", *lines, f"), {inserts}".encode()]
    said: list[list[bytes | memoryview]]
    said = [[sql.encode()] for kind, sql in (("progress", _PROGRESS), ("event", _STALLED)) if kind in types]
    if jobs:
        said.append([b"SELECT given.* FROM ", *_recordset("given", jobs, _JOB)])
    if said:
        before, after = _JOBS.encode().split(b"@")
        others = (part for one in said[1:] for part in (b" UNION ALL ", *one))
        parts += [b", job_rows AS (", before, *said[0], *others, after, b")"]
    return b"".join([*parts, b" SELECT count(*) FROM moved"])


def _recordset(name: str, lines: bytes, columns: dict[str, str]) -> list[bytes | memoryview]:
    """For FROM: lines as rows of these columns, if the cursor is moved."""
    types = ", ".join(f"{column} {kind}" for column, kind in columns.items())
    return [b"moved, json_to_recordset(", *literal(lines), f") AS {name}({types})".encode()]


def _insert(kind: str) -> str:
    if kind == "trace":
        return _TRACES
    table = TABLES[kind]
    names, values = ", ".join(table.columns), ", ".join(table.columns.values())
    return f"INSERT INTO {table.name} ({names}) SELECT {values} FROM lines WHERE type = '{kind}'"


def literal(raw: bytes) -> tuple[bytes | memoryview, ...]:
    """Lines of JSON, each ended by a newline -> the pieces of an SQL literal of one JSON array. A newline is only ever
    between lines, since JSON has it escaped in strings, and a dollar-quoted text is taken as it stands up to its tag,
    which nobody can know beforehand."""
    lines = clean(raw).replace(b"\n", b",")
    tag = b"$w%b$" % secrets.token_hex(8).encode()
    while b"$" in lines and tag in lines:  # the first of these takes no time, the second does
        tag = b"$w%b$" % secrets.token_hex(8).encode()
    return tag, b"[", memoryview(lines)[:-1], b"]", tag


def clean(raw: bytes) -> bytes:
    """The same with U+FFFD for every escape that PostgreSQL can't store: NUL, and half of a surrogate pair. The receiver
    lets none of them in; what comes by other ways must not cost a batch."""
    if b"\\" not in raw or not (rb"\u0000" in raw or rb"\ud" in raw or rb"\uD" in raw):
        return raw
    return _NUL_OR_SURROGATE.sub(lambda found: REPLACEMENT if _refused(found[0]) else found[0], raw)


def _refused(escape: bytes) -> bool:
    """Whether it is one that can't be stored; ``\\\\`` and other escapes are matched so that their second half begins none."""
    return len(escape) == 6
