"""What the live page weighs, how soon it is there, and what its viewers cost the sidecar and those who send.

nice python benchmarks/page.py DIR [--rounds N] [--seconds N] [--viewers N] [--rate N]

Acknowledgements are timed with and without viewers in turn, so that what else this machine does meets both alike. A viewer is what a
browser is: one stream of changes, and the questions that the page asks when the stream says that something changed; half of them look at
the list of jobs, half at one of five jobs. Times of paint are those of a real browser (tests/browser), where one is installed. Talks to
127.0.0.1 alone, and stops by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import random
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from statistics import median
from typing import Any

from history_daemon import cpu_of, wait
from ports import free_port

ROOT = Path(__file__).resolve().parents[1]
CONFIG = """
listen: ["tcp:{port}:interface=127.0.0.1"]
http: "tcp:{http}:interface=127.0.0.1"
reload: signal
journal: {{dir: journal, spill_dir: spill}}
backends:
  files: {{plugin: filesystem, path: "files/{{service}}/{{date}}.jsonl"}}
  history: {{plugin: history, dir: history}}
"""
SENDERS = 20
EVERY = 0.1
"""Seconds between two batches of one sender."""
WARM = 3.0
"""Seconds for which viewers look on before it counts."""
JOBS = 40
"""That run while viewers look on."""
SPAN = "0123456789abcdef"


class Daemon:
    def __init__(self, directory: Path) -> None:
        shutil.rmtree(directory, ignore_errors=True)
        (directory / "spill").mkdir(parents=True)
        self.port, self.http = free_port(), free_port()
        (directory / "wafermon.yaml").write_text(CONFIG.format(port=self.port, http=self.http))
        twistd = str(Path(sys.executable).with_name("twistd"))
        command = [sys.executable, twistd, "-n", "--pidfile=", "wafermon", "--config", "wafermon.yaml"]
        with (directory / "daemon.log").open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=directory, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": str(ROOT)}
            )
        wait(lambda: self.get("/api/status")["ready"])

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", timeout=30) as answer:
            return json.load(answer)

    @property
    def cpu(self) -> float:
        return cpu_of(self.process.pid)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


class Sender:
    """One acknowledged connection."""

    def __init__(self, port: int, number: int) -> None:
        self.client = f"{number:08x}{os.getpid():08x}"
        self.connection = socket.create_connection(("127.0.0.1", port))
        self.replies = self.connection.makefile("rb")
        self.seq = 0
        hello = {"v": 2, "type": "hello", "client": self.client, "service": f"s{number}", "ack": True}
        self.connection.sendall(json.dumps(hello).encode() + b"\n")
        self.replies.readline()

    def send(self, lines: list[dict[str, Any]]) -> None:
        data = []
        for line in lines:
            self.seq += 1
            data.append(json.dumps({"v": 2, "client": self.client, "seq": self.seq, **line}).encode() + b"\n")
        self.connection.sendall(b"".join(data))

    def until_acked(self) -> None:
        while True:
            reply = json.loads(self.replies.readline())
            if reply["type"] == "ack" and reply["seq"] >= self.seq:
                return

    def close(self) -> None:
        self.replies.close()
        self.connection.close()


def progress(job: str, percent: float, ts: int, status: str = "working") -> dict[str, Any]:
    return {"type": "progress", "job_id": job, "trace_id": job, "percent": percent, "status": status, "ts": ts}


def put_jobs(port: int, count: int, status: str) -> Sender:
    """Jobs `done` in the past, or that run as long as the connection is open that it answers with."""
    sender, now = Sender(port, 1000 if status == "done" else 2000), time.time_ns() // 1000
    for first in range(0, count, 500):
        lines = []
        for number in range(first, min(count, first + 500)):
            job, begun = f"{status}-{number:05d}", now - (count - number) * 100_000 - 60_000_000
            if status == "done":
                end = {
                    "type": "span_end",
                    "span_id": SPAN,
                    "name": "load",
                    "status": "ok",
                    "start": begun,
                    "duration": 5e7,
                }
                lines += [progress(job, 0, begun), {**end, "trace_id": job, "ts": begun + 50_000_000}]
                lines.append(progress(job, 100, begun + 50_000_000, "done"))
            else:
                lines += [{"type": "span_start", "span_id": SPAN, "name": "load", "trace_id": job, "ts": begun}]
                lines.append(progress(job, number % 100, now))
        sender.send(lines)
        sender.until_acked()
    return sender


# -- the load


def load(port: int, number: int, rate: int, seconds: float, found: Any) -> None:
    """Batches at fixed times; puts the seconds from each one's time to its ack."""
    sender = Sender(port, number)
    each = max(1, round(rate * EVERY))
    jobs = [f"live-{job:03d}" for job in range(number % JOBS, JOBS, SENDERS)]
    taken = []
    begun = time.monotonic() + number * EVERY / SENDERS
    for step in range(int(seconds / EVERY)):
        due = begun + step * EVERY
        time.sleep(max(0.0, due - time.monotonic()))
        ts = time.time_ns() // 1000
        job = jobs[step % len(jobs)]
        event = {
            "type": "event",
            "level": "info",
            "message": f"wafer {step} measured, all dies within their limits",
            "trace_id": job,
            "ts": ts,
        }
        sender.send(
            [progress(job, step % 100, ts), *[{**event, "context": {"die": die, "x": 0.25}} for die in range(each - 1)]]
        )
        sender.until_acked()
        taken.append(time.monotonic() - due)
    found.put(taken)
    sender.close()


