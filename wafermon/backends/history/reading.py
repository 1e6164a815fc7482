"""Asking a directory of history, while a sidecar writes it or none runs. Blocks; every call opens the files anew.

Lists go from the latest to the earliest. What one file says is exact; over several files a job's latest row has all of its
past, since it continues the earlier ones.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from heapq import merge
from pathlib import Path
from typing import Any, NamedTuple

from wafermon.backends.history.codec import CannotRead, decompress
from wafermon.backends.history.days import Day, NotHistory, days_in, open_to_read
from wafermon.backends.history.seen import HOUR
from wafermon.model.asking import (
    CannotAsk,
    ErrorFilter,
    EventFilter,
    Found,
    JobFilter,
    Page,
    Place,
    error_place,
    event_place,
    job_key,
    job_place,
    page_of,
)
from wafermon.model.messages import LEVELS, decode_object, dumps, loads
from wafermon.model.records import (
    ErrorRecord,
    EventRecord,
    JobRecord,
    KindRecord,
    PointRecord,
    Series,
    ServiceRecord,
    SpanRecord,
    TraceRecord,
)
from wafermon.model.span_tree import tree

PATIENCE = 5.0
"""Seconds that one question may take; then the answer says how far it came."""
CHUNKS_OF_TRACE = 1_000
"""The most chunks that are read for one trace, the latest ones."""
KINDS = {"event": "events", "metric": "metrics", "progress": "progress", "resource": "resources"}


class File(NamedTuple):
    """One file, open."""

    day: Day
    db: sqlite3.Connection


class Chunk(NamedTuple):
    """Where one stands in the order of its latest message."""

    last: int
    first: int
    id: int
    file: File


class Reader:
    """One directory. Its methods may be called in several threads at a time."""

    def __init__(
        self,
        directory: Path,
        *,
        patience: float = PATIENCE,
        stopped: Callable[[], bool] = lambda: False,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """`stopped`: whether the answer is of no use any more; a call then ends soon, with what it has."""
        self.directory = directory
        self._patience = patience
        self._stopped = stopped
        self._seconds = seconds
        self.unread: Sequence[str] = ()
        """Which files could not be read for the question that was asked last, and why: an answer is without what they hold."""

    # -- jobs

    def jobs(self, wanted: JobFilter, page: Page) -> Found[JobRecord]:
        """Raises CannotAsk, as do all others."""
        with ExitStack() as stack:
            files = self._files(stack)
            replaced = _replaced(files)
            conditions = [_job_condition(wanted, replaced.get(str(file.day), ())) for file in files]
            rows = merge(
                *(_job_rows(file, later, *conditions[later], page) for later, file in enumerate(files)),
                key=lambda row: row[0],
                reverse=True,
            )
            found: list[JobRecord] = []
            more = False
            for _, job, later in rows:
                if not wanted.takes(job):
                    continue
                if len(found) == page.limit:
                    more = True
                    break
                found.append(_with_summary(job, files[max(0, later - 1) : later + 1]))
            total = sum(_count(file, *condition) for file, condition in zip(files, conditions, strict=True))
            return Found(found, more, total)

    def kinds(self, since: int, until: int) -> list[KindRecord]:
        """By the time that a job of it was last heard of, the latest first."""
        with ExitStack() as stack:
            files = self._files(stack)
            replaced = _replaced(files)
            known: dict[str, KindRecord] = {}
            for file in files:
                rows = file.db.execute(
                    "SELECT kind, state, count(*), max(last_progress) FROM jobs"
                    " WHERE last_progress >= ? AND last_progress < ? GROUP BY kind, state", (since, until or 2**62),
                )  # fmt: skip
                for kind, state, count, last in rows.fetchall():
                    _count_kind(known, kind, state, count, last)
                for key in replaced.get(str(file.day), ()):
                    row = file.db.execute(
                        f"{_JOB} WHERE trace_id = ? AND job_id = ?", tuple(key.split(" ", 1))
                    ).fetchone()
                    if row is not None and since <= row[8] < (until or 2**62):
                        _count_kind(known, row[2], row[6], -1, 0)
            return sorted(known.values(), key=lambda one: (one["last"], one["kind"]), reverse=True)

    # -- one trace

    def find(self, prefix: str, limit: int) -> list[str]:
        """The ids of traces that begin so, and of those whose jobs do, at most `limit`."""
        with ExitStack() as stack:
            found: set[str] = set()
            for file in self._files(stack):
                if len(found) >= limit:
                    break
                bounds = (prefix, prefix + "\x7f", limit)
                for table in ("trace_chunks", "jobs"):
                    column = "trace_id" if table == "trace_chunks" else "job_id"
                    found |= {
                        trace_id
                        for (trace_id,) in file.db.execute(
                            f"SELECT DISTINCT trace_id FROM {table} WHERE {column} >= ? AND {column} < ? LIMIT ?",
                            bounds,
                        )
                    }
            return sorted(found)[:limit]

    def trace(self, trace_id: str, messages: int) -> TraceRecord | None:
        """One trace, with at most so many messages of each type; with 0 no lines are read at all."""
        with ExitStack() as stack:
            files = [file for file in self._files(stack) if _has(file, trace_id)]
            if not files:
                return None
            parts = _parts(files, trace_id)
            points, counted, whole = self._messages(files, trace_id, messages)
            jobs = _jobs_of(files, trace_id)
            spans = _spans(files, trace_id)
            head = _head(trace_id, parts, counted, jobs)
            if messages and whole and not parts:
                head |= {"counts": counted.counts, "errors": counted.errors}
            left_out = {
                name: max(0, int(head["counts"].get(kind, 0)) - len(points[name])) for kind, name in KINDS.items()
            }
            whole_trace: Any = {
                **head,
                "jobs": jobs,
                "spans": spans,
                **points,
                "series": _series(files, trace_id),
                "left_out": {"spans": 0, **left_out},
            }
            found: TraceRecord = whole_trace
            return found

    def _messages(
        self, files: Sequence[File], trace_id: str, most: int
    ) -> tuple[dict[str, list[PointRecord]], _Counted, bool]:
        """The latest messages of each type in order of time; what was counted; whether every chunk was read."""
        points: dict[str, list[PointRecord]] = {name: [] for name in KINDS.values()}
        counted = _Counted()
        read = 0
        end = self._seconds() + self._patience
        needle = trace_id.encode()
        for file in files if most else ():
            ids = file.db.execute("SELECT chunk FROM trace_chunks WHERE trace_id = ? ORDER BY chunk DESC", (trace_id,))
            for (chunk,) in ids.fetchall():
                if read == CHUNKS_OF_TRACE or self._seconds() > end or self._stopped():
                    return _latest(points, most), counted, False
                read += 1
                for line in _lines(file, chunk):
                    if needle not in line and b"\\" not in line:
                        continue
                    message = decode_object(line)
                    if message.get("trace_id") == trace_id:
                        counted.take(message)
                        if name := KINDS.get(message["type"]):
                            points[name].append(_shown(message))
        return _latest(points, most), counted, True

    # -- messages of all traces

    def events(self, wanted: EventFilter, page: Page) -> Found[EventRecord]:
        """A chunk's messages are in no order of time: those that are found wait until no other chunk can hold a later one."""
        with ExitStack() as stack:
            files = self._files(stack)
            chunks = merge(*(_chunks(file, wanted, page) for file in files), key=lambda one: one.last, reverse=True)
            end = self._seconds() + self._patience
            waiting: list[EventRecord] = []
            read = False
            for chunk in chunks:
                ready = sum(event["ts"] > chunk.last for event in waiting)
                if ready > page.limit:
                    break
                if read and (self._seconds() > end or self._stopped()):
                    known = [event for event in waiting if event["ts"] > chunk.last]
                    found = page_of(known, Page(page.limit), event_place)
                    return Found(found.records, True, None, chunk.last + 1)
                read = True
                waiting += _events_in(chunk, wanted, page)
            found = page_of(waiting, Page(page.limit), event_place)
            return Found(found.records, found.more)

    def errors(self, wanted: ErrorFilter, page: Page) -> Found[ErrorRecord]:
        with ExitStack() as stack:
            known: dict[tuple[str, str], ErrorRecord] = {}
            for file in self._files(stack):
                rows = file.db.execute(
                    "SELECT service, pattern, message, sum(count), min(first), max(last), trace_id FROM errors"
                    " WHERE hour >= ? AND hour <= ? GROUP BY service, pattern", _hours(wanted.since, wanted.until),
                )  # fmt: skip
                for row in rows:
                    error = ErrorRecord(**dict(zip(_ERROR, row, strict=True)))  # type: ignore[typeddict-item]
                    key = (error["service"], error["pattern"])
                    known[key] = join_errors(known[key], error) if key in known else error
            return page_of(filter(wanted.takes, known.values()), page, error_place)

    def services(self, since: int, until: int) -> list[ServiceRecord]:
        """By name. Counts are of whole hours."""
        with ExitStack() as stack:
            known: dict[str, ServiceRecord] = {}
            for file in self._files(stack):
                rows = file.db.execute(
                    "SELECT service, what, sum(count), min(hour), max(hour) FROM hours WHERE hour >= ? AND hour <= ?"
                    " AND what NOT IN ('trace', 'stats') GROUP BY service, what", _hours(since, until),
                )  # fmt: skip
                for service, what, count, first, last in rows:
                    one = known.setdefault(
                        service, {"service": service, "first": first * HOUR, "last": last * HOUR, "counts": {}}
                    )
                    one["first"], one["last"] = min(one["first"], first * HOUR), max(one["last"], last * HOUR)
                    one["counts"][what] = one["counts"].get(what, 0) + count
                    if what.startswith("level."):
                        one["counts"]["event"] = one["counts"].get("event", 0) + count
            return sorted(known.values(), key=lambda one: one["service"])

    # -- files

    def _files(self, stack: ExitStack) -> list[File]:
        """All that can be read, the latest first; `unread` names the others. What is removed meanwhile is left out."""
        found, unread = list[File](), list[str]()
        try:
            days = days_in(self.directory)
        except OSError as error:
            raise CannotAsk(f"{self.directory}: {error.strerror}; name a directory of history") from None
        for day in reversed(days):
            try:
                db = stack.enter_context(closing(open_to_read(self.directory / str(day))))
            except FileNotFoundError:
                continue
            except NotHistory as error:
                unread.append(str(error))
                continue
            except (OSError, sqlite3.Error) as error:
                unread.append(f"{self.directory / str(day)} can't be read: {getattr(error, 'strerror', None) or error}")
                continue
            found.append(File(day, db))
        self.unread = tuple(unread)
        if not found and (unread or not self.directory.is_dir()):
            raise CannotAsk(unread[-1] if unread else f"{self.directory} is not there; name a directory of history")
        return found


