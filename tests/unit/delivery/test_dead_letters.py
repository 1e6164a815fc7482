"""The directory of dead letters: what is ours, what is a stranger's, and what a disk may do."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from disks import FaultyFiles
from inline import Faults, Loop, Pool
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, globalLogPublisher
from twisted.python.failure import Failure

from wafermon.delivery.dead_letters import FILE_BYTES, FILES, READ_BYTES, SHOWN_BYTES, DeadLetters, Letter, letter_of
from wafermon.files import Files
from wafermon.model.messages import decode_stored, loads
from wafermon.model.position import Position
from wafermon.model.settings import DeadLetters as Limits


def letter(number: int, size: int = 0, **fields: Any) -> Letter:
    line = b"{%d" % number + b"x" * size
    return Letter(Position("a" * 16, 1, number), line, "bad_json", "no JSON", 5, **fields)


class Directory:
    """Dead letters in a directory; made again by `open`, as after a restart."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.loop = Loop()
        self.faults = Faults()
        self.files = FaultyFiles()
        self.logged: list[LogEvent] = []
        self.open()

    def open(self, max_bytes: int = 0, formerly: Mapping[str, int] | None = None) -> None:
        limits = Limits.model_construct(dir=self.path, max_bytes=max_bytes)
        self.letters = DeadLetters(limits, self.loop, cast(Any, Pool(self.faults)), self.files)
        self.letters.open(formerly or {})

    def put(self, *letters: Letter) -> object:
        """None once they are durable, else why not."""
        found: list[Any] = []
        self.letters.put(letters).addBoth(found.append)
        self.loop.turn()
        return found[0].value if isinstance(found[0], Failure) else found[0]

    def lines(self) -> dict[str, list[str]]:
        """By file: the letters' lines; "?" where it is no letter."""
        return {path.name: [*map(_line, path.read_bytes().split(b"\n")[:-1])] for path in sorted(self.path.glob("*"))}

    def content(self) -> Mapping[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(self.path.glob("*")) if path.is_file()}

    def said(self) -> str:
        return "\n".join(event["log_format"].format(**event) for event in self.logged if event.get("log_format"))


def _line(text: bytes) -> str:
    try:
        return str(loads(text)["line"])
    except (ValueError, KeyError, TypeError):
        return "?"


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Directory]:
    made = Directory(tmp_path / "above" / "dead")
    observer = cast(Any, made.logged.append)
    globalLogPublisher.addObserver(observer)
    yield made
    globalLogPublisher.removeObserver(observer)
    assert made.files.opened == {}, "descriptors that were left open"


# -- a letter


def test_a_letter_has_what_is_known_and_nothing_else() -> None:
    shown = loads(
        letter(1, client="c" * 16, seq=7, backend="db", peer="10.0.0.1", service="s", host="h", pid=3).encode()
    )
    assert shown == {
        "id": letter(1, backend="db").id, "code": "bad_json", "reason": "no JSON", "time": 5, "peer": "10.0.0.1", "client": "c" * 16,
        "seq": 7, "backend": "db", "service": "s", "host": "h", "pid": 3, "line": "{1",
    }  # fmt: skip
    assert loads(letter(1).encode()).keys() == {"id", "code", "reason", "time", "line"}
    assert letter(1).encode().endswith(b"}\n")


def test_a_letter_s_id_is_that_of_its_place_and_backend() -> None:
    assert letter(1).id == letter(1, size=9).id
    assert len({letter(1).id, letter(2).id, letter(1, backend="db").id}) == 3
    assert len(letter(1).id) == 16


def test_a_line_that_is_no_text_is_kept_as_base64() -> None:
    one = Letter(Position("a" * 16, 1, 1), b"\xff{", "bad_utf8", "byte 0", 5)
    assert loads(one.encode())["line_base64"] == "/3s="


def test_a_message_s_letter_has_its_client_seq_and_time() -> None:
    line = (
        b'{"type":"event","level":"info","message":"m","ts":1700000000000000,"service":"s","client":"%s","seq":4}'
        % (b"c" * 16)
    )
    made = letter_of(Position("a" * 16, 1, 1), line, decode_stored(line), "refused", "why", "db")
    assert (made.client, made.seq, made.time, made.backend, made.line) == ("c" * 16, 4, 1700000000000000, "db", line)


# -- writing


