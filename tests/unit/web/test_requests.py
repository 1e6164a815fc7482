"""Lawful requests are answered and unlawful ones refused, each by the bytes on the wire; none of them costs memory or a log line."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.web.resource import Resource
from twisted.web.server import Request
from zope.interface import implementer

from wafermon.model.settings import HttpListener
from wafermon.net.http import BODY_BYTES, QuietSite
from wafermon.web.access import AccessRules
from wafermon.web.answers import BadArgument, number
from wafermon.web.refusals import Refusal
from wafermon.web.site import _Folder, _metrics, _Page


def answer_to(request: bytes, page: Callable[[Request], bytes] = lambda request: b"hello\n") -> bytes:
    """All bytes that come back."""
    root = Resource()
    root.putChild(b"page", _Page(page, "limit", "service"))
    root.putChild(b"folder", _Folder("what is here"))
    root.putChild(b"metrics", _Page(lambda request: _metrics(CollectorRegistry(), request)))
    site = QuietSite(root)
    site.reactor = Clock()
    protocol = site.buildProtocol(None)
    transport = StringTransport()
    protocol.makeConnection(transport)
    protocol.dataReceived(request)
    written: bytes = transport.value()
    return written


def asking(path: str, *headers: str, method: str = "GET") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", *headers, "", ""]
    return answer_to("\r\n".join(lines).encode())


@pytest.fixture
def logged() -> Callable[[], list[LogEvent]]:
    events: list[LogEvent] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        events.append(event)

    globalLogPublisher.addObserver(observe)

    def end() -> list[LogEvent]:
        globalLogPublisher.removeObserver(observe)
        return events

    return end


@pytest.mark.parametrize("header", [b"Accept", b"Authorization", b"Host", b"Origin"])
def test_headers_of_any_bytes_are_read(header: bytes, logged: Callable[[], list[LogEvent]]) -> None:
    port = HttpListener.model_validate({"endpoint": "tcp:0", "serve": ["metrics", "api"]})
    rules = AccessRules(port, lambda: 0.0)

    def answer(request: Request) -> bytes:
        refused = rules.examine(request, "api")
        return b"%d\n" % refused.code if isinstance(refused, Refusal) else _metrics(CollectorRegistry(), request)

    lines = [b"GET /page HTTP/1.1", b"Connection: close", header + b': x; version="; q=\xff\xfe', b"", b""]
    assert answer_to(b"\r\n".join(lines), answer).startswith(b"HTTP/1.1 200 ")
    assert logged() == []


@pytest.mark.parametrize("path", ["/page?limit=5", "/page", "/page?limit=", "/page?service=a&limit=2"])
def test_known_arguments_are_taken(path: str) -> None:
    assert asking(path).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("/page?limt=5", b"unknown argument 'limt'; this page takes limit, service"),
        ("/page?limit=1&limit=2", b"limit is given 2 times"),
    ],
)
def test_others_are_named(path: str, problem: bytes) -> None:
    answer = asking(path)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert problem in answer


@pytest.mark.parametrize("text", ["x", "-1", "9e9", "1.0", "٢", "9" * 5000, "11", "+1", " 1"])
def test_what_is_no_number_in_range_is_refused(text: str) -> None:
    with pytest.raises(BadArgument, match="limit: expected a whole number from 0 to 10"):
        number({"limit": text}, "limit", 5, 10)


@pytest.mark.parametrize(
    ("given", "meant"), [({}, 5), ({"limit": "0"}, 0), ({"limit": "10"}, 10), ({"limit": "007"}, 7)]
)
def test_numbers_in_range_are_taken(given: dict[str, str], meant: int) -> None:
    assert number(given, "limit", 5, 10) == meant


@pytest.mark.parametrize("accept", [
    "*/*", "text/plain", "text/html, */*;q=0.1", "application/openmetrics-text; version=0.0.1, text/plain;q=0.5", "a/b;version=x;charset",
    'application/openmetrics-text; version="; q=x', "application/openmetrics-text;version=1.0.0,*/*;escaping=what", ",,;;==", "",
])  # fmt: skip
def test_metrics_take_any_accept_header(accept: str) -> None:
    answer = asking("/metrics", f"Accept: {accept}")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert (b"application/openmetrics-text" in answer) is ("openmetrics" in accept)


@pytest.mark.parametrize("path", ["/page", "/folder", "/folder/", "/metrics"])
def test_head_is_get_without_a_body_and_without_a_log_line(path: str, logged: Callable[[], list[LogEvent]]) -> None:
    head, _, body = asking(path, method="HEAD").partition(b"\r\n\r\n")
    full = asking(path)
    assert logged() == []
    assert head.startswith(b"HTTP/1.1 200 ")
    assert body == b""
    assert b"content-length: %d" % len(full.partition(b"\r\n\r\n")[2]) in head.lower()


def test_another_method_is_named_as_not_allowed() -> None:
    assert asking("/page", "Content-Length: 0", method="POST").startswith(b"HTTP/1.1 405 ")


def test_a_body_that_is_announced_too_long_is_refused_before_it_comes() -> None:
    answer = asking("/page", f"Content-Length: {BODY_BYTES + 1}", method="POST")
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_chunked_body_is_refused_as_soon_as_it_is_too_long() -> None:
    start = b"POST /page HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    assert answer_to(start + chunk * 2) == b""
    assert answer_to(start + chunk * 3).startswith(b"HTTP/1.1 413 ")
    assert answer_to(start + chunk * 30).count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("kind", ["multipart/form-data", "application/x-www-form-urlencoded; charset=nope"])
def test_a_form_is_refused_in_any_shape(kind: str) -> None:
    head = f"POST /page HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: 9\r\n\r\n"
    assert answer_to(f"{head}limit=bad".encode())[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 405")
