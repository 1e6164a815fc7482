"""The sidecar beside others that do the same job: lines of JSON from TCP, parsed, to a file for each service."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from suite.contestants import Sidecar, floor, naive, rsyslog, syslog_ng
from suite.figures import USUAL
from suite.measure import measure
from suite.options import Options
from suite.section import Case, Ratio, Section


def section(options: Options) -> Section:
    load = options.base
    contestants = {
        "naive Twisted server": naive(),
        "wafermon": Sidecar().contestant(),
        "rsyslog": rsyslog(),
        "syslog-ng": syslog_ng(),
        "C floor": floor(),
    }
    more = replace(load, messages=5 * load.messages)  # or it would be over before the clock has ticked
    return Section(
        "peers",
        "The sidecar and others at the same job",
        tuple(
            Case(
                name,
                partial(measure, contestant, more if name == "C floor" else load),
                base="naive Twisted server",
            )
            for name, contestant in contestants.items()
        ),
        USUAL,
        ratio=Ratio("per_cpu", "to naive"),
    )
