"""What the single programs here share with the frame: a sidecar under test, and its load. Talks to 127.0.0.1 only."""

from __future__ import annotations

import sys
from pathlib import Path

from suite.contestants import ROOT
from suite.native import Load
from suite.processes import Running as Process
from suite.processes import until_listening

__all__ = ["Process", "senders", "sidecar"]


def sidecar(cwd: Path, config: str) -> Process:
    """`twistd -n wafermon` with this config."""
    (cwd / "wafermon.yaml").write_text(config)
    twistd = str(Path(sys.executable).with_name("twistd"))
    command = [sys.executable, twistd, "-n", "--pidfile=", "wafermon", "--config", "wafermon.yaml"]
    return Process(command, cwd, {"PYTHONPATH": str(ROOT)})


def senders(port: int, connections: int, count: int, size: int = 256, mixed: bool = False) -> float:
    """So many acknowledged connections with `count` messages each; seconds from the first byte to the last ack of all."""
    until_listening(port)
    load = Load(messages=connections * count, connections=connections, size=size, services=1, traces=1, mixed=mixed)
    return load.send(port)["seconds"]
