"""Lines into files, exactly once, whatever stops the process or the disk. Everything here blocks.

What recovery rests on:

1. A file is in the checkpoint, with its length, before its first byte is written.
2. A record of the checkpoint is written only when all bytes that it counts are synced.
3. So at every moment each byte beyond the checkpoint is in a file that the checkpoint lists, and there it is the end:
   to recover is to cut the listed files back to their lengths. A file is only ever cut if it is the listed inode.
4. A file is rotated, closed or forgotten only when all its bytes count.

A batch costs one sync for each of its files, and one for the checkpoint.
"""

from __future__ import annotations

import os
import re
import stat
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from twisted.logger import Logger

from wafermon.backends.filesystem.checkpoint import Checkpoint, Entry
from wafermon.backends.filesystem.names import Template
from wafermon.backends.filesystem.operations import Disk, naming
from wafermon.interfaces import Batch, Position
from wafermon.model.lograte import LogRate

MAX_OPEN = 256
"""Files that are open at once; the one that was written longest ago is closed first."""
IDLE = 300
"""Seconds after which a file that nobody writes to is closed."""


@dataclass
class OpenFile:
    """A file we append to."""

    fd: int
    device: int
    inode: int
    length: int
    """All of it counts, but for what `FileStore.write` is just adding."""
    used: float

    @property
    def entry(self) -> Entry:
        return Entry(self.inode, self.length)


