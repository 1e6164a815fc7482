"""What happens to files that are no longer written: they are compressed, and deleted when they are old. Blocks."""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Callable, Iterator
from threading import Event

from twisted.logger import Logger

from wafermon.backends.filesystem.names import Parsed, Template
from wafermon.backends.filesystem.operations import Disk
from wafermon.backends.filesystem.store import FileStore
from wafermon.model.lograte import LogRate

LATE = 3600
"""Seconds for which a file whose date or hour is over still waits for late messages, before it is compressed."""
_CHUNK = 1 << 20


class Stopped(Exception):
    """`Tidier.stop` was called."""


class Tidier:
    """Compresses and deletes the files of one template. A crash leaves nothing that the next run doesn't mend."""

    log = Logger()

    def __init__(
        self,
        names: Template,
        store: FileStore,
        compress: bool,
        keep: float,
        now: Callable[[], float],
        disk: Disk | None = None,
    ) -> None:
        """`keep` is in seconds, 0 for ever; `now` tells seconds since the Unix epoch."""
        self.compressed = 0
        """Files since start."""
        self.deleted = 0
        self._names = names
        self._store = store
        self._compress = compress
        self._keep = keep
        self._now = now
        self._about_files = LogRate(now)
        self._disk = disk or Disk()
        self._stop = Event()

    def start(self) -> None:
        """Allow `run`."""
        self._stop.clear()

    def stop(self) -> None:
        """Let a `run` in another thread end soon."""
        self._stop.set()

    def run(self) -> None:
        """Go through all files once. What fails is logged and tried again by the next run."""
        try:
            self._store.close_idle()
        except OSError as error:
            self._say(f"Can't close idle files: {error}")
        if not self._compress and not self._keep:
            return
        for path, parsed in list(self._files()):
            try:
                self._treat(path, parsed)
            except FileNotFoundError:
                continue
            except OSError as error:
                self._say(f"Can't tidy up {path}: {error}")
            except Stopped:
                return

    def _say(self, text: str) -> None:
        """There may be as many of these as there are files."""
        self._about_files.log(
            lambda: self.log.warn("{text}", text=text),
            lambda what: self.log.warn("About tidying up: {what}", what=what),
        )

    def _treat(self, path: str, parsed: Parsed) -> None:
        now = self._now()
        if parsed.packed == ".gz.tmp":
            self._disk.remove(path)
        elif self._keep and self._store.remove(path, lambda found: found.st_mtime < now - self._keep):
            self.deleted += 1
            self.log.info("{path} was deleted: it is older than `keep`", path=path)
        elif not self._compress or parsed.packed:
            return
        elif parsed.number:
            self._pack(path)
        elif parsed.over < now - LATE:
            retired = self._store.retire(path, lambda found: found.st_mtime < now - LATE)
            if retired:
                self._pack(retired)

    def _pack(self, path: str) -> None:
        """FILE -> FILE.gz. At no moment is there neither."""
        packed, partial = path + ".gz", path + ".gz.tmp"
        found = os.stat(path)
        if not _is_whole(packed, found.st_size):
            try:
                self._copy(path, partial)
            except BaseException:
                self._disk.remove(partial)
                raise
            os.utime(partial, ns=(found.st_atime_ns, found.st_mtime_ns))  # `keep` goes by it
            self._disk.rename(partial, packed)
            self._disk.sync_directory(os.path.dirname(path))
        self._disk.remove(path)
        self.compressed += 1

    def _copy(self, path: str, partial: str) -> None:
        fd = self._disk.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        with open(path, "rb") as source, os.fdopen(fd, "wb") as target:
            with gzip.GzipFile("", "wb", 6, target) as packer:
                while chunk := source.read(_CHUNK):
                    if self._stop.is_set():
                        raise Stopped
                    packer.write(chunk)
            target.flush()
            self._disk.sync(fd)

    def _files(self) -> Iterator[tuple[str, Parsed]]:
        """All files that are ours, rotated or not."""
        for path in _find(self._names.root, self._names.directory_patterns()):
            if parsed := self._names.parse(path):
                yield path, parsed


def _is_whole(packed: str, size: int) -> bool:
    """Whether a gzip file is there, and says at its end that it holds `size` bytes."""
    try:
        with open(packed, "rb") as file:
            file.seek(-4, os.SEEK_END)
            return int.from_bytes(file.read(4), "little") == size & 0xFFFFFFFF
    except OSError:
        return False


def _find(directory: str, levels: list[re.Pattern[str]]) -> Iterator[str]:
    """The regular files as many levels down as there are `levels`, each directory's name matching its own."""
    try:
        with os.scandir(directory) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in found:
        if not levels:
            if entry.is_file(follow_symlinks=False):
                yield entry.path
        elif entry.is_dir(follow_symlinks=False) and levels[0].fullmatch(entry.name):
            yield from _find(entry.path, levels[1:])
