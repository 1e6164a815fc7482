"""A PostgreSQL of the benchmarks' own, with its safety on, and what is stored there."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path

from suite.native import HERE
from suite.stored import Lines, Store

sys.path.append(str(HERE.parent.parent / "tests" / "support"))

from postgres import Database, Postgres


class Databases:
    """A new database for each measurement; the server starts with the first one."""

    def __init__(self, resources: ExitStack) -> None:
        self._resources = resources

    @cached_property
    def server(self) -> Postgres:
        server = Postgres(fsync="on", max_wal_size="4GB", shared_buffers="256MB")
        self._resources.callback(server.remove)
        server.start()
        return server

    @property
    def processes(self) -> Sequence[int]:
        assert self.server.process is not None
        return [self.server.process.pid]

    @contextmanager
    def new(self) -> Iterator[Database]:
        self.server.query("CHECKPOINT")
        database = self.server.create()
        try:
            yield database
        finally:
            database.drop()

    def store(self, database: Database, folder: Path) -> Store:
        """Rows in the database and lines in the folder's files, together."""
        return Rows(database, Lines(folder))


class Rows:
    def __init__(self, database: Database, lines: Lines) -> None:
        self._database = database
        self._lines = lines

    def count(self) -> int:
        """What the cursor says: much cheaper than counting rows, and it moves with them in one transaction."""
        if not self._database.query("SELECT 1 FROM pg_tables WHERE tablename = 'deliveries'"):
            return self._lines.count()
        stored = self._database.one("SELECT coalesce(sum(messages), 0) FROM deliveries")
        return int(stored) + self._lines.count()
