"""What is durable: the position, and for each file that may hold more than that, how much of it counts.

A log of records, one a line: CRC-32 of the rest in hex, a space, JSON. The state is all of them, one over the other.

    5e1b2c3d {"position":"j:1:4096","files":{"/log/a.jsonl":[1234,5678],"/log/b.jsonl":null}}

A file is its inode and its length; null forgets it: all its bytes count. The inode's device is left out, since its
number changes when the machine starts again. A record counts once it is synced; only the last can be torn, and then
it is as if it had not been written. The log is written anew, as one record, when it has grown.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from wafermon.backends.filesystem.operations import Disk, naming
from wafermon.interfaces import Position
from wafermon.model.messages import dumps, loads

_ENOUGH = 1 << 20


class Entry(NamedTuple):
    """How much of a file counts."""

    inode: int
    length: int


class Damaged(Exception):
    """The log can't be read, other than by a torn last record."""


class Checkpoint:
    """The log, and the state it says. After an OSError from `commit` the state is the one before, as is the disk
    once `heal` has passed."""

    def __init__(self, disk: Disk, directory: Path) -> None:
        self.position: Position | None = None
        self.files: dict[str, Entry] = {}
        self._disk = disk
        self._path = str(directory / "checkpoint")
        self._directory = str(directory)
        self._fd = -1
        self._size = 0
        self._enough = _ENOUGH
        self._torn = False
        self._renamed = False

    def load(self) -> None:
        """Read what the last run left. Raises Damaged."""
        self.position, self.files = None, {}
        try:
            with open(self._path, "rb") as file:
                *lines, unfinished = file.read().split(b"\n")
        except FileNotFoundError:
            return
        records = [_decoded(line) for line in lines]
        sound = records.index(None) if None in records else len(records)
        if sound == 0 or any(records[sound:]) or (unfinished and sound < len(records)):
            raise Damaged(
                f"{self._path} is damaged at line {sound + 1}. Bring it back, or remove it: "
                "the messages since the journal's own mark are then stored a second time."
            )
        for record in records[:sound]:
            assert record is not None
            self._apply(*record)

    def begin(self) -> None:
        """Start a new log with the present state."""
        with naming(self._path):
            line = _encoded(self.position, self.files)
            self._disk.write_file(self._path + ".tmp", line)
            self._disk.rename(self._path + ".tmp", self._path)
            self._renamed = True  # until the directory is synced, the old log can come back
            self.close()
            self._fd = self._disk.open(self._path, os.O_WRONLY | os.O_APPEND)
            self._disk.sync_directory(self._directory)
            self._renamed = self._torn = False
            self._size = len(line)
            self._enough = max(_ENOUGH, 4 * len(line))

    def commit(self, position: Position | None, files: Mapping[str, Entry | None]) -> None:
        """Make one more record durable: the new position (None: as it is) and the files that changed."""
        with naming(self._path):
            self.heal()
            if self._size > self._enough:
                self.begin()
            line = _encoded(position, files)
            self._torn = True
            self._disk.write(self._fd, line)
            self._disk.sync(self._fd)
            self._torn = False
            self._size += len(line)
            self._apply(position, files)

    def heal(self) -> None:
        """After a failure: make certain that the state is what the disk says, too."""
        with naming(self._path):
            if self._renamed:
                self.begin()
            if self._torn:
                # Parts of the record may be on the disk, or come there later: only once it is gone for certain may the
                # files be cut to the lengths before it. The old descriptor may be stale.
                self.close()
                self._fd = self._disk.open(self._path, os.O_WRONLY | os.O_APPEND)
                self._disk.cut(self._fd, self._size)
                self._disk.sync(self._fd)
                self._torn = False

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

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
    record = loads(text)
    position = record["position"]
    files = {path: entry and Entry(*entry) for path, entry in record["files"].items()}
    return position and Position.parse(position), files
