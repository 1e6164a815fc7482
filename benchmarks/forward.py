"""What it costs to forward messages to a central sidecar, beside local files; and what a thousand forwarding sidecars are to it.

    python benchmarks/forward.py [--messages 200000] [--sidecars 1000] [--seconds 60] [--rounds 5] [--every 5 2 1]

First an edge and a central sidecar, for each codec: bytes on the wire, and processor time at both ends, beside an edge that only writes files.
Then as many connections as `--sidecars` says, each of which forwards a frame every so many seconds as a sidecar does: how long a local client
waits for its acks beside them at each of these paces and while they are silent, by turns, with how busy central is; central's memory; and
after a restart of central how long until all are back. They come from one process, which gives way to central and the local client, as other
machines do.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import statistics
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

from central import TOKEN, Central
from daemon import Client, until
from edge import Edge as Sidecar

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
BEGIN = 1 << 31
STEP_SECONDS = 0.1
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
                edge = Sidecar(directory / "edge", central.forward_port, compress=compress, quota="0")
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


class Edge(asyncio.Protocol):
    """A sidecar that forwards, and comes back as the backend does. All of its frames hold the same lines, which are compressed once: central
    tells frames apart by the stretch that they stand for."""

    def __init__(self, number: int, port: int) -> None:
        self.journal = f"{number:016x}"
        self.port = port
        self.position = BEGIN
        self.wait = 0.5
        self.up = False
        self.said = b""
        self.transport: asyncio.Transport
        self.raw = b"".join(line(self.journal, seq) + b"\n" for seq in range(1, LINES_A_FRAME + 1))
        self.data = zlib.compress(self.raw, 1)
        self.head = b'{"type":"frame","codec":"zlib","bytes":%d,"raw":%d,"lines":%d,"start":%%d,"end":%%d}\n' % (
            len(self.data), len(self.raw), LINES_A_FRAME
        )  # fmt: skip

    async def connect(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", self.port)
        except OSError:
            self.connection_lost(None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.said = transport, b""
        hello = {
            "v": 2, "type": "hello", "forward": True, "client": self.journal, "instance": "one", "token": TOKEN, "compress": ["zlib"],
        }  # fmt: skip
        transport.write(json.dumps(hello).encode() + b"\n")

    def data_received(self, data: bytes) -> None:
        if self.up:
            return  # acks
        self.said += data
        first, newline, _ = self.said.partition(b"\n")
        if newline and (welcome := json.loads(first))["type"] == "welcome":
            self.position = max(welcome["acked"], BEGIN)
            self.wait, self.up = 0.5, True

    def connection_lost(self, exc: Exception | None) -> None:
        self.up = False
        loop = asyncio.get_running_loop()
        loop.call_later(random.uniform(0, self.wait), lambda: loop.create_task(self.connect()))
        self.wait = min(2 * self.wait, BACK_SECONDS)

    def send(self) -> None:
        if self.up:
            start, self.position = self.position, self.position + len(self.raw)
            self.transport.write(self.head % (start, self.position) + self.data)


async def be_edges(count: int, port: int) -> None:
    """As a process of its own: each line of its input is how many seconds lie between two frames of an edge, 0 for silence; it says how many
    are connected whenever that has changed."""
    edges = [Edge(number + 1, port) for number in range(count)]
    connecting = [asyncio.ensure_future(one.connect()) for one in edges]
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    every, known, at = 0.0, -1, 0
    given = asyncio.ensure_future(reader.readline())
    due = loop.time()
    while True:
        await asyncio.wait([given], timeout=max(0.0, due - loop.time()) if every else STEP_SECONDS)
        if given.done():
            if not given.result():
                break
            every, due = float(given.result()), loop.time()
            given = asyncio.ensure_future(reader.readline())
        if every:  # the edges one after the other, evenly spread
            while due <= loop.time():
                edges[at % count].send()
                at, due = at + 1, due + every / count
        up = sum(one.up for one in edges) if at % 50 == 0 or not every else known
        if up != known:
            known = up
            print(up, flush=True)
    await asyncio.gather(*connecting)


class Edges:
    """The process that simulates them: other machines, so what it needs of the processor comes after all others."""

    def __init__(self, count: int, port: int) -> None:
        self.count = count
        self._command = [sys.executable, __file__, "--sidecars", str(count), "--be-edges-of", str(port)]
        self._up = 0
        self._known = asyncio.Event()

    async def __aenter__(self) -> Edges:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(*self._command, stdin=pipe, stdout=pipe)
        self._listening = asyncio.ensure_future(self._listen())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        await self._listening

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        while said := await self._process.stdout.readline():
            self._up = int(said)
            self._known.set()

    async def until(self, up: Callable[[int], bool]) -> None:
        """So many are connected as `up` wants."""
        while not up(self._up):
            self._known.clear()
            await self._known.wait()

    def send(self, every: float) -> None:
        """From now on each sends a frame every so many seconds; 0: none."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"%g\n" % every)


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


