"""What has really been stored, counted where it lies."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol


class Store(Protocol):
    def count(self) -> int:
        """Messages that are stored now."""


OWN = "wafermon"
"""The service of what a sidecar says itself, which nobody has sent."""


class Lines:
    """Lines in the files of a folder, each named by its service; what was counted once is not read again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[Path, int] = {}
        self._lines = 0

    def count(self) -> int:
        for path in self.folder.rglob("*.jsonl") if self.folder.exists() else ():
            if path.stem == OWN:
                continue
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                while data := file.read(1 << 20):
                    self._lines += data.count(b"\n")
                self._read[path] = file.tell()
        return self._lines


def wait(store: Store, expected: int, alive: Callable[[], None], patience: float = 60.0) -> float:
    """Until exactly `expected` are stored; answers with the time (time.monotonic) at which they were.

    `alive` may raise before. Raises RuntimeError when there are more, or when nothing has come for `patience` seconds: of
    what was lost or stored twice there is no rate.
    """
    last, since = -1, time.monotonic()
    while (count := store.count()) < expected:
        alive()
        if count != last:
            last, since = count, time.monotonic()
        if time.monotonic() - since > patience:
            raise RuntimeError(f"{count:,} of {expected:,} messages are stored, and no more come")
        time.sleep(0.005)
    if count > expected:
        raise RuntimeError(f"{count:,} messages are stored where {expected:,} were sent")
    return time.monotonic()
