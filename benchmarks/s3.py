"""What it costs to archive messages in S3, beside files, and how much memory large batches take, in one run.

    python benchmarks/s3.py [--messages 300000] [--rounds 3]

A server of the benchmark's own (versitygw, built by tests/versitygw) on this machine's disk. Each round: the messages through a sidecar
into JSONL files, and into objects with each way to compress and each size of batch. CPU is the sidecar's own. What counts are the ratios.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from load import Process, sidecar
from suite.native import Load
from suite.processes import until_listening

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

from ports import free_port
from s3_server import ENVIRONMENT, Bucket, S3Server

CONFIG = """
listen: [tcp:{port}:interface=127.0.0.1]
http: false
reload: signal
journal: {{dir: journal, max_bytes: 0, spill_dir: false}}
backends:
  one: {{{backend}}}
routes: [{{to: [one]}}]
"""
FILES = 'plugin: filesystem, path: "logs/{service}.jsonl"'
S3 = (
    "plugin: s3, bucket: {bucket}, prefix: w/, endpoint_url: {url}, region: us-east-1, compress: {compress}, "
    "batch: {{bytes: {size}MiB, age: 5s}}"
)
WAYS = {
    "files": FILES,
    **{f"s3 {compress} {size} MiB": (compress, size) for compress, size in [
        ("none", 4), ("zstd", 4), ("gzip", 4), ("gzip", 16), ("zstd", 16), ("gzip", 32), ("gzip", 64),
    ]},
}  # fmt: skip


def wait(directory: Path, is_files: bool, server: S3Server, bucket: str, lines: int) -> None:
    """Until so many lines are stored."""
    deadline = time.monotonic() + 300
    while True:
        if is_files:
            stored = sum(path.read_bytes().count(b"\n") for path in (directory / "logs").glob("*.jsonl"))
        else:
            there = Bucket(server, bucket)
            stored = sum(int(there.metadata(key)["wafermon-count"]) for key in there.all_keys())
        if stored >= lines:
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"only {stored} of {lines} lines are stored")
        time.sleep(0.3)


def one_round(server: S3Server, way: str, messages: int) -> tuple[float, float]:
    """Messages per CPU-second, and the sidecar's peak of memory in MiB."""
    bucket = server.create().name
    port = free_port()
    backend = WAYS[way]
    is_files = isinstance(backend, str)
    if not isinstance(backend, str):
        compress, size = backend
        backend = S3.format(bucket=bucket, url=server.url, compress=compress, size=size)
    with tempfile.TemporaryDirectory(dir=".") as made:
        directory = Path(made)
        process: Process = sidecar(directory, CONFIG.format(port=port, backend=backend))
        until_listening(port)
        Load(messages=1000, connections=1, size=300, services=8, traces=8, mixed=True).send(port)
        wait(directory, is_files, server, bucket, 1000)
        cpu = process.cpu
        Load(messages=messages, connections=4, size=300, services=8, traces=8, mixed=True).send(port)
        wait(directory, is_files, server, bucket, messages + 1000)
        cpu, peak = process.cpu - cpu, process.peak
        process.stop()
    return messages / cpu, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    server = S3Server()
    try:
        server.start()
        found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
        for _ in range(options.rounds):
            for way in WAYS:
                found[way].append(one_round(server, way, options.messages))
    finally:
        server.remove()
    base = statistics.median(rate for rate, _ in found["files"])
    print(f"{'':16} messages per CPU-s   to files   peak RSS, MiB")
    for way, rounds in found.items():
        rate, peak = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"{way:16} {rate:18,.0f} {rate / base:10.2f} {peak:15.0f}")


if __name__ == "__main__":
    main()
