"""Faults of disks, strangers among the files, and calls that fail or hang: nothing is lost, doubled or said without end."""

from __future__ import annotations

import errno
import gzip
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from disks import FaultyFiles
from file_places import DAY, NOON, START, Place, stored
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, globalLogPublisher
from zope.interface import provider

from wafermon.backends.filesystem import FilesystemBackend, FilesystemFactory, FilesystemOptions, filesystem
from wafermon.backends.filesystem.notes import LONGEST, MOST_LINES, MOST_TEXTS, Notes
from wafermon.contract import BackendContract, batch, line
from wafermon.files import Files
from wafermon.interfaces import BackendContext, Batch, configure
from wafermon.model.messages import loads


@pytest.fixture
def lines_said() -> Iterator[list[str]]:
    """The notes of the file backend in the log."""
    said: list[str] = []

    @provider(ILogObserver)
    def observe(event: Any) -> None:
        if str(event.get("log_format", "")).startswith("Filesystem backend"):
            said.append(event["log_format"].format(**event))

    globalLogPublisher.addObserver(observe)
    yield said
    globalLogPublisher.removeObserver(observe)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Callable[..., Place]]:
    made: list[Place] = []

    def make(path: str = "{service}.jsonl", rotate_bytes: int = 0) -> Place:
        made.append(Place(tmp_path, path, rotate_bytes))
        return made[-1]

    yield make
    for each in made:
        each.store.close()


def interrupted(files: Place, count: int) -> Batch:
    """A batch whose bytes are all in the file when the process is killed, before the checkpoint counts them."""
    todo = batch(files.at, [line(files.seq + n) for n in range(1, count + 1)])

    class Killed(FaultyFiles):
        def sync(self, fd: int) -> None:
            if self.opened.get(fd, "").endswith(".jsonl"):
                raise KeyboardInterrupt
            super().sync(fd)

        def truncate(self, fd: int, length: int) -> None:
            raise KeyboardInterrupt

    files.store.close()
    killed = files.another(Killed())
    killed.open()
    with suppress(KeyboardInterrupt):
        killed.write(todo)
    return todo


# -- what something else does to the files -----------------------------------------------------------------------


@pytest.mark.parametrize("target", ["log/moved", "moved/0", "log/old/queue-service.1"])
def test_a_rename_before_a_kill_doubles_nothing(place: Callable[..., Place], tmp_path: Path, target: str) -> None:
    files = place()
    files.write()
    todo = interrupted(files, 600)
    path, moved = files.log / "queue-service.jsonl", tmp_path / target
    assert path.read_bytes().count(b"\n") == 601
    moved.parent.mkdir(exist_ok=True)
    path.rename(moved)
    files.store = files.another()
    assert files.store.open() == files.at
    files.store.write(todo)
    assert [loads(text)["seq"] for text in moved.read_bytes().splitlines()] == [1]
    assert files.files()["queue-service.jsonl"] == list(range(2, 602))


def test_a_strangers_file_that_got_the_inode_is_left_alone(place: Callable[..., Place]) -> None:
    files = place()
    files.write()
    interrupted(files, 3)
    path = files.log / "queue-service.jsonl"
    length = len(path.read_bytes().splitlines(keepends=True)[0])
    path.write_bytes(path.read_bytes()[:length] + b"a stranger's text\n")
    path.rename(files.log / "moved")
    before = (files.log / "moved").read_bytes()
    files.store = files.another()
    files.store.open()
    assert (files.log / "moved").read_bytes() == before
    assert "gone" in files.store.notes.texts[0]


