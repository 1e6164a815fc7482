"""What becomes of the files: rotation, compression, deletion, limits, and others who touch them. All on a real disk."""

from __future__ import annotations

import errno
import gzip
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from file_places import DAY, NOON, START, Place
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from wafermon.backends.filesystem import FilesystemBackend, filesystem
from wafermon.backends.filesystem.checkpoint import Checkpoint, Entry
from wafermon.backends.filesystem.store import LEAST_OPEN, FileStore
from wafermon.contract import batch, line
from wafermon.files import Files
from wafermon.files.files import StrPath
from wafermon.interfaces import BackendContext, configure
from wafermon.model.errors import PermanentError, RetryableError


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Callable[..., Place]]:
    made: list[Place] = []

    def make(path: str = "{service}.jsonl", rotate_bytes: int = 0) -> Place:
        made.append(Place(tmp_path, path, rotate_bytes))
        return made[-1]

    yield make
    for each in made:
        each.store.close()


def test_modes(place: Callable[..., Place]) -> None:
    old = os.umask(0)
    try:
        files = place("{service}/{date}.jsonl")
        files.write()
    finally:
        os.umask(old)
    path = files.log / "queue-service" / "2026-11-24.jsonl"
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.parent.stat().st_mode & 0o777 == files.log.stat().st_mode & 0o777 == 0o750


def test_a_line_is_stored_as_it_came(place: Callable[..., Place]) -> None:
    files = place()
    text = b'{ "type":"event","ts":1795500000000000,"service":"a","level":"info","message":"\\u00fc/ \xc3\xbc" }'
    files.store.write(batch(START, [text]))
    assert (files.log / "a.jsonl").read_bytes() == text + b"\n"


# -- rotation ----------------------------------------------------------------------------------------------------


def test_files_are_rotated_before_they_grow_too_large(place: Callable[..., Place]) -> None:
    files = place(rotate_bytes=1000)
    for _ in range(7):
        files.write(message="x" * 200)
    assert files.files() == {
        "queue-service.1.jsonl": [1, 2],
        "queue-service.2.jsonl": [3, 4],
        "queue-service.3.jsonl": [5, 6],
        "queue-service.jsonl": [7],
    }


def test_numbers_count_up_over_restarts_and_compression(place: Callable[..., Place]) -> None:
    files = place(rotate_bytes=500)
    for _ in range(3):
        files.write(message="x" * 300)
    files.tidy(compress=True)
    files.store.close()
    files.store.open()
    for _ in range(2):
        files.write(message="x" * 300)
    assert files.files() == {
        "queue-service.1.jsonl.gz": [1],
        "queue-service.2.jsonl.gz": [2],
        "queue-service.3.jsonl": [3],
        "queue-service.4.jsonl": [4],
        "queue-service.jsonl": [5],
    }


def test_a_service_named_like_a_rotated_file(place: Callable[..., Place]) -> None:
    files = place(rotate_bytes=300)
    for service in ("a", "a", "a.1", "a", "a.1"):
        files.write(service=service, message="x" * 200)
    assert files.files() == {
        "a%2E1.1.jsonl": [3], "a%2E1.jsonl": [5], "a.1.jsonl": [1], "a.2.jsonl": [2], "a.jsonl": [4],
    }  # fmt: skip


def test_another_date_is_another_file(place: Callable[..., Place]) -> None:
    files = place("{date}.jsonl")
    day = DAY * 1_000_000
    files.write_all({"ts": int(NOON * 1e6) + n * day} for n in (0, 1, 0))
    assert files.files() == {"2026-11-24.jsonl": [1, 3], "2026-11-25.jsonl": [2]}


# -- compression and deletion ------------------------------------------------------------------------------------


def test_compression_keeps_content_and_time(place: Callable[..., Place]) -> None:
    files = place(rotate_bytes=300)
    files.write(message="x" * 200)
    files.write(message="x" * 200)
    rotated = files.log / "queue-service.1.jsonl"
    os.utime(rotated, (NOON - DAY, NOON - DAY))
    content = rotated.read_bytes()
    assert files.tidy(compress=True).compressed == 1
    packed = files.log / "queue-service.1.jsonl.gz"
    assert gzip.decompress(packed.read_bytes()) == content
    assert packed.stat().st_mtime == NOON - DAY
    assert not rotated.exists()
    assert files.tidy(compress=True).compressed == 0


