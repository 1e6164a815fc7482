"""What the journal does to its directory. All of it blocks: after `open`, `write` and what is below it run in the journal's
thread alone.

The end of the segment that is written to is in one of three states:

| state | what stands after the bytes that count | before the next write |
|---|---|---|
| CLEAN | nothing | - |
| TORN | bytes of an append that failed | cut them off; where that fails: SPOILT |
| SPOILT | bytes of which a failed sync says nothing | begin another segment, whose head says where this one ended |

A call that fails or hangs leaves the state that its bytes need, so that nothing is ever written after garbage; and since a new
segment gets its file from scratch, nothing that is wrong with the old file stops the journal for ever.
"""

from __future__ import annotations

import enum
import fcntl
import math
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from twisted.logger import Logger

from wafermon.files import Files
from wafermon.journal.clock import Known
from wafermon.journal.errors import CannotOpen
from wafermon.journal.groups import (
    Group,
    Head,
    Mark,
    Presence,
    Rejected,
    Stamp,
    encode_blocks,
    encode_commit,
    encode_presence,
    encode_routes,
)
from wafermon.journal.recovery import Recovered, Recovery, heads_in
from wafermon.journal.segments import SegmentFile, path_of, segments_in
from wafermon.journal.skips import Skip
from wafermon.journal.state import State
from wafermon.model.blocks import Block
from wafermon.model.errors import JournalLocked
from wafermon.model.position import Position
from wafermon.model.settings import Journal as JournalSettings

RESERVE_BYTES = 1 << 20
"""Kept free beside the journal, so that a full disk leaves room for the bookkeeping that empties it."""
MARKS_CURSOR = "!marks"
LOCK = "lock"


class End(enum.Enum):
    """See above."""

    CLEAN = "clean"
    TORN = "torn"
    SPOILT = "spoilt"