def test_letters_are_appended_to_one_file_until_it_is_full(directory: Directory) -> None:
    directory.open(max_bytes=FILES * 500)
    for number in range(6):
        assert directory.put(letter(number, size=100)) is None
    sizes = [len(lines) for lines in directory.lines().values()]
    assert sizes == [3, 3]
    assert list(directory.lines()) == ["00000001.jsonl", "00000002.jsonl"]
    assert directory.letters.written == 6
    assert directory.letters.size == sum(map(len, directory.content().values()))


def test_files_are_private_and_synced_with_their_names(directory: Directory) -> None:
    assert directory.put(letter(1)) is None
    [path] = directory.path.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert directory.path.stat().st_mode & 0o777 == 0o700
    calls = [call for call, _ in directory.files.calls]
    assert calls.index("write") < calls.index("sync", calls.index("write"))
    assert directory.files.count("sync_directory", "dead") == 1


def test_the_same_letter_is_written_once_also_over_a_restart(directory: Directory) -> None:
    for _ in range(2):
        assert directory.put(letter(1), letter(2)) is None
        assert directory.put(letter(2)) is None
        directory.open()
    assert directory.lines() == {"00000001.jsonl": ["{1", "{2"]}
    assert directory.letters.written == 0


def test_the_same_letter_is_written_once_also_where_the_journal_has_another_id_by_then(directory: Directory) -> None:
    assert directory.put(letter(1)) is None
    directory.open(formerly={"a" * 16: 1})
    renamed = replace(letter(1), position=Position("b" * 16, 1, 1))
    assert directory.put(renamed, replace(renamed, line=b"{2", position=Position("b" * 16, 1, 2))) is None
    assert directory.lines() == {"00000001.jsonl": ["{1", "{2"]}
    directory.open(formerly={"a" * 16: 0})
    assert directory.put(renamed) is None
    assert directory.lines() == {"00000001.jsonl": ["{1", "{2", "{1"]}, "the earlier id had ended before that segment"


def latest(directory: Directory, count: int) -> list[tuple[str, str]]:
    """The line and file's name of each that is answered."""
    found: list[Any] = []
    directory.letters.latest(count).addBoth(found.append)
    directory.loop.turn()
    assert isinstance(found[0], list), found
    return [(one["line"], Path(one["file"]).name) for one in found[0]]


def test_the_latest_letters_come_the_latest_first_from_the_newest_two_files(directory: Directory) -> None:
    assert latest(directory, 5) == []
    directory.put(letter(1), letter(2))
    one, two, three = "00000001.jsonl", "00000002.jsonl", "00000003.jsonl"
    (directory.path / three).write_bytes((directory.path / one).read_bytes())
    (directory.path / two).write_bytes(b"no letter\n" + letter(7).encode() + b'{"torn')
    assert latest(directory, 9) == [("{2", three), ("{1", three), ("{7", two)]
    assert latest(directory, 2) == [("{2", three), ("{1", three)]
    assert latest(directory, 0) == []


def test_of_a_long_file_the_whole_lines_of_its_end_are_looked_at(directory: Directory) -> None:
    directory.put(letter(1, size=SHOWN_BYTES), letter(2), letter(3))
    assert [line for line, _ in latest(directory, 9)] == ["{3", "{2"]


def test_the_letters_of_the_newest_two_files_are_known_after_a_restart(directory: Directory) -> None:
    quota = FILES * 100
    directory.open(max_bytes=quota)
    for number in range(3):
        directory.put(letter(number, size=100))
    directory.open(max_bytes=quota)
    directory.put(letter(1, size=100), letter(2, size=100))
    assert [*directory.lines()] == ["00000001.jsonl", "00000002.jsonl", "00000003.jsonl"]
    directory.put(letter(0, size=100))
    assert [*directory.lines()][-1] == "00000004.jsonl"


def test_beyond_the_quota_the_oldest_files_go(directory: Directory) -> None:
    directory.open(max_bytes=FILES * 200)
    for number in range(30):
        assert directory.put(letter(number, size=100)) is None
        assert sum(map(len, directory.content().values())) <= FILES * 200 + 300
    assert "00000001.jsonl" not in directory.content()
    assert directory.letters.dropped_files == int(min(directory.content())[:8]) - 1
    assert "The dead letters' quota is used up: 00000001.jsonl is gone" in directory.said()
    assert directory.letters.size == sum(map(len, directory.content().values()))


