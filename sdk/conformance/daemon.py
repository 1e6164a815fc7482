"""The real sidecar as a process: `twistd -n wafermon`, its messages in one file of JSON lines.

WAFERMON_SIDECAR_TREE names another tree whose sidecar it is, such as that of an older release.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ports import free_port

from fake_sidecar import Message

ROOT = Path(__file__).resolve().parent.parent.parent
NEEDS = ("twisted", "zope.interface", "msgspec", "ujson", "yaml")
CONFIG = """
listen: [{listen}]
http: false
journal: {{dir: journal, spill_dir: {spill}, max_bytes: 256MiB, segment_bytes: 4MiB}}
dead_letters: {{dir: dead-letters}}
backends:
  files: {{plugin: filesystem, path: {store}, batch: {{age: 10ms}}}}
routes:
  - {{match: {{service: wafermon}}, to: []}}   # what the sidecar derives is not what is tested here
  - {{to: [files]}}
"""


def missing() -> str | None:
    """Why the daemon can't run here, or None."""
    absent = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else None


class Daemon:
    """Runs from `start()` to `stop()` or `kill()`, on the same port every time."""

    def __init__(self, folder: Path, spill: Path) -> None:
        self.port = free_port()
        self.url = f"tcp://127.0.0.1:{self.port}"
        self.store = folder / "stored.jsonl"
        self.spill = spill
        self._folder = folder
        self._log = folder / "daemon.log"
        config = CONFIG.format(listen=f"tcp:{self.port}:interface=127.0.0.1", spill=spill, store=self.store)
        (folder / "wafermon.yaml").write_text(config)

    def start(self) -> Daemon:
        twistd = "from twisted.scripts.twistd import run; run()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", twistd, "-n", "--pidfile=", "wafermon", "--config", "wafermon.yaml"],
            cwd=self._folder,
            env={**os.environ, "PYTHONPATH": os.environ.get("WAFERMON_SIDECAR_TREE", str(ROOT))},
            stdout=self._log.open("ab"),
            stderr=subprocess.STDOUT,
        )
        assert self.wait(self._answers, 30), self.log()
        return self

    def stop(self) -> None:
        self.process.terminate()
        # twistd, once all is stopped, ends by the signal that it got.
        assert self.process.wait(30) in (0, -signal.SIGTERM), self.log()

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def messages(self, offset: int = 0) -> list[Message]:
        """What is stored, from a byte of the file on; a line that is being written is left out."""
        if not self.store.exists():
            return []
        with self.store.open("rb") as store:
            store.seek(offset)
            return [json.loads(line) for line in store.read().split(b"\n")[:-1]]

    def wait(self, condition: Callable[[], Any], timeout: float) -> bool:
        """Whether the condition came true in time."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def log(self) -> str:
        return self._log.read_text(errors="replace")[-4_000:]

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log()
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True
