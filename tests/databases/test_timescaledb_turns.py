"""Two batches under way at a time: the next one's rows are made while the server stores one, and it is stored after that."""

from __future__ import annotations

from threading import Event
from typing import Any

import psycopg2
import pytest
from postgres import Database, backend, by_copy
from pytest_twisted import ensureDeferred

from wafermon.backends.timescaledb import backend as module
from wafermon.backends.timescaledb.loading import Loader, Shaped, shaped
from wafermon.contract import JOURNAL, batch, line
from wafermon.interfaces import Batch, Position
from wafermon.model.errors import RetryableError, Superseded

SECONDS = 60.0


@pytest.fixture(autouse=True)
def _by_copy() -> None:
    by_copy()


def two() -> tuple[Batch, Batch]:
    first = batch(Position(JOURNAL, 1, 0), map(line, range(1, 101)))
    return first, batch(first.end, map(line, range(101, 201)))


def stored(database: Database) -> list[int]:
    return [seq for (seq,) in database.query("SELECT seq FROM events ORDER BY ctid")]


@ensureDeferred
async def test_rows_are_made_while_the_server_stores_the_batch_before(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, load = Event(), Loader.load
    made: list[int] = []

    def shape(raw: bytes) -> Shaped:
        made.append(len(raw))
        if len(made) == 2:
            both.set()
        return shaped(raw)

    def slow(self: Loader, *given: Any) -> int:
        assert both.wait(SECONDS), "the second waits for the first"
        return load(self, *given)

    monkeypatch.setattr(module, "shaped", shape)
    monkeypatch.setattr(Loader, "load", slow)
    first, second = two()
    with backend(database) as writer:
        await writer.open()
        writing = [writer.write(first), writer.write(second)]
        for one in writing:
            await one
        assert writer.health().figures["copied"] == 200
    assert stored(database) == [*range(1, 201)]


@ensureDeferred
async def test_the_next_batch_waits_where_one_is_left_to_the_statement(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = two()

    def shape(raw: bytes) -> Shaped:
        return Shaped((), b"", 0, b"") if raw == first.raw else shaped(raw)

    monkeypatch.setattr(module, "shaped", shape)
    third = batch(second.end, map(line, range(201, 301)))
    with backend(database) as writer:
        await writer.open()
        writing = [writer.write(first), writer.write(second)]
        for one in writing:
            await one
        await writer.write(third)
        assert writer.health().figures["copied"] == 100, "the first two by the statement, each in its turn"
    assert stored(database) == [*range(1, 301)]


@ensureDeferred
async def test_a_thread_stores_nothing_after_a_batch_that_is_not_stored(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[int] = []

    def fails(self: Loader, *given: Any) -> int:
        loaded.append(1)
        self.cut()
        raise psycopg2.OperationalError("the connection was lost")

    first, second = two()
    with backend(database) as writer:
        await writer.open()
        with monkeypatch.context() as patched:
            patched.setattr(Loader, "load", fails)
            writing = [writer.write(first), writer.write(second)]
            with pytest.raises(RetryableError, match="the connection was lost"):
                await writing[0]
            with pytest.raises(Superseded):
                await writing[1]
        assert len(loaded) == 1
        await writer.write(first)
        await writer.write(second)
    assert stored(database) == [*range(1, 201)]


@ensureDeferred
async def test_it_is_closed_while_both_are_under_way(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = Event(), Event()

    def hangs(self: Loader, *given: Any) -> int:
        begun.set()
        go_on.wait(SECONDS)
        raise psycopg2.OperationalError("the connection was lost")

    monkeypatch.setattr(Loader, "load", hangs)
    first, second = two()
    with backend(database) as writer:
        await writer.open()
        writing = [writer.write(first), writer.write(second)]
        await writer._in_thread(begun.wait, SECONDS)
        closing = writer.close()
        for one in writing:
            with pytest.raises(RetryableError):
                await one
        assert not closing.called, "a thread of it still runs"
        go_on.set()
        await closing
    assert stored(database) == []
