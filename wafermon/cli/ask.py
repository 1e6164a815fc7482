"""Asking a running sidecar over HTTP, and the one way to say that none answers."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

import click

from wafermon.cli.address import Address, parse

if TYPE_CHECKING:
    import ssl

PATIENCE = 10.0
"""Seconds for an answer to begin; a stream's next line may take three times as long."""
_PORTS = {"http": 7412, "https": 443}


class Refused(click.ClickException):
    """A sidecar answered, and not with what it was asked for."""


class Access(NamedTuple):
    """What a sidecar's HTTP may ask of a command, and whom the command trusts."""

    token: str = ""
    ca: str = ""
    """A file of the authorities that the server's certificate may come from; else the system's."""
    certificate: str = ""
    """The command's own, with its `key`."""
    key: str = ""
    check_name: bool = True
    """Whether the server's certificate must be for the name that was asked."""

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Access:
        """As the environment has it. Raises ValueError for a token that is none."""
        token = environ.get("WAFERMON_HTTP_TOKEN", "").strip()
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise ValueError("WAFERMON_HTTP_TOKEN: a token is printable ASCII without spaces")
        return cls(
            token,
            environ.get("WAFERMON_TLS_CA", ""),
            environ.get("WAFERMON_TLS_CERT", ""),
            environ.get("WAFERMON_TLS_KEY", ""),
        )

    def context(self) -> ssl.SSLContext:
        """Raises OSError where a file can't be used."""
        import ssl  # costs more than all the rest

        made = ssl.create_default_context(cafile=self.ca or None)
        made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        made.check_hostname = self.check_name
        if self.certificate:
            made.load_cert_chain(self.certificate, self.key or None)
        return made


class Site(Address):
    """Where a sidecar serves HTTP."""

    access = Access()
    patience = PATIENCE
    """Seconds for an answer to begin."""

    def connect(self) -> http.client.HTTPConnection:
        """Raises OSError."""
        if self.scheme == "unix":
            return _OverUnix(self.host, self.patience)
        if self.scheme == "https":
            return http.client.HTTPSConnection(
                self.host, self.port, timeout=self.patience, context=self.access.context()
            )
        return http.client.HTTPConnection(self.host, self.port, timeout=self.patience)

    @property
    def headers(self) -> dict[str, str]:
        token = {"Authorization": f"Bearer {self.access.token}"} if self.access.token else {}
        return {"X-Wafermon": "command", **token}


def parse_site(url: str, access: Access) -> Site:
    """``http://HOST:PORT``, ``https://HOST:PORT`` or ``unix:///PATH``. Raises ValueError."""
    wanted = "address of a sidecar's HTTP; expected http://HOST:PORT, https://HOST:PORT or unix:///PATH"
    site = Site(*parse(url, _PORTS, wanted))
    site.access = access
    return site


class _OverUnix(http.client.HTTPConnection):
    def __init__(self, path: str, patience: float) -> None:
        super().__init__("localhost", timeout=patience)
        self._path = path
        self._patience = patience

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self._patience)
        self.sock.connect(self._path)


def ask(site: Site, path: str, **arguments: object) -> Any:
    """What it answers to a GET, as JSON values. Raises click.ClickException where it can't be asked, or does not have it."""
    with _answer(site, "GET", path, arguments) as answer:
        return _values(site, answer.read())


def tell(site: Site, path: str, **arguments: object) -> Any:
    """As `ask`, by a POST."""
    with _answer(site, "POST", path, arguments) as answer:
        return _values(site, answer.read())


def _values(site: Site, body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        raise click.ClickException(f"{site} does not answer with JSON: another program listens there") from None


def follow(site: Site, path: str, *, method: str = "GET", **arguments: object) -> Iterator[bytes]:
    """The lines of an answer as they come, without their newlines, to its end. Raises click.ClickException."""
    with _answer(site, method, path, arguments) as answer:
        while line := answer.readline():
            yield line.rstrip(b"\r\n")


@contextmanager
def _answer(site: Site, method: str, path: str, arguments: dict[str, object]) -> Iterator[http.client.HTTPResponse]:
    query = urlencode({name: value for name, value in arguments.items() if value not in (None, "")})
    connection: http.client.HTTPConnection | None = None
    try:
        connection = site.connect()
        connection.request(method, path + (f"?{query}" if query else ""), headers=site.headers)
        answer = connection.getresponse()
        if answer.status >= 400 and path != "/health/ready":
            raise Refused(f"{site} answers {answer.status}: {_reason(answer.read())}")
        if connection.sock is not None:
            connection.sock.settimeout(3 * site.patience)
        yield answer
    except (OSError, http.client.HTTPException) as error:
        raise click.ClickException(_no_answer(site, error)) from None
    finally:
        if connection is not None:
            connection.close()


def _reason(body: bytes) -> str:
    text = body.decode(errors="replace").strip()
    try:
        return str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return text.splitlines()[0] if text else "no reason given"


def _no_answer(site: Site, error: Exception) -> str:
    why = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if reason := getattr(error, "verify_message", ""):
        why = f"its certificate can't be trusted: {reason}; WAFERMON_TLS_CA names a file of the authorities to trust"
    return (
        f"no sidecar answers at {site}: {why}\n"
        "Start one with `twistd -n wafermon --config FILE`, or name its `http` listener with --http or WAFERMON_HTTP;"
        " `wafermon doctor` looks for what is wrong."
    )
