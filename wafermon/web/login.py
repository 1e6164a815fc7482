"""``/login`` and ``/logout``, where a port asks for tokens: a browser can't send one with each request, so it gets a session for it."""

from __future__ import annotations

from html import escape
from typing import Protocol

from twisted.web.resource import Resource
from twisted.web.server import Request

from wafermon.net.principals import Principal
from wafermon.web import assets
from wafermon.web.answers import text
from wafermon.web.refusals import Delays, Refusal
from wafermon.web.sessions import Sessions, cookie, cookie_of

PATHS = (b"login", b"logout")
_WHY = b"<!--why-->"
NO_LOGIN = Refusal(404, "this port asks for no token: the page is at /")


class Rules(Protocol):
    """What a port asks."""

    sessions: Sessions

    @property
    def asks_for_tokens(self) -> bool: ...
    def cross_site(self, request: Request, part: str) -> Refusal | None: ...
    def check_token(self, request: Request, token: str) -> Principal | Refusal: ...


class Login(Resource):
    """``GET /login`` is a form, ``POST /login`` takes its token, ``POST /logout`` ends the session. No GET changes anything."""

    isLeaf = True

    def __init__(self, path: bytes, rules: Rules, delays: Delays) -> None:
        """`path`: one of PATHS."""
        super().__init__()
        self._path = path
        self._rules = rules
        self._delays = delays

    def render_GET(self, request: Request) -> bytes:
        if not self._rules.asks_for_tokens:
            return text(request, NO_LOGIN.why, NO_LOGIN.code)
        if self._path == b"logout":
            return _to(request, b"/login")
        return _form(request)

    def render_HEAD(self, request: Request) -> bytes:
        request.setHeader(b"content-length", b"%d" % len(self.render_GET(request)))
        return b""

    def render_POST(self, request: Request) -> bytes | int:
        if not self._rules.asks_for_tokens:
            return text(request, NO_LOGIN.why, NO_LOGIN.code)
        refusal = self._rules.cross_site(request, "page")
        if refusal is not None:
            return text(request, refusal.why, refusal.code)
        if self._path == b"logout":
            self._rules.sessions.end(cookie_of(request))
            request.responseHeaders.addRawHeader(b"set-cookie", cookie(request, ""))
            return _to(request, b"/login")
        given: list[bytes] = request.args.get(b"token", [])
        found = self._rules.check_token(request, given[0].decode(errors="replace").strip() if given else "")
        if isinstance(found, Refusal):
            held: bytes | int = self._delays.say(request, _form(request, found), found.after)
            return held
        self._rules.sessions.end(cookie_of(request))
        request.responseHeaders.addRawHeader(b"set-cookie", cookie(request, self._rules.sessions.begin(found)))
        return _to(request, b"/")


def _to(request: Request, path: bytes) -> bytes:
    """What follows # in the address stays as it is."""
    request.setResponseCode(303)
    request.setHeader(b"location", path)
    request.setHeader(b"cache-control", b"no-store")
    return b""


def _form(request: Request, refusal: Refusal | None = None) -> bytes:
    page = assets.index(request, assets.load()[assets.LOGIN])
    if refusal is None:
        return page
    request.setResponseCode(refusal.code)
    for name, value in refusal.headers:
        if name != b"www-authenticate":  # a browser would open a dialogue of its own
            request.setHeader(name, value)
    return page.replace(_WHY, escape(refusal.why).encode())
