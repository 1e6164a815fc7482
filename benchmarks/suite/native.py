"""The programs in C: compiled when their source has changed, and the load generator called."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wafermon-benchmarks"
"""Compiled programs and unpacked packages; may be removed at any time."""


def library(name: str) -> str:
    """What NAME.c here is when it is loaded into another program."""
    return program(name, "-shared", "-fPIC", "-ldl")


def program(name: str, *flags: str) -> str:
    """The compiled program of NAME.c here."""
    source, made = HERE / f"{name}.c", CACHE / name
    if not made.exists() or made.stat().st_mtime < source.stat().st_mtime:
        if shutil.which("cc") is None:
            raise SystemExit("no C compiler: apt-get install gcc libc6-dev")
        CACHE.mkdir(parents=True, exist_ok=True)
        new = made.with_suffix(f".{os.getpid()}")
        subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-o", str(new), str(source), *flags], check=True)
        new.replace(made)
    return str(made)


@dataclass(frozen=True)
class Load:
    """What is sent: see load.c. All contestants get the same."""

    messages: int = 400_000
    connections: int = 8
    size: int = 240
    write: int = 0
    rate: int = 0
    services: int = 8
    traces: int = 8
    mixed: bool = False
    script: str = ""
    """A file of lines to send in place of those of a size."""

    def send(self, port: int, *, plain: bool = False, ready: Callable[[], None] = lambda: None) -> dict[str, float]:
        """Send it and wait for the acks; `ready` is called when every connection stands, before the clock starts."""
        options = {**self.__dict__, "port": port, "mixed": int(self.mixed), "plain": int(plain)}
        command = [program("load"), *(word for name, value in options.items() for word in (f"--{name}", str(value)))]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                if process.stdout.readline() == "ready\n":
                    ready()
                    process.stdin.write("go\n")
                    process.stdin.flush()
                report = process.stdout.readline()
            except BaseException:
                process.kill()
                raise
        if process.returncode or not report:
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: its complaint is above")
        return json.loads(report)  # type: ignore[no-any-return]
