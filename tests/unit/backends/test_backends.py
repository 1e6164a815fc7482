"""The contract, held by a backend in memory and by the guide's example."""

from __future__ import annotations

import re
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from memory_backend import MemoryFactory, MemoryPlace
from twisted.internet import reactor

from wafermon.contract import BackendContract, line
from wafermon.model.messages import loads

ROOT = Path(__file__).parents[3]
GUIDE = ROOT / "docs" / "writing-a-backend.md"


def examples() -> dict[str, str]:
    """The guide's files: a fenced block after a line that names the file in backquotes, by that name."""
    found = re.findall(r"^`([\w./-]+)`:\n\n```\w+\n(.*?)^```$", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    return dict(found)


def example_module() -> ModuleType:
    module = ModuleType("example_backend")
    sys.modules[module.__name__] = module
    exec(compile(examples()["wafermon/backends/sqlite.py"], str(GUIDE), "exec"), module.__dict__)
    return module


class TestMemoryBackend(BackendContract):
    factory = MemoryFactory()

    def setup_method(self) -> None:
        super().setup_method()
        self.place = MemoryPlace(poison=b"cyanide")

    def options(self) -> dict[str, Any]:
        return {"place": self.place}

    def read_back(self) -> Iterable[tuple[str, int]]:
        return [(value["client"], value["seq"]) for value in map(loads, self.place.lines)]

    def unreachable(self) -> AbstractContextManager[None]:
        return self.place.unreachable()

    def poison(self, seq: int) -> bytes:
        return line(seq, message="cyanide")

    @contextmanager
    def lost_reply(self) -> Iterator[None]:
        self.place.lost = True
        yield
        self.place.lost = False

    def snapshot(self) -> Callable[[], object]:
        lines, position = list(self.place.lines), self.place.position

        def restore() -> None:
            self.place.lines, self.place.position = lines, position

        return restore


class TestMemoryBackendOfSeveralBatches(TestMemoryBackend):
    def setup_method(self) -> None:
        super().setup_method()
        self.place.outstanding = 3
        self.place.later = lambda finish: reactor.callLater(0, finish)

    @contextmanager
    def stuck(self) -> Iterator[None]:
        self.place.held = True
        yield
        self.place.release()


class TestMemoryBackendThatNamesMessages(TestMemoryBackend):
    def setup_method(self) -> None:
        super().setup_method()
        self.place = MemoryPlace(unfit=b"cyanide")


class TestExampleOfTheGuide(BackendContract):
    factory = example_module().sqlite

    def options(self) -> dict[str, Any]:
        return {"file": str(self.directory / "messages.db")}

    def read_back(self) -> Iterable[tuple[str, int]]:
        with sqlite3.connect(self.directory / "messages.db") as db:
            return db.execute("SELECT client, seq FROM messages").fetchall()

    @contextmanager
    def unreachable(self) -> Iterator[None]:
        with sqlite3.connect(self.directory / "messages.db") as db:
            db.execute("ALTER TABLE messages RENAME TO hidden")
        yield
        with sqlite3.connect(self.directory / "messages.db") as db:
            db.execute("ALTER TABLE hidden RENAME TO messages")

    @contextmanager
    def lost_reply(self) -> Iterator[None]:
        kind = type(self._built[0][0])
        write = kind._write

        def lost(backend: Any, batch: Any) -> None:
            reached = backend._reached
            write(backend, batch)
            backend._reached = reached
            raise sqlite3.OperationalError("the reply was lost")

        kind._write = lost
        yield
        kind._write = write

    def snapshot(self) -> Callable[[], object]:
        kept = sqlite3.connect(":memory:")
        with sqlite3.connect(self.directory / "messages.db") as db:
            db.backup(kept)

        def restore() -> None:
            with sqlite3.connect(self.directory / "messages.db") as db:
                kept.backup(db)

        return restore
