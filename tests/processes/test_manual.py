"""The page of all config keys is written by a command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from wafermon.alerts.channels import find_channels
from wafermon.backends import find_plugins
from wafermon.config.document import document


def test_the_manual_writes_itself() -> None:
    command = [sys.executable, "-W", "error", "-m", "wafermon.config.document"]
    root = Path(__file__).parents[2]
    output = subprocess.run(command, cwd=root, capture_output=True, check=True, timeout=120, text=True)
    assert output.stdout == document(find_plugins().factories, find_channels())
