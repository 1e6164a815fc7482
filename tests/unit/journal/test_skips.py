"""What cursors passed undelivered, and who was connected: kept durably, in the journal's own words."""

from __future__ import annotations

from pathlib import Path

import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from journals import OpenJournal, block, numbers

from wafermon.journal import CAME, STARTED, WENT, Entry, Presence
from wafermon.journal.groups import decode_group, encode_presence, program_of, scan
from wafermon.journal.skips import SKIPS, Skip, Skips
from wafermon.model.position import Position

ONE = "1" * 16


def at(place: int) -> Position:
    return Position("j", place // 10, place % 10)


def places(skips: Skips) -> set[int]:
    """Each place that lies in one of them."""
    return {n for n in range(200) for one in skips.of("db") if one.start <= at(n) < one.end}


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 199), st.integers(0, 199)), max_size=30))
def test_stretches_are_those_of_a_set(steps: list[tuple[bool, int, int]]) -> None:
    skips, expected = Skips({}), set[int]()
    for added, start, end in steps:
        if added:
            skips.add("db", at(start), at(end))
            expected |= set(range(start, end))
        else:
            skips.remove("db", at(start), at(end))
            expected -= set(range(start, end))
        assert places(skips) == expected
        assert list(skips.of("db")) == sorted(skips.of("db"))


def test_they_are_bounded_and_cover_what_they_covered() -> None:
    skips = Skips({})
    for n in range(3 * SKIPS):
        skips.add("db", Position("j", n, 0), Position("j", n, 5))
    assert len(skips.of("db")) == SKIPS
    assert skips.of("db")[0].start == Position("j", 0, 0)


def test_what_changes_while_it_is_saved_is_saved_again() -> None:
    skips = Skips({"db": [Skip(at(1), at(2))]})
    assert skips.to_save() == {}
    skips.add("db", at(5), at(6))
    saving = skips.to_save()
    skips.add("db", at(8), at(9))
    skips.saved(saving)
    assert list(skips.to_save()) == ["db"]
    skips.saved(skips.to_save())
    assert skips.to_save() == {}


@pytest_twisted.ensureDeferred
async def test_what_a_full_journal_skips_is_known_after_a_restart(tmp_path: Path) -> None:
    opened = OpenJournal(tmp_path, segment_bytes=64 << 10, max_bytes=256 << 10)
    opened.journal.cursor("slow", may_skip=True)
    start = opened.journal.oldest
    for first in range(0, 30 * 50, 50):
        await opened.put(range(first, first + 50), size=400)
    [skip] = opened.journal.skipped("slow")
    assert skip == (start, opened.journal.stored("slow"))
    await opened.close()
    again = OpenJournal(tmp_path, segment_bytes=64 << 10, max_bytes=256 << 10)
    assert list(again.journal.skipped("slow")) == [skip]
    await again.close()


@pytest_twisted.ensureDeferred
async def test_what_had_been_read_before_it_was_skipped_is_delivered_after_all(tmp_path: Path) -> None:
    opened = OpenJournal(tmp_path, segment_bytes=64 << 10, max_bytes=256 << 10)
    cursor = opened.journal.cursor("slow", may_skip=True)
    await opened.put(range(50), size=400)
    group = await cursor.read()
    assert numbers(group) == list(range(50))
    for first in range(50, 30 * 50, 50):
        await opened.put(range(first, first + 50), size=400)
    [skip] = opened.journal.skipped("slow")
    assert skip.start == group.start
    cursor.move(group.end)
    [skip] = opened.journal.skipped("slow")
    assert skip.start == group.end
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_what_was_kept_for_a_cursor_that_is_let_go_of_is_known(tmp_path: Path) -> None:
    opened = OpenJournal(tmp_path)
    opened.journal.cursor("forgotten")
    cursor = opened.journal.cursor("discarded")
    await opened.put(range(5))
    await cursor.read()
    cursor.move(cursor.next)
    passed = cursor.kept
    await opened.put(range(5, 9))
    opened.journal.detach(cursor)
    opened.journal.forget("forgotten")
    await opened.journal.discard("discarded")
    assert [one.start.offset for one in opened.journal.skipped("forgotten")] == [0]
    assert list(opened.journal.skipped("discarded")) == [(passed, opened.journal.end)]
    await opened.close()


PRESENCE = [Presence(STARTED), Presence(CAME, ONE, "loader", 'fab 1 "é"\n', 7), Presence(WENT, ONE, "loader", "h", -1)]


@pytest_twisted.ensureDeferred
async def test_who_came_and_went_reads_back(tmp_path: Path) -> None:
    opened = OpenJournal(tmp_path)
    cursor = opened.journal.cursor("reader")
    await opened.append(Entry(block(range(3)), presence=PRESENCE[:2]))
    await opened.append(Entry(presence=PRESENCE[2:]))
    live = [list((await cursor.read()).presence) for _ in range(2)]
    cursor.seek(opened.journal.oldest)
    [path] = tmp_path.glob("*.segment")
    data = path.read_bytes()
    read = [decode_group(data[span.start : span.end], span, "j", 1, "") for span in scan(data)]
    assert [list(group.presence) for group in read] == live == [PRESENCE[:2], PRESENCE[2:]]
    assert [numbers(group) for group in read] == [[0, 1, 2], []]
    await opened.close()


def test_nothing_to_say_takes_no_line() -> None:
    assert encode_presence([]) == b""


def test_a_program_is_a_process_or_else_a_stream() -> None:
    assert program_of("s", "h", 7, ONE) == program_of("s", "h", 7, "2" * 16)
    assert len({program_of("s", "h", 7, ONE), program_of("t", "h", 7, ONE), program_of("s", "i", 7, ONE)}) == 3
    assert program_of("s", "h", -1, ONE) == ONE
