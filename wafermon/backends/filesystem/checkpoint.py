"""What is durable: the position, and for each file that may hold more than that, how much of it counts.

A log of records, one per line: CRC-32 of the rest in hex, a space, JSON. The state is all of them, one over the other.

    5e1b2c3d {"position":"j:1:4096","files":{"/log/a.jsonl":[1234,5678],"/log/b.jsonl":null}}

A file is its inode and its length; null forgets it: all its bytes count. The inode's device is left out, since its
number changes when the machine starts again. A record counts once it is synced; what is damaged at the end was torn, and then
it is as if it had not been written. A damaged record before sound ones is passed over, and what was said of files before it
is forgotten: a length may be out of date, and a file that is cut to that would lose lines. The log is written anew, as one
record, when it has grown, and after each failure: nothing is known of a file whose sync failed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from wafermon.files import Files, NotOurs, naming
from wafermon.interfaces import Position, PositionMoved
from wafermon.model.messages import dumps, loads

_ENOUGH = 1 << 20
_MOST = 64 << 20
"""Bytes that are read of a log."""


class Entry(NamedTuple):
    """How much of a file counts."""

    inode: int
    length: int


class Checkpoint:
    """The log, and the state it says. After an OSError from `commit` the state is the one before, as is the disk
    once `heal` has passed."""

    def __init__(self, files: Files, directory: Path) -> None:
        self.position: Position | None = None
        self.files: dict[str, Entry] = {}
        self.found = ""
        """What `load` found damaged; empty where nothing was."""
        self._files = files
        self.path = directory / "checkpoint"
        self._path = str(self.path)
        self._directory = str(directory)
        self._fd = -1
        self._inode = 0
        self._size = 0
        self._enough = _ENOUGH
        self._sound = False
        """Whether the disk says for certain what the state says."""

    def load(self) -> None:
        """Read what the last run left. What can't be read as a log at all is set aside."""
        self.position, self.files, self.found = None, {}, ""
        try:
            lines = self._files.read_whole(self._path, _MOST).split(b"\n")
        except (FileNotFoundError, NotADirectoryError):
            return
        except NotOurs:
            self._set_aside("is not a plain file")
            return
        records = [_decoded(line) for line in lines]
        last = max((n for n, record in enumerate(records) if record is not None), default=-1)
        if last < 0:
            self._set_aside("holds no sound record")
            return
        for number, record in enumerate(records[: last + 1]):
            if record is None:
                self.files.clear()
                self.found = f"is damaged at line {number + 1}, which was passed over; some lines may be stored twice"
            else:
                self._apply(*record)

    def _set_aside(self, why: str) -> None:
        self._files.move(self._path, self._path + ".damaged")
        self.found = f"{why}, and was moved to checkpoint.damaged; what the journal has handed on since its own mark may be stored twice"

    def begin(self) -> None:
        """Start a new log with the present state."""
        with naming(self._path):
            self._sound = False  # until the directory is synced, the old log can come back
            line = _encoded(self.position, self.files)
            self._files.ensure_directory(self._directory)
            self._files.replace(self._path, line)
            self.close()
            self._fd = self._files.open_ours(self._path, os.O_WRONLY | os.O_APPEND)
            self._inode = self._files.status(self._fd).st_ino
            self._size = len(line)
            self._enough = max(_ENOUGH, 4 * len(line))
            self._sound = True

    def commit(self, position: Position | None, files: Mapping[str, Entry | None]) -> None:
        """Make one more record durable: the new position (None: as it is) and the files that changed."""
        with naming(self._path):
            if self._size > self._enough:
                self.begin()
            else:
                self.heal()
            line = _encoded(position, files)
            self._sound = False
            self._files.append_all(self._fd, line)
            self._files.sync(self._fd)
            self._sound = True
            self._size += len(line)
            self._apply(position, files)

    def heal(self) -> None:
        """Make certain that the state is what the disk says, too. Parts of a record that failed may be on the disk, or come
        there later: only once they are gone for certain may the files be cut to the lengths before it."""
        with naming(self._path):
            self.check()
            if not self._sound or not self._is_there():
                self.begin()

    def check(self) -> None:
        """Raises PositionMoved where something else, such as a restore from a backup, put another log in its place."""
        if not self._sound:
            return
        with naming(self._path):
            try:
                found = self._files.status_of(self._path)
            except (FileNotFoundError, NotADirectoryError):
                return  # `heal` makes it again
            if (found.st_ino, found.st_size) != (self._inode, self._size):
                raise PositionMoved(f"{self._path} was replaced; what it says now is read")

    def _is_there(self) -> bool:
        try:
            return self._files.status_of(self._path).st_ino == self._inode
        except (FileNotFoundError, NotADirectoryError):
            return False

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            self._sound = False
            with suppress(OSError):  # all that counts is synced
                self._files.close(fd)

    def _apply(self, position: Position | None, files: Mapping[str, Entry | None]) -> None:
        if position is not None:
            self.position = position
        for path, entry in files.items():
            if entry is None:
                self.files.pop(path, None)
            else:
                self.files[path] = entry


def _encoded(position: Position | None, files: Mapping[str, Entry | None]) -> bytes:
    text = dumps({"position": position and str(position), "files": files}).encode("utf-8", "surrogateescape")
    return b"%08x %s\n" % (crc32(text), text)


def _decoded(line: bytes) -> tuple[Position | None, dict[str, Entry | None]] | None:
    """A line of the log; None where it is damaged."""
    crc, _, text = line.partition(b" ")
    if crc != b"%08x" % crc32(text):
        return None
    try:
        record = loads(text)
        position = record["position"]
        files = {path: entry and Entry(*entry) for path, entry in record["files"].items()}
        return position and Position.parse(position), files
    except (AttributeError, KeyError, TypeError, ValueError):  # something else's record
        return None
