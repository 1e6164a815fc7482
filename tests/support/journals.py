"""Journals to test with, on a real disk and with real threads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.python.threadpool import ThreadPool

from wafermon.config import Journal as Settings
from wafermon.files import Files
from wafermon.interfaces import Position
from wafermon.journal import Cursor, Entry, Group, Journal, Stream
from wafermon.model.blocks import Block
from wafermon.model.messages import decode_stored

NOW = 1_700_000_000_000_000
ROUTES = '{"rules":[]}'


def line(number: int, size: int = 0, **fields: Any) -> bytes:
    event = {"type": "event", "ts": NOW + number, "service": "svc", "level": "info", "message": f"m{number}", **fields}
    return json.dumps({**event, "context": {"fill": "x" * size}}).encode()


def block(numbers: Iterator[int] | range, size: int = 0) -> Block:
    lines = [line(number, size) for number in numbers]
    return Block.of(b"".join(line + b"\n" for line in lines), list(map(decode_stored, lines)))


def numbers(group: Group) -> list[int]:
    return [int(message.message[1:]) for _, one in group.blocks for message in one.messages]  # type: ignore[attr-defined]


class _Thread(Thread):
    """One that does not keep the process of a test that failed, and stopped none."""

    def __init__(self, **known: Any) -> None:
        super().__init__(daemon=True, **known)


@contextmanager
def pools() -> Iterator[tuple[ThreadPool, ThreadPool]]:
    writer, readers = ThreadPool(1, 1), ThreadPool(0, 4)
    for pool in (writer, readers):
        pool.threadFactory = _Thread  # type: ignore[assignment]  # Twisted calls it with names alone
    writer.start()
    readers.start()
    try:
        yield writer, readers
    finally:
        writer.stop()
        readers.stop()


class OpenJournal:
    """A journal in a directory, with ways to wait for it."""

    def __init__(
        self,
        directory: Path,
        probe: Callable[[str], None] = lambda _: None,
        files: Files | None = None,
        wall: Callable[[], float] | None = None,
        **settings: Any,
    ) -> None:
        self._pools = pools()
        settings = {"max_bytes": 0, "segment_bytes": 1 << 20, **settings}
        self.journal = Journal(
            Settings.model_construct(dir=directory, **settings),
            reactor,
            *self._pools.__enter__(),
            probe=probe,
            files=files,
            wall=wall,
        )
        self.journal.open(ROUTES)

    def append(self, entry: Entry) -> Deferred[None]:
        """Fires when it is settled."""
        settled: Deferred[None] = Deferred()
        entry.settled = lambda: settled.callback(None)
        self.journal.append(entry)
        return settled

    def put(self, some: range, stream: Stream | None = None, seq: int = 0, size: int = 0) -> Deferred[None]:
        if stream is not None:
            stream.appended = seq
        return self.append(Entry(block(some, size), stream=stream, seq=seq))

    def kill(self) -> None:
        """Leave the directory as a SIGKILL does; nothing is under way."""
        self.journal._disk.close()
        self._pools.__exit__(None, None, None)

    async def close(self) -> None:
        await self.journal.close()
        self._pools.__exit__(None, None, None)


async def read(cursor: Cursor, count: int) -> list[int]:
    """The next `count` numbers or more, whatever groups they are in."""
    found: list[int] = []
    while len(found) < count:
        found += numbers(await cursor.read())
    return found


def nowhere(journal: Journal) -> Position:
    return Position(journal.id, 0, 0)
