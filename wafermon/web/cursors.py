"""``POST /api/cursors/NAME/forget``: removes a cursor that no backend has, and of the journal that is kept for it alone.

It is a POST with a header that a page in a browser can't add for another site, so that no link and no form sets it off.
"""

from __future__ import annotations

import sqlite3

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web.resource import NoResource, Resource
from twisted.web.server import NOT_DONE_YET, Request

from wafermon.journal import CursorInUse, UnknownCursor
from wafermon.web.answers import HEADER, json
from wafermon.web.view import View


class Cursors(Resource):
    """By name."""

    def __init__(self, view: View) -> None:
        super().__init__()
        self._view = view

    def getChild(self, path: bytes, request: Request) -> Resource:
        if request.postpath != [b"forget"]:
            return NoResource()
        request.postpath = []
        return _Forget(self._view, path.decode(errors="replace"))


class _Forget(Resource):
    isLeaf = True
    log = Logger()

    def __init__(self, view: View, name: str) -> None:
        super().__init__()
        self._view = view
        self._name = name

    def render_POST(self, request: Request) -> bytes | int:
        if request.getHeader(HEADER) is None:
            return json(request, {"error": "send the header X-Wafermon, with any value"}, 403)
        forgetting = Deferred.fromCoroutine(self._forget(request))
        forgetting.addErrback(lambda failure: self.log.failure("Internal error in the HTTP server", failure))
        return NOT_DONE_YET

    async def _forget(self, request: Request) -> None:
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)
        try:
            held = await self._view.deliveries.forget(self._name)
            answer, code = {"forgotten": self._name, "messages": held.messages, "bytes": held.bytes}, 200
        except UnknownCursor as error:
            answer, code = {"error": str(error)}, 404
        except CursorInUse as error:
            answer, code = {"error": str(error)}, 409
        except (OSError, sqlite3.Error) as error:
            answer, code = {"error": f"the journal's disk fails: {error}"}, 503
        if not gone:
            request.write(json(request, answer, code))
            request.finish()
