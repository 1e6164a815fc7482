"""Asking a running sidecar over HTTP, and the one way to say that none answers."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

import click

from wafermon.cli.address import Address, parse

PATIENCE = 10.0
"""Seconds for an answer to begin; a stream's next line may take three times as long."""
_PORTS = {"http": 7412, "https": 443}


class Site(Address):
    """Where a sidecar serves HTTP."""

    def connect(self) -> http.client.HTTPConnection:
        if self.scheme == "unix":
            return _OverUnix(self.host)
        kind = http.client.HTTPSConnection if self.scheme == "https" else http.client.HTTPConnection
        return kind(self.host, self.port, timeout=PATIENCE)


def parse_site(url: str) -> Site:
    """``http://HOST:PORT`` or ``unix:///PATH``. Raises ValueError."""
    return Site(*parse(url, _PORTS, "address of a sidecar's HTTP; expected http://HOST:PORT or unix:///PATH"))


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


def tell(site: Site, path: str, **arguments: object) -> Any:
    """As `ask`, by a POST."""
    with _answer(site, "POST", path, arguments) as answer:
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
