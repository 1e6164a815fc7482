"""A store of the file backend, to be driven without one."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wafermon.backends.filesystem.names import Template
from wafermon.backends.filesystem.store import FileStore
from wafermon.backends.filesystem.tidy import Tidier
from wafermon.contract import JOURNAL, batch, line
from wafermon.files import Files
from wafermon.interfaces import Position
from wafermon.model.messages import loads

START = Position(JOURNAL, 1, 0)
DAY = 86_400
NOON = 1_795_521_600.0
"""2026-11-24 12:00 UTC, in seconds."""


class Place:
    """A store in a directory, with a clock that is set by hand."""

    def __init__(self, directory: Path, path: str = "{service}.jsonl", rotate_bytes: int = 0) -> None:
        self.log = directory / "log"
        self.state = directory / "state"
        self.state.mkdir(exist_ok=True)
        self.now = NOON
        self.names = Template(str(self.log / path))
        self.rotate_bytes = rotate_bytes
        self.at = START
        self.seq = 0
        self.store = self.another()
        self.store.open()

    def another(self, disk: Files | None = None) -> FileStore:
        return FileStore(self.names, self.rotate_bytes, self.state, lambda: self.now, disk)

    def write(self, **fields: Any) -> None:
        self.write_all([fields])

    def write_all(self, fields: Iterable[dict[str, Any]]) -> None:
        lines = [line(self.seq + n, **each) for n, each in enumerate(fields, 1)]
        todo = batch(self.at, lines)
        self.store.write(todo)
        self.at, self.seq = todo.end, self.seq + len(lines)

    def tidy(self, compress: bool = False, keep: float = 0, disk: Files | None = None) -> Tidier:
        tidier = Tidier(self.names, self.store, compress, keep, lambda: self.now, disk)
        tidier.run()
        return tidier

    def files(self) -> dict[str, list[int]]:
        """The seqs in each file."""
        found = {}
        for path in sorted(self.log.rglob("*")):
            if path.is_file():
                content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
                found[str(path.relative_to(self.log))] = [loads(text)["seq"] for text in content.splitlines()]
        return found


def stored(root: Path) -> list[tuple[str, int]]:
    values = [loads(text) for path in sorted(root.rglob("*.jsonl*")) for text in path.read_bytes().splitlines()]
    return [(value["client"], value["seq"]) for value in values]
