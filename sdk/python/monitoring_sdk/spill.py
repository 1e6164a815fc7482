"""Spill files: what does not fit into memory, and what `close` can't deliver."""

from __future__ import annotations

import fcntl
import itertools
import os
import time
from collections import deque
from contextlib import suppress

from .encoding import numbered

# Bytes of a file, how many files, and of how many a stats line tells.
FILE_MAX = 1 << 20
_FILES = 64
_STREAMS = 1000


class SpillFile:
    """A file of whole lines with a client of its own; locked as long as its writer lives and wants it."""

    def __init__(self, directory: str, service: str, client: str) -> None:
        self.client = client
        self.count = 0
        self.size = 0
        self.path = os.path.join(directory, f"{service}.{os.getpid()}.{client}.ldjson")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self.fd = os.open(self.path, flags, 0o660)
        # On a file system without locks or modes it is still a file.
        with suppress(OSError):
            os.fchmod(self.fd, 0o660)  # whatever the umask: in a setgid spill dir the group is the sidecar's
        with suppress(OSError):
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def append(self, lines: list[bytes], room: int) -> int:
        """Write the lines that fit into so many bytes; how many got there. One that a full disk cuts is taken back."""
        fitting = sum([size <= room for size in itertools.accumulate(map(len, lines))])
        data = b"".join(lines[:fitting])
        kept = 0
        with suppress(OSError):
            kept = data.rfind(b"\n", 0, os.write(self.fd, data)) + 1
            os.ftruncate(self.fd, self.size + kept)
        done = data.count(b"\n", 0, kept)
        self.size += kept
        self.count += done
        return done

    def claim(self) -> bool:
        """Take it for sending; False when somebody else has."""
        with suppress(OSError):
            os.rename(self.path, self.path + ".taken")
            self.path += ".taken"
        return self.path.endswith(".taken")

    def leave(self, remove: bool = False) -> None:
        """Give it to the one that takes it up, or remove it."""
        with suppress(OSError):
            if remove:
                os.unlink(self.path)
            else:
                os.rename(self.path, self.path.replace(".ldjson.taken", ".ldjson"))
        os.close(self.fd)


class Spool:
    """A sender's spill files, oldest first: the newest is written, only closed ones are sent."""

    def __init__(self, directory: str | None, service: str) -> None:
        self.files: deque[SpillFile] = deque()
        self.writing = False  # into the newest
        self.streams: dict[str, int] = {}  # client and last seq of each file there has been
        self._directory = directory
        self._service = service
        self._retry_at = 0.0

    def write(self, bodies: list[bytes]) -> int:
        """Append messages; how many there was room for."""
        done = 0
        while done < len(bodies) and time.monotonic() >= self._retry_at:
            if not self.writing:
                file = self.open(os.urandom(8).hex()) if len(self.files) < _FILES - 1 else None  # one is being sent
                if not file:
                    self._retry_at = time.monotonic() + 1.0
                    break
                self.files.append(file)
            file = self.files[-1]
            lines = [numbered(body, file.client, seq) for seq, body in enumerate(bodies[done:], file.count + 1)]
            done += file.append(lines, FILE_MAX - file.size)
            self.writing = done == len(bodies)
            if not file.count:  # not one: the disk is full
                self._retry_at = time.monotonic() + 1.0
                self.files.pop().leave(remove=True)
            else:
                self._remember(file)
        return done

    def _remember(self, file: SpillFile) -> None:
        self.streams[file.client] = file.count
        if len(self.streams) > _STREAMS:
            del self.streams[next(iter(self.streams))]

    def leave(self, client: str, lines: list[bytes]) -> int:
        """Write what close() could not deliver, with the seqs it has, to a file of the SDK's own client; how much."""
        file = self.open(client) if lines else None
        if not file:
            return 0
        written = file.append(lines, _FILES * FILE_MAX - sum([other.size for other in self.files]))
        file.leave(remove=not written)
        return written

    def open(self, client: str) -> SpillFile | None:
        directory = self._directory or "/var/spool/wafermon"
        private = f"/tmp/wafermon-{os.getuid()}"
        if not self._directory and not os.access(directory, os.W_OK | os.X_OK):
            directory = private
        try:
            os.makedirs(directory, 0o700, exist_ok=True)
            found = os.lstat(directory)
            if directory == private and (found.st_mode & 0o170022, found.st_uid) != (0o040000, os.getuid()):
                return None  # somebody else has laid it there
            return SpillFile(directory, self._service, client)
        except OSError:
            return None
