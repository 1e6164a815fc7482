"""Results as a table and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from suite.section import Case, Column, Results


def table(results: Results) -> list[list[str]]:
    """Medians by case, the heads first; columns that no case has are left out."""
    section = results.section
    columns = [
        column for column in section.columns if any(results.values(case, column.figure) for case in section.cases)
    ]
    heads = ["", *(column.head for column in columns)]
    if section.ratio:
        heads.append(section.ratio.head)
    return [heads, *(row(results, case, columns) for case in section.cases)]


def row(results: Results, case: Case, columns: list[Column]) -> list[str]:
    cells = [case.name]
    cells += [cell(results.values(case, column.figure), column.format, column.spread) for column in columns]
    if results.section.ratio:
        base = case.base == case.name
        cells.append("1" if base else cell(results.ratios(case), "{:.2f}", True))
    return cells


def cell(values: list[float], form: str, spread: bool) -> str:
    """The median, and the least and the greatest beside it."""
    if not values:
        return ""
    middle = form.format(statistics.median(values))
    if not spread or len(values) == 1:
        return middle
    return f"{middle} ({form.format(min(values))}–{form.format(max(values))})"


def text(rows: list[list[str]]) -> str:
    """For a terminal."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for cells in rows:
        first, *others = (each.ljust(width) if n == 0 else each.rjust(width) for n, (each, width) in
                          enumerate(zip(cells, widths, strict=True)))  # fmt: skip
        lines.append("  ".join([first, *others]).rstrip())
    return "\n".join(lines)


def markdown(rows: list[list[str]]) -> str:
    heads, *others = rows
    rule = ["---", *(["--:"] * (len(heads) - 1))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rule, *others))


def as_json(results: Results) -> dict[str, Any]:
    """All that was measured, round by round, and the medians."""
    return {"title": results.section.title, "cases": list(cases(results))}


def cases(results: Results) -> Iterator[dict[str, Any]]:
    for case in results.section.cases:
        names = list(dict.fromkeys(name for figures in results.rounds[case.name] for name in figures))
        found: dict[str, Any] = {"name": case.name, "group": case.group, "base": case.base}
        found["median"] = {name: statistics.median(results.values(case, name)) for name in names}
        if ratios := results.ratios(case):
            found["ratio"] = {"median": statistics.median(ratios), "rounds": ratios}
        found["rounds"] = results.rounds[case.name]
        yield found
