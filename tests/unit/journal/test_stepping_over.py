"""The groups that followers pass over are remembered durably, and forgotten once they are not read again."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from journals import OpenJournal


@pytest_twisted.ensureDeferred
async def test_it_is_durable_once_it_is_told(tmp_path: Path) -> None:
    opened = OpenJournal(tmp_path)
    opened.journal.cursor("c")
    start = opened.journal.end
    await opened.put(range(1))
    await opened.journal.step_over("c", start)
    with sqlite3.connect(tmp_path / "state.db") as db:
        assert db.execute("SELECT * FROM stepped_over").fetchall() == [("c", str(start))]
    assert opened.journal.stepped_over("c") == {start}
    assert opened.journal.stepped_over("d") == set()
    await opened.close()
    opened = OpenJournal(tmp_path)
    assert opened.journal.stepped_over("c") == {start}
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_it_is_forgotten_once_the_cursor_has_passed_it_durably(tmp_path: Path) -> None:
    opened = OpenJournal(tmp_path)
    cursor, other = opened.journal.cursor("c"), opened.journal.cursor("d")
    first = opened.journal.end
    await opened.put(range(1))
    second = opened.journal.end
    await opened.put(range(1))
    for start in (first, second):
        await opened.journal.step_over("c", start)
        await opened.journal.step_over("d", start)
    cursor.move((await cursor.read()).end)
    assert opened.journal.stepped_over("c") == {first, second}
    await opened.journal.checkpointed()
    assert opened.journal.stepped_over("c") == {second}
    assert opened.journal.stepped_over(other.name) == {first, second}
    await opened.close()
    opened = OpenJournal(tmp_path)
    assert (opened.journal.stepped_over("c"), opened.journal.stepped_over("d")) == ({second}, {first, second})
    opened.journal.forget("d")
    await opened.journal.checkpointed()
    assert opened.journal.stepped_over("d") == set()
    await opened.close()
    opened = OpenJournal(tmp_path)
    assert (opened.journal.stepped_over("c"), opened.journal.stepped_over("d")) == ({second}, set())
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_a_disk_that_fails_is_told_and_nothing_is_stepped_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = OpenJournal(tmp_path)
    opened.journal.cursor("c")
    start = opened.journal.end
    state: Any = opened.journal._disk.state

    def fails(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(state, "step_over", fails)
    with pytest.raises(sqlite3.OperationalError):
        await opened.journal.step_over("c", start)
    assert opened.journal.stepped_over("c") == set()
    monkeypatch.undo()
    await opened.journal.step_over("c", start)
    assert opened.journal.stepped_over("c") == {start}
    await opened.close()
