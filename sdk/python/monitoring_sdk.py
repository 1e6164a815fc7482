"""The Python SDK of wafermon: events, metrics, progress, resources and spans for the sidecar.

What it promises:

- A call never blocks on the network and never raises because of it; only a programming error (an unknown level, a
  percent of 300) raises, at the call. What a call was given is fixed when it returns.
- A message is kept until the sidecar acknowledges it. While that is away, up to `buffer` messages wait in memory;
  what does not fit goes to spill files, and only when those are full or can't be written is a message dropped, which
  is counted.
- Threads may share an SDK. A forked child starts empty, with a connection and a client of its own.
- `get_stats()` adds up: called = acked + rejected + dropped + waiting + handed_over.

How it does so: a call only puts its arguments into an inbox. One sender thread, started by the first call, encodes
them, numbers them and writes them. It looks into the inbox every few milliseconds while there is work, and is woken by
a call only after it has gone to sleep, since waking it costs more than the call itself. Nothing it does with a socket
blocks; connecting, which might, is done in a thread of its own.
"""

from __future__ import annotations

import atexit
import contextvars
import fcntl
import itertools
import json
import numbers
import os
import re
import reprlib
import signal
import socket
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping
from contextlib import ContextDecorator, suppress
from json.encoder import encode_basestring as _quote
from typing import Any, Callable, Iterable, MutableMapping, Optional, TypeVar

__all__ = ["MonitoringSDK"]
__version__ = "2.0.0"

_DEFAULT_URL = "tcp://127.0.0.1:7411"
_BUFFER, _BYTES = 1000, 4 << 20  # what may wait to be sent; as many bytes again may be sent and unacknowledged
_BODY_MAX = 65_536 - 64  # the rest of a line is for client and seq
_FILE_MAX, _FILES = 1 << 20, 64  # bytes of a spill file, and how many of them
# Seconds without a byte after which a connection that owes us a welcome or acks is dead; seconds that a burst at the
# very start may wait for the first welcome before it spills.
_SILENCE, _GRACE, _NEVER = 5.0, 0.1, float("inf")
# How often a busy sender looks at everything; so often in vain, and it dozes while acks are to come, or sleeps.
_TICK, _IDLE_TICKS, _DOZE, _SLEEP = 0.005, 10, 0.05, 1.0
# It encodes so many messages before others get the interpreter. An inbox longer than that makes callers let it run, by
# naps, again and again, at most so long a call.
_PORTION, _LONG, _NAP, _NAP_MAX = 96, 256, 0.00005, 0.0006

_LEVELS = ("debug", "info", "warning", "error", "critical")
_SERVICE = re.compile(r"(?!wafermon$)[A-Za-z0-9._:-]{1,128}")
_TRACE_ID = re.compile(r"[!-~]{1,128}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}.*")
_URL = re.compile(r"unix://(/.+)|(tcp|tls)://(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?/?")
_Fields = Optional["Mapping[str, Any]"]
_Number = Optional[float]
_Text = Optional[str]
_Environ = TypeVar("_Environ", bound="MutableMapping[str, str]")
_Function = TypeVar("_Function", bound="Callable[..., Any]")
# Held by whoever touches a sender's sockets, files and counts, of whichever SDK; by callers only for a moment.
_lock = threading.RLock()

# ---- encoding ----

# Integers beyond the first are sent as text, containers nested deeper than the second too. After so many values a
# context is not copied further: it can't fit into a line. Cutting strings below so many characters gains nothing.
_EXACT, _DEPTH, _NODES, _SHORTEST = 1 << 53, 8, 32_768, 64
_FLAT, _FLAT_MAX = frozenset((str, int, float, bool, type(None))), 64


def _kind(name: str, *fields: str) -> tuple[str, ...]:
    """A message type: how its line begins, and the keys of its own fields; context or tags come last."""
    return (f'{{"type":"{name}","ts":', *[f',"{field}":' for field in fields])


_EVENT = _kind("event", "level", "message", "context")
_METRIC = _kind("metric", "name", "value", "unit", "kind", "tags")
_PROGRESS = _kind("progress", "job_id", "percent", "status")
_RESOURCE = _kind("resource", "cpu", "mem", "disk", "net")
_SPAN_START = _kind("span_start", "name", "parent_id", "tags")
_SPAN_END = _kind("span_end", "status", "name", "start", "duration", "parent_id", "tags")


def _json(value: Any, most: int = _BODY_MAX) -> str:
    """JSON of a value made of plain types only, its strings cut to so many characters.

    What JSON can't say becomes null, a string or U+FFFD.
    """
    kind = type(value)
    if kind is str: return _quote(value[:most].replace("\0", "\ufffd"))
    if kind is int:
        # the interpreter refuses to write out very long integers in decimal
        text = repr(value) if value.bit_length() < 2_000 else hex(value)
        return text if -_EXACT <= value <= _EXACT else f'"{text}"'
    if kind is float: return repr(value) if value - value == 0.0 else "null"
    if kind is dict: return "{" + ",".join([f"{_json(key)}:{_json(item, most)}" for key, item in value.items()]) + "}"
    if kind is list: return "[" + ",".join([_json(item, most) for item in value]) + "]"
    return "null" if value is None else "true" if value else "false"


