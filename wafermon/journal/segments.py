"""The segment files of a journal's directory. Everything here blocks: it runs in the journal's thread."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from wafermon.journal.groups import Group, Span, decode_group, scan
from wafermon.model.position import Position

_CHUNK = 1 << 20
_MOST_PARTS = 1024
"""What one pwritev takes."""


def path_of(directory: Path, segment: int) -> Path:
    return directory / f"{segment:012d}.segment"


def segments_in(directory: Path) -> dict[int, int]:
    """The numbers of the segments that are there, ascending, with their lengths in bytes."""
    found = {int(path.stem): path.stat().st_size for path in directory.glob("*.segment") if path.stem.isdigit()}
    return dict(sorted(found.items()))


def sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


class SegmentFile:
    """One segment, open for reading or for appending. Only what `length` covers is read."""

    def __init__(self, directory: Path, number: int, *, create: bool = False) -> None:
        self.number = number
        self.path = path_of(directory, number)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL if create else os.O_RDONLY
        self._fd = os.open(self.path, flags | os.O_CLOEXEC, 0o600)
        self.length = 0 if create else os.fstat(self._fd).st_size
        if create:
            sync_directory(directory)

    def append(self, parts: Sequence[bytes]) -> None:
        """Write behind `length`, which does not move: `keep` does that."""
        if len(parts) > _MOST_PARTS:
            parts = [b"".join(parts)]
        written = os.pwritev(self._fd, parts, self.length)
        if written < sum(map(len, parts)):
            write_all(self._fd, b"".join(parts)[written:], self.length + written)

    def sync(self) -> None:
        os.fdatasync(self._fd)

    def keep(self, size: int) -> None:
        self.length += size

    def cut(self) -> None:
        """Forget what a failed append or sync left behind `length`."""
        os.ftruncate(self._fd, self.length)

    def close(self) -> None:
        os.close(self._fd)

    def spans(self, start: int, stop: int) -> Iterator[tuple[Span, bytes]]:
        """The groups and damages from `start`, which is where a group starts, to `stop`, each with its bytes. Memory
        holds the largest group or _CHUNK bytes, whichever is more."""
        at, size = start, _CHUNK
        while at < stop:
            data = os.pread(self._fd, min(size, stop - at), at)
            read_on = at
            for span in scan(data, at):
                yield span, data[span.start - read_on : span.end - read_on]
                at = span.end
            if at > read_on:
                size = _CHUNK
            elif len(data) >= stop - at or len(data) < size:
                yield Span(at, stop, None), data
                return
            else:
                size *= 2


class Reader:
    """Reads groups for one cursor, in order."""

    def __init__(self, directory: Path, journal: str) -> None:
        self._directory = directory
        self._journal = journal
        self._file: SegmentFile | None = None
        self._end: Position | None = None
        self._routes = ""

    def read(self, position: Position, routes: str | None, stop: int) -> list[Group]:
        """Some groups from `position` on, at least one, none behind offset `stop` of its segment. `routes` is the table
        in force at `position` if that is known to be where a group starts; else the segment is read from its start."""
        file = self._open(position.segment)
        if routes is None and position == self._end:
            routes = self._routes
        groups: list[Group] = []
        size = 0
        for span, data in file.spans(position.offset if routes is not None else 0, stop):
            start, end = (Position(self._journal, position.segment, at) for at in (span.start, span.end))
            if span.commit is None:
                group = Group(start, end, 0, routes or "", damaged=data)
            elif end <= position and b"!routes" not in data[:4096]:
                continue
            else:
                group = decode_group(data, span, self._journal, position.segment, routes or "")
                routes = group.routes
            if end <= position:
                continue
            groups.append(group.after(position.offset))
            size += len(data)
            if size >= _CHUNK:
                break
        if groups:
            self._end, self._routes = groups[-1].end, groups[-1].routes
        return groups

    def _open(self, number: int) -> SegmentFile:
        if self._file is None or self._file.number != number:
            self.close()
            self._file = SegmentFile(self._directory, number)
        return self._file

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
