"""``POST /api/alerts/NAME/test``: sends a test through a channel, now.

It is a POST with a header that a page in a browser can't add for another site, so that no link and no form sets it off.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web.resource import NoResource, Resource
from twisted.web.server import NOT_DONE_YET, Request

from wafermon.web.answers import HEADER, json
from wafermon.web.view import View


class Alerts(Resource):
    """By name."""

    def __init__(self, view: View) -> None:
        super().__init__()
        self._view = view

    def getChild(self, path: bytes, request: Request) -> Resource:
        if request.postpath != [b"test"]:
            return NoResource()
        request.postpath = []
        return _Test(self._view, path.decode(errors="replace"))


class _Test(Resource):
    isLeaf = True
    log = Logger()

    def __init__(self, view: View, name: str) -> None:
        super().__init__()
        self._view = view
        self._name = name

    def render_POST(self, request: Request) -> bytes | int:
        if request.getHeader(HEADER) is None:
            return json(request, {"error": "send the header X-Wafermon, with any value"}, 403)
        testing = Deferred.fromCoroutine(self._test(request))
        testing.addErrback(lambda failure: self.log.failure("Internal error in the HTTP server", failure))
        return NOT_DONE_YET

    async def _test(self, request: Request) -> None:
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)
        channel = self._view.channels.get(self._name)
        answer, code = {"error": f"there is no channel {self._name!r} in alerts"}, 404
        if channel is not None:
            try:
                await channel.test()
                answer, code = {"sent": self._name}, 200
            except Exception as error:  # noqa: BLE001  # whatever keeps it from being sent is the answer
                answer, code = {"error": str(error) or type(error).__name__}, 502
        if not gone:
            request.write(json(request, answer, code))
            request.finish()