# -- the viewers


async def view(port: int, number: int, ends: float) -> tuple[int, int]:
    """One browser; answers with how many changes it was told and how many questions it asked."""
    await asyncio.sleep(WARM * random.random())  # nobody opens a page with a hundred others
    trace = f"live-{number % 5:03d}" if number % 2 else ""
    changed = asyncio.Event()
    asking = asyncio.ensure_future(asks(port, trace, changed, ends))
    told = await watch(port, trace, changed, ends)
    return told, await asking


async def watch(port: int, trace: str, changed: asyncio.Event, ends: float) -> int:
    """The stream; says when the trace is named in it."""
    named = f'"{trace}"'.encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
    writer.write(b"GET /api/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    told = 0
    while (left := ends - time.monotonic()) > 0:
        with contextlib.suppress(asyncio.TimeoutError):
            line = await asyncio.wait_for(reader.readline(), left)
            if line.startswith(b"data: ") and b'"traces"' in line:
                told += 1
                if named in line:
                    changed.set()
    writer.close()
    return told


async def asks(port: int, trace: str, changed: asyncio.Event, ends: float) -> int:
    """What the page asks, one question after the other on one connection; see wafermon/web/page/poll.mjs."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
    asked, whole = 0, -60.0
    while (left := ends - time.monotonic()) > 0:
        if trace:
            if time.monotonic() - whole > 60.0:
                whole = time.monotonic()
                await ask(reader, writer, f"/api/traces/{trace}?limit=1000&stored=kept")
            else:
                await ask(reader, writer, f"/api/traces/{trace}?limit=300&stored=no")
            asked += 1
            await asyncio.sleep(1.0)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(changed.wait(), min(10.0, left))
            changed.clear()
        else:
            await ask(reader, writer, "/api/jobs?state=running,stalled&limit=1000")
            await ask(reader, writer, "/api/jobs?state=gone,failed,cancelled,unfinished,done&limit=50")
            asked += 2
            await asyncio.sleep(min(30.0, left))
    writer.close()
    return asked


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> None:
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nCache-Control: max-age=1\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
    await reader.readexactly(int(length))


def views(port: int, count: int, seconds: float, found: Any) -> None:
    async def all_of_them() -> list[tuple[int, int]]:
        ends = time.monotonic() + seconds
        return await asyncio.gather(*(view(port, number, ends) for number in range(count)))

    os.nice(5)  # a browser is another machine's
    each = asyncio.run(all_of_them())
    found.put((sum(told for told, _ in each), sum(asked for _, asked in each)))


def under_load(daemon: Daemon, rate: int, seconds: float, viewers: int) -> dict[str, float]:
    """Ack latencies in ms, and the sidecar's CPU in percent of a core."""
    results, seen = multiprocessing.Queue(), multiprocessing.Queue()
    watching = multiprocessing.Process(target=views, args=(daemon.http, viewers, seconds + WARM + 1, seen))
    if viewers:
        watching.start()
        time.sleep(WARM)
    senders = [
        multiprocessing.Process(target=load, args=(daemon.port, number, rate // SENDERS, seconds, results))
        for number in range(SENDERS if rate else 0)
    ]
    cpu, begun = daemon.cpu, time.monotonic()
    for one in senders:
        one.start()
    taken = sorted(ms for _ in senders for ms in results.get(timeout=seconds * 10 + 60))
    if not rate:
        time.sleep(seconds)
    used = 100 * (daemon.cpu - cpu) / (time.monotonic() - begun)
    for one in senders:
        one.join()
    told, asked = seen.get(timeout=60) if viewers else (0, 0)
    if viewers:
        watching.join()
    at = {"p50": 0.5, "p99": 0.99}
    shown = {name: round(1000 * taken[int(part * len(taken))], 1) if taken else 0.0 for name, part in at.items()}
    return {**shown, "cpu": round(used, 1), "told": told, "asked": asked}


# -- what is shown


def weight() -> None:
    sys.path.insert(0, str(ROOT))
    from wafermon.web import assets

    found = assets.load()
    plots = sum(len(one.compressed) for name, one in found.items() if name.startswith("uplot."))
    print(f"weight: {sum(len(one.compressed) for one in found.values())} B compressed, {plots} B of them for plots")


def first_page(daemon: Daemon) -> None:
    path = "/api/jobs?state=gone,failed,cancelled,unfinished,done&limit=50"
    taken = []
    for _ in range(20):
        begun = time.monotonic()
        answer = daemon.get(path)
        taken.append(time.monotonic() - begun)
    print(
        f"first page of {answer['total']} jobs: {1000 * median(taken):.0f} ms, at the most {1000 * max(taken):.0f} ms"
    )


def paint(daemon: Daemon, rows: int, what: str) -> None:
    environ = {**os.environ, "PAGE": f"http://127.0.0.1:{daemon.http}/", "ROWS": str(rows)}
    done = subprocess.run(
        ["node", "paint.mjs"], cwd=ROOT / "tests" / "browser", env=environ, capture_output=True, text=True, timeout=180
    )
    print(f"browser, {what}: {done.stdout.strip() or done.stderr.strip()[-300:]}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--viewers", type=int, default=100)
    parser.add_argument("--rate", type=int, default=20_000)
    given = parser.parse_args()
    weight()
    daemon = Daemon(given.directory)
    try:
        put_jobs(daemon.port, 10_000, "done").close()
        wait(lambda: daemon.get("/api/status")["backends"]["history"]["lag_messages"] == 0)
        first_page(daemon)
        paint(daemon, 50, "10,000 jobs in the past")
        running = put_jobs(daemon.port, 1_000, "running")
        paint(daemon, 1_000, "1,000 jobs that run")
        running.close()
        rounds: dict[bool, list[dict[str, float]]] = {False: [], True: []}
        for number in range(2 * given.rounds):
            viewed = number % 2 == 1
            result = under_load(daemon, given.rate, given.seconds, given.viewers if viewed else 0)
            rounds[viewed].append(result)
            print(f"{given.viewers if viewed else 0} viewers: {result}", flush=True)
        middle = {
            viewed: {name: median(one[name] for one in some) for name in some[0]} for viewed, some in rounds.items()
        }
        ratio = middle[True]["p99"] / middle[False]["p99"]
        each = (middle[True]["cpu"] - middle[False]["cpu"]) / given.viewers
        print(
            f"ack p99 {middle[False]['p99']} ms without, {middle[True]['p99']} ms with {given.viewers} viewers: {ratio:.2f} times"
        )
        print(
            f"the sidecar's CPU: {middle[False]['cpu']} % without, {middle[True]['cpu']} % with: {each:.2f} % of a core for each"
        )
        quiet = [under_load(daemon, 200, given.seconds, viewers)["cpu"] for viewers in (0, given.viewers)]
        print(
            f"at 200 messages/s: {quiet[0]} % without, {quiet[1]} % with: {(quiet[1] - quiet[0]) / given.viewers:.2f} % of a core for each"
        )
    finally:
        daemon.stop()


if __name__ == "__main__":
    main()
