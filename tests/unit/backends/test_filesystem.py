"""The filesystem backend: the contract, names, rotation, compression, deletion, and what others do to its files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from file_places import stored

from wafermon.backends.filesystem import filesystem
from wafermon.contract import BackendContract, line


class TestContract(BackendContract):
    factory = filesystem

    def options(self) -> dict[str, Any]:
        return {"path": str(self.directory / "log" / "{service}" / "{date}.jsonl")}

    def read_back(self) -> Iterable[tuple[str, int]]:
        return stored(self.directory / "log")

    @contextmanager
    def unreachable(self) -> Iterator[None]:
        """Root may write anywhere, but nobody can make a directory where a file is."""
        log, aside = self.directory / "log", self.directory / "aside"
        log.mkdir(exist_ok=True)
        log.rename(aside)
        log.write_text("in the way")
        try:
            yield
        finally:
            log.unlink()
            aside.rename(log)


class TestContractWithManyLevels(TestContract):
    """Twenty levels of host names: a long one makes a path longer than the system takes."""

    places = 60
    """Each is twenty directories."""

    def options(self) -> dict[str, Any]:
        return {"path": str(self.directory / "log" / "/".join(["{host}"] * 20) / "{type}.jsonl"), "rotate_bytes": 1000}

    def poison(self, seq: int) -> bytes:
        return line(seq, host="x" * 300)
