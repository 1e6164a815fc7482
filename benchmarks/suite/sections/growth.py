"""What a message costs where there are many services, routes, traces or backends, or much that waits in the journal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from suite.contestants import Sidecar, files
from suite.figures import PEAK, PER_CPU, RATE, WRITTEN
from suite.measure import measure, serving
from suite.native import Load
from suite.options import Options
from suite.processes import disk_bytes
from suite.section import Case, Column, Figures, Ratio, Section
from suite.stored import Lines

BASE = "one of each"
WAITS = Column("waits", "waiting, MiB")


def section(options: Options) -> Section:
    return Section(
        "growth",
        "What a message costs where there is more of something",
        tuple(cases(options)),
        (RATE, PER_CPU, PEAK, WRITTEN, WAITS),
        ratio=Ratio("per_cpu", "CPU per message, to the base", inverse=True),
    )


def cases(options: Options) -> Iterator[Case]:
    one = replace(options.base, services=1, traces=1)

    def case(group: str, name: str, load: Load = one, sidecar: Sidecar | None = None) -> Case:
        return Case(name, partial(measure, (sidecar or Sidecar()).contestant(), load), group, BASE)

    yield case("", BASE)
    for services in (10, 100, 1_000):
        few = replace(one, services=services, messages=min(one.messages, 200_000))
        yield case("services", f"{services:,} services", few)
    for routes in (100, 10_000):
        yield case("routes", f"{routes:,} routes", sidecar=Sidecar(routes=routes))
    for traces in (1_000, 1_000_000):
        most = min(traces, 2 * options.messages) if options.quick else traces
        name = f"{traces:,} traces" if most == traces else f"{most:,} traces (of {traces:,})"
        yield case("traces", name, replace(one, traces=most, messages=max(one.messages, most)))
    for backends in (2, 10):
        several = {f"files{n}": files(f"{n}/") for n in range(backends)}
        yield case("backends", f"{backends} backends", sidecar=Sidecar(several, copies=backends))
    for share in (0.1, 1.0):
        size = int(options.backlog * share)
        yield Case(f"{size >> 20:,} MiB of journal", partial(with_backlog, size, one), "backlog", BASE)


def with_backlog(size: int, load: Load, directory: Path) -> Figures:
    """What comes while `size` bytes of journal wait for another backend that can't write."""
    away = {"files": files(), "away": '{plugin: filesystem, path: "blocked/{service}.jsonl"}'}
    (directory / "blocked").write_text("a file where that backend needs a folder")
    journal = directory / "journal"
    with serving(
        Sidecar(away, journal=f"{size + (4 << 30)}").contestant(), directory, Lines(directory / "out")
    ) as server:
        server.warm_up(load)
        while (missing := size - disk_bytes(journal)) > 0:
            count = min(missing // load.size + load.connections, 1_000_000)
            server.load(replace(load, messages=count))
        figures = server.figures(load)
        return {**figures, "waits": disk_bytes(journal) / (1 << 20)}
