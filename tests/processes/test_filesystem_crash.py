"""Each line exactly once, wherever the process is killed: at any call that changes the disk, or at any time.

A child writes batches; it is killed by SIGKILL; the next one opens, and is fed from the position that it is answered.
With `power` the machine stops, not only the process: what was not synced is gone, or there in part.
"""

from __future__ import annotations

import gzip
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wafermon.backends.filesystem.names import Template
from wafermon.backends.filesystem.store import FileStore
from wafermon.backends.filesystem.tidy import Tidier
from wafermon.contract import JOURNAL, batch, line
from wafermon.files import Files
from wafermon.files.files import StrPath
from wafermon.interfaces import Batch, Position
from wafermon.model.messages import loads

PATH = "{service}/{date}.jsonl"
BATCHES = 12
PER_BATCH = 12


def batches() -> list[Batch]:
    """The same ones in every process: three services, two days, now and then an empty batch."""
    at = Position(JOURNAL, 1, 0)
    found = []
    for n in range(BATCHES):
        seqs = range(n * PER_BATCH + 1, (n + 1) * PER_BATCH + 1) if n % 7 != 3 else range(0)
        days = 86_400_000_000 * (n * 2 // BATCHES)
        lines = [
            line(seq, service=f"service-{seq % 3}", ts=1_795_500_000_000_000 + days, message="x" * (seq % 90))
            for seq in seqs
        ]
        found.append(batch(at, lines))
        at = found[-1].end
    return found


class MortalDisk(Files):
    """A disk whose process is killed at one call: before it, after it, or, where it writes, in the midst of it."""

    def __init__(self, at: int, power: bool, seed: int) -> None:
        self.calls = 0
        self._at = at
        self._power = power
        self._random = random.Random(seed)
        self._synced: dict[int, int] = {}
        """By inode: how many of its bytes are on the disk for certain."""
        self._paths: dict[int, str] = {}

    def _call(self, method: Callable[..., Any], *args: Any) -> Any:
        self.calls += 1
        if self.calls != self._at:
            return method(*args)
        moment = self._random.choice(["before", "midst", "after"])
        if moment == "after":
            method(*args)
        elif moment == "midst" and method.__name__ == "append":
            fd, data = args
            os.write(fd, data[: self._random.randrange(len(data))])
        self._die()
        raise AssertionError("it outlived its own SIGKILL")

    def _die(self) -> None:
        if self._power:
            for inode, synced in self._synced.items():
                path = self._paths[inode]
                if os.path.exists(path) and os.stat(path).st_ino == inode:
                    os.truncate(path, self._random.randint(synced, max(synced, os.stat(path).st_size)))
        os.kill(os.getpid(), signal.SIGKILL)

    def open(self, path: StrPath, flags: int, mode: int = 0o600) -> int:
        fd: int = self._call(super().open, path, flags, mode)
        found = os.fstat(fd)
        self._synced.setdefault(found.st_ino, found.st_size)
        self._paths[found.st_ino] = os.fspath(path)
        return fd

    def append(self, fd: int, data: bytes | memoryview) -> int:
        return int(self._call(super().append, fd, data))

    def sync(self, fd: int) -> None:
        self._call(super().sync, fd)
        found = os.fstat(fd)
        self._synced[found.st_ino] = found.st_size

    def truncate(self, fd: int, length: int) -> None:
        self._call(super().truncate, fd, length)
        inode = os.fstat(fd).st_ino
        self._synced[inode] = min(length, self._synced.get(inode, length))

    def rename(self, old: StrPath, new: StrPath) -> None:
        replaced = os.stat(new).st_ino if os.path.exists(new) else 0
        self._call(super().rename, old, new)
        self._synced.pop(replaced, None)  # its number is used again
        self._paths[os.stat(new).st_ino] = os.fspath(new)

    def unlink(self, path: StrPath) -> None:
        inode = os.stat(path).st_ino
        self._call(super().unlink, path)
        self._synced.pop(inode, None)

    def make_directory(self, path: StrPath, mode: int = 0o700) -> None:
        self._call(super().make_directory, path, mode)

    def sync_directory(self, path: StrPath) -> None:
        self._call(super().sync_directory, path)


def work(directory: Path, at: int, power: bool, seed: int) -> int:
    """What a child does: all that is left to do, and then compression. Answers with the number of calls it took."""
    disk = MortalDisk(at, power, seed)
    names = Template(str(directory / "log" / PATH))
    store = FileStore(names, 2500, directory / "state", time.time, disk)
    tidier = Tidier(names, store, True, 0, time.time, disk)
    position = store.open()
    for n, todo in enumerate(batches()):
        if position is None or todo.start >= position:
            store.write(todo)
        if n % 4 == 3:
            tidier.run()
    store.close()
    return disk.calls


def stored(directory: Path) -> list[int]:
    """The seqs of all files that are complete; whatever is no whole line fails."""
    found: list[int] = []
    for path in sorted((directory / "log").rglob("*.jsonl*")):
        if path.name.endswith(".gz"):
            # Between the last two steps of a compression both are there; a reader takes the plain one.
            content = b"" if path.with_suffix("").exists() else gzip.decompress(path.read_bytes())
        elif path.name.endswith(".tmp"):
            continue
        else:
            content = path.read_bytes()
        assert not content or content.endswith(b"\n"), path
        found += [loads(text)["seq"] for text in content.splitlines()]
    return found


EXPECTED = [loads(text)["seq"] for each in batches() for text in each.lines]


def child(directory: Path, at: int, power: bool, seed: int) -> int:
    """Run `work` in a process of its own; answers with its exit status, negative for a signal."""
    pid = os.fork()
    if pid == 0:
        status = 70
        try:
            work(directory, at, power, seed)
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    return tmp_path


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many calls there are when nothing happens."""
    place = tmp_path_factory.mktemp("undisturbed")
    (place / "state").mkdir()
    calls = work(place, 0, False, 0)
    assert sorted(stored(place)) == EXPECTED
    assert list((place / "log").rglob("*.1.jsonl.gz"))
    return calls


@pytest.mark.parametrize("power", [False, True], ids=["process", "power"])
@pytest.mark.parametrize("first", range(8))
def test_killed_at_every_call(directory: Path, calls: int, first: int, power: bool) -> None:
    for at in range(first + 1, calls + 1, 8):
        place = directory / str(at)
        (place / "state").mkdir(parents=True)
        assert child(place, at, power, at) == -signal.SIGKILL
        assert child(place, 0, False, 0) == 0
        assert sorted(stored(place)) == EXPECTED, f"killed at call {at}"


@pytest.mark.parametrize("power", [False, True], ids=["process", "power"])
@pytest.mark.parametrize("seed", range(12))
def test_killed_again_and_again(directory: Path, seed: int, power: bool) -> None:
    """Also in the recovery from the kill before."""
    choose = random.Random(seed)
    for n in range(12):
        assert child(directory, choose.randint(1, 60), power, seed * 100 + n) in (-signal.SIGKILL, 0)
    assert child(directory, 0, False, 0) == 0
    assert sorted(stored(directory)) == EXPECTED


BACKEND = """if True:
    import sys
    from pathlib import Path
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred
    from wafermon.backends.filesystem import filesystem
    from wafermon.contract import JOURNAL, batch, line
    from wafermon.interfaces import BackendContext, Position, configure

    async def main():
        directory = Path(sys.argv[1])
        options = {"path": str(directory / "log/{service}.jsonl"), "rotate_bytes": "64KiB", "compress": "gzip"}
        context = BackendContext("b", directory / "state", reactor, reactor.getThreadPool())
        backend = filesystem.build(configure(filesystem, options), context)
        at = await backend.open() or Position(JOURNAL, 1, 0)
        print("open", at.segment, flush=True)
        for number in range(at.segment, 1500):
            todo = batch(at, [line(number * 10 + n, service=f"s{n % 4}") for n in range(10)])
            at = Position(JOURNAL, number + 1, 0)
            await backend.write(type(todo)(todo.start, at, todo.block))
        await backend.close()
        reactor.stop()

    def failed(failure):
        failure.printTraceback()
        reactor.stop()

    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(main()).addErrback(failed))
    reactor.run()
"""


def test_the_whole_backend_killed_at_any_time(directory: Path) -> None:
    """In a daemon's surroundings: reactor, threads, compression going on. Killed at random."""
    choose = random.Random(7)
    reached = 1
    kills = 0
    while True:
        process = subprocess.Popen(
            [sys.executable, "-c", BACKEND, str(directory)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        assert process.stdout is not None
        opened = int(process.stdout.readline().split()[1])
        assert opened >= reached
        reached = opened
        if kills < 12:
            try:
                process.wait(choose.uniform(0, 0.4))
            except subprocess.TimeoutExpired:
                kills += 1
        else:
            process.wait(120)
        process.kill()
        process.wait()
        process.stdout.close()
        if process.returncode == 0:
            break
    assert kills > 0
    assert sorted(stored(directory)) == list(range(10, 15_000))
