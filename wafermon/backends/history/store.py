"""Writing: each batch is one transaction in one file, and the position that it ends at is a row of it. Blocks.

A position is known by its `serial`, which counts the transactions over all files. So the latest one is found whatever the
names of the files say: a clock may have been wrong when one was named. Files are removed whole, the oldest first, but never
the one that has the latest position.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from wafermon.backends.history.codec import compressor
from wafermon.backends.history.days import (
    BESIDE,
    UNFINISHED,
    Day,
    NotHistory,
    day_of,
    days_in,
    make,
    open_to_read,
    open_to_write,
    seal,
)
from wafermon.backends.history.shape import Chunk, Job, Rows, new_job, shape
from wafermon.files import Files
from wafermon.interfaces import Batch, Position, PositionMoved
from wafermon.model.kinds import ANY, Kinds, kind_of_root
from wafermon.model.messages import Progress, dumps, loads
from wafermon.wire.sums import summer

LOCK = "lock"
DAMAGED = ".damaged"
"""What a file that can't be read is renamed to end with."""
PARTS = 4
"""A file is ended at this share of the quota, so that a quarter is removed at a time."""
ERRORS_MOST = 50_000
"""Kinds of errors that one file tells apart."""


class InUse(OSError):
    """Another process writes this history."""


@dataclass
class Current:
    """The file that is written."""

    day: Day
    path: Path
    db: sqlite3.Connection
    inode: int
    errors: int = 0
    """How many kinds of errors it has, as far as is known."""
    earlier: Day | None = None
    """The file before it, and that file to read; None where there is none, or none that can be read."""
    earlier_db: sqlite3.Connection | None = None

    def let_go_of_earlier(self) -> None:
        if self.earlier_db is not None:
            self.earlier_db.close()
        self.earlier = self.earlier_db = None


