"""Spill files: claimed by locks, journalled, removed once durable; who may say what; what can't be taken."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import logged
import pytest
from appended_journal import STARTED, MemoryJournal, as_journal
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from wafermon.files import Files
from wafermon.journal import Entry
from wafermon.receivers.spill.claim import claim
from wafermon.receivers.spill.folder import FILE_MAX, LOOKED_AT, Folder, Found, in_turns, unfit, untouched
from wafermon.receivers.spill.taker import SCAN_SECONDS, TOLD_SECONDS, SpillTaker, user_name

CLIENT = "a" * 16
LIMIT = 65_536
OLD = STARTED - 31
SELF = f"uid:{os.getuid()}"


def line(seq: int, client: str = CLIENT, **fields: Any) -> bytes:
    event = {"type": "event", "ts": 1_795_500_000_000_000, "service": "svc", "level": "info", "message": "m"}
    return json.dumps({**event, "client": client, "seq": seq, **fields}).encode() + b"\n"


def lines(*seqs: int) -> bytes:
    return b"".join(map(line, seqs))


class FailingFiles(Files):
    """A call fails once, or does something first."""

    def __init__(self) -> None:
        self.error: dict[str, BaseException] = {}
        self.before: dict[str, Callable[[], None]] = {}
        self.open_files: set[int] = set()

    def _fail(self, call: str) -> None:
        if call in self.before:
            self.before.pop(call)()
        if call in self.error:
            raise self.error.pop(call)

    def open(self, path: Any, flags: int, mode: int = 0o600) -> int:
        self._fail("open")
        fd = super().open(path, flags, mode)
        self.open_files.add(fd)
        return fd

    def close(self, fd: int) -> None:
        super().close(fd)
        self.open_files.discard(fd)

    def read(self, fd: int, size: int, at: int) -> bytes:
        self._fail("read")
        return super().read(fd, size, at)

    def status(self, fd: int) -> os.stat_result:
        self._fail("status")
        return super().status(fd)

    def rename(self, old: Any, new: Any) -> None:
        self._fail("rename")
        super().rename(old, new)

    def unlink(self, path: Any) -> None:
        self._fail("unlink")
        super().unlink(path)


class Spool:
    """A folder, and what takes files up from it."""

    def __init__(self, directory: Path, *, automatic: bool = True, **how: Any) -> None:
        self.directory = directory
        self.clock = Clock()
        self.journal = MemoryJournal(self.clock, automatic=automatic)
        self.files = FailingFiles()
        self.taker = SpillTaker(directory, as_journal(self.journal), LIMIT, self.clock, files=self.files, **how)

    def put(
        self, data: bytes, client: str = CLIENT, *, service: str = "svc", pid: int = 1, touched: float = OLD
    ) -> Path:
        path = self.directory / f"{service}.{pid}.{client}.ldjson"
        path.write_bytes(data)
        os.utime(path, (touched, touched))
        return path

    def scan(self) -> None:
        """One look through the folder."""
        Deferred.fromCoroutine(self.taker._scan_once()).addErrback(self._note)

    def _note(self, failure: Any) -> None:
        raise AssertionError(failure.getTraceback())

    @property
    def names(self) -> list[str]:
        return sorted(os.listdir(self.directory))

    def seqs(self) -> list[int]:
        return [json.loads(one)["seq"] for one in self.journal.lines]


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path)


def test_a_file_that_is_left_is_journalled_and_removed(spool: Spool) -> None:
    spool.put(lines(1, 2, 3))
    spool.scan()
    assert (spool.seqs(), spool.names) == ([1, 2, 3], [])
    assert (spool.taker.files, spool.taker.messages, spool.taker.stuck) == (1, 3, {})
    assert spool.files.open_files == set()


def test_a_file_whose_process_number_runs_here_is_taken_all_the_same(spool: Spool) -> None:
    spool.put(lines(1), pid=os.getpid())
    spool.scan()
    assert spool.seqs() == [1]


@pytest.mark.parametrize("lock", [fcntl.flock, fcntl.lockf])
def test_a_file_whose_owner_lives_is_left_alone(spool: Spool, lock: Callable[[int, int], None]) -> None:
    path = spool.put(lines(1))
    to_child, to_parent = os.pipe()
    child = os.fork()
    if not child:  # a lock of fcntl belongs to a process
        fd = os.open(path, os.O_RDWR)
        lock(fd, fcntl.LOCK_EX)
        os.write(to_parent, b"x")
        signal_wait()
    try:
        os.read(to_child, 1)
        spool.scan()
        assert (spool.seqs(), spool.names, spool.taker.stuck) == ([], [path.name], {})
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    spool.scan()
    assert (spool.seqs(), spool.names) == ([1], [])


def signal_wait() -> None:
    import signal

    while True:
        signal.pause()


@pytest.mark.parametrize(("age", "left"), [(29, False), (30, True), (0, False), (-59, False), (-61, True)])
def test_without_a_lock_a_file_is_left_when_it_was_untouched(spool: Spool, age: float, left: bool) -> None:
    spool.put(lines(1), touched=STARTED - age)
    spool.scan()
    assert bool(spool.seqs()) is left


def test_nothing_is_removed_while_its_lines_are_only_in_memory(tmp_path: Path) -> None:
    spool = Spool(tmp_path, automatic=False)
    stream = spool.journal.marks.hold("", CLIENT)
    stream.appended = 3
    spool.journal.append(Entry(stream=stream, seq=3))
    spool.journal.marks.release(stream)
    spool.put(lines(1, 2, 3))
    spool.scan()
    assert spool.names == [f"svc.1.{CLIENT}.ldjson.taken"]
    spool.journal.commit()
    assert spool.names != []
    spool.journal.commit()
    spool.journal.commit()
    assert (spool.names, spool.seqs()) == ([], [])


@pytest.mark.parametrize("principal", ["", "token:0123", SELF])
def test_what_a_client_had_in_flight_is_not_stored_twice(tmp_path: Path, principal: str) -> None:
    spool = Spool(tmp_path, automatic=False)
    stream = spool.journal.marks.hold(principal, CLIENT)
    stream.appended = 2
    spool.journal.append(Entry(stream=stream, seq=2))
    spool.journal.marks.release(stream)
    spool.put(lines(1, 2, 3, 4))
    spool.scan()
    for _ in range(5):
        spool.journal.commit()
    assert (spool.names, spool.seqs()) == ([], [3, 4])


def test_marks_on_disk_count_but_for_those_of_other_users(spool: Spool) -> None:
    spool.journal.kept = {("token:0123", CLIENT): 2, ("uid:4711", CLIENT): 4}
    spool.put(lines(1, 2, 3, 4))
    spool.scan()
    assert spool.seqs() == [3, 4]


def test_a_file_waits_while_its_client_is_connected(spool: Spool) -> None:
    stream = spool.journal.marks.hold("token:0123", CLIENT)
    spool.put(lines(1))
    spool.scan()
    assert spool.seqs() == []
    spool.journal.marks.release(stream)
    other = spool.journal.marks.hold("uid:4711", CLIENT)
    spool.scan()
    assert spool.seqs() == [1], "another user's connection keeps nothing waiting"
    spool.journal.marks.release(other)


def test_a_line_that_is_too_long_is_a_dead_letter_and_the_rest_goes_on(spool: Spool) -> None:
    spool.put(lines(1) + line(2, message="x" * 200_000) + b"nonsense\n" + lines(4))
    spool.scan()
    assert spool.seqs() == [1, 4]
    assert spool.journal.rejected == [("line_too_long", 2), ("bad_json", 3)]
    assert spool.names == []


def test_what_is_written_between_the_read_and_the_removal_is_taken_as_well(spool: Spool) -> None:
    path = spool.put(lines(1) + line(2)[:20])
    taken = Path(f"{path}.taken")

    def write() -> None:
        with taken.open("ab") as file:
            file.write(line(2)[20:] + line(3) + b"cut off")

    spool.files.before["unlink"] = write
    spool.scan()
    assert (spool.seqs(), spool.names) == ([1, 2, 3], [])


def test_a_file_is_claimed_by_its_name_before_it_is_read(spool: Spool) -> None:
    path = spool.put(lines(1))
    seen: list[list[str]] = []
    spool.files.before["read"] = lambda: seen.append(spool.names)
    spool.scan()
    assert seen == [[path.name + ".taken"]]


def test_a_claimed_file_of_the_same_name_is_not_overwritten(spool: Spool) -> None:
    path = spool.put(lines(3))
    Path(f"{path}.taken").write_bytes(lines(1, 2))
    os.utime(f"{path}.taken", (STARTED, STARTED))
    spool.scan()
    assert path.exists()
    assert Path(f"{path}.taken").read_bytes() == lines(1, 2)
    os.utime(f"{path}.taken", (OLD, OLD))
    spool.scan()
    spool.scan()
    assert (spool.seqs(), spool.names) == ([1, 2, 3], [])


@pytest.mark.parametrize("call", ["open", "read", "status", "rename", "unlink"])
@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), RuntimeError("x"), CancelledError()])
def test_a_call_that_fails_once_loses_and_doubles_nothing(spool: Spool, call: str, error: Exception) -> None:
    spool.put(lines(1, 2))
    spool.put(line(1, "b" * 16), "b" * 16)
    spool.files.error[call] = error
    spool.scan()
    assert spool.files.open_files == set()
    assert sum(spool.taker.stuck.values()) == 1
    spool.scan()
    assert (sorted(spool.seqs()), spool.names, spool.taker.stuck) == ([1, 1, 2], [], {})


@pytest.mark.parametrize("error", [OSError(5, "x"), RuntimeError("x"), CancelledError()])
@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_a_journal_that_fails_once_loses_and_doubles_nothing(spool: Spool, after: int, error: Exception) -> None:
    spool.put(lines(1, 2))
    append, calls = spool.journal.append, iter(range(100))

    def failing(entry: Entry) -> None:
        if next(calls) == after:
            raise error
        append(entry)

    spool.journal.append = failing  # type: ignore[method-assign]
    spool.scan()
    spool.scan()
    assert (spool.seqs(), spool.names) == ([1, 2], [])
    assert spool.files.open_files == set()


def test_it_waits_for_a_congested_journal(spool: Spool) -> None:
    spool.put(lines(1))
    spool.journal.congested = True
    spool.scan()
    assert spool.seqs() == []
    spool.journal.relieve()
    assert (spool.seqs(), spool.names) == ([1], [])


def test_a_stop_lets_go_and_the_next_start_goes_on(tmp_path: Path) -> None:
    spool = Spool(tmp_path, automatic=False)
    spool.put(lines(1, 2))
    spool.taker.start()
    stopped = spool.taker.stop()
    assert stopped.called
    assert spool.files.open_files == set()
    spool.journal.commit()
    again = Spool(tmp_path)
    again.scan()
    assert (again.seqs(), again.names) == ([1, 2], [])


def test_it_looks_every_few_seconds(spool: Spool) -> None:
    spool.taker.start()
    spool.put(lines(1))
    spool.clock.advance(SCAN_SECONDS)
    assert spool.seqs() == [1]
    spool.taker.stop()


# who may say what


def bound(directory: Path, **owners: list[str]) -> Spool:
    return Spool(directory, restricted=lambda: True, owners=owners)


def test_where_tokens_bind_services_an_owner_that_is_not_listed_says_nothing(tmp_path: Path) -> None:
    spool = bound(tmp_path, **{"4711": ["*"]})
    spool.put(lines(1, 2))
    spool.scan()
    assert (spool.seqs(), spool.names) == ([], [])
    assert spool.journal.rejected == [("unauthorized", 1), ("unauthorized", 2)]
    detail = spool.journal.committed[1].rejected[0].detail
    assert detail.startswith("service: ") and "journal.spill_owners" in detail and "'svc'" in detail


@pytest.mark.parametrize("key", [str(os.getuid()), "root" if os.getuid() == 0 else str(os.getuid())])
def test_a_listed_owner_speaks_for_its_services(tmp_path: Path, key: str) -> None:
    spool = bound(tmp_path, **{key: ["s?c"]})
    spool.put(line(1) + line(2, service="payments"))
    spool.scan()
    assert spool.seqs() == [1]
    assert spool.journal.rejected == [("unauthorized", 2)]


# what can't be taken


def test_what_is_no_spill_file_is_counted_and_left(spool: Spool, tmp_path: Path) -> None:
    real = spool.put(lines(1), touched=STARTED)
    (tmp_path / f"a.1.{'1' * 16}.ldjson").symlink_to(real)
    os.mkfifo(tmp_path / f"a.1.{'2' * 16}.ldjson")
    (tmp_path / f"a.1.{'3' * 16}.ldjson").mkdir()
    spool.put(b"x" * (FILE_MAX + 1), "4" * 16)
    os.link(spool.put(lines(1), "5" * 16), tmp_path / f"a.2.{'5' * 16}.ldjson")
    (tmp_path / "strange.txt").write_text("x")
    before = spool.names
    spool.scan()
    assert (spool.names, spool.seqs()) == (before, [])
    [count] = spool.taker.stuck.values()
    assert count == 6


def test_a_file_of_the_greatest_size_is_taken(spool: Spool) -> None:
    filler = line(1, message="x" * 60_000)
    data = b"".join(line(seq, message="x" * 60_000) for seq in range(1, FILE_MAX // len(filler)))
    spool.put(data + b"y" * (FILE_MAX - len(data)))
    spool.scan()
    assert (len(spool.seqs()), spool.names) == (FILE_MAX // len(filler) - 1, [])


def test_a_file_swapped_for_a_link_after_the_look_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(lines(1))
    os.utime(secret, (OLD, OLD))
    path = tmp_path / f"svc.1.{CLIENT}.ldjson"
    path.symlink_to(secret)
    with pytest.raises(OSError, match="symbolic links"):
        claim(Files(), path, STARTED)
    path.unlink()
    os.link(secret, path)
    with pytest.raises(OSError, match="second name"):
        claim(Files(), path, STARTED)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match="plain file"):
        claim(Files(), path, STARTED)


def test_owners_take_turns_each_with_its_oldest_first() -> None:
    many = [Found(Path(f"a{n}"), 1, 100.0 + n) for n in range(3)]
    few = [Found(Path("b0"), 2, 200.0), Found(Path("c0"), 3, 50.0)]
    assert [one.path.name for one in in_turns([*reversed(many), *few])] == ["a0", "b0", "c0", "a1", "a2"]


def test_a_scan_looks_at_so_many_names_and_the_next_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wafermon.receivers.spill.folder.LOOKED_AT", 10)
    for number in range(25):
        path = tmp_path / f"a.1.{number:016x}.ldjson"
        path.write_bytes(b"")
        os.utime(path, (OLD, OLD))
    folder = Folder(tmp_path)
    scans = [folder.scan(STARTED) for _ in range(3)]
    assert [len(found) for found, _, _ in scans] == [10, 10, 5]
    assert [whole for *_, whole in scans] == [False, False, True]
    assert len({one.path for found, *_ in scans for one in found}) == 25
    folder.close()
    assert LOOKED_AT == 10_000


def test_a_folder_that_is_not_there_is_no_fault(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "later")
    spool.scan()
    assert spool.taker.stuck == {}
    spool.directory.mkdir()
    spool.put(lines(1))
    spool.scan()
    assert spool.seqs() == [1]


def test_judging_a_status(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")
    os.utime(path, (100, 100))
    status = path.stat()
    assert unfit(status) == ""
    assert untouched(status, 130) and not untouched(status, 129.9)
    assert untouched(status, 39.9) and not untouched(status, 40.1)


def test_what_owners_leave_is_counted_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wafermon.receivers.spill.taker.OWNERS", 2)
    spool = Spool(tmp_path)
    for owner in range(5):
        Deferred.fromCoroutine(spool.taker._count(tmp_path / "x", 50_000 + owner, "problem"))
    assert spool.taker._counting == {"50000": 1, "50001": 1, "others": 3}


# What is said

ME = user_name(os.getuid())


def test_a_file_that_was_taken_is_said_with_what_it_held(spool: Spool) -> None:
    path = spool.put(lines(1, 2) + b"nonsense\n" + line(4)[:-9])
    with logged.said() as lines_said:
        spool.scan()
    taken = f"{path}.taken"
    assert lines_said == [
        f"info: Took up the spill file {taken}: 2 messages, 1 refused",
        f"info: The spill file {taken} ends in {len(line(4)) - 9} bytes without a newline: its program was cut off there",
    ]
    assert (spool.taker.files, spool.taker.messages) == (1, 2)


@pytest.mark.parametrize(("error", "why"), [
    (OSError(5, "Input/output error"), "Input/output error"), (OSError("odd"), "odd"),
])  # fmt: skip
def test_a_folder_that_can_not_be_read_is_said_once_in_a_while(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, error: OSError, why: str
) -> None:
    def fails(_: float) -> None:
        raise error

    monkeypatch.setattr(spool.taker._folder, "scan", fails)
    text = f"warn: Spill files can't be taken up (0 now): {spool.directory} can't be read: {why}. `wafermon doctor` says what to do"
    with logged.said() as said:
        spool.scan()
        spool.clock.advance(TOLD_SECONDS - 1)
        spool.scan()
        assert said == [text]
        spool.clock.advance(1)
        spool.scan()
    assert said == [text, text]


def test_a_file_that_can_not_be_taken_is_said_with_its_owner_and_why(spool: Spool) -> None:
    path = spool.put(lines(1))
    spool.files.error = {"rename": OSError(13, "Permission denied")}
    with logged.said() as said:
        spool.scan()
    assert said == [
        f"warn: Spill files can't be taken up (1 now): {path} of {ME}: Permission denied. `wafermon doctor` says what to do"
    ]
    assert spool.taker.stuck == {ME: 1}
    spool.scan()
    assert spool.taker.stuck == {}


def test_a_fault_of_our_own_at_a_file_names_it_and_the_next_is_taken(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = spool.put(lines(1), "1" * 16, touched=OLD - 10)
    spool.put(lines(1), "2" * 16)
    real = SpillTaker._take

    async def take(taker: SpillTaker, found: Any) -> None:
        if found.path == first:
            raise KeyError("odd")
        await real(taker, found)

    monkeypatch.setattr(SpillTaker, "_take", take)
    with logged.said() as said:
        spool.scan()
    assert said[0] == f"critical: Internal error with the spill file {first}"
    assert f"{first} of {ME}: KeyError('odd'). `wafermon doctor`" in said[-1]
    assert spool.taker.files == 1


def test_a_look_that_fails_is_said_and_comes_again(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    spool.put(lines(1))
    with pytest.MonkeyPatch.context() as patch, logged.said() as said:
        patch.setattr(spool.taker._folder, "scan", lambda _: None)
        spool.taker.start()
    assert said == ["critical: Looking for spill files failed; it is tried again"]
    assert spool.taker.files == 0
    spool.clock.advance(60)
    assert spool.taker.files == 1
    spool.taker.stop()


def test_a_stop_that_cancels_a_look_says_nothing(spool: Spool) -> None:
    spool.put(lines(1))
    spool.journal.congested = True
    spool.taker.start()
    with logged.said() as said:
        done: list[object] = []
        stopped: Deferred[None] = spool.taker.stop()
        stopped.addCallback(done.append)
    assert (said, done) == ([], [None])
