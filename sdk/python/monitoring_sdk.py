"""The Python SDK of wafermon: events, metrics, progress, resources and spans for the sidecar.

What it promises:

- A call never blocks on the network and never raises because of it; only a programming error (an unknown level, a
  percent of 300) raises, at the call. What a call was given is fixed when it returns.
- A message is kept until the sidecar acknowledges it. While that is away, up to `buffer` messages wait in memory;
  what does not fit goes to spill files, and only when those are full or can't be written is a message dropped, which
  is counted.
- Threads may share an SDK, and signal handlers may use it. A forked child starts empty, with a connection and a client
  of its own, whether Python forked or a C library did. An SDK that is dropped without `close()` is closed.
- `get_stats()` adds up: called = acked + rejected + dropped + waiting + handed_over.

How it does so: a call only puts its arguments into an inbox. One sender thread, started by the first call, encodes
them, numbers them and writes them. It looks into the inbox every few milliseconds while there is work, and is woken by
a call only after it has gone to sleep, since waking it costs more than the call itself. Nothing it does with a socket
blocks; connecting, which might, is done in a thread of its own.

Beside this file, and not needed: `monitoring_spans.py` (spans around coroutine functions and generators),
`monitoring_logging.py` (a handler for the standard library's logging).
"""

from __future__ import annotations

import atexit
import contextvars
import fcntl
import functools
import itertools
import json
import mmap
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
from typing import Any, Callable, Iterable, Optional, TypeVar, Union

__all__ = ["MonitoringSDK"]
__version__ = "2.0.0"

_DEFAULT_URL = "tcp://127.0.0.1:7411"
# What may wait to be sent; as many bytes again may be sent and unacknowledged.
_BUFFER = 1000
_BYTES = 4 << 20
_BODY_MAX = 65_536 - 64  # the rest of a line is for client and seq
# Bytes of a spill file, how many files, and of how many a stats line tells.
_FILE_MAX = 1 << 20
_FILES = 64
_STREAMS = 1000
# Bytes of lines that are worth a frame, and that go into one.
_FRAME_LEAST = 1 << 10
_FRAME_MOST = 256 << 10
# Seconds without a byte after which a connection that owes us a welcome or acks is dead; seconds that a burst at the
# very start may wait for the first welcome before it spills; seconds after a message until a stats line tells of it.
_SILENCE = 5.0
_GRACE = 0.1
_STATS = 5.0
_NEVER = float("inf")
# How often a busy sender looks at everything; so often in vain, and it dozes while acks are to come, or sleeps.
_TICK = 0.005
_IDLE_TICKS = 10
_DOZE = 0.05
_SLEEP = 1.0
_CALM = 1.0  # before it begins to work while uWSGI may fork
# It encodes so many messages before others get the interpreter. An inbox longer than that makes callers let it run, by
# naps, again and again, at most so long a call.
_PORTION = 96
_LONG = 256
_NAP = 0.00005
_NAP_MAX = 0.0006

_LEVELS = {name: name for name in ("debug", "info", "warning", "error", "critical")}
_OTHER_LEVELS = {"warn": "warning", "err": "error", "fatal": "critical"}
_SERVICE = re.compile(r"(?!wafermon$)[A-Za-z0-9._:-]{1,128}")
_TRACE_ID = re.compile(r"[!-~]{1,128}")
_W3C_TRACE = re.compile(r"(?!0{32})[0-9a-f]{32}")
_SPAN_ID = re.compile(r"[0-9a-f]{16}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}.*")
_URL = re.compile(r"unix://(/.+)|(tcp|tls)://(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?/?")
_Fields = Optional["Mapping[str, Any]"]
_Number = Optional[float]
_Text = Optional[str]
_Level = Union[str, int]
_Function = TypeVar("_Function", bound="Callable[..., Any]")

# ---- encoding ----

# Integers beyond the first are sent as text, containers nested deeper than the second too. After so many values a
# context is not copied further: it can't fit into a line. Cutting strings below so many characters gains nothing.
_EXACT = 1 << 53
_DEPTH = 8
_NODES = 32_768
_SHORTEST = 64
_FLAT = frozenset((str, int, float, bool, type(None)))
_FLAT_MAX = 64


def _kind(name: str, *fields: str) -> tuple[str, ...]:
    """A message type: how its line begins, and the keys of its own fields; context or tags come last."""
    return (f'{{"type":"{name}","ts":', *[f',"{field}":' for field in fields])


_EVENT = _kind("event", "level", "message", "context")
_METRIC = _kind("metric", "name", "value", "unit", "kind", "tags")
_PROGRESS = _kind("progress", "job_id", "percent", "status")
_RESOURCE = _kind("resource", "cpu", "mem", "disk", "net")
_SPAN_START = _kind("span_start", "name", "parent_id", "tags")
_SPAN_END = _kind("span_end", "status", "name", "start", "duration", "parent_id", "tags")
_STATS_LINE = _kind("stats", "called", "dropped", "unsent", "last", "streams", "final")


def _json(value: Any, most: int = _BODY_MAX) -> str:
    """JSON of a value made of plain types only, its strings cut to so many characters.

    What JSON can't say becomes null, a string or U+FFFD.
    """
    kind = type(value)
    if kind is str:
        return _quote(value[:most].replace("\0", "\ufffd"))
    if kind is int:
        # the interpreter refuses to write out very long integers in decimal
        text = repr(value) if value.bit_length() < 2_000 else hex(value)
        return text if -_EXACT <= value <= _EXACT else f'"{text}"'
    if kind is float:
        return repr(value) if value - value == 0.0 else "null"
    if kind is dict:
        items = [f"{_json(key if type(key) is str else _text(key))}:{_json(item, most)}" for key, item in value.items()]
        return "{" + ",".join(items) + "}"
    if kind is list:
        return "[" + ",".join([_json(item, most) for item in value]) + "]"
    if value is None:
        return "null"
    return "true" if value else "false"


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return re.sub("[\ud800-\udfff]", "\ufffd", text).encode()  # lone surrogates


def _text(value: Any, convert: Callable[[Any], str] = str) -> str:
    """Any object as text, whatever its own methods do."""
    try:
        if isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value).decode("utf-8", "replace")
        return str.__str__(value if isinstance(value, str) else convert(value))
    except Exception:
        return f"<{type(value).__name__}>"


