"""A sidecar that forwards to another, in a process of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from central import TOKEN
from daemon import PATIENCE, Daemon
from ports import free_port

CONFIG = """
listen: ["tcp:{port}:interface=127.0.0.1"]
http: tcp:%(http)d:interface=127.0.0.1
reload: signal
journal: {{dir: journal, segment_bytes: 64KiB, max_bytes: %(quota)s, sync: always, spill_dir: spill}}
backends:
  central: {{plugin: forward, url: "%(url)s", token_file: token, compress: %(compress)s, batch: {{age: 50ms}}%(more)s}}
  files: {{plugin: filesystem, path: "logs/{{service}}.jsonl", batch: {{age: 50ms}}}}
routes: [{{match: {{service: "private-*"}}, to: [files]}}, {{to: [central, files]}}]
dead_letters: {{dir: dead-letters}}
"""


class Edge(Daemon):
    """Use it as a context manager. It forwards to `port` of this machine."""

    def __init__(
        self,
        directory: Path,
        port: int,
        *,
        token: str = TOKEN,
        compress: str = "zlib",
        quota: str = "64MiB",
        scheme: str = "tcp",
        more: str = "",
    ) -> None:
        directory.mkdir(exist_ok=True)
        (directory / "token").write_text(f"{token}\n")
        self.http_port = free_port()
        url = f"{scheme}://localhost:{port}"
        given = {"http": self.http_port, "quota": quota, "url": url, "compress": compress, "more": more}
        super().__init__(directory, CONFIG % given)

    def ask(self, path: str) -> Any:
        """What its HTTP answers."""
        with urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=PATIENCE) as answer:
            return json.loads(answer.read())

    def backend(self) -> dict[str, Any]:
        """How it sees its forwarding."""
        found: dict[str, Any] = self.ask("/api/status")["backends"]["central"]
        return found

    def id(self) -> str:
        """Its journal's."""
        return str(self.ask("/api/status")["journal"]["id"])