class Store:
    """One directory. Every method belongs to one thread."""

    def __init__(
        self,
        directory: Path,
        *,
        keep: float,
        max_bytes: int,
        index: Sequence[str],
        kinds: Kinds,
        compress: str,
        wall: Callable[[], float],
        files: Files | None = None,
    ) -> None:
        """`keep` is seconds; 0 is no limit for it and for `max_bytes`."""
        self.directory = directory
        self.note = ""
        """What a person should know; empty where all is well."""
        self.stored = 0
        """Messages since the start."""
        self.removed = 0
        """Files since the start."""
        self.bytes = 0
        """Of all files, as far as is known."""
        self._keep = keep
        self._max_bytes = max_bytes
        self._index = tuple(index)
        self._kinds = kinds
        self._compress_as = compress
        self._compress: Callable[[bytes], bytes] = compressor(compress)
        self._summer = summer()
        self._wall = wall
        self._files = files or Files()
        self._lock = -1
        self._current: Current | None = None
        self._sizes: dict[Day, int] = {}
        """Of the files that are not written."""
        self._latest: Day | None = None
        """The file with the latest position."""
        self._serial = 0
        self._reached: Position | None = None

    # -- life

    def open(self) -> Position | None:
        """Get ready, and answer with the position that was reached. Raises OSError, sqlite3.Error."""
        self._let_go()
        self.note = ""
        self._files.ensure_directory(self.directory)
        self._take_lock()
        self._serial, self._reached, self._latest = 0, None, None
        self._sizes = {}
        for left in self.directory.glob(f"*.db{UNFINISHED}*"):
            self._files.unlink(left)
        for day in days_in(self.directory):
            self._look_at(day)
        self._tidy()
        return self._reached

    def close(self) -> None:
        self._let_go()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _let_go(self) -> None:
        if self._current is not None:
            current, self._current = self._current, None
            current.let_go_of_earlier()
            current.db.close()
            self._sizes[current.day] = _size(current.path)

    def _take_lock(self) -> None:
        if self._lock >= 0:
            return
        path = self.directory / LOCK
        fd = self._files.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise InUse(0, "another sidecar writes this history; give each a dir of its own", str(path)) from None
        self._lock = fd

    def _look_at(self, day: Day) -> None:
        """Read how far a file goes. One that is damaged is set aside; it is not read any more, and not removed."""
        path = self.directory / str(day)
        try:
            with closing(open_to_read(path)) as db:
                serial, position = db.execute("SELECT serial, position FROM reached").fetchone()
        except NotHistory as error:
            raise OSError(0, str(error).partition(": ")[2], str(path)) from None
        except (sqlite3.OperationalError, FileNotFoundError):
            raise  # locked, or the disk: that passes
        except (sqlite3.DatabaseError, TypeError) as error:
            self._set_aside(path, str(error))
            return
        self._sizes[day] = _size(path)
        if position is not None and serial > self._serial:
            self._serial, self._reached, self._latest = serial, Position.parse(position), day

    def _set_aside(self, path: Path, why: str) -> None:
        for end in BESIDE:
            if os.path.lexists(f"{path}{end}"):
                self._files.rename(f"{path}{end}", f"{path}{end}{DAMAGED}")
        self._files.sync_directory(self.directory)
        self.note = f"{path} is damaged ({why}) and was set aside as {path.name}{DAMAGED}: restore it from a backup, or delete it"

    # -- writing

    def write(self, batch: Batch) -> None:
        """Raises OSError, sqlite3.Error, PositionMoved; nothing of the batch is stored then."""
        received = batch.received[1] or int(self._wall() * 1e6)
        rows = shape(batch.block, self._index, self._summer)
        data = [self._compress(chunk.block.raw) for chunk in rows.chunks]
        current = self._file_for(day_of(received))
        db = current.db
        db.execute("BEGIN IMMEDIATE")
        try:
            self._check_position(current)
            if batch.count:
                self._insert_chunks(db, rows.chunks, data, received)
                self._insert(current, rows)
            db.execute("UPDATE reached SET serial = ?, position = ?", (self._serial + 1, str(batch.end)))
            db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise
        self._serial += 1
        self._reached, self._latest = batch.end, current.day
        self.stored += batch.count
        self._tidy()

    def _check_position(self, current: Current) -> None:
        """An earlier state of the directory that is put back is noticed."""
        try:
            replaced = os.stat(current.path).st_ino != current.inode
        except FileNotFoundError:
            replaced = True
        if replaced:
            raise PositionMoved(f"{current.path} was replaced or removed while it was written")
        if self._latest == current.day:
            serial, position = current.db.execute("SELECT serial, position FROM reached").fetchone()
            if serial != self._serial:
                raise PositionMoved(f"{current.path} was set back, from {self._reached} to {position}")

    def _file_for(self, day: date) -> Current:
        """The file of a day, or its latest part where it grew too large."""
        current = self._current
        if current is not None and current.day.day == day:
            if not (self._max_bytes and _size(current.path) > self._max_bytes // PARTS):
                return current
            wanted = Day(day, current.day.part + 1)
        else:
            wanted = max((one for one in self._sizes if one.day == day), default=Day(day))
            if self._max_bytes and self._sizes.get(wanted, 0) > self._max_bytes // PARTS:
                wanted = Day(day, wanted.part + 1)
        if current is not None:
            self._current = None
            current.let_go_of_earlier()
            seal(current.db)
            self._sizes[current.day] = _size(current.path)
        path = self.directory / str(wanted)
        if not os.path.lexists(path):
            make(path, self._files)
        db = open_to_write(path)
        self._sizes.pop(wanted, None)
        self._note_index(db)
        [errors] = db.execute("SELECT count(*) FROM errors").fetchone()
        self._current = current = Current(wanted, path, db, os.stat(path).st_ino, errors)
        self._open_earlier(current)
        return current

    def _note_index(self, db: sqlite3.Connection) -> None:
        """Since which chunk, and until which, the values of a key are looked up."""
        db.execute("BEGIN IMMEDIATE")
        [next_chunk] = db.execute("SELECT coalesce(max(id), 0) + 1 FROM chunks").fetchone()
        known = {key for (key,) in db.execute("SELECT key FROM indexed WHERE until IS NULL")}
        gone, new = known.difference(self._index), set(self._index) - known
        db.executemany(
            "UPDATE indexed SET until = ? WHERE key = ? AND until IS NULL", [(next_chunk, key) for key in gone]
        )
        db.executemany("INSERT INTO indexed VALUES (?, ?, NULL)", [(key, next_chunk) for key in sorted(new)])
        db.execute("COMMIT")

    def _insert_chunks(
        self, db: sqlite3.Connection, chunks: Sequence[Chunk], data: Sequence[bytes], received: int
    ) -> None:
        for one, compressed in zip(chunks, data, strict=True):
            block = one.block
            chunk = db.execute(
                "INSERT INTO chunks (first, last, received, messages, worst, data) VALUES (?, ?, ?, ?, ?, ?)",
                (block.first, block.last, received, block.count, one.worst, compressed),
            ).lastrowid
            db.executemany("INSERT INTO trace_chunks VALUES (?, ?)", [(trace, chunk) for trace in one.traces])
            db.executemany("INSERT INTO service_chunks VALUES (?, ?)", [(service, chunk) for service in one.services])
            db.executemany("INSERT INTO context_chunks VALUES (?, ?, ?)", [(*pair, chunk) for pair in one.context])

    def _insert(self, current: Current, rows: Rows) -> None:
        db = current.db
        db.executemany(
            "INSERT INTO hours VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count",
            [(*key, count) for key, count in rows.hours.items()],
        )
        db.executemany(_ADD_SERIES, rows.series)
        db.executemany(_END_SPAN, rows.spans)
        db.executemany("INSERT OR IGNORE INTO spans VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows.starts)
        self._add_errors(current, rows.errors)
        self._add_progress(current, rows.progress, rows.roots)
        self._name_by_root(db, rows.roots)
        db.executemany("INSERT OR REPLACE INTO traces VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows.summaries)
        db.executemany(
            "UPDATE jobs SET state = ? WHERE trace_id = ? AND job_id = ? AND state IN ('running', 'stalled')",
            rows.states,
        )
        db.executemany(
            "UPDATE jobs SET state = 'unfinished' WHERE trace_id = ? AND last_progress <= ? AND state IN ('running', 'stalled')",
            [(row[0], row[3]) for row in rows.summaries],
        )
        db.executemany(
            "UPDATE spans SET status = 'abandoned' WHERE trace_id = ? AND span_id = ? AND status IS NULL",
            rows.abandoned,
        )

    def _add_errors(self, current: Current, errors: Sequence[tuple[Any, ...]]) -> None:
        """Beyond ERRORS_MOST kinds, those of one service and hour are one kind: what clients send must not grow for ever."""
        if current.errors + len(errors) > ERRORS_MOST:
            errors = [(hour, service, ANY, *rest) for hour, service, _, *rest in errors]
        current.db.executemany(_ADD_ERROR, errors)
        current.errors += len(errors)

    def _add_progress(
        self, current: Current, messages: Iterable[Progress], roots: dict[str, tuple[str, str]] | Any
    ) -> None:
        jobs: dict[tuple[str, str], Job] = {}
        for message in messages:
            key = (message.trace_id or "", message.job_id)
            job = jobs.get(key) or self._known(current, key)
            if job is None:
                job = new_job(message, self._kind(current.db, key, roots))
            else:
                job.take(message)
            jobs[key] = job
        current.db.executemany(
            "INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    *key, job.kind, job.service, job.percent, job.status, job.state, job.first, job.last,
                    dumps(job.reached), job.continues,
                )
                for key, job in jobs.items()
            ],
        )  # fmt: skip

    def _kind(self, db: sqlite3.Connection, key: tuple[str, str], roots: dict[str, tuple[str, str]]) -> str:
        kind = self._kinds.of(key[1])
        if kind != ANY:
            return kind
        root = roots.get(key[0])
        if root is None:
            root = db.execute(
                "SELECT service, name FROM spans WHERE trace_id = ? AND parent_id = '' ORDER BY start LIMIT 1", key[:1]
            ).fetchone()
        return kind_of_root(*root) if root else ANY

    def _name_by_root(self, db: sqlite3.Connection, roots: dict[str, tuple[str, str]] | Any) -> None:
        """Jobs whose ids tell nothing are of the kind of their root span, which may come after their first progress."""
        db.executemany(
            "UPDATE jobs SET kind = ? WHERE trace_id = ? AND kind = ?",
            [(kind_of_root(*root), trace, ANY) for trace, root in roots.items()],
        )

    def _known(self, current: Current, key: tuple[str, str]) -> Job | None:
        """A job as this file has it, or as an earlier one does: then the row here continues that one."""
        if (job := read_job(current.db, key)) is not None:
            return job
        if current.earlier_db is None or current.earlier is None:
            return None
        try:
            job = read_job(current.earlier_db, key)
        except sqlite3.Error:
            current.let_go_of_earlier()
            return None
        if job is not None:
            job.continues = str(current.earlier)
        return job

    def _open_earlier(self, current: Current) -> None:
        earlier = max((day for day in self._sizes if day < current.day), default=None)
        if earlier is not None:
            with suppress(OSError, sqlite3.Error, NotHistory):
                current.earlier_db = open_to_read(self.directory / str(earlier))
                current.earlier = earlier

    # -- what is too old, or too much

    def _tidy(self) -> None:
        """Remove what `keep` and `max_bytes` don't allow."""
        today = day_of(int(self._wall() * 1e6))
        sizes = {**self._sizes}
        if self._current is not None:
            sizes[self._current.day] = _size(self._current.path)
        total = sum(sizes.values())
        for day in sorted(sizes):
            too_old = self._keep and (today - min(day.day, today)).days * 86_400 > self._keep
            too_much = self._max_bytes and total > self._max_bytes
            if not (too_old or too_much):
                continue
            if day == self._latest or (self._current is not None and day == self._current.day):
                continue
            self._remove(day)
            total -= sizes[day]
        self.bytes = total

    def _remove(self, day: Day) -> None:
        if self._current is not None and self._current.earlier == day:
            self._current.let_go_of_earlier()
        for end in BESIDE[::-1]:
            with suppress(FileNotFoundError):
                self._files.unlink(self.directory / f"{day}{end}")
        self._files.sync_directory(self.directory)
        self._sizes.pop(day, None)
        self.removed += 1


def read_job(db: sqlite3.Connection, key: tuple[str, str]) -> Job | None:
    """A job by trace and job id, as one file has it."""
    row = db.execute(
        "SELECT kind, service, percent, status, state, first, last_progress, shape, continues FROM jobs"
        " WHERE trace_id = ? AND job_id = ?", key,
    ).fetchone()  # fmt: skip
    if row is None:
        return None
    kind, service, percent, status, state, first, last, reached, continues = row
    return Job(kind, service, percent, status, state, first, last, loads(reached), continues)


def _size(path: Path) -> int:
    size = 0
    for end in BESIDE:
        with suppress(FileNotFoundError):
            size += os.lstat(f"{path}{end}").st_size
    return size


_ADD_SERIES = """
    INSERT INTO series VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
        count = count + excluded.count, total = total + excluded.total,
        least = min(least, excluded.least), greatest = max(greatest, excluded.greatest)
"""
_END_SPAN = """
    INSERT INTO spans VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
        parent_id = excluded.parent_id, name = excluded.name, service = excluded.service, start = excluded.start,
        duration = excluded.duration, status = excluded.status
"""
_ADD_ERROR = """
    INSERT INTO errors VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
        count = count + excluded.count, first = min(first, excluded.first),
        message = CASE WHEN excluded.last >= last THEN excluded.message ELSE message END,
        trace_id = CASE WHEN excluded.last >= last THEN excluded.trace_id ELSE trace_id END,
        last = max(last, excluded.last)
"""