def _utf8(text: str) -> bytes:
    try: return text.encode()
    except UnicodeEncodeError: return re.sub("[\ud800-\udfff]", "\ufffd", text).encode()  # lone surrogates


def _text(value: Any, convert: Callable[[Any], str] = str) -> str:
    """Any object as text, whatever its own methods do."""
    try:
        if isinstance(value, (bytes, bytearray, memoryview)): return bytes(value).decode("utf-8", "replace")
        return str.__str__(value if isinstance(value, str) else convert(value))
    except Exception: return f"<{type(value).__name__}>"


def _plain(value: Any, depth: int, left: list[int]) -> Any:
    """A deep copy in plain types, cut at depth 8 and after `left[0]` values."""
    left[0] -= 1
    if type(value) in _FLAT: return value
    if isinstance(value, (Mapping, list, tuple, set, frozenset)):
        if depth > _DEPTH: return _text(value, reprlib.repr)
        # listed first, in one go: another thread may change it at the same time
        items: Any = list(itertools.islice(value.items() if isinstance(value, Mapping) else value, max(0, left[0])))
        if isinstance(value, Mapping): return {_text(key): _plain(item, depth + 1, left) for key, item in items}
        return [_plain(item, depth + 1, left) for item in items]
    if isinstance(value, numbers.Integral): return int(value)
    return float(value) if isinstance(value, numbers.Real) else _text(value)


def _copied(fields: Any) -> Any:
    """A context as it is now, in plain types; a small flat dict, as most are, needs no more than a copy."""
    if type(fields) is dict and len(fields) <= _FLAT_MAX:
        fields = fields.copy()
        for key, value in fields.items():
            if type(value) not in _FLAT or type(key) is not str: break
        else: return fields
    if not isinstance(fields, (Mapping, type(None))):
        raise TypeError(f"context and tags are mappings, not {type(fields).__name__}")
    return None if fields is None else _plain(fields, 1, [_NODES])


def _copied_tags(tags: Any) -> Any:
    """Tags are strings and numbers: None is left out, and whatever else comes along becomes text."""
    items = (_copied(tags) or {}).items()
    return {key: tag if type(tag) in (str, int, float) else _json(tag) for key, tag in items if tag is not None} or None


def _encode(kind: tuple[str, ...], ts: int, origin: str, values: list[Any]) -> bytes:
    """A message without its client, its seq and its closing brace, short enough for any line."""

    def body(most: int, end: str = ',"truncated":true') -> bytes:
        fields = [key + _json(value, most) for key, value in zip(kind[1:], values) if value is not None]
        return _utf8(f"{kind[0]}{ts}{origin}{''.join(fields)}{end}")

    line, least, most = body(_BODY_MAX, ""), _SHORTEST, _BODY_MAX
    if len(line) <= _BODY_MAX: return line
    if len(body(least)) > _BODY_MAX: values[-1] = None
    while most - least > 1:  # the longest strings are cut, all to the same length: the greatest that fits
        middle = (least + most) // 2
        least, most = (middle, most) if len(body(middle)) <= _BODY_MAX else (least, middle)
    return body(least)


def _line(body: bytes, client: str, seq: int) -> bytes:
    return b'%s,"client":"%s","seq":%d}\n' % (body, client.encode(), seq)


# ---- what calls check ----


def _trace_id(trace_id: Any) -> str:
    if not isinstance(trace_id, str) or not _TRACE_ID.fullmatch(trace_id):
        raise ValueError(f"a trace id is 1 to 128 printable ASCII characters without space, not {trace_id!r}")
    return trace_id


def _name(name: Any) -> str:
    if not isinstance(name, (str, bytes)) or not name: raise ValueError(f"a name is a non-empty string, not {name!r}")
    return _text(name)


def _numeric(value: Any) -> int | float | str:
    """The value of a field that is a number; what JSON has no number for is spelled out."""
    if isinstance(value, (bool, str, bytes)): raise TypeError(f"not a number: {value!r}")
    if type(value) is int and -_EXACT <= value <= _EXACT: return value
    try: number = float(value)
    except OverflowError: number = float("inf") if value > 0 else -float("inf")
    return number if number - number == 0.0 else json.dumps(number)


# ---- trace and span ----


class _Scope:
    """Trace and span in which a call is made, also as the JSON that goes into its line; or an open span itself."""

    name, tags, parent_id = "", None, None  # type: str, Any, str | None

    def __init__(self, trace_id: str | None, span_id: str | None, outer: _Scope | None = None) -> None:
        self.trace_id, self.span_id, self.outer = trace_id, span_id, outer
        self.variables = {"trace_id": trace_id, "span_id": span_id}
        self.text = "".join([f',"{key}":{_json(value)}' for key, value in self.variables.items() if value])
        self.ts, self.started, self.pid = time.time_ns(), time.monotonic_ns(), os.getpid()

    @classmethod
    def inherited(cls, trace_id: str | None) -> _Scope:
        """That of the environment; a given trace id wins."""
        trace, span = os.environ.get("WAFERMON_TRACE_ID", ""), os.environ.get("WAFERMON_SPAN_ID", "")
        parent = _TRACEPARENT.fullmatch(os.environ.get("TRACEPARENT", ""))
        if parent and not trace and not span: trace, span = parent.groups()
        trace = trace_id or (trace if _TRACE_ID.fullmatch(trace) else "")
        return cls(trace or None, span if re.fullmatch("[0-9a-f]{16}", span) else None)

    def write(self, environ: _Environ) -> _Environ:
        """Let processes with this environment fall into the trace, under the span."""
        for name, value in self.variables.items():
            environ.pop("WAFERMON_" + name.upper(), None)
            environ.update({"WAFERMON_" + name.upper(): value} if value else {})
        return environ


