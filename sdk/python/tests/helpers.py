"""What tests need besides fixtures."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conformance import without_stats

from monitoring_sdk import MonitoringSDK


def law(sdk: MonitoringSDK) -> dict[str, Any]:
    """The stats, after a check that they add up."""
    stats = sdk.get_stats()
    settled = sum(stats[name] for name in ("acked", "rejected", "dropped", "waiting", "handed_over"))
    assert stats["called"] == settled, stats
    return stats


def until(condition: Callable[[], Any], timeout: float = 10.0) -> Any:
    deadline = time.monotonic() + timeout
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


def run(program: str, *argv: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """A program of its own in a process of its own."""
    command = [sys.executable, "-u", "-W", "error", "-c", textwrap.dedent(program), *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, **options)


def numbers(messages: list[dict[str, Any]]) -> list[int]:
    return [message["context"]["i"] for message in messages if message["type"] == "event"]


def spilled(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "spill"
    return sorted(folder.iterdir()) if folder.exists() else []


def read(path: Path) -> list[dict[str, Any]]:
    """The messages of a spill file, without what the SDK says of itself."""
    return without_stats([json.loads(line) for line in path.read_bytes().splitlines()])
