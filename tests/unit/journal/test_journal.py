"""The journal's promises, on a real disk. The process exits at its crash points are in test_crashes.py."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from journals import NOW, ROUTES, OpenJournal, block, line, numbers, read
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from wafermon.interfaces import Position
from wafermon.journal import Entry, Group, Rejected, Stamp
from wafermon.journal.groups import encode_commit, scan
from wafermon.journal.segments import Reader, path_of, segments_in
from wafermon.model.blocks import Block
from wafermon.model.errors import JournalLocked


@pytest_twisted.ensureDeferred
async def test_what_is_appended_is_read_by_every_cursor(tmp_path: Path) -> None:
    opened = OpenJournal(tmp_path)
    one, two = opened.journal.cursor("one"), opened.journal.cursor("two")
    for start in range(0, 100, 10):
        await opened.put(range(start, start + 10))
    assert await read(one, 100) == list(range(100))
    assert await read(two, 100) == list(range(100))
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_acks_go_out_before_anybody_reads(tmp_path: Path) -> None:
    """Readers may be long about it: nobody's ack waits for that."""
    opened = OpenJournal(tmp_path)
    happened: list[str] = []
    reading = Deferred.fromCoroutine(opened.journal.cursor("all").read())
    reading.addCallback(lambda _: happened.append("read"))

    def settled() -> None:
        reactor.callLater(0, happened.append, "acknowledged")  # as the receiver does

    opened.journal.append(Entry(block(range(1)), settled=settled))
    await reading
    assert happened == ["acknowledged", "read"]
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_a_new_cursor_starts_at_the_end(tmp_path: Path) -> None:
    opened = OpenJournal(tmp_path)
    await opened.put(range(10))
    cursor = opened.journal.cursor("new")
    await opened.put(range(10, 20))
    assert await read(cursor, 10) == list(range(10, 20))
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_a_cursor_goes_on_where_it_was_after_a_restart(tmp_path: Path) -> None:
    opened = OpenJournal(tmp_path)
    cursor = opened.journal.cursor("c")
    await opened.put(range(10))
    await opened.put(range(10, 20))
    cursor.move((await cursor.read()).end)
    await opened.close()
    opened = OpenJournal(tmp_path)
    assert await read(opened.journal.cursor("c"), 10) == list(range(10, 20))
    await opened.put(range(20, 30))
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_a_cursor_can_start_at_any_line(tmp_path: Path) -> None:
    opened = OpenJournal(tmp_path)
    cursor = opened.journal.cursor("c")
    await opened.put(range(10))
    group = await cursor.read()
    [(offset, held)] = group.blocks
    starts = [offset + sum(len(one) + 1 for one in held.raw.split(b"\n")[:index]) for index in range(10)]
    for index, start in enumerate(starts):
        cursor.seek(group.start._replace(offset=start))
        assert numbers(await cursor.read()) == list(range(index, 10))
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_a_lagging_cursor_reads_the_disk_and_catches_up(tmp_path: Path) -> None:
    opened = OpenJournal(tmp_path, segment_bytes=256 << 10)
    cursor = opened.journal.cursor("c")
    count = 0
    while count < 20_000:
        await opened.put(range(count, count + 500), size=400)
        count += 500
    assert opened.journal.remembered(cursor.next) is None
    found: list[int] = []
    while len(found) < count:
        group = await cursor.read()
        cursor.move(group.end)
        found += numbers(group)
    assert found == list(range(count))
    assert cursor.at_end
    await opened.put(range(count, count + 1))
    assert await read(cursor, 1) == [count]
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_segments_behind_every_cursor_are_deleted(tmp_path: Path) -> None:
    opened = OpenJournal(tmp_path, segment_bytes=64 << 10)
    fast, slow = opened.journal.cursor("fast"), opened.journal.cursor("slow")
    for start in range(0, 2000, 100):
        await opened.put(range(start, start + 100), size=200)
    while not fast.at_end:
        fast.move((await fast.read()).end)
    await opened.journal.sleep(0.2)
    assert len(segments_in(tmp_path)) > 5
    while not slow.at_end:
        slow.move((await slow.read()).end)
    while len(segments_in(tmp_path)) > 1:
        await opened.journal.sleep(0.05)
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_after_restarts_segments_are_deleted_and_more_than_the_quota_is_taken(tmp_path: Path) -> None:
    """What the journal remembers for itself from an earlier run holds no segment."""
    sizes: dict[str, Any] = {"segment_bytes": 64 << 10, "max_bytes": 512 << 10}
    for _ in range(3):
        opened = OpenJournal(tmp_path, **sizes)
        cursor = opened.journal.cursor("all")
        for start in range(0, 4000, 100):  # about 1 MiB in each run
            await opened.put(range(start, start + 100), size=200).addTimeout(20, reactor)
            while not cursor.at_end:
                cursor.move((await cursor.read()).end)
        while len(segments_in(tmp_path)) > 1:
            await opened.journal.sleep(0.05)
        assert opened.journal.known_cursors().keys() == {"all"}
        await opened.close()


