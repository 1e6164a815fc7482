"""Takes up the spill files of SDKs that are gone, so that what they could not send arrives all the same."""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from wafermon.journal import Entry, Journal, Stream
from wafermon.receivers.lines.dedupe import Deduplicator
from wafermon.wire.lines import Origin

SCAN_SECONDS = 5.0
UNTOUCHED_SECONDS = 10.0
"""A file that was written to more recently is left alone."""
CHUNK_BYTES = 1 << 16
NAME = re.compile(
    r"(?P<service>[A-Za-z0-9._:-]{1,128})\.(?P<pid>\d+)\.(?P<client>[0-9a-f]{16})\.ldjson(?P<taken>\.taken)?"
)


class SpillTaker:
    """Looks into one directory again and again, and takes one file at a time."""

    log = Logger()

    def __init__(self, directory: Path, journal: Journal, max_line: int, reactor: Any) -> None:
        self.files = 0
        """Taken up since the start."""
        self.messages = 0
        self._directory = directory
        self._journal = journal
        self._max_line = max_line
        self._reactor = reactor
        self._told = False
        self._running: Deferred[None] | None = None
        self._scan = LoopingCall(self._start_scan)
        self._scan.clock = reactor

    def start(self) -> None:
        self._scan.start(SCAN_SECONDS)

    def stop(self) -> None:
        self._scan.stop()
        if self._running is not None:
            self._running.cancel()

    def _start_scan(self) -> Deferred[None]:
        self._running = Deferred.fromCoroutine(self._scan_once())
        self._running.addErrback(_let_cancelled_go)
        return self._running

    async def _scan_once(self) -> None:
        for path in self._candidates():
            try:
                await self._take(path)
            except CancelledError:
                raise
            except OSError as error:
                self.log.error("Can't take up the spill file {path}: {error}", path=path, error=error)
            except Exception:  # noqa: BLE001  # one file must not keep the others waiting
                self.log.failure("Can't take up the spill file {path}", path=path)

    def _candidates(self) -> Iterator[Path]:
        """Files that nobody seems to care for, oldest first."""
        try:
            if self._foreign():
                return
            paths = sorted(self._directory.iterdir(), key=lambda path: path.lstat().st_mtime)
        except OSError:
            return
        for path in paths:
            if (name := NAME.fullmatch(path.name)) and not _runs(int(name["pid"])) and self._untouched(path):
                yield path

    def _foreign(self) -> bool:
        """Whether another user has made the folder that is named after ours, to have his files taken for our programs'."""
        named_after_us = self._directory.name == f"wafermon-{os.getuid()}"
        foreign = named_after_us and self._directory.lstat().st_uid != os.getuid()
        if foreign and not self._told:
            message = (
                "{path} belongs to another user: nothing is taken up from there. Remove it, or set journal.spill_dir"
            )
            self.log.error(message, path=str(self._directory))
        self._told = foreign
        return foreign

    def _untouched(self, path: Path) -> bool:
        try:
            found = path.lstat()
        except OSError:
            return False
        return stat.S_ISREG(found.st_mode) and self._journal.now() / 1e6 - found.st_mtime >= UNTOUCHED_SECONDS

    async def _take(self, path: Path) -> None:
        try:
            fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            taken = path if path.suffix == ".taken" else path.with_name(path.name + ".taken")
            if not _same_file(fd, path):
                return
            path.rename(taken)
            name = NAME.fullmatch(taken.name)
            assert name is not None
            stream = self._hold(name["client"], os.fstat(fd).st_uid)
            try:
                count = await self._feed(fd, taken, stream)
            finally:
                self._journal.marks.release(stream)
            taken.unlink()
            self.files += 1
            self.messages += count
            self.log.info(
                "Took up the spill file {path}: {count} messages",
                path=path,
                count=count,
            )
        finally:
            os.close(fd)

    def _hold(self, client: str, owner: int) -> Stream:
        """The file's stream: the one under which its owner began to send it, if it did. What was sent with a token is
        known as well, though not whose token that was: lines that any principal's mark covers are dropped. To forge that
        one would have to know the client, which is random, and would only have lines of one's own dropped."""
        marks = self._journal.marks
        stream = marks.hold(f"uid:{owner}", client)
        if not stream.appended:
            marks.release(stream)
            stream = marks.hold("", client)
        stream.skip(marks.synced_anywhere(client))
        return stream

    async def _feed(self, fd: int, path: Path, stream: Stream) -> int:
        """Hand a file's lines to the journal; returns once they are durable."""
        intake = Deduplicator(Origin(client=stream.client, numbered=True), stream, f"file:{path.name}")
        rest = b""
        count = 0
        offset = 0
        while chunk := os.pread(fd, CHUNK_BYTES, offset):
            offset += len(chunk)
            rest += chunk
            while b"\n" in rest:
                taken = intake.take(rest[: rest.rfind(b"\n") + 1], self._journal.now())
                rest = rest[taken.size :]
                count += taken.block.count if taken.block else 0
                if taken.block or taken.rejected:
                    await self._append(Entry(taken.block, taken.rejected, stream, stream.appended))
            if len(rest) > 2 * self._max_line:
                break
        if rest:
            message = "The spill file {path} ends in {bytes} bytes without a newline: its program was cut off there"
            self.log.warn(message, path=path, bytes=len(rest))
        return count

    def _append(self, entry: Entry) -> Deferred[None]:
        settled: Deferred[None] = Deferred(lambda _: None)

        def settle() -> None:
            if not settled.called:
                settled.callback(None)

        entry.settled = settle
        self._journal.append(entry)
        return settled


def _let_cancelled_go(failure: Failure) -> None:
    failure.trap(CancelledError)  # type: ignore[no-untyped-call]


def _runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _same_file(fd: int, path: Path) -> bool:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    opened = os.fstat(fd)
    return (opened.st_dev, opened.st_ino) == (found.st_dev, found.st_ino)