class Disk:
    """The directory: its lock, its state, its segments and its reserve."""

    log = Logger()

    def __init__(self, settings: JournalSettings, probe: Callable[[str], None], files: Files | None = None) -> None:
        self.dir = Path(settings.dir)
        self.damaged = 0
        """Stretches that could not be read and were set aside."""
        self.sealed = False
        """Whether a segment was sealed since this was last read and set back."""
        self.full = ""
        """Why `open` could not hold the reserve back; else empty."""
        self.state: State
        self.settings = settings
        self._files = files or Files()
        self._probe = probe
        self._lock = -1
        self._segment: SegmentFile
        self._messages = 0
        """In that segment."""
        self._end = End.CLEAN
        self._before = (0, 0, 0)
        """The segment before that one: its number, its bytes, its messages."""
        self._dropped: list[int] = []
        """Segments since then in which nothing counted."""
        self._routes = ""
        self._reserved = False
        self._aside = threading.Lock()

    # -- life

    def open(self) -> Recovered:
        """Take the directory, recover what is there, begin a new segment. Raises JournalLocked, or CannotOpen for whatever
        else goes wrong; nothing is held then."""
        try:
            self._files.ensure_directory(self.dir)
            self._lock = lock(self.dir)
            return self._open()
        except JournalLocked:
            raise
        except CannotOpen:
            self._let_go()
            raise
        except Exception as error:  # whatever it is: one line that names the path
            self._let_go()
            raise CannotOpen(f"{self.dir} can't be opened: {_said(error)}") from error

    def _open(self) -> Recovered:
        try:
            return self._take_up()
        except (OSError, sqlite3.Error) as error:
            # A disk that is full: the space that was reserved for this is released. Where that changes nothing, it fails again.
            if not (self.dir / "reserve").exists():
                raise
            message = "The journal in {dir} can't be opened ({error}): trying again without its reserve"
            self.log.warn(message, dir=self.dir, error=error)
            self.drop_reserve()
            self._close_state()
            return self._take_up()

    def _take_up(self) -> Recovered:
        self.state = self._open_state()
        marked = self.state.cursors().get(MARKS_CURSOR, Position(self.state.journal, 0, 0))
        aside, missing = self.set_aside, self._note_missing
        ids = {self.state.journal, *self.state.formerly}
        recovered = Recovery(self.dir, self._files, self.state.journal, marked.segment, aside, missing, ids).run()
        if recovered.gone == (0, 0) and self.state.gone[0] < min(recovered.lengths, default=math.inf):
            recovered.gone = self.state.gone
        number = max(recovered.lengths, default=0)
        unknown = -1 if number else 0
        self._before = (number, recovered.lengths.get(number, 0), recovered.messages.get(number, unknown))
        self._begin_segment()
        recovered.lengths[self._segment.number] = 0
        known = [one for one in (recovered.known, self.state.known()) if one is not None]
        recovered.known = max(known, default=None)
        try:
            self._make_reserve()
        except OSError as error:
            self.full = f"can't write to {self.dir}: {_said(error)}"
            self.log.error("The journal starts on a full disk, to empty it: {error}", error=error)
        return recovered

    def _open_state(self) -> State:
        """What is remembered; where that is gone and segments are there, their journal goes on."""
        path, heads = self.dir / "state.db", heads_in(self.dir, self._files)
        if path.exists() or not any(segments_in(self.dir, self._files).values()):
            return self._state(path)
        journals = sorted({head.journal for head in heads.values() if head is not None})
        if len(journals) > 1:
            raise CannotOpen(
                f"{path} is gone, and the segments beside it belong to {len(journals)} journals "
                f"({', '.join(journals)}): leave those of one there"
            )
        message = "{path} is gone. Backends that keep no position of their own get again what is still in the journal"
        self.log.error(message, path=str(path))
        return self._state(path, journal="".join(journals), lost=max(heads))

    @staticmethod
    def _state(path: Path, *, journal: str = "", lost: int = 0) -> State:
        try:
            return State(path, journal=journal, lost=lost)
        except sqlite3.OperationalError:
            raise
        except (sqlite3.Error, ValueError) as error:
            raise CannotOpen(
                f"{path} can't be read ({error}): put a copy of it back, or move it away; the journal goes on without it then, "
                "and backends that keep no position of their own get again what is still in the journal"
            ) from error

    def _note_missing(self, what: str) -> None:
        self.damaged += 1

    def _let_go(self) -> None:
        """After an `open` that failed."""
        self._close_state()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _close_state(self) -> None:
        segment = self.__dict__.pop("_segment", None)
        if segment is not None:
            segment.close()
        state = self.__dict__.pop("state", None)
        if state is not None:
            state.close()

    def close(self) -> None:
        try:
            self._close_state()
        finally:
            os.close(self._lock)
            self._lock = -1

    # -- writing

    def write(
        self,
        blocks: Sequence[Block],
        rejected: Sequence[Rejected],
        marks: Sequence[Mark],
        stamp: Stamp,
        routes: str,
        presence: Sequence[Presence] = (),
    ) -> Group:
        """One group to disk, whole or not at all. Raises OSError or sqlite3.Error, and may be called again then."""
        if not self._reserved:
            self._make_reserve()
        body = [block.raw for block in blocks]
        refused = [one.encode() for one in rejected]
        self._make_ready(sum(map(len, body)))
        segment = self._segment
        if not segment.length:
            head = self._head().encode(routes)
        else:
            head = encode_routes(routes) if routes != self._routes else b""
        head += encode_blocks(blocks)
        lines = [head, *body, *refused, encode_presence(presence)]
        start = Position(self.state.journal, segment.number, segment.length)
        self._append([*lines, encode_commit(lines, stamp, marks)])
        self._routes = routes
        end = start._replace(offset=segment.length)
        group = Group(
            start, end, stamp.time, routes, marks=marks, presence=presence, elapsed=stamp.elapsed, back=stamp.back
        )
        offset = start.offset + len(head)
        for block in blocks:
            group.blocks.append((offset, block))
            offset += block.size
        for one, encoded in zip(rejected, refused, strict=True):
            group.rejected.append((offset, one))
            offset += len(encoded)
        self._messages += group.messages
        return group

    def _head(self) -> Head:
        before, ended, messages = self._before
        return Head(self.state.journal, self._segment.number, before, ended, messages, tuple(self._dropped))

    def _make_ready(self, size: int) -> None:
        """Let the segment be there, its end be clean, and it have room for so many bytes."""
        if not self._segment.is_there:
            self._make_again()
        if self._end is End.TORN:
            self._cut()
        if self._end is End.SPOILT:
            self._abandon()
        segment = self._segment
        if segment.length and segment.length + size > self.settings.segment_bytes:
            self.sync()
            self._seal()

    def _make_again(self) -> None:
        """Something removed the directory or the segment, or moved it away: nothing may be acknowledged that is in no file."""
        self._files.ensure_directory(self.dir)
        if not _is_at(self._lock, self.dir / LOCK):
            self._lock, gone = lock(self.dir), self._lock
            os.close(gone)
        self._make_reserve()
        self._segment.write_again()
        message = "{path} was removed or moved away while the journal wrote to it: all that counts of it is there again"
        self.log.error(message, path=self._segment.path)

    def _append(self, parts: Sequence[bytes]) -> None:
        segment = self._segment
        self._probe("append")
        self._end = End.TORN
        try:
            size = segment.append(parts)
        except Exception:
            self._cut()
            raise
        if self.settings.sync == "always":
            self._probe("sync")
            self._end = End.SPOILT
            try:
                segment.sync()
            except Exception:
                # What the kernel did with the pages is unknown: nothing more goes after them.
                self._try_to_abandon()
                raise
        segment.keep(size)
        self._end = End.CLEAN

    def _cut(self) -> None:
        """Cut off what a failed append left."""
        try:
            self._segment.truncate()
        except Exception as error:  # noqa: BLE001  # whatever it is: nothing is written after it
            self._end = End.SPOILT
            self.log.error("The journal can't cut a failed write off: {error}", error=error)
        else:
            self._end = End.CLEAN

    def _try_to_abandon(self) -> None:
        try:
            self._abandon()
        except Exception as error:  # noqa: BLE001  # the next write tries again
            self.log.error("The journal can't begin another segment yet: {error}", error=error)

    def _abandon(self) -> None:
        """Leave a spoilt segment. Its bytes are cut off where that works; where not, the next head says where it ended."""
        try:
            self._segment.truncate()
        except Exception as error:  # noqa: BLE001  # the next head says it too
            self.log.error("The journal can't cut off what was not synced: {error}", error=error)
        self._seal()

    def _seal(self) -> None:
        """End this segment, begin the next one."""
        self._probe("seal")
        before = self._segment
        here = (before.number, before.length, self._messages)
        kept = self._before, [*self._dropped]
        if before.length:
            self._before, self._dropped = here, []
        else:
            self._dropped.append(before.number)
        try:
            self._begin_segment()
        except BaseException:
            self._before, self._dropped = kept
            raise
        try:
            before.close()
            if not before.length:
                self._files.remove(before.path)
        except Exception as error:  # noqa: BLE001  # nothing is read from it any more; the next head says so
            self.log.error("The journal can't remove {path}: {error}", path=before.path, error=error)
        self.sealed = True

    def _begin_segment(self) -> None:
        number = max([self.state.last_segment, *segments_in(self.dir, self._files)]) + 1
        self.state.use_segment(number)
        self._segment = SegmentFile(self.dir, number, self._files, create=True)
        self._messages = 0
        self._end = End.CLEAN

    def sync(self) -> None:
        """Raises OSError; the segment is not written to any more then."""
        try:
            self._segment.sync()
        except Exception:
            self._end = End.SPOILT
            raise

    # -- bookkeeping

    def save(
        self,
        positions: Mapping[str, Position | None],
        marks: Iterable[Mark],
        time: Known,
        skips: Mapping[str, Sequence[Skip]] | None = None,
    ) -> None:
        """See `State.save`."""
        self._probe("checkpoint")
        self.state.save(positions, marks, time, skips or {})

    def delete(self, lengths: Mapping[int, int]) -> None:
        """Remove these segments, those that are there. That nobody needs them outlasts them: a backend may stand at their end."""
        last = max(lengths)
        if last > self.state.gone[0]:
            self.state.let_go(last, lengths[last])
        paths = []
        for number in lengths:
            self._probe("delete")
            paths.append(path_of(self.dir, number))
        self._files.remove(*paths)

    def set_aside(self, position: Position, data: bytes, fault: str = "") -> None:
        """Keep what can't be read for a person to look at. Raises OSError. For any thread."""
        directory = self.dir / "damaged"
        path = directory / f"{position.segment:012d}-{position.offset}"
        with self._aside:
            if path.exists():
                return
            self._files.ensure_directory(directory)
            self._files.replace(path, data)
            self.damaged += 1
        self.log.error(
            "Journal segment {segment} is damaged at {offset}: {bytes} bytes set aside in {path}{fault}",
            segment=position.segment,
            offset=position.offset,
            bytes=len(data),
            path=path,
            fault=f"; the checksum is good, but: {fault}" if fault else "",
        )

    def _make_reserve(self) -> None:
        path = self.dir / "reserve"
        fd = self._files.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
        try:
            self._files.write_all(fd, [bytes(RESERVE_BYTES)], 0)
            self._reserved = True
        except Exception:
            self.drop_reserve()
            raise
        finally:
            self._files.close(fd)

    def drop_reserve(self) -> None:
        """Make room for a checkpoint. No group is written before the reserve is there again."""
        self._reserved = False
        (self.dir / "reserve").unlink(missing_ok=True)


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False


def lock(directory: Path) -> int:
    """Take a journal's directory for this process, until the answered descriptor is closed. Raises JournalLocked."""
    fd = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(fd, 20, 0).decode(errors="replace").strip()
            raise JournalLocked(f"{directory} is in use by process {owner or 'unknown'}") from error
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        except OSError:
            pass  # A full disk: it is ours all the same.
    except BaseException:
        os.close(fd)
        raise
    return fd
