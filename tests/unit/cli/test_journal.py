"""`wafermon journal` on a directory where no sidecar runs."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest_twisted
from click.testing import CliRunner, Result
from disks import FaultyFiles
from journals import OpenJournal

from wafermon.cli.journal import command
from wafermon.journal.segments import path_of, segments_in


def wafermon(*words: object) -> Result:
    return CliRunner().invoke(command, [str(word) for word in words])


async def filled(directory: Path) -> None:
    """A journal of two segments, with a cursor."""
    for _ in range(2):
        opened = OpenJournal(directory)
        opened.journal.cursor("files")
        await opened.put(range(10))
        await opened.close()
    assert len([length for length in segments_in(directory).values() if length]) == 2


@pytest_twisted.ensureDeferred
async def test_the_marks_place_is_no_cursor_to_be_listed_or_forgotten(tmp_path: Path) -> None:
    await filled(tmp_path)
    listed = wafermon("list", tmp_path)
    assert listed.exit_code == 0
    assert "cursor files: " in listed.output and "!marks" not in listed.output
    said = wafermon("forget", "!marks", "--dir", tmp_path)
    assert said.exit_code == 1
    assert said.output == "Error: the journal has no cursor '!marks'; it has files\n"
    assert wafermon("forget", "files", "--dir", tmp_path).exit_code == 0
    assert "cursor" not in wafermon("list", tmp_path).output


@pytest_twisted.ensureDeferred
async def test_what_a_failed_write_left_is_no_fault(tmp_path: Path) -> None:
    await filled(tmp_path)
    first = path_of(tmp_path, min(segments_in(tmp_path)))
    whole = first.read_bytes()
    first.write_bytes(whole + whole[: len(whole) // 2] + b"\n!commit nonsense\n")
    checked = wafermon("check", tmp_path)
    assert checked.exit_code == 0, checked.output
    assert f"{first}: ends in {len(whole) // 2 + 18} bytes of a write that failed, which a start cuts" in checked.output
    assert "2 segments, 20 messages" in checked.output
    assert "faults" not in wafermon("list", tmp_path).output


@pytest_twisted.ensureDeferred
async def test_what_is_gone_from_a_segment_s_end_is_a_fault(tmp_path: Path) -> None:
    await filled(tmp_path)
    first = path_of(tmp_path, min(segments_in(tmp_path)))
    whole = first.read_bytes()
    first.write_bytes(whole[:-30])
    checked = wafermon("check", tmp_path)
    assert checked.exit_code == 1
    assert f"{first}:{len(whole) - 30}: 30 bytes at its end are lost" in checked.output


@pytest_twisted.ensureDeferred
async def test_a_segment_that_is_missing_between_two_others_is_a_fault(tmp_path: Path) -> None:
    await filled(tmp_path)
    opened = OpenJournal(tmp_path)
    opened.journal.cursor("files")
    await opened.put(range(10))
    await opened.close()
    _, second, _ = sorted(number for number, length in segments_in(tmp_path).items() if length)
    path_of(tmp_path, second).unlink()
    checked = wafermon("check", tmp_path)
    assert checked.exit_code == 1
    assert f"{path_of(tmp_path, second)}:0: is missing between two others" in checked.output


@pytest_twisted.ensureDeferred
async def test_a_segment_in_which_nothing_counted_is_no_fault(tmp_path: Path) -> None:
    files = FaultyFiles()
    opened = OpenJournal(tmp_path, files=files)
    broken = OSError(errno.EIO, "broken")
    files.fail("sync", broken, about=".segment")
    files.fail("truncate", broken, times=2)
    files.fail("unlink", broken, about=".segment", times=9)
    await opened.put(range(10))
    await opened.close()
    left, _ = sorted(number for number, length in segments_in(tmp_path).items() if length)
    checked = wafermon("check", tmp_path)
    assert checked.exit_code == 0, checked.output
    assert f"{path_of(tmp_path, left)}: failed before anything in it counted; a start removes it" in checked.output
    assert "10 messages" in checked.output
    assert [line.split()[:1] for line in wafermon("list", tmp_path).output.splitlines()][2] == [str(left)]
