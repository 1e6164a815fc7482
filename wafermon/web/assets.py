"""The live page's files: package data, read once and served from memory, compressed for those who take it. Nothing else can be asked for.

The page runs no script and loads nothing but what this port serves, and no other site can show it in a frame.
"""

from __future__ import annotations

import gzip
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from twisted.web.server import Request

INDEX = "index.html"
LOGIN = "login.html"
PAGES = (INDEX, LOGIN)
"""Those that have an address of their own."""
TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".mjs": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
    ".txt": b"text/plain; charset=utf-8",
}
"""The end of a file's name -> its media type. Files of other names are not served."""
HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    # Not `no-referrer`: with that browsers hide the Origin of the login form's POST, too.
    (b"referrer-policy", b"same-origin"),
)


class Asset(NamedTuple):
    """One file."""

    content: bytes
    compressed: bytes
    """By gzip."""
    media_type: bytes
    etag: bytes
    """In quotes, as the header has it."""


@cache
def load() -> dict[str, Asset]:
    """By name. Raises OSError where the installation is incomplete."""
    found = {}
    for file in sorted(Path(__file__).with_name("page").iterdir()):
        media_type = TYPES.get(file.suffix)
        if media_type is not None:
            content = file.read_bytes()
            etag = b'"%s"' % sha256(content).hexdigest()[:32].encode()
            found[file.name] = Asset(content, gzip.compress(content, mtime=0), media_type, etag)
    return found


def index(request: Request, asset: Asset) -> bytes:
    """A page itself, which is never kept: it names the other files."""
    _head(request, asset)
    request.setHeader(b"cache-control", b"no-store")
    return asset.content


def part(request: Request, asset: Asset) -> bytes:
    """A file of the page. Browsers keep it and ask whether it changed, so that a new version is never mixed with an old one."""
    _head(request, asset)
    request.setHeader(b"cache-control", b"no-cache")
    request.setHeader(b"vary", b"accept-encoding")
    if request.setETag(asset.etag):
        return b""  # the client has it: setETag has made it a 304
    if b"gzip" not in _accepted(request):
        return asset.content
    request.setHeader(b"content-encoding", b"gzip")
    return asset.compressed


def _accepted(request: Request) -> set[bytes]:
    """The encodings that a client takes. What it says it does not take (``q=0``) is none of them."""
    given = (request.getHeader(b"accept-encoding") or b"").lower().replace(b" ", b"")
    names = (one.partition(b";") for one in given.split(b","))
    return {name for name, _, weight in names if weight.strip(b"0.") != b"q="}


def _head(request: Request, asset: Asset) -> None:
    request.setHeader(b"content-type", asset.media_type)
    for name, value in HEADERS:
        request.setHeader(name, value)
