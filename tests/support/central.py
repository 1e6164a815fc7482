"""A sidecar that others forward to, in a process of its own."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from daemon import PATIENCE, Daemon
from ports import free_port

TOKEN = "edge-token-8Q2vT0mO3kN5xW7y"
CONFIG = """
listen:
  - tcp:{port}:interface=127.0.0.1
  - {{endpoint: "tcp:%(port)d:interface=127.0.0.1", token_file: tokens, forward: true}}
http: tcp:%(http)d:interface=127.0.0.1
reload: signal
journal: {{dir: journal, segment_bytes: 1MiB, max_bytes: 64MiB, sync: always, spill_dir: spill}}
{limits}
backends:
  files: {{plugin: filesystem, path: "logs/{{service}}.jsonl", batch: {{age: 50ms}}}}
routes: [{{to: [files]}}]
dead_letters: {{dir: dead-letters}}
"""


class Central(Daemon):
    """Use it as a context manager. `forward_port` is where sidecars forward to, with `TOKEN` as ``+forward=edge``."""

    def __init__(
        self, directory: Path, config: str = CONFIG, *, limits: str = "", tokens: str = f"{TOKEN} +forward=edge\n"
    ) -> None:
        directory.mkdir(exist_ok=True)
        self.forward_port, self.http_port = free_port(), free_port()
        (directory / "tokens").write_text(tokens)
        (directory / "tokens").chmod(0o600)
        super().__init__(directory, config % {"port": self.forward_port, "http": self.http_port}, limits=limits)

    def ask(self, path: str, *, post: bool = False) -> Any:
        """What its HTTP answers."""
        request = Request(
            f"http://127.0.0.1:{self.http_port}{path}", method="POST" if post else "GET", headers={"X-Wafermon": "test"}
        )
        with urlopen(request, timeout=PATIENCE) as answer:
            return json.loads(answer.read().splitlines()[-1])

    def drained(self) -> list[tuple[str, int]]:
        """(client, seq) of everything in its files, once they have all that its journal has."""
        self.ask("/api/drain", post=True)
        return [(one.get("client", ""), one.get("seq", 0)) for one in self.stored()]

    @contextmanager
    def down(self) -> Iterator[None]:
        """While it is entered, nobody listens."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """While it is entered, it answers nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def keep(self) -> Path:
        """A copy of all that it has on disk, as a snapshot of the disk takes it."""
        copy = self.directory.with_name(f"{self.directory.name}-copy")
        with self.frozen():
            shutil.copytree(self.directory, copy)
        return copy

    def put_back(self, copy: Path) -> None:
        """Go on from such a copy."""
        self.stop()
        shutil.rmtree(self.directory)
        shutil.move(copy, self.directory)
        self.start()
