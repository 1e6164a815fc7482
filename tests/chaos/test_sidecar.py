"""Each fault of the sidecar and its network, under load, and an exact count behind it."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults import NETWORK, SIDECAR
from scene import Scene

FAULTS = {**SIDECAR, **NETWORK}


@pytest.mark.parametrize("name", FAULTS)
def test_fault(tmp_path: Path, name: str) -> None:
    with Scene(tmp_path, seed=1) as scene:
        FAULTS[name](scene)
        scene.settle()
