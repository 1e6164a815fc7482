"""The power goes while the file backend writes: each line is in its files once, and what was answered for is there.

The disk is `disks.PowerFiles`, through the seam of `wafermon.files`: bytes that were not synced come back in part or as zeros, names
that were not synced come and go, and a file whose sync failed keeps nothing that is written to it later.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import tempfile
from pathlib import Path

from disks import PowerFiles
from drawn import Drawn
from file_places import NOON
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from wafermon.backends.filesystem.names import Template
from wafermon.backends.filesystem.store import FileStore
from wafermon.backends.filesystem.tidy import Tidier
from wafermon.contract import JOURNAL, batch, line
from wafermon.interfaces import Batch, Position
from wafermon.model.messages import loads

CALLS = ["", "open", "append", "sync", "truncate", "rename", "sync_directory"]


class PowerLossOfFiles(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="wafermon-power-"))
        self.disk = self.root / "disk"
        (self.disk / "state").mkdir(parents=True)
        self.files = PowerFiles(self.disk)
        self.batches: list[Batch] = []
        """All that was ever given, in order."""
        self.answered: Position | None = None
        self.seq = 0
        self.begin()

    def begin(self) -> None:
        """A start, and what the journal has that is not stored: all of it at a time."""
        names = Template(str(self.disk / "log" / "{service}.jsonl"))
        self.store = FileStore(names, 1500, self.disk / "state", lambda: NOON, self.files)
        self.tidier = Tidier(names, self.store, True, 0, lambda: NOON, self.files)
        reached = self.store.open()
        assert reached in (None, *(one.end for one in self.batches))
        assert self.answered is None or (reached is not None and reached >= self.answered), (
            "what was answered for is gone"
        )
        if missing := [one for one in self.batches if reached is None or one.end > reached]:
            self.store.write(*missing)
        self.answered = self.batches[-1].end if self.batches else None
        self.check()

    def stop(self) -> None:
        """The process is gone: nothing is written any more."""
        self.files.fails = ""
        self.store._close_files()
        self.store._checkpoint.close()
        for fd in list(self.files._open):
            self.files.close(fd)

    def teardown(self) -> None:
        self.stop()
        shutil.rmtree(self.root)

    def next_batch(self, count: int, services: int) -> Batch:
        at = self.batches[-1].end if self.batches else Position(JOURNAL, 1, 0)
        lines = [line(self.seq + n, service=f"s{n % services}", message="x" * 80) for n in range(1, count + 1)]
        self.seq += count
        self.batches.append(batch(at, lines))
        return self.batches[-1]

    @rule(count=st.integers(1, 8), services=st.integers(1, 3), fails=st.sampled_from(CALLS), of_state=st.booleans())
    def write(self, count: int, services: int, fails: str, of_state: bool) -> None:
        """A batch, again until it is there, as the delivery does."""
        one = self.next_batch(count, services)
        self.files.fails = fails
        self.files.about = "state" if fails == "sync_directory" and of_state else "" if of_state else ".jsonl"
        for _ in range(4):
            with contextlib.suppress(OSError):
                self.store.write(one)
                break
        else:
            raise AssertionError("not stored though nothing fails any more")
        self.files.fails = ""
        self.answered = one.end
        self.check()

    @rule(
        counts=st.lists(st.integers(0, 8), min_size=2, max_size=4),
        services=st.integers(1, 3),
        fails=st.sampled_from(CALLS),
    )
    def write_several(self, counts: list[int], services: int, fails: str) -> None:
        """Several batches at a time; where that fails one after the other, as the delivery does."""
        several = [self.next_batch(count, services) for count in counts]
        self.files.fails, self.files.about = fails, ".jsonl"
        try:
            self.store.write(*several)
        except OSError:
            for one in several:
                for _ in range(4):
                    with contextlib.suppress(OSError):
                        self.store.write(one)
                        break
                else:
                    raise AssertionError("not stored though nothing fails any more") from None
        self.files.fails = ""
        self.answered = several[-1].end
        self.check()

    @rule(fails=st.sampled_from(CALLS))
    def tidy(self, fails: str) -> None:
        self.files.fails, self.files.about = fails, ""
        self.tidier.run()
        self.files.fails = ""
        self.check()

    @rule(
        count=st.integers(1, 8),
        services=st.integers(1, 3),
        batches=st.integers(1, 3),
        syncs=st.integers(0, 6),
        data=st.data(),
    )
    def cut_within_a_write(self, count: int, services: int, batches: int, syncs: int, data: st.DataObject) -> None:
        """The power goes at one of its syncs."""
        several = [self.next_batch(count, services) for _ in range(batches)]
        sync, left = self.files.sync, syncs

        def until(fd: int) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            sync(fd)

        def never(fd: int, length: int) -> None:
            raise KeyboardInterrupt

        self.files.sync, self.files.truncate = until, never  # type: ignore[method-assign]
        with contextlib.suppress(KeyboardInterrupt):
            self.store.write(*several)
            self.answered = several[-1].end
        self.cut(data)

    @rule(data=st.data())
    def cut(self, data: st.DataObject) -> None:
        self.stop()
        before = self.root / "before"
        files = self.files.after_power_cut(self.root / "after", Drawn(data))
        self.disk.rename(before)
        shutil.rmtree(before)
        files.move_to(self.disk)
        self.files = files
        self.begin()

    @precondition(lambda self: not self.files._broken)
    @rule()
    def kill(self) -> None:
        """The process goes, the machine stays. (Which file's sync failed is known to a running process alone.)"""
        self.stop()
        self.begin()

    def check(self) -> None:
        found: list[int] = []
        for path in (self.disk / "log").rglob("*.jsonl*"):
            if path.suffix == ".tmp" or (path.suffix == ".gz" and path.with_suffix("").exists()):
                continue  # the plain one counts
            content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            found += [loads(text)["seq"] for text in content.splitlines()]
        assert sorted(found) == list(range(1, self.seq + 1))


TestPowerLossOfFiles = PowerLossOfFiles.TestCase
TestPowerLossOfFiles.settings = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "300")) // 3,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
