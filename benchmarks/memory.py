"""Resident memory: under load, with 5,000 idle connections, and with a backend that is dead for the whole run.

python benchmarks/memory.py
"""

from __future__ import annotations

import json
import resource
import secrets
import tempfile
from pathlib import Path

from load import connect, senders, sidecar
from throughput import CONFIG

PORT = 7492
IDLE = 5_000
MESSAGES = 600_000
DEAD = """
  dead: {{plugin: filesystem, path: "blocked/{{service}}.jsonl"}}
routes: [{{to: [files, dead]}}]
"""


def run(name: str, *, idle: int, dead: bool) -> None:
    config = CONFIG
    if dead:
        config = CONFIG.replace("routes: [{{to: [files]}}]\n", DEAD.lstrip("\n")).replace(
            "dir: journal,", "dir: journal, max_bytes: 2GiB,"
        )
    with tempfile.TemporaryDirectory(dir=".") as directory:
        here = Path(directory)
        (here / "blocked").write_text("a file where a directory should be")
        server = sidecar(here, config.format(port=PORT))
        try:
            connect(PORT).close()
            begun = server.rss
            connections = []
            for _ in range(idle):
                connection = connect(PORT)
                hello = {"v": 2, "type": "hello", "client": secrets.token_hex(8), "service": "idle", "ack": True}
                connection.sendall(json.dumps(hello).encode() + b"\n")
                connections.append(connection)
            for connection in connections:
                assert b'"welcome"' in connection.recv(4096)
            quiet = server.rss
            senders(PORT, 2, MESSAGES // 2)
            print(f"{name:40} started {begun:.0f}, before the load {quiet:.0f}, peak {server.peak:.0f} MiB", flush=True)
        finally:
            server.stop()


def main() -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 20_000), most))
    run("load", idle=0, dead=False)
    run("5,000 idle connections", idle=IDLE, dead=False)
    run("a dead backend", idle=0, dead=True)
    run("both", idle=IDLE, dead=True)


if __name__ == "__main__":
    main()