class _Counted:
    """What the lines of a trace say together."""

    def __init__(self) -> None:
        self.first = self.last = 0
        self.services: dict[str, None] = {}
        self.counts: dict[str, int] = {}
        self.errors = 0

    def take(self, message: dict[str, Any]) -> None:
        if message["service"] == "wafermon":
            return
        ts, kind = message["ts"], message["type"]
        self.first = min(self.first or ts, ts)
        self.last = max(self.last, ts)
        self.services.setdefault(message["service"])
        keys = [kind, f"level.{message['level']}"] if kind == "event" else [kind]
        for key in keys:
            self.counts[key] = self.counts.get(key, 0) + 1
        self.errors += message.get("level") in ("error", "critical") or message.get("status") == "error"


# -- jobs

_JOB = "SELECT trace_id, job_id, kind, service, percent, status, state, first, last_progress, shape FROM jobs"


def _job_condition(wanted: JobFilter, replaced: Iterable[str]) -> tuple[str, list[Any]]:
    """The filter as SQL. `replaced`: the keys of those jobs of a file that are not looked at there.

    What leaves jobs out is a part of it, too: what is done for each row in Python keeps all other threads waiting."""
    parts, values = ["1"], list[Any]()
    for condition, value in (
        ("last_progress >= ?", wanted.since),
        ("last_progress < ?", wanted.until),
        ("kind = ?", wanted.kind),
        ("service GLOB ?", _glob(wanted.service)),
        ("job_id GLOB ?", _glob(wanted.name)),
    ):
        if value:
            parts.append(condition)
            values.append(value)
    if wanted.traces:
        parts.append("trace_id IN (SELECT value FROM json_each(?))")
        values.append(dumps(sorted(wanted.traces)))
    if wanted.states:
        states = sorted(wanted.states)
        parts.append(f"state IN ({', '.join('?' * len(states))})")
        values += states
    if left_out := wanted.without.union(replaced):
        parts.append("trace_id || ' ' || job_id NOT IN (SELECT value FROM json_each(?))")
        values.append(dumps(list(left_out)))
    return " AND ".join(parts), values