@pytest_twisted.ensureDeferred
async def test_a_detached_cursor_holds_its_segments_until_it_is_forgotten(tmp_path: Path) -> None:
    opened = OpenJournal(tmp_path, segment_bytes=64 << 10)
    opened.journal.detach(opened.journal.cursor("gone"))
    for start in range(0, 2000, 100):
        await opened.put(range(start, start + 100), size=200)
    opened.journal.checkpoint_soon()
    await opened.journal.sleep(0.2)
    assert len(segments_in(tmp_path)) > 5
    held = opened.journal.known_cursors()
    assert set(held) == {"gone"}
    assert not held["gone"].attached
    assert held["gone"].holds.messages == 2000
    assert held["gone"].holds.segments == len(segments_in(tmp_path))
    opened.journal.forget("gone")
    while len(segments_in(tmp_path)) > 1:
        await opened.journal.sleep(0.05)
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_marks_outlive_a_restart(tmp_path: Path) -> None:
    opened = OpenJournal(tmp_path)
    stream = opened.journal.marks.hold("uid:1", "a" * 16)
    await opened.put(range(10), stream, seq=10)
    assert stream.synced == 10
    opened.journal.marks.release(stream)
    await opened.close()
    opened = OpenJournal(tmp_path)
    assert opened.journal.marks.hold("uid:1", "a" * 16).synced == 10
    assert opened.journal.marks.hold("", "a" * 16).synced == 0
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_streams_that_are_gone_leave_the_memory_but_not_the_disk(tmp_path: Path) -> None:
    opened = OpenJournal(tmp_path)
    marks = opened.journal.marks
    for number in range(300):
        stream = marks.hold("", f"{number:016x}")
        await opened.put(range(1), stream, seq=number + 1)
        marks.release(stream)
    opened.journal.checkpoint_soon()
    while len(marks):
        await opened.journal.sleep(0.02)
    assert marks.hold("", f"{299:016x}").synced == 300
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_a_hello_alone_makes_no_mark(tmp_path: Path) -> None:
    opened = OpenJournal(tmp_path)
    marks = opened.journal.marks
    marks.release(marks.hold("", "a" * 16))
    assert len(marks) == 0
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_positions_are_never_used_twice(tmp_path: Path) -> None:
    used: set[int] = set()
    for _ in range(4):
        opened = OpenJournal(tmp_path)
        cursor = opened.journal.cursor("c")
        await opened.put(range(3))
        group = await cursor.read()
        cursor.move(group.end)
        assert group.start.segment not in used
        used.add(group.start.segment)
        await opened.close()