def _plain(value: Any, depth: int, left: list[int]) -> Any:
    """A deep copy in plain types, cut at depth 8 and after `left[0]` values; what raises on the way becomes text."""
    left[0] -= 1
    if type(value) in _FLAT:
        return value
    try:
        if isinstance(value, (dict, list, tuple, Mapping, set, frozenset)):
            if depth > _DEPTH:
                return _text(value, reprlib.repr)
            mapping = isinstance(value, (dict, Mapping))
            items: Any = value
            if mapping:
                items = items.items()
            # listed first, in one go: another thread may change it at the same time
            items = list(itertools.islice(items, max(0, left[0])))
            if mapping:
                return {_text(key): _plain(item, depth + 1, left) for key, item in items}
            return [_plain(item, depth + 1, left) for item in items]
        if hasattr(type(value), "tolist"):  # a scalar or an array of numpy and its kin
            small = value.nbytes <= _NODES * 8 if isinstance(getattr(value, "nbytes", None), int) else True
            return _plain(value.tolist(), depth, left) if small else _text(value)
        if isinstance(value, numbers.Integral):
            return int(value)
        return float(value) if isinstance(value, numbers.Real) else _text(value)
    except Exception:
        return f"<{type(value).__name__}>"


def _copied(fields: Any) -> Any:
    """A context as it is now, in plain types; a small flat dict, as most are, needs no more than a copy."""
    if type(fields) is dict and len(fields) <= _FLAT_MAX:
        fields = fields.copy()
        if _FLAT.issuperset(map(type, fields.values())):
            return fields
    if fields is None:
        return None
    if not isinstance(fields, Mapping):
        raise TypeError(f"context and tags are mappings, not {type(fields).__name__}")
    plain = _plain(fields, 1, [_NODES])
    return plain if type(plain) is dict else {"value": plain}


def _copied_tags(tags: Any) -> Any:
    """Tags are strings and numbers: None is left out, and whatever else comes along becomes text."""
    items = (_copied(tags) or {}).items()
    return {key: tag if type(tag) in (str, int, float) else _json(tag) for key, tag in items if tag is not None} or None


def _encode(kind: tuple[str, ...], ts: int, origin: str, values: list[Any]) -> bytes:
    """A message without its client, its seq and its closing brace, short enough for any line."""

    def body(most: int, end: str = ',"truncated":true') -> bytes:
        fields = [key + _json(value, most) for key, value in zip(kind[1:], values) if value is not None]
        return _utf8(f"{kind[0]}{ts}{origin}{''.join(fields)}{end}")

    line = body(_BODY_MAX, "")
    if len(line) <= _BODY_MAX:
        return line
    least, most = _SHORTEST, _BODY_MAX
    if len(body(least)) > _BODY_MAX:
        values[-1] = None
    while most - least > 1:  # the longest strings are cut, all to the same length: the greatest that fits
        middle = (least + most) // 2
        least, most = (middle, most) if len(body(middle)) <= _BODY_MAX else (least, middle)
    return body(least)


def _line(body: bytes, client: str, seq: int) -> bytes:
    return b'%s,"client":"%s","seq":%d}\n' % (body, client.encode(), seq)


# ---- what calls check ----