def at(took: list[float], part: float) -> float:
    """Milliseconds."""
    return 1e3 * took[int(len(took) * part)]


class Phase(NamedTuple):
    """What was measured while the edges sent at one pace."""

    p50: float
    """Milliseconds, as is `p99`."""
    p99: float
    busy: float
    """Central's share of a core."""


async def phase(edges: Edges, every: float, central: Central, seconds: float) -> Phase:
    edges.send(every)
    await asyncio.sleep(2)
    assert central.process is not None
    before, began = cpu(central.process.pid), time.monotonic()
    took = await acks(central.port, seconds)
    busy = (cpu(central.process.pid) - before) / (time.monotonic() - began)
    return Phase(at(took, 0.5), at(took, 0.99), busy)


async def compare_acks(edges: Edges, central: Central, given: argparse.Namespace) -> None:
    """While the edges are silent and while they forward, by turns: whatever else the machine does meets all of them."""
    paces = [0.0, *given.every]
    rounds = [
        {every: await phase(edges, every, central, given.seconds / given.rounds) for every in paces}
        for _ in range(given.rounds)
    ]
    edges.send(0)
    print(f"acks of a local client, medians of {given.rounds} rounds; times: as long as in silence")
    print(
        f"{'a frame of each':>18} {'messages/s':>10} {'central':>8} {'p50':>8} {'p99':>8} {'times p50':>10} {'p99':>6}"
    )
    for every in paces:
        some = [one[every] for one in rounds]
        p50, p99, busy = (statistics.median(column) for column in zip(*some, strict=True))
        ratios = [(one[every].p50 / one[0.0].p50, one[every].p99 / one[0.0].p99) for one in rounds]
        times = [statistics.median(column) for column in zip(*ratios, strict=True)]
        pace = f"every {every:g} s" if every else "silence"
        rate = edges.count * LINES_A_FRAME / every if every else 0
        print(
            f"{pace:>18} {rate:10,.0f} {busy:8.0%} {p50:5.1f} ms {p99:5.1f} ms {times[0]:10.1f} {times[1]:6.1f}",
            flush=True,
        )


async def fan_in(given: argparse.Namespace) -> None:
    count = given.sidecars
    with tempfile.TemporaryDirectory() as name, Central(Path(name) / "central", CENTRAL) as central:
        async with Edges(count, central.forward_port) as edges:
            began = time.monotonic()
            await edges.until(lambda up: up == count)
            print(f"{count} sidecars connected after {time.monotonic() - began:.1f} s", flush=True)
            await compare_acks(edges, central, given)
            assert central.process is not None
            print(f"central: {memory(central.process.pid):.0f} MiB at most", flush=True)
            edges.send(min(given.every))
            central.kill()
            await edges.until(lambda up: up < count)
            began = time.monotonic()
            await asyncio.get_running_loop().run_in_executor(None, central.start)
            ready = time.monotonic() - began
            await edges.until(lambda up: up == count)
            print(
                f"after a kill: central ready in {ready:.1f} s, all back {time.monotonic() - began:.1f} s after its start",
                flush=True,
            )
            await asyncio.sleep(5)
            assert central.process is not None
            print(f"central: {memory(central.process.pid):.0f} MiB at most since then", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=200_000, help="through an edge, for each codec; 0: none")
    parser.add_argument("--sidecars", type=int, default=1_000, help="that forward at a time; 0: none")
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="how long acks are measured with them, and as long without"
    )
    parser.add_argument("--rounds", type=int, default=5, help="in how many rounds")
    parser.add_argument(
        "--every",
        type=float,
        nargs="+",
        default=[5.0, 2.0, 1.0],
        help="seconds between two frames of a sidecar; several are measured in turn",
    )
    parser.add_argument("--acks", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--be-edges-of", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.acks:
        print(json.dumps(asyncio.run(measure_acks(given.acks, given.seconds))))
        return
    if given.be_edges_of:
        os.nice(10)  # they are other machines
        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
        asyncio.run(be_edges(given.sidecars, given.be_edges_of))
        return
    if given.messages:
        both_ends(given.messages)
    if given.sidecars:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16_384), hard))
        asyncio.run(fan_in(given))


if __name__ == "__main__":
    main()
