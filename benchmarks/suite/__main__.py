"""Measures wafermon beside others, and prints what it found.

Everything runs on this machine, over 127.0.0.1, in processes that end with the run. Within a round each case is measured
once, and the rounds take turns, so that a machine that is busy for a while is so for all; the medians count.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from suite import machine, page, report
from suite.options import Options
from suite.section import Results, Section, only
from suite.sections import growth, latency, memory, peers, sdks, sidecar, streams

SECTIONS = {
    "streams": streams.section,
    "peers": peers.section,
    "sidecar": sidecar.section,
    "latency": latency.section,
    "growth": growth.section,
    "memory": memory.section,
    "sdks": sdks.section,
}


def arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks/run", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--only", metavar="NAMES",
        help=f"of {', '.join(SECTIONS)}, with commas; SECTION:WORD for the cases with that word in their names",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, help="how often each case is measured (5; 1 with --quick)")
    parser.add_argument("--messages", type=int, help="of one measurement (400,000; 40,000 with --quick)")
    parser.add_argument("--quick", action="store_true", help="to see that it runs: the figures are worth little")
    parser.add_argument("--backlog", type=float, default=1.0, metavar="GiB", help="the largest journal that waits (1)")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "results",
                        metavar="DIR", help="for results.json and the plots (benchmarks/results)")  # fmt: skip
    parser.add_argument(
        "--work",
        type=Path,
        metavar="DIR",
        help="where the contestants write: on the disk to be measured (DIR of --out)",
    )
    parser.add_argument("--docs", action="store_true", help="put tables and plots into docs/performance.md")
    return parser.parse_args(words)


def chosen(names: str | None, options: Options) -> list[Section]:
    """The sections of `--only`, in the order of the page. Raises SystemExit with what there is."""
    words: dict[str, list[str]] = {name: [] for name in SECTIONS} if names is None else {}
    for part in (names or "").split(",") if names else []:
        name, _, word = part.strip().partition(":")
        if name not in SECTIONS:
            raise SystemExit(f"--only: there is no {name!r}, but {', '.join(SECTIONS)}")
        words.setdefault(name, []).extend([word] if word else [])
    found = []
    for name, make in SECTIONS.items():
        if name in words:
            section = make(options)
            narrowed = only(section, words[name]) if words[name] else section
            if not narrowed.cases:
                cases = ", ".join(case.name for case in section.cases)
                raise SystemExit(
                    f"--only {name}: no case has {' or '.join(words[name])} in its name; there are {cases}"
                )
            found.append(narrowed)
    return found


def main(words: Sequence[str]) -> None:
    asked = arguments(words)
    rounds = asked.rounds or (1 if asked.quick else 5)
    asked.out.mkdir(parents=True, exist_ok=True)
    work = (asked.work or asked.out).resolve()  # contestants run elsewhere
    when = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    pages: dict[str, str] = {}
    found: dict[str, Any] = {}
    with ExitStack() as resources, tempfile.TemporaryDirectory(dir=work) as directory:
        options = Options(
            messages=asked.messages or (40_000 if asked.quick else 400_000),
            seconds=0.5 if asked.quick else 3.0,
            quick=asked.quick,
            backlog=int(min(asked.backlog, 1 / 64 if asked.quick else asked.backlog) * (1 << 30)),
            resources=resources,
        )
        sections = chosen(asked.only, options)
        begun = time.monotonic()
        before = machine.describe(work)
        for section in sections:
            results = Results(section).run(rounds, Path(directory), say)
            found[section.name] = report.as_json(results)
            how = f"medians of {rounds} rounds" + (f" of {options.messages:,} messages" if section.ratio else "")
            pages[section.name] = show(results, asked, when, how)
        described = machine.describe(work) | {"load before": before["load before"]}  # the peers are unpacked by now
        took = time.monotonic() - begun
    kept = {"date": when, "rounds": rounds, "messages": options.messages, "seconds": round(took), "machine": described}
    (asked.out / "results.json").write_text(json.dumps({**kept, "sections": found}, indent=1) + "\n")
    print(f"\n{took:.0f} s; written: {asked.out / 'results.json'}")
    if asked.docs:
        pages["machine"] = page.machine(described, when)
        page.PAGE.write_text(page.rewrite(page.PAGE.read_text(), pages))
        print(f"rewritten: {page.PAGE}")


def show(results: Results, asked: argparse.Namespace, when: str, how: str) -> str:
    """Prints the section's table and draws its plot; answers with what the page says of it."""
    from suite import plots  # takes a second, and a bad option should not

    rows = report.table(results)
    print(f"\n{results.section.title}\n\n{report.text(rows)}\n", flush=True)
    plot = plots.draw(results, asked.out)
    if asked.docs and plot:
        page.PLOTS.mkdir(exist_ok=True)
        plots.draw(results, page.PLOTS)
    return page.section(report.markdown(rows), results.section.title, when, how, plot)


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
