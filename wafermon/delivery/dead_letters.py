"""What could not be delivered, kept for a person to look at and for ``wafermon replay``: JSON lines in a directory."""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from wafermon.files import Files
from wafermon.model.messages import Message, dumps, loads
from wafermon.model.position import Position
from wafermon.model.settings import DeadLetters as DeadLetterLimits

FILES = 8
"""The quota is divided into so many files; the oldest one goes when it is used up."""
FILE_BYTES = 32 << 20
"""Of a file where there is no quota."""
READ_BYTES = 64 << 20
"""So much of the newest two files is read at a start, at most: what was written since the cursor was saved is in there."""
SHOWN_BYTES = 1 << 20
"""So much of the end of a file is looked at for `latest`."""
OURS = re.compile(r"[0-9]{8}\.jsonl")
"""The names that we make. All others in the directory are not ours."""


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
    service: str = ""
    """With `host` and `pid`: of the connection's hello, for what the line itself does not say. `replay` sends it as theirs."""
    host: str = ""
    pid: int = 0

    @property
    def id(self) -> str:
        """16 hex; the same whenever the same line is set aside for the same backend, as long as the journal keeps its id."""
        return self.id_in(self.position.journal)

    def id_in(self, journal: str) -> str:
        """The same, where the journal has that id."""
        position = self.position._replace(journal=journal)
        return hashlib.blake2b(f"{position} {self.backend}".encode(), digest_size=8).hexdigest()

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
            "service": self.service,
            "host": self.host,
            "pid": self.pid,
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
    """The directory. Only files that have such names as we make are ours; no other is read, written or removed. A letter that is there
    already is not written again."""

    log = Logger()

    def __init__(self, limits: DeadLetterLimits, reactor: Any, pool: ThreadPool, files: Files | None = None) -> None:
        """`files` is the disk; a test hands in its own."""
        self.dir = Path(limits.dir)
        self.dropped_files = 0
        """Files that went because the quota was used up."""
        self.written = 0
        self.size = 0
        """The bytes of all our files, as of the last write."""
        self.damaged = 0
        """Lines that are no letters, among those read at the start. They are left as they are."""
        self.change(limits)
        self._reactor = reactor
        self._pool = pool
        self._files = files or Files()
        self._turns = DeferredLock()
        self._formerly: Mapping[str, int] = {}
        self._ids: dict[str, set[str]] = {}
        """By file, for the newest two: the letters in it."""
        self._doubtful = ""
        """A file in which an append failed and could not be taken back. Nothing more is appended to it."""

    def change(self, limits: DeadLetterLimits) -> None:
        """Go on with another quota; the directory stays."""
        self._max_bytes = limits.max_bytes
        self._file_bytes = limits.max_bytes // FILES or FILE_BYTES

    def open(self, formerly: Mapping[str, int]) -> None:
        """`formerly` are the ids that the journal had before, each with the last segment of then. Blocks. Finds out what is there and changes none of it. Raises OSError where the directory can't be made or read."""
        self._formerly = formerly
        self._files.ensure_directory(self.dir)
        found = self._files.ours(self.dir, OURS)
        self.size = sum(status.st_size for status in found.values())
        for name in list(found)[-2:]:
            try:
                self._ids[name] = self._read_ids(name)
            except OSError as error:
                message = "{file} of the dead letters can't be read, and is left as it is: {error}"
                self.log.error(message, file=name, error=error)

    def _read_ids(self, name: str) -> set[str]:
        fd = self._files.open_ours(self.dir / name, os.O_RDONLY)
        try:
            size = self._files.status(fd).st_size
            data, at = bytearray(), max(0, size - READ_BYTES)
            cut = at > 0
            while part := self._files.read(fd, size - at, at):
                data += part
                at += len(part)
        finally:
            self._files.close(fd)
        *lines, rest = bytes(data).split(b"\n")
        ids = {_id_in(line) for line in lines[cut:]}
        damaged = sum(not _id_in(line) for line in lines[cut:]) + bool(rest)
        if damaged:
            self.damaged += damaged
            message = "{file} of the dead letters has {count} lines that are no letters: they are passed over, and left as they are"
            self.log.error(message, file=name, count=damaged)
        return ids - {""}

    def latest(self, count: int) -> Deferred[list[dict[str, Any]]]:
        """The letters that were written last, the latest first, as they are in the files, each with the ``file`` that has it. At most so many
        of the newest two files' ends. Fails with OSError."""
        return deferToThreadPool(self._reactor, self._pool, self._latest, count)

    def _latest(self, count: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for name in list(self._files.ours(self.dir, OURS))[:-3:-1]:
            for line in reversed(self._end_of(name)):
                if len(found) < count and _id_in(line):
                    found.append({**loads(line), "file": str(self.dir / name)})
        return found

    def _end_of(self, name: str) -> list[bytes]:
        """The last whole lines of a file."""
        fd = self._files.open_ours(self.dir / name, os.O_RDONLY)
        try:
            size = self._files.status(fd).st_size
            at = max(0, size - SHOWN_BYTES)
            data = bytearray()
            while len(data) < size - at and (part := self._files.read(fd, size - at - len(data), at + len(data))):
                data += part
        finally:
            self._files.close(fd)
        return bytes(data).split(b"\n")[1 if at else 0 : -1]

    def put(self, letters: Sequence[Letter]) -> Deferred[None]:
        """Fires when they are durable. Fails with OSError, and holds none of them then. Who waits may cancel that: what has begun is
        still brought to its end before anything else is written."""
        done: Deferred[None] = Deferred()
        write = self._turns.run(deferToThreadPool, self._reactor, self._pool, self._write, letters)
        write.chainDeferred(done)
        return done

    def _write(self, letters: Sequence[Letter]) -> None:
        new = [letter for letter in letters if not self._is_there(letter)]
        if not new:
            return
        data = b"".join(letter.encode() for letter in new)
        self._files.ensure_directory(self.dir)
        found = self._files.ours(self.dir, OURS)
        name, fd = self._newest(found) or self._next(found, len(data))
        try:
            self._append(fd, name, data)
        finally:
            with suppress(OSError):  # what was synced is there
                self._files.close(fd)
        self._ids.setdefault(name, set()).update(letter.id for letter in new)
        self.written += len(new)
        self.size = sum(status.st_size for status in found.values()) + len(data)

    def _is_there(self, letter: Letter) -> bool:
        segment = letter.position.segment
        names = {letter.id, *(letter.id_in(name) for name, last in self._formerly.items() if segment <= last)}
        return any(not ids.isdisjoint(names) for ids in self._ids.values())

    def _append(self, fd: int, name: str, data: bytes) -> None:
        end = self._files.status(fd).st_size
        try:
            self._files.write_all(fd, [data], end)
            self._files.sync(fd)
        except BaseException:
            self._doubtful = name
            self._files.cut(fd, end)
            self._doubtful = ""
            raise

    def _newest(self, found: Mapping[str, os.stat_result]) -> tuple[str, int] | None:
        """The file that is written, open, as long as it has room and ends with a whole line."""
        if not found:
            return None
        name = list(found)[-1]
        if name == self._doubtful or found[name].st_size >= self._file_bytes:
            return None
        try:
            fd = self._files.open_ours(self.dir / name, os.O_RDWR)
        except OSError as error:
            self.log.error(
                "{file} of the dead letters can't be written; a new one is begun: {error}", file=name, error=error
            )
            return None
        try:
            size = self._files.status(fd).st_size
            whole = not size or self._files.read(fd, 1, size - 1) == b"\n"
        except BaseException:
            self._files.close(fd)
            raise
        if whole:
            return name, fd
        self._files.close(fd)
        self.log.error("{file} of the dead letters ends within a line; a new one is begun", file=name)
        return None

    def _next(self, found: dict[str, os.stat_result], size: int) -> tuple[str, int]:
        """A new file, once there is room for `size` bytes."""
        # Numbers that a directory or a link has are used too.
        used = [int(name[:8]) for name in self._files.names(self.dir) if OURS.fullmatch(name)]
        left = sum(status.st_size for status in found.values())
        while found and self._max_bytes and left + size > self._max_bytes:
            oldest = next(iter(found))
            self._files.remove(self.dir / oldest)
            left -= found.pop(oldest).st_size
            self.dropped_files += 1
            self.log.error("The dead letters' quota is used up: {file} is gone", file=oldest)
        name = f"{max(used, default=0) + 1:08d}.jsonl"
        if not OURS.fullmatch(name):
            raise OSError(
                errno.EFBIG, "there is no number after this one: move it elsewhere", f"{self.dir}/{max(used)}.jsonl"
            )
        fd = self._files.create(self.dir / name)
        self._ids = dict(list(self._ids.items())[-1:])
        return name, fd


def _id_in(line: bytes) -> str:
    """The letter's id; empty where the line is no letter."""
    try:
        found = loads(line)["id"]
    except (ValueError, KeyError, TypeError, IndexError):
        return ""
    return found if isinstance(found, str) else ""