def _count(file: File, where: str, values: Sequence[Any]) -> int:
    [count] = file.db.execute(f"SELECT count(*) FROM jobs WHERE {where}", values).fetchone()
    return int(count)


def _count_kind(known: dict[str, KindRecord], kind: str, state: str, count: int, last: int) -> None:
    one = known.setdefault(kind, {"kind": kind, "runs": 0, "last": 0, "states": {}})
    one["runs"] += count
    one["last"] = max(one["last"], last)
    one["states"][state] = one["states"].get(state, 0) + count


def _glob(pattern: str) -> str:
    """As fnmatch writes it -> as SQLite does."""
    return pattern.replace("[!", "[^")


def _replaced(files: Iterable[File]) -> dict[str, set[str]]:
    """File -> the keys of those of its jobs that a later file has the rest of."""
    found: dict[str, set[str]] = {}
    for file in files:
        for name, trace_id, job_id in file.db.execute(
            "SELECT continues, trace_id, job_id FROM jobs WHERE continues IS NOT NULL"
        ):
            found.setdefault(name, set()).add(job_key(trace_id, job_id))
    return found


def _job_rows(
    file: File, later: int, where: str, values: Sequence[Any], page: Page
) -> Iterator[tuple[Place, JobRecord, int]]:
    """Place, job, and how many files are later."""
    if page.after is not None:
        where, values = f"{where} AND last_progress <= ?", [*values, page.after.time]
    rows = file.db.execute(f"{_JOB} WHERE {where} ORDER BY last_progress DESC, trace_id DESC, job_id DESC", values)
    for row in rows:
        job = _job(row)
        place = job_place(job)
        if page.follows(place):
            yield place, job, later


