"""The history backend: the contract, on real files."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from history_places import read_lines

from wafermon.backends.history import history
from wafermon.contract import BackendContract


class TestContract(BackendContract):
    factory = history

    def options(self) -> dict[str, Any]:
        return {"dir": str(self.directory / "history"), "index": ["file"]}

    def read_back(self) -> Iterable[tuple[str, int]]:
        return read_lines(self.directory / "history")

    @contextmanager
    def unreachable(self) -> Iterator[None]:
        """Somebody else's lock on the file."""
        [path] = (self.directory / "history").glob("*.db")
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            yield
            db.execute("ROLLBACK")

    def snapshot(self) -> Callable[[], object]:
        """A copy by SQLite's own backup, and the way back by it."""
        [path] = (self.directory / "history").glob("*.db")
        copy = self.directory / "copy.db"
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)

        def restore() -> None:
            with closing(sqlite3.connect(copy)) as source, closing(sqlite3.connect(path)) as target:
                source.backup(target)

        return restore


class TestContractWithZlib(TestContract):
    def options(self) -> dict[str, Any]:
        return {**super().options(), "compress": "zlib"}


class TestContractWhereTheFileIsReplaced(TestContract):
    """A restore that moves other files into the directory."""

    def snapshot(self) -> Callable[[], object]:
        [path] = (self.directory / "history").glob("*.db")
        copy = self.directory / "copy.db"
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)

        def restore() -> None:
            for end in ("-wal", "-shm"):
                Path(f"{path}{end}").unlink(missing_ok=True)
            os.replace(shutil.copy(copy, self.directory / "other.db"), path)

        return restore