def test_what_something_else_appends_while_we_write_costs_nothing_of_ours(place: Callable[..., Place]) -> None:
    """Its lines stand before ours, so ours end later than was planned."""
    files = place()
    files.write()
    path = files.log / "queue-service.jsonl"
    other = line(77) + b"\n"

    class Shared(Files):
        def append(self, fd: int, data: bytes | memoryview) -> int:
            if os.path.samestat(os.fstat(fd), os.stat(path)):
                with open(path, "ab") as file:
                    file.write(other)
            return super().append(fd, data)

    files.store.close()
    files.store = files.another(Shared())
    files.store.open()
    files.write()
    again = files.another()  # after a kill
    assert again.open() == files.at
    assert files.files() == {"queue-service.jsonl": [1, 77, 2]}
    assert "something else writes to it" in files.store.notes.texts[0]
    again.close()


def test_what_appends_for_ever_is_said_once(place: Callable[..., Place], lines_said: list[str]) -> None:
    files = place()
    for _ in range(50):
        files.write()
        with open(files.log / "queue-service.jsonl", "ab") as file:
            file.write(line(77) + b"\n")
    assert len(lines_said) == 1 and "something else writes to it" in lines_said[0]
    assert len(files.store.notes.texts) == 1
    files.now += 3601
    files.write()
    assert len(lines_said) == 2


def test_notes_are_bounded_whatever_happens(lines_said: list[str]) -> None:
    now = NOON
    notes = Notes(lambda: now)
    for number in range(10_000):
        notes.warn(f"/log/{'x' * 4000}{number}", "is odd")
    assert len(lines_said) == MOST_LINES
    assert len(notes.texts) == MOST_TEXTS and max(map(len, notes.texts)) <= LONGEST + 10
    now -= 10 * DAY  # somebody set the clock
    notes.warn("/log/a", "is odd")
    assert "9980 more such notes were left out" in lines_said[-2]


@pytest.mark.parametrize("gone", ["log", "state", "both"])
def test_a_directory_that_is_removed_is_made_again(place: Callable[..., Place], gone: str) -> None:
    files = place("{service}/{date}.jsonl")
    files.write()
    for directory in (files.log, files.state):
        if gone in (directory.name, "both"):
            os.rename(directory, f"{directory}.gone")
    files.write()
    files.write()
    again = files.another()  # after a kill
    assert again.open() == files.at
    found = [*stored(files.log), *stored(Path(f"{files.log}.gone"))]
    assert sorted(seq for _, seq in found) == [1, 2, 3]
    again.close()


def test_a_symlinked_directory_is_compressed_and_pruned(place: Callable[..., Place], tmp_path: Path) -> None:
    files = place("{service}/x.jsonl", rotate_bytes=300)
    (tmp_path / "big").mkdir()
    files.log.mkdir()
    (files.log / "far").symlink_to(tmp_path / "big")
    for _ in range(3):
        files.write_all({"service": service, "message": "x" * 200} for service in ("far", "near"))
    assert files.tidy(compress=True).compressed == 4
    assert sorted(os.listdir(tmp_path / "big")) == sorted(os.listdir(files.log / "near"))
    for path in tmp_path.rglob("*.gz"):
        os.utime(path, (NOON - 10 * DAY, NOON - 10 * DAY))
    assert files.tidy(keep=DAY).deleted == 4
    assert os.listdir(tmp_path / "big") == os.listdir(files.log / "near") == ["x.jsonl"]
    assert (files.log / "far").is_symlink()


def test_a_symlink_in_a_file_s_place_is_written_and_rotated_and_then_left_alone_and_said(
    place: Callable[..., Place], tmp_path: Path
) -> None:
    files = place("{service}.jsonl", rotate_bytes=300)
    (tmp_path / "big").mkdir()
    files.log.mkdir()
    (files.log / "far.jsonl").symlink_to(tmp_path / "big" / "far.jsonl")
    for _ in range(3):
        files.write_all({"service": service, "message": "x" * 200} for service in ("far", "near"))
    assert files.tidy(compress=True).compressed == 3
    link = files.log / "far.1.jsonl"
    assert link.is_symlink() and link.resolve() == tmp_path / "big" / "far.jsonl"
    assert not (files.log / "far.jsonl").is_symlink()
    assert len(link.read_bytes().splitlines()) == 1
    for path in (*files.log.iterdir(), tmp_path / "big" / "far.jsonl"):
        os.utime(path, (NOON - 10 * DAY, NOON - 10 * DAY), follow_symlinks=False)
    assert files.tidy(keep=DAY).deleted == 3
    assert link.is_symlink() and len(link.read_bytes().splitlines()) == 1
    assert any("is a symlink, and so is neither compressed nor deleted" in text for text in files.store.notes.texts)