class _Span(ContextDecorator):
    """A span of a block; as a decorator, one of its own for every call."""

    def __init__(self, sdk: MonitoringSDK, *given: Any) -> None: self._sdk, self._given = sdk, given

    def __enter__(self) -> str:
        self._id = self._sdk.start_span(*self._given)
        return self._id

    def __exit__(self, kind: object, *_: object) -> None:
        if self._id in self._sdk._spans: self._sdk.end_span(self._id, "error" if kind else "ok")

    def _recreate_cm(self) -> _Span: return _Span(self._sdk, *self._given)

    def __call__(self, function: _Function) -> _Function:
        # inspect.CO_GENERATOR, CO_COROUTINE, CO_ASYNC_GENERATOR: what these return runs later
        if getattr(getattr(function, "__code__", None), "co_flags", 0) & 0x2A0:
            raise TypeError(f"a span around {function.__name__} would end before that runs: use `with` inside it")
        return super().__call__(function)


# ---- connections ----


def _in_thread(name: str, target: Callable[[], None]) -> threading.Thread | None:
    """Run it in a thread; None when none can be started, since the interpreter is on its way out."""
    thread = threading.Thread(target=target, name=name, daemon=True)
    try: thread.start()
    except RuntimeError: return None
    return thread


def _parsed(url: str) -> tuple[str, str, int] | None:
    """Scheme, host and port; of a Unix socket the path is the host. None for what is no sidecar's url."""
    found = _URL.fullmatch(url)
    if not found or int(found[5] or 1) not in range(1, 65_536): return None
    path, scheme, ipv6, host, port = found.groups()
    return ("unix", path, 0) if path else (scheme, ipv6 or host, int(port or {"tcp": 7411, "tls": 7413}[scheme]))


class _Stream:
    """One client's messages on their way: numbered, sent, and kept until they are acknowledged.

    The sender calls it under the SDK's lock.
    """

    def __init__(self, sdk: MonitoringSDK, client: str, file: _SpillFile | None = None) -> None:
        self._sdk, self.client, self.file, self.up = sdk, client, file, False  # up: from the welcome on
        self.sock: socket.socket | None = None
        self.dialer: threading.Thread | None = None
        self.welcomes = self.failures = self._seq = self._highest_sent = self.window_bytes = 0
        self.retry_at = self._heard = 0.0
        self.window: deque[tuple[int, bytes]] = deque()
        self._received, self._out = b"", bytearray()
        for line in os.pread(file.fd, file.size, 0).splitlines(keepends=True) if file else (): self.keep(line)

    def number(self, body: bytes) -> None:
        """Give the message its seq, for ever, and keep it until that is acknowledged."""
        self.keep(_line(body, self.client, self._seq + 1))

    def keep(self, line: bytes) -> None:
        if not self.window: self._heard = time.monotonic()
        self._seq += 1
        self.window.append((self._seq, line))
        self.window_bytes += len(line)
        if self.up: self._send([(self._seq, line)])

    def _send(self, lines: Iterable[tuple[int, bytes]]) -> None:
        for seq, line in lines:
            self._sdk._counts["sent" if seq > self._highest_sent else "resent"] += 1
            self._highest_sent = max(seq, self._highest_sent)
            self._out += line

    def connect(self, now: float) -> None:
        """Begin a connection, if there is none and the last failure is long enough ago."""
        if not self.sock and now >= self.retry_at:
            self.retry_at, self.dialer = _NEVER, _in_thread("wafermon-dialer", self._dial)
            if not self.dialer: self._dial()

    def _dial(self) -> None:
        """Look the host up, connect, and agree on TLS: that may take a while, so a thread of its own does it."""
        sdk, (scheme, host, port), sock, failed = self._sdk, self._sdk._address, None, False
        try:
            if scheme == "unix":
                sock = socket.socket(socket.AF_UNIX)
                sock.settimeout(_SILENCE)
                sock.connect(host)
            else:
                # of a string, and only then, it would import a codec: see _tls
                sock = socket.create_connection((host.encode(), port), _SILENCE)  # type: ignore[arg-type]
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if sdk._ssl: sock = sdk._ssl.wrap_socket(sock, server_hostname=host)
            sock.setblocking(False)
        except OSError: failed = True
        with _lock:
            self.sock, self._heard, self._out = sock, time.monotonic(), bytearray(sdk._hello(self.client))
            if failed or sdk._over: self.lose()
        sdk._wake.set()

    def lose(self) -> None:
        """Close the connection at once; what is unacknowledged stays for the next one."""
        if self.sock: self.sock.close()
        self.sock, self.up, self._received, self._out = None, False, b"", bytearray()
        pause = min(30.0, 0.1 * 2 ** min(self.failures, 10)) * int.from_bytes(os.urandom(4), "big") / (1 << 32)
        self.retry_at, self.failures = time.monotonic() + pause, self.failures + 1

    def pump(self, now: float) -> None:
        """Read what has come, write what the socket takes, and only then judge the connection."""
        alive, sock = True, self.sock
        if not sock: return
        try:
            with suppress(*self._sdk._would_block):
                while data := sock.recv(65_536): self._received, self._heard = self._received + data, now
                alive = False
            *lines, self._received = self._received.split(b"\n")
            for line in lines: self._answer(json.loads(line))
            with suppress(*self._sdk._would_block):
                while alive and self._out: del self._out[: sock.send(self._out)]
            silent = now - self._heard > _SILENCE and (self.window or not self.up)
            if alive and not silent and len(self._received) < _FILE_MAX: return
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            pass  # it has broken, or speaks another protocol
        self.lose()

    def _answer(self, reply: dict[str, Any]) -> None:
        kind, seq = reply.get("type"), reply.get("seq")
        if kind == "ack": self._settle(reply["seq"])
        elif kind == "welcome" and not self.up and reply.get("v", 2) == 2:
            self.up, self.failures, self.welcomes = True, 0, self.welcomes + 1
            self._settle(reply["acked"])
            self._send(self.window)
        elif kind == "error" and seq is None:
            self._sdk._say(f"the sidecar refuses: {reply.get('code')} {reply.get('detail', '')}".rstrip())
        elif kind == "error":
            for message in [message for message in self.window if message[0] == seq]:
                self.window.remove(message)
                self.window_bytes -= len(message[1])
                self._sdk._counts["rejected"] += 1

    def _settle(self, acked: int) -> None:
        while self.window and self.window[0][0] <= acked:
            self.window_bytes -= len(self.window.popleft()[1])
            self._sdk._counts["acked"] += 1


