"""SIGKILL at each crash point, before, in the midst of and after its call, and an exact count behind it."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults import CRASH_POINTS, kill_at
from scene import Scene


@pytest.mark.parametrize("point", CRASH_POINTS)
def test_crash_point(tmp_path: Path, point: str) -> None:
    with Scene(tmp_path, seed=2) as scene:
        for number, moment in enumerate(("kill before", "kill midst", "kill after")):
            kill_at(point, moment, at=1 + number)(scene)
            scene.moves()
        scene.settle()
        assert any(not note.endswith(": 0") for note in scene.notes), "the point was never reached"
