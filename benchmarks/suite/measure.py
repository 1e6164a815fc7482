"""One measurement: a contestant is started, warmed up, loaded, and counted out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ports import free_port

from suite.contestants import Contestant
from suite.native import Load
from suite.processes import Running, cpu_seconds, disk_bytes, written_bytes
from suite.section import Figures
from suite.stored import Lines, Store, wait

WARM_UP = 4_000


@dataclass
class Server:
    """A contestant that serves."""

    running: Running
    port: int
    contestant: Contestant
    store: Store
    directory: Path
    others: Sequence[int] = ()
    """Processes beside it that work for it, like a database: their CPU and their bytes count, too."""
    sent: int = 0

    def cpu(self) -> float:
        return sum(map(cpu_seconds, (self.running.pid, *self.others)))

    def written(self) -> int:
        return sum(map(written_bytes, (self.running.pid, *self.others)))

    def load(self, load: Load, ready: Callable[[], None] = lambda: None) -> tuple[dict[str, float], float]:
        """Send it and wait until all of it is stored. The generator's report, and seconds from the first byte on."""
        report = load.send(self.port, plain=self.contestant.plain, ready=ready)
        self.sent += load.messages
        stored = wait(self.store, self.sent * self.contestant.copies, self.running.check)
        return report, stored - report["began"]

    def figures(self, load: Load) -> dict[str, float]:
        """See figures.py."""
        before: dict[str, float] = {}

        def ready() -> None:
            before.update(cpu=self.cpu(), own=self.running.cpu, written=self.written())

        report, seconds = self.load(load, ready)
        cpu = self.cpu() - before["cpu"]
        found = {
            "rate": load.messages / seconds,
            "per_cpu": load.messages / cpu,
            "peak": self.running.peak,
            "written": (self.written() - before["written"]) / load.messages,
            "disk": disk_bytes(self.directory) / self.sent,
        }
        if self.others:
            found["own_per_cpu"] = load.messages / (self.running.cpu - before["own"])
        return {**found, **{name: report[name] for name in ("p50", "p99", "most") if name in report}}

    def warm_up(self, load: Load) -> None:
        self.load(replace(load, messages=max(WARM_UP, load.connections), rate=0, traces=min(load.traces, 8)))


@contextmanager
def serving(
    contestant: Contestant, directory: Path, store: Store | None = None, others: Sequence[int] = ()
) -> Iterator[Server]:
    """The contestant, started in this directory; ended with the context."""
    port = free_port()
    running = Running(contestant.command(directory, port), directory, contestant.environ())
    try:
        running.until_listening(port)
        yield Server(running, port, contestant, store or Lines(directory / "out"), directory, others)
    finally:
        running.stop()


def measure(contestant: Contestant, load: Load, directory: Path) -> Figures:
    with serving(contestant, directory) as server:
        server.warm_up(load)
        return server.figures(load)
