"""A sidecar that misbehaves on command, and a strict one where nothing is commanded.

`FakeSidecar` serves protocol version 2 on TCP or a Unix socket. Each new connection takes the next `Manners` of its
script (the last one stays), keeps every byte, and checks what the client sends: framing, encoding, the hello, the seqs.
What breaks the protocol is a line in `problems`; every test ends with that list empty. Like the real sidecar it keeps
two marks a client: what it holds (for deduplication) and what it has acknowledged (for the welcome).

As a program it is a sidecar that can be killed: what it acknowledges is in its journal file, where it finds its marks
again.
    python fake_sidecar.py PORT JOURNAL
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MAX_LINE = 65_536
MAX_JUMP = 1_000_000
Message = dict[str, Any]

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
_NEEDLESS_ESCAPE = re.compile(rb"(?<!\\)(?:\\\\)*\\u(?!00[01]|007[fF])")
_HELLO_TYPES = {"v": int, "type": str, "client": str, "service": str, "host": str, "pid": int, "sdk": str, "ack": bool}
TYPES = {"event", "metric", "progress", "resource", "span_start", "span_end"}
# What an SDK frames at a time, and what the real sidecar would take.
FRAME_LEAST, FRAME_MOST, MAX_FRAME = 1 << 10, 256 << 10, 4 << 20
_FRAME_TYPES = {"type": str, "codec": str, "bytes": int, "raw": int, "lines": int}
_STATS_TYPES = {"called": int, "dropped": int, "unsent": int, "last": int, "streams": list}


@dataclass(frozen=True)
class Manners:
    """How one connection is treated; the default is what a healthy sidecar does."""

    refuse: str | None = None  # this error code instead of the welcome, then a close
    welcome: bool = True  # False: accept and never answer
    acked: int | None = None  # the mark in the welcome, whatever is true
    read: bool = True  # False: nothing is read after the hello
    ack: bool = True
    ack_after: float = 0.0  # seconds that an ack is late
    repeat: bool = False  # repeat the current ack every second
    reject: Mapping[int, str] = field(default_factory=dict)  # seq: error code
    close_after: int | None = None  # so many bytes after the hello, then a close, be it within a line
    reset_after: int | None = None  # so many messages, unacknowledged, then a TCP reset
    torn_ack: bool = False  # the first ack breaks off in the middle of its number, then a close
    slow: bool = False  # every byte of every reply alone
    chatty: bool = False  # spaces, CRLF, unknown fields and unknown replies
    compress: bool = False  # grant zlib to a client that can
    bad_frame: bool = False  # refuse the first frame, and close
    features: tuple[str, ...] = ()  # what the welcome offers: stats


@dataclass(frozen=True)
class Frame:
    """A frame that was whole: how many lines it held, and its bytes before and after compression."""

    lines: int
    raw: int
    compressed: int


class BadFrame(Exception):
    """A frame that a sidecar refuses, with what is wrong."""


class Connection:
    """One accepted connection and everything it brought."""

    def __init__(self, sidecar: FakeSidecar, sock: socket.socket, manners: Manners) -> None:
        self.sidecar = sidecar
        self.manners = manners
        self.opened = time.monotonic()
        self.closed: float | None = None
        self.hello: Message = {}
        self.data = bytearray()
        self.messages: list[Message] = []  # in order of arrival, what came again too
        self.tail = b""  # after the last newline, or after the last whole frame
        self.frames: list[Frame] = []
        self.plain = 0  # lines that came outside frames
        self._header: Message | None = None  # that of the frame whose block is still to come
        self._sock = sock
        self._seq = 0
        self._taken = 0
        self._acked = 0
        self._due: list[tuple[float, int]] = []  # (when, seq) of late acks
        self._repeat_at = float("inf")

    @property
    def client(self) -> str:
        return str(self.hello.get("client", ""))

    def run(self) -> None:
        try:
            self._converse()
        except OSError:
            pass  # the client, or a test, has gone away
        finally:
            self._sock.close()
            self.closed = time.monotonic()
            self.sidecar.changed()

    def end(self, reset: bool = False) -> None:
        """Close from another thread."""
        try:
            if reset:
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self._sock.close()
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def _converse(self) -> None:
        line = self._read_hello()
        if line is None:
            return
        self._check_hello(line)
        manners = self.manners
        if manners.refuse is not None:
            self._reply({"type": "error", "code": manners.refuse, "detail": "as the script says"})
            self._drain()
            return
        if not manners.welcome:
            self._drain()
            return
        self._acked = self.sidecar.acked.get(self.client, 0) if manners.acked is None else manners.acked
        self._seq = self._acked
        self._reply(self._welcome())
        if manners.repeat:
            self._repeat_at = time.monotonic() + 1
        while not manners.read:
            time.sleep(0.05)
            if self._sock.fileno() < 0 or self.sidecar.port is None:
                return
        while self._step():
            pass

    def _welcome(self) -> Message:
        welcome = {"v": 2, "type": "welcome", "sidecar": self.sidecar.id, "acked": self._acked, "max_line": MAX_LINE}
        if self._compresses():
            welcome.update(compress="zlib", max_frame=MAX_FRAME)
        if self.manners.features:
            welcome["features"] = list(self.manners.features)
            self.sidecar.offered.add(self.client)
        return welcome

    def _compresses(self) -> bool:
        return self.manners.compress and "zlib" in self.hello.get("compress", ())

    def _read_hello(self) -> bytes | None:
        while b"\n" not in self.data:
            chunk = self._sock.recv(65_536)
            if not chunk:
                return None
            self.data += chunk
        line, self.tail = bytes(self.data).split(b"\n", 1)
        if self.tail:
            self.sidecar.problem(self, "sends before the welcome")
        return line

    def _drain(self) -> None:
        """Read to the client's end, so that our close is no reset."""
        self._sock.settimeout(None if not self.manners.welcome else 0.5)
        if self.manners.refuse is not None:
            self._sock.shutdown(socket.SHUT_WR)
        while chunk := self._sock.recv(65_536):
            self.data += chunk
            if not self.manners.welcome:
                self.sidecar.problem(self, "sends before the welcome")
                return

    def _step(self) -> bool:
        """Take one chunk, or do what is due; false at the connection's end."""
        try:
            lines = self._split()
        except BadFrame as error:
            self._reply({"type": "error", "code": "bad_frame", "detail": str(error)})
            self._drain()
            return False
        for line in lines:
            if self.manners.reset_after is not None and self._taken >= self.manners.reset_after:
                break
            self._take(line)
        if self.manners.reset_after is not None and self._taken >= self.manners.reset_after:
            self.end(reset=True)
            return False
        if lines and self.manners.ack:
            if self.manners.ack_after:
                self._due.append((time.monotonic() + self.manners.ack_after, self._seq))
            elif not self._ack(self._seq):
                return False
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            self._ack(self._due.pop(0)[1])
        if self._repeat_at <= now:
            self._reply({"type": "ack", "seq": self._acked})
            self._repeat_at = now + 1
        wake = min([when for when, _ in self._due] + [self._repeat_at])
        self._sock.settimeout(None if wake == float("inf") else max(0.001, wake - now))
        size = 1 << 18
        if self.manners.close_after is not None:
            size = self.manners.close_after - (len(self.data) - self.data.index(b"\n") - 1)
            if size <= 0:
                self._sock.shutdown(socket.SHUT_RDWR)
                return False
        try:
            chunk = self._sock.recv(size)
        except TimeoutError:
            return True
        self.data += chunk
        self.tail += chunk
        return bool(chunk)

    def _split(self) -> list[bytes]:
        """The whole lines that have come, those of frames too; nothing of a frame that is refused.

        :raises BadFrame: once the lines before it are taken
        """
        lines: list[bytes] = []
        data, begin = self.tail, 0
        while True:
            if self._header is not None:
                size = self._header["bytes"]
                if len(data) - begin < size:
                    break
                header, self._header = self._header, None
                lines += self._unpacked(header, data[begin : begin + size])
                begin += size
                continue
            end = data.find(b"\n", begin)
            if end < 0:
                break
            line, begin = data[begin:end], end + 1
            if line.startswith(b'{"type":"frame"'):
                try:
                    self._header = self._checked_header(line)
                except BadFrame:
                    for earlier in lines:
                        self._take(earlier)
                    raise
            else:
                self.plain += 1
                lines.append(line)
        self.tail = data[begin:]
        return lines

    def _checked_header(self, line: bytes) -> Message:
        """The header of a frame that this connection may send.

        :raises BadFrame: by the script, or since it breaks the protocol, which is a problem then
        """
        if self.manners.bad_frame:
            raise BadFrame("as the script says")
        header = check_line(line, lambda text: self.sidecar.problem(self, text))
        wrong = [name for name, kind in _FRAME_TYPES.items() if type(header.get(name)) is not kind]
        good = (
            not wrong
            and set(header) == set(_FRAME_TYPES)
            and self._compresses()
            and header["codec"] == "zlib"
            and FRAME_LEAST <= header["raw"] <= FRAME_MOST
            and 0 < header["bytes"] <= header["raw"] + 1024
            and header["lines"] > 0
        )
        if not good:
            self.sidecar.problem(self, f"frame: {line!r}")
            raise BadFrame("its header is wrong")
        return header

    def _unpacked(self, header: Message, block: bytes) -> list[bytes]:
        """The lines of a block, which gives exactly what its header says."""
        stream = zlib.decompressobj()
        try:
            raw = stream.decompress(block, header["raw"] + 1)
        except zlib.error as error:
            self.sidecar.problem(self, f"frame: {error}")
            raise BadFrame(str(error)) from None
        whole = stream.eof and not stream.unused_data and not stream.unconsumed_tail
        if not whole or len(raw) != header["raw"] or raw.count(b"\n") != header["lines"] or not raw.endswith(b"\n"):
            self.sidecar.problem(self, f"frame: {header} is not what the block holds")
            raise BadFrame("not what the header says")
        self.frames.append(Frame(header["lines"], header["raw"], header["bytes"]))
        return raw.split(b"\n")[:-1]

    def _ack(self, seq: int) -> bool:
        if seq > self._acked:
            if self.manners.torn_ack and seq >= 10:
                self._sock.sendall(b'{"type":"ack","seq":1')  # of 10 and more: never to be taken for an ack of 1
                return False
            for rejected, code in sorted(self.manners.reject.items()):
                if self._acked < rejected <= seq:
                    self._reply({"type": "error", "seq": rejected, "code": code, "detail": "as the script says"})
            self._acked = seq
            self.sidecar.settle(self.client, seq)
        self._reply({"type": "ack", "seq": self._acked})
        return True

    def _reply(self, reply: Message) -> None:
        manners = self.manners
        if manners.chatty:
            noise = {"type": "weather", "seq": 999_999, "detail": 'rain \\ "cats"', "list": [{"seq": 1}, None, -1.5e3]}
            reply = {"new": {"seq": 888_888, "type": "ack"}, **reply, "later": "}"}
            first = b"" if reply["type"] == "welcome" else json.dumps(noise).encode() + b"\r\n"
            data = first + json.dumps(reply, separators=(" , ", " : ")).encode() + b"\r\n"
        else:
            data = json.dumps(reply, separators=(",", ":")).encode() + b"\n"
        self._sock.settimeout(None)
        if not manners.slow:
            self._sock.sendall(data)
            return
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for index in range(len(data)):
            self._sock.sendall(data[index : index + 1])
            time.sleep(0.002)

    def _check_hello(self, line: bytes) -> None:
        problem = self.sidecar.problem
        hello = check_line(line, lambda text: problem(self, text))
        for name, kind in _HELLO_TYPES.items():
            if type(hello.get(name)) is not kind:
                problem(self, f"hello: {name} is {hello.get(name)!r}")
        if hello.get("v") != 2 or hello.get("type") != "hello" or hello.get("ack") is not True:
            problem(self, f"hello: {line!r}")
        if not re.fullmatch(r"[0-9a-f]{16}", str(hello.get("client"))):
            problem(self, f"hello: client {hello.get('client')!r}")
        if unknown := set(hello) - set(_HELLO_TYPES) - {"token", "compress"}:
            problem(self, f"hello: unknown {sorted(unknown)}")
        codecs = hello.get("compress", [])
        if not isinstance(codecs, list) or not set(codecs) <= {"zstd", "zlib"}:
            problem(self, f"hello: compress {codecs!r}")
        self.hello = hello
        self.sidecar.changed()

    def _take(self, line: bytes) -> None:
        problem = self.sidecar.problem
        message = check_line(line, lambda text: problem(self, text))
        self._taken += 1
        if not message:
            return
        seq = message.get("seq")
        if message.get("client") != self.client or type(seq) is not int:
            problem(self, f"client and seq: {line[-80:]!r}")
            return
        # A sidecar that has forgotten everything gets the rest of a stream that it does not know.
        if seq != self._seq + 1 and not (self._seq == 0 and self.sidecar.forgetful):
            problem(self, f"seq {seq} after {self._seq}")
        if message.get("type") == "stats":
            self._check_stats(message)
        elif message.get("type") not in TYPES:
            problem(self, f"type {message.get('type')!r}")
        if type(message.get("ts")) is not int:
            problem(self, f"ts {message.get('ts')!r}")
        self._seq = seq
        self.messages.append(message)
        self.sidecar.hold(self, seq, line, message)

    def _check_stats(self, stats: Message) -> None:
        problem = self.sidecar.problem
        if self.client not in self.sidecar.offered:
            problem(self, "a stats line that nobody offered to take")
        for text in stats_problems(stats):
            problem(self, text)


