"""The examples of the guide run as they are, with a sidecar and without one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from conformance import VARIABLES, Language, everything, without_stats
from fake_sidecar import TYPES, FakeSidecar


def run(language: Language, folder: Path, url: str) -> str:
    inherited = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    done = subprocess.run(
        [*language.example, __file__],
        env={**inherited, "WAFERMON_URL": url, "WAFERMON_SPILL_DIR": str(folder)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_example(language: Language, sidecar: FakeSidecar, tmp_path: Path) -> None:
    assert run(language, tmp_path, sidecar.url) == ""
    assert {message["type"] for message in sidecar.messages} == TYPES
    assert {message["trace_id"] for message in sidecar.messages} == {"job-4711"}
    progress = [message for message in sidecar.messages if message["type"] == "progress"]
    assert (progress[-1]["percent"], progress[-1]["status"]) == (100, "done")
    assert list(tmp_path.iterdir()) == []


def test_example_without_a_sidecar(language: Language, tmp_path: Path) -> None:
    """It ends as it would otherwise, and all that it said is on disk."""
    run(language, tmp_path, "tcp://127.0.0.1:1")
    assert {message["type"] for message in without_stats(everything(tmp_path))} == TYPES
