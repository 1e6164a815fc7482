"""What the journal does to its directory, without the journal: to write groups, and to find out what a start finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from disks import FaultyFiles
from journals import NOW, ROUTES, block, numbers

from wafermon.journal import Group, Mark, Stamp
from wafermon.journal.segments import Reader
from wafermon.journal.storage import Disk
from wafermon.model.position import Position
from wafermon.model.settings import Journal as Settings


def make(directory: Path, files: FaultyFiles | None = None, **settings: Any) -> Disk:
    known = {"max_bytes": 0, "segment_bytes": 1 << 20, "sync": "always", **settings}
    return Disk(Settings.model_construct(dir=directory, **known), lambda _: None, files)


def put(disk: Disk, first: int, last: int) -> Group:
    many = range(first, last + 1)
    return disk.write([block(many)], [], [Mark("", "a" * 16, last)], Stamp(NOW + last, last), ROUTES)


def held(directory: Path) -> list[int]:
    """What a start finds, in order."""
    disk = make(directory)
    lengths = disk.open().lengths
    found: list[int] = []
    for segment, length in lengths.items():
        reader = Reader(directory, disk.state.journal)
        at = 0
        while at < length:
            groups = reader.read(Position(disk.state.journal, segment, at), None, length)
            found += [number for group in groups for number in numbers(group)]
            at = groups[-1].end.offset
        reader.close()
    disk.close()
    return found
