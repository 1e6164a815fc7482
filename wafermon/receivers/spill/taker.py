"""Looks into the spill folder again and again, and hands one file's lines after the other to the journal."""

from __future__ import annotations

import pwd
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from wafermon.files import Files
from wafermon.journal import Entry, Journal, Stream
from wafermon.model.errors import printable
from wafermon.model.lograte import LogRate
from wafermon.model.repeated import Repeated
from wafermon.net.principals import Principal
from wafermon.receivers.lines.dedupe import Deduplicator, Taken
from wafermon.receivers.spill.claim import Claim, claim
from wafermon.receivers.spill.folder import NAME, Folder, ForeignFolder, Found
from wafermon.wire.framing import LineBuffer, Lines
from wafermon.wire.lines import LineError, Origin

SCAN_SECONDS = 5.0
TOLD_SECONDS = 60.0
"""How often the log says that files can't be taken up."""
OWNERS = 50
"""Of so many owners the files that can't be taken are counted apart; the others' together."""
OTHERS = "others"
NAMES = 1_000
"""Users whose names are remembered: to ask for one may take a while."""
Owners = Mapping[str, Sequence[str]]
T = TypeVar("T")


class SpillTaker:
    """Takes one file at a time. `start` and `stop` it."""

    log = Logger()

    def __init__(
        self,
        directory: Path,
        journal: Journal,
        max_line: int,
        reactor: Any,
        threads: ThreadPool | None = None,
        *,
        owners: Owners | None = None,
        restricted: Callable[[], bool] = lambda: False,
        files: Files | None = None,
    ) -> None:
        """`threads` touch the disk; without them that is done at once. While `restricted` says that tokens bind services, a
        file speaks for those services alone that `owners` (`journal.spill_owners`) gives to its owner."""
        self.files = 0
        """Taken up since the start."""
        self.messages = 0
        self.stuck: Mapping[str, int] = {}
        """Files that can't be taken up, by owner, as the last look through the whole folder found them."""
        self._folder = Folder(directory)
        self._journal = journal
        self._max_line = max_line
        self._reactor = reactor
        self._threads = threads
        self._owners = owners or {}
        self._restricted = restricted
        self._disk = files or Files()
        self._counting: Counter[str] = Counter()
        self._names: dict[int, str] = {}
        self._problem = ""
        """Of one of the files that can't be taken up."""
        self._told = -TOLD_SECONDS
        self._about_files = LogRate(reactor.seconds)
        self._stopped = False
        self._waits: Deferred[Any] | None = None
        """For the journal."""
        self._running: Deferred[None] | None = None
        self._scan = Repeated(reactor, self._start_scan)

    def start(self) -> None:
        self._scan.start(SCAN_SECONDS)

    def stop(self) -> Deferred[None]:
        """Take nothing more. Fires when the file that is being taken up is released."""
        self._stopped = True
        if self._scan.running:
            self._scan.stop()
        if self._waits is not None:
            self._waits.cancel()
        done: Deferred[None] = Deferred()
        if self._running is None:
            done.callback(None)
        else:
            self._running.addBoth(lambda _: done.callback(None))
        return done

    def _start_scan(self) -> Deferred[None]:
        """Never fails, so that the next scan comes."""
        self._running = Deferred.fromCoroutine(self._scan_once())
        return self._running.addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        if not (self._stopped and failure.check(CancelledError)):  # type: ignore[no-untyped-call]
            self.log.failure("Looking for spill files failed; it is tried again", failure)

    async def _on_disk(self, call: Callable[..., T], *args: Any) -> T:
        """The answer of a call that blocks. It is waited for, also by a stop: it may have opened a file."""
        if self._threads is None:
            return call(*args)
        answer: T = await deferToThreadPool(self._reactor, self._threads, call, *args)
        return answer

    async def _for_the_journal(self, wait: Deferred[Any]) -> None:
        if self._stopped:
            raise CancelledError
        self._waits = wait
        try:
            await wait
        finally:
            self._waits = None

    # -- the folder

    async def _scan_once(self) -> None:
        whole = True
        try:
            found, stuck, whole = await self._on_disk(self._folder.scan, self._now())
        except FileNotFoundError:
            found, stuck = [], []
        except OSError as error:
            found, stuck = [], []
            self._problem = str(error)
            if not isinstance(error, ForeignFolder):
                self._problem = f"{self._folder.path} can't be read: {error.strerror or error}"
            self._tell()
        for one in stuck:
            await self._count(one.path, one.owner, one.problem)
        for candidate in found:
            if self._stopped:
                return
            await self._try(candidate)
        if whole:
            self.stuck, self._counting = dict(self._counting), Counter()
            if self.stuck:
                self._tell()

    async def _try(self, found: Found) -> None:
        """One file must not keep the others waiting."""
        try:
            await self._take(found)
        except OSError as error:
            await self._count(found.path, found.owner, error.strerror or str(error))
        except Exception as error:  # a fault of our own, at this file
            if self._stopped and isinstance(error, CancelledError):
                raise
            await self._count(found.path, found.owner, repr(error))
            self.log.failure("Internal error with the spill file {path}", path=printable(found.path))

    async def _count(self, path: Path, owner: int, problem: str) -> None:
        name = await self._name_of(owner)
        if name not in self._counting and len(self._counting) >= OWNERS:
            name = OTHERS
        self._counting[name] += 1
        self._problem = f"{path} of {name}: {problem}"

    async def _name_of(self, owner: int) -> str:
        if owner not in self._names:
            if len(self._names) >= NAMES:
                self._names.clear()
            self._names[owner] = await self._on_disk(user_name, owner)
        return self._names[owner]

    def _tell(self) -> None:
        """At most one line per minute, whatever programs leave there."""
        now = self._reactor.seconds()
        if now - self._told >= TOLD_SECONDS:
            self._told = now
            message = "Spill files can't be taken up ({count} now): {problem}. `wafermon doctor` says what to do"
            self.log.warn(message, count=sum(self.stuck.values()), problem=printable(self._problem))

    def _now(self) -> float:
        return self._journal.now() / 1e6

    # -- a file

    async def _take(self, found: Found) -> None:
        if self._is_connected(found):
            return  # its client may send the same lines just now, which are not known yet
        claimed = await self._on_disk(claim, self._disk, found.path, self._now())
        if claimed is None:
            return
        try:
            await self._journalled(claimed)
        finally:
            await self._on_disk(claimed.close)

    def _is_connected(self, found: Found) -> bool:
        name = NAME.fullmatch(found.path.name)
        assert name is not None
        return self._journal.marks.connected(name["client"], partial(may_be_of, owner=found.owner))

    async def _journalled(self, claimed: Claim) -> None:
        """Journal a file's lines, and remove it once they are durable, whichever connection or file brought them."""
        name = NAME.fullmatch(claimed.path.name)
        assert name is not None
        await self._for_the_journal(self._journal.settled())
        stream = await self._hold(name["client"], claimed.owner)
        try:
            origin = Origin(client=stream.client, numbered=True)
            principal = await self.principal(claimed.owner)
            reader = _Reader(Deduplicator(origin, stream, f"file:{claimed.path.name}", principal), self._max_line)
            await self._feed(claimed, reader, stream)
            await self._on_disk(claimed.remove)
            # What an owner without a lock wrote in the meantime. It sees that the file is gone only after its write.
            await self._feed(claimed, reader, stream)
        finally:
            self._journal.marks.release(stream)
        self.files += 1
        message = "Took up the spill file {path}: {count} messages, {rejected} refused"
        self._say(message.format(path=printable(claimed.path), count=reader.count, rejected=reader.rejected))
        if reader.rest:
            message = "The spill file {path} ends in {bytes} bytes without a newline: its program was cut off there"
            self._say(message.format(path=printable(claimed.path), bytes=reader.rest))

    def _say(self, text: str) -> None:
        """There are as many of these as there are programs that end."""
        self._about_files.log(
            lambda: self.log.info("{text}", text=text),
            lambda what: self.log.info("About spill files: {what}", what=what),
        )

    async def _hold(self, client: str, owner: int) -> Stream:
        """The file's stream: the one under which its owner began to send it, if it did. What was sent with a token is known
        as well, though not whose token that was: lines that such a mark covers are dropped. Another user's marks count for
        nothing, since all users can read the names of the files."""
        marks = self._journal.marks
        stream = await self._journal.hold(f"uid:{owner}", client)
        if not stream.appended:
            marks.release(stream)
            stream = await self._journal.hold("", client)
        try:
            known = await self._journal.marks_of(client)
        except BaseException:
            marks.release(stream)
            raise
        stream.skip(max((seq for name, seq in known.items() if may_be_of(name, owner)), default=0))
        return stream

    async def principal(self, owner: int) -> Principal:
        """What a file of this user may say."""
        if not self._restricted():
            return Principal(f"uid:{owner}")
        name = await self._name_of(owner)
        allowed = {glob for key in (str(owner), name) for glob in self._owners.get(key, ())}
        problem = f"a spill file of the user {name} may not speak for it (journal.spill_owners)"
        return Principal(f"uid:{owner}", tuple(allowed), "unauthorized", problem)

    async def _feed(self, claimed: Claim, reader: _Reader, stream: Stream) -> None:
        """Append all lines that are there and were not taken, and wait until they are durable."""
        reader.feed(await self._on_disk(claimed.read))
        while True:
            await self._relief()
            before = stream.appended
            taken = reader.take(self._journal.now())
            if taken is None:
                break
            if taken.block is not None or taken.rejected:
                try:
                    self._journal.append(Entry(taken.block, taken.rejected, stream, stream.appended))
                except BaseException:
                    stream.appended = before
                    raise
                self.messages += taken.block.count if taken.block else 0
        await self._for_the_journal(self._journal.settled())

    async def _relief(self) -> None:
        """Wait as long as the journal wants no more."""
        while self._journal.congested:
            relief: Deferred[None] = Deferred()

            def fire(relief: Deferred[None] = relief) -> None:
                if not relief.called:
                    relief.callback(None)

            self._journal.on_relief(fire)
            await self._for_the_journal(relief)


