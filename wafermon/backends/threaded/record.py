"""What a backend has to know after a restart: one small JSON file, replaced as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wafermon.files import Files, NotOurs
from wafermon.model.messages import dumps, loads

_MOST = 1 << 20
"""Bytes that are read of it."""


class Record:
    """The file. All of it blocks, and raises OSError."""

    def __init__(self, path: Path, files: Files) -> None:
        self.path = path
        self._files = files

    def load(self) -> dict[str, Any]:
        """What was saved last; empty where nothing was. What is no record of ours is moved to `NAME.damaged`."""
        try:
            found = loads(self._files.read_whole(self.path, _MOST))
            if isinstance(found, dict):
                return found
        except FileNotFoundError:
            return {}
        except (ValueError, NotOurs):
            pass
        self._files.move(self.path, f"{self.path}.damaged")
        return {}

    def save(self, what: dict[str, Any]) -> None:
        """It lasts once this has returned."""
        self._files.ensure_directory(self.path.parent)
        self._files.replace(self.path, dumps(what).encode() + b"\n")
