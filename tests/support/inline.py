"""A journal and what follows it on a clock that a test moves, without threads: every step is the test's.

Jobs for threads are done at once, in order, and their answers come in the loop's next turn. One of them, or any other call, can be made to fail
or to hang (`Faults`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher
from twisted.python.failure import Failure

from wafermon.delivery.supervisor import FollowerState, Supervisor
from wafermon.journal import Cursor, Entry, Follower, Group, Journal
from wafermon.journal.tail import Tail
from wafermon.model.blocks import Block
from wafermon.model.messages import dumps
from wafermon.model.settings import Journal as JournalSettings

BEGIN = 1_700_000_000.0
"""The date at the clock's 0, in seconds."""
ROUTES = '{"rules":[]}'


class Loop(Clock):
    """A reactor as far as followers need one."""

    def callFromThread(self, call: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        self.callLater(0, call, *arguments, **named)

    def turn(self) -> None:
        """Let everything happen that is due now, and what comes of it."""
        self.pass_time(0)

    def pass_time(self, seconds: float) -> None:
        """Let so much time pass, from one thing that happens to the next."""
        end = self.seconds() + seconds
        for _ in range(100_000):
            next_at = min((call.getTime() for call in self.getDelayedCalls()), default=end + 1)
            if next_at > end:
                self.advance(end - self.seconds())
                return
            self.advance(max(0.0, next_at - self.seconds()))
        raise AssertionError("it never comes to rest")


class Faults:
    """Counts the calls that it is told of, and lets one fail. `names` are those that were made, in order."""

    def __init__(self, at: int = -1, error: BaseException | None = None) -> None:
        """The call number `at` (from 0) fails with `error`, or hangs where that is None."""
        self.names: list[str] = []
        self.hung: list[Callable[[], None]] = []
        """What goes on with a call that hangs."""
        self._at = at
        self._error = error

    def hangs(self, name: str, go_on: Callable[[], None]) -> bool:
        """Count a call that may hang: whether it does now. Raises what it fails with."""
        self.names.append(name)
        if len(self.names) - 1 != self._at:
            return False
        if self._error is not None:
            raise self._error
        self.hung.append(go_on)
        return True

    def wrap(self, owner: Any, name: str) -> None:
        """Count the calls of a method that answers at once, and let it fail. It can't hang: it is left alone then."""
        real = getattr(owner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            self.names.append(name)
            if len(self.names) - 1 == self._at and self._error is not None:
                raise self._error
            return real(*arguments, **named)

        setattr(owner, name, call)

    def release(self) -> None:
        """What hangs goes on."""
        for go_on in self.hung:
            go_on()
        self.hung.clear()


class Pool:
    """A thread pool without threads."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()

    def callInThreadWithCallback(
        self, answer: Callable[[bool, Any], None], call: Callable[..., Any], *arguments: Any, **named: Any
    ) -> None:
        def work() -> None:
            try:
                result = call(*arguments, **named)
            except BaseException:  # noqa: BLE001  # as a thread pool does
                answer(False, Failure())  # type: ignore[no-untyped-call]
            else:
                answer(True, result)

        try:
            hangs = self.faults.hangs(getattr(call, "__qualname__", str(call)), work)
        except BaseException:  # noqa: BLE001  # as if the call had raised it
            answer(False, Failure())  # type: ignore[no-untyped-call]
            return
        if not hangs:
            work()


class World:
    """An open journal in a directory, a supervisor, and a clock."""

    def __init__(self, directory: Path, faults: Faults | None = None, *, hold: bool = True, **settings: Any) -> None:
        """`faults` are those of the followers' jobs; the journal's own writes work. One after another in a directory is a sidecar that is
        started again: its clock goes on. Unless `hold` is False, a cursor of its own keeps all segments."""
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.loop = Loop()
        self._clock = directory / "clock"
        if self._clock.exists():
            self.loop.advance(float(self._clock.read_text()))
        self.pool = Pool(faults)
        self.logged: list[LogEvent] = []
        settings = {"max_bytes": 0, "segment_bytes": 1 << 20, **settings}
        self.journal = Journal(
            JournalSettings.model_construct(dir=directory / "journal", **settings),
            self.loop,
            cast(Any, Pool()),
            cast(Any, self.pool),
            wall=lambda: BEGIN + self.loop.seconds(),
        )
        self.journal.open(ROUTES)
        if hold:
            self.journal.cursor("holds")
        self.supervisor = Supervisor(self.loop, self.journal.now, lambda least, most: most)
        globalLogPublisher.addObserver(cast(Any, self.logged.append))

    @property
    def states(self) -> dict[str, FollowerState]:
        return dict(self.supervisor.states)

    def start(self, follower: Follower) -> None:
        self.supervisor.start(follower)
        self.loop.turn()

    def put(self, *bodies: dict[str, Any], **entry: Any) -> None:
        """One group of messages; `ts` and `service` are filled in."""
        ts = self.journal.now()
        lines = [dumps({"ts": ts, "service": "etl", **body}).encode() + b"\n" for body in bodies]
        self.append(Entry(Block.parse(b"".join(lines)) if lines else None, **entry))

    def append(self, entry: Entry) -> None:
        """One group, committed."""
        self.journal.append(entry)
        self.loop.turn()

    def read_from_disk(self) -> None:
        """Let the groups in memory go: whoever has not read them reads them from disk."""
        self.journal._tail = Tail()

    def groups(self) -> list[Group]:
        """All that the journal holds."""
        found: list[Group] = []
        cursor = Cursor(self.journal, "test", self.journal.oldest, may_skip=False)
        reading = cursor.read()
        while cursor.next < self.journal.end or not cursor.at_end:
            waiting = Deferred.fromCoroutine(reading)
            waiting.addCallback(found.append)
            self.loop.turn()
            reading = cursor.read()
        reading.close()
        cursor.close()
        return found

    def said(self) -> str:
        return "\n".join(event["log_format"].format(**event) for event in self.logged if event.get("log_format"))

    def stop(self, *names: str) -> None:
        """End these followers, or all, and close the journal."""
        for name in names or list(self.supervisor.states):
            Deferred.fromCoroutine(self.supervisor.stop(name, within=5.0))
            self.loop.turn()
        Deferred.fromCoroutine(self.journal.close())
        self.loop.pass_time(1)
        self.forget()

    def forget(self) -> None:
        """What a test itself held of it."""
        self._clock.write_text(str(self.loop.seconds()))
        globalLogPublisher.removeObserver(cast(Any, self.logged.append))
