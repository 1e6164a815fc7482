"""The tables of docs/performance.md, which stand between markers and are never typed by hand:

<!-- benchmarks: SECTION -->
…
<!-- benchmarks end -->
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from suite.contestants import ROOT

PAGE = ROOT / "docs" / "performance.md"
PLOTS = ROOT / "docs" / "plots"
MARKED = re.compile(r"(<!-- benchmarks: ([a-z]+) -->\n).*?(<!-- benchmarks end -->)", re.DOTALL)


def rewrite(page: str, sections: Mapping[str, str]) -> str:
    """The page with these sections between their markers. Raises SystemExit for one that has none."""
    marked = {found[2] for found in MARKED.finditer(page)}
    if missing := sections.keys() - marked:
        raise SystemExit(f"{PAGE} has no <!-- benchmarks: {sorted(missing)[0]} --> to put its table after")

    def replaced(found: re.Match[str]) -> str:
        return f"{found[1]}{sections[found[2]].strip()}\n{found[3]}" if found[2] in sections else found[0]

    return MARKED.sub(replaced, page)


def section(table: str, title: str, when: str, how: str, plot: Path | None) -> str:
    """A table with what it is and when it was made."""
    picture = f"\n\n![{title}](plots/{plot.name})" if plot else ""
    made = f"{title}. Measured {when}; {how}, with the least and the greatest."
    return f"{made}\n\n{table}{picture}"


def machine(described: Mapping[str, str], when: str) -> str:
    rows = "\n".join(f"| {name} | {words.replace('|', '/')} |" for name, words in described.items())
    return f"As the last run of {when} found it:\n\n| | |\n|---|---|\n{rows}"
