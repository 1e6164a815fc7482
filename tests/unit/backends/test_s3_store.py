"""Whatever requests are lost, refused or carried out late, in whatever order, and whatever the config and the restarts are: each
message is in the objects once. The server here is a model of S3, so that many orders can be tried; tests/databases has a real one."""

from __future__ import annotations

import errno
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.python.threadpool import ThreadPool

from wafermon.backends.aws.failures import CallFailed
from wafermon.backends.s3 import s3
from wafermon.backends.s3.bucket import Buckets, Exists
from wafermon.backends.s3.objects import Intent, Stored, metadata_of
from wafermon.backends.s3.store import S3Store
from wafermon.contract import JOURNAL, batch, line
from wafermon.files import Files
from wafermon.files.files import StrPath
from wafermon.interfaces import BackendContext, Batch, Position, PositionMoved, RetryableError, configure
from wafermon.model.messages import loads

COUNT = 40
LINES = [line(seq) for seq in range(1, COUNT + 1)]
SIZE = 200
"""Of journal for each message."""
OUTCOMES = ("done", "done", "lost", "late", "late", "never", "refused")
CONFIGS = [
    {"bucket": "one", "compress": "none"}, {"bucket": "one", "compress": "gzip", "prefix": "p/"}, {"bucket": "two", "compress": "none"},
]  # fmt: skip


@dataclass
class Server:
    """What all buckets hold, and the requests that are still on their way."""

    objects: dict[tuple[str, str], tuple[bytes, dict[str, str]]] = field(default_factory=dict)
    late: list[Callable[[], object]] = field(default_factory=list)
    outcome: str = "done"

    def put(self, place: tuple[str, str], raw: bytes, metadata: dict[str, str]) -> None:
        def carry_out() -> bool:
            if place in self.objects:
                return False
            self.objects[place] = (raw, metadata)
            return True

        if self.outcome == "refused":
            raise CallFailed("refused", code="AccessDenied", status=403, may_be_done=False)
        if self.outcome == "late":
            self.late.append(carry_out)
        elif self.outcome != "never":
            done = carry_out()
            if self.outcome == "done" and not done:
                raise Exists("there")
        if self.outcome != "done":
            raise CallFailed("no answer")

    def messages(self) -> Counter[int]:
        return Counter(loads(one)["seq"] for raw, _ in self.objects.values() for one in raw.splitlines())


class ModelBuckets(Buckets):
    """Requests to the model. Answers to questions get through, or they fail as PUTs do."""

    def __init__(self, server: Server, options: Any) -> None:
        super().__init__(options, 1.0)
        self._server = server

    def put(self, intent: Intent, raw: bytes, count: int) -> int:
        self._server.put((intent.bucket, intent.key), raw, metadata_of(intent, count))
        return len(raw)

    def fence(self, intent: Intent) -> None:
        self._server.put((intent.bucket, intent.key), b"", {**metadata_of(intent, 0), "wafermon-fence": "1"})

    def try_out(self) -> str:
        return ""

    def look(self, intent: Intent) -> Stored | None:
        found = self._server.objects.get((intent.bucket, intent.key))
        return Stored.read(found[1]) if found else None

    def lines(self, intent: Intent) -> bytes | None:
        return self._server.objects[intent.bucket, intent.key][0]


class FailingFiles(Files):
    """A disk that fails when it is told to: before the change, or after it."""

    def __init__(self) -> None:
        self.fails = ""

    def sync(self, fd: int) -> None:
        """No power is cut here."""

    def sync_directory(self, path: StrPath) -> None: ...

    def rename(self, old: StrPath, new: StrPath) -> None:
        if self.fails == "before":
            raise OSError(errno.EIO, "broken", str(new))
        super().rename(old, new)
        if self.fails == "after":
            raise OSError(errno.EIO, "broken", str(new))


def place(number: int) -> Position:
    """Where the message of this index begins."""
    return Position(JOURNAL, 1, number * SIZE)


class Delivery:
    """As the sidecar's: asks where the store stands, and brings it what follows."""

    def __init__(self, directory: Path) -> None:
        self.server = Server()
        self.directory = directory
        self.skipped: set[int] = set()
        self.kept = 0
        self.restart(CONFIGS[0])

    def restart(self, config: dict[str, Any]) -> None:
        self.files = FailingFiles()
        options = configure(s3, config)
        context = BackendContext("archive", self.directory, Clock(), ThreadPool())
        self.store = S3Store(options, context, self.files, ModelBuckets(self.server, options))
        self.is_open = False

    def attempt(self, count: int, outcome: str, disk: str) -> None:
        """One batch of so many messages, which may come to anything."""
        self.server.outcome, self.files.fails = outcome, disk
        try:
            if not self.is_open:
                reached = self.store.open()
                self.kept = self.kept if reached is None else reached.offset // SIZE
                self.is_open = True
            end = min(self.kept + count, COUNT)
            self.store.write(self.batch(self.kept, end))
            self.kept = end
        except PositionMoved:
            self.is_open = False
        except (RetryableError, OSError):
            pass
        self.server.outcome, self.files.fails = "done", ""

    def batch(self, first: int, last: int) -> Batch:
        made = batch(place(first), LINES[first:last])
        return replace(made, end=place(last), received=(1_795_500_000_000_000, 1_795_500_000_000_000))

    def skip(self, count: int) -> None:
        """The journal has dropped these: the delivery goes on after them."""
        end = min(self.kept + count, COUNT)
        self.skipped |= set(range(self.kept + 1, end + 1))
        self.kept = end

    def heal(self) -> None:
        """All that is on its way arrives, and all is delivered."""
        for _ in range(3 * COUNT):
            while self.server.late:
                self.server.late.pop()()
            self.attempt(7, "done", "")
            if self.kept == COUNT and self.is_open:
                break
        while self.server.late:
            self.server.late.pop()()


STEPS = st.one_of(
    st.tuples(
        st.just("write"), st.integers(0, 9), st.sampled_from(OUTCOMES), st.sampled_from(["", "", "", "before", "after"])
    ),
    st.tuples(st.just("arrive"), st.integers(0, 3)),
    st.tuples(st.just("restart"), st.integers(0, 2)),
    st.tuples(st.just("skip"), st.integers(1, 5)),
)


@given(st.lists(STEPS, max_size=25))
@example([("write", 5, "late", ""), ("restart", 1), ("write", 9, "done", ""), ("arrive", 0)])
@example([("write", 5, "late", ""), ("restart", 0), ("write", 9, "late", ""), ("arrive", 0), ("arrive", 0)])
@example([("write", 5, "late", ""), ("skip", 3), ("write", 9, "done", ""), ("arrive", 0)])
@settings(max_examples=400)
def test_each_message_is_stored_once(steps: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        delivery = Delivery(Path(directory))
        for step in steps:
            match step:
                case ("write", count, outcome, disk):
                    delivery.attempt(count, outcome, disk)
                case ("arrive", number):
                    if number < len(delivery.server.late):
                        delivery.server.late.pop(number)()
                case ("restart", number):
                    delivery.restart(CONFIGS[number])
                case ("skip", count):
                    delivery.skip(count)
        delivery.heal()
        found = delivery.server.messages()
        assert max(found.values(), default=0) <= 1, f"twice: {[seq for seq, count in found.items() if count > 1]}"
        assert set(range(1, COUNT + 1)) - set(found) <= delivery.skipped
