"""What happens to files that are no longer written: they are compressed, and deleted when they are old. Blocks."""

from __future__ import annotations

import errno
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event

from twisted.logger import Logger

from wafermon.backends.filesystem.names import Parsed, Template
from wafermon.backends.filesystem.store import FILE_MODE, FileStore
from wafermon.files import Files, naming
from wafermon.interfaces import RetryableError

LATE = 3600
"""Seconds for which a file whose date or hour is over still waits for late messages, before it is compressed."""
_CHUNK = 1 << 20
_GZIP = 31
"""`wbits` of zlib for a gzip header and trailer."""


class Stopped(Exception):
    """`Tidier.stop` was called."""


class Tidier:
    """Compresses and deletes the files of one template. A crash leaves nothing that the next run doesn't clear up."""

    log = Logger()

    def __init__(
        self,
        names: Template,
        store: FileStore,
        compress: bool,
        keep: float,
        now: Callable[[], float],
        files: Files | None = None,
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
        self._files = files or Files()
        self._stop = Event()

    def start(self) -> None:
        """Allow `run`."""
        self._stop.clear()

    def stop(self) -> None:
        """Let a `run` in another thread end soon."""
        self._stop.set()

    def run(self) -> None:
        """Go through all files once. What fails is noted and tried again by the next run."""
        try:
            self._store.close_idle()
        except (OSError, RetryableError) as error:
            self._store.notes.warn("A file that nobody writes to", f"can't be closed: {error}")
        if not self._compress and not self._keep:
            return
        for path, parsed in list(self._ours()):
            if self._stop.is_set():
                return
            try:
                with naming(path):
                    self._treat(path, parsed)
            except FileNotFoundError:
                continue
            except Stopped:
                return
            except RetryableError:
                return  # the store says it
            except Exception as error:  # noqa: BLE001  # one file must not keep the others from their turn
                self._store.notes.warn(path, f"can't be compressed or deleted: {_reason(error)}")

    def _treat(self, path: str, parsed: Parsed) -> None:
        now = self._now()
        if parsed.packed == ".gz.tmp":
            self._files.unlink(path)
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
        found = self._files.status_of(path)
        there = self._compare(path, packed)
        if there == "other":
            raise FileExistsError(errno.EEXIST, "holds something else; move it away", packed)
        if there != "same":
            with suppress(FileNotFoundError):
                self._files.unlink(partial)
            try:
                self._copy(path, partial)
                self._files.set_times(partial, found.st_atime_ns, found.st_mtime_ns)  # `keep` goes by it
                self._files.rename(partial, packed)
            except BaseException:
                with suppress(OSError):
                    self._files.unlink(partial)
                raise
            self._files.sync_directory(os.path.dirname(path))
        self._files.unlink(path)
        self.compressed += 1

    def _copy(self, path: str, partial: str) -> None:
        with (
            self._opened(path, os.O_RDONLY) as source,
            self._opened(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as fd,
            naming(partial),
        ):
            packer = zlib.compressobj(6, wbits=_GZIP)
            for chunk in self._chunks(source):
                self._files.append_all(fd, packer.compress(chunk))
            self._files.append_all(fd, packer.flush())
            self._files.sync(fd)

    def _compare(self, path: str, packed: str) -> str:
        """What a compressed file is beside its plain one: "none", "torn", the "same", or "other"."""
        try:
            self._files.status_of(packed)
        except FileNotFoundError:
            return "none"
        try:
            with self._opened(path, os.O_RDONLY) as plain, self._opened(packed, os.O_RDONLY) as fd:
                unpacker = zlib.decompressobj(wbits=_GZIP)
                at = 0
                for chunk in self._chunks(fd):
                    while chunk and not unpacker.eof:
                        part = unpacker.decompress(chunk, _CHUNK)
                        if part != self._files.read(plain, len(part), at):
                            return "other"
                        at += len(part)
                        chunk = unpacker.unconsumed_tail
                whole = unpacker.eof and not unpacker.unused_data
                return "torn" if not whole else "same" if at == self._files.status(plain).st_size else "other"
        except zlib.error:
            return "torn"

    @contextmanager
    def _opened(self, path: str, flags: int) -> Iterator[int]:
        """A plain file, closed afterwards."""
        fd = self._files.open_ours(path, flags, FILE_MODE)
        try:
            yield fd
        finally:
            self._files.close(fd)

    def _chunks(self, fd: int) -> Iterator[bytes]:
        """What a file holds. Raises Stopped."""
        at = 0
        while chunk := self._files.read(fd, _CHUNK, at):
            if self._stop.is_set():
                raise Stopped
            yield chunk
            at += len(chunk)

    def _ours(self) -> Iterator[tuple[str, Parsed]]:
        """All files that are ours, rotated or not, each directory once: a symlink to one that is followed too is passed over."""
        levels = self._names.directory_patterns()
        for path in self._find(self._names.root, levels, set()):
            if parsed := self._names.parse(path):
                yield path, parsed

    def _find(self, directory: str, levels: list[re.Pattern[str]], seen: set[tuple[int, int]]) -> Iterator[str]:
        """The regular files as many levels down as there are `levels`, each directory's name matching its own. Directories may
        be symlinks: a service's may lie on another disk."""
        try:
            there = self._files.status_behind(directory)
            if (there.st_dev, there.st_ino) in seen:
                return
            seen.add((there.st_dev, there.st_ino))
            names = sorted(self._files.names(directory))
        except OSError:
            return
        for name in names:
            path = os.path.join(directory, name)
            try:
                if not levels:
                    mode = self._files.status_of(path).st_mode
                    if stat.S_ISREG(mode):
                        yield path
                    elif stat.S_ISLNK(mode) and self._names.parse(path):
                        self._store.notes.warn(
                            path, "is a symlink, and so is neither compressed nor deleted; its directory may be one"
                        )
                elif levels[0].fullmatch(name) and stat.S_ISDIR(self._files.status_behind(path).st_mode):
                    yield from self._find(path, levels[1:], seen)
            except OSError:  # gone since, or a link to nothing
                continue


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return f"{error.__class__.__name__}: {error}"
