"""What a process and its children cost: CPU, memory, bytes written. From /proc, and so for processes of others, too."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def family(pid: int) -> Iterator[int]:
    """The process and all its living descendants."""
    yield pid
    with suppress(FileNotFoundError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from family(int(child))


def cpu_seconds(pid: int) -> float:
    """User and system, of all threads and children, also of those that have ended."""
    total = 0.0
    for one in family(pid):
        with suppress(OSError):
            # The kernel's clock of that process (clock_getcpuclockid(3)): /proc/PID/stat has it in hundredths alone.
            total += time.clock_gettime(~one << 3 | 2)
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[13]) + int(fields[14])) / TICKS  # children that were waited for
    return total


def written_bytes(pid: int) -> int:
    """What it and its children have caused to be written to a disk."""
    total = 0
    for one in family(pid):
        with suppress(OSError):
            rows = Path(f"/proc/{one}/io").read_text().splitlines()
            total += int(next(row for row in rows if row.startswith("write_bytes")).split()[1])
    return total


def resident_mib(pid: int, peak: bool = False) -> float:
    """Of the process alone, now or at most so far."""
    name = "VmHWM:" if peak else "VmRSS:"
    rows = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(row for row in rows if row.startswith(name)).split()[1]) / 1024


def disk_bytes(directory: Path) -> int:
    """What the files take, as du counts."""
    total = 0
    for path in directory.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.lstat().st_blocks * 512
    return total


def until_listening(port: int, check: Callable[[], None] = lambda: None, patience: float = 30.0) -> None:
    """Until a connection is taken; `check` may raise before. TimeoutError after `patience` seconds."""
    deadline = time.monotonic() + patience
    while True:
        check()
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing listens on port {port}")
        time.sleep(0.02)


class Running:
    """A program in a process of its own, in a directory of its own, with its output in `server.log` there."""

    def __init__(self, command: Sequence[str], directory: Path, environ: Mapping[str, str] | None = None) -> None:
        self._program = Path(command[0]).name
        self._log = directory / "server.log"
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=directory,
                env={**os.environ, **(environ or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.pid = self.process.pid

    @property
    def cpu(self) -> float:
        """CPU seconds so far."""
        return cpu_seconds(self.pid)

    @property
    def rss(self) -> float:
        """Resident memory now, MiB."""
        return resident_mib(self.pid)

    @property
    def peak(self) -> float:
        """The most resident memory so far, MiB."""
        return resident_mib(self.pid, peak=True)

    def until_listening(self, port: int) -> None:
        try:
            until_listening(port, self.check)
        except TimeoutError as error:
            raise RuntimeError(f"{error}:\n{self.log()}") from None

    def check(self) -> None:
        if self.process.poll() is not None:
            raise RuntimeError(f"{self._program} ended with {self.process.returncode}:\n{self.log()}")

    def log(self) -> str:
        return self._log.read_text(errors="replace")[-4000:]

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
