"""What could not be delivered, kept for a person to look at and for ``wafermon replay``: JSON lines in a directory."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from wafermon.model.messages import Message, dumps, loads
from wafermon.model.position import Position
from wafermon.model.settings import DeadLetters as DeadLetterLimits

FILES = 8
"""The quota is divided into so many files; the oldest one goes when it is used up."""
FILE_BYTES = 32 << 20
"""Of a file where there is no quota."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One line that could not be delivered."""

    position: Position
    """Where the journal holds it."""
    line: bytes
    code: str
    """Why, in a word: the protocol's error codes, ``no_route``, or ``refused`` by a backend."""
    reason: str
    time: int
    """When it came, in microseconds since the epoch."""
    peer: str = ""
    client: str = ""
    seq: int = 0
    backend: str = ""
    """The one that refused it; empty where it never got to any."""

    @property
    def id(self) -> str:
        """16 hex; the same whenever the same line is buried for the same backend."""
        return hashlib.blake2b(f"{self.position} {self.backend}".encode(), digest_size=8).hexdigest()

    def encode(self) -> bytes:
        shown: dict[str, Any] = {
            "id": self.id,
            "code": self.code,
            "reason": self.reason,
            "time": self.time,
        }
        shown |= {
            "peer": self.peer,
            "client": self.client,
            "seq": self.seq,
            "backend": self.backend,
        }
        kept = {name: value for name, value in shown.items() if value not in ("", 0)}
        try:
            kept["line"] = self.line.decode()
        except UnicodeDecodeError:
            kept["line_base64"] = base64.b64encode(self.line).decode()
        return dumps(kept).encode() + b"\n"


def letter_of(
    position: Position,
    line: bytes,
    message: Message,
    code: str,
    reason: str,
    backend: str = "",
) -> Letter:
    """The letter of a message that was accepted."""
    return Letter(
        position,
        line,
        code,
        reason,
        message.ts or 0,
        client=message.client or "",
        seq=message.seq or 0,
        backend=backend,
    )


class DeadLetters:
    """The directory. A letter that is there already is not written again."""

    log = Logger()

    def __init__(self, limits: DeadLetterLimits, reactor: Any, pool: ThreadPool) -> None:
        self.dir = Path(limits.dir)
        self.dropped_files = 0
        """Files that went because the quota was used up."""
        self.written = 0
        self.change(limits)
        self._reactor = reactor
        self._pool = pool
        self._turns = DeferredLock()
        self._ids: dict[str, set[str]] = {}
        """By file, for the newest two: the letters in it."""

    def change(self, limits: DeadLetterLimits) -> None:
        """Go on with another quota; the directory stays."""
        self._max_bytes = limits.max_bytes
        self._file_bytes = limits.max_bytes // FILES or FILE_BYTES

    def open(self) -> None:
        """Blocks. Cuts what a crash left unfinished."""
        self.dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in self.files()[-2:]:
            data = path.read_bytes()
            whole = data[: data.rfind(b"\n") + 1]
            if len(whole) < len(data):
                os.truncate(path, len(whole))
            self._ids[path.name] = {loads(line)["id"] for line in whole.splitlines()}

    def files(self) -> list[Path]:
        """The files, oldest first."""
        return sorted(self.dir.glob("*.jsonl"))

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(path.stat().st_size for path in self.files())

    def put(self, letters: Sequence[Letter]) -> Deferred[None]:
        """Fires when they are durable. Fails with OSError, and holds none of them then."""
        return self._turns.run(deferToThreadPool, self._reactor, self._pool, self._write, letters)

    def _write(self, letters: Sequence[Letter]) -> None:
        new = [letter for letter in letters if not any(letter.id in ids for ids in self._ids.values())]
        if not new:
            return
        data = b"".join(letter.encode() for letter in new)
        path = self._file_for(len(data))
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            before = os.fstat(fd).st_size
            try:
                os.lseek(fd, before, os.SEEK_SET)
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view) :]
                os.fsync(fd)
            except OSError:
                os.ftruncate(fd, before)
                raise
        finally:
            os.close(fd)
        self._ids.setdefault(path.name, set()).update(letter.id for letter in new)
        self.written += len(new)

    def _file_for(self, size: int) -> Path:
        files = self.files()
        newest = files[-1] if files else None
        if newest is not None and newest.stat().st_size < self._file_bytes:
            return newest
        while files and self._max_bytes and sum(path.stat().st_size for path in files) + size > self._max_bytes:
            oldest = files.pop(0)
            oldest.unlink()
            self.dropped_files += 1
            self.log.error("The dead letters' quota is used up: {file} is gone", file=oldest.name)
        number = int(newest.stem) + 1 if newest is not None else 1
        self._ids = dict(list(self._ids.items())[-1:])
        return self.dir / f"{number:08d}.jsonl"
