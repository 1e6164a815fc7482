"""The first line of a connection, and what the sidecar answers. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from wafermon.model.errors import ProtocolError
from wafermon.model.messages import CLIENT, OWN_SERVICE, SERVICE, dumps
from wafermon.wire.lines import Origin, read_object

VERSION = 2

_HTTP = re.compile(rb"(?:GET|HEAD|POST|PUT|DELETE|OPTIONS|PATCH|CONNECT|PRI|TRACE) ")


@dataclass(frozen=True)
class Hello:
    """A checked hello."""

    origin: Origin
    ack: bool
    token: str


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
    if problem := _problem(value):
        raise ProtocolError("bad_hello", problem)
    ack = value.get("ack", True)
    origin = Origin(
        service=value.get("service", ""),
        host=value.get("host", ""),
        pid=value.get("pid", -1),
        client=value.get("client", ""),
        numbered=ack,
    )
    return Hello(origin, ack, value.get("token", ""))


def _problem(value: dict[str, Any]) -> str:
    wanted = {
        "v": int,
        "client": str,
        "service": str,
        "host": str,
        "pid": int,
        "sdk": str,
        "ack": bool,
        "token": str,
    }
    for name, kind in wanted.items():
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
    if value.get("pid", 0) < 0:
        return "pid: expected 0 or more"
    return ""


def welcome(journal: str, acked: int, max_line: int) -> bytes:
    answer = {
        "v": VERSION,
        "type": "welcome",
        "sidecar": journal,
        "acked": acked,
        "max_line": max_line,
    }
    return dumps(answer).encode() + b"\n"


def ack(seq: int) -> bytes:
    return b'{"type":"ack","seq":%d}\n' % seq


def error(code: str, detail: str, seq: int | None = None) -> bytes:
    numbered = {} if seq is None else {"seq": seq}
    return dumps({"type": "error", **numbered, "code": code, "detail": detail}).encode() + b"\n"
