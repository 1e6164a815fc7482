"""``/api/traces/ID/receipt``: from the sidecar's memory, else from a history."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from wafermon.interfaces import IHistory
from wafermon.model.records import Receipt
from wafermon.query import kept_receipt
from wafermon.web.answers import BadArgument, arguments, json, text
from wafermon.web.view import View

END = "/receipt"
UNKNOWN = "nothing is remembered of this trace: it never came, or too much has come since"


async def receipt_of(view: View, name: str) -> Receipt | None:
    """Of a trace, or of the latest one that has a job of this id; None where nobody knows it."""
    live = view.live
    found = live.receipt(name)
    if found is None:
        stores = [one.backend for one in view.deliveries.values() if IHistory.providedBy(one.backend)]
        found = await kept_receipt(stores, name, live.place)
    return found


class Traces(Resource):
    """Everything below ``/api/traces``: `page` answers for what is no receipt."""

    isLeaf = True
    log = Logger()

    def __init__(self, view: View, page: Resource) -> None:
        super().__init__()
        self._view = view
        self._page = page

    def render_GET(self, request: Request) -> bytes | int:
        path = b"/".join(request.postpath or ()).decode(errors="replace")  # an id may hold slashes
        if not path.endswith(END):
            answer: bytes | int = self._page.render(request)
            return answer
        try:
            arguments(request)
        except BadArgument as problem:
            return text(request, str(problem), 400)
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)

        def answered(found: Receipt | None) -> bytes:
            return json(request, {"error": UNKNOWN}, 404) if found is None else json(request, found)

        def failed(failure: Failure) -> bytes:
            self.log.failure("A receipt could not be answered", failure)
            return text(request, "the answer failed; the sidecar's log says why", 500)

        def finish(body: bytes) -> None:
            if not gone:
                request.setHeader(b"content-length", b"%d" % len(body))
                request.write(b"" if request.method == b"HEAD" else body)
                request.finish()

        asked = Deferred.fromCoroutine(receipt_of(self._view, path.removesuffix(END)))
        asked.addCallback(answered).addErrback(failed).addCallback(finish)
        return NOT_DONE_YET

    def render_HEAD(self, request: Request) -> bytes | int:
        """As GET, without the body."""
        return self.render_GET(request)
