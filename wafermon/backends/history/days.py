"""The files of a history: their names, and how each is opened.

A file is named by the day (UTC) on which what it holds was received, ``2026-11-28.db``, and where one grew too large, by
a number too: ``2026-11-28.1.db``. Nothing else in the directory is touched.
"""

from __future__ import annotations

import os
import re
import sqlite3
from datetime import date, datetime, timezone
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from wafermon.files import Files

APPLICATION = 0x7766686D
"""SQLite's `application_id` of our files: ``wfhm``."""
VERSION = 1
"""SQLite's `user_version`: the tables that a file has."""
_NAME = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:\.([1-9][0-9]{0,5}))?\.db")
BESIDE = ("", "-wal", "-shm", "-journal")
"""What SQLite puts beside a file, by the end of its name."""
UNFINISHED = ".new"
"""What the name of a file ends with until its tables are made."""
BUSY_SECONDS = 1.0
"""How long a lock of another process is waited for."""


class Day(NamedTuple):
    """One file, by what its name says. In the order of time."""

    day: date
    part: int = 0

    def __str__(self) -> str:
        return f"{self.day.isoformat()}.{self.part}.db" if self.part else f"{self.day.isoformat()}.db"

    @classmethod
    def parse(cls, name: str) -> Day | None:
        """None for what is no name of ours."""
        match = _NAME.fullmatch(name)
        if not match:
            return None
        try:
            return cls(date.fromisoformat(match[1]), int(match[2] or 0))
        except ValueError:
            return None


class NotHistory(Exception):
    """A file that can't be read as history; the text names it and says what to do."""


def day_of(microseconds: int) -> date:
    """The day, in UTC, of a time since the Unix epoch."""
    return datetime.fromtimestamp(microseconds / 1e6, timezone.utc).date()


def days_in(directory: Path) -> list[Day]:
    """The files, the earliest first; none where the directory is not there. Raises OSError for any other failure."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    return sorted(day for name in names if (day := Day.parse(name)) is not None)


@cache
def _tables() -> str:
    return files(__package__).joinpath("tables.sql").read_text("utf-8")


def make(path: Path, files: Files) -> None:
    """A file with empty tables, which is there whole or not at all. Raises sqlite3.Error, OSError."""
    unfinished = Path(f"{path}{UNFINISHED}")
    for end in BESIDE:
        Path(f"{unfinished}{end}").unlink(missing_ok=True)
    db = sqlite3.connect(unfinished, isolation_level=None)
    try:
        db.executescript(
            f"BEGIN IMMEDIATE; {_tables()} INSERT INTO reached VALUES (0, NULL);"
            f"PRAGMA application_id={APPLICATION}; PRAGMA user_version={VERSION}; COMMIT"
        )
    finally:
        db.close()
    files.rename(unfinished, path)
    files.sync_directory(path.parent)


def open_to_write(path: Path) -> sqlite3.Connection:
    """A file that is there. Raises sqlite3.Error, or NotHistory for a file that is not ours."""
    db = sqlite3.connect(
        f"file:{quote(str(path.absolute()))}?mode=rw",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        _check(db, path)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute("PRAGMA cache_size=-16384")
        db.execute("PRAGMA wal_autocheckpoint=2000")
        db.execute("PRAGMA journal_size_limit=16777216")
    except BaseException:
        db.close()
        raise
    return db


def seal(db: sqlite3.Connection) -> None:
    """Nothing more is to be written to it: leave one file that anybody can read, with nothing beside it, and close it."""
    try:
        db.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.Error:
        pass  # another process reads it now, or the disk is full: as it is, it can be read just as well
    finally:
        db.close()


def open_to_read(path: Path) -> sqlite3.Connection:
    """A file to read, while another process may write. Raises FileNotFoundError, sqlite3.Error, NotHistory."""
    path.stat()
    try:
        return _connect(path, "mode=ro")
    except sqlite3.OperationalError:
        # In a directory where nothing can be made, SQLite reads a file without a log only if told that nobody writes it.
        if os.path.lexists(f"{path}-wal"):
            raise
        return _connect(path, "mode=ro&immutable=1")


def _connect(path: Path, how: str) -> sqlite3.Connection:
    place = f"file:{quote(str(path.absolute()))}?{how}"
    db = sqlite3.connect(place, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        _check(db, path)
        db.execute("PRAGMA cache_size=-8192")
    except BaseException:
        db.close()
        raise
    return db


def _check(db: sqlite3.Connection, path: Path) -> None:
    version, application = _number(db, "user_version"), _number(db, "application_id")
    if application != APPLICATION:
        raise NotHistory(f"{path}: not made by wafermon; move it away, or choose another dir")
    if version > VERSION:
        raise NotHistory(f"{path}: written by a later version of wafermon; use that one, or move the file away")


def _number(db: sqlite3.Connection, pragma: str) -> int:
    [number] = db.execute(f"PRAGMA {pragma}").fetchone()
    return int(number)