class FileStore:
    """The files of one backend. Its methods may be called from any thread, also at the same time."""

    log = Logger()

    def __init__(
        self, names: Template, rotate_bytes: int, state_dir: Path, now: Callable[[], float], disk: Disk | None = None
    ) -> None:
        self.names = names
        self.rotate_bytes = rotate_bytes
        self.notes: list[str] = []
        """What was found amiss and could not be mended, for a person to read; the newest last."""
        self.written = 0
        """Bytes since start."""
        self._now = now
        self._about_files = LogRate(now)
        self._disk = disk or Disk()
        self._checkpoint = Checkpoint(self._disk, state_dir)
        self._open: dict[str, OpenFile] = {}
        self._unclean = False
        self._lock = threading.Lock()

    @property
    def open_files(self) -> int:
        return len(self._open)

    # -- life ----------------------------------------------------------------------------------------------------

    def open(self) -> Position | None:
        """Recover, and answer with the position. Raises OSError; `checkpoint.Damaged`."""
        with self._lock:
            self._close_files()
            self._checkpoint.load()
            for path, entry in self._checkpoint.files.items():
                with naming(path):
                    self._recover(path, entry)
            self._checkpoint.files.clear()
            self._checkpoint.begin()
            self._unclean = False
            return self._checkpoint.position

    def close(self) -> None:
        """Let go of everything. Raises OSError; then all is let go just the same, and `open` recovers."""
        with self._lock:
            try:
                if self._checkpoint.files and not self._unclean:
                    self._checkpoint.commit(None, dict.fromkeys(self._checkpoint.files))
            finally:
                self._close_files()
                self._checkpoint.close()

    def _close_files(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1].fd)

    def _recover(self, path: str, entry: Entry) -> None:
        """Cut off what does not count."""
        try:
            fd = self._disk.open(path, os.O_RDWR | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            return self._note(f"{path} is gone, and {entry.length} bytes with it, or was moved away")
        try:
            found = os.fstat(fd)
            if found.st_ino != entry.inode or not stat.S_ISREG(found.st_mode):
                return self._note(f"{path} is another file now; it was left alone")
            if found.st_size < entry.length:
                return self._note(f"{path} has {found.st_size} bytes of {entry.length}: something else cut it")
            if found.st_size > entry.length:
                # Inode numbers are used again. All that we count ends in a newline: where it doesn't, it isn't ours.
                if entry.length and os.pread(fd, 1, entry.length - 1) != b"\n":
                    return self._note(f"{path} holds what was not written here; it was left alone")
                self._disk.cut(fd, entry.length)
                self._disk.sync(fd)
        finally:
            os.close(fd)

    def _note(self, text: str) -> None:
        self._say(self.log.warn, f"Filesystem backend: {text}")
        path = text.partition(" ")[0]
        self.notes = [*[note for note in self.notes if note.partition(" ")[0] != path][-9:], text]

    def _say(self, log: Callable[..., None], text: str) -> None:
        """Other programs cause these lines, perhaps many."""
        self._about_files.log(
            lambda: log("{text}", text=text),
            lambda what: log("About the files of a backend: {what}", what=what),
        )

    # -- writing -------------------------------------------------------------------------------------------------

    def write(self, batch: Batch) -> bool:
        """Make a batch durable, and tell whether a file was rotated. Raises OSError: then nothing of it counts."""
        with self._lock:
            if self._unclean:
                self._cut_back()
            at = self._checkpoint.position
            if at and at.journal == batch.end.journal and batch.end <= at:
                return False  # its caller gave up waiting, and it was stored all the same
            groups = self.names.group(batch)
            self._unclean = True
            try:
                rotated = self._append(groups, batch.end)
            except BaseException:
                self._cut_back()
                raise
            self._unclean = False
            self.written += len(batch.raw)
            return rotated

    def _append(self, groups: Mapping[str, bytes], end: Position) -> bool:
        rotated = False
        lengths: dict[str, int] = {}
        paths = iter(groups)
        while chunk := list(islice(paths, MAX_OPEN)):
            self._make_room(chunk)
            for path in chunk:
                with naming(path):
                    rotated |= self._prepare(path, len(groups[path]))
            files = {path: self._open[path] for path in chunk}
            fresh = {path: file.entry for path, file in files.items() if self._checkpoint.files.get(path) != file.entry}
            if fresh:
                self._checkpoint.commit(None, fresh)
            for path, file in files.items():
                with naming(path):
                    self._disk.write(file.fd, groups[path])
                lengths[path] = file.length + len(groups[path])
            for path, file in files.items():
                with naming(path):
                    self._disk.sync(file.fd)

        changes: dict[str, Entry | None] = {path: None for path in self._checkpoint.files if path not in self._open}
        for path, length in lengths.items():
            if path in self._open:
                changes[path] = Entry(self._open[path].inode, length)
        self._checkpoint.commit(end, changes)
        for path, length in lengths.items():
            if path in self._open:
                self._open[path].length = length
        return rotated

    def _cut_back(self) -> None:
        """After a failure: back to the checkpoint. Raises OSError; it is then tried again before the next batch."""
        self._checkpoint.heal()
        for path, entry in self._checkpoint.files.items():
            with naming(path):
                file = self._open.get(path)
                if file is None:
                    self._recover(path, entry)
                elif file.inode == entry.inode and os.fstat(file.fd).st_size > entry.length:
                    self._disk.cut(file.fd, entry.length)
        self._unclean = False

    def _make_room(self, paths: list[str]) -> None:
        wanted = set(paths)
        excess = len(wanted | self._open.keys()) - MAX_OPEN
        for path in list(self._open):
            if excess <= 0:
                break
            if path not in wanted:
                os.close(self._open.pop(path).fd)
                excess -= 1

    def _prepare(self, path: str, size: int) -> bool:
        """Have `path` open, the right file and with room for `size` bytes; tell whether one was rotated for that."""
        file = self._open.pop(path, None)
        if file is not None and not self._is_there(path, file):
            os.close(file.fd)
            file = None
        if file is None:
            file = self._open_file(path)
        self._open[path] = file  # now the last one used
        file.used = self._now()
        if not self.rotate_bytes or not file.length or file.length + size <= self.rotate_bytes:
            return False
        self._rotate(path)
        self._open[path] = self._open_file(path)
        return True

    def _is_there(self, path: str, file: OpenFile) -> bool:
        """Whether an open file is still what its name means, and as long as we left it."""
        try:
            found = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            self._say(self.log.info, f"{path} was moved away or removed; a new one is begun")
            return False
        if (found.st_dev, found.st_ino) != (file.device, file.inode):
            self._say(self.log.info, f"{path} was replaced; the new one is gone on with")
            return False
        if found.st_size != file.length:
            self._note(f"{path} has {found.st_size} bytes, not {file.length}: something else writes to it")
            return False
        return True

    def _open_file(self, path: str) -> OpenFile:
        self._make_directory(os.path.dirname(path))
        fd = self._disk.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise FileExistsError(17, "is not a regular file", path)
            length = found.st_size
            if not length:
                self._disk.sync_directory(os.path.dirname(path))
            elif os.pread(fd, 1, length - 1) != b"\n":
                self._disk.write(fd, b"\n")  # something else left half a line
                length += 1
            return OpenFile(fd, found.st_dev, found.st_ino, length, self._now())
        except BaseException:
            os.close(fd)
            raise

    def _make_directory(self, path: str) -> None:
        if not os.path.isdir(path):
            self._make_directory(os.path.dirname(path))
            self._disk.make_directory(path)
            self._disk.sync_directory(os.path.dirname(path))

    # -- rotation ------------------------------------------------------------------------------------------------

    def _rotate(self, path: str) -> str:
        """Give a file whose bytes all count its next number. It must not be open, or it is closed here."""
        # Forgotten first: were it renamed first, a crash between would leave a listed file that can't be found.
        if path in self._checkpoint.files:
            self._checkpoint.commit(None, {path: None})
        target = self.names.rotated(path, self._last_number(path) + 1)
        self._disk.rename(path, target)
        if file := self._open.pop(path, None):
            os.close(file.fd)
        self._disk.sync_directory(os.path.dirname(path))
        return target

    def _last_number(self, path: str) -> int:
        stem, suffix = os.path.basename(path.removesuffix(self.names.suffix)), self.names.suffix
        rotated = re.compile(rf"{re.escape(stem)}\.(\d+){re.escape(suffix)}(?:\.gz(?:\.tmp)?)?")
        names = os.listdir(os.path.dirname(path))
        return max((int(match[1]) for match in map(rotated.fullmatch, names) if match), default=0)

    def retire(self, path: str, unchanged: Callable[[os.stat_result], bool]) -> str | None:
        """Rotate a file that is not in use and still `unchanged`; its new name, or None. Raises OSError."""
        with self._lock:
            if self._in_use(path) or not unchanged(os.lstat(path)):
                return None
            return self._rotate(path)

    def remove(self, path: str, unchanged: Callable[[os.stat_result], bool]) -> bool:
        """Delete a file that is not in use and still `unchanged`, and the directories that this leaves empty."""
        with self._lock:
            if self._in_use(path) or not unchanged(os.lstat(path)):
                return False
            self._disk.remove(path)
            directory = os.path.dirname(path)
            while directory != self.names.root and not os.listdir(directory):
                self._disk.remove_directory(directory)
                directory = os.path.dirname(directory)
            return True

    def close_idle(self) -> None:
        """Close what nobody writes to."""
        with self._lock:
            if self._unclean:
                return
            idle = [path for path, file in self._open.items() if self._now() - file.used > IDLE]
            if idle:
                self._checkpoint.commit(None, dict.fromkeys(idle))
            for path in idle:
                os.close(self._open.pop(path).fd)

    def _in_use(self, path: str) -> bool:
        return path in self._open or path in self._checkpoint.files
