"""Small promises of the journal's parts."""

from __future__ import annotations

import fcntl
import math
import os
import stat
from pathlib import Path

import pytest
import pytest_twisted
from disks import FaultyFiles
from journals import ROUTES, OpenJournal, block, line, numbers
from twisted.internet.defer import Deferred

from wafermon.config import Journal as Settings
from wafermon.files import Files
from wafermon.journal import Entry, lock
from wafermon.journal.clock import Known
from wafermon.journal.groups import Group, Mark, Rejected, Stamp, count_messages, encode_commit, scan
from wafermon.journal.index import Index
from wafermon.journal.latency import BOUNDS, Latency
from wafermon.journal.marks import Marks, Stream
from wafermon.journal.places import Places
from wafermon.journal.segments import CHUNK, Reader, SegmentFile, path_of
from wafermon.journal.state import State
from wafermon.journal.storage import Disk
from wafermon.model.position import Position

NOW = 1_700_000_000_000_000


def make(directory: Path, files: FaultyFiles | None = None, **settings: object) -> Disk:
    known = {"max_bytes": 0, "segment_bytes": 1 << 20, "sync": "always", **settings}
    return Disk(Settings.model_construct(dir=directory, **known), lambda _: None, files)  # type: ignore[arg-type]


def at(segment: int, offset: int = 0) -> Position:
    return Position("j", segment, offset)


# groups


def test_a_refused_line_comes_back_with_all_that_is_known_of_it(tmp_path: Path) -> None:
    disk = make(tmp_path)
    disk.open()
    one = Rejected("bad_json", "detail", b"\xff{", "peer:1", NOW, "a" * 16, 3, "svc", "fab1", 4711)
    bare = Rejected("bad_utf8", "", b"", "unix", NOW)
    written = disk.write([block(range(2))], [one, bare], [], Stamp(NOW, 5), ROUTES)
    reader = Reader(tmp_path, disk.state.journal)
    [read] = reader.read(written.start, None, written.end.offset)
    assert [refused for _, refused in read.rejected] == [one, bare]
    assert [offset for offset, _ in read.rejected] == [offset for offset, _ in written.rejected]
    assert (read.start, read.end) == (written.start, written.end)
    assert (read.time, read.elapsed, read.back) == (NOW, 5, False)
    reader.close()
    disk.close()


def test_a_group_without_lines_is_found_and_damage_has_its_place() -> None:
    """Such a group is written where only its settling matters."""
    lines = line(1) + b"\n"
    group, empty = lines + encode_commit([lines], Stamp(NOW, NOW), []), encode_commit([], Stamp(NOW, NOW), [])
    spans = list(scan(group + empty + empty + group, 1000))
    sizes = [len(group), len(empty), len(empty), len(group)]
    starts = [1000 + sum(sizes[:number]) for number in range(4)]
    assert [(one.start, one.end) for one in spans] == [
        (start, start + size) for start, size in zip(starts, sizes, strict=True)
    ]
    assert all(one.commit for one in spans)
    damage, good = scan(b"x\n" + group, 1000)
    assert (damage.start, damage.end, damage.commit) == (1000, 1002, None)
    assert (good.start, good.end) == (1002, 1002 + len(group))


def test_a_read_gives_about_a_chunk_and_the_next_one_goes_on_there(tmp_path: Path) -> None:
    disk = make(tmp_path, segment_bytes=8 << 20)
    disk.open()
    groups = [disk.write([block(range(100), size=2000)], [], [], Stamp(NOW, 5), ROUTES) for _ in range(12)]
    stop, reader = groups[-1].end.offset, Reader(tmp_path, disk.state.journal)
    size = groups[1].end.offset - groups[1].start.offset
    place, reads = groups[0].start, 0
    while place.offset < stop:
        found = reader.read(place, None, stop)
        read = found[-1].end.offset - found[0].start.offset
        assert found[0].start == place and 0 < read < CHUNK + size
        assert found[-1].end.offset == stop or read >= CHUNK
        place, reads = found[-1].end, reads + 1
    assert reads == math.ceil(stop / (math.ceil(CHUNK / size) * size))
    reader.close()
    disk.close()


