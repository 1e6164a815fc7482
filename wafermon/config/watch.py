"""Notices that a file is another one by now: written anew, replaced by a rename, or reached by a symlink that was changed.

It looks at it every half second. That sees whatever an editor, a deployment or Kubernetes does (there `..data`, a link
two directories up, is swapped), on every file system, and misses nothing when many changes come at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from wafermon.model.repeated import Repeated

LOOK_SECONDS = 0.5
PATIENCE = 10
"""Looks after which a file that is written to all the time is read nevertheless."""


class _Look(NamedTuple):
    """What a file is: where its name leads, and its state there."""

    place: tuple[str, int, int] | None
    state: tuple[int, int, int] | None


class Watch:
    """Calls `changed` each time a file has changed. One that is being written in place is let come to rest first."""

    def __init__(self, path: Path, changed: Callable[[], None], reactor: Any) -> None:
        self._path = path
        self._changed = changed
        self._known = self._last = _look_at(path)
        self._restless = 0
        self._call = Repeated(reactor, self.look)

    def start(self) -> None:
        """From now on, and for what happened since this was made."""
        if not self._call.running:
            self._call.start(LOOK_SECONDS, now=False)

    def stop(self) -> None:
        if self._call.running:
            self._call.stop()

    def catch_up(self) -> None:
        """What happened until now has been seen by others."""
        self._known = self._last = _look_at(self._path)

    def look(self) -> None:
        before, self._last = self._last, _look_at(self._path)
        if self._last == self._known:
            return
        swapped = self._last.place != self._known.place
        self._restless = self._restless + 1 if self._last != before else 0
        if swapped or self._last == before or self._restless >= PATIENCE:
            self._known = self._last
            self._restless = 0
            self._changed()


def _look_at(path: Path) -> _Look:
    try:
        found = os.stat(path)
        place = (os.path.realpath(path), found.st_dev, found.st_ino)
    except OSError:
        return _Look(None, None)
    return _Look(place, (found.st_size, found.st_mtime_ns, found.st_ctime_ns))