def test_two_services_in_one_directory_by_a_symlink_lose_nothing(place: Callable[..., Place]) -> None:
    files = place("{service}/x.jsonl")
    files.write(service="a")
    (files.log / "b").symlink_to(files.log / "a")
    for service in ("b", "a", "b"):
        files.write(service=service)
    again = files.another()  # after a kill
    assert again.open() == files.at
    assert [loads(text)["seq"] for text in (files.log / "a" / "x.jsonl").read_bytes().splitlines()] == [1, 2, 3, 4]
    again.close()


def test_a_file_with_two_names_is_refused_and_nothing_lost(place: Callable[..., Place]) -> None:
    files = place()
    files.write(service="a")
    os.link(files.log / "a.jsonl", files.log / "b.jsonl")
    with pytest.raises(FileExistsError, match=r"is a second name of .*a\.jsonl"):
        files.write(service="b")
    (files.log / "b.jsonl").unlink()
    files.write(service="b")
    assert files.files() == {"a.jsonl": [1], "b.jsonl": [2]}


# -- strangers with names like ours ------------------------------------------------------------------------------


@pytest.mark.parametrize("number", ["9" * 230, "9" * 13, "9" * 12, "007", "٣"])
def test_a_strangers_number_does_not_count(place: Callable[..., Place], number: str) -> None:
    files = place(rotate_bytes=300)
    files.log.mkdir()
    stranger = files.log / f"queue-service.{number}.jsonl"
    stranger.write_bytes(line(99) + b"\n")
    for _ in range(3):
        files.write(message="x" * 200)
    assert (files.log / "queue-service.1.jsonl").exists() and (files.log / "queue-service.2.jsonl").exists()
    assert stranger.read_bytes() == line(99) + b"\n"


def test_a_date_that_is_none_does_not_stop_the_others(place: Callable[..., Place]) -> None:
    files = place("{date}.jsonl", rotate_bytes=300)
    files.log.mkdir()
    for name in ("0000-00-00.jsonl", "2026-13-45.jsonl", "2026-02-30.1.jsonl"):
        (files.log / name).write_text("a stranger's\n")
    for _ in range(2):
        files.write(message="x" * 200)
    assert files.tidy(compress=True, keep=1000 * DAY).compressed == 1
    assert (files.log / "2026-02-30.1.jsonl").exists()


@pytest.mark.parametrize("content", [b"", b"\0" * 500, b"torn"])
def test_a_compressed_file_that_is_torn_is_made_again(place: Callable[..., Place], content: bytes) -> None:
    files = place(rotate_bytes=300)
    files.write(message="x" * 200)
    files.write(message="x" * 200)
    (files.log / "queue-service.1.jsonl.gz").write_bytes(content)
    files.tidy(compress=True)
    assert files.files() == {"queue-service.1.jsonl.gz": [1], "queue-service.jsonl": [2]}


def test_a_strangers_compressed_file_stays_and_so_does_ours(place: Callable[..., Place], lines_said: list[str]) -> None:
    files = place(rotate_bytes=300)
    files.write(message="x" * 200)
    files.write(message="x" * 200)
    size = (files.log / "queue-service.1.jsonl").stat().st_size
    (files.log / "queue-service.1.jsonl.gz").write_bytes(gzip.compress(b"y" * size))
    for _ in range(5):
        files.tidy(compress=True)
    assert gzip.decompress((files.log / "queue-service.1.jsonl.gz").read_bytes()) == b"y" * size
    assert (files.log / "queue-service.1.jsonl").stat().st_size == size
    assert len(lines_said) == 1 and "holds something else" in lines_said[0]