def test_each_block_stands_where_it_was_written(tmp_path: Path) -> None:
    disk = make(tmp_path)
    disk.open()
    disk.write([block(range(3))], [], [], Stamp(NOW, 1), ROUTES)
    written = disk.write([block(range(3, 5)), block(range(5, 9))], [], [], Stamp(NOW, 2, True), ROUTES)
    data = path_of(tmp_path, 1).read_bytes()
    reader = Reader(tmp_path, disk.state.journal)
    [read] = reader.read(written.start, None, written.end.offset)
    assert read.blocks[0][0] == written.blocks[0][0]
    for offset, one in (*written.blocks, *read.blocks):
        assert data[offset:].startswith(one.raw)
    assert (numbers(read), read.back) == ([3, 4, 5, 6, 7, 8], True)
    reader.close()
    disk.close()


def test_what_is_left_of_a_group_begins_where_it_was_cut() -> None:
    held = block(range(3))
    refused = Rejected("bad_json", "x", b"{", "p", NOW)
    group = Group(at(1, 100), at(1, 999), NOW, ROUTES, [(110, held)], [(105, refused), (900, refused)])
    left = group.after(110 + len(line(0)) + 1)
    assert left.start == at(1, 110 + len(line(0)) + 1)
    assert left.rejected == [(900, refused)]
    assert left.end == group.end
    assert group.after(100) is group


# figures and marks


def test_latencies_are_counted_by_bucket_and_added_up() -> None:
    latency = Latency()
    assert (sum(latency.counts), latency.seconds) == (0, 0.0)
    for seconds in (0.0, BOUNDS[0], BOUNDS[-1] + 1, BOUNDS[-1] + 2):
        latency.add(seconds)
    assert latency.counts[0] == 2
    assert latency.counts[-1] == 2
    assert latency.seconds == pytest.approx(BOUNDS[0] + 2 * BOUNDS[-1] + 3)


@pytest_twisted.ensureDeferred
async def test_the_marks_of_a_name_are_those_in_memory_over_those_on_disk(tmp_path: Path) -> None:
    opened = OpenJournal(tmp_path)
    marks = opened.journal.marks
    for principal, seq in (("uid:1", 3), ("uid:2", 5)):
        stream = marks.hold(principal, "a" * 16)
        await opened.put(range(1), stream, seq=seq)
        marks.release(stream)
    opened.journal.checkpoint_soon()
    while len(marks):
        await opened.journal.sleep(0.01)
    again = marks.hold("uid:2", "a" * 16)
    await opened.put(range(1), again, seq=9)
    other = marks.hold("uid:2", "b" * 16)
    await opened.put(range(1), other, seq=7)
    assert await opened.journal.marks_of("a" * 16) == {"uid:1": 3, "uid:2": 9}
    assert await opened.journal.marks_of("c" * 16) == {}
    await opened.close()


def test_a_client_is_connected_while_somebody_that_counts_holds_it() -> None:
    marks = Marks(lambda principal, client: 0)
    stream, _ = marks.hold("uid:1", "a" * 16), marks.hold("kafka:x", "b" * 16)
    assert marks.connected("a" * 16, lambda principal: principal == "uid:1")
    assert not marks.connected("a" * 16, lambda principal: principal != "uid:1")
    assert not marks.connected("b" * 16, lambda principal: principal == "uid:1")
    assert not marks.connected("c" * 16, lambda principal: True)
    marks.release(stream)
    assert not marks.connected("a" * 16, lambda principal: True)


def test_marks_recovered_from_the_journal_raise_those_on_disk() -> None:
    marks = Marks(lambda principal, client: 10)
    marks.recover([Mark("", "a" * 16, 12), Mark("", "a" * 16, 15), Mark("", "b" * 16, 4)])
    one, other = marks.hold("", "a" * 16), marks.hold("", "b" * 16)
    assert (one.appended, one.synced) == (15, 15)
    assert (other.appended, other.synced) == (10, 10), "a lower one changes nothing"
    assert {mark.client: mark.seq for mark in marks.moved()} == {"a" * 16: 15, "b" * 16: 10}


def test_a_stream_that_skips_goes_forward_alone() -> None:
    stream = Stream("", "a" * 16, 5)
    stream.skip(3)
    assert (stream.appended, stream.synced) == (5, 5)
    stream.skip(8)
    assert (stream.appended, stream.synced) == (8, 8)


# places and index


def test_a_name_that_is_dropped_is_taken_off_the_disk_once() -> None:
    places = Places({"a": at(1), "b": at(2)})
    places.drop("a")
    assert "a" not in places and places.to_save() == {"a": None, "b": at(2)}
    places.saved({"a": None, "b": at(2)})
    assert places.to_save() == {"b": at(2)}
    places.drop("unknown")
    assert places.to_save() == {"unknown": None, "b": at(2)}


