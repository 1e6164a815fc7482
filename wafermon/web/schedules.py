"""``/api/schedules``: what is expected, and how that is; below it ``NAME/test``, and by POST ``NAME/pause`` and ``NAME/resume``.

A POST needs a header that a page in a browser can't add for another site, so that no link and no form sets it off.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web.resource import NoResource, Resource
from twisted.web.server import NOT_DONE_YET, Request

from wafermon.model.asking import parse_later
from wafermon.model.schedules import PAUSED, RESUMED, STATES
from wafermon.web.answers import HEADER, BadArgument, arguments, json, number, text
from wafermon.web.past import Past
from wafermon.web.view import View

SHOWN, MOST = 1_000, 10_000
ASKS = {b"pause": PAUSED, b"resume": RESUMED}


class Schedules(Resource):
    """The list; what is about one is below it."""

    def __init__(self, view: View) -> None:
        super().__init__()
        self._view = view

    def getChild(self, path: bytes, request: Request) -> Resource:
        if not path and not request.postpath:
            return self
        [*rest] = request.postpath or ()
        if rest == [b"test"]:
            request.postpath = [path]
            return Past(lambda: self._view.query, "rehearsal", "name")
        if len(rest) == 1 and rest[0] in ASKS:
            request.postpath = []
            return _Ask(self._view, path.decode(errors="replace"), ASKS[rest[0]])
        return NoResource()

    def render_GET(self, request: Request) -> bytes:
        try:
            given = arguments(request, "name", "state", "limit")
            states = frozenset(filter(None, given.get("state", "").split(",")))
            if unknown := states.difference(STATES):
                raise BadArgument(f"state: {min(unknown)[:64]!r} is none; expected some of {','.join(STATES)}")
            limit = number(given, "limit", SHOWN, MOST)
        except BadArgument as problem:
            return text(request, str(problem), 400)
        schedules = self._view.live.schedules
        wanted = given.get("name", "*"), states or STATES
        found, total = schedules.records(*wanted, limit or 1), schedules.count(*wanted)
        shown = found[:limit]
        rest = {"total": total, "left_out": total - len(shown)}
        return json(request, {"now": self._view.journal.now(), "schedules": shown, **rest})

    def render_HEAD(self, request: Request) -> bytes:
        request.setHeader(b"content-length", b"%d" % len(self.render_GET(request)))
        return b""


class _Ask(Resource):
    """Answers once it is journalled."""

    isLeaf = True
    log = Logger()

    def __init__(self, view: View, name: str, kind: str) -> None:
        super().__init__()
        self._view = view
        self._name = name
        self._kind = kind

    def render_POST(self, request: Request) -> bytes | int:
        if request.getHeader(HEADER) is None:
            return json(request, {"error": "send the header X-Wafermon, with any value"}, 403)
        name, now = self._name, self._view.journal.now()
        try:
            given = arguments(request, *(("until",) if self._kind == PAUSED else ()))
            until = parse_later(given["until"], now) if "until" in given else 0
        except BadArgument as problem:
            return text(request, str(problem), 400)
        except ValueError as problem:
            return text(request, f"until: {problem}", 400)
        if name not in self._view.config.schedules:
            known = ", ".join(self._view.config.schedules) or "none"
            return json(request, {"error": f"no schedule {name[:64]!r} is in the config; there are {known[:500]}"}, 404)
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)
        asked: Deferred[Any] = self._view.ask_of_schedule(self._kind, name, until, _who(request))

        def answer(_: object) -> None:
            if not gone:
                request.write(json(request, {"schedule": name, "state": self._kind, "until": until or None}))
                request.finish()

        asked.addCallback(answer)
        asked.addErrback(lambda failure: self.log.failure("Internal error in the HTTP server", failure))
        return NOT_DONE_YET


def _who(request: Request) -> str:
    host = getattr(request.getClientAddress(), "host", "")
    return f"HTTP from {host}" if host else "HTTP over a Unix socket"
