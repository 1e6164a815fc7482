"""Asking the disk for a client's mark: in a thread, one question at a time."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from journals import OpenJournal, read
from twisted.internet.defer import CancelledError


class SlowState:
    """Lets the state's answers about marks wait for `go`."""

    def __init__(self, opened: OpenJournal, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.go = threading.Event()
        state: Any = opened.journal._disk.state
        mark = state.mark

        def slowly(principal: str, client: str) -> int:
            self.asked.append(client)
            self.go.wait(60)
            return int(mark(principal, client))

        monkeypatch.setattr(state, "mark", slowly)


async def until(opened: OpenJournal, so: Any) -> None:
    while not so():
        await opened.journal.sleep(0.005)


@pytest_twisted.ensureDeferred
async def test_a_mark_is_asked_in_a_thread_and_nothing_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = OpenJournal(tmp_path)
    cursor = opened.journal.cursor("c")
    first = opened.journal.marks.hold("", "a" * 16)
    await opened.put(range(10), first, seq=10)
    opened.journal.marks.release(first)
    opened.journal.checkpoint_soon()
    await until(opened, lambda: not len(opened.journal.marks))
    slow = SlowState(opened, monkeypatch)
    held = opened.journal.hold("", "a" * 16)
    await until(opened, lambda: slow.asked)
    await opened.put(range(10, 20))
    assert len(await read(cursor, 20)) == 20
    assert not held.called
    slow.go.set()
    stream = await held
    assert (stream.synced, stream.holders) == (10, 1)
    assert await opened.journal.hold("", "a" * 16) is stream, "what is in memory is not asked"
    assert slow.asked == ["a" * 16]
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_a_disk_that_hangs_takes_one_thread_and_who_has_gone_is_not_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = OpenJournal(tmp_path)
    slow = SlowState(opened, monkeypatch)
    clients = [f"{number:016x}" for number in range(100)]
    holds = [opened.journal.hold("", client) for client in clients]
    await until(opened, lambda: slow.asked)
    ends: list[Any] = []
    for held in holds[:99]:
        held.addErrback(ends.append)
        held.cancel()
    assert [failure.type for failure in ends] == [CancelledError] * 99
    assert slow.asked == clients[:1]
    slow.go.set()
    assert (await holds[99]).client == clients[99]
    assert slow.asked == [clients[0], clients[99]]
    assert len(opened.journal.marks) == 1, "nobody holds what nobody waited for"
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_a_disk_that_fails_once_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = OpenJournal(tmp_path)
    state: Any = opened.journal._disk.state

    def fails(principal: str, client: str) -> int:
        monkeypatch.undo()
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(state, "mark", fails)
    with pytest.raises(sqlite3.OperationalError):
        await opened.journal.hold("", "a" * 16)
    assert (await opened.journal.hold("", "a" * 16)).synced == 0
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_a_journal_that_closes_meanwhile_ends_the_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = OpenJournal(tmp_path)
    slow = SlowState(opened, monkeypatch)
    held = [opened.journal.hold("", client * 16) for client in "ab"]
    await until(opened, lambda: slow.asked)
    await opened.journal.close()
    slow.go.set()
    for one in held:
        with pytest.raises(sqlite3.Error):
            await one
    opened._pools.__exit__(None, None, None)