def test_the_first_segment_that_is_needed_is_that_of_the_last_of_all() -> None:
    places = Places({"a": at(5), "b": at(3)})
    assert places.needed({"a": at(5), "b": at(3), "!marks": at(9)}) == 3
    assert places.needed({"a": at(2), "gone": None}) == 2


def test_segments_before_a_place_hold_at_most_so_many_bytes() -> None:
    index = Index("j", {1: 100, 2: 100, 3: 100, 4: 50}, {1: 10, 2: 10, 3: 10})
    assert index.segment_before(at(4, 50), 150) == at(3)
    assert index.segment_before(at(4, 50), 149) == at(4)
    assert index.segment_before(at(4, 50), 1 << 20) == at(1)
    assert index.segment_before(at(3, 0), 10) == at(2), "the last one alone, however long"
    assert index.segment_before(at(1, 0), 10) == at(1)
    assert index.stretch(at(3, 50), [3]).messages == 5
    assert index.stretch(at(1, 0)) == (4, 350, 31)
    assert index.stretch(at(4, 0), None, 10.0) == (1, 50, 5)


@pytest_twisted.ensureDeferred
async def test_when_something_was_received_is_known_in_memory_on_disk_and_at_the_end(tmp_path: Path) -> None:
    opened = OpenJournal(tmp_path)
    opened.journal.cursor("holds")
    start = opened.journal.end
    await opened.put(range(5))
    group = opened.journal.remembered(start)
    assert group is not None
    assert await opened.journal.received(start) == group.time
    opened.journal._tail._groups.clear()
    assert await opened.journal.received(start) == group.time
    assert await opened.journal.received(opened.journal.end) == 0
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_what_lies_further_in_its_segment_than_the_end_in_the_last_one_is_found(tmp_path: Path) -> None:
    opened = OpenJournal(tmp_path, segment_bytes=64 << 10)
    opened.journal.cursor("holds")
    places = []
    while opened.journal.end.segment == 1:
        places.append(opened.journal.end)
        await opened.put(range(5), size=1_000)
    last = places[-2]  # what was put at the end of the segment stands in the next one
    assert last.offset > opened.journal.end.offset
    opened.journal._tail._groups.clear()
    assert await opened.journal.received(last) > 0
    await opened.close()


# what is on disk


