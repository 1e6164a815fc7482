"""The live page's files: package data, read once and served from memory. Nothing else can be asked for.

The page runs no script and loads nothing but what this port serves, and no other site can show it in a frame.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from twisted.web.server import Request

INDEX = "index.html"
TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".mjs": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
}
"""The end of a file's name -> its media type. Files of other names are not served."""
HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


class Asset(NamedTuple):
    """One file."""

    content: bytes
    media_type: bytes
    etag: bytes
    """In quotes, as the header has it."""


def load() -> dict[str, Asset]:
    """By name. Raises OSError where the installation is incomplete."""
    found = {}
    for file in Path(__file__).with_name("page").iterdir():
        media_type = TYPES.get(file.suffix)
        if media_type is not None:
            content = file.read_bytes()
            found[file.name] = Asset(content, media_type, b'"%s"' % sha256(content).hexdigest()[:32].encode())
    return found


def index(request: Request, asset: Asset) -> bytes:
    """The page itself, which is never kept: it names the other files."""
    _head(request, asset)
    request.setHeader(b"cache-control", b"no-store")
    return asset.content


def part(request: Request, asset: Asset) -> bytes:
    """A file of the page. Browsers keep it and ask whether it changed, so that a new version is never mixed with an old one."""
    _head(request, asset)
    request.setHeader(b"cache-control", b"no-cache")
    # An empty answer where the client has it: setETag has made it a 304.
    return b"" if request.setETag(asset.etag) else asset.content


def _head(request: Request, asset: Asset) -> None:
    request.setHeader(b"content-type", asset.media_type)
    for name, value in HEADERS:
        request.setHeader(name, value)
