"""The daemon's CPU for a message with history beside files, and with files alone, in turn: a ratio that carries over to other machines.

nice python benchmarks/history_daemon.py DIR [MESSAGES [ROUNDS]]
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))
sys.path.insert(0, str(Path(__file__).resolve().parent))
import history as lines_of_jobs
from ports import free_port

CONFIG = """
listen: ["tcp:{port}:interface=127.0.0.1"]
http: "tcp:{http}:interface=127.0.0.1"
reload: signal
journal: {{dir: journal, spill_dir: spill}}
backends:
  files: {{plugin: filesystem, path: "files/{{service}}/{{date}}.jsonl"}}
  {history}
routes: [{{to: [{to}]}}]
"""
HISTORY = "history: {plugin: history, dir: history, batch: {messages: 20000, bytes: 8MiB, age: 1s}}"
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def asked(port: int) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/status", timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def wait(condition: Any) -> Any:
    while True:
        try:
            if found := condition():
                return found
        except OSError:
            pass
        time.sleep(0.1)


def run(directory: Path, blocks: list[bytes], messages: int, *, history: bool) -> tuple[float, float]:
    """Microseconds of CPU for a message, and MiB of memory at the most."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    port, http = free_port(), free_port()
    config = CONFIG.format(
        port=port, http=http, history=HISTORY if history else "", to="files, history" if history else "files"
    )
    (directory / "wafermon.yaml").write_text(config)
    command = [
        str(Path(sys.executable).with_name("twistd")),
        "-n",
        "--pidfile=",
        "wafermon",
        "--config",
        "wafermon.yaml",
    ]
    with (
        (directory / "log").open("wb") as log,
        subprocess.Popen(command, cwd=directory, stdout=log, stderr=log) as daemon,
    ):
        try:
            wait(lambda: asked(http)["ready"])
            before = cpu_of(daemon.pid)
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(b'{"v":2,"type":"hello","client":"aaaaaaaaaaaaaaaa","service":"bench","ack":false}\n')
                for block in blocks:
                    client.sendall(block)
                client.shutdown(socket.SHUT_WR)
                while client.recv(1 << 16):  # a close with something unread would release what is on its way
                    pass
            wait(
                lambda: all(
                    one["delivered"] >= messages and not one["lag_messages"] for one in asked(http)["backends"].values()
                )
            )
            spent = cpu_of(daemon.pid) - before
            status = Path(f"/proc/{daemon.pid}/status").read_text()
            memory = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
        finally:
            daemon.send_signal(signal.SIGTERM)
    return spent / messages * 1e6, memory / 1024


def unnumbered(raw: bytes) -> bytes:
    """Without the sidecar's own summaries, client and seq: one connection sends the lines of many."""
    found = []
    for line in raw.splitlines():
        value = json.loads(line)
        if value["service"] != "wafermon":
            value.pop("client")
            value.pop("seq")
            found.append(json.dumps(value, separators=(",", ":")).encode())
    return b"".join(line + b"\n" for line in found)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 200_000
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    given = [unnumbered(raw) for raw, _ in lines_of_jobs.batches(count)]
    total = sum(block.count(b"\n") for block in given)
    results: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(rounds):
        for with_history in (False, True):
            spent, memory = run(place / "run", given, total, history=with_history)
            results[with_history].append(spent)
            print(
                f"  {'files and history' if with_history else 'files alone'}: {spent:.2f} us of CPU for a message, {memory:.0f} MiB",
                flush=True,
            )
    files, both = median(results[False]), median(results[True])
    print(f"{total:,} messages: files alone {files:.2f} us, with history {both:.2f} us: {both / files:.2f} times")
