"""The power goes at any time: what the disk has not synced is forgotten, in part or whole, and new files with it.

A model of what a disk owes: a file's bytes up to its last sync, and the names of a directory that was synced. Whatever lies
beyond comes back as it was written, shorter, as zeros, or not at all, as chance will have it. The journal's own disk room is
driven through it: what was acknowledged has to be there again, once and in order, and of the rest only whole groups. SQLite's
files are left as they are: it syncs below Python.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from unittest.mock import patch

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from journals import NOW, ROUTES, block, numbers

from wafermon.config import Journal as Settings
from wafermon.interfaces import Position
from wafermon.journal.groups import Mark
from wafermon.journal.segments import Reader, segments_in
from wafermon.journal.storage import Disk

CLIENT = "9f2c6b1d00e4a873"
SECTOR = 512


class Memory:
    """What is durable of the files below a directory, learnt from the calls that make it so."""

    def __init__(self) -> None:
        self.synced: dict[str, int] = {}
        """Path -> how many of its bytes."""
        self.named: set[str] = set()
        """Paths whose directory was synced since they were made."""
        self.fails = False
        """Whether the next sync of a segment fails, and forgets what it should have covered."""
        self._ftruncate, self._truncate = os.ftruncate, os.truncate

    def fdatasync(self, fd: int) -> None:
        path = os.readlink(f"/proc/self/fd/{fd}")
        if self.fails and path.endswith(".segment"):
            self.fails = False
            raise OSError(5, "the disk fails")
        self.synced[path] = os.fstat(fd).st_size

    def fsync(self, fd: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{fd}"))
        if path.is_dir():
            self.named |= {str(entry) for entry in path.iterdir()}
        else:
            self.synced[str(path)] = os.fstat(fd).st_size

    def ftruncate(self, fd: int, length: int) -> None:
        path = os.readlink(f"/proc/self/fd/{fd}")
        self._ftruncate(fd, length)
        self.synced[path] = min(self.synced.get(path, 0), length)

    def truncate(self, path: Path, length: int) -> None:
        self._truncate(path, length)
        self.synced[str(path)] = min(self.synced.get(str(path), 0), length)


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
        self.memory = Memory()
        self.patches = [
            patch.object(os, name, getattr(self.memory, name))
            for name in ("fdatasync", "fsync", "ftruncate", "truncate")
        ]
        for one in self.patches:
            one.start()
        self.begin(self.root / "0")

    def begin(self, directory: Path) -> None:
        self.directory = directory
        settings = Settings.model_construct(dir=directory, max_bytes=0, segment_bytes=4096, sync="always")
        self.lit = False
        self.disk = Disk(settings, lambda _: None)
        self.disk.open()
        self.lit = True

    def teardown(self) -> None:
        for one in self.patches:
            one.stop()
        if self.lit:
            self.disk.close()
        shutil.rmtree(self.root)

    @rule(count=st.integers(1, 12), fails=st.booleans())
    def write(self, count: int, fails: bool) -> None:
        """A group, again until it is there, as the journal does."""
        many = [*range(self.next, self.next + count)]
        self.next += count
        self.memory.fails = fails
        while True:
            try:
                group = self.disk.write(
                    [block(range(many[0], many[-1] + 1))], [], [Mark("", CLIENT, many[-1])], NOW, ROUTES
                )
                break
            except OSError:
                assert fails
        self.memory.fails = False
        self.acked += many
        self.where.setdefault(group.start.segment, []).extend(many)

    @rule(count=st.integers(1, 12), data=st.data())
    def cut_within_a_write(self, count: int, data: st.DataObject) -> None:
        """The power goes before a group was synced: nobody was told that it is there."""
        many = range(self.next, self.next + count)
        self.next += count

        def never(fd: int) -> None:
            raise KeyboardInterrupt

        with patch.object(os, "fdatasync", never), contextlib.suppress(KeyboardInterrupt):
            self.disk.write([block(many)], [], [Mark("", CLIENT, many[-1])], NOW, ROUTES)
        self.cut(data, {*many})

    @rule(data=st.data())
    def cut_between_writes(self, data: st.DataObject) -> None:
        self.cut(data, set())

    @rule()
    def delete(self) -> None:
        """Everybody has read the oldest segment."""
        found = sorted(self.where)
        if len(found) > 1:
            self.disk.delete([found[0]])
            gone = set(self.where.pop(found[0]))
            self.acked = [number for number in self.acked if number not in gone]

    def cut(self, data: st.DataObject, open_ones: set[int]) -> None:
        """The power goes, and comes back."""
        self.lives += 1
        after = self.root / str(self.lives)
        self.disk.close()
        self.lit = False
        shutil.copytree(self.directory, after)
        for path in sorted(self.directory.glob("*.segment")):
            copy, content = after / path.name, path.read_bytes()
            durable = self.memory.synced.get(str(path), 0)
            if str(path) not in self.memory.named and data.draw(st.booleans(), "the name is forgotten"):
                copy.unlink()
                continue
            part = data.draw(st.floats(0, 1), "how much stays of what was not synced")
            kept = durable + int(part * (len(content) - durable))
            kept = kept if data.draw(st.booleans(), "within a sector") else max(durable, kept // SECTOR * SECTOR)
            zeros = (len(content) - kept) * data.draw(st.booleans(), "zeros behind it")
            copy.write_bytes(content[:kept] + bytes(zeros))
            self.memory.synced[str(copy)] = kept + zeros
            self.memory.named.add(str(copy))
        self.begin(after)
        found = self.found()
        extra = [number for number in found if number not in set(self.acked)]
        assert [number for number in found if number not in open_ones] == self.acked
        assert set(extra) in (set(), open_ones)
        assert len(found) == len(set(found))
        for number in extra:  # it is there from now on
            self.acked.append(number)

    def found(self) -> list[int]:
        """What a reader gets of all segments."""
        read: list[int] = []
        self.where = {}
        reader = Reader(self.directory, self.disk.state.journal)
        for segment, length in segments_in(self.directory).items():
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
