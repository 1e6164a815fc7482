"""Where messages go from this sidecar, over any number of others. The sidecars that forward to it are told, so that each can find a
circle.

A sidecar tells each one that forwards to it the paths that begin here: the sidecars that it forwards to, each with what that one told
about its own. A sidecar that finds itself on a path would close a circle, and forwards nothing there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from wafermon.model.errors import printable

HOPS, PATHS = 16, 64
"""The longest path, and how many are told; those that are shorter come first. More is not told."""
JOURNAL_LENGTH, HOST_LENGTH = 16, 255


class Stop(NamedTuple):
    """A sidecar on a path."""

    journal: str
    host: str

    def __str__(self) -> str:
        return f"{self.host or 'a sidecar'} (journal {self.journal})"


Path = tuple[Stop, ...]
"""The sidecars that a message comes to, one after the other."""


def read_paths(value: object) -> tuple[Path, ...]:
    """What another sidecar tells; what can't be read of it is left out."""
    paths = value[:PATHS] if isinstance(value, list) else []
    return tuple(path for path in map(_read_path, paths) if path)


def _read_path(value: object) -> Path:
    stops = value[:HOPS] if isinstance(value, list) else []
    if not all(isinstance(one, list) and len(one) == 2 and all(isinstance(part, str) for part in one) for one in stops):
        return ()
    return tuple(Stop(printable(journal[:JOURNAL_LENGTH]), printable(host[:HOST_LENGTH])) for journal, host in stops)


def dump_paths(paths: Sequence[Path]) -> list[list[list[str]]]:
    """The same as `read_paths` reads it."""
    return [[list(stop) for stop in path] for path in paths]


def beyond(stop: Stop, paths: Sequence[Path]) -> tuple[Path, ...]:
    """The paths that begin with this sidecar, which told those. One that comes back to a sidecar is another's circle."""
    longer = [path for path in paths if len(path) < HOPS and stop.journal not in {one.journal for one in path}]
    return ((stop,), *((stop, *path) for path in longer))


def circle(journal: str, paths: Sequence[Path]) -> Path:
    """The shortest path that leads to this journal, up to there; empty where none does."""
    found = [path[: [stop.journal for stop in path].index(journal) + 1] for path in paths if any(stop.journal == journal for stop in path)]  # fmt: skip
    return min(found, key=len, default=())


class Onward:
    """What one sidecar tells, put together of what its backends find out."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[Path, ...]] = {}
        self._told: tuple[Path, ...] = ()
        self._watchers: list[Callable[[], None]] = []

    @property
    def paths(self) -> tuple[Path, ...]:
        """Those of all backends."""
        return self._told

    def found(self, backend: str, paths: Sequence[Path]) -> None:
        """Where that backend's messages go; no paths where that is not known, or where it forwards nothing."""
        if paths:
            self._found[backend] = tuple(paths)
        else:
            self._found.pop(backend, None)
        every = {path: None for one in self._found.values() for path in one}
        told = tuple(sorted(every, key=len)[:PATHS])
        if told != self._told:
            self._told = told
            for watcher in self._watchers:
                watcher()

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call it whenever `paths` are others."""
        self._watchers.append(watcher)