def stats_problems(stats: Message) -> list[str]:
    """What is wrong with a stats line: its fields by themselves."""
    wrong = [
        f"stats: {name} is {stats.get(name)!r}"
        for name, kind in _STATS_TYPES.items()
        if type(stats.get(name)) is not kind
    ]
    wrong += [f"stats: {name} is {stats[name]!r}" for name in ("trace_id", "span_id") if name in stats]
    if stats.get("final", True) is not True:
        wrong.append(f"stats: final is {stats['final']!r}")
    if stats.get("last") != stats.get("seq", 0) - 1:
        wrong.append(f"stats: last is {stats.get('last')!r} in the line with seq {stats.get('seq')!r}")
    for stream in stats.get("streams", ()):
        client = stream.get("client")
        if set(stream) != {"client", "last"} or not re.fullmatch(r"[0-9a-f]{16}", str(client)) or stream["last"] < 1:
            wrong.append(f"stats: stream {stream!r}")
    return wrong


def check_line(line: bytes, problem: Callable[[str], None]) -> Message:
    """The parsed line, or {} and a problem."""
    if len(line) > MAX_LINE:
        problem(f"a line of {len(line)} bytes")
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        problem(f"{error}: {line[:200]!r}")
        return {}

    def refuse(token: str) -> None:
        problem(f"the token {token}")

    try:
        message = json.loads(text, parse_constant=refuse)
    except ValueError as error:
        problem(f"{error}: {line[:200]!r}")
        return {}
    if _NEEDLESS_ESCAPE.search(line):
        problem(f"a needless escape: {line[:200]!r}")
    if b"\\u0000" in line and not re.search(rb"\\\\u0000", line):
        problem("a NUL")
    if re.search(rb"\s", _STRING.sub(b"", line)):
        problem(f"white space between tokens: {line[:200]!r}")
    if not isinstance(message, dict):
        problem(f"not an object: {line[:200]!r}")
        return {}
    return message


