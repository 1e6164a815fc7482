"""The timescaledb backend on a real PostgreSQL: the contract, and what stands in which column."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from postgres import Database

from wafermon.backends.timescaledb import timescaledb
from wafermon.contract import BackendContract, line


class TestContract(BackendContract):
    factory = timescaledb

    @pytest.fixture(autouse=True)
    def _database(self, database: Database) -> None:
        self.database = database

    def options(self) -> dict[str, Any]:
        return {"dsn": self.database.dsn}

    def read_back(self) -> Iterable[tuple[str, int]]:
        return self.database.stored()

    def unreachable(self) -> AbstractContextManager[None]:
        return self.database.server.down()

    def poison(self, seq: int) -> bytes:
        """The parser takes it as 0; PostgreSQL says that it is out of range."""
        return line(seq, type="metric", name="x", value=1).replace(b'"value":1', b'"value":1e-400')
