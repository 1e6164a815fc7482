"""The Python SDK of wafermon: events, metrics, progress, resources and spans for the sidecar.

What it promises:

- A call never blocks on the network and never raises because of it; only a programming error (an unknown level, a
  percent of 300) raises, at the call. What a call was given is fixed when it returns.
- A message is kept until the sidecar acknowledges it. While the sidecar is away, up to `buffer` messages wait in memory;
  what does not fit goes to spill files, and only when those are full or can't be written is a message dropped, and counted.
- Threads may share an SDK. A forked child starts empty, with its own connection and client.
- `get_stats()` adds up: called = acked + rejected + dropped + waiting + handed_over.

How it does so: a call only puts its arguments into an inbox. One sender thread, started by the first call, encodes
them, numbers them and writes them; it looks into the inbox every few milliseconds while there is work, and is woken by a
call only after it has gone to sleep, since waking it costs more than the call itself. Each connection is opened by a
thread of its own, so that a slow name server or a hung sidecar keeps the sender from nothing.
"""

from __future__ import annotations

import atexit
import contextvars
import fcntl
import functools
import heapq
import json.encoder
import logging
import numbers
import os
import random
import re
import reprlib
import select
import signal
import socket
import stat
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Callable, Deque, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple, Type, TypeVar, Union, cast
from urllib.parse import urlsplit

__all__ = ["MonitoringHandler", "MonitoringSDK"]
__version__ = "2.0.0"

_DEFAULT_URL = "tcp://127.0.0.1:7411"
_BUFFER = 1000  # messages that may wait to be sent
_BYTES = 4 << 20  # ... their bytes, and the bytes sent and unacknowledged
_BODY_MAX = 65_536 - 64  # the rest of a line is for client and seq
_FILE_MAX = 1 << 20
_SPILL_MAX = 64 << 20
_SILENCE = 5.0  # seconds without a byte after which a connection that owes us acks is dead
_GRACE = 0.1  # seconds a burst at the very start may wait for the first welcome before it spills

_TICK = 0.005  # how often a busy sender looks into its inbox
_IDLE_TICKS = 10  # this many empty looks, and it goes to sleep
_PORTION = 64  # messages encoded before others get the interpreter
_LONG = 256  # an inbox longer than that makes callers let the sender run
_NAP, _NAP_MAX = 0.00005, 0.0006  # by sleeping this long, again and again, at most that long a call

_LEVELS = frozenset(("debug", "info", "warning", "error", "critical"))
_DISABLED_NOT = ("", "0", "false", "no")
_SERVICE = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_TRACE_ID = re.compile(r"[!-~]{1,128}")
_SPAN_ID = re.compile(r"[0-9a-f]{16}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}.*")
_system_random = random.SystemRandom()


# ---- encoding ----

_EXACT = 1 << 53
_DEPTH = 8
_NODES = 32_768  # more values than this can't fit into a line
_SHORTEST = 64  # cutting strings below this gains nothing: the context goes
_FLAT = frozenset((str, int, float, bool, type(None)))
_FLAT_MAX = 64
_SURROGATE = re.compile("[\ud800-\udfff]")
_quote = json.encoder.encode_basestring
_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 200


class _TooLarge(Exception):
    """A context has more values than any line can hold."""


class _Kind(NamedTuple):
    """A message type: how its line begins, and the names of its own fields; context or tags come last."""

    head: str
    keys: Tuple[str, ...]


def _kind(name: str, *fields: str) -> _Kind:
    return _Kind(f'{{"type":"{name}","ts":', tuple(f',"{field}":' for field in fields))


_EVENT = _kind("event", "level", "message", "context")
_METRIC = _kind("metric", "name", "value", "unit", "kind", "tags")
_PROGRESS = _kind("progress", "job_id", "percent", "status")
_RESOURCE = _kind("resource", "cpu", "mem", "disk", "net")
_SPAN_START = _kind("span_start", "name", "parent_id", "tags")
_SPAN_END = _kind("span_end", "status", "name", "start", "duration", "parent_id", "tags")


def _json(value: Any) -> str:
    """JSON of a value made of plain types only; what JSON can't say becomes null, a string or U+FFFD."""
    kind = type(value)
    if kind is str:
        return _quote(value.replace("\0", "\ufffd"))
    if kind is int:
        if -_EXACT <= value <= _EXACT:
            return repr(value)
        # the interpreter refuses to write out very long integers in decimal
        return f'"{value}"' if value.bit_length() < 2_000 else f'"{value:#x}"'
    if kind is float:
        return repr(value) if value - value == 0.0 else "null"
    if kind is dict:
        return "{" + ",".join([_json(key) + ":" + _json(item) for key, item in value.items()]) + "}"
    if kind is list:
        return "[" + ",".join([_json(item) for item in value]) + "]"
    return "null" if value is None else "true" if value else "false"


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _SURROGATE.sub("\ufffd", text).encode()


def _text(value: Any) -> str:
    """Any object as text, whatever its own methods do."""
    try:
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value).decode("utf-8", "replace")
        return str.__str__(str(value))
    except Exception:
        return f"<{type(value).__name__}>"


def _plain(value: Any, depth: int, left: List[int]) -> Any:
    """A deep copy in plain types, cut at depth 8; raises _TooLarge when `left[0]` values are used up."""
    left[0] -= 1
    if left[0] < 0:
        raise _TooLarge
    if type(value) in _FLAT:
        return value
    if isinstance(value, (Mapping, list, tuple, set, frozenset)):
        if depth > _DEPTH:
            try:
                return _text(_repr.repr(value))
            except Exception:
                return f"<{type(value).__name__}>"
        if isinstance(value, Mapping):
            return {_text(key): _plain(item, depth + 1, left) for key, item in value.items()}
        return [_plain(item, depth + 1, left) for item in value]
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    return _text(value)


def _strings(holder: Any) -> Iterator[Tuple[Any, Any, str]]:
    """Every string in lists and dicts, with its holder and its place there."""
    for place, value in list(holder.items() if type(holder) is dict else enumerate(holder)):
        if type(value) is str:
            yield holder, place, value
        elif type(value) is dict or type(value) is list:
            yield from _strings(value)


