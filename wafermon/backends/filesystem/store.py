"""Lines into files, exactly once, whatever stops the process or the disk. Everything here blocks.

What recovery rests on:

1. A file is in the checkpoint, with its length, before its first byte is written.
2. A record of the checkpoint is written only when all bytes that it counts are synced.
3. So at every moment each byte beyond the checkpoint is in a file that the checkpoint lists, and there it is the end:
   to recover is to cut the listed files back to their lengths. A file is only ever cut if it is the listed inode.
4. A file is rotated, closed or forgotten only when all its bytes count.
5. A listed file that something else renamed is looked for by its inode, and cut where it is now.
6. Nothing is known of a file whose sync failed: it is rotated, and stays listed, so that it is cut again at each start, until
   it is gone. What was not synced is written to a new file.

Paths are those of the real directories: two names of one directory, by a symlink, are one. A write costs one sync for each of
its files, however many batches it has, and one for the checkpoint. The disk is told of all files before the first of them is
waited for: a file system's journal then takes many of them at a time.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import stat
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from twisted.logger import Logger

from wafermon.backends.filesystem.checkpoint import Checkpoint, Entry
from wafermon.backends.filesystem.moved import find_inodes
from wafermon.backends.filesystem.names import Template
from wafermon.backends.filesystem.notes import Notes
from wafermon.files import Files, NotOurs, naming
from wafermon.interfaces import Batch, Position, PositionMoved, RetryableError
from wafermon.model.messages import loads

LEAST_OPEN, MOST_OPEN = 256, 2048
"""Files that are open at once, by how many the process may have; the one that was written longest ago is closed first."""
IDLE = 300
"""Seconds after which a file that nobody writes to is closed."""
MOST_BYTES = 16 << 20
"""What is written before it is synced."""
FILE_MODE = 0o640
DIRECTORY_MODE = 0o750
HIGHEST = 10**12 - 1
"""The highest number of a rotated file; a name with a higher one is not ours."""
_MOST_TAIL = 256 << 20
"""Bytes that may be cut off a file that something else renamed."""


@dataclass
class OpenFile:
    """A file we append to."""

    fd: int
    device: int
    inode: int
    length: int
    """All of it counts, but for what `FileStore.write` is just adding."""
    used: float
    shared: bool = False
    """Something else wrote to it while we did: it is looked at anew before it is written again."""

    @property
    def entry(self) -> Entry:
        return Entry(self.inode, self.length)


class FileStore:
    """The files of one backend. Its methods may be called from any thread, also at the same time."""

    log = Logger()

    def __init__(
        self, names: Template, rotate_bytes: int, state_dir: Path, now: Callable[[], float], files: Files | None = None
    ) -> None:
        self.names = names
        self.rotate_bytes = rotate_bytes
        self.notes = Notes(now)
        self.written = 0
        """Bytes since start."""
        self._now = now
        self._files = files or Files()
        self._checkpoint = Checkpoint(self._files, state_dir)
        self._most_open = _most_open()
        self._open: dict[str, OpenFile] = {}
        self._by_inode: dict[tuple[int, int], str] = {}
        """The path of each open file by its device and inode."""
        self._doubtful: set[str] = set()
        """Paths of files whose sync failed."""
        self._ready = False
        self._unclean = False
        self._lock = threading.Lock()

    @property
    def most_bytes(self) -> int:
        """How much one `write` of several batches may hold, so that rotation keeps its bound."""
        return min(self.rotate_bytes or MOST_BYTES, MOST_BYTES)

    @property
    def open_files(self) -> int:
        return len(self._open)

    # -- life ----------------------------------------------------------------------------------------------------

    def open(self) -> Position | None:
        """Recover, and answer with the position. Raises OSError."""
        with self._lock:
            self._ready = False
            self._close_files()
            self._checkpoint.close()
            self._checkpoint.load()
            if self._checkpoint.found:
                self.notes.warn(str(self._checkpoint.path), self._checkpoint.found)
            self._recover(self._checkpoint.files)
            kept = {path: entry for path, entry in self._checkpoint.files.items() if self._stays_listed(path)}
            self._checkpoint.files = kept
            self._checkpoint.begin()
            self._doubtful.clear()
            self._unclean = False
            self._ready = True
            return self._checkpoint.position

    def close(self) -> None:
        """Release everything. Raises OSError; then all is released just the same, and `open` recovers."""
        with self._lock:
            was_ready, self._ready = self._ready, False
            try:
                if was_ready and not self._unclean:
                    done = [path for path in self._checkpoint.files if not self._is_doubtful(path)]
                    if done:
                        self._checkpoint.commit(None, dict.fromkeys(done))
            except PositionMoved:
                pass  # another checkpoint was put in its place: it is left as it is
            finally:
                self._close_files()
                self._checkpoint.close()

    def _close_files(self) -> None:
        while self._open:
            self._close(self._open.popitem()[1])

    def _close(self, file: OpenFile) -> None:
        self._by_inode.pop((file.device, file.inode), None)
        with suppress(OSError):  # all that counts is synced
            self._files.close(file.fd)

    def _is_doubtful(self, path: str) -> bool:
        """See 6 above."""
        return path in self._doubtful or self.names.is_rotated(path)

    def _stays_listed(self, path: str) -> bool:
        """See 6 above."""
        if not self.names.is_rotated(path):
            return False
        try:
            self._files.status_of(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    # -- recovery ------------------------------------------------------------------------------------------------

    def _recover(self, entries: Mapping[str, Entry]) -> None:
        """Cut off what does not count."""
        absent: dict[str, Entry] = {}
        for path, entry in entries.items():
            with naming(path):
                if not self._recover_listed(path, entry):
                    absent[path] = entry
        if not absent:
            return
        places: dict[int, str] = {}
        for directory in dict.fromkeys(map(os.path.dirname, absent)):
            missing = {entry.inode for entry in absent.values()} - places.keys()
            if missing:
                places |= find_inodes(self._files, os.path.join(directory, "x"), self.names.root, missing)
        for path, entry in absent.items():
            place = places.get(entry.inode)
            if (place is None or not self._recover_moved(path, entry, place)) and not self.names.is_rotated(path):
                self.notes.warn(path, "is gone or another file now, and is not found by its inode; nothing was cut off")

    def _recover_listed(self, path: str, entry: Entry) -> bool:
        """Cut a file under its name; False where it is not there."""
        fd = self._open_listed(path, entry)
        if fd is None:
            return False
        try:
            found = self._files.status(fd)
            if found.st_size < entry.length:
                cut = f" has {found.st_size} bytes of {entry.length}"
                self.notes.warn(path, "was cut by something else:", cut)
            elif found.st_size > entry.length:
                # Inode numbers are used again. All that we count ends in a newline: where it doesn't, it isn't ours.
                if self._ends_line(fd, entry.length):
                    self._files.cut(fd, entry.length)
                else:
                    self.notes.warn(path, "holds what was not written here; it was left alone")
        finally:
            self._files.close(fd)
        return True

    def _open_listed(self, path: str, entry: Entry) -> int | None:
        """The listed file, where it is still under its name."""
        try:
            fd = self._files.open(path, os.O_RDWR | os.O_NONBLOCK, FILE_MODE)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        try:
            found = self._files.status(fd)
            if found.st_ino == entry.inode and stat.S_ISREG(found.st_mode):
                return fd
        except BaseException:
            self._files.close(fd)
            raise
        self._files.close(fd)
        return None

    def _recover_moved(self, path: str, entry: Entry, place: str) -> bool:
        """Cut a file that something else renamed; False where it isn't that one. Inode numbers are used again: only where all
        beyond its length are messages is it ours for certain."""
        try:
            fd = self._files.open_ours(place, os.O_RDWR)
        except (FileNotFoundError, NotOurs):
            return False
        try:
            with naming(place):
                found = self._files.status(fd)
                if found.st_ino != entry.inode or found.st_size < entry.length or not self._ends_line(fd, entry.length):
                    return False
                if found.st_size > entry.length:
                    if not self._is_ours(fd, entry.length, found.st_size):
                        return False
                    self._files.cut(fd, entry.length)
                self.notes.mention(path, f"was moved to {place}; what does not count was cut off there")
                return True
        finally:
            self._files.close(fd)

    def _ends_line(self, fd: int, length: int) -> bool:
        return not length or self._files.read(fd, 1, length - 1) == b"\n"

    def _is_ours(self, fd: int, start: int, end: int) -> bool:
        """Whether there is nothing but messages from `start` to `end`; the last may be torn."""
        if end - start > _MOST_TAIL:
            return False
        rest = b""
        for at in range(start, end, 1 << 20):
            *lines, rest = (rest + self._files.read(fd, min(1 << 20, end - at), at)).split(b"\n")
            if not all(map(_is_message, lines)):
                return False
        return not rest.strip(b"\0") or rest.startswith(b"{")

    # -- writing -------------------------------------------------------------------------------------------------

    def write(self, *batches: Batch) -> bool:
        """Make batches durable, one or more in order, and tell whether a file was rotated. Raises OSError: then nothing of them
        counts; PositionMoved: then `open` is to be asked."""
        with self._lock:
            if not self._ready:
                raise RetryableError("the files are not open")
            self._checkpoint.check()
            if self._unclean:
                self._cut_back()
            at = self._checkpoint.position
            # What is there already: its caller gave up waiting, and it was stored all the same.
            todo = [one for one in batches if not (at and at.journal == one.end.journal and one.end <= at)]
            if not todo:
                return False
            groups = self._grouped(todo)
            self._unclean = True
            try:
                rotated = self._append(groups, todo[-1].end)
            except BaseException:
                self._cut_back()
                raise
            self._unclean = False
            self.written += sum(batch.size for batch in todo)
            return rotated

    def _grouped(self, batches: Iterable[Batch]) -> dict[str, list[bytes]]:
        """Their lines by the path of their file, in pieces. Two directories that are one, by a symlink, are one."""
        real: dict[str, str] = {}
        found: dict[str, list[bytes]] = {}
        for batch in batches:
            for path, pieces in self.names.group(batch).items():
                if path not in real:
                    directory, name = os.path.split(path)
                    if directory not in real:
                        real[directory] = os.path.realpath(directory)
                    real[path] = os.path.join(real[directory], name)
                found.setdefault(real[path], []).extend(pieces)
        return found

    def _append(self, groups: Mapping[str, Sequence[bytes]], end: Position) -> bool:
        rotated = False
        sizes = {path: sum(map(len, pieces)) for path, pieces in groups.items()}
        lengths: dict[str, int] = {}
        paths = iter(groups)
        while chunk := list(islice(paths, self._most_open)):
            self._make_room(chunk)
            for path in chunk:
                with naming(path):
                    rotated |= self._prepare(path, sizes[path])
            files = {path: self._open[path] for path in chunk}
            fresh = {path: file.entry for path, file in files.items() if self._checkpoint.files.get(path) != file.entry}
            if fresh:
                self._checkpoint.commit(None, fresh)
            for path, file in files.items():
                with naming(path):
                    self._files.append_all(file.fd, b"".join(groups[path]))
            if len(files) > 1:
                for file in files.values():
                    self._files.begin_sync(file.fd, file.length)
            for path, file in files.items():
                with naming(path):
                    self._sync(path, file)
                    lengths[path] = self._length_now(path, file, sizes[path])

        changes: dict[str, Entry | None] = {
            path: None for path in self._checkpoint.files if path not in self._open and not self._is_doubtful(path)
        }
        for path, length in lengths.items():
            if path in self._open:
                changes[path] = Entry(self._open[path].inode, length)
        self._checkpoint.commit(end, changes)
        for path, length in lengths.items():
            if path in self._open:
                self._open[path].length = length
        return rotated

    def _sync(self, path: str, file: OpenFile) -> None:
        try:
            self._files.sync(file.fd)
        except BaseException:
            self._doubtful.add(path)
            raise

    def _length_now(self, path: str, file: OpenFile, added: int) -> int:
        """How long it is with what was added. Where something else wrote to it meanwhile, all of that counts, so that nothing
        of ours is ever cut off."""
        length = self._files.status(file.fd).st_size
        if length != file.length + added:
            self._note_change(path, file.length + added, length)
            file.shared = True
        return length

    def _note_change(self, path: str, expected: int, found: int) -> None:
        self.notes.warn(
            path, "has another length than was left: something else writes to it", f" ({found - expected:+} bytes)"
        )

    def _cut_back(self) -> None:
        """After a failure: back to the checkpoint. Raises OSError; it is then tried again before the next batch."""
        self._checkpoint.heal()
        closed: dict[str, Entry] = {}
        for path, entry in self._checkpoint.files.items():
            file = self._open.get(path)
            if file is None:
                closed[path] = entry
            elif file.inode == entry.inode:
                with naming(path):
                    if self._files.status(file.fd).st_size > entry.length:
                        self._files.truncate(file.fd, entry.length)
                        self._sync(path, file)
        self._recover(closed)
        self._unclean = False

    def _make_room(self, paths: list[str]) -> None:
        wanted = set(paths)
        excess = len(wanted | self._open.keys()) - self._most_open
        for path in list(self._open):
            if excess <= 0:
                break
            if path not in wanted:
                self._close(self._open.pop(path))
                excess -= 1

    def _prepare(self, path: str, size: int) -> bool:
        """Have `path` open, the right file and with room for `size` bytes; tell whether one was rotated for that."""
        file = self._open.get(path)
        if file is not None and not self._is_there(path, file):
            self._close(self._open.pop(path))
            file = None
        if file is None:
            file = self._open_file(path)
        self._open.pop(path, None)
        self._keep_open(path, file)  # now the last one used
        file.used = self._now()
        doubtful = path in self._doubtful
        if not doubtful and (not self.rotate_bytes or not file.length or file.length + size <= self.rotate_bytes):
            return False
        self._rotate(path)
        self._keep_open(path, self._open_file(path))
        return True

    def _keep_open(self, path: str, file: OpenFile) -> None:
        self._open[path] = file
        self._by_inode[file.device, file.inode] = path

    def _is_there(self, path: str, file: OpenFile) -> bool:
        """Whether an open file is still what its name means, and as long as we left it."""
        try:
            found = self._files.status_behind(path)
        except (FileNotFoundError, NotADirectoryError):
            self.notes.mention(path, "was moved away or removed; a new one is begun")
            return False
        if (found.st_dev, found.st_ino) != (file.device, file.inode):
            self.notes.mention(path, "was replaced; the new one is gone on with")
            return False
        if found.st_size != file.length:
            self._note_change(path, file.length, found.st_size)
            return False
        return not file.shared

    def _open_file(self, path: str) -> OpenFile:
        directory = os.path.dirname(path)
        self._files.ensure_directory(directory, DIRECTORY_MODE)
        fd = self._files.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, FILE_MODE)
        try:
            found = self._files.status(fd)
            if not stat.S_ISREG(found.st_mode):
                raise FileExistsError(errno.EEXIST, "is not a regular file", path)
            other = self._by_inode.get((found.st_dev, found.st_ino), path)
            if other != path:
                raise FileExistsError(errno.EEXIST, f"is a second name of {other}; remove one of them", path)
            length = found.st_size
            if not length:
                self._files.sync_directory(directory)
            elif not self._ends_line(fd, length):
                self._files.append_all(fd, b"\n")  # something else left half a line
                length += 1
            return OpenFile(fd, found.st_dev, found.st_ino, length, self._now())
        except BaseException:
            self._files.close(fd)
            raise

    # -- rotation ------------------------------------------------------------------------------------------------

    def _rotate(self, path: str) -> str:
        """Give a file whose bytes all count its next number. It must not be open, or it is closed here."""
        target = self.names.rotated(path, self._next_number(path))
        # Forgotten first: were it renamed first, a crash between would leave a listed file that has to be looked for.
        changes: dict[str, Entry | None] = {path: None} if path in self._checkpoint.files else {}
        if path in self._doubtful and (file := self._open.get(path)) is not None:
            changes[target] = file.entry  # looked for by its inode until it is renamed
        if changes:
            self._checkpoint.commit(None, changes)
        self._files.rename(path, target)
        self._doubtful.discard(path)
        if file := self._open.pop(path, None):
            self._close(file)
        self._files.sync_directory(os.path.dirname(path))
        return target

    def _next_number(self, path: str) -> int:
        """One more than the highest, but for numbers that only a stranger's file can have; never one that is taken."""
        stem, suffix = os.path.basename(path.removesuffix(self.names.suffix)), self.names.suffix
        rotated = re.compile(rf"{re.escape(stem)}\.([1-9][0-9]*){re.escape(suffix)}(?:\.gz(?:\.tmp)?)?")
        names = self._files.names(os.path.dirname(path))
        taken = {int(match[1]) for match in map(rotated.fullmatch, names) if match}
        return max(number for number in (1, *(one + 1 for one in taken)) if number not in taken and number <= HIGHEST)

    def retire(self, path: str, unchanged: Callable[[os.stat_result], bool]) -> str | None:
        """Rotate a file that is not in use and still `unchanged`; its new name, or None. Raises OSError."""
        with self._lock:
            found = self._files.status_of(path)
            if not self._ready or self._in_use(path, found) or not unchanged(found):
                return None
            return self._rotate(path)

    def remove(self, path: str, unchanged: Callable[[os.stat_result], bool]) -> bool:
        """Delete a file that is not in use and still `unchanged`, and the directories that this leaves empty."""
        with self._lock:
            found = self._files.status_of(path)
            if not self._ready or self._in_use(path, found) or not unchanged(found):
                return False
            self._files.unlink(path)
            directory = os.path.dirname(path)
            while directory != self.names.root and not os.path.islink(directory) and not self._files.names(directory):
                self._files.remove_directory(directory)
                directory = os.path.dirname(directory)
            return True

    def close_idle(self) -> None:
        """Close what nobody writes to."""
        with self._lock:
            if self._unclean or not self._ready:
                return
            idle = [
                path
                for path, file in self._open.items()
                if abs(self._now() - file.used) > IDLE and path not in self._doubtful
            ]
            if idle:
                self._checkpoint.commit(None, dict.fromkeys(idle))
            for path in idle:
                self._close(self._open.pop(path))

    def _real(self, path: str) -> str:
        directory, name = os.path.split(path)
        return os.path.join(os.path.realpath(directory), name)

    def _in_use(self, path: str, found: os.stat_result) -> bool:
        if (found.st_dev, found.st_ino) in self._by_inode:
            return True
        path = self._real(path)
        return path in self._open or (path in self._checkpoint.files and not self.names.is_rotated(path))


def _most_open() -> int:
    """A quarter of what the process may have open: connections and other backends want theirs."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_OPEN if soft == resource.RLIM_INFINITY else max(LEAST_OPEN, min(MOST_OPEN, soft // 4))


def _is_message(line: bytes) -> bool:
    try:
        message = loads(line)
    except ValueError:
        return False
    return isinstance(message, dict) and "type" in message and "service" in message