def _level(level: Any) -> str:
    """The level that another name or a number of logging's means."""
    text = _text(level).strip().lower()
    found = _LEVELS.get(text) or _OTHER_LEVELS.get(text)
    if not found and text.isdecimal() and 10 <= int(text[:9]) <= 50:
        found = list(_LEVELS)[int(text) // 10 - 1]
    if not found or isinstance(level, bool):
        raise ValueError(f"unknown level: {level!r}; levels are {', '.join(_LEVELS)}, or 10 to 50 as in logging")
    return found


def _trace_id(trace_id: Any) -> str:
    if not isinstance(trace_id, str) or not _TRACE_ID.fullmatch(trace_id):
        raise ValueError(f"a trace id is 1 to 128 printable ASCII characters without space, not {trace_id!r}")
    return trace_id


def _name(name: Any) -> str:
    if not isinstance(name, (str, bytes)) or not name:
        raise ValueError(f"a name is a non-empty string, not {name!r}")
    return _text(name)


def _numeric(value: Any) -> int | float | str:
    """The value of a field that is a number; what JSON has no number for is spelled out."""
    if type(value) is not float and hasattr(type(value), "tolist"):
        value = value.tolist()  # numpy's
    if type(value) is int and -_EXACT <= value <= _EXACT:
        return value
    if isinstance(value, (bool, str, bytes)):
        raise TypeError(f"not a number: {value!r}")
    try:
        number = float(value)
    except OverflowError:
        number = float("inf") if value > 0 else -float("inf")
    return number if number - number == 0.0 else json.dumps(number)


# ---- trace and span ----


@functools.lru_cache(maxsize=256)
def _w3c_trace(trace_id: str) -> tuple[str, str]:
    """A job id as a W3C trace id, and the parent's id where no span is open."""
    import hashlib  # costs as much as half of this module, and not every program has jobs

    digest = hashlib.sha256(trace_id.encode()).hexdigest()
    return (trace_id if _W3C_TRACE.fullmatch(trace_id) else digest[:32]), digest[32:48]


class _Scope:
    """Trace and span in which a call is made, also as the JSON that goes into its line."""

    over = False  # a span that has ended is the current one of nobody

    def __init__(self, trace_id: str | None, span_id: str | None, outer: _Scope | None = None) -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.outer = outer
        self.span: _Scope = outer.span if outer else self  # whose end is this scope's end
        given = {"trace_id": trace_id, "span_id": span_id}
        self.text = "".join([f',"{key}":{_json(value)}' for key, value in given.items() if value])

    @classmethod
    def inherited(cls, trace_id: str | None) -> _Scope:
        """That of the environment; a given trace id wins."""
        trace, span = os.environ.get("WAFERMON_TRACE_ID", ""), os.environ.get("WAFERMON_SPAN_ID", "")
        parent = _TRACEPARENT.fullmatch(os.environ.get("TRACEPARENT", ""))
        if parent and not trace and not span:
            trace, span = parent.groups()
        trace = trace_id or (trace if _TRACE_ID.fullmatch(trace) else "")
        return cls(trace or None, span if _SPAN_ID.fullmatch(span) else None)

    def variables(self) -> dict[str, str]:
        """What lets a child process fall into the trace, under the span; an empty one counts as not set."""
        parent = ""
        if self.trace_id:
            trace, nobody = _w3c_trace(self.trace_id)
            parent = f"00-{trace}-{self.span_id or nobody}-01"
        found = {"WAFERMON_TRACE_ID": self.trace_id, "WAFERMON_SPAN_ID": self.span_id, "TRACEPARENT": parent}
        return {name: value or "" for name, value in found.items()}


class _OpenSpan(_Scope):
    """A span and what its end will say."""

    def __init__(self, trace_id: str, span_id: str, outer: _Scope | None, name: str, parent: str | None, tags: Any):
        super().__init__(trace_id, span_id, outer)
        self.span = self
        self.name = name
        self.parent_id = parent
        self.tags = tags
        self.ts = time.time_ns()
        self.started = time.monotonic_ns()
        self.pid = os.getpid()


class _Span(ContextDecorator):
    """A span of a block; as a decorator, one of its own for every call."""

    def __init__(self, sdk: MonitoringSDK, *given: Any) -> None:
        self._sdk = sdk
        self._given = given

    def __enter__(self) -> str:
        self._id = self._sdk.start_span(*self._given)
        return self._id

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._id in self._sdk._spans:
            # closing a generator that is left early is no failure
            self._sdk.end_span(self._id, "ok" if kind in (None, GeneratorExit) else "error")

    def _recreate_cm(self) -> _Span:
        return _Span(self._sdk, *self._given)

    def __call__(self, function: _Function) -> _Function:
        # inspect.CO_GENERATOR, CO_COROUTINE, CO_ASYNC_GENERATOR: what these return runs later
        if getattr(getattr(function, "__code__", None), "co_flags", 0) & 0x2A0:
            try:
                from monitoring_spans import spanned
            except ImportError:
                name = function.__name__
                raise TypeError(f"a span around {name} needs monitoring_spans.py, or `with` inside {name}") from None
            around: _Function = spanned(self._recreate_cm, self._sdk, function)
            return around
        return super().__call__(function)


# ---- connections ----


def _in_thread(name: str, target: Callable[[], None]) -> threading.Thread | None:
    """Run it in a thread; None when none can be started, since the interpreter is on its way out."""
    thread = threading.Thread(target=target, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return None
    return thread


def _parsed(url: str) -> tuple[str, str, int] | None:
    """Scheme, host and port; of a Unix socket the path is the host. None for what is no sidecar's url."""
    found = _URL.fullmatch(url)
    if not found or int(found[5] or 1) not in range(1, 65_536):
        return None
    path, scheme, ipv6, host, port = found.groups()
    if path:
        return "unix", path, 0
    return scheme, ipv6 or host, int(port or {"tcp": 7411, "tls": 7413}[scheme])


def _tls(scheme: str, say: Callable[[str], None]) -> tuple[Any, tuple[type[OSError], ...]]:
    """The SSL context where one is needed, and what a socket that would block raises."""
    if scheme != "tls":
        return None, (BlockingIOError,)
    import ssl  # costs more than all the rest; and not in a thread, since a fork would inherit a locked import

    context: Any = ssl.create_default_context()
    ca, cert, key = (os.environ.get(f"WAFERMON_TLS_{name}") or None for name in ("CA", "CERT", "KEY"))
    try:
        if ca:
            context.load_verify_locations(ca)
        if cert:
            context.load_cert_chain(cert, key)
    except OSError as error:
        say(f"can't use the files of WAFERMON_TLS_CA, _CERT and _KEY: {error}")
    return context, (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def _compressor(wanted: str, say: Callable[[str], None]) -> Callable[[bytes], bytes] | None:
    """What packs a frame, where WAFERMON_COMPRESS asks for one that is known here."""
    if wanted != "zlib":
        return None
    try:
        import zlib
    except ImportError:
        say("this Python has no zlib: lines go uncompressed")
        return None
    return functools.partial(zlib.compress, level=1) if sys.version_info >= (3, 11) else zlib.compress


class _Stream:
    """One client's messages on their way: numbered, sent, and kept until they are acknowledged.

    The sender calls it under its lock. A stats line is one of them that counts nowhere.
    """

    def __init__(self, sender: _Sender, client: str, file: _SpillFile | None = None) -> None:
        self._sender = sender
        self.client = client
        self.file = file
        self.up = False  # from the welcome on
        self.offered: tuple[str, ...] = ()  # what the last welcome said may be sent
        self.sock: socket.socket | None = None
        self.dialing: socket.socket | None = None
        self.welcomes = self.failures = self.seq = self.kept = self.window_bytes = 0
        self.retry_at = self._heard = 0.0
        self._highest_sent = 0
        self._framed = False
        self.window: deque[tuple[int, bytes, int]] = deque()  # seq, line, and the calls it stands for: 1 or 0
        # What has come in part; what waits to be framed or not; what the socket gets next.
        self._received = b""
        self._lines = bytearray()
        self._out = bytearray()
        if file:
            for line in os.pread(file.fd, file.size, 0).splitlines(keepends=True):
                self._keep(line, 1)

    def number(self, body: bytes, count: int = 1) -> None:
        """Give the message its seq, for ever, and keep it until that is acknowledged."""
        self._keep(_line(body, self.client, self.seq + 1), count)

    def _keep(self, line: bytes, count: int) -> None:
        if not self.window:
            self._heard = time.monotonic()
        self.seq += 1
        self.kept += count
        self.window.append((self.seq, line, count))
        self.window_bytes += len(line)
        if self.up:
            self._send([self.window[-1]])

    def _send(self, messages: Iterable[tuple[int, bytes, int]]) -> None:
        for seq, line, count in messages:
            self._sender.counts["sent" if seq > self._highest_sent else "resent"] += count
            self._highest_sent = max(seq, self._highest_sent)
            self._lines += line

    def connect(self, now: float) -> None:
        """Begin a connection, if there is none and the last failure is long enough ago."""
        if not self.sock and now >= self.retry_at:
            self.retry_at = _NEVER
            if not _in_thread("wafermon-dialer", self._dial):
                self._dial()

    def _dial(self) -> None:
        """Look the host up, try each of its addresses, and agree on TLS: a thread of its own may take its time."""
        sender = self._sender
        sock = None
        try:
            for family, address in sender.addresses():
                sock = self._reached(family, address)
                if sock:
                    break
        except OSError:
            sock = None  # no such host
        with sender.lock:
            self.sock, self.dialing = sock, None
            self._heard = time.monotonic()
            self._out = bytearray(sender.hello(self.client))
            if not sock or sender.over:
                self.lose()
        sender.wake()

    def _reached(self, family: int, address: Any) -> socket.socket | None:
        """A connection to one address, or None. What it has in hand lies in `dialing`, for a child to close."""
        sender = self._sender
        try:
            with sender.lock:
                sock = self.dialing = socket.socket(family, socket.SOCK_STREAM)
            sock.settimeout(_SILENCE)
            sock.connect(address)
            if family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if sender.ssl:
                with sender.lock:
                    host = sender.address[1]
                    sock = self.dialing = sender.ssl.wrap_socket(
                        sock, server_hostname=host, do_handshake_on_connect=False
                    )
                sock.do_handshake()
            sock.setblocking(False)
            return sock
        except OSError:
            if self.dialing:
                self.dialing.close()
            return None

    def lose(self) -> None:
        """Close the connection at once; what is unacknowledged stays for the next one."""
        if self.sock:
            self.sock.close()
        self.forget()
        jitter = int.from_bytes(os.urandom(4), "big") / (1 << 32)
        self.retry_at = time.monotonic() + min(30.0, 0.1 * 2 ** min(self.failures, 10)) * jitter
        self.failures += 1

    def forget(self) -> None:
        """Be without a connection; whoever has the socket closes it."""
        self.sock = None
        self.up = False
        self._received = b""
        self._lines = bytearray()
        self._out = bytearray()

    def pump(self, now: float) -> None:
        """Read what has come, write what the socket takes, and only then judge the connection."""
        sock = self.sock
        if not sock:
            return
        alive = True
        try:
            with suppress(*self._sender.would_block):
                while data := sock.recv(65_536):
                    self._received += data
                    self._heard = now
                alive = False
            *replies, self._received = self._received.split(b"\n")
            for reply in replies:
                self._answer(json.loads(reply))
            with suppress(*self._sender.would_block):
                while alive and (self._out or self._pack()):
                    del self._out[: sock.send(self._out)]
            silent = now - self._heard > _SILENCE and (self.window or not self.up)
            if alive and not silent and len(self._received) < _FILE_MAX:
                return
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            pass  # it has broken, or speaks another protocol
        self.lose()

    def _pack(self) -> bool:
        """Give the socket what waits: a frame of it where that is granted and worth it. Whether there was something."""
        if self._framed and self._sender.compress and len(self._lines) >= _FRAME_LEAST:
            end = self._lines.rfind(b"\n", 0, _FRAME_MOST) + 1
            raw = bytes(self._lines[:end])
            block = self._sender.compress(raw)
            header = b'{"type":"frame","codec":"zlib","bytes":%d,"raw":%d,"lines":%d}\n'
            self._out += header % (len(block), end, raw.count(b"\n")) + block
            del self._lines[:end]
        else:
            self._out, self._lines = self._lines, self._out
        return bool(self._out)

    def _answer(self, reply: dict[str, Any]) -> None:
        kind, seq = reply.get("type"), reply.get("seq")
        if kind == "ack":
            self._settle(reply["seq"])
        elif kind == "welcome" and not self.up and reply.get("v", 2) == 2:
            self.up = True
            self.failures = 0
            self.welcomes += 1
            self.offered = tuple(reply.get("features") or ())
            self._framed = reply.get("compress") == "zlib"
            self._settle(reply["acked"])
            self._send(self.window)
        elif kind == "error" and seq is None:
            self._sender.refused_by_sidecar(reply)
        elif kind == "error":
            for message in [message for message in self.window if message[0] == seq]:
                self.window.remove(message)
                self._settled(message, "rejected")

    def _settle(self, acked: int) -> None:
        while self.window and self.window[0][0] <= acked:
            self._settled(self.window.popleft(), "acked")

    def _settled(self, message: tuple[int, bytes, int], how: str) -> None:
        _, line, count = message
        self.window_bytes -= len(line)
        self.kept -= count
        self._sender.counts[how] += count


def _farewell(sock: socket.socket, deadline: float) -> None:
    """Shut down our side, read to the end and close: an unread reply would reset the connection."""
    with sock, suppress(OSError):
        sock.settimeout(max(0.001, min(0.5, deadline - time.monotonic())))
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65_536) and time.monotonic() < deadline:
            pass


# ---- spill ----


class _SpillFile:
    """A file of whole lines with a client of its own; locked as long as its writer lives and wants it."""

    def __init__(self, directory: str, service: str, client: str) -> None:
        self.client = client
        self.count = 0
        self.size = 0
        self.path = os.path.join(directory, f"{service}.{os.getpid()}.{client}.ldjson")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self.fd = os.open(self.path, flags, 0o660)
        # On a file system without locks or modes it is still a file.
        with suppress(OSError):
            os.fchmod(self.fd, 0o660)  # whatever the umask: in a setgid spill dir the group is the sidecar's
        with suppress(OSError):
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def append(self, lines: list[bytes], room: int) -> int:
        """Write the lines that fit into so many bytes; how many got there. One that a full disk cuts is taken back."""
        fitting = sum([size <= room for size in itertools.accumulate(map(len, lines))])
        data = b"".join(lines[:fitting])
        kept = 0
        with suppress(OSError):
            kept = data.rfind(b"\n", 0, os.write(self.fd, data)) + 1
            os.ftruncate(self.fd, self.size + kept)
        done = data.count(b"\n", 0, kept)
        self.size += kept
        self.count += done
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
            if remove:
                os.unlink(self.path)
            else:
                os.rename(self.path, self.path.replace(".ldjson.taken", ".ldjson"))
        os.close(self.fd)


class _Spool:
    """A sender's spill files, oldest first: the newest is written, only closed ones are sent."""

    def __init__(self, directory: str | None, service: str) -> None:
        self.files: deque[_SpillFile] = deque()
        self.writing = False  # into the newest
        self.streams: dict[str, int] = {}  # client and last seq of each file there has been
        self._directory = directory
        self._service = service
        self._retry_at = 0.0

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
            else:
                self._remember(file)
        return done

    def _remember(self, file: _SpillFile) -> None:
        self.streams[file.client] = file.count
        if len(self.streams) > _STREAMS:
            del self.streams[next(iter(self.streams))]

    def leave(self, client: str, lines: list[bytes]) -> int:
        """Write what close() could not deliver, with the seqs it has, to a file of the SDK's own client; how much."""
        file = self.open(client) if lines else None
        if not file:
            return 0
        written = file.append(lines, _FILES * _FILE_MAX - sum([other.size for other in self.files]))
        file.leave(remove=not written)
        return written

    def open(self, client: str) -> _SpillFile | None:
        directory = self._directory or "/var/spool/wafermon"
        private = f"/tmp/wafermon-{os.getuid()}"
        if not self._directory and not os.access(directory, os.W_OK | os.X_OK):
            directory = private
        try:
            os.makedirs(directory, 0o700, exist_ok=True)
            found = os.lstat(directory)
            if directory == private and (found.st_mode & 0o170022, found.st_uid) != (0o040000, os.getuid()):
                return None  # somebody else has laid it there
            return _SpillFile(directory, self._service, client)
        except OSError:
            return None


# ---- the sender ----


class _SamePid:
    """Whether this is the process that made it, by its pid: what `_witness` is where the kernel has nothing better."""

    def __init__(self) -> None:
        self._pid = os.getpid()

    def __getitem__(self, _: int) -> bool:
        return os.getpid() == self._pid

    def __setitem__(self, _: int, here: int) -> None:
        self._pid = os.getpid()


def _witness() -> Any:
    """Something whose first item is true where it was set, and false in a forked child, however that was forked.

    A page that Linux wipes in the child costs a call a tenth of what asking for the pid does.
    """
    if sys.platform == "linux":
        with suppress(OSError, ValueError):
            page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            page.madvise(18)  # MADV_WIPEONFORK, from Linux 4.14 on
            return page
    return _SamePid()


def _uwsgi_may_fork() -> bool:
    """Whether this is uWSGI before its workers are forked, or its master.

    It forks with the interpreter in whichever thread has it, and a worker whose parent had it in another thread than
    the main one waits for it for ever.
    """
    uwsgi = sys.modules.get("uwsgi")
    return uwsgi is not None and getattr(uwsgi, "worker_id", os.getpid)() == 0


class _Sender:
    """What brings messages to the sidecar: an inbox that calls fill, and the one thread that empties it.

    It does not know the MonitoringSDK that it works for, so that one that is dropped can be closed.
    """

    def __init__(self, service: str, url: str, buffer: int, spill_dir: str | None, token: str | None) -> None:
        env = os.environ.get
        self._said = {""}
        self.service = service
        self.address = _parsed(url) or ("tcp", "127.0.0.1", 7411)
        if not _parsed(url):
            self.say(f"not a sidecar's url: {url!r}; using {_DEFAULT_URL}")
        self.ssl, self.would_block = _tls(self.address[0], self.say)
        self.compress = _compressor(env("WAFERMON_COMPRESS", ""), self.say)
        self._buffer_max = buffer
        self._spill_dir = spill_dir
        self._token = token
        # calls are checked and counted, nothing is opened; or it is closed
        self.over = env("WAFERMON_DISABLED", "").lower() not in ("", "0", "false", "no")
        self.inbox: deque[tuple[Any, ...]] = deque()
        self.here = _witness()
        self._children: dict[int, int] = {}  # pid, and the thread that begins anew there
        self.begin()

    def begin(self) -> None:
        """What a forked child has anew, locks included: the parent's may be held by a thread that is not here."""
        self.host = socket.gethostname()
        self.origin = f',"service":"{self.service}","host":{_json(self.host)},"pid":{os.getpid()}'
        # Held by whoever touches sockets, files and counts; by callers only for a moment. A signal handler may come in
        # between anywhere, so there is no lock here that a thread could not take again, and no Event, which has one.
        self.lock = threading.RLock()
        self._refusing = threading.RLock()
        self._bell = threading.Lock()  # free: somebody has rung
        self._bell.acquire()
        self._permits = [True]  # to start the thread
        self._thread: threading.Thread | None = None
        self.inbox.clear()
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        # an inbox longer than the mark makes a call do more than append: wake the sender, wait for it, or drop
        self.mark = 0
        self._taken = self._refused = self._reported = self._quiet = 0
        self.counts = dict.fromkeys("sent acked rejected dropped spilled handed_over resent".split(), 0)
        self.main = _Stream(self, os.urandom(8).hex())
        self._spool = _Spool(self._spill_dir, self.service)
        self._streams = [self.main]  # and the courier of a spill file
        self._started = 0.0
        self._close_at = self._tell_at = _NEVER
        self._final = -1  # the seq of a final stats line
        self._measured = time.monotonic(), time.process_time()
        self.pid = os.getpid()
        self.here[0] = 1  # last: from here on other threads may use it

    def begin_in_child(self) -> None:
        """Close what the parent goes on using, without a word to the other side, and start empty."""
        if self._children.setdefault(os.getpid(), threading.get_ident()) != threading.get_ident():
            while not self.here[0]:  # another thread of the child is at it
                time.sleep(0.001)
            return
        for sock in [sock for stream in self._streams for sock in (stream.sock, stream.dialing) if sock]:
            sock.close()
        for file in self._files():
            os.close(file.fd)
        self.begin()

    def say(self, text: str) -> None:
        """One line on stderr; what comes before its colon is said once."""
        if text.partition(":")[0] not in self._said:
            self._said.add(text.partition(":")[0])
            with suppress(Exception):  # if there is one
                sys.stderr.write(f"wafermon: {text}\n")

    def refused_by_sidecar(self, reply: dict[str, Any]) -> None:
        """An error that is not about one message; the sidecar closes the connection after it."""
        reason = f"{reply.get('code')} {reply.get('detail', '')}".rstrip()
        if reply.get("code") == "bad_frame":
            self.compress = None
            self.say(f"the sidecar refuses compressed frames, so lines go as they are: {reason}")
        else:
            self.say(f"the sidecar refuses: {reason}")

    # -- the calls' side --

    def attend(self) -> None:
        """The rare end of a call: the sender sleeps or has not begun, or its inbox is long, or there is none."""
        if self.over:
            self._refuse()
        elif not self.mark:
            self._rouse()
        elif len(self.inbox) > _LONG:
            # the interpreter would let a busy caller run for 5 ms, enough for thousands of calls
            give_up = time.monotonic() + _NAP_MAX
            while len(self.inbox) > _LONG and time.monotonic() < give_up:
                time.sleep(_NAP)
            if len(self.inbox) > _LONG:
                self.wake()
            if len(self.inbox) > _LONG + 2 * max(self._buffer_max, _BUFFER):
                self._refuse(len(self.inbox) - 1)  # the sender is stuck, most likely in a write to a dead disk

    def stats(self) -> dict[str, Any]:
        """The state and the counts; called = acked + rejected + dropped + waiting + handed_over."""
        if not self.here[0]:
            self.begin_in_child()
        self._until(lambda: not self.inbox or not self._thread, 0.05)  # what was called before is where it belongs
        with self.lock, self._refusing:
            if self.over:
                self._refuse()
            state = "connected" if self.main.up else "disconnected"
            if self._full() and not self.over:
                state = "overflow"
            stats = {"state": state, "called": self._called(), **self.counts}
            stats["waiting"] = len(self.inbox) + self._kept()
            stats["dropped"] = self._dropped()
            stats["reconnects"] = max(0, self.main.welcomes - 1)
            return stats

    def flush(self, timeout: float) -> bool:
        if not self.here[0]:
            self.begin_in_child()
        return self._until(lambda: not self.inbox and not self._kept(), timeout)

    def close(self, timeout: float = 2.0) -> None:
        if not self.here[0]:
            self.begin_in_child()
        with self.lock:
            if self.over:
                return
            self._close_at = min(self._close_at, time.monotonic() + timeout)
            self.over = not self._thread and not self.inbox
        if self.over:
            return
        self._rouse()
        if self._thread:
            self._thread.join(timeout + 1.0)
        else:
            self._run()  # no thread could be started: the interpreter is on its way out

    def abandon(self) -> None:
        """Close in the background: nobody has a hold of the SDK any more."""
        if self.here[0]:
            self._close_at = min(self._close_at, time.monotonic() + 2.0)
            self.wake()

    def measure(self) -> list[int | float | str | None]:
        """This process's cpu since the last time, its memory and its disk bytes; Linux counts no network by process."""
        since, before = self._measured
        self._measured = time.monotonic(), time.process_time()
        wall = self._measured[0] - since
        cpu = round(100.0 * (self._measured[1] - before) / wall, 3) if wall else None
        mem = disk = None
        with suppress(OSError, ValueError, KeyError):  # not Linux, or a kernel that doesn't tell
            with open("/proc/self/statm", "rb") as statm, open("/proc/self/io", "rb") as io:
                mem = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
                found = dict(line.split(b": ") for line in io.read().splitlines())
                disk = int(found[b"read_bytes"]) + int(found[b"write_bytes"])
        return [cpu, mem, disk, None]

    def wake(self) -> None:
        with suppress(RuntimeError):  # it has been rung already
            self._bell.release()

    def _rouse(self) -> None:
        """See to it that the thread runs, and is awake."""
        self.mark = _LONG
        if self._thread or self.over:
            self.wake()
            return
        with suppress(IndexError):  # another thread, or a signal handler in between, has the permit
            self._permits.pop()
            self._started = time.monotonic()
            self._thread = _in_thread("wafermon-sender", self._run)
            if not self._thread:
                self._permits.append(True)
            _close_with_worker_process(self)

    def _until(self, settled: Callable[[], bool], timeout: float) -> bool:
        """Keep the sender at work until then, for so many seconds at most; whether it got there."""
        deadline = time.monotonic() + timeout
        while not settled():
            if self.over or time.monotonic() >= deadline:
                return False
            self._rouse()
            time.sleep(0.001)
        return True

    def _refuse(self, leave: int = 0) -> None:
        """Drop the newest messages of the inbox."""
        with self._refusing, suppress(IndexError):
            while len(self.inbox) > leave:
                self.inbox.pop()
                self._refused += 1

    def _called(self) -> int:
        return self._taken + len(self.inbox) + self._refused

    def _dropped(self) -> int:
        return self.counts["dropped"] + self._refused

    def _kept(self) -> int:
        """Messages that the sender has taken and not yet settled."""
        with self.lock:
            in_files = sum([file.count for file in self._spool.files])
            return len(self._waiting) + in_files + sum([stream.kept for stream in self._streams])

    def _full(self) -> bool:
        return len(self._waiting) >= self._buffer_max or self._waiting_bytes + _BODY_MAX >= _BYTES

    # -- the thread's side --

    def _run(self) -> None:
        # an application may have given SIGPIPE its deadly default back
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGPIPE])
        farewells: list[socket.socket] = []
        self._keep_calm()
        while not self.over:
            try:
                with self.lock:
                    moved = self._tick(time.monotonic())
                    farewells = self._finish(time.monotonic())
                if moved and self.inbox:
                    time.sleep(_NAP)  # let the callers have the interpreter
                elif not self.over:
                    self._wait(moved)
            except Exception as error:  # the sender must live: without it nothing is delivered, nor spilled
                self.say(f"internal error: {error!r}")
                time.sleep(0.1)
        for sock in farewells:
            _farewell(sock, self._close_at)

    def _keep_calm(self) -> None:
        """Before work is begun in a uWSGI that may fork at any moment, let it: who waits or closes rings the bell."""
        if _uwsgi_may_fork() and self._close_at == _NEVER:
            self._bell.acquire(timeout=_CALM)

    def _tick(self, now: float) -> int:
        """One look at everything; how many messages were taken from the inbox."""
        main = self.main
        main.connect(now)
        if main.up and self._dropped() > self._reported:
            count = self._dropped() - self._reported
            self._reported = self._dropped()
            fields = ("warning", f"{count} messages dropped", {"kind": "dropped", "count": count})
            main.number(self._encoded((_EVENT, time.time_ns(), _NOWHERE, *fields)))
        self._advance()
        count = min(len(self.inbox), _PORTION)
        if not main.welcomes and not main.failures and now < self._started + _GRACE:
            count = min(count, self._buffer_max - len(self._waiting))
        overflow: list[bytes] = []
        for _ in range(count):
            body = self._encoded(self.inbox.popleft()) if self.inbox else b""
            if body and self._full():
                overflow.append(body)
            elif body:
                self._waiting.append(body)
                self._waiting_bytes += len(body)
                self._advance()
        self._spilled(self._spool.write(overflow), len(overflow))
        if now >= self._tell_at and main.up and "stats" in main.offered:
            self._tell()
        main.pump(now)
        self._deliver_spill(now)
        return count

    def _advance(self) -> None:
        """Number what waits, as far as the window has room for it."""
        while self.main.up and self._waiting and self.main.window_bytes < _BYTES:
            body = self._waiting.popleft()
            self._waiting_bytes -= len(body)
            self.main.number(body)

    def _spilled(self, written: int, wanted: int) -> None:
        self.counts["spilled"] += written
        self.counts["dropped"] += wanted - written

    def _encoded(self, entry: tuple[Any, ...]) -> bytes:
        kind, ts, scope, *values = entry
        self._taken += 1
        if self._tell_at == _NEVER:
            self._tell_at = time.monotonic() + _STATS
        try:
            return _encode(kind, ts // 1000, self.origin + scope.text, values)
        except Exception as error:
            self.say(f"a message could not be encoded: {error!r}")
            self.counts["dropped"] += 1
            return b""

    def _tell(self, final: bool = False) -> None:
        """Number a line that tells the sidecar what this SDK has sent, so that it can judge what is missing."""
        streams = [{"client": client, "last": last} for client, last in self._spool.streams.items()]
        unsent = len(self.inbox) + len(self._waiting)
        values = [self._called(), self._dropped(), unsent, self.main.seq, streams, final or None]
        self.main.number(_encode(_STATS_LINE, time.time_ns() // 1000, self.origin, values), 0)
        self._tell_at = _NEVER
        if final:
            self._final = self.main.seq

    def _deliver_spill(self, now: float) -> None:
        """While connected, send closed spill files one by one, each over a connection of its own."""
        if self.main.up and len(self._streams) == 1:
            self._spool.writing = self._spool.writing and self._full()
            if len(self._spool.files) > self._spool.writing:
                file = self._spool.files.popleft()
                if file.claim():
                    self._streams.append(_Stream(self, file.client, file))
                else:
                    self.counts["handed_over"] += file.count
                    os.close(file.fd)
        for courier in self._streams[1:]:
            if self.main.up:
                courier.connect(now)
            courier.pump(now)
            if courier.file and not courier.window:
                courier.lose()
                courier.file.leave(remove=True)
                self._streams.pop()

    def _wait(self, moved: int) -> None:
        """Until the next tick while there is work, else until something happens."""
        self._quiet = 0 if moved else self._quiet + 1
        pause = _TICK
        asleep = self._quiet >= _IDLE_TICKS and self._close_at == _NEVER
        if asleep:
            self.mark = 0
            pause = min(_DOZE if self.main.sock and self._kept() else _SLEEP, self.main.retry_at - time.monotonic())
        # a call that came before it could see the mark did not ring
        if self.mark or not self.inbox:
            self._bell.acquire(timeout=max(0.0, pause))
        self.mark = _LONG
        if asleep:
            self._keep_calm()

    def _finish(self, now: float) -> list[socket.socket]:
        """When it is time to close, be over: leave the rest in a spill file; the sockets to say farewell to."""
        main = self.main
        if self._close_at == _NEVER:
            return []
        silent = not self._called() or main.seq == self._final  # there is nothing to tell
        if main.up and "stats" in main.offered and not silent and not self.inbox and not self._waiting:
            self._tell(final=True)
            main.pump(now)
        owing = self.inbox or self._kept() or main.window
        if owing and (main.up or not main.failures) and now < self._close_at:
            return []
        self.over = True
        self.mark = 0
        farewells = [stream.sock for stream in self._streams if stream.sock]
        for stream in self._streams:
            stream.forget()
        while self._waiting or self.inbox:
            body = self._waiting.popleft() if self._waiting else self._encoded(self.inbox.popleft())
            if body:
                main.number(body)
        if self._called() and main.seq != self._final and (not main.welcomes or "stats" in main.offered):
            self._tell(final=True)
        self._leave()
        return farewells

    def _leave(self) -> None:
        """Give what is unsettled to the sidecar, in files."""
        main = self.main
        calls = [count for _, _, count in main.window]
        written = self._spool.leave(main.client, [line for _, line, _ in main.window])
        left = sum(calls[:written])
        self._spilled(left, sum(calls))
        main.window.clear()
        main.kept = 0
        self.counts["handed_over"] += left + self._kept()
        for file in self._files():
            file.leave()
        self._spool.files.clear()
        self._streams = [main]

    def _files(self) -> list[_SpillFile]:
        return [*self._spool.files, *[stream.file for stream in self._streams if stream.file]]

    def addresses(self) -> list[tuple[int, Any]]:
        """Where the sidecar may be, looked up now: families and addresses."""
        scheme, host, port = self.address
        if scheme == "unix":
            return [(socket.AF_UNIX, host)]
        # of a string, and only then, it would import a codec: see _tls
        found = socket.getaddrinfo(host.encode(), port, type=socket.SOCK_STREAM)
        return [(family, address) for family, _, _, _, address in found]

    def hello(self, client: str) -> bytes:
        hello: dict[str, Any] = {"v": 2, "type": "hello", "client": client, "service": self.service, "host": self.host}
        hello.update(pid=self.pid, sdk=f"python/{__version__}", ack=True)
        if self._token:
            hello["token"] = self._token
        if self.compress:
            hello["compress"] = ["zlib"]
        return _utf8(_json(hello) + "\n")


# ---- the SDK ----

_NOWHERE = _Scope(None, None)


class MonitoringSDK:
    """One application's line to its sidecar.

    :param service: who is speaking: 1-128 of A-Z a-z 0-9 . _ - : (else WAFERMON_SERVICE, OTEL_SERVICE_NAME)
    :param url: tcp://host:port, unix:///path or tls://host:port (else WAFERMON_URL, else tcp://127.0.0.1:7411)
    :param trace_id: the trace of everything that names no other (else WAFERMON_TRACE_ID, TRACEPARENT)
    :param buffer: how many messages may wait in memory (else WAFERMON_BUFFER, else 1000)
    :param spill_dir: where messages go that find no room there (else WAFERMON_SPILL_DIR, else a default)
    :param token: what the sidecar's listener asks for (else WAFERMON_TOKEN)
    :raises ValueError: no service, or one of these that can't be right

    It can be pickled: what is unpickled, in a spawned child for instance, is an SDK of its own, opened with the same
    arguments and in the same trace.
    """

    def __init__(
        self,
        service: _Text = None,
        url: _Text = None,
        trace_id: _Text = None,
        buffer: int | None = None,
        spill_dir: _Text = None,
        token: _Text = None,
    ) -> None:
        env = os.environ.get
        name = str(service or env("WAFERMON_SERVICE") or env("OTEL_SERVICE_NAME") or "")
        if not _SERVICE.fullmatch(name):
            raise ValueError(f"a service is 1 to 128 of A-Z a-z 0-9 . _ - : and not wafermon: {name!r}")
        if buffer is not None and (type(buffer) is not int or buffer < 1):
            raise ValueError(f"a buffer holds at least one message: {buffer!r}")
        self._root = _Scope.inherited(None if trace_id is None else _trace_id(trace_id))
        self._given = (service, url, buffer, spill_dir, token)
        room = re.fullmatch(r"0*[1-9]\d{0,8}", env("WAFERMON_BUFFER", ""))
        self._sender = _Sender(
            name,
            url or env("WAFERMON_URL") or _DEFAULT_URL,
            buffer or int(room[0] if room else _BUFFER),
            os.fspath(spill_dir) if spill_dir else env("WAFERMON_SPILL_DIR"),
            token or env("WAFERMON_TOKEN"),
        )
        # what calls touch, at hand: these two stay the same for ever, in a forked child too
        self._inbox = self._sender.inbox
        self._here = self._sender.here
        # one a handle, not one a module: two SDKs in one process have spans of their own
        self._scope: contextvars.ContextVar[_Scope | None] = contextvars.ContextVar("wafermon_scope", default=None)
        self._spans: dict[str, _OpenSpan] = {}
        _process.add(self._sender)
        weakref.finalize(self, self._sender.abandon).atexit = False
        self._enter(None)

    def __reduce__(self) -> tuple[Any, ...]:
        service, url, *rest = self._given
        return type(self), (service, url, self._root.trace_id, *rest)

    # -- calls --

    def log_event(self, level: _Level, message: str, context: _Fields = None) -> None:
        """Something happened.

        :param level: debug, info, warning, error or critical; in upper case, as warn, err or fatal, and logging's
            numbers from 10 to 50 too
        :param context: any JSON-like values; other objects are sent as text
        """
        level = _LEVELS.get(level) or _level(level)  # type: ignore[arg-type]
        if message is None:
            raise ValueError("an event has a message")
        if type(message) is not str:
            message = _text(message)
        # as in _put, spelled out for speed
        if not self._here[0]:
            self._sender.begin_in_child()
        scope = self._scope.get()
        if scope is None:
            scope = self._root
        elif scope.span.over:
            scope = self._current()
        inbox = self._inbox
        inbox.append((_EVENT, time.time_ns(), scope, level, message, _copied(context)))
        if len(inbox) > self._sender.mark:
            self._sender.attend()

    def log_metric(self, name: str, value: float, unit: _Text = None, tags: _Fields = None, kind: _Text = None) -> None:
        """A measured number. `unit` is UCUM where there is one; `kind` is gauge (default) or counter (an increment)."""
        if kind not in (None, "gauge", "counter"):
            raise ValueError(f"a metric is a gauge or a counter: {kind!r}")
        unit = None if unit is None else _text(unit)
        kind = "counter" if kind == "counter" else None
        self._put(_METRIC, _name(name), _numeric(value), unit, kind, _copied_tags(tags))

    def log_progress(self, job_id: str, percent: float, status: str | None = "running") -> None:
        """How far a job is, 0 to 100; `status` done, failed and cancelled end it."""
        try:
            share = _numeric(percent)
        except (TypeError, ValueError):
            share = ""
        if isinstance(share, str) or not 0 <= share <= 100:
            raise ValueError(f"a percent is a number from 0 to 100, not {percent!r}")
        status = "running" if status is None else _text(status)
        if not 1 <= len(status) <= 64:
            raise ValueError(f"a status has 1 to 64 characters: {status!r}")
        self._put(_PROGRESS, _trace_id(job_id), share, status)

    def log_resource(self, cpu: _Number = None, mem: _Number = None, disk: _Number = None, net: _Number = None) -> None:
        """Percent of one core, resident bytes, bytes of disk and of network; without arguments, of this process."""
        fields = [None if value is None else _numeric(value) for value in (cpu, mem, disk, net)]
        measured = self._sender.measure() if fields == [None] * 4 else fields
        self._put(_RESOURCE, *[None if isinstance(value, str) else value for value in measured])

    def start_span(self, name: str, trace_id: _Text = None, tags: _Fields = None) -> str:
        """Open a span inside the current one; its id, which `end_span` takes."""
        outer = self._current()
        name = _name(name)
        trace = _trace_id(trace_id) if trace_id is not None else outer.trace_id or os.urandom(16).hex()
        span_id = os.urandom(8).hex()
        scope = self._alive(self._scope.get())
        span = _OpenSpan(trace, span_id, scope, name, outer.span_id, _copied_tags(tags))
        self._spans[span_id] = span
        self._enter(span)
        self._put(_SPAN_START, span.name, span.parent_id, span.tags, ts=span.ts, scope=span)
        return span_id

    def end_span(self, span_id: str, status: str = "ok", tags: _Fields = None) -> None:
        """Close a span; `tags` join those of its start. Ending a span that a parent process opened sends nothing."""
        if status not in ("ok", "error"):
            raise ValueError(f"a span ends ok or error, not {status!r}")
        merged = _copied_tags(tags)
        span = self._spans.pop(span_id, None)
        if span is None:
            raise ValueError(f"no such span is open: {span_id!r}")
        span.over = True
        self._enter(self._alive(self._scope.get()))
        if os.environ.get("WAFERMON_SPAN_ID") == span_id:  # the main thread's, and this is another one
            self._export(self._alive(span.outer))
        if span.pid == os.getpid():
            merged = {**(span.tags or {}), **(merged or {})} or None
            duration = (time.monotonic_ns() - span.started) // 1000
            self._put(_SPAN_END, status, span.name, span.ts // 1000, duration, span.parent_id, merged, scope=span)

    def span(self, name: str, trace_id: _Text = None, tags: _Fields = None) -> _Span:
        """A span as `with sdk.span("name") as span_id:`, or as `@sdk.span("name")` around every call of a function.

        It ends with status error when an exception leaves it. Around a coroutine function it ends with the coroutine;
        around a generator it lasts from the first item to the end and is current only while the generator's own code
        runs. These two need `monitoring_spans.py` beside this file.
        """
        return _Span(self, name, trace_id, tags)

    def set_trace_id(self, trace_id: str) -> None:
        """From here on, what is logged belongs to this trace; a span that is open ends in its own."""
        self._root = _Scope(_trace_id(trace_id), self._root.span_id)
        inner = self._alive(self._scope.get())
        self._enter(_Scope(trace_id, inner.span_id, inner) if inner else None)

    def child_env(self) -> dict[str, str]:
        """The environment for a child process, so that it falls into the current trace, under the current span."""
        variables = self._current().variables()
        # name by name: another thread may take one away meanwhile
        environ = {name: os.environ.get(name) for name in os.environ}
        environ.update({name: value or None for name, value in variables.items()})
        return {name: value for name, value in environ.items() if value is not None}

    def get_stats(self) -> dict[str, Any]:
        """The state and the counts; called = acked + rejected + dropped + waiting + handed_over."""
        return self._sender.stats()

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until nothing is waiting; False when that takes longer than `timeout` seconds."""
        return self._sender.flush(timeout)

    def close(self, timeout: float = 2.0) -> None:
        """Deliver what is waiting within `timeout` seconds and leave the rest in a spill file for the sidecar."""
        self._sender.close(timeout)

    def __enter__(self) -> MonitoringSDK:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- what they have in common --

    def _put(self, kind: tuple[str, ...], *values: Any, ts: int = 0, scope: _Scope | None = None) -> None:
        if not self._here[0]:
            self._sender.begin_in_child()
        self._inbox.append((kind, ts or time.time_ns(), scope or self._current(), *values))
        if len(self._inbox) > self._sender.mark:
            self._sender.attend()

    def _log(self, level: str, message: str, context: _Fields, ts: int, scope: _Scope | None) -> None:
        """An event of another time, in nanoseconds since the epoch, and of another scope: for handlers of records."""
        self._put(_EVENT, _level(level), _text(message), _copied(context), ts=ts, scope=scope)

    def _alive(self, scope: _Scope | None) -> _Scope | None:
        """The innermost scope from this one outwards whose span has not ended, wherever that was."""
        while scope and scope.span.over:
            scope = scope.outer
        return scope

    def _current(self) -> _Scope:
        scope = self._scope.get()
        return self._root if scope is None else self._alive(scope) or self._root

    def _enter(self, scope: _Scope | None) -> None:
        """From here on, calls are made in it; child processes inherit it from the main thread, which alone exports."""
        self._scope.set(scope)
        if threading.current_thread() is threading.main_thread():
            self._export(scope)

    def _export(self, scope: _Scope | None) -> None:
        """Into the environment; nothing is ever taken from it, since other threads may be copying it."""
        for name, value in (scope or self._root).variables().items():
            if os.environ.get(name, "") != value:
                os.environ[name] = value


# ---- the process ----


class _Process:
    """Forks and exits concern the process, so this knows all its senders."""

    def __init__(self) -> None:
        self._senders: weakref.WeakSet[_Sender] = weakref.WeakSet()
        self._lock = threading.RLock()
        self._held: list[Any] = []

    def add(self, sender: _Sender) -> None:
        with self._lock:
            self._senders.add(sender)

    def before_fork(self) -> None:
        """Hold the locks, so that no socket or file is half made when the child looks for what to close."""
        self._lock.acquire()
        self._held = [sender.lock for sender in list(self._senders)]
        for lock in self._held:
            lock.acquire()

    def after_fork(self) -> None:
        for lock in self._held:
            lock.release()
        self._held = []
        self._lock.release()

    def after_fork_in_child(self) -> None:
        for sender in list(self._senders):
            sender.begin_in_child()
        self.after_fork()

    def close_all(self) -> None:
        for sender in list(self._senders):
            sender.close()


def _close_with_worker_process(sender: _Sender) -> None:
    """A child made by multiprocessing, or by Celery's billiard, ends without the interpreter's exit handlers."""
    for name in ("multiprocessing", "billiard"):
        process, util = sys.modules.get(f"{name}.process"), sys.modules.get(f"{name}.util")
        if process and util and getattr(process.current_process(), "_parent_pid", None) is not None:
            util.Finalize(None, sender.close, exitpriority=-100)


_process = _Process()
os.register_at_fork(
    before=_process.before_fork,
    after_in_parent=_process.after_fork,
    after_in_child=_process.after_fork_in_child,
)
atexit.register(_process.close_all)
