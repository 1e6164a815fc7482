"""What the journal's log says of a disk's faults, word for word: it is what a person has to act by."""

from __future__ import annotations

import errno
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import logged
import pytest
import pytest_twisted
from disks import FaultyFiles
from journals import ROUTES, OpenJournal, block

from wafermon.config import Journal as Settings
from wafermon.journal import Entry
from wafermon.journal.clock import Clock, Known
from wafermon.journal.groups import Mark, Stamp
from wafermon.journal.past import groups_before
from wafermon.journal.segments import path_of
from wafermon.journal.state import State
from wafermon.journal.storage import Disk
from wafermon.model.position import Position

BROKEN = OSError(errno.EIO, "broken")
ERROR = "[Errno 5] broken"
NOW = 1_700_000_000_000_000


@contextmanager
def said() -> Iterator[list[str]]:
    """What is logged, without the names of files that errors carry."""
    with logged.said() as lines:
        yield lines
    lines[:] = [plain(line) for line in lines]


def plain(line: str) -> str:
    return re.sub(r"(?<=broken): '[^']*'", "", line)


def make(directory: Path, files: FaultyFiles | None = None, **settings: Any) -> Disk:
    known = {"max_bytes": 0, "segment_bytes": 1 << 20, "sync": "always", **settings}
    return Disk(Settings.model_construct(dir=directory, **known), lambda _: None, files)


def put(disk: Disk, first: int, last: int) -> None:
    disk.write([block(range(first, last + 1))], [], [Mark("", "a" * 16, last)], Stamp(NOW + last, last), ROUTES)


@pytest_twisted.ensureDeferred
async def test_a_disk_that_fails_and_works_again(tmp_path: Path) -> None:
    files = FaultyFiles()
    opened = OpenJournal(tmp_path, files=files)
    files.fail("write", BROKEN, about=".segment")
    with said() as lines:
        await opened.put(range(5))
    assert lines == [
        f"error: Can't write to the journal in {tmp_path}: {ERROR}. Nothing is acknowledged until that works again",
        "info: The journal can write again",
    ]
    assert (opened.journal.figures.failures, opened.journal.failing) == (1, "")
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_a_fault_of_the_journals_own(tmp_path: Path) -> None:
    files = FaultyFiles()
    opened = OpenJournal(tmp_path, files=files)
    files.fail("write", RuntimeError("odd"), about=".segment")
    with said() as lines:
        await opened.put(range(5))
    assert lines[0] == "critical: Internal error in the journal: this group is tried again"
    assert lines[-1] == "info: The journal can write again"
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_a_fault_after_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = OpenJournal(tmp_path)

    def committed(*_: object) -> None:
        raise RuntimeError("odd")

    monkeypatch.setattr(opened.journal, "_committed", committed)
    with said() as lines:
        opened.journal.append(Entry(block(range(5))))
        while not lines:
            await opened.journal.sleep(0.01)
    assert lines == ["critical: Internal error in the journal"]
    opened.journal._disk.close()
    opened._pools.__exit__(None, None, None)


@pytest_twisted.ensureDeferred
async def test_a_fault_while_it_lasts(tmp_path: Path) -> None:
    files = FaultyFiles()
    opened = OpenJournal(tmp_path, files=files)
    files.fail("write", BROKEN, about=".segment", times=2)
    waiting = opened.put(range(5))
    while not opened.journal.figures.failures:
        await opened.journal.sleep(0.01)
    assert plain(opened.journal.failing) == f"can't write to {tmp_path}: {ERROR}"
    with said() as lines:
        await waiting
    assert lines == ["info: The journal can write again"], "the same fault is said once"
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_a_close_on_a_disk_that_fails(tmp_path: Path) -> None:
    files = FaultyFiles()
    opened = OpenJournal(tmp_path, files=files)
    files.fail("write", BROKEN, about=".segment", times=99)
    entry = Entry(block(range(5)))
    opened.journal.append(entry)
    with said() as lines:
        await opened.close()
    assert lines[-1] == f"error: Closing with {entry.size} bytes that could not be written, and were not acknowledged"
    files.heal()
    opened = OpenJournal(tmp_path, files=files)
    files.fail("sync", BROKEN, about=".segment")
    with said() as lines:
        await opened.close()
    assert lines == [f"error: The journal's last checkpoint failed: {ERROR}"]


