"""Each fault of the database and the network to it, under load, and an exact count behind it, of files and rows."""

from __future__ import annotations

from pathlib import Path

import pytest
from database import DATABASE, DatabaseScene
from postgres import Database


@pytest.mark.parametrize("name", DATABASE)
def test_fault(tmp_path: Path, database: Database, name: str) -> None:
    with DatabaseScene(tmp_path, database, seed=3) as scene:
        DATABASE[name](scene)
        scene.settle()