def _job(row: Sequence[Any]) -> JobRecord:
    trace_id, job_id, kind, service, percent, status, state, first, last_progress, reached = row
    return {
        "job_id": job_id, "trace_id": trace_id, "kind": kind, "percent": percent, "status": status, "state": state,
        "service": service, "services": [], "errors": 0, "first": first, "last_progress": last_progress,
        "stalled": state == "stalled", "gone": state == "gone", "reached": loads(reached), "eta": None,
    }  # fmt: skip


def _with_summary(job: JobRecord, files: Iterable[File]) -> JobRecord:
    """With what the sidecar had counted when the trace ended."""
    for file in files:
        for errors, services in file.db.execute(
            "SELECT errors, services FROM traces WHERE trace_id = ? ORDER BY part", (job["trace_id"],)
        ):
            job["errors"] += errors
            job["services"] = list(dict.fromkeys([*job["services"], *loads(services)]))
    return job


# -- one trace


def _has(file: File, trace_id: str) -> bool:
    return file.db.execute("SELECT 1 FROM trace_chunks WHERE trace_id = ? LIMIT 1", (trace_id,)).fetchone() is not None


def _parts(files: Iterable[File], trace_id: str) -> list[dict[str, Any]]:
    """The sidecar's summaries, by part."""
    found: dict[int, dict[str, Any]] = {}
    for file in files:
        rows = file.db.execute(
            "SELECT part, first, last, status, errors, services, counts FROM traces WHERE trace_id = ?", (trace_id,)
        )
        for part, first, last, status, errors, services, counts in rows:
            found[part] = {
                "part": part, "first": first, "last": last, "status": status, "errors": errors,
                "services": loads(services), "counts": loads(counts),
            }  # fmt: skip
    return [found[part] for part in sorted(found)]


def _head(trace_id: str, parts: list[dict[str, Any]], counted: _Counted, jobs: list[JobRecord]) -> dict[str, Any]:
    if parts:
        goes_on = counted.last > parts[-1]["last"] and any(job["state"] in ("running", "stalled") for job in jobs)
        return {"trace_id": trace_id, **parts[-1], **({"status": "running"} if goes_on else {})}
    first = counted.first or min((job["first"] for job in jobs), default=0)
    last = counted.last or max((job["last_progress"] for job in jobs), default=0)
    return {
        "trace_id": trace_id, "part": 1, "status": "running", "first": first, "last": last,
        "services": list(counted.services) or sorted({job["service"] for job in jobs}), "counts": counted.counts,
        "errors": counted.errors,
    }  # fmt: skip


def _jobs_of(files: Sequence[File], trace_id: str) -> list[JobRecord]:
    found: dict[str, JobRecord] = {}
    for file in files:  # the latest first: it has all
        for row in file.db.execute(f"{_JOB} WHERE trace_id = ?", (trace_id,)):
            job = _job(row)
            found.setdefault(job["job_id"], job)
    return sorted((_with_summary(job, files) for job in found.values()), key=lambda job: (job["first"], job["job_id"]))


def _spans(files: Iterable[File], trace_id: str) -> list[SpanRecord]:
    found: dict[str, dict[str, Any]] = {}
    for file in files:
        rows = file.db.execute(
            "SELECT span_id, parent_id, name, service, start, duration, status FROM spans WHERE trace_id = ?",
            (trace_id,),
        )
        for row in rows:
            span = dict(
                zip(("span_id", "parent_id", "name", "service", "start", "duration", "status"), row, strict=True)
            )
            known = found.get(span["span_id"])
            if known is None or (known["duration"] is None and (span["duration"] is not None or span["status"])):
                found[span["span_id"]] = span
    return list(tree(found.values()))  # type: ignore[arg-type]


