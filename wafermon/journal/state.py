"""What the journal must remember beside its segments, in SQLite: its id, which segment numbers were used, how far every
cursor is at least, the marks of clients that are gone, and how much time has passed.

SQLite writes and syncs by itself: its files are the only durable ones that do not go through `wafermon.files`."""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from twisted.logger import Logger

from wafermon.files import Files
from wafermon.journal.clock import SECOND, Known
from wafermon.journal.groups import Mark
from wafermon.journal.skips import Skip
from wafermon.model.position import Position

_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cursors (name TEXT PRIMARY KEY, position TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stepped_over (
    cursor TEXT NOT NULL, position TEXT NOT NULL, PRIMARY KEY (cursor, position)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS marks (
    principal TEXT NOT NULL, client TEXT NOT NULL, seq INTEGER NOT NULL, seen INTEGER NOT NULL,
    PRIMARY KEY (principal, client)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS skips (name TEXT NOT NULL, first TEXT NOT NULL, last TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS marks_by_age ON marks (seen);
CREATE INDEX IF NOT EXISTS marks_by_client ON marks (client);
"""
MARKS_MAX = 1_000_000
"""Clients that are gone and remembered: about 150 MiB. Beyond it the tenth that was seen longest ago is forgotten."""
DAY = 86_400 * SECOND
MARKS_KEPT = 30 * DAY
"""For so long the marks of a client that is gone are remembered."""
FORWARD = "forward:"
"""How the principals of other journals begin: they may be silent for longer."""
FORWARD_KEPT = 90 * DAY
KAFKA = "kafka:"
"""How the principals of Kafka's clusters begin. Their marks are never forgotten: without its mark a partition is read from its beginning."""


class State:
    """Every method is one durable transaction and may be called from any thread.

    Raises sqlite3.Error where the disk fails, and OSError where the file was removed and can't be made again: it is to be called again
    then.
    """

    log = Logger()

    def __init__(self, path: Path, marks_max: int = MARKS_MAX, *, journal: str = "", lost: int = 0) -> None:
        """Where it is new: `journal` is whose it is, if not a new journal's, and `lost` the last of the segments of which nothing
        is known any more."""
        self._marks_max = marks_max
        self._lock = threading.Lock()
        self._look_lock = threading.Lock()
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # SQLite's own files take its mode over
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._looker: sqlite3.Connection | None = None
        self._path = path
        self._status = os.stat(path)
        self._removed = False
        try:
            self._begin(journal, lost)
            self._looker = sqlite3.connect(path, check_same_thread=False)
            self.journal: str = self._fact("journal")
            """The journal's id, 16 hex."""
            self.formerly: dict[str, int] = _formerly(self._fact("formerly"))
            """The ids that it had before, each with the last segment of then; these segments are its own."""
            self.lost = int(self._fact("lost", "0"))
            """Up to this segment it is not known which cursor has read what: there was another state, which is gone."""
        except BaseException:
            self.close()
            raise

    def _begin(self, journal: str, lost: int) -> None:
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA)
        facts = {"journal": journal or secrets.token_hex(8), "lost": str(lost)}
        self._db.executemany("INSERT OR IGNORE INTO facts VALUES (?, ?)", facts.items())
        self._marks = self._count_marks()
        """At least so many are there."""

    def _fact(self, name: str, default: str = "") -> str:
        row = self._db.execute("SELECT value FROM facts WHERE name = ?", [name]).fetchone()
        return str(row[0]) if row else default

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """One transaction, which lasts."""
        with self._lock:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                yield
            if not self._is_there():
                self._write_again()

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(os.lstat(self._path), self._status)
        except FileNotFoundError:
            return False

    def _write_again(self) -> None:
        """Something removed the file. SQLite goes on with the one that has no name any more, until the end of the process: what it
        holds is written under the name at each change. Raises OSError too."""
        files, copy = Files(), Path(f"{self._path}.new")
        files.ensure_directory(self._path.parent)
        files.remove(copy)
        fd = files.create(copy)
        try:
            self._db.execute("VACUUM INTO ?", [str(copy)])
            files.sync(fd)
        finally:
            files.close(fd)
        files.remove(*(f"{self._path}{end}" for end in ("-wal", "-shm")))
        files.move(copy, self._path)
        if not self._removed:
            self._removed = True
            self.log.error("{path} was removed or moved away while it was in use: it is written again", path=self._path)

    def renew(self) -> str:
        """Give the journal a new id, which is answered; marks, and the places of all cursors, stay what they are."""
        before, after = self.journal, secrets.token_hex(8)
        formerly = {**self.formerly, before: self.last_segment}
        with self._changing():
            facts = {"journal": after, "formerly": " ".join(f"{name}:{last}" for name, last in formerly.items())}
            self._db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts.items())
            for table, column in (
                ("cursors", "position"),
                ("stepped_over", "position"),
                ("skips", "first"),
                ("skips", "last"),
            ):
                change = f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?"
                self._db.execute(change, [after, len(before) + 1, len(before), before])
        self.journal, self.formerly = after, formerly
        return after

    @property
    def last_segment(self) -> int:
        with self._lock:
            return int(self._fact("segment", "0"))

    def use_segment(self, number: int) -> None:
        """Never again is this number or a lower one given to a new segment."""
        with self._changing():
            self._db.execute("INSERT OR REPLACE INTO facts VALUES ('segment', ?)", [str(number)])

    @property
    def gone(self) -> tuple[int, int]:
        """The last segment that was deleted because nobody needed it, and its length; (0, 0) where there is none."""
        with self._lock:
            segment, length = self._fact("gone", "0:0").split(":")
        return int(segment), int(length)

    def let_go(self, segment: int, length: int) -> None:
        """This segment, of so many bytes, and those before it are about to be deleted."""
        with self._changing():
            self._db.execute("INSERT OR REPLACE INTO facts VALUES ('gone', ?)", [f"{segment}:{length}"])

    def cursors(self) -> dict[str, Position]:
        with self._lock:
            rows = self._db.execute("SELECT name, position FROM cursors").fetchall()
        return {name: Position.parse(position) for name, position in rows}

    def step_over(self, cursor: str, start: Position) -> None:
        """Remember that this cursor's follower passes over the group that starts there."""
        with self._changing():
            self._db.execute("INSERT OR REPLACE INTO stepped_over VALUES (?, ?)", [cursor, str(start)])

    def stepped_over(self) -> list[tuple[str, Position]]:
        """All cursors with the starts of such groups."""
        with self._lock:
            rows = self._db.execute("SELECT cursor, position FROM stepped_over").fetchall()
        return [(cursor, Position.parse(position)) for cursor, position in rows]

    def forget_stepped_over(self, passed: Iterable[tuple[str, Position]]) -> None:
        """These will not be read again."""
        rows = [(cursor, str(start)) for cursor, start in passed]
        with self._changing():
            self._db.executemany("DELETE FROM stepped_over WHERE cursor = ? AND position = ?", rows)

    def skips(self) -> dict[str, list[Skip]]:
        """What cursors passed undelivered."""
        with self._lock:
            rows = self._db.execute("SELECT name, first, last FROM skips").fetchall()
        found: dict[str, list[Skip]] = {}
        for name, first, last in rows:
            found.setdefault(str(name), []).append(Skip(Position.parse(first), Position.parse(last)))
        return {name: sorted(skips) for name, skips in found.items()}

    def known(self) -> Known | None:
        """The time at the last `save`; None where none said it."""
        with self._lock:
            text = self._fact("time")
        return Known(*map(int, text.split(":"))) if text else None

    def mark(self, principal: str, client: str) -> int:
        """The highest settled seq of a client; 0 where it is not known. Waits for no `save`."""
        return self._look("SELECT seq FROM marks WHERE principal = ? AND client = ?", principal, client)

    def marks_of(self, client: str) -> dict[str, int]:
        """As `mark`, by principal."""
        with self._look_lock:
            assert self._looker is not None
            rows = self._looker.execute("SELECT principal, seq FROM marks WHERE client = ?", [client]).fetchall()
        return {str(principal): int(seq) for principal, seq in rows}

    def _look(self, query: str, *values: str) -> int:
        with self._look_lock:
            assert self._looker is not None
            row = self._looker.execute(query, values).fetchone()
        return int(row[0] or 0) if row else 0

    def _count_marks(self) -> int:
        return int(self._db.execute("SELECT COUNT(*) FROM marks").fetchone()[0])

    def save(
        self,
        cursors: Mapping[str, Position | None],
        marks: Iterable[Mark],
        time: Known,
        skips: Mapping[str, Sequence[Skip]] | None = None,
    ) -> None:
        """Move the cursors (None removes one) and marks, and forget the marks that did not move for long before `time`,
        which is when they are saved. `skips` take the place of those of the same names."""
        moved = [(name, str(position)) for name, position in cursors.items() if position]
        gone = [(name,) for name, position in cursors.items() if not position]
        with self._changing():
            self._db.executemany("INSERT OR REPLACE INTO cursors VALUES (?, ?)", moved)
            self._db.executemany("DELETE FROM cursors WHERE name = ?", gone)
            for name, found in (skips or {}).items():
                self._db.execute("DELETE FROM skips WHERE name = ?", [name])
                passed = [(name, str(one.start), str(one.end)) for one in found]
                self._db.executemany("INSERT INTO skips VALUES (?, ?, ?)", passed)
            rows = [(*mark, time.elapsed) for mark in marks]
            self._db.executemany("INSERT OR REPLACE INTO marks VALUES (?, ?, ?, ?)", rows)
            begins = "substr(principal, 1, ?) = ?"
            old = f"DELETE FROM marks WHERE seen < ? AND NOT ({begins} AND seen >= ?) AND NOT {begins}"
            ages = [time.elapsed - MARKS_KEPT, len(FORWARD), FORWARD, time.elapsed - FORWARD_KEPT]
            self._db.execute(old, [*ages, len(KAFKA), KAFKA])
            self._db.execute("INSERT OR REPLACE INTO facts VALUES ('time', ?)", [f"{time.elapsed}:{time.wall}"])
            self._marks += len(rows)
            if self._marks > self._marks_max:
                self._forget_oldest()

    def _forget_oldest(self) -> None:
        self._marks = self._count_marks()
        excess = self._marks - self._marks_max * 9 // 10
        if self._marks > self._marks_max:
            oldest = "SELECT principal, client FROM marks WHERE substr(principal, 1, ?) <> ? ORDER BY seen LIMIT ?"
            self._db.execute(f"DELETE FROM marks WHERE (principal, client) IN ({oldest})", [len(KAFKA), KAFKA, excess])
            self._marks -= excess
            self.log.error("Too many clients to remember: the marks of the {count} oldest are forgotten", count=excess)

    def close(self) -> None:
        with self._lock, self._look_lock:
            if self._looker is not None:
                self._looker.close()
            self._db.close()


def _formerly(text: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in text.split():
        name, _, last = one.partition(":")
        found[name] = int(last or 0)
    return found
