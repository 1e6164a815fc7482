"""Results as pictures, SVG: small, and the same bytes for the same figures."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot

from suite.section import Case, Results

BAR, BASE, OTHER = "#2a6f97", "#a9b4bc", "#c8553d"


def draw(results: Results, directory: Path) -> Path | None:
    """The section's picture in this directory; nothing for a section that has none."""
    plot = PLOTS.get(results.section.name)
    if plot is None:
        return None
    matplotlib.rcParams.update({"svg.hashsalt": "wafermon", "font.size": 9, "svg.fonttype": "none"})
    figure, axes = pyplot.subplots(figsize=(7, 1 + 0.28 * len(results.section.cases)))
    plot(results, axes)
    axes.spines[["top", "right"]].set_visible(False)
    path = directory / f"{results.section.name}.svg"
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)
    return path


def bars(values: Callable[[Case], list[float]], results: Results, axes: Any, cases: list[Case]) -> None:
    """A bar for each case, with a line from the least to the greatest."""
    for place, case in enumerate(cases):
        found = values(case)
        middle = statistics.median(found)
        spread = [[middle - min(found)], [max(found) - middle]]
        axes.barh(place, middle, xerr=spread, color=BASE if case.name == case.base else BAR, ecolor="black", height=0.7)
    axes.set_yticks(range(len(cases)), [case.name for case in cases])
    axes.invert_yaxis()


def by_cpu(results: Results, axes: Any) -> None:
    cases = [case for case in results.section.cases if case.name != "C floor"]  # beside it, the others are dots
    bars(lambda case: results.values(case, "per_cpu"), results, axes, cases)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("messages per CPU-second")


def by_cost(results: Results, axes: Any) -> None:
    bars(results.ratios, results, axes, list(results.section.cases))
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("CPU per message, to that of “one of each”")


def curve(results: Results, axes: Any) -> None:
    cases = [case for case in results.section.cases if case.name.endswith("%")]
    shares = [float(case.name.split()[0]) for case in cases]
    for figure, colour in (("p50", BAR), ("p99", OTHER)):
        found = [results.values(case, figure) for case in cases]
        axes.plot(shares, [statistics.median(each) for each in found], "o-", color=colour, label=figure)
        axes.fill_between(shares, [min(each) for each in found], [max(each) for each in found], color=colour, alpha=0.2)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylabel("from send to ack, ms")
    axes.set_xlabel("load offered, % of the capacity")
    axes.legend(frameon=False)


def calls(results: Results, axes: Any) -> None:
    cases = list(results.section.cases)
    for figure, colour, shift in (("call", BAR, -0.2), ("logger", BASE, 0.2)):
        label = "a call of the SDK, p50" if figure == "call" else "the usual logger, p50"
        heights = [statistics.median(results.values(case, figure)) for case in cases]
        places = [place + shift for place in range(len(cases))]
        axes.barh(places, heights, height=0.38, color=colour, label=label)
        for place, height in zip(places, heights, strict=True):
            axes.text(height, place, f" {height:,.2g}" if height < 10 else f" {height:,.0f}", va="center")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_yticks(range(len(cases)), [case.name for case in cases])
    axes.invert_yaxis()
    axes.set_xlabel("µs")
    axes.legend(frameon=False)


PLOTS: dict[str, Callable[[Results, Any], None]] = {
    "peers": by_cpu, "sidecar": by_cpu, "growth": by_cost, "latency": curve, "sdks": calls,
}  # fmt: skip
