"""The pages, and the port that serves them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.web.http import Request as HttpRequest
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from wafermon.model.changes import CannotChange, Change
from wafermon.model.endpoints import arguments_of
from wafermon.model.settings import Listener
from wafermon.net import ports
from wafermon.web.answers import argument, json, text
from wafermon.web.delay import ReactorDelay
from wafermon.web.drain import Drain
from wafermon.web.metrics import registry
from wafermon.web.status import readiness, status
from wafermon.web.tail import Tail
from wafermon.web.view import View

JOBS_SHOWN = 100
JOBS_MOST = 10_000
IDLE_SECONDS = 60.0
INDEX = """wafermon

/health/live        200 as long as the process answers
/health/ready       200 where messages are taken and every backend works, else 503; says why
/metrics            for Prometheus
/api/status         everything at once, as JSON
/api/jobs           the jobs that were heard of last; ?limit=N
/api/traces/ID      one trace with its spans and latest events
/api/tail           messages as they come, as server-sent events; ?service=GLOB&trace=GLOB&level=LEVEL
/api/drain          POST: waits until the backends have everything

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
        self.site = _Site(_root(view, self._delay, self._tail, started, reactor), timeout=IDLE_SECONDS)
        self.site.displayTracebacks = False

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


class _Site(Site):
    """Without a line in the log for each request."""

    noisy = False

    def log(self, request: HttpRequest) -> None:
        pass


def _root(view: View, delay: ReactorDelay, tail: Tail, started: int, reactor: Any) -> Resource:
    root = Resource()
    health, api, figures = Resource(), Resource(), registry(view, delay)
    root.putChild(b"", _Page(lambda request: text(request, INDEX)))
    root.putChild(b"health", health)
    root.putChild(b"api", api)
    root.putChild(b"metrics", _Page(lambda request: _metrics(figures, request)))
    health.putChild(b"live", _Page(lambda request: text(request, "live")))
    health.putChild(b"ready", _Page(lambda request: _ready(view, request)))
    api.putChild(b"status", _Page(lambda request: json(request, status(view, delay, started))))
    api.putChild(b"jobs", _Page(lambda request: _jobs(view, request)))
    api.putChild(b"traces", _Page(lambda request: _trace(view, request)))
    api.putChild(b"tail", tail)
    api.putChild(b"drain", Drain(view, reactor))
    return root


def _jobs(view: View, request: Request) -> bytes:
    given = argument(request, "limit")
    limit = min(int(given), JOBS_MOST) if given.isdecimal() else JOBS_SHOWN
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
    encode, content_type = choose_encoder(request.getHeader("accept") or "")
    request.setHeader(b"content-type", content_type.encode())
    return encode(figures)


class _Page(Resource):
    """Answers to GET and HEAD."""

    isLeaf = True

    def __init__(self, answer: Callable[[Request], bytes]) -> None:
        super().__init__()
        self._answer = answer

    def render_GET(self, request: Request) -> bytes:
        return self._answer(request)