@pytest_twisted.ensureDeferred
async def test_rejected_lines_are_journalled(tmp_path: Path) -> None:
    opened = OpenJournal(tmp_path)
    cursor = opened.journal.cursor("c")
    refused = [
        Rejected("bad_utf8", "byte 0", b"\xff{", "peer", NOW, "a" * 16, 3),
        Rejected("bad_json", "x", b"{", "p", NOW),
    ]
    await opened.append(Entry(block(range(2)), refused))
    group = await cursor.read()
    assert [one for _, one in group.rejected] == refused
    cursor.seek(group.start)
    again = (await opened.journal.read(Reader(tmp_path, opened.journal.id), group.start, None))[0]
    assert again.rejected == group.rejected
    assert again.blocks[0][0] == group.blocks[0][0]
    assert again.blocks[0][1].raw == group.blocks[0][1].raw
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_the_table_in_force_is_found_at_every_position(tmp_path: Path) -> None:
    opened = OpenJournal(tmp_path)
    cursor = opened.journal.cursor("c")
    await opened.put(range(2))
    opened.journal.set_routes('{"rules":["new"]}')
    await opened.put(range(2, 4))
    await opened.put(range(4, 6))
    groups = [await cursor.read() for _ in range(3)]
    reader = Reader(tmp_path, opened.journal.id)
    for group in groups:
        [*_, last] = await opened.journal.read(reader, group.start, None)
        assert last.routes == '{"rules":["new"]}'
        assert (await opened.journal.read(Reader(tmp_path, opened.journal.id), group.start, None))[
            0
        ].routes == group.routes
    assert [group.routes for group in groups] == [ROUTES, '{"rules":["new"]}', '{"rules":["new"]}']
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_an_unfinished_tail_is_cut(tmp_path: Path) -> None:
    opened = OpenJournal(tmp_path)
    cursor = opened.journal.cursor("c")
    await opened.put(range(3))
    await opened.close()
    [path] = tmp_path.glob("*.segment")
    with path.open("ab") as file:
        file.write(line(3) + b"\n" + line(4)[:10])
    opened = OpenJournal(tmp_path)
    cursor = opened.journal.cursor("c")
    await opened.put(range(5, 6))
    assert await read(cursor, 4) == [0, 1, 2, 5]
    assert opened.journal.damaged == 0
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_bytes_that_are_gone_are_damage_too(tmp_path: Path) -> None:
    """Something cuts the file that is read: what was in it is said to be lost."""
    opened = OpenJournal(tmp_path)
    cursor = opened.journal.cursor("c")
    await opened.put(range(5))
    opened.journal._tail._groups.clear()
    os.truncate(path_of(tmp_path, 1), 0)
    group = await cursor.read()
    assert (group.start.offset, group.end, group.blocks, group.damaged) == (0, opened.journal.end, [], b"")
    assert opened.journal.damaged == 1
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_a_damaged_group_is_set_aside_and_the_rest_read(tmp_path: Path) -> None:
    opened = OpenJournal(tmp_path)
    opened.journal.cursor("c")
    for start in range(0, 30, 10):
        await opened.put(range(start, start + 10))
    await opened.close()
    [path] = tmp_path.glob("*.segment")
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"m15"', b'"mXX"'))
    opened = OpenJournal(tmp_path)
    cursor = opened.journal.cursor("c")
    assert await read(cursor, 20) == [*range(10), *range(20, 30)]
    [aside] = (tmp_path / "damaged").iterdir()
    assert b'"mXX"' in aside.read_bytes()
    assert opened.journal.damaged == 1
    await opened.close()


@given(
    st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4), max_size=6),
    st.integers(0, 400),
    st.binary(max_size=3),
)
def test_scan_finds_whole_groups_and_nothing_else(groups: list[list[int]], where: int, change: bytes) -> None:
    data = b""
    for one in groups:
        lines = b"".join(line(number) + b"\n" for number in one)
        data += lines + encode_commit([lines], Stamp(NOW, NOW), [])
    assert [span.commit is not None for span in scan(data)] == [True] * len(groups)
    where = min(where, len(data))
    spans = list(scan(data[:where] + change + data[where + len(change) :]))
    whole = [span for span in spans if span.commit is not None]
    intact = sum(1 for span in scan(data) if span.end <= where or span.start >= where + len(change))
    assert len(whole) >= intact
    assert all(before.end <= after.start for before, after in itertools.pairwise(spans))


@pytest_twisted.ensureDeferred
async def test_a_second_process_is_locked_out(tmp_path: Path) -> None:
    opened = OpenJournal(tmp_path)
    with pytest.raises(JournalLocked, match=f"process {os.getpid()}"):
        OpenJournal(tmp_path)
    await opened.close()
    await OpenJournal(tmp_path).close()


