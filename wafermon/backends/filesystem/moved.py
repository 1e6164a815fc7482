"""Where a file is that something else renamed: it is looked for by its inode, near the place where it was."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Collection
from contextlib import suppress

from wafermon.files import Files

MOST_NAMES = 20_000
"""So many names are looked at, before the search is given up."""


def find_inodes(files: Files, path: str, root: str, wanted: Collection[int]) -> dict[int, str]:
    """Where the plain files with these inodes are, on the disk of `path`: in its directory, else near `root`.

    Symlinks are not followed, and other file systems are not entered."""
    nearest = _nearest(files, os.path.dirname(path))
    device = files.status_behind(nearest).st_dev
    pending = deque([nearest, root, os.path.dirname(root)])
    seen: set[tuple[int, int]] = set()
    places: dict[int, str] = {}
    left = MOST_NAMES
    while pending and len(places) < len(wanted):
        directory = pending.popleft()
        try:
            there = files.status_behind(directory)
            if there.st_dev != device or (there.st_dev, there.st_ino) in seen:
                continue
            seen.add((there.st_dev, there.st_ino))
            names = sorted(files.names(directory))
        except OSError:
            continue
        for name in names[:left]:
            place = os.path.join(directory, name)
            with suppress(OSError):
                found = files.status_of(place)
                if found.st_dev == device and stat.S_ISDIR(found.st_mode):
                    pending.append(place)
                elif found.st_dev == device and stat.S_ISREG(found.st_mode) and found.st_ino in wanted:
                    places.setdefault(found.st_ino, place)
        left -= min(left, len(names))
    return places


def _nearest(files: Files, directory: str) -> str:
    """The directory, or the first one above that is there."""
    while directory != "/":
        with suppress(OSError):
            if stat.S_ISDIR(files.status_behind(directory).st_mode):
                return directory
        directory = os.path.dirname(directory)
    return directory
