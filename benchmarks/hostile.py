"""What others notice while a sidecar has clients that mean no good, or are broken.

    python benchmarks/hostile.py [--messages 1000000] [--rate 5000]

Three runs, each with a client that sends 2,000 messages per second and takes the time until their acks:

- alone;
- beside one ordinary client that sends `--messages` at `--rate` a second, all of one service and one job;
- beside one that sends as many, each of another service and another job, and 5,000 idle connections, a client that sends
  one byte a second, and one that sends all the time and never reads its acks.

What counts is the third run's p99 against the second's, and how much memory the sidecar takes.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from load import Process, sidecar

PORT = 7493
CONFIG = f"""
listen: [tcp:{PORT}:interface=127.0.0.1]
http: false
reload: signal
journal: {{dir: journal, spill_dir: false}}
backends:
  files: {{plugin: filesystem, path: "logs/{{date}}.jsonl"}}
routes: [{{to: [files]}}]
"""
"""One file for all services: what a file for each costs a disk is another question."""
IDLE = 5_000
PACKET_SECONDS = 0.01
PACKET = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--rate", type=int, default=5_000)
    parser.add_argument("--flood", choices=["ordinary", "distinct"], help="only send, to a sidecar that runs")
    options = parser.parse_args()
    if options.flood:
        flood(options.messages, options.rate, distinct=options.flood == "distinct")
        return
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 20_000), most))
    seconds = options.messages / options.rate
    run("alone", min(20.0, seconds), options, None)
    ordinary = run("beside an ordinary client", seconds, options, "ordinary")
    hostile = run("beside hostile ones", seconds, options, "distinct")
    print(f"p99 beside hostile clients / beside an ordinary one: {hostile / ordinary:.2f}")


def run(name: str, seconds: float, options: argparse.Namespace, kind: str | None) -> float:
    with tempfile.TemporaryDirectory(dir=".") as directory:
        server = sidecar(Path(directory), CONFIG)
        try:
            connect(PORT).close()
            begun = server.rss
            with hostile(kind == "distinct"), flooding(kind, options) as flooded:
                latencies, memory = measure(seconds, server)
                lasted = flooded()
            p50, p99 = (latencies[int(len(latencies) * share)] * 1000 for share in (0.5, 0.99))
            print(f"{name}: ack p50 {p50:.1f} ms, p99 {p99:.1f} ms{lasted}", flush=True)
            quarters = " ".join(f"{one:.0f}" for one in memory)
            print(f"    MiB: {begun:.0f} at the start, by quarters {quarters}, peak {server.peak:.0f}", flush=True)
            check(server)
        finally:
            server.stop()
    return p99


def check(server: Process) -> None:
    assert server.process.poll() is None, "the sidecar has died"


def measure(seconds: float, server: Process) -> tuple[list[float], list[float]]:
    """The times from a packet's send until its ack, shortest first, and the sidecar's memory at each quarter."""
    client = secrets.token_hex(8)
    latencies: list[float] = []
    memory: list[float] = []
    with connect(PORT) as connection:
        replies = greet(connection, client, "measured")
        begun = time.monotonic()
        number = 0
        while time.monotonic() < begun + seconds:
            due = begun + (number + random.random()) * PACKET_SECONDS  # the same beat as the others' tells nothing
            time.sleep(max(0.0, due - time.monotonic()))
            data = lines(client, 1 + number * PACKET)
            number += 1
            sent = time.monotonic()
            connection.sendall(data)
            while json.loads(replies.readline()).get("seq", 0) < number * PACKET:
                pass
            latencies.append(time.monotonic() - sent)
            if sent >= begun + seconds * (len(memory) + 1) / 4:
                memory.append(server.rss)
    return sorted(latencies), [*memory, server.rss][:4]


def lines(client: str, first: int) -> bytes:
    """A packet of events, as an SDK sends them."""
    return b"".join(
        b'{"type":"event","ts":1795500000000000,"service":"measured","host":"fab1","pid":4711,"trace_id":"job-4711",'
        b'"level":"info","message":"file received","context":{"file":"lot-17.dat","rows":%d,"ok":true},'
        b'"client":"%s","seq":%d}\n' % (seq, client.encode(), seq)
        for seq in range(first, first + PACKET)
    )


def connect(port: int, patience: float = 10.0) -> socket.socket:
    deadline = time.monotonic() + patience
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=60)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def greet(connection: socket.socket, client: str, service: str) -> socket.SocketIO:
    hello = {"v": 2, "type": "hello", "client": client, "service": service, "ack": True}
    connection.sendall(json.dumps(hello).encode() + b"\n")
    replies = connection.makefile("rb")
    assert b'"welcome"' in replies.readline()
    return replies  # type: ignore[return-value]


@contextmanager
def flooding(kind: str | None, options: argparse.Namespace) -> Iterator[object]:
    if kind is None:
        yield lambda: ""
        return
    command = [
        sys.executable,
        __file__,
        "--flood",
        kind,
        "--messages",
        str(options.messages),
        "--rate",
        str(options.rate),
    ]
    begun = time.monotonic()
    process = subprocess.Popen(command)

    def ended() -> str:
        assert process.wait(600) == 0
        return f"; {options.messages:,} messages in {time.monotonic() - begun:.0f} s"

    yield ended


def flood(messages: int, rate: int, *, distinct: bool) -> None:
    """`messages` of progress at `rate` a second, each of a service and job of its own if `distinct`; until acknowledged."""
    client = secrets.token_hex(8)
    burst = rate // 100
    with connect(PORT) as connection:
        replies = greet(connection, client, "flood")
        begun = time.monotonic()
        for first in range(1, messages + 1, burst):
            time.sleep(max(0.0, begun + first / rate - time.monotonic()))
            seqs = range(first, min(first + burst, messages + 1))
            data = b"".join(
                b'{"type":"progress","ts":1795500000000000,"service":"service-%d","job_id":"job-%d","trace_id":"job-%d",'
                b'"percent":5,"client":"%s","seq":%d}\n' % (*(3 * [seq if distinct else 0]), client.encode(), seq)
                for seq in seqs
            )
            connection.sendall(data)
            while json.loads(replies.readline()).get("seq", 0) < seqs[-1]:
                pass


@contextmanager
def hostile(wanted: bool) -> Iterator[None]:
    """Idle connections, one that dribbles, and one that never reads."""
    if not wanted:
        yield
        return
    stopping = threading.Event()
    idle = []
    for number in range(IDLE):
        connection = connect(PORT)
        greet(connection, secrets.token_hex(8), f"idle-{number % 10}").close()
        idle.append(connection)
    threads = [threading.Thread(target=target, args=(stopping,)) for target in (dribble, never_read)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join(30)
        for connection in idle:
            connection.close()


def dribble(stopping: threading.Event) -> None:
    """One byte a second."""
    with connect(PORT) as connection, suppress(OSError):
        greet(connection, secrets.token_hex(8), "dribble")
        while not stopping.wait(1):
            connection.sendall(b"x")


def never_read(stopping: threading.Event) -> None:
    """Bad lines, each of which is answered, as fast as they are taken."""
    with connect(PORT) as connection, suppress(OSError):
        connection.settimeout(1)
        greet(connection, secrets.token_hex(8), "deaf")
        while not stopping.is_set():
            with suppress(TimeoutError):
                connection.send(b"nonsense\n" * 1000)


if __name__ == "__main__":
    main()