def test_what_a_crash_leaves_of_a_compression_is_cleared_up(place: Callable[..., Place]) -> None:
    files = place(rotate_bytes=300)
    for _ in range(4):
        files.write(message="x" * 200)
    one, two, three = (files.log / f"queue-service.{n}.jsonl" for n in (1, 2, 3))
    Path(f"{one}.gz.tmp").write_bytes(b"half")
    Path(f"{two}.gz").write_bytes(gzip.compress(two.read_bytes()))
    Path(f"{three}.gz").write_bytes(gzip.compress(three.read_bytes())[:-9])  # somebody's own gzip was stopped
    files.tidy(compress=True)
    assert files.files() == {
        "queue-service.1.jsonl.gz": [1],
        "queue-service.2.jsonl.gz": [2],
        "queue-service.3.jsonl.gz": [3],
        "queue-service.jsonl": [4],
    }


def test_a_date_that_is_over_is_compressed_an_hour_after_its_last_line(place: Callable[..., Place]) -> None:
    files = place("{date}.jsonl")
    files.write(ts=int(NOON * 1e6))
    path = files.log / "2026-11-24.jsonl"
    os.utime(path, (NOON, NOON))
    files.now = NOON + DAY / 2 + 1800
    files.tidy(compress=True)
    assert files.files() == {"2026-11-24.jsonl": [1]}
    files.now = NOON + DAY / 2 + 3601
    files.tidy(compress=True)
    assert files.files() == {"2026-11-24.1.jsonl.gz": [1]}
    files.write(ts=int(NOON * 1e6) + 1)  # a late one
    files.write(ts=int(NOON * 1e6) + 2)
    assert files.files() == {"2026-11-24.1.jsonl.gz": [1], "2026-11-24.jsonl": [2, 3]}


def test_keep_deletes_what_is_old_and_ours_and_not_in_use(place: Callable[..., Place]) -> None:
    files = place("{service}/{date}.jsonl", rotate_bytes=300)
    for service in ("a", "a", "b", "c"):
        files.write(service=service, ts=int(NOON * 1e6), message="x" * 200)
    foreign = [files.log / "notes.txt", files.log / "a" / "2026-11-24.txt", files.log / "a" / "x.jsonl"]
    for path in foreign:
        path.write_text("not ours")
    (files.log / "link").symlink_to(files.log / "b")
    for path in files.log.rglob("*"):
        if path.is_file():
            os.utime(path, (NOON - 10 * DAY, NOON - 10 * DAY))
    os.utime(files.log / "b" / "2026-11-24.jsonl", (NOON - DAY, NOON - DAY))

    assert files.tidy(keep=5 * DAY).deleted == 1
    assert not (files.log / "a" / "2026-11-24.1.jsonl").exists(), "the rotated one is deleted"
    assert (files.log / "a" / "2026-11-24.jsonl").exists(), "a file that is open is not"

    files.now += 3600  # the others are closed by now
    files.tidy(keep=5 * DAY)
    assert all(path.exists() for path in foreign)
    assert sorted(path.name for path in files.log.iterdir()) == ["a", "b", "link", "notes.txt"]
    files.write(service="c", ts=int(NOON * 1e6))
    assert (files.log / "c" / "2026-11-24.jsonl").read_bytes().count(b"\n") == 1


# -- limits ------------------------------------------------------------------------------------------------------


