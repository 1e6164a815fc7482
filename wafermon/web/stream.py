"""``/api/stream``: the changes of jobs and traces, as server-sent events. The live page holds one for a whole browser."""

from __future__ import annotations

from typing import Any

from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from wafermon import __version__
from wafermon.model.messages import dumps
from wafermon.model.repeated import Repeated
from wafermon.web.answers import BadArgument, arguments, text
from wafermon.web.sessions import has_session
from wafermon.web.view import View
from wafermon.web.viewers import ALIVE_STEPS, STEP_SECONDS, Changes, Viewer, event

MOST = 500
"""Viewers at a time."""
LOAD = 0.05
"""Of the sidecar's time, the most that changes are worked out for; above that they are told less often."""
SLOWEST_SECONDS = 5.0
TURN = 10
"""So many viewers are written to before whatever else waits has its turn."""


class Stream(Resource):
    """``hello`` comes first; ``changes`` as they are, ``alive`` where there are none, ``missed`` where some were not told."""

    isLeaf = True

    def __init__(self, view: View, reactor: Any, started: int) -> None:
        """`started`: when the sidecar did, in microseconds since the epoch: a page sees by it that there is another one."""
        super().__init__()
        self._view = view
        self._reactor = reactor
        self._started = started
        self._viewers: dict[Request, Viewer] = {}
        self._changes = Changes()
        self._unwatch: Any = None
        self._quiet = 0
        self._again = 0.0
        self._telling: Any = None
        self._steps = Repeated(reactor, self._step)

    @property
    def viewers(self) -> int:
        return len(self._viewers)

    def stop(self) -> None:
        """End all streams."""
        for request in list(self._viewers):
            self._end(request)
            request.unregisterProducer()
            request.finish()

    def render_GET(self, request: Request) -> bytes | int:
        try:
            arguments(request)
        except BadArgument as problem:
            return text(request, str(problem), 400)
        if len(self._viewers) >= MOST:
            return text(request, f"{MOST} are watching already; end one of them", 503)
        request.setHeader(b"content-type", b"text/event-stream")
        request.setHeader(b"cache-control", b"no-store")
        viewer = Viewer(request.write)
        request.registerProducer(viewer, True)
        self._viewers[request] = viewer
        request.notifyFinish().addErrback(lambda _: self._end(request))
        hello = {
            "now": self._view.journal.now(), "started": self._started, "version": __version__, "session": has_session(request),
        }  # fmt: skip
        viewer.tell(event(b"hello", dumps(hello).encode()))
        if not self._steps.running:
            self._changes = Changes()
            self._unwatch = self._view.journal.watch(lambda group: self._changes.see(group))
            self._steps.start(STEP_SECONDS, now=False)
        return NOT_DONE_YET

    def _end(self, request: Request) -> None:
        self._viewers.pop(request, None)
        if not self._viewers and self._steps.running:
            self._steps.stop()
            self._unwatch()

    def _step(self) -> None:
        """Where a step takes long, the next one comes later."""
        begun = self._reactor.seconds()
        if begun < self._again or self._telling is not None:
            return
        now = self._view.journal.now()
        told = self._changes.step(now, self._view.query.jobs_now)
        self._quiet = 0 if told else self._quiet + 1
        if not told and self._quiet % ALIVE_STEPS == 0:
            told = event(b"alive", dumps({"now": now}).encode())
        self._tell(told, list(self._viewers) if told else [], begun, self._reactor.seconds() - begun)

    def _tell(self, told: bytes, waiting: list[Request], since: float, took: float) -> None:
        """Some viewers now, the others in the next turns of the reactor."""
        begun = self._reactor.seconds()
        for request in waiting[:TURN]:
            if request in self._viewers:
                self._viewers[request].tell(told)
        took += self._reactor.seconds() - begun
        rest = waiting[TURN:]
        self._telling = self._reactor.callLater(0, self._tell, told, rest, since, took) if rest else None
        if not rest:
            self._again = since + min(SLOWEST_SECONDS, took / LOAD)
