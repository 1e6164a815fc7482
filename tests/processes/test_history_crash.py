"""History: each line exactly once, however often the process that writes it is killed; and disks that are full."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from daemon import Daemon, Load, until
from history_batches import BATCHES, JOBS, PER_BATCH, batches
from history_places import read_lines, store_of

from wafermon.backends.history.backend import advice
from wafermon.backends.history.days import days_in, open_to_read
from wafermon.backends.history.reading import Reader
from wafermon.contract import JOURNAL, batch, line
from wafermon.interfaces import Position
from wafermon.model.asking import JobFilter, Page

EXPECTED = [seq for n in range(BATCHES) if n % 7 != 3 for seq in range(n * PER_BATCH + 1, (n + 1) * PER_BATCH + 1)]
WORK = """if True:
    import sys
    sys.path[:0] = sys.argv[2:]
    from pathlib import Path
    from history_places import store_of
    from history_batches import batches
    store = store_of(Path(sys.argv[1]), keep=0, wall=lambda: 1_795_500_000)
    reached = store.open()
    print("open", flush=True)
    for one in batches():
        if reached is None or one.end > reached:
            store.write(one)
            print("wrote", one.end, flush=True)
    store.close()
"""


def begin(directory: Path) -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    paths = [root / "tests" / "support", root]
    return subprocess.Popen(
        [sys.executable, "-c", WORK, str(directory), *map(str, paths)], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("seed", range(int(os.environ.get("WAFERMON_HISTORY_SEEDS", "2"))))
def test_killed_at_any_time(tmp_path: Path, seed: int) -> None:
    choose = random.Random(seed)
    kills = 0
    while True:
        process = begin(tmp_path)
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        for _ in range(choose.randrange(12)):
            process.stdout.readline()
        time.sleep(choose.uniform(0, 0.01))  # not a wait: the moment of the kill
        process.send_signal(signal.SIGKILL)
        said = process.stdout.read().splitlines()
        process.stdout.close()
        if process.wait(60) == 0 or (said and said[-1].endswith(str(batches()[-1].end))):
            break
        kills += 1
    assert kills >= 3
    store = store_of(tmp_path, keep=0)
    assert store.open() == batches()[-1].end
    store.close()
    assert sorted(seq for _, seq in read_lines(tmp_path)) == EXPECTED
    assert len(days_in(tmp_path)) == 4
    for day in days_in(tmp_path):
        with closing(open_to_read(tmp_path / str(day))) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    found = Reader(tmp_path).jobs(JobFilter(), Page(100))
    assert found.total == len(found.records) == JOBS
    assert {job["first"] for job in found.records} == {first_progress(number) for number in range(JOBS)}


def first_progress(number: int) -> int:
    return min(
        message.ts or 0
        for one in batches()
        for message in one.messages
        if message.type == "progress" and message.trace_id == f"job-{number}"
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    directory = tmp_path / "small"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(directory)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, timeout=60).returncode:
        pytest.skip("only root can mount a small file system")
    yield directory
    subprocess.run(["umount", str(directory)], check=True, timeout=60)


def test_a_full_disk(small_disk: Path) -> None:
    """What does not fit is refused whole, with advice; once there is room it is stored, once."""
    (small_disk / "ballast").write_bytes(b"x" * 400_000)
    directory = small_disk / "history"
    store = store_of(directory)
    store.open()
    noise = random.Random(1)
    at = Position(JOURNAL, 1, 0)
    written = 0
    while True:
        lines = [line(written + n + 1, message=noise.randbytes(150).hex()) for n in range(100)]
        one = batch(at, lines)
        try:
            store.write(one)
        except Exception as error:  # noqa: BLE001  # whichever: it is looked at
            assert "the disk is full: free space" in advice(error, directory), error
            break
        at, written = one.end, written + 100
    assert written
    assert sorted(seq for _, seq in read_lines(directory)) == list(range(1, written + 1))
    (small_disk / "ballast").unlink()
    store.write(one)
    store.close()
    again = store_of(directory)
    assert again.open() == one.end
    again.close()
    assert sorted(seq for _, seq in read_lines(directory)) == list(range(1, written + 101))


CONFIG = """
listen: ["tcp:{port}:interface=127.0.0.1"{listen}]
http: false
reload: signal
journal: {{dir: journal, segment_bytes: 1MiB, max_bytes: 64MiB, sync: always, spill_dir: spill}}
{limits}
backends:
  history: {{plugin: history, dir: history, batch: {{age: 50ms}}}}
routes: [{{to: [history]}}]
dead_letters: {{dir: dead-letters}}
"""
KILLS = int(os.environ.get("WAFERMON_HISTORY_KILLS", "5"))


def test_the_sidecar_killed_under_load(tmp_path: Path) -> None:
    """What was acknowledged is in history, each number of each client once, and none is left out before the last."""
    choose = random.Random(KILLS)
    with Daemon(tmp_path, CONFIG) as daemon:
        loads = [Load(daemon, number) for number in (1, 2)]
        try:
            for _ in range(KILLS):
                before = [load.acked for load in loads]
                wanted = choose.randrange(200, 2_000)
                until(lambda: all(load.acked > was + wanted for load, was in zip(loads, before, strict=True)), "acks")  # noqa: B023
                daemon.kill()
                daemon.start()
        finally:
            for load in loads:
                load.join()
        acked = {load.name: load.acked for load in loads}
        directory = tmp_path / "history"

        def all_there() -> bool:
            found = [seq for client, seq in read_lines(directory) if client in acked]
            return len(found) >= sum(acked.values())

        until(all_there, "what was acknowledged")
        daemon.stop()
    for name, last in acked.items():
        seqs = sorted(seq for client, seq in read_lines(directory) if client == name)
        assert seqs == list(range(1, len(seqs) + 1)), "each once, without a gap"
        assert len(seqs) >= last
    for day in days_in(directory):
        with closing(open_to_read(directory / str(day))) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
