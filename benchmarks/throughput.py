"""Durable, acknowledged throughput to JSONL files beside a naive server, in turn, in one run.

    python benchmarks/throughput.py [--rounds 3] [--messages 400000]

Two connections, 240-byte messages, `sync: always`. What counts is the ratio of messages per CPU-second.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from load import Process, senders, sidecar, start

NAIVE_PORT, SIDECAR_PORT = 7491, 7492
CONFIG = """
listen: [tcp:{port}:interface=127.0.0.1]
http: false
reload: signal
journal: {{dir: journal, spill_dir: false}}
backends:
  files: {{plugin: filesystem, path: "logs/{{service}}/{{date}}.jsonl"}}
routes: [{{to: [files]}}]
"""


def measure(name: str, server: Process, port: int, messages: int) -> float:
    senders(port, 1, 1000)
    before = server.cpu
    seconds = senders(port, 2, messages // 2)
    cpu = server.cpu - before
    rate = messages / cpu
    print(f"{name:8} {messages / seconds:9,.0f} messages/s {rate:9,.0f} per CPU-second, peak {server.peak:.0f} MiB")
    server.stop()
    return rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--messages", type=int, default=400_000)
    options = parser.parse_args()
    ratios = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory(dir=".") as directory:
            here = Path(directory)
            naive = str(Path(__file__).with_name("naive.py").resolve())
            first = measure("naive", start(naive, str(NAIVE_PORT), "out", cwd=here), NAIVE_PORT, options.messages)
            server = sidecar(here, CONFIG.format(port=SIDECAR_PORT))
            second = measure("wafermon", server, SIDECAR_PORT, options.messages)
            ratios.append(second / first)
            print(f"ratio {ratios[-1]:.2f}")
    print(f"wafermon / naive, median of {len(ratios)}: {sorted(ratios)[len(ratios) // 2]:.2f}")


if __name__ == "__main__":
    main()
