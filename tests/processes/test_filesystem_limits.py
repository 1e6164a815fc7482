"""Disks that are full, and limits of the system: these need a process of their own, or a small file system."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from wafermon.backends.filesystem import FilesystemBackend, filesystem
from wafermon.contract import JOURNAL, batch, line
from wafermon.interfaces import BackendContext, Position, configure
from wafermon.model.errors import RetryableError
from wafermon.model.messages import loads

START = Position(JOURNAL, 1, 0)


def built(directory: Path, **options: Any) -> FilesystemBackend:
    context = BackendContext("files", directory / "state", reactor, reactor.getThreadPool())  # type: ignore[attr-defined]
    return filesystem.build(configure(filesystem, options), context)


FULL = """if True:
    import resource, sys
    from pathlib import Path
    sys.path[:0] = sys.argv[2:]
    from file_places import Place
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    files = Place(Path(sys.argv[1]))
    for _ in range(1000):
        try:
            files.write_all([{"message": "x" * 300}] * 3)
        except OSError as error:
            print(error.strerror, files.seq)
            break
    try:
        files.write_all([{"message": "x" * 300}] * 3)
    except OSError as error:
        print(error.strerror, files.seq)
"""


def test_the_system_refuses_to_let_a_file_grow(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    paths = [root / "tests" / "support", root]
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path), *map(str, paths)],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    first, second = done.stdout.splitlines()
    assert first == second and first.startswith("File too large")
    kept = int(first.split()[-1])
    content = (tmp_path / "log" / "queue-service.jsonl").read_bytes()
    assert [loads(text)["seq"] for text in content.splitlines()] == list(range(1, kept + 1))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    directory = tmp_path / "small"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(directory)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, timeout=60).returncode:
        pytest.skip("only root can mount a small file system")
    yield directory
    subprocess.run(["umount", str(directory)], check=True, timeout=60)


def test_a_full_disk(tmp_path: Path, small_disk: Path) -> Deferred[None]:
    return Deferred.fromCoroutine(fill(tmp_path, small_disk))


async def fill(tmp_path: Path, small_disk: Path) -> None:
    (tmp_path / "state").mkdir()
    backend = built(tmp_path, path=str(small_disk / "log" / "{service}.jsonl"))
    await backend.open()
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 100_000)
    at, seq = START, 0
    with pytest.raises(RetryableError, match="the disk is full: free space there"):
        while True:
            todo = batch(at, [line(seq + n, message="x" * 1000) for n in range(1, 11)])
            await backend.write(todo)
            at, seq = todo.end, seq + 10
    assert backend.health().state == "failing"
    content = (small_disk / "log" / "queue-service.jsonl").read_bytes()
    assert [loads(text)["seq"] for text in content.splitlines()] == list(range(1, seq + 1))
    with pytest.raises(RetryableError):
        await backend.write(todo)
    ballast.unlink()
    await backend.write(todo)
    assert backend.health().state == "ok"
    await backend.close()
    content = (small_disk / "log" / "queue-service.jsonl").read_bytes()
    assert [loads(text)["seq"] for text in content.splitlines()] == list(range(1, seq + 11))
