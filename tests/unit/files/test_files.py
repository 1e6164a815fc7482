"""The seam for durable files: what each step leaves when a call in it fails."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest
from disks import FaultyFiles

from wafermon.files import Files, NotOurs, naming


def test_replace_puts_the_whole_content_under_the_name(tmp_path: Path) -> None:
    files = FaultyFiles()
    path = tmp_path / "checkpoint"
    files.replace(path, b"one")
    files.replace(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["checkpoint"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert not files.opened


def test_replace_syncs_the_bytes_before_the_name_and_the_name_after(tmp_path: Path) -> None:
    files = FaultyFiles()
    files.replace(tmp_path / "checkpoint", b"one")
    order = [call for call, _ in files.calls if call in ("append", "sync", "rename", "sync_directory")]
    assert order == ["append", "sync", "rename", "sync_directory"]
    assert files.calls[-1] == ("sync_directory", str(tmp_path))


@pytest.mark.parametrize("call", ["open", "append", "sync", "close", "rename"])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), RuntimeError("broken")])
def test_a_replace_that_fails_leaves_what_was_there(tmp_path: Path, call: str, error: Exception) -> None:
    files = FaultyFiles()
    path = tmp_path / "checkpoint"
    files.replace(path, b"one")
    files.fail(call, error, late=call == "close")
    with pytest.raises(type(error)):
        files.replace(path, b"two")
    assert path.read_bytes() == b"one"
    assert os.listdir(tmp_path) == ["checkpoint"]
    assert not files.opened


def test_a_replace_says_which_file_it_could_not_write(tmp_path: Path) -> None:
    files = FaultyFiles()
    files.fail("append", OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(OSError, match=r"checkpoint\.tmp"):
        files.replace(tmp_path / "checkpoint", b"one")


def test_a_replace_does_not_follow_a_link_that_stands_in_its_way(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_bytes(b"precious")
    (tmp_path / "checkpoint.tmp").symlink_to(theirs)
    Files().replace(tmp_path / "checkpoint", b"one")
    assert theirs.read_bytes() == b"precious"
    assert (tmp_path / "checkpoint").read_bytes() == b"one"


def test_create_makes_a_name_that_lasts(tmp_path: Path) -> None:
    files = FaultyFiles()
    fd = files.create(tmp_path / "segment")
    assert ("sync_directory", str(tmp_path)) in files.calls
    with pytest.raises(FileExistsError):
        files.create(tmp_path / "segment")
    files.close(fd)
    assert not files.opened


def test_a_create_whose_name_can_not_be_made_to_last_leaves_nothing(tmp_path: Path) -> None:
    files = FaultyFiles()
    files.fail("sync_directory", OSError(errno.EIO, "broken"))
    with pytest.raises(OSError, match="broken"):
        files.create(tmp_path / "segment")
    assert os.listdir(tmp_path) == []
    assert not files.opened


def test_cut_makes_the_length_last(tmp_path: Path) -> None:
    files = FaultyFiles()
    fd = files.create(tmp_path / "segment")
    files.write_all(fd, [b"hello"], 0)
    files.calls.clear()
    files.cut(fd, 2)
    assert [call for call, _ in files.calls] == ["truncate", "sync"]
    assert files.read(fd, 10, 0) == b"he"
    files.close(fd)


class _Reluctant(Files):
    """Takes two bytes at a time, then none."""

    takes = 100

    def write(self, fd: int, parts: Sequence[bytes], at: int) -> int:
        self.takes -= 1
        return super().write(fd, [b"".join(parts)[:2]], at) if self.takes >= 0 else 0

    def append(self, fd: int, data: bytes | memoryview) -> int:
        self.takes -= 1
        return super().append(fd, data[:2]) if self.takes >= 0 else 0


def test_what_the_disk_takes_in_parts_is_written_whole(tmp_path: Path) -> None:
    files = _Reluctant()
    fd = files.create(tmp_path / "segment")
    assert files.write_all(fd, [b"ab", b"cde", b"f"], 0) == 6
    assert files.write_all(fd, [b"XY"], 2) == 2
    os.lseek(fd, 6, os.SEEK_SET)
    files.append_all(fd, b"12345")
    assert files.read(fd, 100, 0) == b"abXYef12345"
    assert files.read(fd, 3, 4) == b"ef1"
    files.close(fd)


def test_more_parts_than_one_call_takes_are_written(tmp_path: Path) -> None:
    files = Files()
    fd = files.create(tmp_path / "segment")
    assert files.write_all(fd, [b"x"] * 3000, 5) == 3000
    assert files.read(fd, 5000, 0) == bytes(5) + b"x" * 3000
    files.close(fd)


def test_a_disk_that_takes_nothing_is_an_error_and_no_endless_loop(tmp_path: Path) -> None:
    files = _Reluctant()
    fd = files.create(tmp_path / "segment")
    files.takes = 1
    with pytest.raises(OSError, match="takes no more"):
        files.write_all(fd, [b"abcdef"], 0)
    files.takes = 1
    with pytest.raises(OSError, match="takes no more"):
        files.append_all(fd, b"abcdef")
    files.close(fd)


def test_move_syncs_both_directories(tmp_path: Path) -> None:
    files = FaultyFiles()
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a/file").write_bytes(b"x")
    files.move(tmp_path / "a/file", tmp_path / "b/file")
    assert (tmp_path / "b/file").read_bytes() == b"x"
    assert [one for one in files.calls if one[0] == "sync_directory"] == [
        ("sync_directory", str(tmp_path / "b")),
        ("sync_directory", str(tmp_path / "a")),
    ]
    files.calls.clear()
    files.move(tmp_path / "b/file", tmp_path / "b/other")
    assert files.count("sync_directory") == 1


def test_remove_takes_what_is_there_and_syncs_once(tmp_path: Path) -> None:
    files = FaultyFiles()
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"x")
    files.remove(tmp_path / "a", tmp_path / "gone", tmp_path / "b")
    assert os.listdir(tmp_path) == []
    assert files.count("sync_directory") == 1
    files.remove(tmp_path / "never" / "there")
    files.remove()


def test_a_directory_is_made_with_those_above_it(tmp_path: Path) -> None:
    files = FaultyFiles()
    files.ensure_directory(tmp_path / "a/b/c", 0o750)
    assert (tmp_path / "a/b/c").stat().st_mode & 0o777 == 0o750
    synced = [path for call, path in files.calls if call == "sync_directory"]
    assert synced == [str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a/b")]
    files.calls.clear()
    files.ensure_directory(tmp_path / "a/b/c")
    assert not files.calls


def test_a_directory_that_somebody_else_makes_meanwhile_is_good(tmp_path: Path) -> None:
    class Raced(Files):
        def make_directory(self, path: object, mode: int = 0o700) -> None:
            super().make_directory(path, mode)  # type: ignore[arg-type]
            super().make_directory(path, mode)  # type: ignore[arg-type]

    Raced().ensure_directory(tmp_path / "a")
    assert (tmp_path / "a").is_dir()


def test_a_file_where_a_directory_should_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(FileExistsError):
        Files().ensure_directory(tmp_path / "a")


def test_read_whole_reads_no_more_than_it_may(tmp_path: Path) -> None:
    files = FaultyFiles()
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert files.read_whole(path, 5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes") as caught:
        files.read_whole(path, 4)
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == str(path)
    files.fail("read", OSError(errno.EIO, "broken"))
    with pytest.raises(OSError, match="broken"):
        files.read_whole(path, 5)
    assert not files.opened


def test_links_pipes_and_files_with_two_names_are_not_ours(tmp_path: Path) -> None:
    files = FaultyFiles()
    path = tmp_path / "file"
    path.write_bytes(b"x")
    (tmp_path / "link").symlink_to(path)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    for name in ("link", "pipe", "directory"):
        with pytest.raises(NotOurs, match=name):
            files.open_ours(tmp_path / name, os.O_RDONLY)
    with pytest.raises(NotOurs, match="pipe"):
        files.open_ours(tmp_path / "pipe", os.O_WRONLY)
    files.close(files.open_ours(path, os.O_RDONLY))
    os.link(path, tmp_path / "second")
    with pytest.raises(NotOurs, match="second name"):
        files.open_ours(path, os.O_RDONLY)
    with pytest.raises(FileNotFoundError):
        files.open_ours(tmp_path / "gone", os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        with pytest.raises(NotOurs):
            files.open_ours(tmp_path / "socket", os.O_RDONLY)
    assert not files.opened


def test_a_descriptor_whose_status_can_not_be_told_is_closed(tmp_path: Path) -> None:
    files = FaultyFiles()
    (tmp_path / "file").write_bytes(b"x")
    files.fail("status", OSError(errno.EIO, "broken"))
    with pytest.raises(OSError, match="broken"):
        files.open_ours(tmp_path / "file", os.O_RDONLY)
    assert not files.opened


def test_only_plain_files_with_names_that_we_make_are_ours(tmp_path: Path) -> None:
    for name in ("00000002.jsonl", "00000001.jsonl", "1.jsonl", "00000003.jsonl.bak", "x00000004.jsonl"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "00000005.jsonl").mkdir()
    (tmp_path / "00000006.jsonl").symlink_to(tmp_path / "1.jsonl")
    found = Files().ours(tmp_path, re.compile(r"[0-9]{8}\.jsonl"))
    assert list(found) == ["00000001.jsonl", "00000002.jsonl"]
    assert found["00000001.jsonl"].st_size == 1
    with pytest.raises(FileNotFoundError):
        Files().ours(tmp_path / "gone", re.compile("x"))


def test_a_name_that_goes_while_the_directory_is_read_is_passed_over(tmp_path: Path) -> None:
    files = FaultyFiles()
    (tmp_path / "a").write_bytes(b"x")
    files.fail("status_of", FileNotFoundError(errno.ENOENT, "gone"))
    assert files.ours(tmp_path, re.compile("a")) == {}


def test_rename_link_and_directories_do_what_their_names_say(tmp_path: Path) -> None:
    files = Files()
    (tmp_path / "a").write_bytes(b"x")
    files.link(tmp_path / "a", tmp_path / "b")
    files.rename(tmp_path / "a", tmp_path / "c")
    with pytest.raises(FileExistsError):
        files.link(tmp_path / "b", tmp_path / "c")
    files.make_directory(tmp_path / "d")
    assert (tmp_path / "d").stat().st_mode & 0o777 == 0o700
    files.remove_directory(tmp_path / "d")
    assert sorted(files.names(tmp_path)) == ["b", "c"]


def test_descriptors_are_not_handed_to_child_processes(tmp_path: Path) -> None:
    files = Files()
    fd = files.create(tmp_path / "a")
    assert not os.get_inheritable(fd)
    files.close(fd)


def test_naming_keeps_a_name_that_is_known() -> None:
    with pytest.raises(OSError) as caught, naming("outer"):
        raise OSError(errno.EIO, "broken", "inner")
    assert caught.value.filename == "inner"
    with pytest.raises(OSError) as caught, naming("outer"):
        raise OSError(errno.EIO, "broken")
    assert caught.value.filename == "outer"
