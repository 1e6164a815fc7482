"""The filesystem backend with several batches under way: what waits is written together, and a fault stays with its batch."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path
from threading import Event, Semaphore
from typing import Any

import pytest
from file_places import START, stored
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater

from wafermon.backends.filesystem import MOST_REST, OUTSTANDING, FilesystemBackend, filesystem
from wafermon.contract import batch, line
from wafermon.files import Files
from wafermon.interfaces import BackendContext, Batch, Position, configure
from wafermon.model.errors import PermanentError, RetryableError, Superseded


class SlowDisk(Files):
    """A disk whose syncs of messages' files wait for a permit."""

    def __init__(self) -> None:
        self.permits = Semaphore(0)
        self.waits = Event()
        self.syncs = 0
        self.fails = 0
        """So many syncs fail."""
        self._paths: dict[int, str] = {}

    def open(self, path: Any, flags: int, mode: int = 0o600) -> int:
        fd = super().open(path, flags, mode)
        self._paths[fd] = str(path)
        return fd

    def sync(self, fd: int) -> None:
        if self._paths[fd].endswith(".jsonl"):
            self.syncs += 1
            self.waits.set()
            assert self.permits.acquire(timeout=60)
            if self.fails:
                self.fails -= 1
                raise OSError(errno.EIO, "the disk fails")
        super().sync(fd)


def several(*counts: int, start: Position = START, first: int = 1) -> list[Batch]:
    found: list[Batch] = []
    for count in counts:
        found.append(batch(start, [line(seq) for seq in range(first, first + count)]))
        start, first = found[-1].end, first + count
    return found


def built(directory: Path, disk: Files, clock: Any = reactor, **more: Any) -> FilesystemBackend:
    (directory / "state").mkdir(exist_ok=True)
    options = configure(filesystem, {"path": str(directory / "log" / "{service}.jsonl"), **more})
    pool = reactor.getThreadPool()  # type: ignore[attr-defined]
    return FilesystemBackend(options, BackendContext("files", directory / "state", clock, pool), disk)


async def outcomes(written: Sequence[Deferred[None]]) -> list[type[Exception] | None]:
    found: list[type[Exception] | None] = []
    for one in written:
        try:
            await one
            found.append(None)
        except Exception as error:  # noqa: BLE001  # all are compared
            found.append(type(error))
    return found


def test_what_waits_meanwhile_costs_one_sync(tmp_path: Path) -> Deferred[None]:
    async def run() -> None:
        disk = SlowDisk()
        backend = built(tmp_path, disk)
        await backend.open()
        written = [backend.write(one) for one in several(*[5] * OUTSTANDING)]
        disk.permits.release(2)
        assert await outcomes(written) == [None] * OUTSTANDING
        assert disk.syncs == 2
        await backend.close()
        assert [seq for _, seq in stored(tmp_path / "log")] == list(range(1, 5 * OUTSTANDING + 1))

    return Deferred.fromCoroutine(run())


def test_rotation_keeps_its_bound(tmp_path: Path) -> Deferred[None]:
    """What is written together is no more than a file may hold."""

    async def run() -> None:
        disk = SlowDisk()
        disk.permits.release(1000)
        backend = built(tmp_path, disk, rotate_bytes=2000)
        await backend.open()
        for _ in range(3):
            assert await outcomes([backend.write(one) for one in several(*[3] * OUTSTANDING)])
        await backend.close()
        sizes = [path.stat().st_size for path in (tmp_path / "log").iterdir()]
        assert len(sizes) > 1 and max(sizes) <= 2000
        assert len(stored(tmp_path / "log")) == 3 * OUTSTANDING

    return Deferred.fromCoroutine(run())


def test_a_batch_at_fault_keeps_the_older_ones_from_nothing(tmp_path: Path) -> Deferred[None]:
    """The first sync is that of a batch alone, the second that of two which then go one after the other."""

    async def run() -> None:
        disk = SlowDisk()
        backend = built(tmp_path, disk)
        await backend.open()
        good = several(2, 2)
        poison = batch(good[-1].end, [line(5, service="x" * 30)])
        young = batch(poison.end, [line(6)])
        disk.permits.release(100)
        calls: list[str] = []
        real = disk.open

        def opened(path: Any, flags: int, mode: int = 0o600) -> int:
            if "x" * 30 in str(path):
                calls.append(str(path))
                raise OSError(errno.ENAMETOOLONG, "File name too long", str(path))
            return real(path, flags, mode)

        disk.open = opened  # type: ignore[method-assign]
        written = [backend.write(one) for one in (*good, poison, young)]
        assert await outcomes(written) == [None, None, PermanentError, Superseded]
        assert len(calls) == 2
        assert await backend.open() == good[-1].end
        await backend.write(batch(poison.start, []))
        await backend.close()
        assert sorted(seq for _, seq in stored(tmp_path / "log")) == [1, 2, 3, 4]

    return Deferred.fromCoroutine(run())


def test_a_disk_that_fails_supersedes_also_what_no_thread_has_yet(tmp_path: Path) -> Deferred[None]:
    async def run() -> None:
        disk = SlowDisk()
        backend = built(tmp_path, disk)
        await backend.open()
        disk.fails = 1
        todo = several(2, 2, 2)
        written = [backend.write(one) for one in todo]
        disk.permits.release(100)
        assert await outcomes(written) == [RetryableError, Superseded, Superseded]
        assert await outcomes([backend.write(one) for one in todo]) == [None] * 3
        await backend.close()
        assert sorted(seq for _, seq in stored(tmp_path / "log")) == [1, 2, 3, 4, 5, 6]

    return Deferred.fromCoroutine(run())


def test_batches_gather_after_a_long_write_but_no_longer_than_said(tmp_path: Path) -> Deferred[None]:
    class HandSet(Clock):
        callFromThread = reactor.callFromThread  # type: ignore[attr-defined]

    async def run() -> None:
        disk, clock = SlowDisk(), HandSet()
        backend = built(tmp_path, disk, clock)
        await backend.open()
        first, second, third = several(1, 1, 1)
        writing = backend.write(first)
        clock.advance(10)
        disk.permits.release(100)
        await writing
        await deferLater(reactor, 0)
        syncs = disk.syncs
        waiting = backend.write(second)
        clock.advance(MOST_REST * 0.9)
        also = backend.write(third)
        assert disk.syncs == syncs and not waiting.called
        clock.advance(MOST_REST * 0.2)
        await waiting
        await also
        assert disk.syncs == syncs + 1
        await backend.close()

    return Deferred.fromCoroutine(run())


@pytest.mark.parametrize("resting", [False, True])
def test_close_answers_for_all(tmp_path: Path, resting: bool) -> Deferred[None]:
    async def run() -> None:
        disk = SlowDisk()
        backend = built(tmp_path, disk)
        await backend.open()
        if resting:
            disk.permits.release(100)
            backend._rests_until = float("inf")
        written = [backend.write(one) for one in several(1, 1, 1)]
        closing = backend.close()
        disk.permits.release(100)
        await closing
        assert all(one.called for one in written)
        assert await outcomes(written) == [RetryableError, Superseded, Superseded]
        again = built(tmp_path, Files())
        reached = await again.open()
        for one in several(1, 1, 1):
            if reached is None or one.end > reached:
                await again.write(one)
        await again.close()
        assert sorted(seq for _, seq in stored(tmp_path / "log")) == [1, 2, 3]

    return Deferred.fromCoroutine(run())
