"""Whatever ends the process, what was acknowledged is stored exactly once."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from daemon import CONFIG, Daemon, Load, read_lines, until
from exactly_once import check_exactly_once
from journals import OpenJournal, read

ROUNDS = int(os.environ.get("WAFERMON_TEST_KILLS", "12"))
POINTS = ["append", "sync", "before ack", "after ack", "seal", "checkpoint", "delete"]

CHILD = """
import os, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from journals import OpenJournal

point, skip = {point!r}, {skip}

def probe(name):
    global skip
    if name == point:
        if not skip:
            os._exit(9)
        skip -= 1

async def run():
    opened = OpenJournal(Path("journal"), probe, segment_bytes=32 << 10)
    cursor = opened.journal.cursor("c")
    stream = opened.journal.marks.hold("", "a" * 16)
    print("start", stream.synced, flush=True)
    number = stream.synced
    async def consume():
        while True:
            cursor.move((await cursor.read()).end)
    Deferred.fromCoroutine(consume())
    while number < 5000:
        await opened.put(range(number, number + 20), stream, seq=number + 20, size=100)
        number += 20
        print("acked", number, flush=True)
    os._exit(0)

Deferred.fromCoroutine(run()).addErrback(lambda failure: (failure.printTraceback(), os._exit(1)))
reactor.run()
"""


@pytest.mark.parametrize("skip", [0, 1, 7])
@pytest.mark.parametrize("point", POINTS)
@pytest_twisted.ensureDeferred
async def test_an_exit_at_each_crash_point_loses_nothing_acknowledged(tmp_path: Path, point: str, skip: int) -> None:
    opened = OpenJournal(tmp_path / "journal")
    opened.journal.detach(opened.journal.cursor("all"))
    await opened.close()
    code = CHILD.format(tests=str(Path(__file__).parents[1] / "support"), point=point, skip=skip)
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if point in ("delete",):
        assert done.returncode in (0, 9), done.stderr
    else:
        assert done.returncode == 9, done.stderr
    acked = max(
        map(int, re.findall(r"^acked (\d+)$", done.stdout, re.MULTILINE)), default=0
    )  # the last line may be torn

    opened = OpenJournal(tmp_path / "journal")
    synced = opened.journal.marks.hold("", "a" * 16).synced
    assert synced >= acked
    found = await read(opened.journal.cursor("all"), synced) if synced else []
    assert found == list(range(synced))
    await opened.close()


def test_sigkill_at_random_moments_under_load(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon:
        loads = [Load(daemon, number) for number in range(4)]
        for _ in range(ROUNDS):
            time.sleep(random.uniform(0.05, 0.8))
            daemon.kill()
            daemon.start()
        time.sleep(0.5)
        for load in loads:
            load.join()
        assert all(load.acked for load in loads)
        assert check_exactly_once(daemon, loads) > ROUNDS
        assert daemon.letters() == []
        assert daemon.stop() == -signal.SIGTERM
    assert "Traceback" not in daemon.log()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 24 MiB."""
    directory = tmp_path / "small"
    directory.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(directory)], check=False)
    if mounted.returncode:
        if os.environ.get("CI"):
            pytest.fail("mounting a tmpfs needs root")
        pytest.skip("mounting a tmpfs needs root")
    yield directory
    subprocess.run(["umount", "-l", str(directory)], check=True)


def test_a_full_disk_that_is_freed_again_under_load(small_disk: Path) -> None:
    config = CONFIG.replace("max_bytes: 64MiB", "max_bytes: 0")
    ballast = small_disk / "ballast"
    with Daemon(small_disk, config) as daemon:
        loads = [Load(daemon, number) for number in range(3)]
        until(lambda: all(load.acked > 100 for load in loads), "some load")
        free = shutil.disk_usage(small_disk).free
        try:
            with ballast.open("wb") as file:
                file.write(bytes(free))
        except OSError:
            pass
        until(lambda: "Can't write to the journal" in daemon.log() or "trying again" in daemon.log(), "a full disk")
        held = [load.acked for load in loads]
        time.sleep(2)
        assert daemon.process is not None
        assert daemon.process.poll() is None
        ballast.unlink()
        until(lambda: all(load.acked > before for load, before in zip(loads, held, strict=True)), "acks again")
        for load in loads:
            load.join()
        check_exactly_once(daemon, loads)
        daemon.kill()
        daemon.start()
        check_exactly_once(daemon, loads)
        assert daemon.stop() == -signal.SIGTERM


def test_stopping_leaves_the_rest_to_the_next_start(tmp_path: Path) -> None:
    config = CONFIG.replace('path: "logs/{{service}}.jsonl"', 'path: "gone/logs/{{service}}.jsonl"')
    (tmp_path / "gone").write_text("no directory")
    with Daemon(tmp_path, config) as daemon:
        client = daemon.client()
        client.send(range(1, 101))
        client.until_acked(100)
        until(lambda: "trying again" in daemon.log(), "a backend that can't write")
        assert daemon.stop() == -signal.SIGTERM
        (tmp_path / "gone").unlink()
        daemon.start()
        path = tmp_path / "gone" / "logs" / "test.jsonl"
        until(lambda: path.exists() and path.read_bytes().count(b"\n") == 100, "the rest")
        assert [line["seq"] for line in read_lines(path)] == list(range(1, 101))
