"""What a channel still has to send, on disk: an SQLite file. All of it blocks, and runs in one thread.

- An alarm is in it together with the position behind it, in one transaction: what was read again after a crash is not
  taken a second time.
- It holds 10,000; then the oldest goes, and is counted. What resolves an alarm goes last: without it the alarm would stay for ever.
- What is held and is over by now, since what resolves it came meanwhile, is marked so: it is not to be triggered any more.
- `open` are the alarms that were triggered and not resolved since, of those that ever are.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from wafermon.interfaces import Alarm
from wafermon.model.position import Position

MOST = 10_000
ENDING = "schedule/"
"""Keys of what is over at some time, and then resolved, begin so."""
_WAITS, _HELD, _OVER = range(3)
"""What `held` says of one that is pending."""
_TABLES = """
CREATE TABLE IF NOT EXISTS pending(id INTEGER PRIMARY KEY AUTOINCREMENT, held INTEGER NOT NULL DEFAULT 0, alarm TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS waiting ON pending(held, id);
CREATE INDEX IF NOT EXISTS keys ON pending(held, json_extract(alarm, '$.key'));
CREATE TABLE IF NOT EXISTS open(key TEXT PRIMARY KEY, alarm TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS state(name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


class Pending(NamedTuple):
    """One that is to be sent."""

    id: int
    held: bool
    """It came in quiet hours, or was one too many: it goes into a digest."""
    over: bool
    """It is held, and what it is about has recovered since."""
    alarm: Alarm


class Outbox:
    """One channel's. Methods raise sqlite3.Error and OSError, and have changed nothing then."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None

    def open(self) -> tuple[int, int]:
        """Answers with how many are pending and how many were dropped, ever."""
        if self._db is None:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            self._path.touch(mode=0o600)
            db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.executescript(_TABLES)
            self._db = db
        return self._count(self._db), self._dropped(self._db)

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def reached(self) -> Position | None:
        """Up to where the journal's alarms were taken; None where none was."""
        found = self._opened().execute("SELECT value FROM state WHERE name='position'").fetchone()
        return Position(*json.loads(found[0])) if found else None

    def reach(self, position: Position) -> None:
        """The journal has another id now: this is where they were taken up to."""
        self._set(self._opened(), "position", json.dumps(position))

    def put(self, alarms: Sequence[Alarm], end: Position) -> tuple[int, int]:
        """Take them, unless what is before `end` was taken already. Answers as `open`."""
        db = self._opened()
        with _Transaction(db):
            before = self.reached()
            if before is None or before.journal != end.journal or before < end:
                self._insert(db, alarms)
                self.reach(end)
        return self._count(db), self._dropped(db)

    def add(self, alarms: Sequence[Alarm]) -> tuple[int, int]:
        """Take what is not of the journal. Answers as `open`."""
        db = self._opened()
        with _Transaction(db):
            self._insert(db, alarms)
        return self._count(db), self._dropped(db)

    def first(self) -> Pending | None:
        """What is to be sent next: the oldest that is not held."""
        row = (
            self._opened()
            .execute("SELECT id, held, alarm FROM pending WHERE held=? ORDER BY id LIMIT 1", (_WAITS,))
            .fetchone()
        )
        return _pending(row) if row else None

    def next(self) -> tuple[Pending | None, int]:
        """`first`, and how many are held."""
        held = self._opened().execute("SELECT count(*) FROM pending WHERE held IN (?, ?)", (_HELD, _OVER)).fetchone()
        return self.first(), int(held[0])

    def held(self) -> list[Pending]:
        rows = self._opened().execute("SELECT id, held, alarm FROM pending WHERE held ORDER BY id")
        return [_pending(row) for row in rows]

    def hold(self, resolves: bool) -> None:
        """Hold all that waits now; where it `resolves`, up to the first that resolves an alarm, which is not held."""
        until = "SELECT id FROM pending WHERE held=? AND json_extract(alarm, '$.action')='resolve' ORDER BY id LIMIT 1"
        end = self._opened().execute(until, (_WAITS,)).fetchone() if resolves else None
        self._opened().execute(
            "UPDATE pending SET held=? WHERE held=? AND id < ?", (_HELD, _WAITS, end[0] if end else 1 << 62)
        )

    def over(self, key: str) -> None:
        """What is held of this key is over."""
        self._opened().execute(
            "UPDATE pending SET held=? WHERE held=? AND json_extract(alarm, '$.key')=?", (_OVER, _HELD, key)
        )

    def is_open(self, key: str) -> bool:
        return self._opened().execute("SELECT 1 FROM open WHERE key=?", (key,)).fetchone() is not None

    def opened(self) -> list[Alarm]:
        """Those that were triggered and are not resolved."""
        return [_alarm(row[0]) for row in self._opened().execute("SELECT alarm FROM open ORDER BY rowid")]

    def done(self, numbers: Sequence[int], sent: Alarm | None) -> int:
        """They are sent as `sent`, or given up. Answers with how many are pending."""
        db = self._opened()
        with _Transaction(db):
            db.executemany("DELETE FROM pending WHERE id=?", [(number,) for number in numbers])
            if sent is not None and sent.action == "resolve":
                db.execute("DELETE FROM open WHERE key=?", (sent.key,))
            elif sent is not None and sent.key.startswith(ENDING):
                db.execute("INSERT OR REPLACE INTO open VALUES(?, ?)", (sent.key, json.dumps(asdict(sent))))
                db.execute("DELETE FROM open WHERE rowid <= (SELECT max(rowid) FROM open) - ?", (MOST,))
        return self._count(db)

    def _opened(self) -> sqlite3.Connection:
        if self._db is None:
            self.open()
        assert self._db is not None
        return self._db

    def _insert(self, db: sqlite3.Connection, alarms: Sequence[Alarm]) -> None:
        db.executemany("INSERT INTO pending(alarm) VALUES(?)", [(json.dumps(asdict(one)),) for one in alarms])
        over = self._count(db) - MOST
        if over > 0:
            oldest = "SELECT id FROM pending WHERE json_extract(alarm, '$.action') <> 'resolve' ORDER BY id LIMIT ?"
            gone = db.execute(f"DELETE FROM pending WHERE id IN ({oldest})", (over,)).rowcount
            rest = "SELECT id FROM pending ORDER BY id LIMIT ?"
            db.execute(f"DELETE FROM pending WHERE id IN ({rest})", (over - gone,))
            self._set(db, "dropped", str(self._dropped(db) + over))

    @staticmethod
    def _set(db: sqlite3.Connection, name: str, value: str) -> None:
        db.execute("INSERT OR REPLACE INTO state VALUES(?, ?)", (name, value))

    @staticmethod
    def _count(db: sqlite3.Connection) -> int:
        return int(db.execute("SELECT count(*) FROM pending").fetchone()[0])

    @staticmethod
    def _dropped(db: sqlite3.Connection) -> int:
        found = db.execute("SELECT value FROM state WHERE name='dropped'").fetchone()
        return int(found[0]) if found else 0


class _Transaction:
    """All of it, or nothing."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            try:
                self._db.execute("COMMIT")
                return
            except sqlite3.Error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")


def _pending(row: tuple[int, int, str]) -> Pending:
    return Pending(row[0], row[1] != _WAITS, row[1] == _OVER, _alarm(row[2]))


def _alarm(text: str) -> Alarm:
    return Alarm(**json.loads(text))
