"""``/api/tail``: messages as they come, as server-sent events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from wafermon.model.repeated import Repeated
from wafermon.web.answers import arguments, text
from wafermon.web.subscriptions import Filter, Watcher
from wafermon.web.view import View

MOST = 16
"""Watchers at a time."""
ALIVE_SECONDS = 2.0
"""How often the stream shows that it goes on, and tells at the latest what was left out."""


class Tail(Resource):
    """``?service=GLOB&trace=GLOB&level=LEVEL``; what is not given lets everything through."""

    isLeaf = True

    def __init__(self, view: View, reactor: Any) -> None:
        super().__init__()
        self._view = view
        self._reactor = reactor
        self._watching: dict[Request, tuple[Watcher, Callable[[], None]]] = {}
        self._alive = Repeated(reactor, self._tell_alive)

    def stop(self) -> None:
        """End all streams."""
        for request in list(self._watching):
            self._end(request)
            request.unregisterProducer()
            request.finish()

    def render_GET(self, request: Request) -> bytes | int:
        try:
            wanted = Filter(**arguments(request, "service", "trace", "level"))
        except ValueError as error:
            return text(request, str(error), 400)
        if len(self._watching) >= MOST:
            return text(request, f"{MOST} are watching already; end one of them", 503)
        request.setHeader(b"content-type", b"text/event-stream")
        request.setHeader(b"cache-control", b"no-store")
        request.write(b": watching\n\n")
        watcher = Watcher(wanted, request.write, self._reactor.seconds)
        request.registerProducer(watcher, True)
        self._watching[request] = watcher, self._view.journal.watch(watcher.see)
        request.notifyFinish().addErrback(lambda _: self._end(request))
        if not self._alive.running:
            self._alive.start(ALIVE_SECONDS, now=False)
        return NOT_DONE_YET

    def _end(self, request: Request) -> None:
        if request in self._watching:
            _, stop = self._watching.pop(request)
            stop()
        if not self._watching and self._alive.running:
            self._alive.stop()

    def _tell_alive(self) -> None:
        for watcher, _ in self._watching.values():
            watcher.alive()
