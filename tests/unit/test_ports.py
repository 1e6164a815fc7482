"""Ports that are handed to the servers of tests."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import ports
import pytest


def test_no_number_comes_twice_in_one_process_or_in_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    program = f"import sys; sys.path.insert(0, {str(Path(ports.__file__).parent)!r})\n"
    program += "import ports; print(*(ports.free_port() for _ in range(100)))"
    asked = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env={"TMPDIR": str(tmp_path)})
        for _ in range(3)
    ]
    numbers = [ports.free_port() for _ in range(100)]
    for process in asked:
        numbers += map(int, process.communicate(timeout=60)[0].split())
    assert len(numbers) == len(set(numbers)) == 400
    assert all(ports.FIRST <= number < ports.LAST for number in numbers)


def test_it_goes_on_after_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(ports, "LAST", ports.FIRST + 50)
    assert len({ports.free_port() for _ in range(200)}) > 25
