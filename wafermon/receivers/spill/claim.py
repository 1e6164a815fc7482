"""One spill file that is ours alone: locked, renamed, read, removed. All of it blocks, and raises OSError."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from wafermon.files import Files
from wafermon.receivers.spill.folder import FILE_MAX, unfit, untouched

CHUNK_BYTES = 1 << 18


class Unfit(OSError):
    """It can't be a spill file of an SDK."""


class Claim:
    """An open file. `close` releases it, whatever has become of it."""

    def __init__(self, files: Files, fd: int, path: Path) -> None:
        self.path = path
        self.owner = files.status(fd).st_uid
        self._files = files
        self._fd = fd
        self._at = 0

    def read(self) -> bytes:
        """What was written since the last call; at most `FILE_MAX` bytes."""
        parts: list[bytes] = []
        size = 0
        while size < FILE_MAX and (part := self._files.read(self._fd, min(CHUNK_BYTES, FILE_MAX - size), self._at)):
            parts.append(part)
            size += len(part)
            self._at += len(part)
        return b"".join(parts)

    def remove(self) -> None:
        """Nobody finds it any more; what is written to it all the same can still be read."""
        if self._is_still_there():
            self._files.unlink(self.path)

    def take_name(self) -> bool:
        """Rename it to ``….taken``; False where another has done so, or a file of that name waits."""
        if not self._is_still_there():
            return False
        if self.path.suffix == ".taken":
            return True
        taken = self.path.with_name(self.path.name + ".taken")
        if os.path.lexists(taken):
            return False
        self._files.rename(self.path, taken)
        self.path = taken
        return True

    def _is_still_there(self) -> bool:
        try:
            return os.path.samestat(self._files.status(self._fd), self._files.status_of(self.path))
        except FileNotFoundError:
            return False

    def close(self) -> None:
        self._files.close(self._fd)


def claim(files: Files, path: Path, now: float) -> Claim | None:
    """Take a file that is left; None where its owner lives, or another is taking it. `now` is seconds since the epoch."""
    try:
        fd = files.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        status = files.status(fd)
        if problem := unfit(status):
            raise Unfit(problem)
        if untouched(status, now) and _lock(fd):
            claimed = Claim(files, fd, path)
            if claimed.take_name():
                return claimed
    except BaseException:
        files.close(fd)
        raise
    files.close(fd)
    return None


def _lock(fd: int) -> bool:
    """Whether nobody else has locked it, by flock or by fcntl: languages differ in which they have. It is ours then."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # which a descriptor for reading may have
    except (BlockingIOError, PermissionError):
        return False
    return True