@pytest_twisted.ensureDeferred
async def test_a_sync_that_fails_between(tmp_path: Path) -> None:
    files = FaultyFiles()
    opened = OpenJournal(tmp_path, files=files, sync="interval")
    await opened.put(range(5))
    files.fail("sync", BROKEN, about=".segment")
    with said() as lines:
        while not lines:
            await opened.journal.sleep(0.05)
    assert lines == [f"error: The journal can't sync: {ERROR}"]
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_a_checkpoint_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = OpenJournal(tmp_path)
    state: Any = opened.journal._disk.state

    def fails(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(state, "save", fails)
    with said() as lines:
        opened.journal.checkpoint_soon()
        while not lines:
            await opened.journal.sleep(0.01)
    assert lines == ["error: A checkpoint of the journal failed: disk I/O error"]
    monkeypatch.undo()
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_what_is_skipped(tmp_path: Path) -> None:
    opened = OpenJournal(tmp_path, segment_bytes=64 << 10, max_bytes=128 << 10)
    opened.journal.cursor("slow", may_skip=True)
    with said() as lines:
        for start in range(0, 25, 5):
            await opened.put(range(start, start + 5), size=9000)
    skips = [line for line in lines if "skips" in line]
    assert skips[:2] == [
        "error: The journal is full: slow skips segment 1 with 5 messages; "
        "1 segments with 5 messages skipped since the start",
        "error: The journal is full: slow skips segment 2 with 5 messages; "
        "2 segments with 10 messages skipped since the start",
    ]
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_a_cursor_that_is_discarded(tmp_path: Path) -> None:
    opened = OpenJournal(tmp_path)
    opened.journal.detach(opened.journal.cursor("old"))
    await opened.put(range(5))
    with said() as lines:
        held = await opened.journal.discard("old")
    assert lines == [
        f"warn: Cursor old is discarded: 5 messages in {held.bytes} bytes of journal were kept for it",
    ]
    assert opened.journal.figures.discarded_messages == 5
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_a_past_that_can_not_be_read(tmp_path: Path) -> None:
    files = FaultyFiles()
    opened = OpenJournal(tmp_path, files=files)
    await opened.put(range(5))
    start, end = opened.journal.oldest, opened.journal.end
    found = [group async for group in groups_before(opened.journal, end, 1 << 20)]
    assert [group.messages for group in found] == [5]
    assert [group async for group in groups_before(opened.journal, start, 1 << 20)] == []
    files.fail("open", BROKEN, about=".segment")
    with said() as lines:
        assert [group async for group in groups_before(opened.journal, end, 1 << 20)] == []
    assert lines == [f"warn: What the journal holds of the past can't be read at {start}: {ERROR}"]
    await opened.close()


def test_a_cut_that_fails(tmp_path: Path) -> None:
    files = FaultyFiles()
    disk = make(tmp_path, files)
    disk.open()
    put(disk, 1, 2)
    files.fail("write", BROKEN, about=".segment")
    files.fail("truncate", BROKEN, times=2)
    with said() as lines, pytest.raises(OSError, match="broken"):
        put(disk, 3, 4)
    assert lines == [f"error: The journal can't cut a failed write off: {ERROR}"]
    with said() as lines:
        put(disk, 3, 4)
    assert lines == [f"error: The journal can't cut off what was not synced: {ERROR}"]
    disk.close()


def test_a_segment_that_can_not_be_begun_or_removed(tmp_path: Path) -> None:
    files = FaultyFiles()
    disk = make(tmp_path, files)
    disk.open()
    files.fail("sync", BROKEN, about=".segment")
    files.fail("open", BROKEN, about="000002.segment")
    with said() as lines, pytest.raises(OSError, match="broken"):
        put(disk, 1, 2)
    assert lines == [f"error: The journal can't begin another segment yet: {ERROR}"]
    files.fail("unlink", BROKEN, about=".segment")
    with said() as lines:
        put(disk, 1, 2)
    assert lines == [f"error: The journal can't remove {path_of(tmp_path, 1)}: {ERROR}"]
    disk.close()


def test_what_a_start_cuts_and_misses(tmp_path: Path) -> None:
    disk = make(tmp_path, segment_bytes=1)
    disk.open()
    for number in range(1, 6):
        put(disk, number, number)
    disk.close()
    first, second, _, fourth, last = (path_of(tmp_path, number) for number in range(1, 6))
    first.write_bytes(first.read_bytes() + b"left over")
    os.truncate(second, second.stat().st_size - 30)
    fourth.unlink()
    last.write_bytes(last.read_bytes() + b"unfinished")
    disk = make(tmp_path)
    with said() as lines:
        disk.open()
    assert lines[:2] == [
        "info: Journal segment 1: cutting 9 bytes that a failed write left at its end",
        "error: Journal segment 2 has lost 30 bytes at its end: what they held and was not delivered yet is lost",
    ]
    assert "error: Journal segment 4 is missing: what it held and was not delivered yet is lost" in lines
    assert "info: Journal segment 5: cutting 10 unfinished bytes at its end" in lines
    assert disk.damaged >= 2
    disk.close()


def test_a_start_that_misses_nothing(tmp_path: Path) -> None:
    disk = make(tmp_path, segment_bytes=1)
    disk.open()
    for number in range(1, 4):
        put(disk, number, number)
    disk.close()
    disk = make(tmp_path)
    with said() as lines:
        disk.open()
    assert lines == []
    disk.close()


def test_what_is_set_aside(tmp_path: Path) -> None:
    disk = make(tmp_path)
    disk.open()
    where = tmp_path / "damaged" / "000000000007-9"
    with said() as lines:
        disk.set_aside(Position("j", 7, 9), b"12345")
        disk.set_aside(Position("j", 7, 9), b"12345")
        disk.set_aside(Position("j", 7, 19), b"1", "odd")
    aside = "error: Journal segment 7 is damaged at"
    assert lines == [
        f"{aside} 9: 5 bytes set aside in {where}",
        f"{aside} 19: 1 bytes set aside in {where.parent / '000000000007-19'}; the checksum is good, but: odd",
    ]
    assert (where.read_bytes(), disk.damaged) == (b"12345", 2)
    disk.close()


def test_a_start_on_a_full_disk(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    disk = make(tmp_path)
    disk.open()
    disk.close()
    files = FaultyFiles()
    disk = make(tmp_path, files)
    files.fail("open", full, about=".segment")
    with said() as lines:
        disk.open()
    error = "[Errno 28] No space left on device"
    assert lines[0] == f"warn: The journal in {tmp_path} can't be opened ({error}): trying again without its reserve"
    disk.close()
    files = FaultyFiles()
    disk = make(tmp_path, files)
    files.fail("write", full, about="reserve", times=9)
    with said() as lines:
        disk.open()
    assert lines == [f"error: The journal starts on a full disk, to empty it: {error}"]
    assert disk.full == f"can't write to {tmp_path}: {error}"
    disk.close()


def test_a_state_that_is_gone(tmp_path: Path) -> None:
    disk = make(tmp_path)
    disk.open()
    put(disk, 1, 2)
    journal = disk.state.journal
    disk.close()
    for path in tmp_path.glob("state.db*"):
        path.unlink()
    disk = make(tmp_path)
    with said() as lines:
        disk.open()
    assert lines == [
        f"error: {tmp_path / 'state.db'} is gone. Backends that keep no position of their own get again what is still in "
        "the journal"
    ]
    assert (disk.state.journal, disk.state.lost) == (journal, 1)
    disk.close()


def test_too_many_clients(tmp_path: Path) -> None:
    state = State(tmp_path / "state.db", marks_max=10)
    marks = [Mark("", f"{number:016x}", number) for number in range(1, 12)]
    with said() as lines:
        state.save({}, marks, Known(5, NOW))
    assert lines == ["error: Too many clients to remember: the marks of the 2 oldest are forgotten"]
    state.close()


def test_a_clock_that_was_set_back() -> None:
    wall, monotone = [1_700_000_000.0], [0.0]
    clock = Clock(lambda: wall[0], lambda: monotone[0])
    clock.begin(0, None)
    first = clock.now()
    wall[0] -= 3600.0
    with said() as lines:
        for _ in range(200):
            monotone[0] += 1.0
            wall[0] += 1.0
            clock.now()
    assert lines and all("3600" in line or "3599" in line or "3540" in line or "353" in line for line in lines[:1]), (
        lines
    )
    assert clock.now() < first
