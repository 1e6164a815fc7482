"""What is on the disk after a call failed, and that the next write makes up for it."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from disks import FaultyFiles
from journal_disks import held, make, put
from journals import NOW, ROUTES, block
from twisted.internet.defer import CancelledError

from wafermon.journal import CannotOpen, Mark
from wafermon.journal.segments import SegmentFile, path_of, segments_in
from wafermon.journal.storage import Disk
from wafermon.model.errors import JournalLocked
from wafermon.model.position import Position

ERRORS = [OSError(errno.EIO, "broken"), RuntimeError("broken"), CancelledError()]


@pytest.mark.parametrize("second", ["", "truncate", "open", "sync_directory"])
@pytest.mark.parametrize("first", ["write", "sync"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_failed_write_leaves_nothing_that_counts(tmp_path: Path, first: str, second: str, error: Exception) -> None:
    files = FaultyFiles()
    disk = make(tmp_path, files)
    disk.open()
    put(disk, 1, 2)
    before = disk._segment.number
    files.fail(first, error, about=".segment")
    if second:
        files.fail(second, error, about="" if second == "sync_directory" else ".segment")
    for _ in range(3):
        try:
            group = put(disk, 3, 5)
            break
        except type(error):
            continue
    if first == "sync":
        assert group.start.segment > before
    put(disk, 6, 6)
    disk.close()
    assert held(tmp_path) == [1, 2, 3, 4, 5, 6]
    assert not files.opened


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_write_that_is_late_to_fail_is_not_stored_twice(tmp_path: Path, error: Exception) -> None:
    """The first group of a segment, whole on the disk, and neither cut nor removed."""
    files = FaultyFiles()
    disk = make(tmp_path, files)
    disk.open()
    files.fail("sync", error, about=".segment", late=True)
    files.fail("truncate", error, about=".segment", times=2)
    files.fail("unlink", error, about=".segment")
    with pytest.raises(type(error)):
        put(disk, 1, 2)
    put(disk, 1, 2)
    disk.close()
    assert len(segments_in(tmp_path)) == 2
    assert held(tmp_path) == [1, 2]


def test_a_cut_that_always_fails_does_not_stop_the_journal(tmp_path: Path) -> None:
    files = FaultyFiles()
    disk = make(tmp_path, files)
    disk.open()
    put(disk, 1, 1)
    for number in range(2, 6):
        files.fail("truncate", ERRORS[0], times=2)
        files.fail("write", ERRORS[0], about=".segment", late=True)
        with pytest.raises(OSError, match="broken"):
            put(disk, number, number)
        put(disk, number, number)
        files.heal()
    disk.close()
    assert held(tmp_path) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("sync", ["interval", "never"])
def test_a_failed_sync_of_what_was_acknowledged_ends_the_segment_and_keeps_it(tmp_path: Path, sync: str) -> None:
    files = FaultyFiles()
    disk = make(tmp_path, files, sync=sync)
    disk.open()
    first = put(disk, 1, 2)
    files.fail("sync", ERRORS[0])
    with pytest.raises(OSError, match="broken"):
        disk.sync()
    assert put(disk, 3, 3).start.segment > first.start.segment
    disk.close()
    assert held(tmp_path) == [1, 2, 3]


def test_bytes_after_the_end_that_the_next_segment_names_are_cut(tmp_path: Path) -> None:
    disk = make(tmp_path, segment_bytes=1)
    disk.open()
    put(disk, 1, 2)
    put(disk, 3, 3)
    disk.close()
    first = path_of(tmp_path, 1)
    data = first.read_bytes()
    first.write_bytes(data + data)
    assert held(tmp_path) == [1, 2, 3]
    assert first.read_bytes() == data


def test_a_segment_that_has_become_shorter_is_said(tmp_path: Path) -> None:
    disk = make(tmp_path, segment_bytes=1)
    disk.open()
    put(disk, 1, 2)
    put(disk, 3, 3)
    disk.close()
    os.truncate(path_of(tmp_path, 1), 50)
    disk = make(tmp_path)
    disk.open()
    assert disk.damaged == 1
    disk.close()


def test_how_many_messages_a_segment_holds_is_kept_with_it(tmp_path: Path) -> None:
    disk = make(tmp_path, segment_bytes=1)
    disk.open()
    put(disk, 1, 7)
    put(disk, 8, 9)
    put(disk, 10, 10)
    disk.close()
    disk = make(tmp_path)
    recovered = disk.open()
    assert {one: recovered.messages[one] for one in (1, 2, 3)} == {1: 7, 2: 2, 3: 1}
    assert recovered.marks[-1] == Mark("", "a" * 16, 10)
    assert (recovered.time, recovered.known) == (NOW + 10, (10, NOW + 10))
    disk.close()


def _edit_head(directory: Path, **fields: Any) -> Path:
    path = path_of(directory, 1)
    first, _, rest = path.read_bytes().partition(b"\n")
    head = {**json.loads(first.split(b" ", 1)[1]), **fields}
    path.write_bytes(b"!segment " + json.dumps(head).encode() + b"\n" + rest)
    return path


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"version": 99}, "has format 99, and this wafermon reads formats up to 2: start the version that wrote it"),
        ({"journal": "0123456789abcdef"}, "belongs to the journal 0123456789abcdef"),
        ({"segment": 5}, "is segment 5 under another name"),
    ],
)
def test_a_segment_that_is_not_ours_to_read_is_refused(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    disk = make(tmp_path)
    disk.open()
    put(disk, 1, 2)
    disk.close()
    path = _edit_head(tmp_path, **fields)
    data = path.read_bytes()
    for _ in range(2):  # nothing is held after the first refusal
        with pytest.raises(CannotOpen, match=said) as caught:
            make(tmp_path).open()
        assert str(path) in str(caught.value)
    assert path.read_bytes() == data


def test_segments_of_two_journals_without_a_state_are_refused(tmp_path: Path) -> None:
    disk = make(tmp_path, segment_bytes=1)
    disk.open()
    put(disk, 1, 1)
    put(disk, 2, 2)
    disk.close()
    _edit_head(tmp_path, journal="0123456789abcdef")
    for path in tmp_path.glob("state.db*"):
        path.unlink()
    with pytest.raises(CannotOpen, match="belong to 2 journals"):
        make(tmp_path).open()


def test_a_journal_of_the_older_format_is_read_and_carried_on(tmp_path: Path) -> None:
    disk = make(tmp_path)
    disk.open()
    journal = disk.state.journal
    disk.close()
    lines = block(range(1, 3)).raw
    head = f'!segment {{"version":1,"journal":"{journal}","segment":9,"after":0}}\n!routes {ROUTES}\n'.encode()
    from zlib import crc32

    commit = {"crc": crc32(head + lines), "bytes": len(head + lines), "time": NOW, "marks": [["", "a" * 16, 2]]}
    path_of(tmp_path, 9).write_bytes(head + lines + b"!commit " + json.dumps(commit).encode() + b"\n")
    disk = make(tmp_path)
    recovered = disk.open()
    assert (recovered.time, recovered.known) == (NOW, (NOW, NOW))
    assert recovered.marks == [Mark("", "a" * 16, 2)]
    assert put(disk, 3, 3).start.segment == 10
    disk.close()
    assert held(tmp_path) == [1, 2, 3]


def test_strangers_in_the_directory_are_passed_over(tmp_path: Path) -> None:
    disk = make(tmp_path)
    disk.open()
    put(disk, 1, 2)
    disk.close()
    theirs = ["7.segment", "000000000007.segment.bak", "notes.segment", "000000000001.segment~"]
    for name in theirs:
        (tmp_path / name).write_bytes(b"theirs")
    (tmp_path / "000000000008.segment").mkdir()
    assert held(tmp_path) == [1, 2]
    assert all((tmp_path / name).read_bytes() == b"theirs" for name in theirs)


@pytest.mark.parametrize("content", [b"hello world\n" * 50, b"x", b'{"type":"event"}\n', b"\x7fELF" * 9])
def test_what_bears_a_segment_s_name_and_is_none_is_set_aside(tmp_path: Path, content: bytes) -> None:
    disk = make(tmp_path)
    disk.open()
    put(disk, 1, 3)
    disk.close()
    path_of(tmp_path, 9).write_bytes(content)
    again = make(tmp_path)
    again.open()
    assert (tmp_path / "damaged" / "000000000009-0").read_bytes() == content
    assert again.damaged == 1
    again.close()
    assert held(tmp_path) == [1, 2, 3]


@pytest.mark.parametrize("content", [b"", b"!seg", b"!segment {", bytes(4096), bytes(512) + b'","segment"'])
def test_what_a_first_write_left_is_removed(tmp_path: Path, content: bytes) -> None:
    path_of(tmp_path, 9).write_bytes(content)
    disk = make(tmp_path)
    disk.open()
    assert disk.damaged == 0
    assert not path_of(tmp_path, 9).exists()
    disk.close()


@pytest.mark.parametrize("call", ["open", "status", "read", "sync", "names", "sync_directory", "close"])
@pytest.mark.parametrize("error", [*ERRORS, KeyError("x")], ids=lambda error: type(error).__name__)
def test_whatever_fails_at_a_start_is_one_error_that_names_the_path(
    tmp_path: Path, call: str, error: Exception
) -> None:
    disk = make(tmp_path)
    disk.open()
    put(disk, 1, 2)
    disk.close()
    (tmp_path / "reserve").unlink()
    files = FaultyFiles()
    files.fail(call, error, late=call == "close")
    disk = make(tmp_path, files)
    with pytest.raises(CannotOpen, match=str(tmp_path)):
        disk.open()
    assert not files.opened
    assert held(tmp_path) == [1, 2]


def test_a_damaged_state_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"x" * 5000)
    with pytest.raises(CannotOpen, match=r"state\.db can.t be read .*move it away"):
        make(tmp_path).open()


def test_a_second_one_is_locked_out_and_takes_nothing_from_the_first(tmp_path: Path) -> None:
    disk = make(tmp_path)
    disk.open()
    with pytest.raises(JournalLocked):
        make(tmp_path).open()
    put(disk, 1, 1)
    disk.close()
    assert held(tmp_path) == [1]


def test_a_start_on_a_full_disk_lets_go_of_the_reserve_and_can_delete(tmp_path: Path) -> None:
    disk = make(tmp_path, segment_bytes=1)
    disk.open()
    put(disk, 1, 1)
    put(disk, 2, 2)
    disk.close()
    files = FaultyFiles()
    full = OSError(errno.ENOSPC, "No space left on device")
    files.fail("write", full, about="reserve", times=3)
    disk = make(tmp_path, files)
    disk.open()
    assert "No space left" in disk.full
    assert not (tmp_path / "reserve").exists()
    with pytest.raises(OSError, match="No space"):
        put(disk, 3, 3)
    disk.delete({1: 0})
    with pytest.raises(OSError, match="No space"):
        put(disk, 3, 3)
    put(disk, 3, 3)
    disk.close()
    assert held(tmp_path) == [2, 3]


def test_a_state_that_needs_room_gets_that_of_the_reserve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = make(tmp_path)
    disk.open()
    put(disk, 1, 1)
    disk.close()
    real = Disk._state

    def full(path: Path, **how: Any) -> Any:
        if (tmp_path / "reserve").exists():
            raise sqlite3.OperationalError("database or disk is full")
        return real(path, **how)

    monkeypatch.setattr(Disk, "_state", staticmethod(full))
    disk = make(tmp_path)
    disk.open()
    disk.close()


def test_what_can_not_be_read_is_set_aside_whole_and_once(tmp_path: Path) -> None:
    files = FaultyFiles()
    disk = make(tmp_path, files)
    disk.open()
    at = Position("j", 1, 7)
    files.fail("append", ERRORS[0])
    with pytest.raises(OSError, match="broken"):
        disk.set_aside(at, b"damage")
    assert disk.damaged == 0
    disk.set_aside(at, b"damage")
    disk.set_aside(at, b"damage")
    assert disk.damaged == 1
    assert (tmp_path / "damaged/000000000001-7").read_bytes() == b"damage"
    disk.close()


def test_a_last_segment_is_synced_before_anybody_is_told_what_is_in_it(tmp_path: Path) -> None:
    disk = make(tmp_path, sync="never")
    disk.open()
    put(disk, 1, 1)
    disk.close()
    files = FaultyFiles()
    disk = make(tmp_path, files)
    disk.open()
    assert files.count("sync", "000000000001.segment") == 1
    disk.close()


def test_a_failed_read_leaves_no_descriptor(tmp_path: Path) -> None:
    disk = make(tmp_path)
    disk.open()
    put(disk, 1, 1)
    files = FaultyFiles()
    files.fail("status", ERRORS[0])
    with pytest.raises(OSError, match="broken"):
        SegmentFile(tmp_path, 1, files)
    assert not files.opened
    disk.close()
