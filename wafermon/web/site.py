"""The pages, and the port that serves them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry, exposition
from prometheus_client.openmetrics import exposition as openmetrics
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import Request

from wafermon.model.changes import CannotChange, Change
from wafermon.model.endpoints import arguments_of
from wafermon.model.settings import Listener
from wafermon.net import ports
from wafermon.web.answers import BadArgument, arguments, json, number, text
from wafermon.web.cursors import Cursors
from wafermon.web.delay import ReactorDelay
from wafermon.web.drain import Drain
from wafermon.web.metrics import registry
from wafermon.web.requests import QuietSite
from wafermon.web.status import readiness, status
from wafermon.web.tail import Tail
from wafermon.web.view import View

HEALTH = """/health/live        200 as long as the process answers
/health/ready       200 where messages are taken and every backend works, else 503; says why"""
JOBS_SHOWN = 100
JOBS_MOST = 10_000
INDEX = f"""wafermon

{HEALTH}
/metrics            for Prometheus
/api/status         everything at once, as JSON
/api/jobs           the jobs that were heard of last; ?limit=N
/api/traces/ID      one trace with its spans and latest events
/api/tail           messages as they come, as server-sent events; ?service=GLOB&trace=GLOB&level=LEVEL
/api/drain          POST: waits until the backends have everything
/api/cursors/NAME/forget  POST: lets go of a cursor that no backend has

In a terminal: wafermon status, jobs, trace, tail, drain."""


class HttpServer:
    """Everything that is served over HTTP. `start` it once the sidecar's parts are there; `prepare` opens the port."""

    log = Logger()

    def __init__(self, view: View, reactor: Any) -> None:
        self._reactor = reactor
        self._endpoint: str | None = None
        self._port: IListeningPort | None = None
        self._delay = ReactorDelay(reactor)
        self._tail = Tail(view, reactor)
        started = int(reactor.seconds() * 1_000_000)
        self.site = QuietSite(_root(view, self._delay, self._tail, started, reactor))

    def start(self) -> None:
        self._delay.start()

    def prepare(self, endpoint: str | None) -> Change:
        """Serve there and nowhere else; None is nowhere. Raises CannotChange."""
        if endpoint == self._endpoint:
            return Change(lambda: None)
        if endpoint is not None and self._serves_socket_of(endpoint):
            return Change(partial(self._adjust, endpoint))
        opened: IListeningPort | None = None
        if endpoint is not None:
            number = ports.number_of(endpoint)
            same = self._endpoint is not None and number == ports.number_of(self._endpoint) != 0
            try:
                beside: Any = self._port if same else None
                opened = ports.listen(Listener(endpoint=endpoint), self.site, self._reactor, beside)
            except (OSError, ValueError, CannotListenError) as error:
                raise CannotChange(f"can't serve HTTP on {endpoint}: {ports.in_words(error)}") from None
        return Change(partial(self._commit, endpoint, opened), partial(self._close, opened))

    def _serves_socket_of(self, endpoint: str) -> bool:
        """Whether it is the Unix socket that is open already, with another mode."""
        path = arguments_of(endpoint).get("address")
        return path is not None and self._endpoint is not None and path == arguments_of(self._endpoint).get("address")

    def _adjust(self, endpoint: str) -> None:
        self._endpoint = endpoint
        try:
            ports.own(Listener(endpoint=endpoint))
        except OSError as error:
            self.log.error("{endpoint}: {error}", endpoint=endpoint, error=ports.in_words(error))

    def _commit(self, endpoint: str | None, port: IListeningPort | None) -> None:
        """What is being answered at the old port is answered to its end."""
        self._close(self._port)
        self._endpoint, self._port = endpoint, port
        if endpoint is not None:
            self.log.info("Health and metrics on {endpoint}", endpoint=endpoint)

    def _close(self, port: IListeningPort | None) -> None:
        if port is not None:
            ports.close(port)

    async def stop(self) -> None:
        """Nobody is answered any more."""
        if self._port is not None:
            await ports.close(self._port)
        self._delay.stop()
        self._tail.stop()


def _root(view: View, delay: ReactorDelay, tail: Tail, started: int, reactor: Any) -> Resource:
    root = Resource()
    health, api, figures = _Folder(HEALTH), _Folder(INDEX), registry(view, delay)
    root.putChild(b"", _Page(lambda request: text(request, INDEX)))
    root.putChild(b"health", health)
    root.putChild(b"api", api)
    root.putChild(b"metrics", _Page(lambda request: _metrics(figures, request)))
    health.putChild(b"live", _Page(lambda request: text(request, "live")))
    health.putChild(b"ready", _Page(lambda request: _ready(view, request)))
    api.putChild(b"status", _Page(lambda request: json(request, status(view, delay, started))))
    api.putChild(b"jobs", _Page(lambda request: _jobs(view, request), "limit"))
    api.putChild(b"traces", _Page(lambda request: _trace(view, request)))
    api.putChild(b"tail", tail)
    api.putChild(b"drain", Drain(view, reactor))
    api.putChild(b"cursors", Cursors(view))
    return root


def _jobs(view: View, request: Request) -> bytes:
    limit = number(arguments(request, "limit"), "limit", JOBS_SHOWN, JOBS_MOST)
    return json(request, {"jobs": view.live.jobs(limit)})


def _ready(view: View, request: Request) -> bytes:
    answer = readiness(view)
    return json(request, answer, 200 if answer["ready"] else 503)


def _trace(view: View, request: Request) -> bytes:
    """An id may hold slashes."""
    trace_id = b"/".join(request.postpath or ()).decode(errors="replace")
    found = view.live.trace(trace_id)
    if found is not None:
        return json(request, found)
    why = "nothing is remembered of this trace: it never came, or too much has come since"
    return json(request, {"error": why}, 404)


def _metrics(figures: CollectorRegistry, request: Request) -> bytes:
    """In OpenMetrics where the client names it, else in Prometheus' own text. What else an Accept header says does not matter."""
    wanted = openmetrics if "application/openmetrics-text" in (request.getHeader("accept") or "") else exposition
    request.setHeader(b"content-type", wanted.CONTENT_TYPE_LATEST.encode())
    exposed: bytes = wanted.generate_latest(figures)
    return exposed


class _Page(Resource):
    """Answers to GET and HEAD."""

    isLeaf = True

    def __init__(self, answer: Callable[[Request], bytes], *known: str) -> None:
        """`known`: the arguments that it takes."""
        super().__init__()
        self._answer = answer
        self._known = known

    def render_GET(self, request: Request) -> bytes:
        try:
            arguments(request, *self._known)
            return self._answer(request)
        except BadArgument as problem:
            return text(request, str(problem), 400)

    def render_HEAD(self, request: Request) -> bytes:
        """As GET, without the body."""
        request.setHeader(b"content-length", b"%d" % len(self.render_GET(request)))
        return b""


class _Folder(Resource):
    """Pages below it, and at its own address, with and without a slash, what there is."""

    def __init__(self, index: str) -> None:
        super().__init__()
        self._page = _Page(lambda request: text(request, index))
        self.putChild(b"", self._page)

    def render(self, request: Request) -> Any:
        return self._page.render(request)
