"""The live page's files and their headers, by the bytes on the wire."""

from __future__ import annotations

import gzip
import re
from typing import Any, cast

import pytest
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from wafermon.model.settings import HttpListener
from wafermon.net.http import QuietSite
from wafermon.web import assets
from wafermon.web.access import AccessRules
from wafermon.web.delay import ReactorDelay
from wafermon.web.listening import PortRoot
from wafermon.web.site import INDEX, _root
from wafermon.web.stream import Stream
from wafermon.web.tail import Tail

BROWSER = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
MODULES = sorted(name for name in assets.load() if name not in assets.PAGES)
OURS = sorted(name for name in assets.load() if not name.startswith("uplot."))


class Nothing:
    """A view that is asked nothing: the page does not depend on how the sidecar is."""


def ask(path: str, *headers: str, method: str = "GET", **keys: object) -> tuple[int, dict[str, str], bytes]:
    """The status, the headers by name in lower case, and the body."""
    clock = Clock()
    view = cast(Any, Nothing())
    root = _root(view, ReactorDelay(clock), Tail(view, clock), Stream(view, clock, 0), 0, clock)
    listener = HttpListener.model_validate({"endpoint": "tcp:0", **keys})
    site = QuietSite(PortRoot(AccessRules(listener, clock.seconds), root, clock))
    site.reactor = clock
    protocol = site.buildProtocol(None)
    transport = StringTransport()
    protocol.makeConnection(transport)
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *headers, "", ""]
    protocol.dataReceived("\r\n".join(lines).encode())
    head, _, body = transport.value().partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    named = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
    return int(first.split()[1]), named, body


def test_a_browser_gets_the_page() -> None:
    status, headers, body = ask("/", BROWSER)
    assert status == 200
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert headers["cache-control"] == "no-store"
    assert body.startswith(b"<!doctype html>")


@pytest.mark.parametrize("accept", [(), ("Accept: */*",), ("Accept: text/plain",)])
def test_who_does_not_ask_for_html_gets_the_list_of_paths(accept: tuple[str, ...]) -> None:
    status, headers, body = ask("/", *accept)
    assert (status, headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert body.decode() == f"{INDEX}\n"
    assert headers["vary"].lower() == "accept"


@pytest.mark.parametrize("path", ["/", *(f"/page/{name}" for name in MODULES)])
def test_nothing_is_loaded_from_elsewhere_framed_or_taken_for_another_type(path: str) -> None:
    status, headers, _ = ask(path, BROWSER)
    policy = {words[0]: words[1:] for words in map(str.split, headers["content-security-policy"].split(";"))}
    assert status == 200
    assert policy["default-src"] == ["'self'"]
    assert policy["frame-ancestors"] == ["'none'"]
    assert not {"script-src", "style-src", "connect-src"} & policy.keys()
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", MODULES)
def test_a_file_that_the_browser_has_is_not_sent_again(name: str) -> None:
    _, headers, body = ask(f"/page/{name}")
    assert body == assets.load()[name].content
    assert headers["cache-control"] == "no-cache"
    again, _, nothing = ask(f"/page/{name}", f"If-None-Match: {headers['etag']}")
    assert (again, nothing) == (304, b"")
    assert ask(f"/page/{name}", 'If-None-Match: "of another version"')[0] == 200


def test_head_says_how_long_the_page_is() -> None:
    status, headers, body = ask("/", BROWSER, method="HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) == len(assets.load()[assets.INDEX].content)


@pytest.mark.parametrize(
    "path",
    ["/page/nonsense", "/page/../site.py", "/page/%2e%2e/site.py", "/page/..%2fsite.py", "/page/index.html"],
)
def test_nothing_else_is_served(path: str) -> None:
    status, _, body = ask(path)
    assert status == 404
    assert b"import" not in body


def test_a_post_changes_nothing_and_is_refused() -> None:
    assert ask("/", BROWSER, method="POST")[0] == 405


@pytest.mark.parametrize("path", ["/", "/page/main.mjs"])
def test_a_port_that_does_not_serve_the_page_has_none_of_it(path: str) -> None:
    assert ask(path, BROWSER, serve=["api"])[0] == 404
    assert ask(path, BROWSER, serve=["page"])[0] == 200


@pytest.mark.parametrize("path", ["/", "/page/main.mjs"])
def test_a_site_that_leads_here_by_its_own_name_does_not_get_it(path: str) -> None:
    status, _, _ = ask(path, BROWSER, "Host: evil.example")
    assert status == 403


def test_all_that_the_page_names_is_there() -> None:
    found = assets.load()
    named = {"uplot.LICENSE.txt"}  # it goes with what it is for
    for name in OURS:
        text = found[name].content.decode()
        named |= set(re.findall(r"""["']/page/([^"']+)["']""", text)) | set(re.findall(r'from "\./([^"]+)"', text))
    assert named == set(MODULES)


def test_text_never_becomes_markup_and_styles_stay_in_the_stylesheet() -> None:
    """The policy refuses inline styles and scripts; these calls would make markup of what clients sent."""
    for name in OURS:
        text = assets.load()[name].content.decode()
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|DOMParser|srcdoc", text
        ), name
        assert not re.search(r"""["']?style["']?\s*[:,]\s*["'`]|https?://(?!www\.w3\.org)""", text), name


def test_what_is_not_ours_is_given_no_text_of_clients() -> None:
    """uPlot makes markup of labels and legends: it gets numbers alone."""
    text = assets.load()["plots.mjs"].content.decode()
    assert "legend: { show: false }" in text
    [options] = re.findall(r"new Plot\(\{(.*?)\}, one\.data", text, re.DOTALL)
    assert not re.search(r"\b(label|title|class)\s*:", options)


def test_the_page_stays_small() -> None:
    """All in, as a browser gets it."""
    assert sum(len(asset.compressed) for asset in assets.load().values()) < 150 * 1000


@pytest.mark.parametrize(("accepted", "compressed"), [
    ("gzip, deflate, br", True), ("br", False), ("gzip;q=0", False), ("gzip; q=0.5", True), ("", False),
])  # fmt: skip
def test_a_file_is_compressed_for_those_who_take_it(accepted: str, compressed: bool) -> None:
    status, headers, body = ask("/page/main.mjs", f"Accept-Encoding: {accepted}")
    assert status == 200
    assert headers["vary"] == "accept-encoding"
    assert (headers.get("content-encoding") == "gzip") is compressed
    content = assets.load()["main.mjs"].content
    assert (gzip.decompress(body) if compressed else body) == content
