"""The driver program that each SDK ships; sdk/conformance/README.md has the table of its calls."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from commands import environment
from daemon import PATIENCE, ROOT

SDK = ROOT / "sdk"
SCRIPTS = {
    "python": [sys.executable, str(SDK / "python" / "driver.py")],
    "perl": ["perl", str(SDK / "perl" / "driver.pl")],
    "r": ["Rscript", str(SDK / "r" / "driver.R")],
    "java": ["java", "-jar", str(SDK / "java" / "build" / "driver.jar")],
    "node": ["node", str(SDK / "node" / "driver.js")],
}
BUILT = {  # folder, what builds the driver there, and where that is; asan has UndefinedBehaviorSanitizer too
    "c": ("c", ["make", "-s", "driver"], "driver"),
    "c-tls": ("c", ["make", "-s", "TLS=1", "driver-tls"], "driver-tls"),
    "c-tls-asan": ("c", ["make", "-s", "TLS=1", "build/driver-asan-tls"], "build/driver-asan-tls"),
    "c-tls-tsan": ("c", ["make", "-s", "TLS=1", "build/driver-tsan-tls"], "build/driver-tsan-tls"),
    "java": ("java", ["make", "-s", "driver"], "build/driver.jar"),
    "go": ("go", ["go", "build", "-o", "build/", "./driver"], "build/driver"),
}


def command_of(language: str) -> list[str]:
    """The command, or a skip where the language's tools are missing (a failure in CI)."""
    missing, command = "", SCRIPTS.get(language, [])
    if language in BUILT:
        folder, making, driver = BUILT[language]
        command = command or [str(SDK / folder / driver)]
        if not shutil.which(making[0]):
            missing = f"no {making[0]}"
        else:
            with (SDK / folder / "README.md").open() as readme:
                fcntl.flock(readme, fcntl.LOCK_EX)  # other tests may want the same one at the same time
                done = subprocess.run(making, cwd=SDK / folder, capture_output=True, text=True, check=False)
            missing = done.stderr if done.returncode else ""
    if not missing and not shutil.which(command[0]):
        missing = f"no {command[0]}"
    if missing:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    return command


class Driver:
    """One driver that is talked to call by call; a context manager, which lets it end by itself and looks at how it ended."""

    def __init__(self, language: str, directory: Path, **variables: str) -> None:
        self.spill = directory / "of-the-sdk"
        self.spill.mkdir(exist_ok=True)
        self._errors = directory / "driver.log"
        (directory / "leaks").write_text("leak:^get$\n")  # what sdk/c/driver.c keeps of each request until it ends
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                command_of(language),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment(
                    WAFERMON_SPILL_DIR=str(self.spill),
                    LSAN_OPTIONS=f"suppressions={directory}/leaks:print_suppressions=0",
                    TSAN_OPTIONS="die_after_fork=0:halt_on_error=1",
                    **variables,
                ),
            )

    def __call__(self, call: str, **args: Any) -> Any:
        """The call's result."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"call": call, "args": args}).encode() + b"\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"{call}: the driver is gone: {self.said()}"
        answer = json.loads(line)
        assert answer["ok"], answer
        return answer.get("result")

    def stats(self) -> dict[str, Any]:
        found = self("get_stats")
        assert isinstance(found, dict)
        return found

    def said(self) -> list[str]:
        """The lines on stderr, but for those by which a forked child's sanitizer speaks of its parent's threads."""
        lines = self._errors.read_text().splitlines()
        return [line for line in lines if "was not suspended. False leaks" not in line]

    def __enter__(self) -> Driver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.communicate(timeout=PATIENCE)  # the end of stdin ends it
        assert error is not None or self.process.returncode == 0, self.said()
