"""Resident memory of the sidecar: at its start, under load, with idle connections, with a backend that is away."""

from __future__ import annotations

import json
import resource
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from suite.contestants import Sidecar, files
from suite.measure import serving
from suite.options import Options
from suite.section import Case, Column, Figures, Section

COLUMNS = (
    Column("started", "started, MiB", "{:.0f}"),
    Column("before", "before the load, MiB", "{:.0f}"),
    Column("peak", "peak, MiB", "{:.0f}", spread=True),
)


def section(options: Options) -> Section:
    idle = 500 if options.quick else 5_000
    cases = {
        "load": (0, False),
        f"{idle:,} idle connections": (idle, False),
        "a backend away": (0, True),
        "both": (idle, True),
    }
    return Section(
        "memory",
        "Resident memory of the sidecar",
        tuple(Case(name, partial(measure, options, *case)) for name, case in cases.items()),
        COLUMNS,
    )


def measure(options: Options, idle: int, away: bool, directory: Path) -> Figures:
    backends = {"files": files()}
    if away:
        (directory / "blocked").write_text("a file where that backend needs a folder")
        backends["away"] = '{plugin: filesystem, path: "blocked/{service}.jsonl"}'
    with serving(Sidecar(backends).contestant(), directory) as server:
        started = server.running.rss
        with connections(server.port, idle):
            before = server.running.rss
            server.load(options.base)
        return {"started": started, "before": before, "peak": server.running.peak}


@contextmanager
def connections(port: int, count: int) -> Iterator[None]:
    """So many that say hello and nothing more."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 20_000), most))
    opened = []
    try:
        for _ in range(count):
            opened.append(socket.create_connection(("127.0.0.1", port), timeout=60))
            hello = {"v": 2, "type": "hello", "client": secrets.token_hex(8), "service": "idle", "ack": True}
            opened[-1].sendall(json.dumps(hello).encode() + b"\n")
        for one in opened:
            assert b'"welcome"' in one.recv(4096)
        yield
    finally:
        for one in opened:
            one.close()
