"""The folder that all programs of a machine spill to: what may be taken up there, and what can't be. All of it blocks."""

from __future__ import annotations

import os
import re
import stat
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

NAME = re.compile(
    r"(?P<service>[A-Za-z0-9._:-]{1,128})\.(?P<pid>\d+)\.(?P<client>[0-9a-f]{16})\.ldjson(?P<taken>\.taken)?"
)
UNTOUCHED_SECONDS = 30.0
"""A file without a lock that was written to more recently may have an owner that knows no locks."""
CLOCK_SECONDS = 60.0
"""A file that was written so far in the future was left before the clock was set back."""
FILE_MAX = 16 << 20
"""Bytes: SDKs leave no file that is longer. While they run a file has 1 MiB; what `close` leaves is their window (8 MiB at most) and
their buffer (4 MiB), with the numbers that each line gets."""
LOOKED_AT = 10_000
"""Names at a scan; the next one goes on where this one ended."""


class Found(NamedTuple):
    """A file that seems to be left."""

    path: Path
    owner: int
    """The user's id."""
    touched: float
    """Seconds since the epoch."""


class Stuck(NamedTuple):
    """A file that can't be taken up, and why."""

    path: Path
    owner: int
    problem: str


class ForeignFolder(OSError):
    """Another user has made the folder that is named after ours, to have files taken for those of our programs."""


class Folder:
    """Looked through from beginning to end, a part at each scan."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: Iterator[os.DirEntry[str]] | None = None

    def scan(self, now: float) -> tuple[list[Found], list[Stuck], bool]:
        """The files that seem to be left, owner by owner in turns, oldest first; those that can't be taken; and whether this
        was the last part. `now` is seconds since the epoch. Raises OSError, ForeignFolder."""
        if self._entries is None:
            self._check_owner()
            self._entries = os.scandir(self.path)
        entries = list(islice(self._entries, LOOKED_AT))
        whole = len(entries) < LOOKED_AT
        if whole:
            self.close()
        found: list[Found] = []
        stuck: list[Stuck] = []
        for entry in entries:
            if NAME.fullmatch(entry.name):
                with suppress(FileNotFoundError):
                    self._judge(Path(entry.path), entry.stat(follow_symlinks=False), now, found, stuck)
        return in_turns(found), stuck, whole

    def close(self) -> None:
        """Begin again with the next scan."""
        entries, self._entries = self._entries, None
        if entries is not None:
            entries.close()  # type: ignore[attr-defined]

    def _judge(self, path: Path, status: os.stat_result, now: float, found: list[Found], stuck: list[Stuck]) -> None:
        problem = unfit(status)
        if problem:
            stuck.append(Stuck(path, status.st_uid, problem))
        elif untouched(status, now):
            found.append(Found(path, status.st_uid, status.st_mtime))

    def _check_owner(self) -> None:
        named_after_us = self.path.name == f"wafermon-{os.getuid()}"
        if named_after_us and self.path.lstat().st_uid != os.getuid():
            raise ForeignFolder(
                f"{self.path} belongs to another user: nothing is taken up from there. Remove it, or set journal.spill_dir"
            )


def unfit(status: os.stat_result) -> str:
    """Why this is no spill file of an SDK; empty where it may be one."""
    if not stat.S_ISREG(status.st_mode):
        return "it is not a plain file"
    if status.st_nlink > 1:
        return "it has a second name"
    if status.st_size > FILE_MAX:
        return f"it has {status.st_size} bytes, and no spill file has more than {FILE_MAX}"
    return ""


def untouched(status: os.stat_result, now: float) -> bool:
    """Whether nobody has written to it for long enough."""
    age = now - status.st_mtime
    return age >= UNTOUCHED_SECONDS or age < -CLOCK_SECONDS


def in_turns(found: list[Found]) -> list[Found]:
    """One file of each owner after the other, each owner's oldest first: nobody's many files keep another's waiting."""
    queues: dict[int, list[Found]] = defaultdict(list)
    for one in sorted(found, key=lambda one: one.touched):
        queues[one.owner].append(one)
    turns = [(place, owner) for owner, queue in queues.items() for place in range(len(queue))]
    return [queues[owner][place] for place, owner in sorted(turns)]