class FakeSidecar:
    """Serves from `start()` to `stop()`, on the same address every time."""

    def __init__(
        self,
        script: Sequence[Manners] = (),
        path: str | None = None,
        journal: Path | None = None,
        port: int = 0,
        host: str = "127.0.0.1",
    ) -> None:
        self.id = secrets.token_hex(8)
        self.path = path
        self.host = host
        self.port: int | None = None
        self.connections: list[Connection] = []
        self.messages: list[Message] = []  # each once, in order of arrival
        self.held: dict[str, int] = {}  # client: highest seq that is here
        self.acked: dict[str, int] = {}  # client: highest seq that is acknowledged
        self.repeated = 0  # messages that came again
        self.problems: list[str] = []
        self.forgetful = False
        self.offered: set[str] = set()  # clients that were told that stats lines are taken
        self._script = list(script) or [Manners()]
        self._lines: dict[tuple[str, int], bytes] = {}
        self._wanted_port = port
        self._news = threading.Condition()
        self._listener: socket.socket | None = None
        self._journal = None
        if journal is not None:
            self._recover(journal)
            self._journal = journal.open("ab", buffering=0)

    # -- what tests command

    def start(self) -> FakeSidecar:
        if self.path is not None:
            Path(self.path).unlink(missing_ok=True)
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(self.path)
            self.port = -1
        else:
            family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
            listener = socket.socket(family)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            listener.bind((self.host, self._wanted_port))
            self._wanted_port = self.port = listener.getsockname()[1]
        listener.listen(1024)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return self

    def stop(self, reset: bool = False) -> None:
        """No listener, no connection: the sidecar is away."""
        if self._listener is not None:
            # Only a shutdown wakes the thread that is inside accept().
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        self.port = None
        for connection in self.open_connections():
            connection.end(reset)
        self.wait(lambda: not self.open_connections(), 5)

    def behave(self, *script: Manners) -> None:
        """The manners of the connections to come."""
        with self._news:
            self._script = list(script) or [Manners()]

    def forget(self) -> None:
        """Become another sidecar, with an empty journal."""
        self.id = secrets.token_hex(8)
        self.held.clear()
        self.acked.clear()
        self.messages = []
        self.forgetful = True

    # -- what tests look at

    @property
    def url(self) -> str:
        if self.path is not None:
            return f"unix://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self._wanted_port}"

    def open_connections(self) -> list[Connection]:
        return [connection for connection in self.connections if connection.closed is None]

    def wait(self, condition: Callable[[], Any], timeout: float) -> bool:
        """Whether the condition came true in time; looked at after each change."""
        deadline = time.monotonic() + timeout
        with self._news:
            while not condition():
                if (left := deadline - time.monotonic()) <= 0:
                    return False
                self._news.wait(min(left, 0.25))
        return True

    # -- what connections tell

    def changed(self) -> None:
        with self._news:
            self._news.notify_all()

    def problem(self, connection: Connection, text: str) -> None:
        self.problems.append(f"{connection.client or 'before the hello'}: {text}")

    def hold(self, connection: Connection, seq: int, line: bytes, message: Message) -> None:
        key = connection.client, seq
        with self._news:
            if self._lines.setdefault(key, line) != line:
                self.problem(connection, f"seq {seq} came again as {line[:200]!r}, was {self._lines[key][:200]!r}")
            if seq <= self.held.get(connection.client, 0):
                self.repeated += 1
                return
            self.held[connection.client] = seq
            self.messages.append(message)
            if self._journal is not None:
                self._journal.write(line + b"\n")
            self._news.notify_all()

    def settle(self, client: str, seq: int) -> None:
        with self._news:
            self.acked[client] = max(seq, self.acked.get(client, 0))
            self._news.notify_all()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with self._news:
                manners = self._script.pop(0) if len(self._script) > 1 else self._script[0]
                connection = Connection(self, sock, manners)
                self.connections.append(connection)
                self._news.notify_all()
            threading.Thread(target=connection.run, daemon=True).start()

    def _recover(self, journal: Path) -> None:
        data = journal.read_bytes() if journal.exists() else b""
        whole = data.rpartition(b"\n")
        journal.write_bytes(whole[0] + whole[1])
        for line in whole[0].splitlines():
            message = json.loads(line)
            self.held[message["client"]] = self.acked[message["client"]] = message["seq"]


def main(port: str, journal: str) -> None:
    sidecar = FakeSidecar(port=int(port), journal=Path(journal)).start()
    print("ready", sidecar.url, flush=True)
    try:
        sys.stdin.read()  # until the one that started us closes the pipe, or kills us
    finally:
        print("\n".join(sidecar.problems), file=sys.stderr)
        os._exit(bool(sidecar.problems))


if __name__ == "__main__":
    main(*sys.argv[1:])
