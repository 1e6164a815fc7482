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
DEAD = """
  dead: {{plugin: filesystem, path: "blocked/{{service}}.jsonl"}}
routes: [{{to: [files, dead]}}]
"""


def main() -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 20_000), most))
    with tempfile.TemporaryDirectory(dir=".") as directory:
        here = Path(directory)
        (here / "blocked").write_text("a file where a directory should be")
        config = CONFIG.replace("routes: [{{to: [files]}}]\n", DEAD.lstrip("\n")).replace(
            "dir: journal,", "dir: journal, max_bytes: 2GiB,"
        )
        server = sidecar(here, config.format(port=PORT))
        try:
            connect(PORT).close()
            print(f"started: {server.rss:.0f} MiB")
            idle = []
            for _ in range(IDLE):
                connection = connect(PORT)
                hello = {"v": 2, "type": "hello", "client": secrets.token_hex(8), "service": "idle", "ack": True}
                connection.sendall(json.dumps(hello).encode() + b"\n")
                idle.append(connection)
            for connection in idle:
                assert b'"welcome"' in connection.recv(4096)
            print(f"{IDLE:,} idle connections: {server.rss:.0f} MiB")
            for round_ in range(4):
                senders(PORT, 2, 250_000)
                print(
                    f"after {(round_ + 1) * 500_000:,} messages, one backend dead: {server.rss:.0f} MiB, peak {server.peak:.0f} MiB"
                )
        finally:
            server.stop()


if __name__ == "__main__":
    main()
