"""What it costs to forward messages to a central sidecar, beside local files; and what a thousand forwarding sidecars are to it.

    python benchmarks/forward.py [--messages 200000] [--sidecars 1000] [--seconds 60] [--rounds 5]

First an edge and a central sidecar, for each codec: bytes on the wire, and processor time at both ends, beside an edge that only writes files.
Then as many connections as `--sidecars` says, each of which forwards a frame a second as a sidecar does, from one process: central's
memory, how long a local client waits for its acks beside them while they forward and while they are silent, by turns, and after a
restart of central how long until all are back.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import resource
import statistics
import sys
import tempfile
import time
import zlib
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

from central import TOKEN, Central
from daemon import Client, until
from edge import Edge

CENTRAL = """
listen:
  - tcp:{port}:interface=127.0.0.1
  - {{endpoint: "tcp:%(port)d:interface=127.0.0.1", token_file: tokens, forward: true}}
http: tcp:%(http)d:interface=127.0.0.1
reload: signal
journal: {{dir: journal, max_bytes: 0, spill_dir: false}}
{limits}
backends:
  files: {{plugin: filesystem, path: "logs/all.jsonl"}}
"""
LINES_A_FRAME = 10
BACK_SECONDS = 15.0
"""As the backend draws it: see `LONGEST_WAIT`."""


def line(client: str, seq: int) -> bytes:
    """Some 300 bytes, of which much is alike."""
    said = {
        "type": "event", "ts": 1_795_500_000_000_000 + seq * 1_317, "service": f"service-{seq % 7}", "host": "fab1-tool-17", "pid": 4711, "client": client,
        "seq": seq, "level": "info", "message": f"wafer {seq % 25} of lot L{seq // 25:06} measured at {seq * 7 % 1000}",
        "trace_id": f"lot-{seq // 400}", "context": {"recipe": f"R-{seq % 13}", "chamber": "ABCD"[seq % 4], "thickness": seq * 31 % 9973 / 7},
    }  # fmt: skip
    return json.dumps(said, separators=(",", ":")).encode()


def cpu(pid: int) -> float:
    """Processor seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int, name: str = "VmHWM") -> float:
    """MiB."""
    [found] = [one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith(name)]
    return int(found.split()[1]) / 1024


def send(port: int, count: int) -> None:
    client = Client(("127.0.0.1", port))
    for first in range(1, count + 1, 5_000):
        last = min(first + 5_000, count + 1)
        client.socket.sendall(b"".join(line(client.client, seq) + b"\n" for seq in range(first, last)))
        client.until_acked(last - 1)
    client.drop()


def stored(sidecar: Any, count: int) -> bool:
    paths = list((sidecar.directory / "logs").glob("*.jsonl"))
    return sum(path.read_bytes().count(b"\n") for path in paths) >= count


def both_ends(messages: int) -> None:
    print(f"{'':8} {'bytes/message':>14} {'messages per CPU-s at the edge':>32} {'at central':>12}")
    for codec in ("files", "none", "zlib", "zstd"):
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            with Central(directory / "central", CENTRAL) as central:
                compress = "none" if codec == "files" else codec
                edge = Edge(directory / "edge", central.forward_port, compress=compress, quota="0")
                path = directory / "edge" / "wafermon.yaml"
                text = path.read_text().replace("segment_bytes: 64KiB, ", "").replace("age: 50ms", "age: 1s")
                to = "files" if codec == "files" else "central"
                path.write_text(
                    text[: text.index("routes:")] + f"routes: [{{to: [{to}]}}]\ndead_letters: {{dir: dead-letters}}\n"
                )
                with edge:
                    assert edge.process is not None and central.process is not None
                    before = cpu(edge.process.pid), cpu(central.process.pid)
                    send(edge.port, messages)
                    until(partial(stored, edge if codec == "files" else central, messages), "everything", 600)
                    spent = cpu(edge.process.pid) - before[0], cpu(central.process.pid) - before[1]
                    wire = edge.backend()["figures"]["wire_bytes"] / messages
                    there = "" if codec == "files" else f"{messages / spent[1]:12,.0f}"
                    print(
                        f"{codec:8} {wire if there else 0:14.1f} {messages / spent[0]:32,.0f} {there:>12}", flush=True
                    )


