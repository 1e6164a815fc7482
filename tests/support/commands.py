"""The `wafermon` command as a shell runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from daemon import ROOT

COMMAND = [sys.executable, "-m", "wafermon"]


def environment(**variables: str) -> dict[str, str]:
    """This process's, without what would tell an SDK something."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("WAFERMON_", "OTEL_", "TRACEP"))}
    return {**own, "PYTHONPATH": str(ROOT), **variables}


def wafermon(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end; `variables` are its environment's."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=120, env=environment(**variables)
    )


def start(*arguments: object, **variables: str) -> subprocess.Popen[str]:
    """Let it run, with its output in pipes."""
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*COMMAND, *map(str, arguments)], env=environment(**variables), **options)