def test_a_directory_in_the_way_of_a_compression_is_said_once(
    place: Callable[..., Place], lines_said: list[str]
) -> None:
    files = place(rotate_bytes=300)
    for _ in range(2):
        files.write(message="x" * 200)
    (files.log / "queue-service.1.jsonl.gz.tmp").mkdir()
    for _ in range(4):
        files.write(message="x" * 200)
        files.tidy(compress=True)
    assert len(lines_said) == 1 and "queue-service.1.jsonl.gz.tmp" in lines_said[0]
    assert (files.log / "queue-service.1.jsonl").exists()
    assert len(list(files.log.glob("*.gz"))) == 4


@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "no"), OSError(errno.EIO, "no"), RuntimeError("no")])
def test_a_temporary_file_that_cannot_be_opened_stops_nothing(
    place: Callable[..., Place], error: Exception, lines_said: list[str]
) -> None:
    files = place(rotate_bytes=300)
    for _ in range(4):
        files.write(message="x" * 200)
    faulty = FaultyFiles()
    faulty.fail("open", error, about=".1.jsonl.gz.tmp", times=3)
    for left in (1, 1, 1, 0):
        files.tidy(compress=True, disk=faulty)
        assert len(list(files.log.glob("*.[0-9].jsonl"))) == left
    assert len(lines_said) == 1
    assert not list(files.log.glob("*.tmp"))


# -- calls that fail or hang -------------------------------------------------------------------------------------


CHANGES = (
    "open",
    "close",
    "read",
    "status",
    "status_of",
    "append",
    "sync",
    "rename",
    "unlink",
    "names",
    "sync_directory",
)


class Faulty(FilesystemFactory):
    """The backend on a disk that fails as told."""

    def __init__(self) -> None:
        self.files = FaultyFiles()

    def build(self, options: FilesystemOptions, context: BackendContext) -> FilesystemBackend:
        return FilesystemBackend(options, context, self.files)


class TestContractOnADiskThatFails(BackendContract):
    factory = filesystem

    def setup_method(self) -> None:
        super().setup_method()
        self.faulty = Faulty()
        self.factory = self.faulty  # type: ignore[misc]

    def options(self) -> dict[str, Any]:
        return {"path": str(self.directory / "log" / "{service}.jsonl")}

    def read_back(self) -> list[tuple[str, int]]:
        return stored(self.directory / "log")

    @contextmanager
    def unreachable(self) -> Iterator[None]:
        self.faulty.files.fail("append", OSError(errno.EIO, "the disk fails"), times=-1)
        yield
        self.faulty.files.heal()

    @contextmanager
    def lost_reply(self) -> Iterator[None]:
        """The checkpoint is synced, and the call says that it wasn't."""
        self.faulty.files.fail("sync", OSError(errno.EIO, "the disk fails"), about="checkpoint", late=True, times=-1)
        yield
        self.faulty.files.heal()

    @contextmanager
    def stuck(self) -> Iterator[None]:
        self.faulty.files.fail("append", None)
        yield
        self.faulty.files.release()

    def snapshot(self) -> Callable[[], object]:
        kept = self.directory / "kept"
        copy = [(path, path.read_bytes()) for name in ("log", "state") for path in (self.directory / name).iterdir()]
        kept.mkdir()

        def restore() -> None:
            for path, content in copy:
                (kept / path.name).write_bytes(content)
                os.replace(kept / path.name, path)

        return restore


def built(directory: Path, files: Files) -> FilesystemBackend:
    (directory / "state").mkdir(exist_ok=True)
    options = configure(filesystem, {"path": str(directory / "log" / "{service}.jsonl"), "rotate_bytes": "1KiB"})
    context = BackendContext("files", directory / "state", reactor, reactor.getThreadPool())  # type: ignore[attr-defined]
    return FilesystemBackend(options, context, files)


