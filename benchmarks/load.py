"""What the benchmarks share: a fast sender, the servers under test, and what they cost. Talks to 127.0.0.1 only."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
WINDOW_BYTES = 4 << 20
"""What a connection sends ahead of its acks, like an SDK."""


def line(seq: int, client: str, size: int, now: int) -> bytes:
    """An event as an SDK sends it, `size` bytes long with its newline."""
    text = (
        f'{{"type":"event","ts":{now + seq},"service":"file-receiver","host":"fab1","pid":4711,"trace_id":"job-4711",'
        f'"level":"info","message":"file received","context":{{"file":"lot-17.dat","rows":{seq},"ok":true}}'
    )
    tail = f',"client":"{client}","seq":{seq}}}\n'
    fill = size - len(text) - len(tail) - len(',"x":""')
    filler = f',"x":"{"x" * fill}"' if fill >= 0 else ""
    return (text[:-1] + filler + "}" + tail).encode()


def lines(count: int, client: str, size: int, first: int = 1) -> bytes:
    now = int(time.time() * 1e6)
    return b"".join(line(seq, client, size, now) for seq in range(first, first + count))


def connect(port: int, patience: float = 10.0) -> socket.socket:
    deadline = time.monotonic() + patience
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=60)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@dataclass
class Sender:
    """One acknowledged connection with its lines made beforehand."""

    port: int
    count: int
    size: int = 240
    client: str = field(default_factory=lambda: secrets.token_hex(8))

    def run(self) -> float:
        """Send everything and wait until all of it is acknowledged. Answers with the seconds it took."""
        data = memoryview(lines(self.count, self.client, self.size))
        begun = time.monotonic()
        with connect(self.port) as connection:
            hello = {"v": 2, "type": "hello", "client": self.client, "service": "file-receiver", "ack": True}
            connection.sendall(json.dumps(hello).encode() + b"\n")
            replies = connection.makefile("rb")
            assert b'"welcome"' in replies.readline()
            connection.setblocking(False)
            acked = sent = 0
            rest = b""
            while acked < self.count:
                if sent < len(data) and sent - acked * self.size < WINDOW_BYTES:
                    try:
                        sent += connection.send(data[sent : sent + (1 << 18)])
                    except BlockingIOError:
                        time.sleep(0.0005)
                else:
                    time.sleep(0.001)
                try:
                    rest += connection.recv(1 << 16)
                except BlockingIOError:
                    continue
                *whole, rest = rest.split(b"\n")
                for reply in whole:
                    if b'"ack"' in reply:
                        acked = int(reply.split(b":")[-1].rstrip(b"}"))
        return time.monotonic() - begun


@dataclass
class Process:
    """A server under test."""

    process: subprocess.Popen[bytes]

    @property
    def cpu(self) -> float:
        """CPU seconds so far, user and system, all threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    @property
    def rss(self) -> float:
        """Resident memory now, MiB."""
        return self._status("VmRSS:")

    @property
    def peak(self) -> float:
        """The most resident memory so far, MiB."""
        return self._status("VmHWM:")

    def _status(self, name: str) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(row for row in status.splitlines() if row.startswith(name)).split()[1]) / 1024

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start(*arguments: str, cwd: Path) -> Process:
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    log = (cwd / "server.log").open("ab")
    command = [sys.executable, *arguments]
    return Process(subprocess.Popen(command, cwd=cwd, env=environ, stdout=log, stderr=log))


def sidecar(cwd: Path, config: str) -> Process:
    """`twistd -n wafermon` with this config."""
    (cwd / "wafermon.yaml").write_text(config)
    twistd = str(Path(sys.executable).with_name("twistd"))
    return start(twistd, "-n", "--pidfile=", "wafermon", "--config", "wafermon.yaml", cwd=cwd)


def senders(port: int, connections: int, count: int, size: int = 240) -> float:
    """Several senders in processes of their own; the seconds from the first byte to the last ack of all."""
    code = f"from load import Sender; print(Sender({port}, {count}, {size}).run())"
    here = Path(__file__).resolve().parent
    running = [
        subprocess.Popen([sys.executable, "-c", code], cwd=here, stdout=subprocess.PIPE) for _ in range(connections)
    ]
    return max(float(one.communicate(timeout=300)[0]) for one in running)
