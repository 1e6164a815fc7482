"""The first line of a connection, and what the sidecar answers. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wafermon.model import onward
from wafermon.model.errors import ProtocolError
from wafermon.model.messages import CLIENT, OWN_SERVICE, SEQ_MAX, SERVICE, dumps
from wafermon.wire.lines import Origin, read_object

VERSION = 2
FEATURES = ("stats",)
"""What else a client may send, as the welcome offers it."""

_HTTP = re.compile(rb"(?:GET|HEAD|POST|PUT|DELETE|OPTIONS|PATCH|CONNECT|PRI|TRACE) ")


HOST_BYTES = 255
SDK_MAX = 64
TOKEN_MAX = 512
INSTANCE_MAX = 64
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Hello:
    """A checked hello."""

    origin: Origin
    ack: bool
    token: str
    compress: tuple[str, ...] = ()
    """The codecs in which the client could send frames, the best first."""
    sdk: str = ""
    """What the client calls itself, such as ``python/2.0.0``."""
    forward: bool = False
    """It is a sidecar, and `origin.client` its journal."""
    instance: str = ""
    """Of a sidecar: drawn at each of its starts."""


def stranger(start: bytes) -> str:
    """What speaks here, if its first bytes are not the protocol's: a sentence that helps, else ""."""
    if start[:1] == b"\x16" and start[1:2] in (b"\x03", b""):
        return "this is a TLS handshake; this port takes plain lines of JSON: use tcp:// here, or a tls: listener"
    if _HTTP.match(start):
        return (
            "this is an HTTP request; this port takes lines of JSON: HTTP has a port of its own (`http:` in the config)"
        )
    return ""


def read_hello(line: bytes) -> Hello | None:
    """The first line of a connection -> its hello; None where it is something else (a message, then). Raises
    ProtocolError with ``bad_hello``."""
    try:
        value = read_object(line)
    except ProtocolError:
        return None
    if value.get("type") != "hello":
        return None
    fields = {name: given for name, given in value.items() if given != "" or _WANTED.get(name) is not str}
    if problem := _problem(fields):
        raise ProtocolError("bad_hello", problem)
    ack = fields.get("ack", True)
    origin = Origin(
        service=fields.get("service", ""),
        host=fields.get("host", ""),
        pid=fields.get("pid", -1),
        client=fields.get("client", ""),
        numbered=ack,
    )
    return Hello(
        origin,
        ack,
        fields.get("token", ""),
        tuple(fields.get("compress", ())),
        fields.get("sdk", ""),
        fields.get("forward", False),
        fields.get("instance", ""),
    )


_WANTED = {
    "v": int,
    "client": str,
    "service": str,
    "host": str,
    "pid": int,
    "sdk": str,
    "ack": bool,
    "token": str,
    "compress": list,
    "forward": bool,
    "instance": str,
}


def _problem(value: dict[str, Any]) -> str:
    """What is wrong with a hello, beginning with the field's name; else empty."""
    for name, kind in _WANTED.items():
        if name in value and type(value[name]) is not kind:
            return f"{name}: expected {kind.__name__}, got {type(value[name]).__name__}"
    if "v" not in value:
        return "v: missing; this sidecar speaks 2"
    if value["v"] < VERSION:
        return f"v: {value['v']} is not spoken any more; this sidecar speaks 2"
    if "client" not in value and value.get("ack", True):
        return "client: missing; an acknowledged connection needs one"
    if "client" in value and not CLIENT.fullmatch(value["client"]):
        return "client: expected 16 of 0-9 a-f"
    if "service" in value and not SERVICE.fullmatch(value["service"]):
        return "service: expected 1-128 of A-Z a-z 0-9 . _ - :"
    if value.get("service") == OWN_SERVICE:
        return f"service: {OWN_SERVICE!r} is reserved for the sidecar's own messages"
    if not 0 <= value.get("pid", 0) <= SEQ_MAX:
        return "pid: expected 0 to 2^53"
    return _problem_of_text(value)


def _problem_of_text(value: dict[str, Any]) -> str:
    """What is spliced into each line, or kept for each connection, is short and harmless."""
    if len(value.get("host", "").encode()) > HOST_BYTES:
        return f"host: longer than {HOST_BYTES} bytes"
    for name, most in (("sdk", SDK_MAX), ("token", TOKEN_MAX), ("instance", INSTANCE_MAX)):
        if len(value.get(name, "")) > most:
            return f"{name}: longer than {most} characters"
    for name in ("host", "sdk", "token", "instance"):
        if _CONTROL.search(value.get(name, "")):
            return f"{name}: holds a control character"
    if not all(type(codec) is str for codec in value.get("compress", ())):
        return 'compress: expected a list of names, as in ["zlib"]'
    if value.get("forward") and not value.get("ack", True):
        return "ack: what is forwarded is acknowledged"
    if value.get("forward") and "instance" not in value:
        return "instance: missing; a sidecar that forwards draws one at each start"
    return ""


def welcome(journal: str, acked: int, max_line: int, codec: str = "", max_frame: int = 0) -> bytes:
    """`codec` is the one in which frames may come, each of at most `max_frame` bytes of lines; empty for none."""
    answer: dict[str, Any] = {
        "v": VERSION,
        "type": "welcome",
        "sidecar": journal,
        "acked": acked,
        "max_line": max_line,
    }
    if codec:
        answer |= {"compress": codec, "max_frame": max_frame}
    answer["features"] = list(FEATURES)
    return dumps(answer).encode() + b"\n"


def forward_welcome(
    journal: str,
    acked: int,
    max_line: int,
    codec: str,
    max_frame: int,
    about: Mapping[str, str],
    paths: Sequence[onward.Path] = (),
) -> bytes:
    """What a sidecar that forwards is told: the same, and `about` this one; `paths` are where messages go on to from here. `codec` is
    empty where nothing may be compressed."""
    answer: dict[str, Any] = {
        "v": VERSION,
        "type": "welcome",
        "sidecar": journal,
        "acked": acked,
        "max_line": max_line,
        "max_frame": max_frame,
        "forward": True,
        **about,
        "onward": onward.dump_paths(paths),
    }
    if codec:
        answer["compress"] = codec
    return dumps(answer).encode() + b"\n"


def onward_line(paths: Sequence[onward.Path]) -> bytes:
    """What a sidecar that forwards is told when the paths are others than in its welcome."""
    return dumps({"type": "onward", "onward": onward.dump_paths(paths)}).encode() + b"\n"


def ack(seq: int) -> bytes:
    return b'{"type":"ack","seq":%d}\n' % seq


def error(code: str, detail: str, seq: int | None = None) -> bytes:
    numbered = {} if seq is None else {"seq": seq}
    return dumps({"type": "error", **numbered, "code": code, "detail": detail}).encode() + b"\n"
