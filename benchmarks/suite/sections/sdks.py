"""What a call of each SDK costs beside the usual logger of its language: the SDKs' own benchmarks, gathered."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from suite.contestants import ROOT
from suite.options import Options
from suite.section import Case, Column, Figures, Section

SDK = ROOT / "sdk"
COLUMNS = (
    Column("call", "a call, p50, µs", "{:.2f}", spread=True),
    Column("call_p99", "its p99, µs", "{:.1f}"),
    Column("logger", "the logger, p50, µs", "{:.2f}"),
    Column("logger_p99", "its p99, µs", "{:.1f}"),
    Column("share", "call / logger", "{:.2f}"),
    Column("away", "sidecar away, p50, µs", "{:.2f}"),
    Column("away_p99", "its p99, µs", "{:.1f}"),
    Column("hung", "sidecar hung, p50, µs", "{:.2f}"),
    Column("hung_p99", "its p99, µs", "{:.1f}"),
)


@dataclass(frozen=True)
class Bench:
    """A program and the lines to read in what it prints: after each label, the p50 and the p99 in microseconds."""

    command: Sequence[str]
    logger: str
    up: str
    away: str
    hung: str
    needs: Sequence[str] = ()
    """Programs without which it is left out."""
    prepare: Sequence[str] = ()
    """A command that builds it, or fetches the logger."""

    def measure(self, directory: Path) -> Figures:
        if self.prepare:
            subprocess.run(self.prepare, check=True)
        done = subprocess.run(self.command, cwd=directory, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(self.command)}: {done.stderr}")
        figures: dict[str, float] = {}
        for name, label in (("call", self.up), ("logger", self.logger), ("away", self.away), ("hung", self.hung)):
            figures[name], figures[f"{name}_p99"] = read(done.stdout, label)
        return {**figures, "share": figures["call"] / figures["logger"]}


def read(text: str, label: str) -> tuple[float, float]:
    """The first two numbers after the label, with the names of percentiles or without."""
    number = r"\s+(?:p50\s+)?([0-9.]+)(?: us)?\s+(?:p99\s+)?([0-9.]+)"
    found = re.search(rf"^{re.escape(label)}{number}", text, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"no line {label!r} in:\n{text}")
    return float(found[1]), float(found[2])


def benches(quick: bool) -> dict[str, Bench]:
    python = [sys.executable, str(SDK / "python/bench.py"), "0.2" if quick else "1"]
    perl = ["perl", str(SDK / "perl/bench.pl"), "1" if quick else "5"]
    r = ["Rscript", str(SDK / "r/bench.R"), "1000" if quick else "3000"]
    away, hung, up = "log_event, sidecar absent", "log_event, sidecar hung", "log_event, sidecar up"
    seconds = "0.2" if quick else "2"
    java, node = SDK / "java", SDK / "node"
    run_java = f"exec java -cp build/bench.jar:bench:$(cat build/logback.classpath) Bench {seconds}"
    go = str(SDK / "go/build/bench")
    return {
        "Python, logging.FileHandler": Bench(python, "logging.FileHandler", up, "log_event, sidecar down", hung),
        "Perl, Log4perl": Bench(perl, "log4perl", "up", "away", "hung", needs=("perl",)),
        "C, fprintf and fflush": Bench(
            [str(SDK / "c/bench")], "fprintf + fflush", "log_event, up", "log_event, down", "log_event, hung",
            needs=("cc", "make"), prepare=["make", "-s", "-C", str(SDK / "c"), "bench"],
        ),
        "R, jsonlite to a file": Bench(r, "jsonlite::toJSON + writeLines to a file", up, away, hung, needs=("Rscript",)),
        "Java, Logback's async appender": Bench(
            ["sh", "-c", f"cd '{java}' && {run_java}"], "Logback async to a file",
            "logEvent, sidecar up", "logEvent, sidecar absent", "logEvent, sidecar hung",
            needs=("javac", "mvn", "make"), prepare=["make", "-s", "-C", str(java), "bench", "logback"],
        ),
        "Go, slog with JSON to a file": Bench(
            [go, seconds], "slog, JSON to a file",
            "LogEvent, sidecar up", "LogEvent, sidecar absent", "LogEvent, sidecar hung",
            needs=("go",), prepare=["sh", "-c", f"cd '{SDK}/go' && go build -o build/bench ./bench"],
        ),
        "Node.js, pino to a file": Bench(
            ["node", str(node / "bench.js"), seconds], "pino to a file",
            "logEvent, sidecar up", "logEvent, sidecar absent", "logEvent, sidecar hung",
            needs=("node", "npm"),
            prepare=["sh", "-c", f"[ -d '{node}/node_modules/pino' ] || npm --prefix '{node}' install --silent --no-audit --no-fund"],
        ),
    }  # fmt: skip


def section(options: Options) -> Section:
    found = {name: bench for name, bench in benches(options.quick).items() if all(map(shutil.which, bench.needs))}
    return Section(
        "sdks",
        "A call of each SDK and of the usual logger, with a context of four",
        tuple(Case(name, bench.measure) for name, bench in found.items()),
        COLUMNS,
    )