class Simulated:
    """A sidecar that forwards a frame a second, and comes back as the backend does."""

    def __init__(self, number: int, port: int) -> None:
        self.journal = f"{number:016x}"
        self.port = port
        self.position = 1 << 31
        self.seq = 0
        self.up = False
        self.acked = 0
        self.silent = False

    async def run(self) -> None:
        wait = 0.5
        while True:
            with contextlib.suppress(OSError, ValueError, asyncio.IncompleteReadError):
                await self.talk()
            self.up = False
            await asyncio.sleep(random.uniform(0, wait))
            wait = min(2 * wait, BACK_SECONDS)

    async def talk(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            hello = {
                "v": 2,
                "type": "hello",
                "forward": True,
                "client": self.journal,
                "instance": "one",
                "token": TOKEN,
                "compress": ["zlib"],
            }
            writer.write(json.dumps(hello).encode() + b"\n")
            welcome = json.loads(await reader.readline())
            self.position = max(welcome["acked"], 1 << 31)
            self.up = True
            listening = asyncio.ensure_future(self.listen(reader))
            try:
                await asyncio.sleep(random.random())
                while not listening.done():
                    if not self.silent:
                        self.send(writer)
                    await asyncio.sleep(1.0)
                await listening
            finally:
                listening.cancel()
        finally:
            writer.close()

    def send(self, writer: asyncio.StreamWriter) -> None:
        raw = b""
        for _ in range(LINES_A_FRAME):
            self.seq += 1
            raw += line(self.journal, self.seq) + b"\n"
        data = zlib.compress(raw, 1)
        start, self.position = self.position, self.position + len(raw)
        head = {
            "type": "frame",
            "codec": "zlib",
            "bytes": len(data),
            "raw": len(raw),
            "lines": LINES_A_FRAME,
            "start": start,
            "end": self.position,
        }
        writer.write(json.dumps(head).encode() + b"\n" + data)

    async def listen(self, reader: asyncio.StreamReader) -> None:
        while said := await reader.readline():
            found = json.loads(said)
            if found["type"] == "error":
                raise ValueError(found["detail"])
            self.acked = found.get("seq", self.acked)


async def acks(port: int, seconds: float) -> list[float]:
    """The same from a process of its own, which has nothing else to do."""
    command = [sys.executable, __file__, "--acks", str(port), "--seconds", str(seconds)]
    asking = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    said, _ = await asking.communicate()
    found: list[float] = json.loads(said)
    return found


async def measure_acks(port: int, seconds: float) -> list[float]:
    """How long a local client waits for the ack of each of its messages, one after the other."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    name = os.urandom(8).hex()
    writer.write(json.dumps({"v": 2, "type": "hello", "client": name, "service": "local"}).encode() + b"\n")
    await reader.readline()
    took, seq, end = [], 0, time.monotonic() + seconds
    while time.monotonic() < end:
        seq += 1
        began = time.monotonic()
        writer.write(line(name, seq) + b"\n")
        while json.loads(await reader.readline()).get("seq", 0) < seq:
            pass
        took.append(time.monotonic() - began)
        await asyncio.sleep(0.01)
    writer.close()
    return sorted(took)


def shown(took: list[float]) -> str:
    return f"p50 {at(took, 0.5) * 1e3:.1f} ms, p99 {at(took, 0.99) * 1e3:.1f} ms ({len(took)} messages)"


def at(took: list[float], part: float) -> float:
    return took[int(len(took) * part)]


async def compare_acks(sidecars: list[Simulated], port: int, seconds: float, rounds: int) -> None:
    """While the sidecars are silent and while they forward, by turns: whatever else the machine does meets both."""
    ratios: dict[float, list[float]] = {0.5: [], 0.99: []}
    for number in range(rounds):
        took = {}
        for silent in (True, False):
            for one in sidecars:
                one.silent = silent
            await asyncio.sleep(2)
            took[silent] = await acks(port, seconds / rounds)
        print(
            f"acks of a local client, round {number + 1}: {shown(took[True])}; beside them: {shown(took[False])}",
            flush=True,
        )
        for part, found in ratios.items():
            found.append(at(took[False], part) / at(took[True], part))
    middle, worst = (statistics.median(found) for found in ratios.values())
    print(f"times as long beside them, median of {rounds} rounds: p50 {middle:.1f}, p99 {worst:.1f}", flush=True)


async def fan_in(count: int, seconds: float, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as name, Central(Path(name) / "central", CENTRAL) as central:
        sidecars = [Simulated(number + 1, central.forward_port) for number in range(count)]
        tasks = [asyncio.ensure_future(one.run()) for one in sidecars]
        began = time.monotonic()
        while not all(one.up for one in sidecars):
            await asyncio.sleep(0.1)
        print(f"{count} sidecars connected after {time.monotonic() - began:.1f} s", flush=True)
        assert central.process is not None
        await asyncio.sleep(3)
        before = cpu(central.process.pid), time.monotonic()
        await asyncio.sleep(seconds / rounds)
        busy = (cpu(central.process.pid) - before[0]) / (time.monotonic() - before[1])
        print(
            f"central: {memory(central.process.pid):.0f} MiB at most, {busy:.0%} of a core, for {count * LINES_A_FRAME:,} messages/s",
            flush=True,
        )
        await compare_acks(sidecars, central.port, seconds, rounds)
        central.kill()
        await asyncio.sleep(1)
        began = time.monotonic()
        await asyncio.get_running_loop().run_in_executor(None, central.start)
        ready = time.monotonic() - began
        while not all(one.up for one in sidecars):
            await asyncio.sleep(0.1)
        print(
            f"after a kill: central ready in {ready:.1f} s, all back {time.monotonic() - began:.1f} s after its start",
            flush=True,
        )
        await asyncio.sleep(5)
        assert central.process is not None
        print(f"central: {memory(central.process.pid):.0f} MiB at most since then", flush=True)
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=200_000, help="through an edge, for each codec; 0: none")
    parser.add_argument("--sidecars", type=int, default=1_000, help="that forward at a time; 0: none")
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="how long acks are measured with them, and as long without"
    )
    parser.add_argument("--rounds", type=int, default=5, help="in how many rounds")
    parser.add_argument("--acks", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.acks:
        print(json.dumps(asyncio.run(measure_acks(given.acks, given.seconds))))
        return
    if given.messages:
        both_ends(given.messages)
    if given.sidecars:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16_384), hard))
        asyncio.run(fan_in(given.sidecars, given.seconds, given.rounds))


if __name__ == "__main__":
    main()
