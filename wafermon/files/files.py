"""System calls that change a disk, each in one method, and the steps that are made of them. All of it blocks.

Every method raises OSError, which names the path where there is one. A step that fails leaves what was there before, or what
it was to make, and no open descriptor.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from re import Pattern

StrPath = str | os.PathLike[str]

_MOST_PARTS = 1024
"""What one pwritev takes."""


class NotOurs(OSError):
    """What stands under a name is nothing that we make: a link, a directory, a pipe, or a file with a second name."""


@contextmanager
def naming(path: StrPath) -> Iterator[None]:
    """Let an OSError tell which file it is about."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = os.fspath(path)
        raise


class Files:
    """The real disk. A test's own overrides the calls; the steps are made of nothing else."""

    # -- calls

    def open(self, path: StrPath, flags: int, mode: int = 0o600) -> int:
        """A descriptor, closed in child processes."""
        return os.open(path, flags | os.O_CLOEXEC | os.O_NOCTTY, mode)

    def close(self, fd: int) -> None:
        os.close(fd)

    def read(self, fd: int, size: int, at: int) -> bytes:
        """Up to `size` bytes from offset `at`; fewer only at the end of the file."""
        return os.pread(fd, size, at)

    def status(self, fd: int) -> os.stat_result:
        return os.fstat(fd)

    def status_of(self, path: StrPath) -> os.stat_result:
        """Of the name itself, not of what a link leads to."""
        return os.lstat(path)

    def status_behind(self, path: StrPath) -> os.stat_result:
        """Of what a name leads to: links are followed."""
        return os.stat(path)

    def write(self, fd: int, parts: Sequence[bytes], at: int) -> int:
        """Write from offset `at` on; answers with how many bytes, which may be fewer than there are."""
        return os.pwritev(fd, parts, at)

    def append(self, fd: int, data: bytes | memoryview) -> int:
        """Write where the descriptor stands; answers with how many bytes."""
        return os.write(fd, data)

    def sync(self, fd: int) -> None:
        """The file's bytes and its length last."""
        os.fdatasync(fd)

    def begin_sync(self, fd: int, at: int) -> None:
        """Let the disk begin with the bytes from offset `at` on; `sync` waits for them and tells their errors. Of many files each is
        begun before the first is waited for. Nothing depends on it."""
        with suppress(OSError):
            os.posix_fadvise(
                fd, at, 0, os.POSIX_FADV_DONTNEED
            )  # begins to write what is dirty, and drops only what is not

    def truncate(self, fd: int, length: int) -> None:
        """It lasts after `sync`."""
        os.ftruncate(fd, length)

    def rename(self, old: StrPath, new: StrPath) -> None:
        """It lasts after `sync_directory` of both directories."""
        os.rename(old, new)

    def link(self, old: StrPath, new: StrPath) -> None:
        """A second name; fails where `new` is there. It lasts after `sync_directory`."""
        os.link(old, new, follow_symlinks=False)

    def unlink(self, path: StrPath) -> None:
        """It lasts after `sync_directory`."""
        os.unlink(path)

    def make_directory(self, path: StrPath, mode: int = 0o700) -> None:
        """It lasts after `sync_directory` of the one above."""
        os.mkdir(path, mode)

    def remove_directory(self, path: StrPath) -> None:
        os.rmdir(path)

    def names(self, directory: StrPath) -> list[str]:
        """What a directory holds, in no order."""
        return os.listdir(directory)

    def set_times(self, path: StrPath, accessed: int, modified: int) -> None:
        """Both in nanoseconds since the Unix epoch."""
        os.utime(path, ns=(accessed, modified))

    def sync_directory(self, path: StrPath) -> None:
        """Names that were made in it last, and names that were removed stay gone."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    # -- steps

    def write_all(self, fd: int, parts: Sequence[bytes], at: int) -> int:
        """Write all of `parts`, joined, from offset `at` on; answers with how many bytes that were."""
        if len(parts) > _MOST_PARTS:
            parts = [b"".join(parts)]
        size = sum(map(len, parts))
        written = self.write(fd, parts, at)
        while written < size:
            rest = b"".join(parts)[written:]
            more = self.write(fd, [rest], at + written)
            if not more:
                raise OSError(errno.EIO, "the disk takes no more bytes and tells no error")
            written += more
        return size

    def append_all(self, fd: int, data: bytes) -> None:
        """All of `data` where the descriptor stands, or an OSError after a part of it."""
        rest = memoryview(data)
        while rest:
            written = self.append(fd, rest)
            if not written:
                raise OSError(errno.EIO, "the disk takes no more bytes and tells no error")
            rest = rest[written:]

    def cut(self, fd: int, length: int) -> None:
        """Let a file end at `length`, for good."""
        self.truncate(fd, length)
        self.sync(fd)

    def create(self, path: StrPath, mode: int = 0o600) -> int:
        """A new, empty file whose name lasts; answers with its descriptor, to read and write. Raises FileExistsError."""
        fd = self.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
        try:
            self.sync_directory(_directory_of(path))
        except BaseException:
            with suppress(OSError):
                self.unlink(path)
            self.close(fd)
            raise
        return fd

    def replace(self, path: StrPath, data: bytes, mode: int = 0o600) -> None:
        """Let `path` hold `data`, for good: at each moment it holds that, or what it held before. One at a time."""
        temporary = f"{os.fspath(path)}.tmp"
        with naming(temporary):
            with suppress(FileNotFoundError):
                self.unlink(temporary)
            fd = self.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
            try:
                try:
                    self.append_all(fd, data)
                    self.sync(fd)
                finally:
                    self.close(fd)
                self.rename(temporary, path)
            except BaseException:
                with suppress(OSError):
                    self.unlink(temporary)
                raise
        self.sync_directory(_directory_of(path))

    def move(self, old: StrPath, new: StrPath) -> None:
        """Rename, for good. Where `new` is there it is replaced."""
        self.rename(old, new)
        directories = dict.fromkeys([_directory_of(new), _directory_of(old)])
        for directory in directories:
            self.sync_directory(directory)

    def remove(self, *paths: StrPath) -> None:
        """Remove names, those that are there, for good."""
        for path in paths:
            with suppress(FileNotFoundError):
                self.unlink(path)
        for directory in dict.fromkeys(map(_directory_of, paths)):
            with suppress(FileNotFoundError):
                self.sync_directory(directory)

    def ensure_directory(self, path: StrPath, mode: int = 0o700) -> None:
        """Let a directory be there, with those above it, for good. A link to one counts."""
        text = os.fspath(path)
        if os.path.isdir(text):
            return
        above = _directory_of(text)
        if above != text:
            self.ensure_directory(above, mode)
        try:
            self.make_directory(text, mode)
        except FileExistsError:
            if not os.path.isdir(text):
                raise
            return
        self.sync_directory(above)

    def read_whole(self, path: StrPath, most: int) -> bytes:
        """What one of our files holds. Raises NotOurs, or OSError with EFBIG beyond `most` bytes."""
        fd = self.open_ours(path, os.O_RDONLY)
        try:
            with naming(path):
                data = b""
                while part := self.read(fd, most + 1 - len(data), len(data)):
                    data += part
                    if len(data) > most:
                        raise OSError(errno.EFBIG, f"it holds more than {most} bytes")
                return data
        finally:
            self.close(fd)

    def open_ours(self, path: StrPath, flags: int, mode: int = 0o600) -> int:
        """Open a file that only we make, and wait for nothing. Raises NotOurs for a link, a pipe, a directory, …"""
        try:
            fd = self.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, mode)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                raise NotOurs(errno.EINVAL, "it is not a plain file, so it is not ours", os.fspath(path)) from error
            raise
        try:
            found = self.status(fd)
            if not stat.S_ISREG(found.st_mode):
                raise NotOurs(errno.EINVAL, "it is not a plain file, so it is not ours", os.fspath(path))
            if found.st_nlink > 1:
                raise NotOurs(errno.EMLINK, "it has a second name, so it is not ours", os.fspath(path))
        except BaseException:
            self.close(fd)
            raise
        return fd

    def ours(self, directory: StrPath, pattern: Pattern[str]) -> dict[str, os.stat_result]:
        """The plain files in a directory whose whole name matches `pattern`, by name, in order. Everything else in it is a
        stranger's and passed over. Raises FileNotFoundError where there is no such directory."""
        found = {}
        for name in sorted(self.names(directory)):
            if pattern.fullmatch(name) is None:
                continue
            try:
                status = self.status_of(os.path.join(directory, name))
            except FileNotFoundError:  # gone since
                continue
            if stat.S_ISREG(status.st_mode):
                found[name] = status
        return found


def _directory_of(path: StrPath) -> str:
    return os.path.dirname(os.path.abspath(path))
