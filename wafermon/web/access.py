"""What one HTTP port asks of a request: a token, or else a Host header that is this machine's; and of a POST its origin.

A page in a browser can be made to ask a port of its user's machine, by a name that leads there. It can't choose the Host header
and can't hide the Origin, so both are looked at wherever neither a token nor a certificate is asked for.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from twisted.web.server import Request

from wafermon.model.settings import HttpListener
from wafermon.net.guesses import WrongTokens, address_of
from wafermon.net.principals import ANYBODY, Principal
from wafermon.net.tokens import TokenFile
from wafermon.web.refusals import Refusal
from wafermon.web.sessions import Sessions, cookie_of

WRONG_SECONDS = 0.5
"""A wrong token is answered after this time."""
HOSTS_FILE = Path("/etc/hosts")
_CHECKED = ("api", "page")


_BEARER = ((b"www-authenticate", b'Bearer realm="wafermon"'),)
NO_TOKEN = Refusal(
    401,
    "this port asks for a token: send the header Authorization: Bearer TOKEN; wafermon's commands take it from WAFERMON_HTTP_TOKEN, "
    "a browser at /login",
    headers=_BEARER,
)
WRONG_TOKEN = Refusal(
    401, "this token is not known here; the port's token_file has those that are", WRONG_SECONDS, _BEARER
)
TOO_MANY = Refusal(
    429, "too many wrong tokens from this address; try again in a second", headers=((b"retry-after", b"1"),)
)


class AccessRules:
    """What a port asks, as the config has it now."""

    def __init__(self, port: HttpListener, seconds: Callable[[], float], sessions: Sessions | None = None) -> None:
        """Reads the files that the port names. Raises ValueError with everything a person has to know. `sessions` are those that were
        begun at the port before."""
        self.sessions = sessions or Sessions(seconds)
        self.serve = frozenset(port.serve)
        self._tokens = TokenFile(port.token_file) if port.token_file else None
        self._wrong = WrongTokens(seconds)
        self._names = None if port.guarded else names_of_this_machine() | set(port.hosts)
        self.credentials: Any = None
        """A `tls.Credentials`, for a `tls:` endpoint."""
        if port.tls:
            from wafermon.net.tls import Credentials

            self.credentials = Credentials(port)

    def examine(self, request: Request, part: str) -> Principal | Refusal:
        """Whose request this is, or why it is refused. `part` is what it asks for, such as ``api``."""
        principal = self._principal(request)
        if isinstance(principal, Refusal):
            return principal
        return self.cross_site(request, part) or principal

    @property
    def asks_for_tokens(self) -> bool:
        return self._tokens is not None

    def still_admits(self, request: Request, principal: Principal, part: str) -> bool:
        """Whether a request that is being answered would be so again."""
        if part not in self.serve:
            return False
        if self._tokens is None:
            return True
        secret = "" if request.getHeader("authorization") else cookie_of(request)
        return self._tokens.holds(principal) and (not secret or self.sessions.find(secret) == principal)

    def refresh(self) -> bool:
        """Look at the files again; tells whether the tokens may have changed."""
        if self.credentials is not None:
            self.credentials.refresh()
        return self._tokens is not None and self._tokens.refresh()

    def _principal(self, request: Request) -> Principal | Refusal:
        if self._tokens is None:
            return ANYBODY
        given = request.getHeader("authorization")
        if given is None:
            return self._by_session(request)
        scheme, _, token = given.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return NO_TOKEN
        return self.check_token(request, token.strip())

    def check_token(self, request: Request, token: str) -> Principal | Refusal:
        """Whose token it is. Wrong ones are counted by their sender's address."""
        if self._tokens is None or not token:
            return NO_TOKEN
        address = address_of(request.getClientAddress())
        if self._wrong.exhausted(address):
            return TOO_MANY
        self._tokens.refresh()
        principal = self._tokens.find(token)
        if principal is None:
            self._wrong.count(address)
            return WRONG_TOKEN
        return principal

    def _by_session(self, request: Request) -> Principal | Refusal:
        secret = cookie_of(request)
        principal = self.sessions.find(secret) if secret else None
        if self._tokens is None or principal is None or not self._tokens.holds(principal):
            return NO_TOKEN
        return principal

    def cross_site(self, request: Request, part: str) -> Refusal | None:
        """Why a page of another site may have made a browser ask this; None where it has not."""
        if part not in _CHECKED:
            return None
        host = request.getHeader("host")
        if self._names is not None and host is not None and not is_known_host(host, self._names):
            return Refusal(
                403,
                f"the Host header {host[:100]!r} is no address and no name of this machine: ask by one of these, or put the name "
                "under `hosts` of this entry of `http` in the config, or ask for tokens there (token_file)",
            )
        origin = request.getHeader("origin")
        if request.method == b"POST" and origin is not None and not is_same_origin(origin, host or ""):
            return Refusal(
                403,
                f"a POST from another site ({origin[:100]!r}) is not taken; send it without an Origin header, or from this one",
            )
        return None


def is_known_host(host: str, names: Iterable[str]) -> bool:
    """Whether a Host header has an address, `localhost`, or one of these names; the port does not matter."""
    try:
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return False
    if name == "localhost" or name in names:
        return True
    try:
        ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True


def is_same_origin(origin: str, host: str) -> bool:
    """Whether an Origin is the host that was asked. Its scheme does not matter: a proxy may have ended TLS."""
    scheme, separator, authority = origin.partition("://")
    if not separator or not authority:
        return False
    default = {"http": ":80", "https": ":443"}.get(scheme, "")
    return authority.lower().removesuffix(default) == host.lower().removesuffix(default)


def names_of_this_machine() -> set[str]:
    """In lower case: what it calls itself, with and without the domain, and what its hosts file adds to that. No name server is asked."""
    own = {socket.gethostname().lower(), os.uname().nodename.lower()}
    own |= {name.partition(".")[0] for name in own}
    for address, *names in _hosts_lines():
        if _is_loopback(address) or own.intersection(names):
            own.update(names)
    return own - {""}


def _hosts_lines() -> Iterator[list[str]]:
    try:
        text = HOSTS_FILE.read_text(errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        words = line.partition("#")[0].lower().split()
        if len(words) > 1:
            yield words


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False
