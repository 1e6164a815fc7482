"""``POST /api/drain``: waits until the backends have everything that is in the journal now.

All that it does is to flush what a batch would have waited for. It is a POST with a header that a page in a browser can't add for
another site, so that no link and no form sets it off.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from wafermon.delivery import Delivery
from wafermon.model.messages import dumps
from wafermon.web.answers import HEADER, BadArgument, arguments, text
from wafermon.web.status import orphans_of
from wafermon.web.view import View

PROGRESS_SECONDS = 0.5


class Drain(Resource):
    """``?backend=NAME``, else all. Answers with JSON lines: each holds ``drained`` and, for each backend, ``lag_messages``,
    ``lag_bytes`` and ``error``; the last one has ``drained`` true. ``cursors_without_backend`` is as in the
    status: nobody takes what they hold, and it is not waited for. Who hangs up ends the waiting."""

    isLeaf = True

    def __init__(self, view: View, reactor: Any) -> None:
        super().__init__()
        self._view = view
        self._reactor = reactor

    def render_POST(self, request: Request) -> bytes | int:
        if request.getHeader(HEADER) is None:
            return text(request, "send the header X-Wafermon, with any value", 403)
        deliveries = {**self._view.deliveries.leaving, **self._view.deliveries}
        try:
            name = arguments(request, "backend").get("backend")
        except BadArgument as problem:
            return text(request, str(problem), 400)
        if name is not None:
            if name not in deliveries:
                return text(request, f"no backend {name!r}; there are {', '.join(sorted(deliveries))}", 404)
            deliveries = {name: deliveries[name]}
        request.setHeader(b"content-type", b"application/jsonl")
        _Draining(request, deliveries, self._view, self._reactor).start()
        return NOT_DONE_YET


class _Draining:
    """One request."""

    def __init__(self, request: Request, deliveries: dict[str, Delivery], view: View, reactor: Any) -> None:
        self._request = request
        self._deliveries = deliveries
        self._view = view
        self._waiting: list[Deferred[None]] = []
        self._open = True
        self._telling = LoopingCall(self._tell)
        self._telling.clock = reactor

    def start(self) -> None:
        self._waiting = [delivery.drain() for delivery in self._deliveries.values()]
        for waiting in self._waiting:
            waiting.addErrback(_let_cancelled_go)
        self._request.notifyFinish().addErrback(self._hung_up)
        DeferredList(self._waiting).addCallback(self._done)
        if not all(waiting.called for waiting in self._waiting):
            self._telling.start(PROGRESS_SECONDS)

    def _hung_up(self, _: object) -> None:
        self._open = False
        for waiting in self._waiting:
            waiting.cancel()

    def _done(self, _: object) -> None:
        if self._telling.running:
            self._telling.stop()
        if self._open:
            self._tell(drained=True)
            self._request.finish()

    def _tell(self, drained: bool = False) -> None:
        backends = {
            name: {"lag_messages": one.lag.messages, "lag_bytes": one.lag.bytes, "error": one.error}
            for name, one in self._deliveries.items()
        }
        orphans = orphans_of(self._view)
        found = {"drained": drained, "backends": backends, "cursors_without_backend": orphans}
        self._request.write(dumps(found).encode() + b"\n")


def _let_cancelled_go(failure: Failure) -> None:
    failure.trap(CancelledError)