def _farewell(sock: socket.socket, deadline: float) -> None:
    """Shut down our side, read to the end and close: an unread reply would reset the connection."""
    with sock, suppress(OSError):
        sock.settimeout(max(0.001, min(0.5, deadline - time.monotonic())))
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65_536) and time.monotonic() < deadline: pass


# ---- spill ----


class _SpillFile:
    """A file of whole lines with a client of its own; locked as long as its writer lives and wants it."""

    def __init__(self, directory: str, service: str, client: str) -> None:
        self.client, self.count, self.size = client, 0, 0
        self.path = os.path.join(directory, f"{service}.{os.getpid()}.{client}.ldjson")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        # readable for the group: in a setgid spill dir that is the sidecar's
        self.fd = os.open(self.path, flags, 0o640)
        # on a file system without locks the pid in the name still tells that we live
        with suppress(OSError): fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def append(self, lines: list[bytes], room: int) -> int:
        """Write the lines that fit into so many bytes; how many got there. One that a full disk cuts is taken back."""
        data = b"".join(lines[: sum([size <= room for size in itertools.accumulate(map(len, lines))])])
        kept = 0
        with suppress(OSError):
            kept = data.rfind(b"\n", 0, os.write(self.fd, data)) + 1
            os.ftruncate(self.fd, self.size + kept)
        done = data.count(b"\n", 0, kept)
        self.size, self.count = self.size + kept, self.count + done
        return done

    def claim(self) -> bool:
        """Take it for sending; False when somebody else has."""
        with suppress(OSError):
            os.rename(self.path, self.path + ".taken")
            self.path += ".taken"
        return self.path.endswith(".taken")

    def leave(self, remove: bool = False) -> None:
        """Give it to whoever takes it up, or remove it."""
        with suppress(OSError):
            os.unlink(self.path) if remove else os.rename(self.path, self.path.replace(".ldjson.taken", ".ldjson"))
        os.close(self.fd)


class _Spool:
    """An SDK's spill files, oldest first: the newest is written, only closed ones are sent."""

    def __init__(self, directory: str | None, service: str) -> None:
        self.files: deque[_SpillFile] = deque()
        self.writing = False  # into the newest
        self._directory, self._service, self._retry_at = directory, service, 0.0

    def write(self, bodies: list[bytes]) -> int:
        """Append messages; how many there was room for."""
        done = 0
        while done < len(bodies) and time.monotonic() >= self._retry_at:
            if not self.writing:
                file = self.open(os.urandom(8).hex()) if len(self.files) < _FILES - 1 else None  # one is being sent
                if not file:
                    self._retry_at = time.monotonic() + 1.0
                    break
                self.files.append(file)
            file = self.files[-1]
            lines = [_line(body, file.client, seq) for seq, body in enumerate(bodies[done:], file.count + 1)]
            done += file.append(lines, _FILE_MAX - file.size)
            self.writing = done == len(bodies)
            if not file.count:  # not one: the disk is full
                self._retry_at = time.monotonic() + 1.0
                self.files.pop().leave(remove=True)
        return done

    def leave(self, client: str, lines: list[bytes]) -> int:
        """Write what close() could not deliver, with the seqs it has, to a file of the SDK's own client; how much."""
        file = self.open(client) if lines else None
        if not file: return 0
        written = file.append(lines, _FILES * _FILE_MAX - sum([other.size for other in self.files]))
        file.leave(remove=not written)
        return written

    def open(self, client: str) -> _SpillFile | None:
        directory, private = self._directory or "/var/spool/wafermon", f"/tmp/wafermon-{os.getuid()}"
        if not self._directory and not os.access(directory, os.W_OK | os.X_OK): directory = private
        try:
            os.makedirs(directory, 0o700, exist_ok=True)
            found = os.lstat(directory)
            if directory == private and (found.st_mode & 0o170022, found.st_uid) != (0o040000, os.getuid()):
                return None  # somebody else has laid it there
            return _SpillFile(directory, self._service, client)
        except OSError: return None