def _series(files: Iterable[File], trace_id: str) -> list[Series]:
    found: dict[tuple[str, str, str], list[float]] = {}
    for file in files:
        rows = file.db.execute(
            "SELECT name, service, unit, count, total, least, greatest FROM series WHERE trace_id = ?", (trace_id,)
        )
        for name, service, unit, count, total, least, greatest in rows:
            known = found.setdefault((name, service, unit), [0, 0.0, least, greatest])
            known[:] = [known[0] + count, known[1] + total, min(known[2], least), max(known[3], greatest)]
    return [
        {
            "name": name, "service": service, "unit": unit, "count": int(count), "mean": _finite(total / count),
            "least": least, "greatest": greatest,
        }
        for (name, service, unit), (count, total, least, greatest) in sorted(found.items())
    ]  # fmt: skip


def _finite(value: float) -> float:
    """JSON has no infinity, and sums may become one."""
    return max(-sys.float_info.max, min(sys.float_info.max, value))


def _latest(points: dict[str, list[PointRecord]], most: int) -> dict[str, list[PointRecord]]:
    return {name: sorted(given, key=event_place_of)[-most:] if most else [] for name, given in points.items()}


def event_place_of(message: PointRecord) -> tuple[int, str, int]:
    """In order of time, then of the stream."""
    return message["ts"], str(message.get("client", "")), int(message.get("seq", 0))


def _shown(message: dict[str, Any]) -> dict[str, Any]:
    """What was sent, without what all have in common."""
    return {key: value for key, value in message.items() if key not in ("v", "type", "trace_id")}


# -- chunks


def _lines(file: File, chunk: int) -> list[bytes]:
    row = file.db.execute("SELECT data FROM chunks WHERE id = ?", (chunk,)).fetchone()
    try:
        return decompress(row[0]).split(b"\n")[:-1] if row else []
    except CannotRead as error:
        raise CannotAsk(f"{file.day}: {error}") from None


def _chunks(file: File, wanted: EventFilter, page: Page) -> Iterator[Chunk]:
    """Those that may hold what is wanted, by their latest message."""
    least = LEVELS.index(wanted.level) if wanted.level else 0
    parts, values = ["worst >= ?"], list[Any]([least])
    for condition, value in (
        ("last >= ?", wanted.since),
        ("first < ?", wanted.until),
        ("id IN (SELECT chunk FROM trace_chunks WHERE trace_id = ?)", wanted.trace_id),
        ("id IN (SELECT chunk FROM service_chunks WHERE service GLOB ?)", _glob(wanted.service)),
        ("first <= ?", page.after.time if page.after else 0),
    ):
        if value:
            parts.append(condition)
            values.append(value)
    for key, value in wanted.context.items():
        parts.append(
            "(id IN (SELECT chunk FROM context_chunks WHERE key = ? AND value = ?) OR NOT EXISTS (SELECT 1 FROM indexed AS i"
            " WHERE i.key = ? AND i.since <= id AND (i.until IS NULL OR i.until > id)))"
        )
        values += [key, value[:128], key]
    order = f"SELECT last, first, id FROM chunks WHERE {' AND '.join(parts)} ORDER BY last DESC"
    for last, first, number in file.db.execute(order, values).fetchall():
        yield Chunk(last, first, number, file)


def _events_in(chunk: Chunk, wanted: EventFilter, page: Page) -> Iterator[EventRecord]:
    needles = [b'"event"']
    if wanted.trace_id:
        needles.append(wanted.trace_id.encode())
    text = wanted.text.lower().encode() if wanted.text.isascii() else b""
    for line in _lines(chunk.file, chunk.id):
        escaped = b"\\" in line  # then a text may stand there in other letters
        if not escaped and not all(needle in line for needle in needles):
            continue
        if text and not escaped and text not in line.lower():
            continue
        message = decode_object(line)
        if message["type"] != "event":
            continue
        message.pop("type")
        message.pop("v", None)
        if wanted.takes(message) and page.follows(event_place(message)):
            yield message


# -- roll-ups

_ERROR = ("service", "pattern", "message", "count", "first", "last", "trace_id")


def join_errors(one: ErrorRecord, other: ErrorRecord) -> ErrorRecord:
    """Two counts of one kind of error."""
    newer = max(one, other, key=lambda error: error["last"])
    return {
        **newer,
        "count": one["count"] + other["count"],
        "first": min(one["first"], other["first"]),
    }


def _hours(since: int, until: int) -> tuple[int, int]:
    return since // HOUR, (until - 1) // HOUR if until else 2**62
