"""Readers of a journal whose disk or whose neighbours fail: each goes on, or is told."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import logged
import pytest
import pytest_twisted
from disks import FaultyFiles
from journals import OpenJournal, block, numbers, read
from twisted.internet.defer import CancelledError, Deferred

from wafermon.journal import CannotRead, CursorInUse, Entry, Missing, Stretch, UnknownCursor
from wafermon.journal.segments import segments_in
from wafermon.model.position import Position

BROKEN = OSError(errno.EIO, "broken")


async def _until(opened: OpenJournal, true: Any) -> None:
    while not true():
        await opened.journal.sleep(0.01)


def _lag(opened: OpenJournal) -> None:
    """Let the groups be out of memory, as where a cursor lags."""
    opened.journal._tail._groups.clear()


@pytest_twisted.ensureDeferred
async def test_a_disk_that_fails_once_is_read_again(tmp_path: Path) -> None:
    files = FaultyFiles()
    opened = OpenJournal(tmp_path, files=files)
    cursor = opened.journal.cursor("c")
    await opened.put(range(5))
    _lag(opened)
    files.fail("read", BROKEN)
    with logged.said() as lines:
        reading = Deferred.fromCoroutine(cursor.read())
        await _until(opened, lambda: cursor.error)
    assert "broken" in cursor.error
    assert [line.partition("[Errno")[0] for line in lines] == [
        f"error: Cursor c can't read the journal at {cursor.next}, trying again: "
    ]
    assert numbers(await reading) == list(range(5))
    assert cursor.error == ""
    await opened.close()
    assert not files.opened


@pytest.mark.parametrize("error", [KeyError("x"), RuntimeError("x"), CancelledError("x")])
@pytest_twisted.ensureDeferred
async def test_whatever_else_a_thread_raises_reaches_the_reader_who_may_read_on(
    tmp_path: Path, error: Exception
) -> None:
    files = FaultyFiles()
    opened = OpenJournal(tmp_path, files=files)
    cursor = opened.journal.cursor("c")
    await opened.put(range(5))
    _lag(opened)
    files.fail("read", error)
    with pytest.raises(CannotRead, match=f"cursor c can't read the journal at .*{type(error).__name__}"):
        await cursor.read()
    assert numbers(await cursor.read()) == list(range(5))
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_a_read_that_hangs_may_be_left_and_keeps_its_descriptor_until_it_ends(tmp_path: Path) -> None:
    files = FaultyFiles()
    opened = OpenJournal(tmp_path, files=files)
    cursor = opened.journal.cursor("c")
    await opened.put(range(5))
    _lag(opened)
    files.fail("read", None)
    reading = Deferred.fromCoroutine(cursor.read())
    await _until(opened, files.hanging.is_set)
    reading.cancel()
    with pytest.raises(CancelledError):
        await reading
    again = Deferred.fromCoroutine(cursor.read())
    cursor.close()
    assert len(files.opened) == 2  # the segment that is written to, and that which the thread reads
    again.addErrback(lambda _: None).cancel()
    files.release()
    await _until(opened, lambda: len(files.opened) == 1)
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_a_segment_skipped_while_a_read_waits_for_a_thread_is_passed_over(tmp_path: Path) -> None:
    files = FaultyFiles()
    opened = OpenJournal(tmp_path, files=files, segment_bytes=64 << 10, max_bytes=256 << 10)
    cursor = opened.journal.cursor("slow", may_skip=True)
    await opened.put(range(5), size=9000)
    _lag(opened)
    files.fail("open", None, about=".segment")
    reading = Deferred.fromCoroutine(cursor.read())
    await _until(opened, files.hanging.is_set)
    for start in range(10, 400, 10):
        await opened.put(range(start, start + 5), size=9000)
    skipped = opened.journal.figures.skipped_messages["slow"]
    files.release()
    first = numbers(await reading)[0]
    assert skipped == (first // 10) * 5
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_one_callback_that_raises_takes_nobody_elses_ack_along(tmp_path: Path) -> None:
    opened = OpenJournal(tmp_path)
    told: list[str] = []

    def raises() -> None:
        raise RuntimeError("not my day")

    watched: list[int] = []

    def bad_watcher(group: object) -> None:
        raise RuntimeError("nor mine")

    opened.journal.watch(bad_watcher)
    opened.journal.watch(lambda group: watched.extend(numbers(group)))
    opened.journal.append(Entry(block(range(1)), settled=raises))
    opened.journal.append(Entry(block(range(1, 2)), settled=lambda: told.append("told")))
    with logged.said() as lines:
        await opened.put(range(2, 3))
        await _until(opened, lambda: watched == [0, 1, 2])
    assert told == ["told"]
    assert opened.journal.figures.raised == 2
    assert "critical: Internal error in telling that a message is durable" in lines
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_a_cursor_that_nobody_reads_with_is_named_and_can_be_discarded(tmp_path: Path) -> None:
    opened = OpenJournal(tmp_path, segment_bytes=64 << 10)
    journal = opened.journal
    journal.detach(journal.cursor("gone"))
    cursor = journal.cursor("here")
    for start in range(0, 2000, 100):
        await opened.put(range(start, start + 100), size=200)
    while not cursor.at_end:
        cursor.move((await cursor.read()).end)
    held = journal.known_cursors()
    assert held["here"].attached
    assert held["here"].holds.messages == 0
    assert held["gone"].holds.messages == 2000
    with pytest.raises(CursorInUse, match="here"):
        await journal.discard("here")
    with pytest.raises(UnknownCursor, match="never; it has gone, here"):
        await journal.discard("never")
    freed = await journal.discard("gone")
    assert freed == Stretch(held["gone"].holds.segments, held["gone"].holds.bytes, 2000)
    assert journal.figures.discarded_messages == 2000
    assert len(segments_in(tmp_path)) == 1
    await opened.close()
    opened = OpenJournal(tmp_path)
    assert set(opened.journal.known_cursors()) == {"here"}
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_a_cursor_is_set_back_durably_and_reads_again(tmp_path: Path) -> None:
    opened = OpenJournal(tmp_path)
    journal = opened.journal
    cursor = journal.cursor("c")
    await opened.put(range(5))
    first = await cursor.read()
    await opened.put(range(5, 10))
    second = await cursor.read()
    cursor.move(second.end)
    await journal._checkpointed()
    assert await journal.rewind(cursor, first.start) is None
    assert journal._disk.state.cursors()["c"] == first.start
    cursor.move(second.end)  # a late one: nothing of it was read again
    assert cursor.kept == first.start
    assert await read(cursor, 10) == list(range(10))
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_a_rewind_says_what_is_not_there_any_more(tmp_path: Path) -> None:
    opened = OpenJournal(tmp_path, segment_bytes=1)
    journal = opened.journal
    cursor = journal.cursor("c")
    groups = []
    for number in range(4):
        await opened.put(range(number, number + 1))
        groups.append(await cursor.read())
    cursor.move(groups[2].end)
    await journal._checkpointed()
    oldest = journal.oldest
    assert oldest == groups[3].start
    assert await journal.rewind(cursor, groups[0].start) == Missing(groups[0].start, oldest)
    assert await journal.rewind(cursor, groups[2].end) is None
    assert numbers(await cursor.read()) == [3]
    other = Position("0123456789abcdef", 9, 9)
    assert await journal.rewind(cursor, other) == Missing(other, oldest)
    with pytest.raises(ValueError, match="beyond the journal's end"):
        await journal.rewind(cursor, journal.end._replace(offset=10_000_000))
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_moves_of_several_batches_stay_in_order(tmp_path: Path) -> None:
    opened = OpenJournal(tmp_path)
    cursor = opened.journal.cursor("c")
    ends = []
    for number in range(3):
        await opened.put(range(number, number + 1))
        ends.append((await cursor.read()).end)
    cursor.move(ends[1])
    cursor.move(ends[0])
    assert cursor.kept == ends[1]
    cursor.move(ends[2]._replace(offset=ends[2].offset + 999))
    assert cursor.kept == ends[2]
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_a_held_stream_is_asked_for_in_a_thread_and_is_never_older_than_a_save(tmp_path: Path) -> None:
    opened = OpenJournal(tmp_path)
    journal = opened.journal
    stream = await journal.hold("", "a" * 16)
    assert await journal.hold("", "a" * 16) is stream
    await opened.put(range(3), stream, 3)
    journal.marks.release(stream)
    journal.marks.release(stream)
    await journal._checkpointed()
    assert not journal.marks.known("", "a" * 16)
    assert (await journal.hold("", "a" * 16)).synced == 3
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_both_times_stand_in_every_group_and_go_on_after_a_restart(tmp_path: Path) -> None:
    now = [1_700_000_000.0]
    opened = OpenJournal(tmp_path, wall=lambda: now[0])
    cursor = opened.journal.cursor("c")
    await opened.put(range(1))
    first = await cursor.read()
    await opened.close()
    now[0] += 3600
    opened = OpenJournal(tmp_path, wall=lambda: now[0])
    cursor = opened.journal.cursor("c")
    await opened.put(range(1, 2))
    [again, second] = [await cursor.read(), await cursor.read()]
    assert (again.time, again.elapsed) == (first.time, first.elapsed)
    assert second.time == 1_700_003_600_000_000
    assert 3_600_000_000 <= second.elapsed - first.elapsed < 3_700_000_000
    assert not second.back
    await opened.close()


@pytest.mark.parametrize("kills", [1, 2, 3])
@pytest_twisted.ensureDeferred
async def test_a_place_at_the_end_of_what_is_deleted_is_held_also_after_kills(tmp_path: Path, kills: int) -> None:
    """A backend stands there whose batches were all stored before the sidecar was killed."""
    opened = OpenJournal(tmp_path)
    cursor = opened.journal.cursor("c")
    await opened.put(range(5))
    reached = (await cursor.read()).end
    cursor.move(reached)
    for _ in range(kills):
        await opened.journal.checkpointed()
        opened.kill()
        opened = OpenJournal(tmp_path)
        cursor = opened.journal.cursor("c")
        await opened.journal.rewind(cursor, cursor.kept)
        cursor.move(cursor.next)
        await opened.journal.checkpointed()
    assert opened.journal.oldest.segment > reached.segment
    assert await opened.journal.rewind(cursor, reached) is None
    short = reached._replace(offset=reached.offset - 1)
    assert await opened.journal.rewind(cursor, short) == Missing(short, opened.journal.oldest)
    await opened.put(range(5, 10))
    assert numbers(await cursor.read()) == list(range(5, 10))
    await opened.close()
