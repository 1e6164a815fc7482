"""How fast the filesystem backend stores: messages a second, and what it costs the reactor's thread.

    python benchmarks/filesystem.py [DIRECTORY] [--batches 60] [--messages 5000]

DIRECTORY should be on the disk that is to be measured; each batch is synced.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred

from wafermon.backends.filesystem import FilesystemBackend, filesystem
from wafermon.backends.filesystem.disk import Disk
from wafermon.backends.filesystem.names import Template
from wafermon.contract import JOURNAL, batch, line
from wafermon.interfaces import BackendContext, Batch, Position

CASES = {
    "one file": ("{service}/{date}.jsonl", 1),
    "ten services": ("{service}/{date}.jsonl", 10),
    "100 services": ("{service}/{date}.jsonl", 100),
    "type and hour": ("{service}/{type}-{date}T{hour}.jsonl", 1),
}


class CountingDisk(Disk):
    def __init__(self) -> None:
        self.syncs = 0

    def sync(self, fd: int) -> None:
        self.syncs += 1
        super().sync(fd)


def made(services: int, messages: int, batches: int) -> list[Batch]:
    at, found = Position(JOURNAL, 1, 0), []
    for n in range(batches):
        lines = [
            line(n * messages + i + 1, service=f"service-{i % services}", message="a wafer was measured " * 3)
            for i in range(messages)
        ]
        found.append(batch(at, lines))
        at = found[-1].end
    return found


async def measure(directory: Path, path: str, batches: list[Batch]) -> tuple[float, float, float, float]:
    """Messages a second, fdatasyncs a batch, and microseconds a message: in all threads, and of grouping alone."""
    disk = CountingDisk()
    (directory / "state").mkdir(parents=True)
    context = BackendContext("bench", directory / "state", reactor, reactor.getThreadPool())  # type: ignore[arg-type,attr-defined]
    backend = FilesystemBackend(filesystem.configure({"path": str(directory / "log" / path)}), context, disk)
    await backend.open()
    count = sum(len(each.messages) for each in batches)
    begin, processor = time.perf_counter(), time.process_time()
    for each in batches:
        await backend.write(each)
    seconds, processor = time.perf_counter() - begin, time.process_time() - processor
    await backend.close()
    names = Template(str(directory / path))
    begin = time.perf_counter()
    for each in batches:
        names.group(each)
    grouping = time.perf_counter() - begin
    return count / seconds, disk.syncs / len(batches), processor / count * 1e6, grouping / count * 1e6


async def main(options: Any) -> None:
    print(f"{'':16}{'messages/s':>12}{'fdatasync/batch':>17}{'µs CPU/message':>16}{'µs grouping':>13}")
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        for name, (path, services) in CASES.items():
            batches = made(services, options.messages, options.batches)
            rate, syncs, processor, grouping = await measure(Path(directory) / name, path, batches)
            print(f"{name:16}{rate:12,.0f}{syncs:17.1f}{processor:16.2f}{grouping:13.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("directory", nargs="?", help="where to write; a temporary directory by default")
    parser.add_argument("--batches", type=int, default=60)
    parser.add_argument("--messages", type=int, default=5000)
    arguments = parser.parse_args()

    def run() -> None:
        done = Deferred.fromCoroutine(main(arguments))
        done.addErrback(lambda failure: failure.printTraceback())
        done.addCallback(lambda _: reactor.stop())  # type: ignore[attr-defined]

    reactor.callWhenRunning(run)  # type: ignore[attr-defined]
    reactor.run()  # type: ignore[attr-defined]