def test_without_a_quota_files_have_a_size_of_their_own(directory: Directory) -> None:
    directory.put(letter(1))
    os.truncate(directory.path / "00000001.jsonl", FILE_BYTES - 1)
    with open(directory.path / "00000001.jsonl", "ab") as file:
        file.write(b"\n")
    directory.put(letter(2))
    assert [*directory.content()] == ["00000001.jsonl", "00000002.jsonl"]
    assert directory.letters.dropped_files == 0


def test_another_quota_is_in_force_from_the_next_letter_on(directory: Directory) -> None:
    directory.put(letter(1, size=1_000))
    directory.letters.change(Limits.model_construct(dir=directory.path, max_bytes=FILES * 100))
    directory.put(letter(2, size=1_000))
    assert [*directory.content()] == ["00000002.jsonl"]


# -- strangers


DAMAGE = {
    "torn": b'{"id":"0123456789abcdef","li',
    "blank": b"\n",
    "zeroed": b"\0" * 100 + b"\n",
    "edited": b'{"id":"x", oops\n',
    "other": b'["id"]\n',
    "empty object": b"{}\n",
    "number": b"7\n",
    "an id that is none": b'{"id":7}\n',
    "no text": b"\xff\xfe\n",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("where", ["before", "after"])
def test_what_is_no_letter_is_passed_over_said_and_left(directory: Directory, damage: bytes, where: str) -> None:
    directory.put(letter(1))
    path = directory.path / "00000001.jsonl"
    good = path.read_bytes()
    path.write_bytes(damage + good if where == "before" else good + damage)
    before = path.read_bytes()
    directory.open()
    assert "00000001.jsonl of the dead letters has 1 lines that are no letters" in directory.said()
    assert directory.letters.damaged == 1
    if not (damage == DAMAGE["torn"] and where == "before"):  # the letter is a part of the torn line then
        directory.put(letter(1))
        assert directory.content() == {"00000001.jsonl": before}
    assert directory.put(letter(2)) is None
    assert path.read_bytes().startswith(before)
    if damage == DAMAGE["torn"] and where == "after":
        assert path.read_bytes() == before
        assert directory.lines()["00000002.jsonl"] == ["{2"]
        assert "00000001.jsonl of the dead letters ends within a line; a new one is begun" in directory.said()
    else:
        assert [*directory.content()] == ["00000001.jsonl"]


STRANGERS = [
    "for-replay.jsonl", "fixed.jsonl", "1.jsonl", "00000001.jsonl.bak", "x00000001.jsonl", "0000001x.jsonl", "000000001.jsonl",
    "00000001.json", "notes.txt", "٠٠٠٠٠٠٠٩.jsonl",
]  # fmt: skip


@pytest.mark.parametrize("name", STRANGERS)
def test_a_file_of_another_name_is_a_stranger_s(directory: Directory, name: str) -> None:
    (directory.path / name).write_bytes(b"x" * 5_000)
    directory.open(max_bytes=FILES * 100)
    for number in range(20):
        assert directory.put(letter(number, size=100)) is None
    assert (directory.path / name).read_bytes() == b"x" * 5_000
    assert directory.letters.dropped_files > 0
    assert directory.letters.size < 2_000
    assert "lines that are no letters" not in directory.said()


@pytest.mark.parametrize("kind", ["directory", "link", "pipe", "link to nothing"])
def test_what_is_no_plain_file_is_a_stranger_s_whatever_its_name(
    directory: Directory, kind: str, tmp_path: Path
) -> None:
    path, target = directory.path / "00000007.jsonl", tmp_path / "target"
    target.write_bytes(b"theirs\n")
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(target if kind == "link" else tmp_path / "nothing")
    directory.open()
    assert directory.put(letter(1)) is None
    directory.open()
    assert directory.put(letter(2)) is None
    assert (directory.path / "00000008.jsonl").read_bytes().count(b"\n") == 2
    assert target.read_bytes() == b"theirs\n"


def test_a_file_with_a_second_name_is_left_alone(directory: Directory, tmp_path: Path) -> None:
    directory.put(letter(1))
    os.link(directory.path / "00000001.jsonl", tmp_path / "copy")
    directory.open()
    assert "00000001.jsonl of the dead letters can't be read, and is left as it is" in directory.said()
    before = (tmp_path / "copy").read_bytes()
    assert directory.put(letter(2)) is None
    assert "00000001.jsonl of the dead letters can't be written; a new one is begun" in directory.said()
    assert (tmp_path / "copy").read_bytes() == before
    assert directory.lines()["00000002.jsonl"] == ["{2"]


def test_where_no_number_is_left_it_says_what_to_do(directory: Directory) -> None:
    (directory.path / "99999999.jsonl").write_bytes(b"torn")
    error = directory.put(letter(1))
    assert isinstance(error, OSError)
    assert str(error).endswith(
        f"there is no number after this one: move it elsewhere: '{directory.path}/99999999.jsonl'"
    )
    (directory.path / "99999999.jsonl").unlink()
    assert directory.put(letter(1)) is None


def test_an_empty_file_of_ours_is_written_on(directory: Directory) -> None:
    (directory.path / "00000003.jsonl").touch()
    directory.open()
    assert directory.put(letter(1)) is None
    assert directory.lines() == {"00000003.jsonl": ["{1"]}


def test_a_large_file_is_read_from_its_end_alone(directory: Directory) -> None:
    directory.put(letter(1))
    path = directory.path / "00000001.jsonl"
    good = path.read_bytes()
    with open(path, "r+b") as file:
        file.truncate(2 * READ_BYTES)
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + good)
    directory.open()
    read = [size for call, size in directory.files.calls if call == "read"]
    assert len(read) < 10
    directory.put(letter(1))
    assert path.stat().st_size == 2 * READ_BYTES + 1 + len(good)


