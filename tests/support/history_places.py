"""Directories of history, to write and to look into."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from wafermon.backends.history.codec import decompress
from wafermon.backends.history.store import Store
from wafermon.model.kinds import Kinds
from wafermon.model.messages import loads


def store_of(
    directory: Path,
    *,
    keep: float = 30 * 86_400,
    max_bytes: int = 0,
    index: Sequence[str] = ("wafer",),
    kinds: Kinds | None = None,
    wall: Callable[[], float] = time.time,
) -> Store:
    return Store(
        directory, keep=keep, max_bytes=max_bytes, index=index, kinds=kinds or Kinds(), compress="auto", wall=wall
    )


def read_lines(directory: Path) -> list[tuple[str, int]]:
    """client and seq (0 without one) of all lines, read as anybody can: by SQLite alone."""
    found = []
    for path in sorted(directory.glob("*.db")):
        with closing(sqlite3.connect(path)) as db:
            for (data,) in db.execute("SELECT data FROM chunks ORDER BY id"):
                lines = [loads(text) for text in decompress(data).split(b"\n")[:-1]]
                found += [(one["client"], one.get("seq", 0)) for one in lines]
    return found
