"""What all pages do the same way: read an argument, answer with JSON, refuse."""

from __future__ import annotations

from typing import Any

from twisted.web.server import Request

from wafermon.model.messages import dumps


def argument(request: Request, name: str) -> str:
    """The first one of that name; empty where there is none."""
    given: list[bytes] = request.args.get(name.encode(), [b""])
    return given[0].decode(errors="replace")


def json(request: Request, value: Any, code: int = 200) -> bytes:
    request.setResponseCode(code)
    request.setHeader(b"content-type", b"application/json")
    return dumps(value).encode() + b"\n"


def text(request: Request, words: str, code: int = 200) -> bytes:
    request.setResponseCode(code)
    request.setHeader(b"content-type", b"text/plain; charset=utf-8")
    return f"{words}\n".encode()
