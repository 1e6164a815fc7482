"""Who has logged in at a page: by a cookie that holds a random number and nothing else.

A session is kept in memory under the hash of that number. It ends after SESSION_SECONDS, when its token leaves the port's token file, when
its user logs out, and when the sidecar stops.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from typing import NamedTuple

from twisted.web.server import Request

from wafermon.net.principals import Principal

SESSION_SECONDS = 12 * 3600
SESSIONS = 1_000
"""So many are kept; the oldest one goes."""
COOKIE = "wafermon-"
"""The beginning of a cookie's name; the port's number follows, since cookies know no ports."""


class Session(NamedTuple):
    """One of them."""

    principal: Principal
    ends: float


class Sessions:
    """By the hash of what the cookie holds."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._known: OrderedDict[bytes, Session] = OrderedDict()

    def begin(self, principal: Principal) -> str:
        """Answers with what the cookie is to hold."""
        secret = secrets.token_urlsafe(24)
        self._known[_key(secret)] = Session(principal, self._seconds() + SESSION_SECONDS)
        if len(self._known) > SESSIONS:
            self._known.popitem(last=False)
        return secret

    def find(self, secret: str) -> Principal | None:
        """Whose it is, as long as it lasts."""
        session = self._known.get(_key(secret))
        if session is None:
            return None
        if session.ends <= self._seconds():
            self.end(secret)
            return None
        return session.principal

    def end(self, secret: str) -> None:
        self._known.pop(_key(secret), None)


def cookie_name(request: Request) -> str:
    """Of the port that is asked. Under TLS browsers see to it that no other host and no plain page has set it."""
    port = getattr(request.getHost(), "port", "unix")
    return f"__Host-{COOKIE}{port}" if request.isSecure() else f"{COOKIE}{port}"


def cookie_of(request: Request) -> str:
    """What it holds; empty where there is none."""
    found = request.getCookie(cookie_name(request).encode())
    return found.decode("ascii", "replace") if found else ""


def has_session(request: Request) -> bool:
    """Whether a browser asks that has logged in. It is for the page, which offers to log out then."""
    return bool(cookie_of(request)) and request.getHeader("authorization") is None


def cookie(request: Request, secret: str) -> bytes:
    """The header that sets it; with an empty `secret`, that takes it away."""
    parts = [
        f"{cookie_name(request)}={secret}", "Path=/", f"Max-Age={SESSION_SECONDS if secret else 0}", "HttpOnly", "SameSite=Lax",
    ]  # fmt: skip
    return "; ".join([*parts, "Secure"] if request.isSecure() else parts).encode()


def _key(secret: str) -> bytes:
    return sha256(secret.encode()).digest()
