"""What the journal does to its directory. All of it blocks: after `open` it runs in the journal's thread alone."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from twisted.logger import Logger

from wafermon.journal.groups import (
    Group,
    Head,
    Mark,
    Rejected,
    encode_blocks,
    encode_commit,
    encode_routes,
)
from wafermon.journal.segments import (
    SegmentFile,
    path_of,
    segments_in,
    sync_directory,
    write_all,
)
from wafermon.journal.state import State
from wafermon.model.blocks import Block
from wafermon.model.errors import JournalLocked
from wafermon.model.position import Position
from wafermon.model.settings import Journal as JournalSettings

RESERVE_BYTES = 1 << 20
"""Kept free beside the journal, so that a full disk leaves room for the bookkeeping that empties it."""
MARKS_KEPT = 30 * 86_400 * 1_000_000
"""Microseconds for which the marks of a client that is gone are remembered."""
MARKS_CURSOR = "!marks"


@dataclass
class Recovered:
    """What `open` found."""

    lengths: dict[int, int]
    """The segments' lengths in bytes, by ascending number; the last one is new and empty."""
    marks: list[Mark]
    """Those that no checkpoint holds."""
    last_time: int
    """The highest receive time in it, in microseconds since the epoch."""


class Disk:
    """The directory: its lock, its state, its segments and its reserve."""

    log = Logger()

    def __init__(self, settings: JournalSettings, probe: Callable[[str], None]) -> None:
        self.dir = Path(settings.dir)
        self.damaged = 0
        """Stretches that could not be read and were set aside."""
        self.sealed = False
        """Whether a segment was sealed since somebody last looked and set this back."""
        self.state: State
        self.settings = settings
        self._probe = probe
        self._lock = -1
        self._segment: SegmentFile
        self._before = 0
        """The segment before that."""
        self._routes = ""
        self._reserved = False

    def open(self) -> Recovered:
        """Take the directory, recover what is there, begin a new segment. Raises JournalLocked, OSError, sqlite3.Error."""
        self.dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = lock(self.dir)
        self.state = self._open_state()
        recovered = self._recover()
        self._look_for_gaps(recovered.lengths)
        self._begin_segment(max(recovered.lengths, default=0))
        recovered.lengths[self._segment.number] = 0
        self._make_reserve()
        return recovered

    def _open_state(self) -> State:
        """What is remembered; where that is gone and segments are there, their journal goes on."""
        path, found = self.dir / "state.db", segments_in(self.dir)
        if path.exists() or not any(found.values()):
            return State(path)
        heads = [head for number in found if (head := self._head(number)) is not None]
        message = "{path} is gone. Backends that keep no position of their own get again what is still in the journal"
        self.log.error(message, path=str(path))
        return State(path, journal=heads[0].journal if heads else "", lost=max(found))

    def _head(self, number: int) -> Head | None:
        with path_of(self.dir, number).open("rb") as file:
            return Head.decode(file.readline(4096))

    def _look_for_gaps(self, lengths: Mapping[int, int]) -> None:
        """Segments are deleted from the oldest on: one that is missing between two others was taken away."""
        for number in lengths:
            head = self._head(number)
            if head is not None and head.after not in lengths and head.after > min(lengths):
                self.damaged += 1
                message = "Journal segment {segment} is missing: what it held and was not delivered yet is lost"
                self.log.error(message, segment=head.after)

    def _recover(self) -> Recovered:
        recovered = Recovered({}, [], 0)
        found = segments_in(self.dir)
        marked = self.state.cursors().get(MARKS_CURSOR, Position(self.state.journal, 0, 0))
        for number, length in found.items():
            last = number == max(found)
            if last or number >= marked.segment:
                length = self._recover_segment(number, length, recovered, last=last)
            if length:
                recovered.lengths[number] = length
            else:
                path_of(self.dir, number).unlink()
        return recovered

    def _recover_segment(self, number: int, length: int, recovered: Recovered, *, last: bool) -> int:
        """Read a segment's marks; where it is the last one, cut its unfinished tail. Answers with its length."""
        file = SegmentFile(self.dir, number)
        good = 0
        for span, data in file.spans(0, length):
            if span.commit is not None:
                good = span.end
                recovered.last_time = max(recovered.last_time, span.commit["time"])
                recovered.marks += [Mark(*mark) for mark in span.commit["marks"]]
            elif span.end < length or b"\n!commit " in data:
                self.set_aside(Position(self.state.journal, number, span.start), data)
        file.close()
        if last and good < length:
            message = "Journal segment {segment}: cutting {bytes} unfinished bytes at its end"
            self.log.info(message, segment=number, bytes=length - good)
            os.truncate(file.path, good)
            return good
        return length

    def close(self) -> None:
        self._segment.close()
        self.state.close()
        os.close(self._lock)

    # -- writing

    def write(
        self,
        blocks: Sequence[Block],
        rejected: Sequence[Rejected],
        marks: Sequence[Mark],
        time: int,
        routes: str,
    ) -> Group:
        """One group to disk, whole or not at all. Raises OSError or sqlite3.Error."""
        if not self._reserved:
            self._make_reserve()
        body = [block.raw for block in blocks]
        refused = [one.encode() for one in rejected]
        if self._segment.length and self._segment.length + sum(map(len, body)) > self.settings.segment_bytes:
            self._segment.sync()
            self._seal()
        segment = self._segment
        if not segment.length:
            head = Head(self.state.journal, segment.number, self._before).encode(routes)
        else:
            head = encode_routes(routes) if routes != self._routes else b""
        head += encode_blocks(blocks)
        lines = [head, *body, *refused]
        start = Position(self.state.journal, segment.number, segment.length)
        self._append([*lines, encode_commit(lines, time, marks)])
        self._routes = routes
        group = Group(start, start._replace(offset=segment.length), time, routes, marks=marks)
        offset = start.offset + len(head)
        for block in blocks:
            group.blocks.append((offset, block))
            offset += len(block.raw)
        for one, encoded in zip(rejected, refused, strict=True):
            group.rejected.append((offset, one))
            offset += len(encoded)
        return group

    def _append(self, parts: Sequence[bytes]) -> None:
        segment = self._segment
        self._probe("append")
        try:
            segment.append(parts)
        except OSError:
            segment.cut()
            raise
        if self.settings.sync == "always":
            self._probe("sync")
            try:
                segment.sync()
            except OSError:
                # What the kernel did with the pages is unknown: nothing more goes behind them.
                segment.cut()
                self._seal()
                raise
        segment.keep(sum(map(len, parts)))

    def _seal(self) -> None:
        """End this segment, begin the next one."""
        self._probe("seal")
        before = self._segment
        self._begin_segment(before.number if before.length else self._before)
        before.close()
        if not before.length:
            before.path.unlink()
        self.sealed = True

    def _begin_segment(self, before: int) -> None:
        self._before = before
        number = max([self.state.last_segment, *segments_in(self.dir)]) + 1
        self.state.use_segment(number)
        self._segment = SegmentFile(self.dir, number, create=True)

    def sync(self) -> None:
        self._segment.sync()

    # -- bookkeeping

    def save(self, positions: Mapping[str, Position | None], marks: Iterable[Mark], now: int) -> None:
        """See `State.save`."""
        self._probe("checkpoint")
        self.state.save(positions, marks, now, now - MARKS_KEPT)

    def delete(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._probe("delete")
            path_of(self.dir, number).unlink(missing_ok=True)
        sync_directory(self.dir)

    def set_aside(self, position: Position, data: bytes) -> None:
        """Keep what can't be read for a person to look at."""
        directory = self.dir / "damaged"
        directory.mkdir(exist_ok=True, mode=0o700)
        path = directory / f"{position.segment:012d}-{position.offset}"
        if path.exists():
            return
        with open(path, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(data)
        self.damaged += 1
        self.log.error(
            "Journal segment {segment} is damaged at {offset}: {bytes} bytes set aside in {path}",
            segment=position.segment,
            offset=position.offset,
            bytes=len(data),
            path=path,
        )

    def _make_reserve(self) -> None:
        fd = os.open(self.dir / "reserve", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            write_all(fd, bytes(RESERVE_BYTES), 0)
            self._reserved = True
        except OSError:
            self.drop_reserve()
            raise
        finally:
            os.close(fd)

    def drop_reserve(self) -> None:
        """Make room for a checkpoint. No group is written before the reserve is there again."""
        (self.dir / "reserve").unlink(missing_ok=True)
        self._reserved = False


def lock(directory: Path) -> int:
    """Take a journal's directory for this process, until the answered descriptor is closed. Raises JournalLocked."""
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.pread(fd, 20, 0).decode(errors="replace").strip()
        os.close(fd)
        raise JournalLocked(f"{directory} is in use by process {owner or 'unknown'}") from error
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd
