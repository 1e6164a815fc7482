"""The pages, whatever port serves them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry, exposition
from prometheus_client.openmetrics import exposition as openmetrics
from twisted.web.resource import Resource
from twisted.web.server import Request

from wafermon.model.changes import Change
from wafermon.model.settings import HttpListener
from wafermon.web import assets
from wafermon.web.alerts import Alerts
from wafermon.web.answers import BadArgument, arguments, json, number, text, wants_html
from wafermon.web.cursors import Cursors
from wafermon.web.delay import ReactorDelay
from wafermon.web.drain import Drain
from wafermon.web.letters import Letters
from wafermon.web.listening import HttpPorts
from wafermon.web.metrics import registry
from wafermon.web.past import Past
from wafermon.web.process import process
from wafermon.web.schedules import Schedules
from wafermon.web.sharing import Lately, Shared
from wafermon.web.status import readiness, status
from wafermon.web.stream import Stream
from wafermon.web.tail import Tail
from wafermon.web.view import View

HEALTH = """/health/live        200 as long as the process answers
/health/ready       200 where messages are taken and every backend works, else 503; says why"""
CLIENTS_SHOWN = 100
CLIENTS_MOST = 10_000
INDEX = f"""wafermon

/                   the live page, for a browser
{HEALTH}
/metrics            for Prometheus
/api/status         everything at once, as JSON
/api/process        the sidecar's process: its limits, its config's file, where it may write
/api/jobs           jobs, live and stored; ?state=…&service=GLOB&name=GLOB&since=2h&limit=N&after=CURSOR
/api/runs           the kinds of jobs; ?of=KIND the runs of one
/api/compare        where two runs of a job differ; ?run=ID&other=ID, without other its last ones
/api/traces/ID      one trace with its spans and latest messages; the beginning of an ID will do
/api/traces/ID/receipt  whether all of a trace or job arrived, and what is missing
/api/events/search  stored events; ?service=GLOB&level=LEVEL&text=…&context=KEY=VALUE&since=2h
/api/errors         what went wrong, each kind once
/api/services       how much each service sent
/api/schedules      what is expected of jobs and services, and how that is; ?name=GLOB&state=…
/api/schedules/NAME/test  what a schedule would have said of the past; ?since=30d
/api/clients        clients that are connected or were; ?service=GLOB&connected=true&limit=N
/api/dead-letters   what could not be delivered, the latest; ?limit=N
/api/stream         changes of jobs and traces, as server-sent events, for the page
/api/forwarders     the sidecars that forward to here; ?connected=true&limit=N
/api/tail           messages as they come, as server-sent events; ?service=GLOB&trace=GLOB&level=LEVEL
/api/drain          POST: waits until the backends have everything
/api/cursors/NAME/forget  POST: forgets a cursor that no backend has
/api/schedules/NAME/pause  POST: no alarms of it, ?until=2h; NAME/resume: from now on again
/api/alerts/NAME/test      POST: sends a test through a channel of the alerts

In a terminal: wafermon status, top, clients, jobs, runs, trace, receipt, events, errors, schedules,
alert, tail, drain."""


class HttpServer:
    """Everything that is served over HTTP. `start` it once the sidecar's parts are there; `prepare` opens the ports."""

    def __init__(self, view: View, reactor: Any) -> None:
        self._delay = ReactorDelay(reactor)
        self._tail = Tail(view, reactor)
        started = int(reactor.seconds() * 1_000_000)
        self._stream = Stream(view, reactor, started)
        pages = _root(view, self._delay, self._tail, self._stream, started, reactor)
        self._ports = HttpPorts(lambda: pages, reactor)

    def start(self) -> None:
        self._delay.start()

    def prepare(self, wanted: Sequence[HttpListener]) -> Change:
        """Serve there and nowhere else. Raises CannotChange."""
        return self._ports.prepare(wanted)

    @property
    def open(self) -> list[tuple[HttpListener, str]]:
        """The ports that are open, each with where: ``host:port`` or a path."""
        return self._ports.open

    async def stop(self) -> None:
        """Nobody is answered any more."""
        await self._ports.stop()
        self._delay.stop()
        self._tail.stop()
        self._stream.stop()


def _root(view: View, delay: ReactorDelay, tail: Tail, stream: Stream, started: int, reactor: Any) -> Resource:
    root, shared = Resource(), Shared(reactor)
    health, api, figures = _Folder(HEALTH), _Folder(INDEX), registry(view, delay)
    found = assets.load()
    root.putChild(b"", _Page(lambda request: _index(found[assets.INDEX], request)))
    root.putChild(b"page", _page(found))
    root.putChild(b"health", health)
    root.putChild(b"api", api)
    root.putChild(b"metrics", _Page(lambda request: _metrics(figures, request)))
    health.putChild(b"live", _Page(lambda request: text(request, "live")))
    health.putChild(b"ready", _Page(lambda request: _ready(view, request)))
    api.putChild(b"status", _Page(Lately(lambda: status(view, delay, started, stream.viewers), reactor.seconds)))
    api.putChild(b"process", _Page(lambda request: json(request, process(view))))
    for path in ("jobs", "runs", "compare", "errors", "services"):
        api.putChild(path.encode(), Past(lambda: view.query, path, shared=shared))
    api.putChild(b"clients", _Page(lambda request: _clients(view, request), "service", "connected", "limit"))
    api.putChild(b"traces", Past(lambda: view.query, "trace", "id", {"/receipt": "receipt"}, shared))
    api.putChild(b"forwarders", _Page(lambda request: _forwarders(view, request), "connected", "limit"))
    events = Resource()
    events.putChild(b"search", Past(lambda: view.query, "events", shared=shared))
    api.putChild(b"events", events)
    api.putChild(b"dead-letters", Letters(view))
    api.putChild(b"tail", tail)
    api.putChild(b"stream", stream)
    api.putChild(b"drain", Drain(view, reactor))
    api.putChild(b"cursors", Cursors(view))
    api.putChild(b"schedules", Schedules(view))
    api.putChild(b"alerts", Alerts(view))
    return root


def _connected(given: Mapping[str, str]) -> str:
    connected = given.get("connected", "")
    if connected not in ("", "true", "false"):
        raise BadArgument(f"connected: expected true or false, got {connected[:32]!r}")
    return connected


def _forwarders(view: View, request: Request) -> bytes:
    given = arguments(request, "connected", "limit")
    found = _forwarders_of(view, _connected(given))
    shown = found[: number(given, "limit", CLIENTS_SHOWN, CLIENTS_MOST)]
    rest = {"total": len(found), "left_out": len(found) - len(shown)}
    return json(request, {"now": view.journal.now(), "forwarders": shown, **rest})


def _forwarders_of(view: View, connected: str) -> list[dict[str, Any]]:
    return [one for one in view.receiver.forwarders.records() if connected in ("", str(one["connected"]).lower())]


def _clients(view: View, request: Request) -> bytes:
    given = arguments(request, "service", "connected", "limit")
    connected = _connected(given)
    known = [*view.receiver.clients.records(), *view.otlp.senders.records()]
    found = [
        one
        for one in sorted(known, key=lambda one: (one["connected"], one["last_heard"]), reverse=True)
        if fnmatchcase(one["service"], given.get("service", "*")) and connected in ("", str(one["connected"]).lower())
    ]
    most = number(given, "limit", CLIENTS_SHOWN, CLIENTS_MOST)
    shown = found[:most]
    rest = {"total": len(found), "left_out": len(found) - len(shown)}
    # A sidecar forwards what is of any service.
    forwarders = _forwarders_of(view, connected) if "service" not in given else []
    there = {"forwarders": forwarders[:most], "forwarders_total": len(forwarders)}
    return json(request, {"now": view.journal.now(), "clients": shown, **rest, **there})


def _index(page: assets.Asset, request: Request) -> bytes:
    """The page for browsers, a list of paths where HTML is not asked for."""
    request.setHeader(b"vary", b"accept")
    if wants_html(request):
        return assets.index(request, page)
    return text(request, INDEX)


def _page(found: dict[str, assets.Asset]) -> Resource:
    """What the page is made of, below its own path."""
    folder = _Folder("the page is at /")
    for name, asset in found.items():
        if name not in assets.PAGES:
            folder.putChild(name.encode(), _Page(partial(assets.part, asset=asset)))
    return folder


def _ready(view: View, request: Request) -> bytes:
    answer = readiness(view)
    return json(request, answer, 200 if answer["ready"] else 503)


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
