"""A real sidecar in a process of its own, and a client that speaks the protocol line by line."""

from __future__ import annotations

import json
import os
import random
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ports import free_port
from typing_extensions import Self

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0


def until(condition: Callable[[], Any], what: str = "the condition", patience: float = PATIENCE) -> Any:
    """Wait for something to be true, and answer with it."""
    deadline = time.monotonic() + patience
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come about within {patience:g} s")
        time.sleep(0.02)
    return found


def pages() -> list[Path]:
    """All that is written for people."""
    folders = ("docs", "sdk", "examples", "deploy", "benchmarks")
    found = [*ROOT.glob("*.md"), *(page for folder in folders for page in sorted((ROOT / folder).rglob("*.md")))]
    return [page for page in found if not {"node_modules", "build", "target"} & set(page.relative_to(ROOT).parts)]


CONFIG = """
listen: ["tcp:{port}:interface=127.0.0.1"{listen}]
http: false
reload: signal
journal: {{dir: journal, segment_bytes: 1MiB, max_bytes: 64MiB, sync: always, spill_dir: spill}}
{limits}
backends:
  files: {{plugin: filesystem, path: "logs/{{service}}.jsonl", batch: {{age: 50ms}}}}
routes: [{{to: [files]}}]
dead_letters: {{dir: dead-letters}}
"""


