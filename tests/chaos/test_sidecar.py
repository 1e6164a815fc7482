"""Each fault of the sidecar and its network, under load, and an exact count behind it."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults import CRASH_POINTS, NETWORK, SIDECAR, kill_at
from scene import Scene

FAULTS = {**SIDECAR, **NETWORK}


@pytest.mark.parametrize("name", FAULTS)
def test_fault(tmp_path: Path, name: str) -> None:
    with Scene(tmp_path, seed=1) as scene:
        FAULTS[name](scene)
        scene.settle()


@pytest.mark.parametrize("point", CRASH_POINTS)
def test_crash_point(tmp_path: Path, point: str) -> None:
    with Scene(tmp_path, seed=2) as scene:
        for number, moment in enumerate(("kill before", "kill midst", "kill after")):
            kill_at(point, moment, at=1 + number)(scene)
            scene.moves()
        scene.settle()
