"""``/api/dead-letters``: what could not be delivered, the latest first, as the files hold it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from wafermon.web.answers import BadArgument, arguments, json, number, text
from wafermon.web.view import View

SHOWN = 20
MOST = 1_000
LINE = 2_000
"""Characters of a line that are shown."""


class Letters(Resource):
    """``?limit=N``: ``letters``, each with ``id``, ``code``, ``reason``, ``time``, ``file``, and as far as they are known ``backend``, ``client``, ``seq``,
    ``service``, ``peer`` and ``line``."""

    isLeaf = True
    log = Logger()

    def __init__(self, view: View) -> None:
        super().__init__()
        self._view = view

    def render_GET(self, request: Request) -> bytes | int:
        try:
            count = number(arguments(request, "limit"), "limit", SHOWN, MOST)
        except BadArgument as problem:
            return text(request, str(problem), 400)
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)

        def failed(failure: Failure) -> bytes:
            failure.trap(OSError)
            return json(request, {"error": f"the dead letters can't be read: {failure.value}"}, 503)

        def finish(body: bytes) -> None:
            if not gone:
                request.setHeader(b"content-length", b"%d" % len(body))
                request.write(body if request.method != b"HEAD" else b"")
                request.finish()

        asked: Deferred[Any] = self._view.dead_letters.latest(count)
        asked.addCallback(
            lambda found: json(request, {"now": self._view.journal.now(), "letters": list(map(_shown, found))})
        )
        asked.addErrback(failed).addCallback(finish)
        asked.addErrback(lambda failure: self.log.failure("The dead letters could not be shown", failure))
        return NOT_DONE_YET

    def render_HEAD(self, request: Request) -> bytes | int:
        return self.render_GET(request)


def _shown(letter: dict[str, Any]) -> dict[str, Any]:
    """Without more of its line than a person reads."""
    return {name: value[:LINE] if isinstance(value, str) else value for name, value in letter.items()}
