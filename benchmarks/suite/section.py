"""A section is some cases that are measured in turn, round after round, so that a busy machine hits all alike."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

Figures = Mapping[str, float]
"""What one measurement found, by name; figures.py names the usual ones and their units."""


@dataclass(frozen=True)
class Case:
    """Something to measure."""

    name: str
    measure: Callable[[Path], Figures]
    """In an empty directory that is removed afterwards. Raises when something was lost: no figure without its count."""
    group: str = ""
    """Cases of one group vary the same thing."""
    base: str = ""
    """The case that it is compared with."""


@dataclass(frozen=True)
class Column:
    """How a figure is shown."""

    figure: str
    head: str
    format: str = "{:,.0f}"
    spread: bool = False
    """Show the least and the greatest, too."""


@dataclass(frozen=True)
class Ratio:
    """How a case is compared with its base."""

    figure: str
    head: str
    inverse: bool = False
    """The base by the case: what a message costs, where the figure is messages by costs."""


@dataclass(frozen=True)
class Section:
    name: str
    title: str
    cases: tuple[Case, ...]
    columns: tuple[Column, ...]
    ratio: Ratio | None = None


@dataclass
class Results:
    """The figures of each case, one mapping a round."""

    section: Section
    rounds: dict[str, list[Figures]] = field(default_factory=dict)

    def run(self, rounds: int, directory: Path, say: Callable[[str], None]) -> Results:
        for number in range(rounds):
            for case in self.section.cases:
                with tempfile.TemporaryDirectory(dir=directory, prefix=f"{self.section.name}-") as empty:
                    figures = case.measure(Path(empty))
                self.rounds.setdefault(case.name, []).append(figures)
                shown = ", ".join(f"{name} {value:,.4g}" for name, value in figures.items())
                say(f"{self.section.name} {number + 1}/{rounds} {case.name}: {shown}")
        return self

    def values(self, case: Case, figure: str) -> list[float]:
        return [figures[figure] for figures in self.rounds[case.name] if figure in figures]

    def median(self, case: Case, figure: str) -> float | None:
        values = self.values(case, figure)
        return statistics.median(values) if values else None

    def ratios(self, case: Case) -> list[float]:
        """To the base of the case, in each round: what a round suffers, both suffer."""
        ratio = self.section.ratio
        if not case.base or ratio is None:
            return []
        pairs = zip(self.rounds[case.name], self.rounds[case.base], strict=True)
        found = [own[ratio.figure] / base[ratio.figure] for own, base in pairs]
        return [1 / one for one in found] if ratio.inverse else found


def only(section: Section, wanted: Iterable[str]) -> Section:
    """The section with those cases alone whose names contain one of these words, and their bases."""
    words = list(wanted)
    chosen = {case.name for case in section.cases if any(word in case.name for word in words)}
    chosen |= {case.base for case in section.cases if case.name in chosen}
    return replace(section, cases=tuple(case for case in section.cases if case.name in chosen))
