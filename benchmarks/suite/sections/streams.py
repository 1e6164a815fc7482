"""The sidecar beside the naive server, for each of the streams that programs send."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from suite.contestants import Contestant, Sidecar, collector, naive, rsyslog, syslog_ng
from suite.figures import PEAK, PER_CPU, RATE
from suite.measure import measure
from suite.native import Load, library
from suite.options import Options
from suite.scripts import STREAMS, write
from suite.section import Case, Figures, Ratio, Section

BESIDE_PEERS = ("mix", "mix without ts, host, pid", "mix, an unknown field in each")


def section(options: Options) -> Section:
    there = {"rsyslog": rsyslog(), "syslog-ng": syslog_ng(), "OpenTelemetry Collector": collector()}
    peers = {name: one for name, one in there.items() if one is not None}
    missing = "".join(
        f" ({name} is missing: docs/performance.md says how it is had)" for name in there.keys() - peers.keys()
    )
    return Section(
        "streams",
        f"The sidecar beside the naive server, by what is sent{missing}",
        tuple(cases(options, peers)),
        (RATE, PER_CPU, PEAK),
        ratio=Ratio("per_cpu", "to naive"),
    )


def cases(options: Options, peers: Mapping[str, Contestant]) -> Iterator[Case]:
    sidecar = Sidecar().contestant()
    pure = replace(sidecar, environ=lambda: {**sidecar.environ(), "WAFERMON_PURE": "1"})
    for stream in STREAMS:
        load = replace(options.base, messages=options.messages // 2)
        base = f"{stream}: naive"
        for name, contestant in ((base, naive()), (stream, sidecar), (f"{stream}: without the scanner", pure)):
            yield Case(name, partial(with_script, contestant, load, stream), stream, base)
        for name, contestant in peers.items() if stream in BESIDE_PEERS else ():
            yield Case(f"{stream}: {name}", partial(with_script, contestant, load, stream), stream, base)
        if stream == "mix":
            slow = replace(sidecar, environ=lambda: {**sidecar.environ(), "LD_PRELOAD": library("slow")})
            yield Case(f"{stream}: syncs of 7 ms", partial(with_script, slow, load, stream), stream, base)


def with_script(contestant: Contestant, load: Load, stream: str, directory: Path) -> Figures:
    """Each connection sends the script once."""
    script = write(stream, load.messages // load.connections + 1, directory / "script")
    return measure(contestant, replace(load, script=script), directory)