class Faulty:
    """Lets the named call of `os` fail while it is on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
        self.on = False
        self.failed = 0
        real = getattr(os, name)

        def call(*arguments: Any) -> Any:
            if self.on:
                self.failed += 1
                raise OSError(number, os.strerror(number))
            return real(*arguments)

        monkeypatch.setattr(os, name, call)


@pytest.mark.parametrize(("name", "number"), [("pwritev", errno.ENOSPC), ("fdatasync", errno.EIO)])
@pytest_twisted.ensureDeferred
async def test_a_failing_disk_loses_nothing_and_recovers_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    fault = Faulty(monkeypatch, name, number)
    opened = OpenJournal(tmp_path)
    cursor = opened.journal.cursor("c")
    await opened.put(range(10))
    fault.on = True
    settled = opened.put(range(10, 20))
    while fault.failed < 2:
        await opened.journal.sleep(0.05)
    assert not settled.called
    assert "can't write" in opened.journal.failing
    assert opened.journal.figures.failures >= 1
    fault.on = False
    await settled
    assert opened.journal.failing == ""
    assert await read(cursor, 20) == list(range(20))
    await opened.close()
    opened = OpenJournal(tmp_path)
    assert await read(opened.journal.cursor("c"), 20) == list(range(20))
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_after_a_failed_sync_nothing_is_written_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = Faulty(monkeypatch, "fdatasync", errno.EIO)
    opened = OpenJournal(tmp_path)
    await opened.put(range(10))
    before = opened.journal.end
    fault.on = True
    settled = opened.put(range(10, 20))
    while not fault.failed:
        await opened.journal.sleep(0.05)
    fault.on = False
    await settled
    assert opened.journal.end.segment > before.segment
    assert segments_in(tmp_path)[before.segment] == before.offset
    await opened.close()


async def _fill(opened: OpenJournal, limit: int) -> list[Any]:
    """Append until the journal takes no more; answers with what is not settled."""
    waiting = []
    for start in range(0, 100 * limit, 100):
        waiting.append(opened.put(range(start, start + 100), size=200))
        while not (waiting[-1].called or opened.journal.full):  # a slow disk would make one large group of them
            await opened.journal.sleep(0.001)
    await opened.journal.sleep(0.3)
    return [one for one in waiting if not one.called]


@pytest_twisted.ensureDeferred
async def test_a_full_journal_waits_for_a_cursor_that_must_not_skip(tmp_path: Path) -> None:
    opened = OpenJournal(tmp_path, segment_bytes=64 << 10, max_bytes=256 << 10)
    cursor = opened.journal.cursor("slow")
    waiting = await _fill(opened, 30)
    assert waiting
    assert opened.journal.full
    assert opened.journal.size <= 256 << 10
    found: list[int] = []
    while len(found) < 3000:
        group = await cursor.read()
        found += numbers(group)
        cursor.move(group.end)
    assert found == list(range(3000))
    assert all(one.called for one in waiting)
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_a_full_journal_lets_the_oldest_segments_of_a_cursor_go_that_may_skip(tmp_path: Path) -> None:
    opened = OpenJournal(tmp_path, segment_bytes=64 << 10, max_bytes=256 << 10)
    cursor = opened.journal.cursor("slow", may_skip=True)
    first = await _fill(opened, 30)
    while any(not one.called for one in first):
        await opened.journal.sleep(0.05)
    group = await cursor.read()
    assert numbers(group)[0] > 0
    assert group.start.segment > 1
    assert opened.journal.figures.skipped_segments["slow"] > 0
    await opened.close()


def test_positions_read_back_what_they_print() -> None:
    position = Position("9d26f5a6ddff5fbc", 3, 99)
    assert Position.parse(str(position)) == position


def test_a_group_cut_at_a_line_keeps_what_stands_behind_it() -> None:
    held = block(range(3))
    group = Group(Position("j", 1, 100), Position("j", 1, 999), NOW, ROUTES, [(110, held)])
    size = len(line(0)) + 1
    assert numbers(group.after(110 + size)) == [1, 2]
    assert numbers(group.after(110)) == [0, 1, 2]
    assert group.after(110 + size).blocks[0][0] == 110 + size


@pytest_twisted.ensureDeferred
async def test_a_group_that_can_not_even_be_made_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a fault of wafermon's own: the intake must not stand still for ever, and health says it meanwhile."""
    monkeypatch.setattr("wafermon.journal.journal.RETRY_SECONDS", 0.01)
    opened = OpenJournal(tmp_path)
    cursor = opened.journal.cursor("c")
    tries: list[str] = []

    def joined(blocks: Sequence[Block]) -> list[Block]:
        tries.append(opened.journal.failing)
        if len(tries) < 3:
            raise RuntimeError("broken")
        return list(blocks)

    monkeypatch.setattr("wafermon.journal.journal.melted", joined)
    await opened.put(range(3))
    await opened.put(range(3, 5))
    assert await read(cursor, 5) == list(range(5))
    assert len(tries) == 4 and "broken" in tries[1] and opened.journal.failing == ""
    await opened.close()
