"""From send to ack at 50,000 messages a second offered, `sync: always`.

    python benchmarks/latency.py [--rate 50000] [--seconds 10]

One connection sends a packet every 2 ms; a packet's latency is the time from its send until the ack that covers its last
message has been read.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from load import connect, lines, sidecar
from throughput import CONFIG

PORT = 7492
PACKET_SECONDS = 0.002


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rate", type=int, default=50_000)
    parser.add_argument("--seconds", type=int, default=10)
    options = parser.parse_args()
    count = int(options.rate * PACKET_SECONDS)
    packets = int(options.seconds / PACKET_SECONDS)
    client = "a" * 16
    data = [lines(count, client, 240, 1 + number * count) for number in range(packets)]
    with tempfile.TemporaryDirectory(dir=".") as directory:
        server = sidecar(Path(directory), CONFIG.format(port=PORT))
        try:
            with connect(PORT) as connection:
                hello = {"v": 2, "type": "hello", "client": client, "service": "file-receiver", "ack": True}
                connection.sendall(json.dumps(hello).encode() + b"\n")
                assert b'"welcome"' in connection.recv(4096)
                latencies = send(connection, data, count)
            print(f"peak {server.peak:.0f} MiB")
        finally:
            server.stop()
    latencies.sort()
    p50, p99 = (latencies[int(len(latencies) * share)] * 1000 for share in (0.5, 0.99))
    print(f"{options.rate:,} messages/s: p50 {p50:.1f} ms, p99 {p99:.1f} ms, most {latencies[-1] * 1000:.1f} ms")


def send(connection: object, data: list[bytes], count: int) -> list[float]:
    connection.setblocking(False)  # type: ignore[attr-defined]
    sent_at: list[float] = []
    latencies: list[float] = []
    rest = pending = b""
    begun = time.monotonic()
    while len(latencies) < len(data):
        now = time.monotonic()
        while len(sent_at) < len(data) and begun + len(sent_at) * PACKET_SECONDS <= now:
            pending += data[len(sent_at)]
            sent_at.append(now)
        try:
            if pending:
                pending = pending[connection.send(pending) :]  # type: ignore[attr-defined]
        except BlockingIOError:
            pass
        try:
            rest += connection.recv(1 << 16)  # type: ignore[attr-defined]
            *whole, rest = rest.split(b"\n")
            for reply in whole:
                acked = int(reply.split(b":")[-1].rstrip(b"}"))
                now = time.monotonic()
                while len(latencies) < len(sent_at) and (len(latencies) + 1) * count <= acked:
                    latencies.append(now - sent_at[len(latencies)])
        except BlockingIOError:
            time.sleep(0.0002)
    return latencies


if __name__ == "__main__":
    main()