def test_no_more_files_are_open_than_allowed(place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    files = place()
    for first in (0, 300, 100):
        files.write_all({"service": f"s{n}"} for n in range(first, first + 600))
        assert files.store.open_files == LEAST_OPEN
    mine = [
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{fd}")
    ]
    assert sum(path.startswith(str(files.log)) for path in mine) == LEAST_OPEN
    assert sorted(seq for seqs in files.files().values() for seq in seqs) == list(range(1, 1801))


def test_idle_files_are_closed_and_forgotten(place: Callable[..., Place]) -> None:
    files = place()
    files.write(service="a")
    files.now += 200
    files.write(service="b")
    files.now += 200
    files.tidy()
    assert files.store.open_files == 1
    written = Checkpoint(Files(), files.state)
    written.load()
    assert set(written.files) == {str(files.log / "b.jsonl")}
    files.write(service="a")
    assert files.files() == {"a.jsonl": [1, 3], "b.jsonl": [2]}


def test_the_checkpoint_does_not_grow_for_ever(place: Callable[..., Place]) -> None:
    files = place()
    sizes = []
    for _ in range(40):
        files.write_all({"service": f"s{n}-{'x' * 100}"} for n in range(250))
        sizes.append((files.state / "checkpoint").stat().st_size)
    assert max(sizes) < 1_200_000
    assert sizes != sorted(sizes), "it was never written anew"
    files.store.close()
    assert files.another().open() == files.at


# -- others touch the files --------------------------------------------------------------------------------------


def test_a_file_that_was_moved_away_is_begun_anew(place: Callable[..., Place]) -> None:
    files = place()
    files.write()
    (files.log / "queue-service.jsonl").rename(files.log / "moved")
    files.write()
    assert files.files() == {"moved": [1], "queue-service.jsonl": [2]}
    assert files.another().open() == files.at
    assert files.files() == {"moved": [1], "queue-service.jsonl": [2]}


def test_a_file_that_was_truncated_or_replaced_is_gone_on_with(place: Callable[..., Place]) -> None:
    files = place()
    path = files.log / "queue-service.jsonl"
    files.write()
    os.truncate(path, 0)
    files.write()
    assert files.files() == {"queue-service.jsonl": [2]}
    path.unlink()
    path.write_bytes(line(99))  # without a newline
    files.write()
    assert files.files() == {"queue-service.jsonl": [99, 3]}
    assert "something else writes to it" in files.store.notes.texts[0]


def test_all_is_removed_while_running(place: Callable[..., Place]) -> None:
    files = place("{service}/{date}.jsonl")
    files.write()
    for path in sorted(files.log.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    files.log.rmdir()
    files.write()
    assert files.files() == {"queue-service/2026-11-24.jsonl": [2]}


def recovered(files: Place, length: int, inode: int | None = None) -> FileStore:
    """A store that opens after a crash, with a checkpoint that counts `length` bytes of the first file."""
    path = files.log / "queue-service.jsonl"
    files.store.close()
    checkpoint = Checkpoint(Files(), files.state)
    checkpoint.load()
    checkpoint.begin()
    checkpoint.commit(None, {str(path): Entry(inode or path.stat().st_ino, length)})
    checkpoint.close()
    store = files.another()
    assert store.open() == files.at
    store.close()
    return store


def test_recovery_cuts_what_does_not_count(place: Callable[..., Place]) -> None:
    files = place()
    files.write()
    path = files.log / "queue-service.jsonl"
    content = path.read_bytes()
    path.write_bytes(content + b'{"half')
    assert recovered(files, len(content)).notes.texts == []
    assert path.read_bytes() == content


@pytest.mark.parametrize("case", ["other inode", "other content", "shorter", "gone"])
def test_recovery_leaves_alone_what_it_does_not_know(place: Callable[..., Place], case: str) -> None:
    files = place()
    files.write()
    path = files.log / "queue-service.jsonl"
    length, inode = path.stat().st_size, path.stat().st_ino
    content: bytes | None = path.read_bytes()
    if case == "other inode":
        notes = recovered(files, 10, inode + 1).notes.texts
        assert "another file now" in notes[0]
    elif case == "other content":
        notes = recovered(files, 10).notes.texts
        assert "not written here" in notes[0]
    elif case == "shorter":
        notes = recovered(files, length + 10).notes.texts
        assert "was cut by something else" in notes[0]
    else:
        path.unlink()
        notes, content = recovered(files, length, inode).notes.texts, None
        assert "gone" in notes[0]
    assert len(notes) == 1
    assert (path.read_bytes() if path.exists() else None) == content


# -- the checkpoint ----------------------------------------------------------------------------------------------


def test_a_torn_record_does_not_count(place: Callable[..., Place]) -> None:
    files = place()
    files.write()
    checkpoint = files.state / "checkpoint"
    for torn in (b"00000000 {}", b"00000000 {}\n", b"\0" * 50, b"\0" * 50 + b"\n"):
        content = checkpoint.read_bytes()
        checkpoint.write_bytes(content + torn)
        store = files.another()
        assert store.open() == files.at
        store.close()
        assert files.files() == {"queue-service.jsonl": [1]}


@pytest.mark.parametrize("content", [b"", b"\0" * 500, b"hello\n", b"\n\n", b"00000000 {}\n" * 3])
def test_a_checkpoint_without_a_sound_record_is_set_aside(place: Callable[..., Place], content: bytes) -> None:
    files = place()
    files.write()
    files.store.close()
    (files.state / "checkpoint").write_bytes(content)
    files.store = files.another()
    assert files.store.open() is None
    assert (files.state / "checkpoint.damaged").read_bytes() == content
    assert "moved to checkpoint.damaged" in files.store.notes.texts[0]
    files.write()
    files.store.close()
    assert files.another().open() == files.at
    assert files.files() == {"queue-service.jsonl": [1, 2]}


def test_a_stranger_in_the_place_of_the_checkpoint_is_set_aside(place: Callable[..., Place], tmp_path: Path) -> None:
    files = place()
    files.store.close()
    (files.state / "checkpoint").unlink()
    (files.state / "checkpoint").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_text("a stranger's")
    files.store = files.another()
    assert files.store.open() is None
    files.write()
    assert (tmp_path / "elsewhere").read_text() == "a stranger's"


def test_a_damaged_record_is_passed_over_and_nothing_is_cut_to_a_length_before_it(place: Callable[..., Place]) -> None:
    files = place()
    files.write(service="a")
    files.write(service="b")
    before = (files.state / "checkpoint").read_bytes().splitlines(keepends=True)
    files.write(service="a")
    after = (files.state / "checkpoint").read_bytes().splitlines(keepends=True)
    assert len(before) < len(after)
    damaged = [*after[:1], b"x" + after[1], *after[2:]]
    (files.state / "checkpoint").write_bytes(b"".join(damaged))
    (files.log / "b.jsonl").write_bytes((files.log / "b.jsonl").read_bytes() + line(77) + b"\n")
    store = files.another()
    assert store.open() == files.at
    assert "damaged at line 2" in store.notes.texts[0]
    assert files.files()["a.jsonl"] == [1, 3]
    store.close()


# -- errors ------------------------------------------------------------------------------------------------------


class BrokenDisk(Files):
    """Fails at one call, as a disk does that is full or dying, and where told to, at all later ones too."""

    def __init__(self) -> None:
        self.left = -1
        self.error = errno.EIO
        self.lasting = False

    def _call(self, method: Callable[..., Any], *args: Any) -> Any:
        self.left -= 1
        if self.left == 0 or (self.lasting and self.left < 0):
            if method.__name__ == "append":
                fd, data = args
                os.write(fd, data[: len(data) // 2])
            raise OSError(self.error, os.strerror(self.error))
        return method(*args)

    def open(self, path: StrPath, flags: int, mode: int = 0o600) -> int:
        return int(self._call(super().open, path, flags, mode))

    def append(self, fd: int, data: bytes | memoryview) -> int:
        return int(self._call(super().append, fd, data))

    def sync(self, fd: int) -> None:
        self._call(super().sync, fd)

    def truncate(self, fd: int, length: int) -> None:
        self._call(super().truncate, fd, length)

    def rename(self, old: StrPath, new: StrPath) -> None:
        self._call(super().rename, old, new)

    def make_directory(self, path: StrPath, mode: int = 0o700) -> None:
        self._call(super().make_directory, path, mode)

    def sync_directory(self, path: StrPath) -> None:
        self._call(super().sync_directory, path)


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
@pytest.mark.parametrize("then", ["retry", "crash"])
@pytest.mark.parametrize("batches", [1, 2])
def test_whatever_call_fails_each_line_is_stored_once(tmp_path: Path, lasting: bool, then: str, batches: int) -> None:
    """Each of the calls of a write fails in turn; then the same batches again, or a crash and the same batches again."""
    failed = 0
    for call in range(1, 60):
        (tmp_path / str(call)).mkdir()
        files = Place(tmp_path / str(call), rotate_bytes=900)
        disk = BrokenDisk()
        files.store.close()
        files.store = files.another(disk)
        files.store.open()
        files.write_all({"service": f"s{n % 2}"} for n in range(8))
        first = batch(files.at, [line(seq, service=f"s{seq % 3}") for seq in range(9, 9 + 9 // batches)])
        todo = [first]
        if batches > 1:
            todo.append(batch(first.end, [line(seq, service=f"s{seq % 3}") for seq in range(9 + 9 // batches, 18)]))
        disk.left, disk.lasting = call, lasting
        for _ in range(3):
            try:
                files.store.write(*todo)
            except OSError as error:
                assert error.filename
                failed += 1
        disk.left, disk.lasting = -1, False
        if then == "crash":
            files.store = files.another()
            assert files.store.open() in (files.at, todo[-1].end)
        files.store.write(*todo)
        stored = sorted(seq for seqs in files.files().values() for seq in seqs)
        assert stored == list(range(1, 18)), f"call {call}"
        files.store.close()
        assert files.another().open() == todo[-1].end
    assert failed > 15, failed


def built(directory: Path, **options: Any) -> FilesystemBackend:
    context = BackendContext("files", directory / "state", reactor, reactor.getThreadPool())  # type: ignore[attr-defined]
    return filesystem.build(configure(filesystem, options), context)


def test_the_backend_compresses_in_the_background(tmp_path: Path) -> Deferred[None]:
    async def run() -> None:
        (tmp_path / "state").mkdir()
        backend = built(tmp_path, path=str(tmp_path / "log" / "{service}.jsonl"), rotate_bytes=600, compress="gzip")
        await backend.open()
        at, seq = START, 0
        while not backend.health().figures["compressed_files"]:
            todo = batch(at, [line(seq + 1, message="x" * 300)])
            await backend.write(todo)
            at, seq = todo.end, seq + 1
            assert seq < 5000
        await backend.close()
        files = Place(tmp_path, rotate_bytes=600)
        assert sorted(seq for seqs in files.files().values() for seq in seqs) == list(range(1, seq + 1))
        files.store.close()

    return Deferred.fromCoroutine(run())


def test_errors_say_what_to_do(tmp_path: Path) -> Deferred[None]:
    async def run() -> None:
        (tmp_path / "state").mkdir()
        disk = BrokenDisk()
        options = configure(filesystem, {"path": str(tmp_path / "log" / "{host}.jsonl")})
        context = BackendContext("files", tmp_path / "state", reactor, reactor.getThreadPool())  # type: ignore[attr-defined]
        backend = FilesystemBackend(options, context, disk)
        with pytest.raises(RetryableError, match="starting"):
            await backend.write(batch(START, [line(1)]))
        await backend.open()
        for number, advice in [
            (errno.ENOSPC, "the disk is full"),
            (errno.EDQUOT, "quota"),
            (errno.EIO, "dmesg"),
            (errno.ESTALE, "mount it again"),
            (errno.EACCES, f"user {os.geteuid()} may not write there"),
            (errno.EROFS, "mount it writable"),
            (errno.EMFILE, "LimitNOFILE"),
        ]:
            disk.left, disk.error = 1, number
            with pytest.raises(RetryableError, match=advice) as caught:
                await backend.write(batch(START, [line(1)]))
            assert str(tmp_path) in str(caught.value)
            assert backend.health().state == "failing" and advice in backend.health().detail
        disk.left, disk.error = 1, errno.ENAMETOOLONG
        with pytest.raises(PermanentError):
            await backend.write(batch(START, [line(1)]))
        await backend.write(batch(START, [line(1)]))
        await backend.close()
        with pytest.raises(RetryableError, match="closed"):
            await backend.write(batch(START, [line(1)]))

    return Deferred.fromCoroutine(run())


def test_limits_of_this_process_are_enough() -> None:
    """The tests above open as many files as the backend does at most."""
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > LEAST_OPEN + 50
