"""The journal's files are removed, or moved away, while it writes to them: nothing is acknowledged that is in no file."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import logged
import pytest
import pytest_twisted
from disks import FaultyFiles
from journal_disks import held, make, put
from journals import OpenJournal, numbers, read
from twisted.internet.defer import Deferred

from wafermon.journal import Mark
from wafermon.journal.clock import Known
from wafermon.journal.segments import path_of, segments_in
from wafermon.model.errors import JournalLocked
from wafermon.model.position import Position


def _empty(journal: Path) -> None:
    shutil.rmtree(journal)
    journal.mkdir()


def _remove_state(journal: Path) -> None:
    for path in journal.glob("state.db*"):
        path.unlink()


REMOVALS: dict[str, Callable[[Path], object]] = {
    "all": shutil.rmtree,
    "all, and the directory is there again": _empty,
    "all, moved away": lambda journal: journal.rename(journal.with_name("elsewhere")),
    "the segment": lambda journal: os.remove(path_of(journal, 1)),
    "the state": _remove_state,
}


@pytest.mark.parametrize("removal", REMOVALS)
def test_what_was_removed_is_there_again_before_anything_counts(tmp_path: Path, removal: str) -> None:
    journal = tmp_path / "journal"
    disk = make(journal)
    disk.open()
    put(disk, 1, 2)
    place = Position(disk.state.journal, 1, 0)
    disk.save({"files": place}, [Mark("", "b" * 16, 7)], Known(1, 1))
    REMOVALS[removal](journal)
    put(disk, 3, 4)
    put(disk, 5, 6)
    disk.save({"others": place}, [], Known(2, 2))
    with pytest.raises(JournalLocked):
        make(journal).open()
    disk.close()
    assert held(journal) == [1, 2, 3, 4, 5, 6]
    disk = make(journal)
    disk.open()
    assert disk.state.cursors().keys() >= {"files", "others"}
    assert disk.state.mark("", "b" * 16) == 7
    disk.close()


@pytest.mark.parametrize("call", ["open", "write", "sync", "sync_directory", "make_directory"])
def test_what_can_not_be_made_again_is_tried_again(tmp_path: Path, call: str) -> None:
    journal, files = tmp_path / "journal", FaultyFiles()
    disk = make(journal, files)
    disk.open()
    put(disk, 1, 2)
    shutil.rmtree(journal)
    files.fail(call, OSError(errno.ENOSPC, "full"))
    with pytest.raises(OSError, match="full"):
        put(disk, 3, 4)
    files.heal()
    put(disk, 3, 4)
    disk.close()
    assert held(journal) == [1, 2, 3, 4]


def test_a_stranger_s_file_under_a_segment_s_name_is_left_alone(tmp_path: Path) -> None:
    disk = make(tmp_path)
    disk.open()
    put(disk, 1, 2)
    segment = path_of(tmp_path, 1)
    segment.unlink()
    segment.write_bytes(b"a stranger's")
    with pytest.raises(FileExistsError, match="000000000001"):
        put(disk, 3, 4)
    assert segment.read_bytes() == b"a stranger's"
    segment.unlink()
    put(disk, 3, 4)
    disk.close()
    assert held(tmp_path) == [1, 2, 3, 4]


@pytest_twisted.ensureDeferred
async def test_a_reader_passes_over_a_removed_segment_once_it_stays_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And that is durable among what its consumer never got."""
    monkeypatch.setattr("wafermon.journal.cursor.RETRY_SECONDS", 0.001)
    opened = OpenJournal(tmp_path, segment_bytes=64 << 10)
    reader, other = opened.journal.cursor("reader"), opened.journal.cursor("other")
    for start in range(0, 600, 100):
        await opened.put(range(start, start + 100), size=200)
    opened.journal._tail._groups.clear()
    segments = sorted(segments_in(tmp_path))
    assert len(segments) > 2
    gone = path_of(tmp_path, segments[0])
    kept = gone.read_bytes()
    gone.unlink()
    reading = Deferred.fromCoroutine(read(reader, 100))
    while "No such file" not in reader.error:
        await opened.journal.sleep(0.001)
    gone.write_bytes(kept)
    found = await reading
    assert found[:100] == list(range(100))
    gone.unlink()
    found = []
    with logged.said() as lines:
        while not other.at_end:
            group = await other.read()
            found += numbers(group)
            other.move(group.end)
    lost = 600 - len(found)
    place = f"{opened.journal.id}:{segments[0]}:0"
    assert lines[-1] == (
        f"error: Journal segment {segments[0]} was removed or moved away: its {lost} messages from {place} on are lost to other"
    )
    assert 0 < lost < 600
    assert found == list(range(lost, 600))
    [skip] = opened.journal.skipped("other")
    assert (skip.start.segment, skip.end.segment) == (segments[0], segments[1])
    assert opened.journal.damaged == 1
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_what_is_written_to_is_never_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wafermon.journal.cursor.RETRY_SECONDS", 0.001)
    monkeypatch.setattr("wafermon.journal.cursor.GONE_TRIES", 2)
    opened = OpenJournal(tmp_path)
    cursor = opened.journal.cursor("c")
    await opened.put(range(5))
    opened.journal._tail._groups.clear()
    path_of(tmp_path, 1).unlink()
    reading = Deferred.fromCoroutine(read(cursor, 10))
    while cursor._not_found < 10:
        await opened.journal.sleep(0.001)
    assert "No such file" in cursor.error
    await opened.put(range(5, 10))
    assert await reading == list(range(10))
    assert cursor.error == ""
    await opened.close()
