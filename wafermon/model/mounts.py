"""Which parts of the file system a process may write to, as the kernel lists its mounts. A service manager's sandbox shows there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import NamedTuple

_ESCAPED = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """One mount."""

    path: str
    read_only: bool
    kind: str = ""
    """Of file system, such as ``ext4``."""


def parse_mounts(text: str) -> list[Mount]:
    """Those of a ``/proc/PID/mountinfo``, the last one of each path; lines that are none are left out."""
    found: dict[str, Mount] = {}
    for line in text.splitlines():
        fields = line.split(" ")
        if len(fields) < 6:
            continue
        path = _ESCAPED.sub(lambda match: chr(int(match[1], 8)), fields[4])
        options = {*fields[5].split(","), *fields[-1].split(",")}
        kind = fields[fields.index("-", 6) + 1] if "-" in fields[6:-1] else ""
        found[path] = Mount(path, "ro" in options, kind)
    return list(found.values())


def mount_of(path: str, mounts: Iterable[Mount]) -> Mount | None:
    """The mount that an absolute path is on."""
    above = [mount for mount in mounts if is_within(path, mount.path)]
    return max(above, key=lambda mount: len(mount.path), default=None)


def is_within(path: str, directory: str) -> bool:
    """Whether an absolute path is a directory or below it."""
    return path == directory or path.startswith(directory.rstrip(os.sep) + os.sep)
