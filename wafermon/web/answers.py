"""What all pages do the same way: read arguments, answer with JSON or text, refuse."""

from __future__ import annotations

from typing import Any

from twisted.web.server import Request

from wafermon.model.messages import dumps

NUMBER_DIGITS = 9
"""A number of more digits is none that any page takes."""
HEADER = "x-wafermon"
"""What a POST must carry: a page in a browser can't add it for another site."""


class BadArgument(ValueError):
    """What is wrong with a request's arguments, for its sender."""


def arguments(request: Request, *known: str) -> dict[str, str]:
    """The arguments of a request by name, each at most once; what is empty counts as not given. Raises BadArgument where one is not
    `known` or comes twice."""
    given: dict[bytes, list[bytes]] = request.args
    found: dict[str, str] = {}
    for raw, values in given.items():
        name = raw.decode(errors="replace")
        if name not in known:
            wanted = f"this page takes {', '.join(known)}" if known else "this page takes none"
            raise BadArgument(f"unknown argument {name[:64]!r}; {wanted}")
        if len(values) > 1:
            raise BadArgument(f"{name} is given {len(values)} times; give it once")
        if values[0]:
            found[name] = values[0].decode(errors="replace")
    return found


def number(given: dict[str, str], name: str, default: int, most: int) -> int:
    """A whole number from 0 to `most`. Raises BadArgument."""
    text = given.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= NUMBER_DIGITS and int(text) <= most):
        raise BadArgument(f"{name}: expected a whole number from 0 to {most}, got {text[:32]!r}")
    return int(text)


def wants_html(request: Request) -> bool:
    """Whether a browser asks for a page."""
    return "text/html" in (request.getHeader("accept") or "").lower()


def json(request: Request, value: Any, code: int = 200) -> bytes:
    request.setResponseCode(code)
    request.setHeader(b"content-type", b"application/json")
    return dumps(value).encode() + b"\n"


def text(request: Request, words: str, code: int = 200) -> bytes:
    request.setResponseCode(code)
    request.setHeader(b"content-type", b"text/plain; charset=utf-8")
    return f"{words}\n".encode()