class Daemon:
    """`twistd -n wafermon` in `directory`; use it as a context manager."""

    def __init__(self, directory: Path, config: str = CONFIG, *, listen: str = "", limits: str = "") -> None:
        self.directory = directory
        self.port = free_port()
        (directory / "spill").mkdir(exist_ok=True)
        (directory / "wafermon.yaml").write_text(config.format(port=self.port, listen=listen, limits=limits))
        self.process: subprocess.Popen[bytes] | None = None
        self.environ: dict[str, str] = {}
        twistd = str(Path(sys.executable).with_name("twistd"))
        self.command = [twistd, "-n", "--pidfile=", "wafermon", "--config", "wafermon.yaml"]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.stop()

    def start(self) -> None:
        """Returns when it listens."""
        with (self.directory / "daemon.log").open("ab") as log:
            self._log_begins = log.tell()
            self.process = subprocess.Popen(
                self.command,
                cwd=self.directory,
                env={**os.environ, "PYTHONPATH": str(ROOT), **self.environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until(self._ready, "a daemon that is ready")

    def _ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        return b"is ready; its journal is" in (self.directory / "daemon.log").read_bytes()[self._log_begins :]

    def stop(self) -> int:
        """End it as an operator would; answers with its exit status, the negated signal."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> int:
        assert self.process is not None
        process, self.process = self.process, None
        process.send_signal(number)
        return process.wait(PATIENCE)

    def log(self) -> str:
        return (self.directory / "daemon.log").read_text()

    def client(self, **hello: Any) -> Client:
        return Client(("127.0.0.1", self.port), **hello)

    def bare(self) -> socket.socket:
        """A connection. On a busy machine it may be refused, and closed, before `connect` has looked at it: then another."""
        for _ in range(20):
            with suppress(BrokenPipeError, ConnectionResetError):
                return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        raise AssertionError("no connection in twenty tries")

    def stored(self, service: str | None = None) -> list[dict[str, Any]]:
        """What the files hold now, by file and line; whole lines of JSON or an AssertionError."""
        found = []
        for path in sorted((self.directory / "logs").glob("*.jsonl")):
            if service is None or path.name == f"{service}.jsonl":
                found += read_lines(path)
        return found

    def letters(self) -> list[dict[str, Any]]:
        """The dead letters."""
        return [line for path in sorted((self.directory / "dead-letters").glob("*.jsonl")) for line in read_lines(path)]


def read_lines(path: Path) -> list[dict[str, Any]]:
    data = path.read_bytes()
    return [json.loads(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]


class Client:
    """An acknowledged connection."""

    def __init__(
        self,
        address: tuple[str, int] | str,
        *,
        client: str = "",
        service: str = "test",
        tls: ssl.SSLContext | None = None,
        **hello: Any,
    ) -> None:
        self.client = client or secrets.token_hex(8)
        if isinstance(address, str):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(address)
        else:
            self.socket = socket.create_connection(address)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self.socket.settimeout(PATIENCE)
        self.replies = self.socket.makefile("rb")
        # A refused client that comes late to write finds the connection cut; why is still there to be read.
        with suppress(BrokenPipeError, ConnectionResetError):
            self.send_line({"v": 2, "type": "hello", "client": self.client, "service": service, "ack": True, **hello})
        self.welcome = self.reply()

    def line(self, seq: int, **fields: Any) -> dict[str, Any]:
        """An event of this client."""
        event = {"type": "event", "service": "test", "level": "info", "message": f"message {seq}"}
        return {**event, **fields, "client": self.client, "seq": seq}

    def send_line(self, line: dict[str, Any] | bytes) -> None:
        data = line if isinstance(line, bytes) else json.dumps(line).encode()
        self.socket.sendall(data + b"\n")

    def send(self, seqs: Iterable[int], **fields: Any) -> None:
        self.send_all(self.line(seq, **fields) for seq in seqs)

    def send_all(self, lines: Iterable[dict[str, Any]]) -> None:
        self.socket.sendall(b"".join(json.dumps(line).encode() + b"\n" for line in lines))

    def reply(self) -> dict[str, Any]:
        """The next line of the sidecar; empty at the end of the connection."""
        line = self.replies.readline()
        return json.loads(line) if line else {}

    def until_acked(self, seq: int) -> list[dict[str, Any]]:
        """Read until `seq` is acknowledged; answers with what else came."""
        others: list[dict[str, Any]] = []
        while True:
            reply = self.reply()
            assert reply, f"the connection ended before {seq} was acknowledged; it said {others}"
            if reply["type"] == "ack" and reply["seq"] >= seq:
                return others
            if reply["type"] != "ack":
                others.append(reply)

    def close(self) -> list[dict[str, Any]]:
        """End the sending side and read to the end, as an SDK does."""
        self.socket.shutdown(socket.SHUT_WR)
        rest = [json.loads(line) for line in self.replies]
        self.drop()
        return rest

    def drop(self) -> None:
        self.replies.close()
        self.socket.close()


class Load:
    """A client that goes on through everything, as an SDK does: reconnects, and sends what is not acknowledged."""

    def __init__(self, daemon: Daemon, number: int, kinds: Sequence[Mapping[str, Any]] = ({},)) -> None:
        """What its messages have besides the usual is one of `kinds`, in turn."""
        self.name = f"{number:016x}"
        self._kinds = kinds
        self.service = f"load-{number}"
        self.acked = 0
        self.stopping = False
        self._daemon = daemon
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self.stopping:
            try:
                self._talk()
            except OSError:
                time.sleep(random.uniform(0, 0.05))

    def _talk(self) -> None:
        client = Client(("127.0.0.1", self._daemon.port), client=self.name, service=self.service)
        try:
            if not client.welcome:
                return
            assert client.welcome["acked"] >= self.acked
            self.acked = client.welcome["acked"]
            client.socket.settimeout(30)
            while not self.stopping:
                first = self.acked + 1
                client.send_all(
                    {**client.line(seq, service=self.service), **self._kinds[seq % len(self._kinds)]}
                    for seq in range(first, first + random.randrange(1, 300))
                )
                while self.acked < first:
                    reply = client.reply()
                    if not reply:
                        return
                    assert reply["type"] == "ack", reply
                    self.acked = max(self.acked, reply["seq"])
        finally:
            client.drop()

    def join(self) -> None:
        self.stopping = True
        self._thread.join(60)
        assert not self._thread.is_alive()
