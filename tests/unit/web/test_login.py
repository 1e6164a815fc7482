"""How a browser logs in at a port that asks for tokens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from asked import Asked
from twisted.internet.task import Clock

from wafermon.model.settings import HttpListener
from wafermon.net.guesses import BURST
from wafermon.net.principals import Principal
from wafermon.web.access import AccessRules
from wafermon.web.sessions import SESSION_SECONDS, SESSIONS, Sessions

HTML = "Accept: text/html"


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text("right\nanother\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def port(tokens: Path) -> Asked:
    return Asked(token_file=str(tokens))


def post(port: Asked, path: str, body: str, *headers: str, peer: str = "10.0.0.1", wait: float = 1.0) -> str:
    kind = "Content-Type: application/x-www-form-urlencoded"
    return port.answer(
        path, kind, f"Content-Length: {len(body)}", *headers, method="POST", body=body, peer=peer, wait=wait
    )


def log_in(port: Asked, token: str = "right") -> str:
    """The header with the cookie that came."""
    answer = post(port, "/login", f"token={token}")
    assert answer.startswith("HTTP/1.1 303"), answer
    [cookie] = re.findall(r"Set-Cookie: ([^;]+);", answer, re.IGNORECASE)
    return f"Cookie: {cookie}"


def test_a_browser_without_a_session_is_led_to_the_form_and_a_program_is_not(port: Asked) -> None:
    answer = port.answer("/", HTML)
    assert answer.startswith("HTTP/1.1 303")
    assert re.search(r"(?i)^location: /login\r$", answer, re.MULTILINE)
    assert port.ask("/").startswith("401 ")
    assert port.ask("/api/status", HTML).startswith("401 "), "a script asks there, not a person"


def test_the_form_has_the_pages_headers_and_nothing_is_needed_for_it(port: Asked) -> None:
    answer = port.answer("/login", HTML)
    assert answer.startswith("HTTP/1.1 200")
    assert "default-src 'self'" in answer and "nosniff" in answer and "no-store" in answer
    assert '<form method="post" action="/login">' in answer


def test_a_session_admits_everywhere_at_its_port_and_its_cookie_says_nothing(port: Asked) -> None:
    answer = post(port, "/login", "token=right")
    [header] = re.findall(r"(?i)^set-cookie: (.*)\r$", answer, re.MULTILINE)
    assert "right" not in header
    assert re.fullmatch(rf"wafermon-\w+=[\w-]{{32}}; Path=/; Max-Age={SESSION_SECONDS}; HttpOnly; SameSite=Lax", header)
    cookie = log_in(port)
    for path in ("/", "/api/status", "/health/live", "/metrics"):
        assert port.ask(path, cookie) == "200 answered"
    assert log_in(port) != cookie, "each is another one"


@pytest.mark.parametrize("cookie", ["", "x" * 32, "wafermon", "%00", "é"])
def test_a_cookie_that_is_none_of_ours_admits_nobody(port: Asked, cookie: str) -> None:
    name = log_in(port).partition("=")[0]
    assert port.ask("/api/status", f"{name}={cookie}").startswith("401 ")


def test_a_session_ends_after_its_time(port: Asked) -> None:
    cookie = log_in(port)
    port.clock.advance(SESSION_SECONDS - 10)
    assert port.ask("/api/status", cookie) == "200 answered"
    port.clock.advance(10)
    assert port.ask("/api/status", cookie).startswith("401 ")


def test_a_session_ends_when_its_token_leaves_the_file_and_others_go_on(port: Asked, tokens: Path) -> None:
    mine, other = log_in(port), log_in(port, "another")
    tokens.write_text("another\n# now shorter\n")
    port.root.access.refresh()
    assert port.ask("/api/status", mine).startswith("401 ")
    assert port.ask("/api/status", other) == "200 answered"


def test_a_session_outlives_a_reload(port: Asked, tokens: Path) -> None:
    cookie = log_in(port)
    listener = HttpListener.model_validate({"endpoint": "tcp:0", "token_file": str(tokens)})
    port.root.access = AccessRules(listener, port.clock.seconds, port.root.access.sessions)
    assert port.ask("/api/status", cookie) == "200 answered"


def test_logging_out_ends_it_and_only_a_post_does(port: Asked) -> None:
    cookie = log_in(port)
    assert port.answer("/logout", cookie).startswith("HTTP/1.1 303")
    assert port.ask("/api/status", cookie) == "200 answered"
    answer = post(port, "/logout", "", cookie)
    assert "Max-Age=0" in answer
    assert port.ask("/api/status", cookie).startswith("401 ")


def test_logging_in_again_ends_the_session_before(port: Asked) -> None:
    cookie = log_in(port)
    post(port, "/login", "token=right", cookie)
    assert port.ask("/api/status", cookie).startswith("401 ")


def test_a_wrong_token_is_said_late_and_many_are_not_looked_at(port: Asked) -> None:
    assert post(port, "/login", "token=wrong", wait=0.1) == ""
    answer = post(port, "/login", "token=wrong")
    assert answer.startswith("HTTP/1.1 401") and "not known here" in answer
    assert "www-authenticate" not in answer.lower()
    for _ in range(BURST + 2):
        post(port, "/login", "token=wrong", wait=0)
    assert post(port, "/login", "token=right", wait=0).startswith("HTTP/1.1 429")
    assert post(port, "/login", "token=right", peer="10.0.0.2").startswith("HTTP/1.1 303")


@pytest.mark.parametrize("body", ["", "token=", "other=right", "token=%ff%00", "token=<script>"])
def test_what_is_no_token_begins_no_session_and_is_not_shown(port: Asked, body: str) -> None:
    answer = post(port, "/login", body)
    assert answer.startswith("HTTP/1.1 401")
    assert "set-cookie" not in answer.lower()
    assert "<script>" not in answer


@pytest.mark.parametrize("path", ["/login", "/logout"])
def test_another_site_can_neither_log_one_in_nor_out(port: Asked, path: str) -> None:
    cookie = log_in(port)
    for origin in ("http://evil.example", "null"):
        assert post(port, path, "token=right", cookie, f"Origin: {origin}").startswith("HTTP/1.1 403")
    assert port.ask("/api/status", cookie) == "200 answered"


def test_a_token_in_the_address_is_none(port: Asked) -> None:
    assert port.answer("/login?token=right", HTML).startswith("HTTP/1.1 200")
    assert "set-cookie" not in port.answer("/login?token=right", HTML).lower()


def test_a_port_that_asks_for_nothing_has_no_login() -> None:
    port = Asked()
    assert port.ask("/login", HTML).startswith("404 ")
    assert post(port, "/login", "token=x").startswith("HTTP/1.1 404")
    assert port.ask("/", HTML) == "200 answered"


def test_a_port_without_the_page_has_no_login(tokens: Path) -> None:
    assert Asked(token_file=str(tokens), serve=["api"]).ask("/login", HTML).startswith("404 ")


def test_sessions_are_bounded() -> None:
    sessions = Sessions(Clock().seconds)
    first = sessions.begin(Principal("token:1"))
    last = [sessions.begin(Principal("token:1")) for _ in range(SESSIONS)][-1]
    assert sessions.find(first) is None
    assert sessions.find(last) == Principal("token:1")
