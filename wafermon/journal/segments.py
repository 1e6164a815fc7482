"""The segment files of a journal's directory. Everything here blocks: it runs in the journal's threads."""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from wafermon.files import Files, naming
from wafermon.journal.groups import Group, Span, decode_group, scan
from wafermon.model.position import Position

CHUNK = 1 << 20
_NAME = re.compile(r"[0-9]{12}\.segment")
AGAIN = "again.tmp"
"""What a segment is called while it is written a second time."""


def path_of(directory: Path, segment: int) -> Path:
    return directory / f"{segment:012d}.segment"


def segments_in(directory: Path, files: Files | None = None) -> dict[int, int]:
    """The numbers of the segments that are there, ascending, with their lengths in bytes."""
    found = (files or Files()).ours(directory, _NAME)
    return {int(name.partition(".")[0]): status.st_size for name, status in found.items()}


class SegmentFile:
    """One segment, open for reading or for appending. Only what `length` covers is read."""

    def __init__(
        self,
        directory: Path,
        number: int,
        files: Files | None = None,
        *,
        create: bool = False,
        cuts: bool = False,
    ) -> None:
        """`create` a new one to append to; one that is there is read, and where the caller `cuts` it, changed."""
        self.number = number
        self.path = path_of(directory, number)
        self.length = 0
        self._files = files or Files()
        if create:
            self._fd = self._files.create(self.path)
            self._status = self._files.status(self._fd)
            return
        self._fd = self._files.open(self.path, (os.O_RDWR if cuts else os.O_RDONLY) | os.O_NOFOLLOW)
        try:
            self._status = self._files.status(self._fd)
        except BaseException:
            self.close()
            raise
        self.length = self._status.st_size

    def append(self, parts: Sequence[bytes]) -> int:
        """Write after `length`, which does not move: `keep` does that. Answers with how many bytes."""
        with naming(self.path):
            return self._files.write_all(self._fd, parts, self.length)

    def sync(self) -> None:
        with naming(self.path):
            self._files.sync(self._fd)

    def keep(self, size: int) -> None:
        self.length += size

    def truncate(self) -> None:
        """Forget what a failed append or sync left after `length`."""
        with naming(self.path):
            self._files.truncate(self._fd, self.length)

    def cut(self, length: int) -> None:
        """Let it end there, for good, with all that stands before."""
        with naming(self.path):
            self._files.cut(self._fd, length)
        self.length = length

    @property
    def is_there(self) -> bool:
        """Whether its name still means this file."""
        try:
            return os.path.samestat(self._files.status_of(self.path), self._status)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def write_again(self) -> None:
        """Give it its name back: a new file with all of its bytes, for good. It is read meanwhile, and so has its name only when it is
        whole. Raises OSError, also where something else has the name; nothing has changed then."""
        name = temporary = self.path.with_name(AGAIN)
        with suppress(FileNotFoundError):
            self._files.unlink(temporary)
        fd = self._files.create(temporary)
        try:
            with naming(temporary):
                at = 0
                while data := self._files.read(self._fd, min(CHUNK, self.length - at), at):
                    at += self._files.write_all(fd, [data], at)
                self._files.sync(fd)
            with suppress(FileNotFoundError):
                self._files.status_of(self.path)
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self.path))
            status = self._files.status(fd)
            self._files.rename(temporary, self.path)
            name = self.path
            self._files.sync_directory(self.path.parent)
        except BaseException:
            with suppress(OSError):
                self._files.unlink(name)
            self._files.close(fd)
            raise
        self._fd, self._status, gone = fd, status, self._fd
        with suppress(OSError):  # nobody reads it any more
            self._files.close(gone)

    def close(self) -> None:
        self._files.close(self._fd)

    def start(self, size: int) -> bytes:
        """Its first bytes."""
        with naming(self.path):
            return self._files.read(self._fd, size, 0)

    def spans(self, start: int, stop: int) -> Iterator[tuple[Span, bytes]]:
        """The groups and damages from `start`, which is where a group starts, to `stop`, each with its bytes. Memory
        holds the largest group or CHUNK bytes, whichever is more."""
        at, size = start, CHUNK
        while at < stop:
            with naming(self.path):
                data = self._files.read(self._fd, min(size, stop - at), at)
            read_on = at
            for span in scan(data, at):
                yield span, data[span.start - read_on : span.end - read_on]
                at = span.end
            if at > read_on:
                size = CHUNK
            elif len(data) >= stop - at or len(data) < size:
                yield Span(at, stop, None), data
                return
            else:
                size *= 2


class Reader:
    """Reads groups for one cursor, in order: one call at a time, in whatever thread. It may be closed from another thread
    meanwhile."""

    def __init__(self, directory: Path, journal: str, files: Files | None = None) -> None:
        self._directory = directory
        self._journal = journal
        self._files = files or Files()
        self._file: SegmentFile | None = None
        self._end: Position | None = None
        self._routes = ""
        self._guard = threading.Lock()
        self._reading = False
        self._closed = False

    def read(self, position: Position, routes: str | None, stop: int) -> list[Group]:
        """Some groups from `position` on, at least one, none after offset `stop` of its segment. `routes` is the table
        in force at `position` if that is known to be where a group starts; else the segment is read from its start.
        Nothing once it is closed. Raises OSError."""
        with self._guard:
            if self._closed:
                return []
            self._reading = True
        try:
            return self._read(position, routes, stop)
        finally:
            with self._guard:
                self._reading = False
                if self._closed:
                    self._let_go()

    def _read(self, position: Position, routes: str | None, stop: int) -> list[Group]:
        file = self._open(position.segment)
        if routes is None and position == self._end:
            routes = self._routes
        groups: list[Group] = []
        size = 0
        for span, data in file.spans(position.offset if routes is not None else 0, stop):
            if span.commit is not None and span.end <= position.offset and b"!routes" not in data[:4096]:
                continue
            group = self._group(span, data, position.segment, routes or "")
            routes = group.routes
            if span.end <= position.offset:
                continue
            groups.append(group.after(position.offset))
            size += len(data)
            if size >= CHUNK:
                break
        if groups:
            self._end, self._routes = groups[-1].end, groups[-1].routes
        return groups

    def _group(self, span: Span, data: bytes, segment: int, routes: str) -> Group:
        fault = ""
        if span.commit is not None:
            try:
                return decode_group(data, span, self._journal, segment, routes)
            except Exception as error:  # noqa: BLE001  # whatever it is, it must not hold up what follows
                fault = f"{type(error).__name__}: {error}"
        start, end = (Position(self._journal, segment, at) for at in (span.start, span.end))
        return Group(start, end, 0, routes, damaged=data, fault=fault)

    def _open(self, number: int) -> SegmentFile:
        if self._file is None or self._file.number != number:
            self._let_go()
            self._file = SegmentFile(self._directory, number, self._files)
        return self._file

    def _let_go(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            file.close()

    def close(self) -> None:
        """For good. Where a thread is reading, its file is closed once that is done."""
        with self._guard:
            self._closed = True
            if not self._reading:
                self._let_go()