def test_a_line_that_is_read_from_its_middle_is_no_damage(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory.put(letter(1), letter(2))
    lines = (directory.path / "00000001.jsonl").read_bytes().splitlines(keepends=True)
    monkeypatch.setattr("wafermon.delivery.dead_letters.READ_BYTES", len(lines[1]) + 10)
    directory.open()
    assert directory.letters.damaged == 0
    directory.put(letter(1), letter(2))
    assert directory.lines() == {"00000001.jsonl": ["{1", "{2", "{1"]}


def test_a_disk_that_answers_in_pieces_is_read_whole(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        directory.put(letter(number))
    monkeypatch.setattr(Files, "read", lambda files, fd, size, at: os.pread(fd, min(size, 7), at))
    directory.open()
    assert directory.letters.damaged == 0
    directory.put(*map(letter, range(5)))
    assert directory.letters.written == 0


# -- what a disk does


def test_a_full_disk_leaves_nothing_of_a_letter(directory: Directory) -> None:
    directory.put(letter(1))
    before = directory.content()
    for call in ("write", "sync"):
        error = OSError(28, "No space left on device")
        directory.files.fail(call, error)
        assert directory.put(letter(2)) is error
        assert directory.content() == before
    assert directory.put(letter(2)) is None
    assert directory.lines() == {"00000001.jsonl": ["{1", "{2"]}
    assert directory.letters.written == 2


def test_what_can_not_be_taken_back_is_written_again_elsewhere(directory: Directory) -> None:
    directory.put(letter(1))
    directory.files.fail("sync", OSError(5, "Input/output error"))
    directory.files.fail("truncate", OSError(5, "Input/output error"))
    assert isinstance(directory.put(letter(2)), OSError)
    assert directory.put(letter(2)) is None
    assert directory.lines() == {"00000001.jsonl": ["{1", "{2"], "00000002.jsonl": ["{2"]}


def test_a_close_that_fails_takes_nothing_back(directory: Directory) -> None:
    directory.files.fail("close", OSError(5, "Input/output error"), late=True)
    assert directory.put(letter(1)) is None
    assert directory.put(letter(1)) is None
    assert directory.lines() == {"00000001.jsonl": ["{1"]}


def test_one_who_no_longer_waits_does_not_disturb_the_next(directory: Directory) -> None:
    directory.faults = Faults(at=0)
    directory.open()
    first = directory.letters.put([letter(1)])
    first.addErrback(lambda _: None)
    directory.loop.turn()
    first.cancel()
    second: list[object] = []
    waiting: Deferred[None] = directory.letters.put([letter(2)])
    waiting.addBoth(second.append)
    directory.loop.turn()
    assert not second, "two write at a time"
    directory.faults.release()
    directory.loop.turn()
    assert second == [None]
    assert directory.lines() == {"00000001.jsonl": ["{1", "{2"]}


def test_a_directory_that_can_not_be_made_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        Directory(tmp_path / "file" / "dead")


def test_a_file_that_can_not_be_read_does_not_keep_the_start(directory: Directory) -> None:
    directory.put(letter(1))
    directory.files.fail("read", OSError(5, "Input/output error"))
    directory.open()
    assert "00000001.jsonl of the dead letters can't be read, and is left as it is" in directory.said()
    assert Counter(line for lines in directory.lines().values() for line in lines) == {"{1": 1}
