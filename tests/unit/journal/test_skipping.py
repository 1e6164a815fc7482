"""What a full journal releases is counted once it is clear that nobody delivers it."""

from __future__ import annotations

from pathlib import Path

import logged
import pytest
import pytest_twisted
from journals import OpenJournal

from wafermon.journal import Cursor, Group
from wafermon.model.position import Position


class Full:
    """A journal for five segments of `groups` groups of 5 messages each, and a cursor that may skip."""

    def __init__(self, directory: Path, groups: int = 1) -> None:
        self.opened = OpenJournal(directory, segment_bytes=64 << 10, max_bytes=320 << 10)
        self.cursor: Cursor = self.opened.journal.cursor("slow", may_skip=True)
        self.size = 9000 // groups
        self.read: list[Group] = []
        self._next = 0

    async def put(self, groups: int, *, read: bool) -> None:
        for _ in range(groups):
            await self.opened.put(range(self._next, self._next + 5), size=self.size)
            self._next += 5
            if read:
                self.read.append(await self.cursor.read())

    @property
    def skipped(self) -> tuple[int, int]:
        """Segments and messages."""
        figures = self.opened.journal.figures
        return figures.skipped_segments.get("slow", 0), figures.skipped_messages.get("slow", 0)


@pytest_twisted.ensureDeferred
async def test_what_was_not_read_counts_at_once(tmp_path: Path) -> None:
    full = Full(tmp_path)
    await full.put(20, read=False)
    segments, messages = full.skipped
    assert segments >= 12
    assert messages == segments * 5
    first = await full.cursor.read()
    assert first.start.segment == segments + 1
    assert full.skipped == (segments, messages)
    await full.opened.close()


@pytest_twisted.ensureDeferred
async def test_what_was_read_does_not_count_as_long_as_it_may_be_delivered(tmp_path: Path) -> None:
    full = Full(tmp_path)
    await full.put(20, read=True)
    segments, messages = full.skipped
    assert segments >= 12
    assert messages == 0
    for group in full.read:
        full.cursor.move(group.end)
    full.opened.journal.detach(full.cursor)
    assert full.skipped == (segments, 0), "all was delivered"
    await full.opened.close()


@pytest_twisted.ensureDeferred
async def test_of_a_segment_that_is_half_read_the_rest_counts(tmp_path: Path) -> None:
    full = Full(tmp_path, groups=2)
    await full.put(1, read=True)
    await full.put(30, read=False)
    segments, messages = full.skipped
    assert messages == segments * 10 - 5
    await full.opened.close()


@pytest_twisted.ensureDeferred
async def test_what_was_read_counts_where_its_reader_goes(tmp_path: Path) -> None:
    full = Full(tmp_path)
    await full.put(20, read=True)
    segments, _ = full.skipped
    full.cursor.move(full.read[9].end)
    lost = (segments - 10) * 5
    with logged.said() as lines:
        full.opened.journal.detach(full.cursor)
    assert full.skipped == (segments, lost)
    assert lines == [f"error: slow had read {lost} messages of what it skipped, and begins again without them"]
    await full.opened.close()


@pytest_twisted.ensureDeferred
async def test_what_was_read_counts_where_its_reader_begins_again(tmp_path: Path) -> None:
    full = Full(tmp_path)
    await full.put(20, read=True)
    segments, _ = full.skipped
    full.cursor.move(full.read[9].end)
    await full.opened.journal.rewind(full.cursor, full.cursor.kept)
    assert full.skipped == (segments, (segments - 10) * 5)
    await full.opened.journal.rewind(full.cursor, full.cursor.kept)
    assert full.skipped == (segments, (segments - 10) * 5), "once"
    await full.opened.close()


@pytest_twisted.ensureDeferred
async def test_what_the_backend_says_that_it_has_does_not_count(tmp_path: Path) -> None:
    full = Full(tmp_path)
    await full.put(20, read=True)
    segments, _ = full.skipped
    full.cursor.move(full.read[4].end)
    missing = await full.opened.journal.rewind(full.cursor, full.read[9].end)
    assert missing is not None
    assert full.skipped == (segments, (segments - 10) * 5)
    await full.opened.close()


@pytest.mark.parametrize(("done", "position", "lost"), [(0, 90, 9), (50, 90, 4), (90, 90, 0), (0, 40, 4), (60, 40, 0)])
@pytest_twisted.ensureDeferred
async def test_what_is_read_again_does_not_count(tmp_path: Path, done: int, position: int, lost: int) -> None:
    """Nine messages of ten bytes were read of a segment of 100 bytes, which was released and is still there."""
    opened = OpenJournal(tmp_path)
    cursor = opened.journal.cursor("c")
    here = Position(opened.journal.id, 7, 0)
    cursor.kept, cursor.next, cursor._done = here, here._replace(offset=90), here
    cursor.skip(here._replace(offset=100), here._replace(segment=8), 9)
    assert cursor.kept == here._replace(segment=8)
    cursor._done = here._replace(offset=done)
    assert cursor.begin_again(here._replace(offset=position)) == lost
    assert cursor.begin_again(here._replace(offset=position)) == 0
    await opened.close()