class _Reader:
    """The lines of one file, in order."""

    def __init__(self, intake: Deduplicator, max_line: int) -> None:
        self.count = 0
        """Accepted."""
        self.rejected = 0
        self._dedupe = intake
        self._lines = LineBuffer(max_line)

    def feed(self, data: bytes) -> None:
        self._lines.feed(data)

    @property
    def rest(self) -> int:
        """The bytes after the last newline."""
        return len(self._lines)

    def take(self, now: int) -> Taken | None:
        """Some of the lines that are whole; None where there is none. `now` is the receive time in microseconds."""
        found = self._lines.next()
        if found is None:
            return None
        if isinstance(found, Lines):
            taken = self._dedupe.take(found.block, now)
            self._lines.took(found, taken.size, left=taken.size < len(found.block))
        else:
            self._lines.took_long()
            problem = LineError("line_too_long", f"longer than {self._lines.limit} bytes; its beginning is kept")
            taken = self._dedupe.refuse(found.start, problem, now)
        self.count += taken.block.count if taken.block else 0
        self.rejected += len(taken.rejected)
        return taken


def may_be_of(principal: str, owner: int) -> bool:
    """Whether a program of this user may have sent as this principal."""
    return not principal.startswith("uid:") or principal == f"uid:{owner}"


def user_name(uid: int) -> str:
    """The user's name, or the number where it has none here."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
