"""The sidecar in all its settings: each group of cases varies one thing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from suite.contestants import Contestant, Sidecar, files
from suite.figures import USUAL
from suite.measure import measure, serving
from suite.native import Load
from suite.options import Options
from suite.postgresql import Databases
from suite.section import Case, Column, Figures, Ratio, Section

OWN = Column("own_per_cpu", "per CPU-second, sidecar alone")
BASE = "files"


def section(options: Options) -> Section:
    return Section(
        "sidecar",
        "The sidecar's settings, each beside the first of its group",
        tuple(cases(options)),
        (*USUAL, OWN),
        ratio=Ratio("per_cpu", "to its base"),
    )


def cases(options: Options) -> Iterator[Case]:
    load = options.base
    usual = Sidecar().contestant()

    def case(group: str, name: str, base: str, load: Load = load, contestant: Contestant = usual) -> Case:
        return Case(name, partial(measure, contestant, load), group, base)

    yield case("backends", BASE, BASE)
    databases = Databases(options.resources)
    fewer = replace(load, messages=load.messages // 4)  # a database takes longer over each
    for name, backends in {
        "PostgreSQL": {"db": "{plugin: timescaledb, dsn: %s}"},
        "files and PostgreSQL": {"files": files(), "db": "{plugin: timescaledb, dsn: %s}"},
    }.items():
        yield Case(name, partial(to_database, databases, backends, fewer), "backends", BASE)

    for sync in ("interval", "never"):
        yield case("sync", f"sync: {sync}", BASE, contestant=Sidecar(sync=sync).contestant())

    for connections in (1, 8, 64, 512):
        same = replace(load, connections=connections, services=1, traces=1)
        name = "1 connection" if connections == 1 else f"{connections} connections"
        yield case("connections", name, "1 connection", same)

    yield case("writes", "one message per write", BASE, replace(load, write=1))

    yield case("sizes", "100 bytes", BASE, replace(load, size=100))
    yield case("sizes", "2 KiB", BASE, replace(load, size=2048, messages=load.messages // 4))
    yield case("kinds", "280 bytes", "280 bytes", replace(load, size=280))
    yield case("kinds", "280 bytes, four types in turn", "280 bytes", replace(load, size=280, mixed=True))


def to_database(databases: Databases, backends: dict[str, str], load: Load, directory: Path) -> Figures:
    with databases.new() as database:
        named = {name: options.replace("%s", f'"{database.dsn}"') for name, options in backends.items()}
        contestant = Sidecar(named, copies=len(backends)).contestant()
        with serving(
            contestant, directory, databases.store(database, directory / "out"), databases.processes
        ) as server:
            server.warm_up(load)
            return server.figures(load)
