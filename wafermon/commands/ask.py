"""Asking a running sidecar over HTTP, and the one way to say that none answers."""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlencode

import click

PATIENCE = 10.0
"""Seconds for an answer to begin; a stream's next line may take three times as long."""
_URL = re.compile(r"(https?)://(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?/?")
_PORTS = {"http": 7412, "https": 443}


class Site(NamedTuple):
    """Where a sidecar serves HTTP. Of a Unix socket the path is the host."""

    scheme: str
    host: str
    port: int = 0

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix://{self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    def connect(self) -> http.client.HTTPConnection:
        if self.scheme == "unix":
            return _OverUnix(self.host)
        kind = http.client.HTTPSConnection if self.scheme == "https" else http.client.HTTPConnection
        return kind(self.host, self.port, timeout=PATIENCE)


def parse_site(url: str) -> Site:
    """``http://HOST:PORT`` or ``unix:///PATH``. Raises ValueError."""
    if url.startswith("unix:///") and len(url) > len("unix:///"):
        return Site("unix", url.removeprefix("unix://"))
    found = _URL.fullmatch(url)
    if not found or int(found[4] or 1) not in range(1, 65_536):
        raise ValueError(f"{url!r} is no address of a sidecar's HTTP; expected http://HOST:PORT or unix:///PATH")
    return Site(found[1], found[2] or found[3], int(found[4] or _PORTS[found[1]]))


class _OverUnix(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self._path)


def ask(site: Site, path: str, **arguments: object) -> Any:
    """What it answers to a GET, as JSON values. Raises click.ClickException where it can't be asked, or does not have it."""
    with _answer(site, "GET", path, arguments) as answer:
        return json.loads(answer.read())


def follow(site: Site, path: str, *, method: str = "GET", **arguments: object) -> Iterator[bytes]:
    """The lines of an answer as they come, without their newlines, to its end. Raises click.ClickException."""
    with _answer(site, method, path, arguments) as answer:
        while line := answer.readline():
            yield line.rstrip(b"\r\n")


@contextmanager
def _answer(site: Site, method: str, path: str, arguments: dict[str, object]) -> Iterator[http.client.HTTPResponse]:
    query = urlencode({name: value for name, value in arguments.items() if value not in (None, "")})
    connection = site.connect()
    try:
        connection.request(method, path + (f"?{query}" if query else ""), headers={"X-Wafermon": "command"})
        answer = connection.getresponse()
        if answer.status >= 400 and path != "/health/ready":
            raise click.ClickException(f"{site} answers {answer.status}: {_reason(answer.read())}")
        if connection.sock is not None:
            connection.sock.settimeout(3 * PATIENCE)
        yield answer
    except (OSError, http.client.HTTPException) as error:
        raise click.ClickException(_no_answer(site, error)) from None
    finally:
        connection.close()


def _reason(body: bytes) -> str:
    text = body.decode(errors="replace").strip()
    try:
        return str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return text.splitlines()[0] if text else "no reason given"


def _no_answer(site: Site, error: Exception) -> str:
    why = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return (
        f"no sidecar answers at {site}: {why}\n"
        "Start one with `twistd -n wafermon --config FILE`, or name its `http` listener with --http or WAFERMON_HTTP;"
        " `wafermon doctor` looks for what is wrong."
    )