def test_nobody_else_reads_the_state_or_the_lock(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        disk = make(tmp_path)
        disk.open()
    finally:
        os.umask(before)
    for name in ("state.db", "lock"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600, name
    assert fcntl.fcntl(disk._lock, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
    disk.close()


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("mine")
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        lock(tmp_path)
    assert (tmp_path / "elsewhere").read_text() == "mine"


def test_a_start_reads_the_marks_since_the_last_checkpoint_alone(tmp_path: Path) -> None:
    disk = make(tmp_path, segment_bytes=1)
    disk.open()
    for number in (1, 2, 3, 4):
        disk.write([block(range(1))], [], [Mark("", "a" * 16, number)], Stamp(NOW, number), ROUTES)
    disk.save({"!marks": Position(disk.state.journal, 3, 0)}, [], Known(4, NOW))
    disk.close()
    disk = make(tmp_path)
    recovered = disk.open()
    assert [mark.seq for mark in recovered.marks] == [3, 4]
    assert recovered.lengths[5] == 0, "the new one"
    assert recovered.messages == {1: 1, 2: 1, 3: 1, 4: 1}
    disk.close()


def test_a_segment_s_messages_are_counted_from_none(tmp_path: Path) -> None:
    disk = make(tmp_path, segment_bytes=1)
    disk.open()
    for first, last in ((0, 2), (2, 5), (5, 6)):
        disk.write([block(range(first, last))], [], [], Stamp(NOW, 1), ROUTES)
    heads = [path_of(tmp_path, number).read_bytes().partition(b"\n")[0] for number in (1, 2, 3)]
    assert b'"after":0,"ended":0,"messages":0' in heads[0]
    assert b'"after":1,' in heads[1] and b'"messages":2' in heads[1]
    assert b'"after":2,' in heads[2] and b'"messages":3' in heads[2]
    disk.close()


def test_a_segment_s_messages_are_counted_over_all_its_groups_also_after_a_start(tmp_path: Path) -> None:
    disk = make(tmp_path)
    disk.open()
    for first, last in ((0, 2), (2, 5)):
        disk.write([block(range(first, last))], [], [], Stamp(NOW, 1), ROUTES)
    disk.close()
    disk = make(tmp_path, segment_bytes=1)
    disk.open()
    disk.write([block(range(5, 6))], [], [], Stamp(NOW, 1), ROUTES)
    disk.close()
    head = path_of(tmp_path, 2).read_bytes().partition(b"\n")[0]
    assert b'"after":1,' in head and b'"messages":5' in head


def test_a_group_of_many_chunks_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = make(tmp_path)
    disk.open()
    for _ in range(3):
        disk.write([block(range(100), size=100)], [], [], Stamp(NOW, 1), ROUTES)
    disk.close()
    path = path_of(tmp_path, 1)
    monkeypatch.setattr("wafermon.journal.segments.CHUNK", 1000)
    file = SegmentFile(tmp_path, 1, Files())
    found = list(file.spans(0, path.stat().st_size))
    file.close()
    assert [count_messages(data) for span, data in found if span.commit] == [100, 100, 100]
    assert b"".join(data for _, data in found) == path.read_bytes()


def test_the_state_is_kept_as_it_was_saved(tmp_path: Path) -> None:
    state = State(tmp_path / "state.db")
    journal = state.journal
    assert (state.known(), state.cursors(), state.gone, state.last_segment, state.lost) == (None, {}, (0, 0), 0, 0)
    state.use_segment(7)
    state.let_go(5, 123)
    state.save({"a": at(3, 9)}, [Mark("uid:1", "a" * 16, 4)], Known(11, NOW))
    state.close()
    state = State(tmp_path / "state.db")
    assert (state.known(), state.cursors()) == (Known(11, NOW), {"a": at(3, 9)})
    assert (state.gone, state.last_segment, state.journal) == ((5, 123), 7, journal)
    assert (state.mark("uid:1", "a" * 16), state.mark("", "a" * 16)) == (4, 0)
    state.save({"a": None}, [], Known(12, NOW))
    assert state.cursors() == {}
    state.close()
    for name in ("state.db", "state.db-wal"):
        path = tmp_path / name
        assert not path.exists() or stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


# callbacks


@pytest_twisted.ensureDeferred
async def test_a_watcher_that_has_stopped_is_not_shown_any_more(tmp_path: Path) -> None:
    opened = OpenJournal(tmp_path)
    one: list[int] = []
    other: list[int] = []
    stop = opened.journal.watch(lambda group: one.extend(numbers(group)))
    opened.journal.watch(lambda group: other.extend(numbers(group)))
    await opened.put(range(2))
    while other != [0, 1]:
        await opened.journal.sleep(0.005)
    stop()
    await opened.put(range(2, 3))
    while other != [0, 1, 2]:
        await opened.journal.sleep(0.005)
    assert one == [0, 1]
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_who_waits_for_room_is_told_once(tmp_path: Path) -> None:
    opened = OpenJournal(tmp_path)
    told: list[bool] = []
    opened.journal.append(Entry(block(range(200), size=9000)))
    assert opened.journal.congested
    opened.journal.on_relief(lambda: told.append(opened.journal.congested))
    done: Deferred[None] = opened.journal.settled()
    await done
    while not told:
        await opened.journal.sleep(0.005)
    assert told == [False]
    await opened.close()


@pytest_twisted.ensureDeferred
async def test_cursors_are_known_with_where_they_are(tmp_path: Path) -> None:
    opened = OpenJournal(tmp_path)
    start = opened.journal.end
    cursor = opened.journal.cursor("c")
    assert cursor.new
    await opened.put(range(5))
    held = opened.journal.known_cursors()["c"]
    assert (held.kept, held.attached, held.holds.messages) == (start, True, 5)
    opened.journal.detach(cursor)
    assert not opened.journal.known_cursors()["c"].attached
    again = opened.journal.cursor("c")
    assert (again.new, again.kept) == (False, start)
    await opened.close()


def test_the_points_at_which_tests_kill_have_their_names(tmp_path: Path) -> None:
    points: list[str] = []
    settings = Settings.model_construct(dir=tmp_path, max_bytes=0, segment_bytes=1, sync="always")
    disk = Disk(settings, points.append)
    disk.open()
    for number in (1, 2):
        disk.write([block(range(number))], [], [], Stamp(NOW, number), ROUTES)
    disk.save({}, [], Known(2, NOW))
    disk.delete({1: 5})
    assert points == ["append", "sync", "seal", "append", "sync", "checkpoint", "delete"]
    assert not path_of(tmp_path, 1).exists() and disk.state.gone == (1, 5)
    disk.close()
