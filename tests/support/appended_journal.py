"""A journal in memory, on a Clock: it commits when it is told to, and fails where it is told to. For tests of what appends."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from wafermon.journal import Entry, Stream
from wafermon.journal.marks import Marks

JOURNAL_ID = "5af1c0de5af1c0de"
STARTED = 1_795_500_000.0
"""What the clock shows at first, in seconds since the epoch."""


class MemoryJournal:
    """What receivers see of `wafermon.journal.Journal`."""

    def __init__(self, clock: Clock, *, automatic: bool = False) -> None:
        """An `automatic` one commits at once, whatever is appended."""
        self.id = JOURNAL_ID
        self.settings = SimpleNamespace(segment_bytes=64 << 20)
        self.marks = Marks(lambda principal, client: self.kept.get((principal, client), 0))
        self.kept: dict[tuple[str, str], int] = {}
        """Marks of clients that are gone, by principal and client."""
        self.slow = False
        """Whether `hold` waits for one of `asked`."""
        self.asked: list[Deferred[None]] = []
        self.congested = False
        self.automatic = automatic
        self.fails: list[BaseException] = []
        """The next calls of `append` fail with these."""
        self.pending: list[Entry] = []
        self.committed: list[Entry] = []
        self.reliefs: deque[Callable[[], None]] = deque()
        self._clock = clock

    def hold(self, principal: str, client: str) -> Deferred[Stream]:
        if not self.slow:
            return succeed(self.marks.hold(principal, client))
        asked: Deferred[None] = Deferred()
        self.asked.append(asked)
        return asked.addCallback(lambda _: self.marks.hold(principal, client))

    def marks_of(self, client: str) -> Deferred[dict[str, int]]:
        saved = {principal: seq for (principal, one), seq in self.kept.items() if one == client}
        return succeed(self.marks.of_client(client, saved))

    def now(self) -> int:
        return int((STARTED + self._clock.seconds()) * 1e6)

    def sleep(self, seconds: float) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        self._clock.callLater(seconds, done.callback, None)
        return done

    def append(self, entry: Entry) -> None:
        if self.fails:
            raise self.fails.pop(0)
        self.pending.append(entry)
        if self.automatic:
            self.commit()

    def settled(self) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        self.append(Entry(settled=lambda: done.callback(None)))
        return done

    def on_relief(self, call: Callable[[], None]) -> None:
        self.reliefs.append(call)

    def relieve(self) -> None:
        """Appending may go on."""
        self.congested = False
        while self.reliefs and not self.congested:
            self.reliefs.popleft()()

    def commit(self) -> None:
        """Everything that was appended is durable."""
        entries, self.pending = self.pending, []
        for entry in entries:
            self.committed.append(entry)
            if entry.stream is not None:
                self.marks.synced(entry.stream, entry.seq)
            if entry.settled is not None:
                entry.settled()

    @property
    def lines(self) -> list[bytes]:
        """The lines that are durable, in order."""
        return [line for entry in self.committed if entry.block for line in entry.block.lines]

    @property
    def rejected(self) -> list[tuple[str, int]]:
        """Code and seq of what is durable among the refused."""
        return [(one.code, one.seq) for entry in self.committed for one in entry.rejected]


def as_journal(journal: MemoryJournal) -> Any:
    """For what is typed to take a real one."""
    return journal
