"""The calls that change a disk, in one place: so that a test can stop the process between any two of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_sync = getattr(os, "fdatasync", os.fsync)


class Disk:
    """Each method is one system call, or the few that make one step."""

    def open(self, path: str, flags: int) -> int:
        return os.open(path, flags | os.O_CLOEXEC | os.O_NOCTTY, 0o640)

    def write(self, fd: int, data: bytes) -> None:
        """All of `data`, or an OSError after a part of it."""
        written = os.write(fd, data)
        if written < len(data):
            rest = memoryview(data)
            while written < len(rest):
                written += os.write(fd, rest[written:])

    def sync(self, fd: int) -> None:
        """The file's bytes, and what is needed to find them, are on the disk."""
        _sync(fd)

    def cut(self, fd: int, length: int) -> None:
        os.ftruncate(fd, length)

    def rename(self, old: str, new: str) -> None:
        os.rename(old, new)

    def remove(self, path: str) -> None:
        os.unlink(path)

    def make_directory(self, path: str) -> None:
        os.mkdir(path, 0o750)

    def remove_directory(self, path: str) -> None:
        os.rmdir(path)

    def sync_directory(self, path: str) -> None:
        """The names in it are on the disk."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def write_file(self, path: str, data: bytes) -> None:
        """A whole file, synced; its name isn't yet."""
        fd = self.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            self.write(fd, data)
            self.sync(fd)
        finally:
            os.close(fd)


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Let an OSError tell which file it is about."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = path
        raise