# ---- the SDK ----


def _tls(scheme: str, say: Callable[[str], None]) -> tuple[Any, tuple[type[OSError], ...]]:
    """The SSL context where one is needed, and what a socket that would block raises."""
    if scheme != "tls": return None, (BlockingIOError,)
    import ssl  # costs more than all the rest; and not in a thread, since a fork would inherit a locked import

    context: Any = ssl.create_default_context()
    ca, cert, key = (os.environ.get(f"WAFERMON_TLS_{name}") or None for name in ("CA", "CERT", "KEY"))
    try: _ = ca and context.load_verify_locations(ca), cert and context.load_cert_chain(cert, key)
    except OSError as error: say(f"can't use the files of WAFERMON_TLS_CA, _CERT and _KEY: {error}")
    return context, (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


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

    def __init__(self, service: _Text = None, url: _Text = None, trace_id: _Text = None,
                 buffer: int | None = None, spill_dir: _Text = None, token: _Text = None) -> None:
        env = os.environ.get
        self._service = str(service or env("WAFERMON_SERVICE") or env("OTEL_SERVICE_NAME") or "")
        if not _SERVICE.fullmatch(self._service):
            raise ValueError(f"a service is 1 to 128 of A-Z a-z 0-9 . _ - : and not wafermon: {self._service!r}")
        if buffer is not None and (type(buffer) is not int or buffer < 1):
            raise ValueError(f"a buffer holds at least one message: {buffer!r}")
        self._buffer_max = buffer or int((re.fullmatch(r"0*[1-9]\d{0,8}", env("WAFERMON_BUFFER", "")) or [_BUFFER])[0])
        self._root, self._said = _Scope.inherited(None if trace_id is None else _trace_id(trace_id)), {""}
        wanted = url or env("WAFERMON_URL") or _DEFAULT_URL
        self._address = _parsed(wanted) or ("tcp", "127.0.0.1", 7411)
        if not _parsed(wanted): self._say(f"not a sidecar's url: {wanted!r}; using {_DEFAULT_URL}")
        self._ssl, self._would_block = _tls(self._address[0], self._say)
        self._token = token or env("WAFERMON_TOKEN")
        self._spill_dir = os.fspath(spill_dir) if spill_dir else env("WAFERMON_SPILL_DIR")
        self._over = env("WAFERMON_DISABLED", "").lower() not in ("", "0", "false", "no")
        # one a handle, not one a module: two SDKs in one process have spans of their own
        self._scope: contextvars.ContextVar[_Scope | None] = contextvars.ContextVar("wafermon_scope", default=None)
        self._spans: dict[str, _Scope] = {}
        self._begin()
        with _lock: _instances.add(self)
        self._enter(None)

    def _begin(self) -> None:
        """What a forked child has anew."""
        self._pid, self._host = os.getpid(), socket.gethostname()
        self._origin = f',"service":"{self._service}","host":{_json(self._host)},"pid":{self._pid}'
        self._refusing, self._wake = threading.RLock(), threading.Event()
        self._thread: threading.Thread | None = None
        self._inbox: deque[tuple[Any, ...]] = deque()
        self._waiting: deque[bytes] = deque()
        # an inbox longer than the mark makes a call do more than append: wake the sender, wait for it, or drop
        self._mark = self._waiting_bytes = self._taken = self._refused = self._reported = self._quiet = 0
        self._counts = dict.fromkeys("sent acked rejected dropped spilled handed_over resent".split(), 0)
        self._main, self._spool = _Stream(self, os.urandom(8).hex()), _Spool(self._spill_dir, self._service)
        self._streams = [self._main]  # and the courier of a spill file
        self._started, self._close_at, self._measured = 0.0, _NEVER, (time.monotonic(), time.process_time())

    def _say(self, text: str) -> None:
        """One line on stderr; what comes before its colon is said once."""
        if text.partition(":")[0] not in self._said:
            self._said.add(text.partition(":")[0])
            with suppress(Exception): sys.stderr.write(f"wafermon: {text}\n")  # if there is one

    # -- calls --

    def log_event(self, level: str, message: str, context: _Fields = None) -> None:
        """Something happened. `level` is debug, info, warning, error or critical; `context` any JSON-like values."""
        if level not in _LEVELS: raise ValueError(f"unknown level: {level!r}")
        if message is None: raise ValueError("an event has a message")
        if type(message) is not str: message = _text(message)
        inbox = self._inbox  # as in _put, spelled out for speed
        inbox.append((_EVENT, time.time_ns(), self._scope.get() or self._root, level, message, _copied(context)))
        if len(inbox) > self._mark: self._attend()

    def log_metric(self, name: str, value: float, unit: _Text = None, tags: _Fields = None, kind: _Text = None) -> None:
        """A measured number. `unit` is UCUM where there is one; `kind` is gauge (default) or counter."""
        if kind not in (None, "gauge", "counter"): raise ValueError(f"a metric is a gauge or a counter: {kind!r}")
        unit, kind = None if unit is None else _text(unit), "counter" if kind == "counter" else None
        self._put(_METRIC, _name(name), _numeric(value), unit, kind, _copied_tags(tags))

    def log_progress(self, job_id: str, percent: float, status: str | None = "running") -> None:
        """How far a job is, 0 to 100; `status` done, failed and cancelled end it."""
        if isinstance(percent, bool) or not isinstance(percent, numbers.Real) or not 0 <= percent <= 100:
            raise ValueError(f"a percent is a number from 0 to 100, not {percent!r}")
        status = "running" if status is None else _text(status)
        if not 1 <= len(status) <= 64: raise ValueError(f"a status has 1 to 64 characters: {status!r}")
        self._put(_PROGRESS, _trace_id(job_id), _numeric(percent), status)

    def log_resource(self, cpu: _Number = None, mem: _Number = None, disk: _Number = None, net: _Number = None) -> None:
        """Percent of one core, resident bytes, bytes of disk and of network; without arguments, of this process."""
        fields = [None if value is None else _numeric(value) for value in (cpu, mem, disk, net)]
        measured = self._measure() if fields == [None] * 4 else fields
        self._put(_RESOURCE, *[None if isinstance(value, str) else value for value in measured])

    def start_span(self, name: str, trace_id: _Text = None, tags: _Fields = None) -> str:
        """Open a span inside the current one, make it the current one, and return its id."""
        outer, span_id = self._scope.get(), os.urandom(8).hex()
        around = outer or self._root
        trace_id = (around.trace_id or os.urandom(16).hex()) if trace_id is None else _trace_id(trace_id)
        span = _Scope(trace_id, span_id, outer)
        span.name, span.parent_id, span.tags = _name(name), around.span_id, _copied_tags(tags)
        self._spans[span_id] = span
        self._enter(span)
        self._put(_SPAN_START, span.name, span.parent_id, span.tags, ts=span.ts, scope=span)
        return span_id

    def end_span(self, span_id: str, status: str = "ok", tags: _Fields = None) -> None:
        """Close a span; `tags` join those of its start. Ending a span that a parent process opened sends nothing."""
        if status not in ("ok", "error"): raise ValueError(f"a span ends ok or error, not {status!r}")
        merged = _copied_tags(tags)
        span = self._spans.pop(span_id, None)
        if span is None: raise ValueError(f"no such span is open: {span_id!r}")
        scope = self._scope.get()
        while scope and scope.span_id not in self._spans: scope = scope.outer
        self._enter(scope)
        if span.pid == self._pid:
            merged = {**(span.tags or {}), **(merged or {})} or None
            times = span.ts // 1000, (time.monotonic_ns() - span.started) // 1000
            self._put(_SPAN_END, status, span.name, *times, span.parent_id, merged, scope=span)

    def span(self, name: str, trace_id: _Text = None, tags: _Fields = None) -> _Span:
        """A span as `with sdk.span("name") as span_id:`, or as `@sdk.span("name")` around every call of a function.

        It ends with status error when an exception leaves it. Coroutine functions and generators take no decorator, but
        `with` inside them.
        """
        return _Span(self, name, trace_id, tags)

    def set_trace_id(self, trace_id: str) -> None:
        """From here on, what is logged belongs to this trace; a span that is open ends in its own."""
        self._root = _Scope(_trace_id(trace_id), self._root.span_id)
        self._enter(_Scope(trace_id, inner.span_id, inner) if (inner := self._scope.get()) else None)

    def child_env(self) -> dict[str, str]:
        """The environment for a child process, so that it falls into the current trace, under the current span."""
        return (self._scope.get() or self._root).write(dict(os.environ))

    def get_stats(self) -> dict[str, Any]:
        """The state and the counts; called = acked + rejected + dropped + waiting + handed_over."""
        self._until(lambda: not self._inbox or not self._thread, 0.05)  # what was called before is where it belongs
        with _lock, self._refusing:
            if self._over: self._refuse()
            called, waiting = self._taken + len(self._inbox) + self._refused, len(self._inbox) + self._kept()
            state = "overflow" if self._full() and not self._over else "connected" if self._main.up else "disconnected"
            stats = {"state": state, "called": called, **self._counts, "waiting": waiting}
            return {**stats, "dropped": self._dropped(), "reconnects": max(0, self._main.welcomes - 1)}

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until nothing is waiting; False when that takes longer than `timeout` seconds."""
        return self._until(lambda: not self._inbox and not self._kept(), timeout)

    def close(self, timeout: float = 2.0) -> None:
        """Deliver what is waiting within `timeout` seconds and leave the rest in a spill file for the sidecar."""
        with _lock:
            if self._over: return
            self._close_at = min(self._close_at, time.monotonic() + timeout)
            self._over = not self._thread and not self._inbox
        if self._thread:
            self._wake.set()
            self._thread.join(timeout + 1.0)
        elif not self._over: self._run()  # no thread could be started: the interpreter is on its way out

    def __enter__(self) -> MonitoringSDK: return self

    def __exit__(self, *_: object) -> None: self.close()

    # -- the calls' side --

    def _put(self, kind: tuple[str, ...], *values: Any, ts: int = 0, scope: _Scope | None = None) -> None:
        self._inbox.append((kind, ts or time.time_ns(), scope or self._scope.get() or self._root, *values))
        if len(self._inbox) > self._mark: self._attend()

    def _attend(self) -> None:
        """The rare end of a call: the sender sleeps or has not begun, or its inbox is long, or there is none."""
        if self._over: self._refuse()
        elif not self._mark: self._rouse()
        elif len(self._inbox) > _LONG:
            # the interpreter would let a busy caller run for 5 ms, enough for thousands of calls
            give_up = time.monotonic() + _NAP_MAX
            while len(self._inbox) > _LONG and time.monotonic() < give_up: time.sleep(_NAP)
            if len(self._inbox) > _LONG + 2 * max(self._buffer_max, _BUFFER):
                self._refuse(len(self._inbox) - 1)  # the sender is stuck, most likely in a write to a dead disk

    def _until(self, settled: Callable[[], bool], timeout: float) -> bool:
        """Keep the sender at work until then, for so many seconds at most; whether it got there."""
        deadline = time.monotonic() + timeout
        while not settled():
            if self._over or time.monotonic() >= deadline: return False
            self._rouse()
            time.sleep(0.001)
        return True

    def _refuse(self, leave: int = 0) -> None:
        """Drop the newest messages of the inbox."""
        with self._refusing, suppress(IndexError):
            while len(self._inbox) > leave:
                self._inbox.pop()
                self._refused += 1

    def _rouse(self) -> None:
        self._mark = _LONG
        if self._thread: return self._wake.set()
        with _lock:
            if not self._thread and not self._over:
                self._started = time.monotonic()
                self._thread = _in_thread("wafermon-sender", self._run)
                _close_with_worker_process(self)

    def _measure(self) -> list[int | float | str | None]:
        """This process's cpu since the last time, its memory and its disk bytes; Linux counts no network by process."""
        (since, before), self._measured = self._measured, (time.monotonic(), time.process_time())
        wall, mem, disk = self._measured[0] - since, None, None
        with suppress(OSError, ValueError, KeyError):  # not Linux, or a kernel that doesn't tell
            with open("/proc/self/statm", "rb") as statm, open("/proc/self/io", "rb") as io:
                mem = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
                counts = dict(line.split(b": ") for line in io.read().splitlines())
                disk = int(counts[b"read_bytes"]) + int(counts[b"write_bytes"])
        return [round(100.0 * (self._measured[1] - before) / wall, 3) if wall else None, mem, disk, None]

    def _enter(self, scope: _Scope | None) -> None:
        """From here on, calls are made in it; child processes inherit it from the main thread, which alone exports."""
        self._scope.set(scope)
        if threading.current_thread() is threading.main_thread(): (scope or self._root).write(os.environ)

    # -- the sender's side --

    def _run(self) -> None:
        # an application may have given SIGPIPE its deadly default back
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGPIPE])
        farewells: list[socket.socket] | None = None
        while farewells is None:
            try:
                with _lock:
                    moved = self._tick(time.monotonic())
                    farewells = self._finish(time.monotonic())
                if moved and self._inbox: time.sleep(_NAP)  # let the callers have the interpreter
                elif farewells is None: self._wait(moved)
            except Exception as error:  # the sender must live: without it nothing is delivered, nor spilled
                self._say(f"internal error: {error!r}")
                time.sleep(0.1)
        for sock in farewells: _farewell(sock, self._close_at)

    def _tick(self, now: float) -> int:
        """One look at everything; how many messages were taken from the inbox."""
        main, inbox = self._main, self._inbox
        main.connect(now)
        if main.up and self._dropped() > self._reported:
            count, self._reported = self._dropped() - self._reported, self._dropped()
            fields = ("warning", f"{count} messages dropped", {"kind": "dropped", "count": count})
            main.number(self._encoded((_EVENT, time.time_ns(), self._root, *fields)))
        self._advance()
        count = min(len(inbox), _PORTION)
        if not main.welcomes and not main.failures and now < self._started + _GRACE:
            count = min(count, self._buffer_max - len(self._waiting))
        overflow: list[bytes] = []
        for _ in range(count):
            body = self._encoded(inbox.popleft()) if inbox else b""
            if body and self._full(): overflow.append(body)
            elif body:
                self._waiting.append(body)
                self._waiting_bytes += len(body)
                self._advance()
        self._spilled(self._spool.write(overflow), len(overflow))
        main.pump(now)
        self._deliver_spill(now)
        return count

    def _advance(self) -> None:
        """Number what waits, as far as the window has room for it."""
        while self._main.up and self._waiting and self._main.window_bytes < _BYTES:
            body = self._waiting.popleft()
            self._waiting_bytes -= len(body)
            self._main.number(body)

    def _spilled(self, written: int, wanted: int) -> None:
        self._counts["spilled"] += written
        self._counts["dropped"] += wanted - written

    def _encoded(self, entry: tuple[Any, ...]) -> bytes:
        kind, ts, scope, *values = entry
        self._taken += 1
        try:
            return _encode(kind, ts // 1000, self._origin + scope.text, values)
        except Exception as error:
            self._say(f"a message could not be encoded: {error!r}")
            self._counts["dropped"] += 1
            return b""

    def _deliver_spill(self, now: float) -> None:
        """While connected, send closed spill files one by one, each over a connection of its own."""
        if self._main.up and len(self._streams) == 1:
            self._spool.writing = self._spool.writing and self._full()
            if len(self._spool.files) > self._spool.writing:
                file = self._spool.files.popleft()
                if file.claim():
                    self._streams.append(_Stream(self, file.client, file))
                else:
                    self._counts["handed_over"] += file.count
                    os.close(file.fd)
        for courier in self._streams[1:]:
            if self._main.up: courier.connect(now)
            courier.pump(now)
            if courier.file and not courier.window:
                courier.lose()
                courier.file.leave(remove=True)
                self._streams.pop()

    def _wait(self, moved: int) -> None:
        """Until the next tick while there is work, else until something happens."""
        self._quiet, pause = 0 if moved else self._quiet + 1, _TICK
        if self._quiet >= _IDLE_TICKS and self._close_at == _NEVER:
            self._mark = 0
            pause = min(_DOZE if self._main.sock and self._kept() else _SLEEP, self._main.retry_at - time.monotonic())
        # a call that came before it could see the mark did not ring
        if self._mark or not self._inbox:
            self._wake.wait(max(0.0, pause))
            self._wake.clear()
        self._mark = _LONG

    def _finish(self, now: float) -> list[socket.socket] | None:
        """When it is time to close: leave the rest in a spill file; the sockets to say farewell to. Else None."""
        main, counts, spool = self._main, self._counts, self._spool
        hopeful = (main.up or not main.failures) and (self._inbox or self._kept())
        if self._close_at == _NEVER or (hopeful and now < self._close_at): return None
        self._over, self._mark = True, 0
        farewells = [stream.sock for stream in self._streams if stream.sock]
        for stream in self._streams: stream.sock, stream.up = None, False
        while self._waiting or self._inbox:
            body = self._waiting.popleft() if self._waiting else self._encoded(self._inbox.popleft())
            if body: main.number(body)
        left = spool.leave(main.client, [line for _, line in main.window])
        self._spilled(left, len(main.window))
        main.window.clear()
        counts["handed_over"] += left + self._kept()
        for file in self._files(): file.leave()
        spool.files.clear()
        self._streams = [main]
        return farewells

    def _files(self) -> list[_SpillFile]:
        return [*self._spool.files, *[stream.file for stream in self._streams if stream.file]]

    def _kept(self) -> int:
        """Messages that the sender has taken and not yet settled."""
        with _lock:
            in_files = sum([file.count for file in self._spool.files])
            return len(self._waiting) + in_files + sum([len(stream.window) for stream in self._streams])

    def _dropped(self) -> int: return self._counts["dropped"] + self._refused

    def _full(self) -> bool: return len(self._waiting) >= self._buffer_max or self._waiting_bytes + _BODY_MAX >= _BYTES

    def _hello(self, client: str) -> bytes:
        origin = {"service": self._service, "host": self._host, "pid": self._pid, "sdk": f"python/{__version__}"}
        secret = {"token": self._token} if self._token else {}
        return _utf8(_json({"v": 2, "type": "hello", "client": client, **origin, "ack": True, **secret}) + "\n")

    def _begin_in_child(self) -> None:
        """Close what the parent goes on using, without a word to the other side, and start empty."""
        for sock in [stream.sock for stream in self._streams if stream.sock]: sock.close()
        for file in self._files(): os.close(file.fd)
        self._begin()


# ---- the process ----

# Forks and exits concern the process, so these few lines know all its SDKs.
_instances: weakref.WeakSet[MonitoringSDK] = weakref.WeakSet()


def _before_fork() -> None:
    """Hold the lock, so that no socket or file is half made when the child looks for what to close."""
    for dialer in [stream.dialer for sdk in list(_instances) for stream in sdk._streams if stream.dialer]:
        dialer.join(0.2)  # a host that doesn't answer is not waited for
    _lock.acquire()


def _after_fork_in_child() -> None:
    for sdk in list(_instances): sdk._begin_in_child()
    _lock.release()


def _close_all() -> None:
    for sdk in list(_instances): sdk.close()


def _close_with_worker_process(sdk: MonitoringSDK) -> None:
    """A child made by multiprocessing ends without the interpreter's exit handlers, but runs its own."""
    if "multiprocessing.util" in sys.modules:
        from multiprocessing import parent_process, util

        if parent_process(): util.Finalize(None, sdk.close, exitpriority=-100)


os.register_at_fork(before=_before_fork, after_in_parent=_lock.release, after_in_child=_after_fork_in_child)
atexit.register(_close_all)
