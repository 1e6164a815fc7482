"""From when a message was due to be sent until its ack, against the load that is offered."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from suite.contestants import Sidecar
from suite.measure import serving
from suite.options import Options
from suite.section import Case, Column, Figures, Section

SHARES = (10, 25, 50, 75, 90, 95)
COLUMNS = (
    Column("offered", "offered, messages/s"),
    Column("p50", "p50, ms", "{:.2f}"),
    Column("p99", "p99, ms", "{:.2f}", spread=True),
    Column("most", "most, ms", "{:.1f}"),
)


@dataclass
class Curve:
    """Finds the capacity anew in each round, and then offers shares of it: the machine may have changed."""

    options: Options
    capacity: float = field(default=0.0)

    def find_capacity(self, directory: Path) -> Figures:
        with serving(Sidecar().contestant(), directory) as server:
            server.warm_up(self.options.base)
            report, _ = server.load(self.options.base)
        self.capacity = self.options.messages / report["seconds"]
        return {"offered": self.capacity}

    def offer(self, percent: int, directory: Path) -> Figures:
        rate = int(self.capacity * percent / 100)
        load = replace(self.options.base, rate=rate, messages=int(rate * self.options.seconds))
        with serving(Sidecar().contestant(), directory) as server:
            server.warm_up(load)
            report, _ = server.load(load)
        return {"offered": rate, **{name: report[name] for name in ("p50", "p99", "most")}}


def section(options: Options) -> Section:
    curve = Curve(options)
    return Section(
        "latency",
        "From send to ack, `sync: always`, by the load offered",
        (
            Case("capacity", curve.find_capacity),
            *(Case(f"{percent} %", partial(curve.offer, percent), base="capacity") for percent in SHARES),
        ),
        COLUMNS,
    )
