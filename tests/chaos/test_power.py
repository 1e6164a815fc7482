"""The power goes at any time: what the disk has not synced is forgotten, in part or whole, and new names with it.

`disks.PowerFiles` is the model of what a disk owes, and everything durable is driven through it by the seam of `wafermon.files`.
Of the journal: what was acknowledged has to be there again, once and in order, and of the rest only whole groups. Of a checkpoint:
the last one that was answered for, or a later one. SQLite's files are left as they are: it syncs below Python.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from disks import PowerFiles
from drawn import Drawn
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from journals import NOW, ROUTES, block, numbers

from wafermon.config import Journal as Settings
from wafermon.interfaces import Position
from wafermon.journal.groups import Group, Mark, Stamp
from wafermon.journal.segments import Reader, segments_in
from wafermon.journal.storage import Disk

CLIENT = "9f2c6b1d00e4a873"


class PowerLoss(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="wafermon-power-"))
        self.lives = 0
        self.acked: list[int] = []
        """Messages, in order, without those of deleted segments."""
        self.where: dict[int, list[int]] = {}
        """Segment -> its acknowledged messages."""
        self.next = 1
        self.checkpoint = 0
        self.tried = {0}
        (self.root / "0").mkdir()
        self.files = PowerFiles(self.root / "0")
        self.begin()

    def begin(self) -> None:
        settings = Settings.model_construct(dir=self.files.root, max_bytes=0, segment_bytes=4096, sync="always")
        self.lit = False
        self.disk = Disk(settings, lambda _: None, self.files)
        self.disk.open()
        self.lit = True

    def teardown(self) -> None:
        if self.lit:
            self.disk.close()
        shutil.rmtree(self.root)

    @rule(count=st.integers(1, 12), fails=st.sampled_from(["", "write", "sync", "truncate", "open", "sync_directory"]))
    def write(self, count: int, fails: str) -> None:
        """A group, again until it is there, as the journal does."""
        many = [*range(self.next, self.next + count)]
        self.next += count
        self.files.fails, self.files.about = fails, "" if fails == "sync_directory" else ".segment"
        group = self._put(many)
        while group is None:
            group = self._put(many)
        self.files.fails = ""
        self.acked += many
        self.where.setdefault(group.start.segment, []).extend(many)

    def _put(self, many: list[int]) -> Group | None:
        marks = [Mark("", CLIENT, many[-1])]
        try:
            return self.disk.write([block(range(many[0], many[-1] + 1))], [], marks, Stamp(NOW, NOW), ROUTES)
        except OSError:
            return None

    @rule(count=st.integers(1, 12))
    def a_sync_and_its_cut_fail(self, count: int) -> None:
        """Nothing is known of what the kernel did, and it can't be cut away either."""
        many = [*range(self.next, self.next + count)]
        self.next += count
        self.files.fails, self.files.about = "sync", ".segment"
        truncate = self.files.truncate

        def fails(fd: int, length: int) -> None:
            raise OSError(5, "the disk fails")

        self.files.truncate = fails  # type: ignore[method-assign]
        group = self._put(many)
        while group is None:
            group = self._put(many)
        self.files.truncate = truncate  # type: ignore[method-assign]
        self.files.fails = ""
        self.acked += many
        self.where.setdefault(group.start.segment, []).extend(many)

    @rule(count=st.integers(1, 12), data=st.data())
    def cut_within_a_write(self, count: int, data: st.DataObject) -> None:
        """The power goes before a group was synced: nobody was told that it is there."""
        many = [*range(self.next, self.next + count)]
        self.next += count

        def never(fd: int) -> None:
            raise KeyboardInterrupt

        sync = self.files.sync
        self.files.sync = never  # type: ignore[method-assign]
        with contextlib.suppress(KeyboardInterrupt):
            self._put(many)
        self.files.sync = sync  # type: ignore[method-assign]
        self.cut(data, {*many})

    @rule(data=st.data())
    def cut_between_writes(self, data: st.DataObject) -> None:
        self.cut(data, set())

    @rule()
    def kill(self) -> None:
        """The process goes, the machine stays: what it wrote is there."""
        self.disk.close()
        self.lit = False
        self.begin()
        assert self.found() == self.acked

    @rule()
    def delete(self) -> None:
        """Everybody has read the oldest segment."""
        found = sorted(self.where)
        if len(found) > 1:
            self.disk.delete({found[0]: 1})
            gone = set(self.where.pop(found[0]))
            self.acked = [number for number in self.acked if number not in gone]

    @rule(fails=st.sampled_from(["", "open", "append", "sync", "rename", "sync_directory"]))
    def replace(self, fails: str) -> None:
        """What correlation does for a checkpoint."""
        number = max(self.tried) + 1
        self.tried.add(number)
        self.files.fails, self.files.about = fails, ""
        with contextlib.suppress(OSError):
            self.files.replace(self.files.root / "checkpoint", b"%d" % number * 999)
            self.checkpoint, self.tried = number, {number}
        self.files.fails = ""

    def cut(self, data: st.DataObject, open_ones: set[int]) -> None:
        """The power goes, and comes back."""
        self.lives += 1
        self.disk.close()
        self.lit = False
        self.files = self.files.after_power_cut(self.root / str(self.lives), Drawn(data))
        self.begin()
        found = self.found()
        extra = [number for number in found if number not in set(self.acked)]
        assert [number for number in found if number not in open_ones] == self.acked
        assert set(extra) in (set(), open_ones)
        assert len(found) == len(set(found))
        self.acked += extra  # it is there from now on
        path = self.files.root / "checkpoint"
        text = path.read_bytes() if path.exists() else b"0" * 999
        assert text in {b"%d" % number * 999 for number in self.tried}
        self.checkpoint = int(text[: len(text) // 999])
        self.tried = {self.checkpoint}

    def found(self) -> list[int]:
        """What a reader gets of all segments."""
        read: list[int] = []
        self.where = {}
        reader = Reader(self.files.root, self.disk.state.journal, self.files)
        for segment, length in segments_in(self.files.root).items():
            at = 0
            while at < length:
                groups = reader.read(Position(self.disk.state.journal, segment, at), None, length)
                if not groups:
                    break
                for group in groups:
                    many = numbers(group)
                    read += many
                    self.where.setdefault(segment, []).extend(many)
                at = groups[-1].end.offset
        reader.close()
        return read


TestPowerLoss = PowerLoss.TestCase
TestPowerLoss.settings = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "300")) // 3,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