def _cut_strings(values: List[Any], excess: int) -> bool:
    """Cut the longest string, again and again, until `excess` bytes are saved; False if that is not to be had."""
    heap = [
        (-len(_utf8(_json(text))), number, holder, place)
        for number, (holder, place, text) in enumerate(_strings(values))
    ]
    heapq.heapify(heap)
    while excess > 0:
        if not heap or heap[0][0] > -_SHORTEST:
            return False
        size, number, holder, place = heap[0]
        raw = _utf8(holder[place])
        # a character may take six bytes on the wire: cut at most half, then look again
        holder[place] = raw[: max(len(raw) // 2, len(raw) - excess)].decode("utf-8", "ignore")
        smaller = -len(_utf8(_json(holder[place])))
        excess += size - smaller
        heapq.heapreplace(heap, (smaller, number, holder, place))
    return True


def _encode(kind: _Kind, ts: int, origin: str, scope: str, values: List[Any]) -> bytes:
    """A message without its client, its seq and its closing brace, short enough for any line."""

    def body() -> bytes:
        parts = [kind.head, str(ts // 1000), origin, scope]
        for key, value in zip(kind.keys, values):
            if value is not None:
                parts.append(key)
                parts.append(_json(value))
        return _utf8("".join(parts))

    truncated = b""
    if values[-1] is _TooLarge:
        values[-1] = None
        truncated = b',"truncated":true'
    line = body()
    while len(line) + len(truncated) > _BODY_MAX:
        truncated = b',"truncated":true'
        if not _cut_strings(values, len(line) + len(truncated) - _BODY_MAX):
            values[-1] = None
        line = body()
    return line + truncated


# ---- trace and span ----


class _Span(NamedTuple):
    """An open span."""

    name: str
    ts: int  # nanoseconds
    started: int  # nanoseconds, monotonic
    parent_id: Optional[str]
    tags: Optional[Dict[str, Any]]
    scope: _Scope
    pid: int


class _Scope:
    """Trace and span in which a call is made, also as the JSON that goes into its line."""

    __slots__ = ("ended", "outer", "span_id", "text", "trace_id")

    def __init__(self, trace_id: Optional[str], span_id: Optional[str], outer: Optional[_Scope] = None) -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.outer = outer
        self.ended = False
        self.text = "".join(
            f',"{key}":{_json(value)}' for key, value in (("trace_id", trace_id), ("span_id", span_id)) if value
        )


def _checked_trace_id(trace_id: str) -> str:
    if not isinstance(trace_id, str) or not _TRACE_ID.fullmatch(trace_id):
        raise ValueError(f"a trace id is 1 to 128 printable ASCII characters without space, not {trace_id!r}")
    return trace_id


def _scope_of_environment(trace_id: Optional[str]) -> _Scope:
    trace, span = os.environ.get("WAFERMON_TRACE_ID", ""), os.environ.get("WAFERMON_SPAN_ID", "")
    if not trace and not span:
        match = _TRACEPARENT.fullmatch(os.environ.get("TRACEPARENT", ""))
        trace, span = match.groups() if match else ("", "")
    if not _TRACE_ID.fullmatch(trace):
        trace = ""
    return _Scope(trace_id or trace or None, span if _SPAN_ID.fullmatch(span) else None)


# ---- connections ----


class _Address(NamedTuple):
    """Where the sidecar listens: a Unix socket's path, or a host and a port, with or without TLS."""

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, url: str) -> _Address:
        parts = urlsplit(url)
        if parts.scheme == "unix" and parts.path and not parts.netloc:
            return cls("unix", parts.path, 0)
        if parts.scheme not in ("tcp", "tls") or not parts.hostname or parts.path not in ("", "/"):
            raise ValueError(f"not a sidecar's url: {url!r}")
        return cls(parts.scheme, parts.hostname, parts.port or (7411 if parts.scheme == "tcp" else 7413))

    def targets(self) -> List[Tuple[int, Any]]:
        if self.scheme == "unix":
            return [(socket.AF_UNIX, self.host)]
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        return [(family, target) for family, _, _, _, target in found]


class _Refused(Exception):
    """The sidecar answered the hello with an error."""


class _Link:
    """A connection after its hello and welcome; nothing in it blocks. `over` tells that it has ended."""

    def __init__(self, sock: socket.socket, received: bytes, would_block: Tuple[Type[BaseException], ...]) -> None:
        self.sock = sock
        self.over = False
        self._received = received
        self._would_block = would_block

    def read(self) -> Optional[List[Dict[str, Any]]]:
        """The replies that have come; None when not a single byte has."""
        heard = False
        while not self.over:
            try:
                data = self.sock.recv(65_536)
            except self._would_block:
                break
            except OSError:
                data = b""
            self.over = not data or len(self._received) > _FILE_MAX
            heard = heard or bool(data)
            self._received += data
        *lines, self._received = self._received.split(b"\n")
        return [_reply(line) for line in lines] if heard or lines else None

    def write(self, data: Union[bytes, memoryview]) -> int:
        try:
            return self.sock.send(data)
        except self._would_block:
            return 0
        except OSError:
            self.over = True
            return 0

    def farewell(self, deadline: float) -> None:
        """Shut down our side, read to the end and close: an unread reply would reset the connection."""
        try:
            self.sock.settimeout(max(0.001, min(0.5, deadline - time.monotonic())))
            self.sock.shutdown(socket.SHUT_WR)
            while self.sock.recv(65_536) and time.monotonic() < deadline:
                pass
        except OSError:
            pass
        self.sock.close()


def _reply(line: bytes) -> Dict[str, Any]:
    try:
        reply = json.loads(line)
    except ValueError:
        reply = None
    return reply if isinstance(reply, dict) else {}


def _number(value: Any) -> int:
    return value if type(value) is int else 0


def _dial(address: _Address, hello: bytes, opened: Callable[[Callable[[], socket.socket]], socket.socket]) -> Tuple[_Link, int]:
    """Connect, say hello and wait for the welcome: the link, and what the sidecar has acknowledged so far.

    Blocks for up to 5 s and raises OSError or _Refused. Each socket is made through `opened`, so that a
    fork meanwhile finds it.
    """
    deadline = time.monotonic() + _SILENCE
    would_block: Tuple[Type[BaseException], ...] = (BlockingIOError, InterruptedError)
    failure: Exception = OSError("no address")
    for family, target in address.targets():
        sock = opened(functools.partial(socket.socket, family, socket.SOCK_STREAM))
        try:
            sock.settimeout(max(0.001, deadline - time.monotonic()))
            sock.connect(target)
            if family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if address.scheme == "tls":
                import ssl  # costs more than all the rest of this module

                wrap = functools.partial(ssl.create_default_context().wrap_socket, sock, server_hostname=address.host)
                sock = opened(wrap)
                would_block += (ssl.SSLWantReadError, ssl.SSLWantWriteError)
            sock.sendall(hello)
            received = b""
            while b"\n" not in received:
                sock.settimeout(max(0.001, deadline - time.monotonic()))
                data = sock.recv(65_536)
                if not data or len(received) > _FILE_MAX:
                    raise ConnectionError("closed before the welcome")
                received += data
            line, _, rest = received.partition(b"\n")
            welcome = _reply(line)
            if welcome.get("type") == "error":
                raise _Refused(f"the sidecar refused: {welcome.get('code')} {welcome.get('detail', '')}".rstrip())
            if welcome.get("type") != "welcome" or welcome.get("v") not in (None, 2):
                raise _Refused(f"{address.host} does not speak protocol version 2")
            sock.setblocking(False)
            return _Link(sock, rest, would_block), _number(welcome.get("acked"))
        except (OSError, _Refused) as error:
            sock.close()
            failure = error
    raise failure


class _Totals:
    """What get_stats() counts; written by the sender alone, under the SDK's lock."""

    def __init__(self) -> None:
        self.taken = self.sent = self.acked = self.rejected = self.dropped = 0
        self.spilled = self.handed_over = self.resent = self.reconnects = 0


class _Stream:
    """One client's messages on their way: numbered, sent, and kept until they are acknowledged.

    `connect` and `pump` are called by the sender under the SDK's lock; only the dialling happens elsewhere.
    """

    def __init__(self, sdk: MonitoringSDK, client: str) -> None:
        self.client = client
        self.link: Optional[_Link] = None
        self.opening: Optional[socket.socket] = None
        self.dialling = False
        self.welcomes = 0
        self.failures = 0
        self.retry_at = 0.0
        self.seq = 0  # the last one given
        self.window: Deque[Tuple[int, bytes]] = deque()
        self.window_bytes = 0
        self._sdk = sdk
        self._highest_sent = 0
        self._fresh: List[bytes] = []
        self._out: Deque[Union[bytes, memoryview]] = deque()
        self._heard = 0.0

    def number(self, body: bytes) -> None:
        """Give the message its seq, for ever, and keep it until that is acknowledged."""
        self.seq += 1
        self.keep(self.seq, b'%s,"client":"%s","seq":%d}\n' % (body, self.client.encode(), self.seq))

    def keep(self, seq: int, line: bytes) -> None:
        if not self.window:
            self._heard = time.monotonic()
        self.window.append((seq, line))
        self.window_bytes += len(line)
        if self.link:
            self._send(seq, line)

    def _send(self, seq: int, line: bytes) -> None:
        if seq > self._highest_sent:
            self._highest_sent = seq
            self._sdk._totals.sent += 1
        else:
            self._sdk._totals.resent += 1
        self._fresh.append(line)

    def connect(self, now: float) -> None:
        """Have a connection opened, if there is none and the last failure is long enough ago."""
        if not self.link and not self.dialling and now >= self.retry_at:
            self.dialling = True
            self._sdk._spawn(self._dial_and_report, self._sdk._generation)

    def _dial_and_report(self, generation: object) -> None:
        sdk = self._sdk

        def opened(make: Callable[[], socket.socket]) -> socket.socket:
            with sdk._lock:
                self.opening = make()
                return self.opening

        try:
            link, acked = _dial(sdk._address, sdk._hello(self.client), opened)
        except Exception as error:
            if isinstance(error, _Refused):
                sdk._say(str(error))
            with sdk._lock:
                self.dialling, self.opening = False, None
                self._failed()
        else:
            with sdk._lock:
                self.dialling, self.opening = False, None
                if sdk._over:
                    link.sock.close()
                else:
                    self._welcomed(link, acked)
        sdk._ring()

    def _welcomed(self, link: _Link, acked: int) -> None:
        self.link = link
        self.welcomes += 1
        self._heard = time.monotonic()
        self._settle(acked)
        for seq, line in self.window:
            self._send(seq, line)

    def _failed(self) -> None:
        ceiling = min(30.0, 0.1 * 2 ** min(self.failures, 10))
        self.failures += 1
        self.retry_at = time.monotonic() + _system_random.uniform(0.0, ceiling)

    def lose(self) -> None:
        """Close the connection at once; what is unacknowledged stays for the next one."""
        if self.link:
            self.link.sock.close()
            self.link = None
        self._fresh.clear()
        self._out.clear()

    def pump(self, now: float) -> None:
        """Read what has come, write what the socket takes, and only then judge the connection."""
        link = self.link
        if not link:
            return
        replies = link.read()
        if replies is not None:
            self._heard = now
            for reply in replies:
                if reply.get("type") == "ack":
                    self._settle(_number(reply.get("seq")))
                elif reply.get("type") == "error":
                    self._reject(_number(reply.get("seq")), reply)
        if self._fresh:
            self._out.append(b"".join(self._fresh))
            self._fresh.clear()
        while self._out and not link.over:
            written = link.write(self._out[0])
            if written < len(self._out[0]):
                self._out[0] = memoryview(self._out[0])[written:]
                break
            self._out.popleft()
        if link.over or (self.window and now - self._heard > _SILENCE):
            self.lose()
            self._failed()

    def _settle(self, acked: int) -> None:
        while self.window and self.window[0][0] <= acked:
            _, line = self.window.popleft()
            self.window_bytes -= len(line)
            self._sdk._totals.acked += 1
            self.failures = 0

    def _reject(self, seq: int, reply: Dict[str, Any]) -> None:
        for place, (number, line) in enumerate(self.window):
            if number == seq:
                del self.window[place]
                self.window_bytes -= len(line)
                self._sdk._totals.rejected += 1
                return
        self._sdk._say(f"the sidecar says: {reply.get('code')} {reply.get('detail', '')}".rstrip())

    def blocked(self) -> bool:
        return bool(self._out)

    def deadline(self) -> float:
        """When this stream has to be looked at again though nothing happens."""
        if self.link:
            return self._heard + _SILENCE + 0.01 if self.window else float("inf")
        return float("inf") if self.dialling else self.retry_at


# ---- spill ----


class _SpillFile:
    """A file of whole lines with a client of its own; locked as long as its writer lives and wants it."""

    def __init__(self, directory: str, service: str, client: str) -> None:
        self.client = client
        self.path = os.path.join(directory, f"{service}.{os.getpid()}.{client}.ldjson")
        self.count = 0
        self.size = 0
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        # readable for the group: in a setgid spill dir that is the sidecar's
        self.fd = os.open(self.path, flags, 0o640)
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pass  # a file system without locks: the pid in the name still tells that we live

    def append(self, lines: List[bytes]) -> int:
        """Write the lines; how many got there. A line that fits only partly is taken back."""
        data = b"".join(lines)
        kept = 0
        try:
            while kept < len(data):
                kept += os.write(self.fd, data[kept:])
        except OSError:
            kept = data.rfind(b"\n", 0, kept) + 1
            os.ftruncate(self.fd, self.size + kept)
        self.size += kept
        done = len(lines) if kept == len(data) else data.count(b"\n", 0, kept)
        self.count += done
        return done

    def lines(self) -> List[bytes]:
        data = b""
        while len(data) < self.size:
            more = os.pread(self.fd, self.size - len(data), len(data))
            if not more:
                break
            data += more
        return data.splitlines(keepends=True)

    def claim(self) -> bool:
        """Take the file for sending; False when somebody else has."""
        try:
            os.rename(self.path, self.path + ".taken")
        except OSError:
            return False
        self.path += ".taken"
        return True

    def release(self) -> None:
        """Leave the file to whoever takes it up."""
        if self.path.endswith(".taken"):
            try:
                os.rename(self.path, self.path[: -len(".taken")])
            except OSError:
                pass
        os.close(self.fd)

    def remove(self) -> None:
        try:
            os.unlink(self.path)
        except OSError:
            pass
        os.close(self.fd)


class _Spool:
    """An SDK's spill files: the newest is written, only closed ones are sent, 64 MiB in all."""

    def __init__(self, directory: Optional[str], service: str) -> None:
        self.current: Optional[_SpillFile] = None
        self.closed: Deque[_SpillFile] = deque()
        self.sending: Optional[_SpillFile] = None
        self._directory = directory
        self._service = service
        self._retry_at = 0.0

    def files(self) -> List[_SpillFile]:
        return [file for file in (self.sending, *self.closed, self.current) if file]

    def write(self, bodies: List[bytes]) -> int:
        """Append the messages; how many there was room for."""
        done = 0
        room = _SPILL_MAX - sum(file.size for file in self.files())
        while done < len(bodies) and time.monotonic() >= self._retry_at:
            file = self.current
            try:
                if not file:
                    file = self.current = self._open(_new_id())
            except OSError:
                self._retry_at = time.monotonic() + 1.0
                break
            lines: List[bytes] = []
            size = 0
            while done + len(lines) < len(bodies):
                seq = file.count + len(lines) + 1
                line = b'%s,"client":"%s","seq":%d}\n' % (bodies[done + len(lines)], file.client.encode(), seq)
                if file.size + size + len(line) > _FILE_MAX or size + len(line) > room:
                    break
                lines.append(line)
                size += len(line)
            if not lines and (not file.count or size + _BODY_MAX > room):
                break
            if not lines:
                self.rotate()
                continue
            written = file.append(lines)
            done += written
            room -= size
            if written < len(lines):
                self._retry_at = time.monotonic() + 1.0
        return done

    def leave(self, client: str, lines: List[bytes]) -> int:
        """Write what close() could not deliver to a file of the SDK's own client; how many lines got there."""
        room = _SPILL_MAX - sum(file.size for file in self.files())
        fitting = 0
        for line in lines:
            room -= len(line)
            if room < 0:
                break
            fitting += 1
        try:
            file = self._open(client)
        except OSError:
            return 0
        written = file.append(lines[:fitting])
        if written:
            file.release()
        else:
            file.remove()
        return written

    def rotate(self) -> None:
        if self.current:
            self.closed.append(self.current)
            self.current = None

    def _open(self, client: str) -> _SpillFile:
        directory = self._directory or os.environ.get("WAFERMON_SPILL_DIR")
        if directory:
            os.makedirs(directory, 0o700, exist_ok=True)
        elif os.access("/var/spool/wafermon", os.W_OK | os.X_OK):
            directory = "/var/spool/wafermon"
        else:
            directory = f"/tmp/wafermon-{os.getuid()}"
            try:
                os.mkdir(directory, 0o700)
            except FileExistsError:
                found = os.lstat(directory)
                if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
                    raise PermissionError(f"{directory} is not ours alone") from None
        return _SpillFile(directory, self._service, client)


def _new_id(size: int = 8) -> str:
    return os.urandom(size).hex()


# ---- the SDK ----

_Tags = Mapping  # of str to str or number
_Entry = Tuple[Any, ...]
_Function = TypeVar("_Function", bound=Callable[..., Any])


class MonitoringSDK:
    """One application's line to its sidecar.

    :param service: who is speaking: 1-128 of A-Z a-z 0-9 . _ - : (else WAFERMON_SERVICE, OTEL_SERVICE_NAME)
    :param url: tcp://host:port, unix:///path or tls://host:port (else WAFERMON_URL, else tcp://127.0.0.1:7411)
    :param trace_id: the trace of everything that names no other (else WAFERMON_TRACE_ID, TRACEPARENT)
    :param buffer: how many messages may wait in memory (else WAFERMON_BUFFER, else 1000)
    :param spill_dir: where messages go that find no room there (else WAFERMON_SPILL_DIR, else a default)
    :param token: what the sidecar's listener asks for (else WAFERMON_TOKEN)
    :raises ValueError: no service, or one of these that can't be right
    """

    def __init__(
        self,
        service: Optional[str] = None,
        url: Optional[str] = None,
        trace_id: Optional[str] = None,
        buffer: Optional[int] = None,
        spill_dir: Optional[str] = None,
        token: Optional[str] = None,
    ) -> None:
        environ = os.environ
        self._service = service or environ.get("WAFERMON_SERVICE") or environ.get("OTEL_SERVICE_NAME") or ""
        if not isinstance(self._service, str) or not _SERVICE.fullmatch(self._service) or self._service == "wafermon":
            raise ValueError(f"a service is 1 to 128 of A-Z a-z 0-9 . _ - : and not wafermon: {self._service!r}")
        if buffer is not None and (type(buffer) is not int or buffer < 1):
            raise ValueError(f"a buffer holds at least one message: {buffer!r}")
        self._said: Set[str] = set()
        self._buffer_max = buffer or self._buffer_of_environment()
        self._address = self._parse(url or environ.get("WAFERMON_URL") or _DEFAULT_URL)
        self._token = token or environ.get("WAFERMON_TOKEN")
        self._spill_dir = os.fspath(spill_dir) if spill_dir else environ.get("WAFERMON_SPILL_DIR")
        self._disabled = environ.get("WAFERMON_DISABLED", "").lower() not in _DISABLED_NOT
        self._closed = False
        # one a handle, not one a module: two SDKs in one process have spans of their own
        self._scope: contextvars.ContextVar[Optional[_Scope]] = contextvars.ContextVar("wafermon_scope", default=None)
        self._root = _scope_of_environment(trace_id and _checked_trace_id(trace_id))
        self._spans: Dict[str, _Span] = {}
        self._begin()
        with _fork_lock:
            _instances.add(self)
        self._export(self._root)

    def _begin(self) -> None:
        """The state that a forked child has anew."""
        self._pid = os.getpid()
        self._host = socket.gethostname()
        self._origin = f',"service":"{self._service}","host":{_json(self._host)},"pid":{self._pid}'
        self._generation = object()
        self._lock = threading.RLock()
        self._settled = threading.Condition(self._lock)
        self._inbox: Deque[_Entry] = deque()
        self._mark = 0  # a longer inbox makes a call do more than append: wake the sender, wait for it, or drop
        self._over = self._closed or self._disabled
        self._thread: Optional[threading.Thread] = None
        self._bell: Optional[Tuple[socket.socket, socket.socket]] = None
        self._close_at: Optional[float] = None
        self._started = 0.0
        self._quiet = 0
        self._flushing = 0
        self._totals = _Totals()
        self._refused = 0  # dropped by callers, who never take the lock: under _refusing
        self._refusing = threading.RLock()
        self._reported = 0
        self._waiting: Deque[bytes] = deque()
        self._waiting_bytes = 0
        self._main = _Stream(self, _new_id())
        self._courier: Optional[_Stream] = None
        self._spool = _Spool(self._spill_dir, self._service)
        self._measured = (time.monotonic(), time.process_time())

    def _buffer_of_environment(self) -> int:
        value = os.environ.get("WAFERMON_BUFFER", "")
        if value.isdecimal() and int(value) > 0:
            return int(value)
        if value:
            self._say(f"WAFERMON_BUFFER is no number of messages: {value!r}")
        return _BUFFER

    def _parse(self, url: str) -> _Address:
        try:
            return _Address.parse(url)
        except ValueError as error:
            self._say(f"{error}; using {_DEFAULT_URL}")
            return _Address.parse(_DEFAULT_URL)

    def _say(self, text: str) -> None:
        """One line on stderr, once."""
        if text not in self._said:
            self._said.add(text)
            try:
                sys.stderr.write(f"wafermon: {text}\n")
            except Exception:
                pass  # no stderr, nobody to tell

    # -- calls --

    def log_event(self, level: str, message: str, context: Optional[Mapping[str, Any]] = None) -> None:
        """Something happened. `level` is debug, info, warning, error or critical; `context` any JSON-like values."""
        if level not in _LEVELS:
            raise ValueError(f"unknown level: {level!r}")
        if type(message) is not str:
            message = _text(message)
        # spelled out for speed: most contexts are small and flat, and a shallow copy of them is all the work there is
        if context is not None:
            if type(context) is dict and len(context) <= _FLAT_MAX:
                for key, value in context.items():
                    if type(value) not in _FLAT or type(key) is not str:
                        context = self._copy(context)
                        break
                else:
                    context = context.copy()
            else:
                context = self._copy(context)
        inbox = self._inbox
        inbox.append((_EVENT, time.time_ns(), self._scope.get() or self._root, level, message, context))
        if len(inbox) > self._mark:
            self._attend()

    def log_metric(
        self,
        name: str,
        value: float,
        unit: Optional[str] = None,
        tags: Optional[Mapping[str, Any]] = None,
        kind: Optional[str] = None,
    ) -> None:
        """A measured number. `unit` is UCUM where there is one; `kind` is gauge (default) or counter."""
        if kind not in (None, "gauge", "counter"):
            raise ValueError(f"a metric is a gauge or a counter, not {kind!r}")
        entry = (_checked_name(name), _number_field(value), None if unit is None else _text(unit))
        self._put(_METRIC, *entry, kind if kind == "counter" else None, self._copy_tags(tags))

    def log_progress(self, job_id: str, percent: float, status: str = "running") -> None:
        """How far a job is, 0 to 100; `status` done, failed and cancelled end it."""
        if isinstance(percent, bool) or not isinstance(percent, numbers.Real) or not 0 <= percent <= 100:
            raise ValueError(f"a percent is a number from 0 to 100, not {percent!r}")
        if not isinstance(status, str) or not 1 <= len(status) <= 64:
            raise ValueError(f"a status has 1 to 64 characters: {status!r}")
        self._put(_PROGRESS, _checked_trace_id(job_id), _number_field(percent), _text(status))

    def log_resource(
        self,
        cpu: Optional[float] = None,
        mem: Optional[float] = None,
        disk: Optional[float] = None,
        net: Optional[float] = None,
    ) -> None:
        """Percent of one core, resident bytes, bytes of disk and of network; without arguments, of this process."""
        given = [cpu, mem, disk, net]
        if given == [None] * 4:
            given = self._measure()
        fields = [None if value is None else _number_field(value) for value in given]
        self._put(_RESOURCE, *[None if isinstance(value, str) else value for value in fields])

    def start_span(
        self, name: str, trace_id: Optional[str] = None, tags: Optional[Mapping[str, Any]] = None
    ) -> str:
        """Open a span inside the current one, make it the current one, and return its id."""
        _checked_name(name)
        outer = self._scope.get()
        around = outer or self._root
        trace = _checked_trace_id(trace_id) if trace_id is not None else around.trace_id or _new_id(16)
        scope = _Scope(trace, _new_id(), outer)
        ts = time.time_ns()
        copied = self._copy_tags(tags)
        span = _Span(_text(name), ts, time.monotonic_ns(), around.span_id, copied, scope, self._pid)
        self._spans[str(scope.span_id)] = span
        self._scope.set(scope)
        self._export(scope)
        self._put(_SPAN_START, span.name, span.parent_id, copied, ts=ts, scope=scope)
        return str(scope.span_id)

    def end_span(self, span_id: str, status: str = "ok", tags: Optional[Mapping[str, Any]] = None) -> None:
        """Close a span; `tags` join those of its start. Ending a span that a parent process opened sends nothing."""
        if status not in ("ok", "error"):
            raise ValueError(f"a span ends ok or error, not {status!r}")
        merged = self._copy_tags(tags)
        span = self._spans.pop(span_id, None)
        if span is None:
            raise ValueError(f"no such span is open: {span_id!r}")
        span.scope.ended = True
        current = self._scope.get()
        while current and current.ended:
            current = current.outer
        self._scope.set(current)
        self._export(current or self._root)
        if span.pid != self._pid:
            return
        if isinstance(span.tags, dict) and isinstance(merged, (dict, type(None))):
            merged = {**span.tags, **(merged or {})}
        duration = (time.monotonic_ns() - span.started) // 1000
        fields = (status, span.name, span.ts // 1000, duration, span.parent_id, merged)
        self._put(_SPAN_END, *fields, scope=span.scope)

    def span(self, name: str, trace_id: Optional[str] = None, tags: Optional[Mapping[str, Any]] = None) -> _SpanGuard:
        """A span as `with sdk.span("name") as span_id:`, or as `@sdk.span("name")` around every call of a function.

        It ends with status error when an exception leaves it.
        """
        _checked_name(name)
        return _SpanGuard(self, name, trace_id, tags)

    def set_trace_id(self, trace_id: str) -> None:
        """From here on, what is logged belongs to this trace."""
        self._root = _Scope(_checked_trace_id(trace_id), self._root.span_id)
        inner = self._scope.get()
        if inner:
            renamed = _Scope(trace_id, inner.span_id, inner.outer)
            span = self._spans.get(str(inner.span_id))
            if span:
                self._spans[str(inner.span_id)] = span._replace(scope=renamed)
            self._scope.set(renamed)
        self._export(inner and self._scope.get() or self._root)

    def child_env(self) -> Dict[str, str]:
        """The environment for a child process, so that it falls into the current trace, under the current span."""
        environ = dict(os.environ)
        _write_scope(environ, self._scope.get() or self._root)
        return environ

    def get_stats(self) -> Dict[str, Any]:
        """The state and the counts; at rest called = acked + rejected + dropped + waiting + handed_over."""
        with self._lock, self._refusing:
            if self._over:
                self._refuse()
            totals = self._totals
            waiting = len(self._inbox)
            return {
                "state": self._state(),
                "called": totals.taken + waiting + self._refused,
                "sent": totals.sent,
                "acked": totals.acked,
                "rejected": totals.rejected,
                "dropped": totals.dropped + self._refused,
                "spilled": totals.spilled,
                "waiting": waiting + self._kept(),
                "handed_over": totals.handed_over,
                "resent": totals.resent,
                "reconnects": totals.reconnects + max(0, self._main.welcomes - 1),
            }

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until nothing is waiting; False when it takes longer than `timeout` seconds."""
        deadline = time.monotonic() + timeout
        with self._settled:
            self._flushing += 1
            try:
                while self._inbox or self._kept():
                    left = deadline - time.monotonic()
                    if left <= 0 or self._over:
                        return False
                    self._rouse()
                    self._settled.wait(left)
                return True
            finally:
                self._flushing -= 1

    def close(self, timeout: float = 2.0) -> None:
        """Deliver what is waiting within `timeout` seconds and leave the rest in a spill file for the sidecar."""
        with self._lock:
            if self._over:
                self._closed = True
                return
            self._close_at = min(self._close_at or float("inf"), time.monotonic() + timeout)
            self._closed = True
            thread = self._thread
        if thread:
            self._ring()
            thread.join(timeout + 1.0)
        elif self._inbox:
            self._run()  # no thread could be started: the interpreter is on its way out
        else:
            self._over = True

    def __enter__(self) -> MonitoringSDK:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- the calls' side --

    def _put(self, kind: _Kind, *values: Any, ts: int = 0, scope: Optional[_Scope] = None) -> None:
        inbox = self._inbox
        inbox.append((kind, ts or time.time_ns(), scope or self._scope.get() or self._root, *values))
        if len(inbox) > self._mark:
            self._attend()

    def _attend(self) -> None:
        """The rare end of a call: the sender sleeps or has not begun, or its inbox is long, or there is none."""
        if self._over:
            self._refuse()
            return
        inbox = self._inbox
        if not self._mark:
            self._rouse()
        if len(inbox) > _LONG:
            # the interpreter would let a busy caller run for 5 ms, enough for thousands of calls
            give_up = time.monotonic() + _NAP_MAX
            while len(inbox) > _LONG and time.monotonic() < give_up:
                time.sleep(_NAP)
            if len(inbox) > _LONG + 2 * self._buffer_max:
                self._refuse(len(inbox) - 1)  # the sender is stuck, most likely in a write to a dead disk

    def _refuse(self, leave: int = 0) -> None:
        """Drop the newest messages of the inbox."""
        with self._refusing:
            while len(self._inbox) > leave:
                try:
                    self._inbox.pop()
                except IndexError:
                    return
                self._refused += 1

    def _rouse(self) -> None:
        self._mark = _LONG
        if self._bell:
            self._ring()
        else:
            self._start()

    def _ring(self) -> None:
        bell = self._bell
        if bell:
            try:
                bell[1].send(b"!")
            except OSError:
                pass  # full: it rings already; closed: nobody has to be woken

    def _copy(self, context: Mapping[str, Any]) -> Any:
        if not isinstance(context, Mapping):
            raise TypeError(f"a context is a mapping, not {type(context).__name__}")
        try:
            return _plain(context, 1, [_NODES])
        except _TooLarge:
            return _TooLarge

    def _copy_tags(self, tags: Optional[Mapping[str, Any]]) -> Any:
        """Tags are strings and numbers: whatever else comes along becomes text, and None is left out."""
        if tags is None:
            return None
        copied = self._copy(tags)
        if copied is _TooLarge:
            return copied
        return {
            key: value if type(value) in (str, int, float) else _json(value)
            for key, value in copied.items()
            if value is not None
        }

    def _measure(self) -> List[Optional[float]]:
        """This process's cpu since the last time, its memory and its disk bytes; Linux counts no network by process."""
        wall, used = time.monotonic(), time.process_time()
        since, before = self._measured
        self._measured = (wall, used)
        cpu = round(100.0 * (used - before) / (wall - since), 3) if wall > since else None
        mem = disk = None
        try:
            with open("/proc/self/statm", "rb") as statm:
                mem = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            with open("/proc/self/io", "rb") as io:
                counts = dict(line.split(b": ") for line in io.read().splitlines())
                disk = int(counts[b"read_bytes"]) + int(counts[b"write_bytes"])
        except (OSError, ValueError, KeyError, IndexError):
            pass  # not Linux, or a kernel that doesn't tell
        return [cpu, mem, disk, None]

    def _export(self, scope: _Scope) -> None:
        """Let child processes inherit trace and span; in the main thread alone, others would overwrite each other."""
        if threading.current_thread() is threading.main_thread():
            _write_scope(os.environ, scope)

    # -- the sender's side --

    def _start(self) -> None:
        with self._lock:
            if self._bell or self._over:
                return
            self._bell = socket.socketpair()
            for end in self._bell:
                end.setblocking(False)
            self._started = time.monotonic()
            thread = threading.Thread(target=self._run_quietly, name="wafermon-sender", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return  # the interpreter is on its way out: close() does the work
            self._thread = thread
            _close_with_worker_process(self)

    def _spawn(self, target: Callable[..., None], *args: Any) -> None:
        def run() -> None:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGPIPE])
            target(*args)

        try:
            threading.Thread(target=run, name="wafermon-dial", daemon=True).start()
        except RuntimeError:
            target(*args)

    def _run_quietly(self) -> None:
        # an application may have given SIGPIPE its deadly default back
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGPIPE])
        self._run()

    def _run(self) -> None:
        while True:
            try:
                with self._lock:
                    moved = self._tick(time.monotonic())
                    more = moved and self._inbox
                    if self._flushing and not self._inbox and not self._kept():
                        self._settled.notify_all()
                    farewells = self._finish(time.monotonic())
                if farewells is not None:
                    break
                if more:
                    time.sleep(_NAP)  # let the callers have the interpreter
                else:
                    self._wait(moved)
            except Exception as error:  # the sender must live: without it nothing is delivered, nor spilled
                self._say(f"internal error: {error!r}")
                time.sleep(0.1)
        deadline = self._close_at or 0.0
        for link in farewells:
            link.farewell(deadline)
        with self._lock:
            for end in self._bell or ():
                end.close()
            self._settled.notify_all()

    def _tick(self, now: float) -> int:
        """One look at everything; how many messages were taken from the inbox."""
        main, inbox = self._main, self._inbox
        main.connect(now)
        if main.link:
            self._report_drops()
        while main.link and self._waiting and main.window_bytes < _BYTES:
            body = self._waiting.popleft()
            self._waiting_bytes -= len(body)
            main.number(body)
        count = min(len(inbox), _PORTION)
        if not main.welcomes and not main.failures and now < self._started + _GRACE:
            count = min(count, self._buffer_max - len(self._waiting))
        overflow: List[bytes] = []
        for _ in range(count):
            try:
                entry = inbox.popleft()
            except IndexError:
                break  # dropped by a caller
            body = self._encoded(entry)
            if not body:
                continue
            if main.link and not self._waiting and main.window_bytes < _BYTES:
                main.number(body)
            elif not overflow and len(self._waiting) < self._buffer_max and self._waiting_bytes + len(body) <= _BYTES:
                self._waiting.append(body)
                self._waiting_bytes += len(body)
            else:
                overflow.append(body)
        if overflow:
            spilled = self._spool.write(overflow)
            self._totals.spilled += spilled
            self._totals.dropped += len(overflow) - spilled
        main.pump(now)
        self._deliver_spill(now)
        return count

    def _encoded(self, entry: _Entry) -> bytes:
        kind, ts, scope, *values = entry
        self._totals.taken += 1
        try:
            return _encode(kind, ts, self._origin, scope.text, values)
        except Exception as error:
            self._say(f"a message could not be encoded: {error!r}")
            self._totals.dropped += 1
            return b""

    def _report_drops(self) -> None:
        dropped = self._totals.dropped + self._refused
        count = dropped - self._reported
        if count:
            self._reported = dropped
            values = ("warning", f"{count} messages dropped", {"kind": "dropped", "count": count})
            self._main.number(self._encoded((_EVENT, time.time_ns(), self._root, *values)))

    def _deliver_spill(self, now: float) -> None:
        """While connected, send closed spill files one by one, each over a connection of its own."""
        spool = self._spool
        if self._main.link and not self._courier:
            if not self._full():
                spool.rotate()
            while spool.closed and not self._courier:
                file = spool.closed.popleft()
                if not file.claim():
                    self._totals.handed_over += file.count
                    os.close(file.fd)
                    continue
                spool.sending = file
                self._courier = _Stream(self, file.client)
                for seq, line in enumerate(file.lines(), 1):
                    self._courier.keep(seq, line)
        courier = self._courier
        if courier and spool.sending:
            if self._main.link:
                courier.connect(now)
            courier.pump(now)
            if not courier.window:
                courier.lose()
                spool.sending.remove()
                spool.sending = self._courier = None

    def _wait(self, moved: int) -> None:
        """Until the next tick while there is work, else until something happens."""
        self._quiet = 0 if moved else self._quiet + 1
        busy = self._quiet < _IDLE_TICKS
        hurry = self._flushing or self._close_at is not None
        if not busy:
            self._mark = 0
            if self._inbox:
                # a call came between the tick and the mark, and did not ring
                self._mark = _LONG
                self._quiet = 0
                return
        poll = select.poll()
        if self._bell:
            poll.register(self._bell[0], select.POLLIN)
        timeout = _TICK if busy else 1.0
        streams = [stream for stream in (self._main, self._courier) if stream]
        for stream in streams:
            link = stream.link
            if link and (hurry or not busy):
                poll.register(link.sock, select.POLLIN | (select.POLLOUT if stream.blocked() else 0))
        if not busy:
            next_look = min([stream.deadline() for stream in streams] + [self._close_at or float("inf")])
            timeout = max(0.001, min(timeout, next_look - time.monotonic()))
        poll.poll(timeout * 1000)
        try:
            while self._bell and self._bell[0].recv(4096):
                pass
        except OSError:
            pass
        if not busy:
            self._mark = _LONG

    def _finish(self, now: float) -> Optional[List[_Link]]:
        """When it is time to close: leave the rest in a spill file; the links to say farewell to. Else None."""
        if self._close_at is None:
            return None
        main = self._main
        hopeful = main.link or (main.dialling and not main.failures)
        if hopeful and now < self._close_at and (self._inbox or self._kept()):
            return None
        self._over = True
        self._mark = 0
        while self._inbox:
            body = self._encoded(self._inbox.popleft())
            if body:
                self._waiting.append(body)
        links = [stream.link for stream in (main, self._courier) if stream and stream.link]
        totals, spool = self._totals, self._spool
        left = self._courier.window if self._courier else ()
        totals.handed_over += len(left) + sum(file.count for file in spool.files() if file is not spool.sending)
        for stream in (main, self._courier):
            if stream:
                stream.link = None
        while self._waiting:
            main.number(self._waiting.popleft())
        lines = [line for _, line in main.window]
        written = spool.leave(main.client, lines) if lines else 0
        totals.spilled += written
        totals.handed_over += written
        totals.dropped += len(lines) - written
        main.window.clear()
        for file in spool.files():
            file.release()
        self._spool = _Spool(self._spill_dir, self._service)
        self._courier = None
        return links

    def _kept(self) -> int:
        """Messages that the sender has taken and not yet settled."""
        spool = self._spool
        sending = len(self._courier.window) if self._courier else 0
        files = sum(file.count for file in spool.files() if file is not spool.sending)
        return len(self._waiting) + len(self._main.window) + sending + files

    def _full(self) -> bool:
        # the sender takes what it may send from a full inbox in no time, and the rest it has to keep
        inbox = 0 if self._main.link else len(self._inbox)
        return len(self._waiting) + inbox >= self._buffer_max or self._waiting_bytes + _BODY_MAX >= _BYTES

    def _state(self) -> str:
        if self._over:
            return "disconnected"
        return "overflow" if self._full() else "connected" if self._main.link else "disconnected"

    def _hello(self, client: str) -> bytes:
        hello: Dict[str, Any] = {"v": 2, "type": "hello", "client": client, "service": self._service}
        hello.update(host=self._host, pid=self._pid, sdk=f"python/{__version__}", ack=True)
        if self._token:
            hello["token"] = self._token
        return _utf8(_json(hello) + "\n")

    # -- fork --

    def _begin_in_child(self) -> None:
        """Close what the parent goes on using, without a word to the other side, and start empty."""
        for stream in (self._main, self._courier):
            if stream:
                for sock in (stream.opening, stream.link and stream.link.sock):
                    if sock:
                        sock.close()
        for end in self._bell or ():
            end.close()
        for file in self._spool.files():
            os.close(file.fd)
        self._begin()


class _SpanGuard:
    """A span around a block or around every call of a function."""

    def __init__(
        self, sdk: MonitoringSDK, name: str, trace_id: Optional[str], tags: Optional[Mapping[str, Any]]
    ) -> None:
        self._sdk, self._name, self._trace_id, self._tags = sdk, name, trace_id, tags
        self._span_id = ""

    def __enter__(self) -> str:
        self._span_id = self._sdk.start_span(self._name, self._trace_id, self._tags)
        return self._span_id

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if self._span_id in self._sdk._spans:
            self._sdk.end_span(self._span_id, "error" if kind else "ok")

    def __call__(self, function: _Function) -> _Function:
        import inspect

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def spanned_async(*args: Any, **kwargs: Any) -> Any:
                with self._sdk.span(self._name, self._trace_id, self._tags):
                    return await function(*args, **kwargs)

            return cast(_Function, spanned_async)

        @functools.wraps(function)
        def spanned(*args: Any, **kwargs: Any) -> Any:
            with self._sdk.span(self._name, self._trace_id, self._tags):
                return function(*args, **kwargs)

        return cast(_Function, spanned)


class MonitoringHandler(logging.Handler):
    """Sends the standard library's log records as events; what `extra` brought along joins the context."""

    _USUAL = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}

    def __init__(self, sdk: MonitoringSDK, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self._sdk = sdk

    def emit(self, record: logging.LogRecord) -> None:
        try:
            context: Dict[str, Any] = {"logger": record.name, "file": record.filename, "line": record.lineno}
            for key, value in record.__dict__.items():
                if key not in self._USUAL:
                    context[key] = value
            if record.exc_info:
                context["exception"] = logging.Formatter().formatException(record.exc_info)
            level = min(max(record.levelno // 10, 1), 5)
            names = ("debug", "info", "warning", "error", "critical")
            self._sdk.log_event(names[level - 1], record.getMessage(), context)
        except Exception:
            self.handleError(record)


def _checked_name(name: str) -> str:
    if not isinstance(name, (str, bytes)) or not name:
        raise ValueError(f"a name is a string that is not empty, not {name!r}")
    return _text(name)


def _number_field(value: Any) -> Union[int, float, str]:
    """A number for a field of its own, where what JSON has no number for is spelled out."""
    if type(value) is int and -_EXACT <= value <= _EXACT:
        return value
    if isinstance(value, (bool, str, bytes)):
        raise TypeError(f"not a number: {value!r}")
    try:
        number = float(value)
    except OverflowError:
        number = float("inf") if value > 0 else float("-inf")
    if number - number == 0.0:
        return number
    return "NaN" if number != number else "Infinity" if number > 0 else "-Infinity"


def _write_scope(environ: Any, scope: _Scope) -> None:
    for name, value in (("WAFERMON_TRACE_ID", scope.trace_id), ("WAFERMON_SPAN_ID", scope.span_id)):
        if value:
            environ[name] = value
        else:
            environ.pop(name, None)


# ---- the process ----

# Forks and exits concern the process, so these few lines know all its SDKs.
_instances: weakref.WeakSet[MonitoringSDK] = weakref.WeakSet()
_fork_lock = threading.RLock()
_forking: List[MonitoringSDK] = []


def _before_fork() -> None:
    """Hold every lock, so that no socket or file is half made when the child looks for what to close."""
    global _forking
    _fork_lock.acquire()
    _forking = sorted(_instances, key=id)
    for sdk in _forking:
        sdk._lock.acquire()


def _after_fork_in_parent() -> None:
    for sdk in _forking:
        sdk._lock.release()
    _fork_lock.release()


def _after_fork_in_child() -> None:
    global _fork_lock
    _fork_lock = threading.RLock()
    for sdk in _forking:
        sdk._begin_in_child()


def _close_all() -> None:
    for sdk in list(_instances):
        sdk.close()


def _close_with_worker_process(sdk: MonitoringSDK) -> None:
    """A child made by multiprocessing ends without the interpreter's exit handlers, but runs its own."""
    if "multiprocessing.util" in sys.modules:
        from multiprocessing import parent_process, util

        if parent_process():
            util.Finalize(None, sdk.close, exitpriority=-100)


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
atexit.register(_close_all)
