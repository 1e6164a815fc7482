"""A server of the tests' own whose program a script builds once: where it is, and how it is killed, frozen and brought back."""

from __future__ import annotations

import os
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from daemon import ROOT, until


def program(script: str) -> Path:
    """What `tests/SCRIPT` builds. Without it the test is skipped; in CI it fails."""
    said = subprocess.run([ROOT / "tests" / script, "path"], capture_output=True, text=True, check=True)
    path = Path(said.stdout.strip())
    if not path.exists():
        problem = f"{path.name} is missing: tests/{script} builds it"
        pytest.fail(problem) if os.environ.get("CI") else pytest.skip(problem)
    return path


class BuiltServer(ABC):
    """One process. `start` it; `kill` ends it."""

    process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def start(self) -> None:
        """Returns when it answers."""

    def kill(self) -> None:
        if self.process is not None:
            process, self.process = self.process, None
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait(60)

    def restart(self) -> None:
        self.kill()
        self.start()

    @contextmanager
    def down(self) -> Iterator[None]:
        self.kill()
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It stands still: it takes connections and never answers; what it got meanwhile it does afterwards."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        until(self._stands_still, "a server that stands still")
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def _stands_still(self) -> bool:
        """A thread that is in the kernel goes on until it leaves that."""
        assert self.process is not None
        stats = Path(f"/proc/{self.process.pid}/task").glob("*/stat")
        return all(stat.read_text().rpartition(")")[2].split()[0] == "T" for stat in stats)
