"""Programs of every language that are killed, stopped, forked and left alone, and an exact count behind it."""

from __future__ import annotations

from pathlib import Path

import pytest
from programs import LANGUAGES, PROGRAMS
from scene import Scene

IN_SHORT = {
    "killed": tuple(LANGUAGES),
    "stopped": ("perl", "c", "java", "go", "node"),
    "forked": ("python", "r"),
    "spawned": ("java", "go", "node"),
    "left": ("python", "perl", "java", "go", "node"),
}
"""What takes seconds is done to some languages, one that has a thread and one that has none; `make chaos` does all to all."""


@pytest.mark.parametrize(("name", "language"), [(name, each) for name in PROGRAMS for each in IN_SHORT[name]])
def test_fault(tmp_path: Path, name: str, language: str) -> None:
    with Scene(tmp_path, seed=4, streams=1) as scene:
        PROGRAMS[name](scene, language)
        scene.settle()