BATCHES = [batch(START, [line(seq, message="x" * 300) for seq in range(1, 4)])]
for first in range(4, 16, 3):
    BATCHES.append(batch(BATCHES[-1].end, [line(seq, message="x" * 300) for seq in range(first, first + 3)]))


def killed(directory: Path) -> None:
    """What a process leaves that was killed while it wrote its second batch, and another that was in a checkpoint's rename."""
    backend = built(directory, Files())
    backend._store.open()
    backend._store.write(BATCHES[0])
    backend._store._close_files()
    with open(directory / "log" / "queue-service.jsonl", "ab") as file:
        file.write(line(4) + b"\n" + line(5)[:20])
    (directory / "state" / "checkpoint.tmp").write_text("half")


async def deliver(backend: FilesystemBackend, tries: int = 5) -> None:
    """As the delivery does."""
    for _ in range(tries):
        with suppress(Exception):
            reached = await backend.open()
            for one in BATCHES:
                if reached is None or one.end > reached:
                    await backend.write(one)
            return
    raise AssertionError("not stored though nothing hinders it any more")


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "the disk fails"), RuntimeError("a bug")], ids=["OSError", "RuntimeError"]
)
@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", CHANGES)
def test_each_call_that_fails_once_loses_and_doubles_nothing(
    tmp_path: Path, call: str, error: Exception, late: bool
) -> Deferred[None]:
    async def run() -> None:
        if call == "close" and isinstance(error, RuntimeError):
            return  # a descriptor is a number: nothing but the system refuses to close it
        for after in range(60):
            directory = tmp_path / str(after)
            directory.mkdir()
            killed(directory)
            files = FaultyFiles()
            backend = built(directory, files)
            files.fail(call, error, after=after, late=late)
            await deliver(backend)
            await backend.close()
            files.heal()
            again = built(directory, Files())
            assert await again.open() == BATCHES[-1].end
            await again.close()
            assert sorted(seq for _, seq in stored(directory / "log")) == list(range(1, 16)), f"{call} {after}"
            if not files.failed:
                assert after > 0
                return

    return Deferred.fromCoroutine(run())


@pytest.mark.parametrize("call", ["open", "append", "sync", "rename", "sync_directory"])
def test_nothing_is_written_after_close_fired_whatever_hung(tmp_path: Path, call: str) -> Deferred[None]:
    async def run() -> None:
        for after in range(12):
            directory = tmp_path / str(after)
            directory.mkdir()
            files = FaultyFiles()
            backend = built(directory, files)
            files.fail(call, None, after=after)
            working = Deferred.fromCoroutine(deliver(backend, 1)).addErrback(lambda _: None)
            while not files.hanging.is_set() and not working.called:
                await deferLater(reactor, 0.001)
            closing = backend.close()
            hung = files.hanging.is_set()
            assert not (hung and closing.called), "close fired while a call of it hangs"
            files.release()
            await closing
            calls = len(files.calls)
            await working
            assert len(files.calls) == calls and not files.opened
            again = built(directory, Files())
            await deliver(again)
            await again.close()
            assert sorted(seq for _, seq in stored(directory / "log")) == list(range(1, 16))
            if not hung:
                return

    return Deferred.fromCoroutine(run())


def test_no_file_is_touched_in_the_reactors_thread(tmp_path: Path) -> Deferred[None]:
    threads: set[int] = set()

    class Watched(FaultyFiles):
        def _call(self, *arguments: Any) -> Any:
            threads.add(threading.get_ident())
            return super()._call(*arguments)

    async def run() -> None:
        backend = built(tmp_path, Watched())
        await deliver(backend)
        backend.health()
        await backend.close()
        assert threads and threading.get_ident() not in threads

    return Deferred.fromCoroutine(run())
