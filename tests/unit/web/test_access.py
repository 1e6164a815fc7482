"""What an HTTP port asks of requests."""

from __future__ import annotations

from pathlib import Path

import pytest
from asked import Asked
from twisted.internet.task import Clock

from wafermon.net.guesses import ADDRESSES, BURST, WrongTokens
from wafermon.web import access
from wafermon.web.access import is_known_host, is_same_origin


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text("right\nother service-*\n")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    ("serve", "path"), [("health", "/health/live"), ("metrics", "/metrics"), ("api", "/api/status"), ("page", "/")]
)
def test_a_port_serves_what_it_is_told_and_nothing_else(serve: str, path: str) -> None:
    port = Asked(serve=[serve])
    for other in ("/health/live", "/metrics", "/api/status", "/"):
        if other == path:
            assert port.ask(other) == "200 answered"
        else:
            assert port.ask(other).startswith(f"404 this port serves {serve}; ")


@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost:7412", "127.0.0.1:7412", "10.1.2.3", "[::1]:7412", "[fe80::1%25eth0]", "this", "this.", "this:1"]
)  # fmt: skip
def test_hosts_that_are_this_machine(host: str) -> None:
    assert is_known_host(host, {"this"})


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "127.0.0.1@evil.example", "", ":7412", "[::1", "2130706433"]
)  # fmt: skip
def test_hosts_that_may_be_anything(host: str) -> None:
    assert not is_known_host(host, {"this"})


def test_names_of_this_machine_come_from_the_kernel_and_the_hosts_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text(
        "127.0.0.1 localhost\n# 127.0.1.1 no\n127.0.1.1 fab1.example.org FAB1\n10.0.0.9 other.example.org\n"
    )
    monkeypatch.setattr(access, "HOSTS_FILE", hosts)
    found = access.names_of_this_machine()
    assert {"fab1.example.org", "fab1", "localhost"} <= found
    assert not found & {"other.example.org", "no"}


@pytest.mark.parametrize("path", ["/api/status", "/"])
def test_a_name_that_only_leads_here_is_refused_with_what_to_do(path: str) -> None:
    refused = Asked().ask(path, host="evil.example:7412")
    assert refused.startswith("403 the Host header 'evil.example:7412' is no address and no name of this machine")
    assert "hosts" in refused and "token_file" in refused
    assert Asked(hosts=["Evil.Example"]).ask(path, host="evil.example:7412") == "200 answered"


@pytest.mark.parametrize("path", ["/health/live", "/metrics"])
def test_health_and_metrics_are_served_under_any_name(path: str) -> None:
    assert Asked().ask(path, host="evil.example") == "200 answered"


def test_a_port_that_asks_for_tokens_is_served_under_any_name(tokens: Path) -> None:
    port = Asked(token_file=str(tokens))
    assert port.ask("/api/status", "Authorization: Bearer right", host="any.example") == "200 answered"


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        ("http://127.0.0.1:7412", "127.0.0.1:7412", True),
        ("https://Fab1.example", "fab1.example:443", True),
        ("http://127.0.0.1:7413", "127.0.0.1:7412", False),
        ("https://evil.example", "127.0.0.1:7412", False),
        ("null", "127.0.0.1", False),
        ("", "", False),
    ],
)
def test_the_origin_of_a_post(origin: str, host: str, same: bool) -> None:
    assert is_same_origin(origin, host) is same
    answer = Asked(hosts=["fab1.example"]).ask(
        "/api/drain", f"Origin: {origin}", method="POST", host=host or "localhost"
    )
    assert answer.startswith("200 " if same else "403 a POST from another site")


def test_a_post_without_an_origin_and_a_get_with_any_are_answered() -> None:
    assert Asked().ask("/api/drain", method="POST") == "200 answered"
    assert Asked().ask("/api/status", "Origin: https://evil.example") == "200 answered"


@pytest.mark.parametrize("path", ["/health/live", "/metrics", "/api/status", "/", "/nonsense"])
def test_without_a_token_nothing_is_served(tokens: Path, path: str) -> None:
    port = Asked(token_file=str(tokens))
    for headers in ([], ["Authorization: Basic cmlnaHQ="], ["Authorization: Bearer"], ["Authorization: right"]):
        assert port.ask(path, *headers).startswith(
            "401 this port asks for a token: send the header Authorization: Bearer"
        )


def test_tokens_are_taken_whatever_they_are_for_on_a_listener(tokens: Path) -> None:
    port = Asked(token_file=str(tokens))
    assert port.ask("/api/status", "Authorization: bearer other") == "200 answered"


def test_a_wrong_token_is_answered_late(tokens: Path) -> None:
    port = Asked(token_file=str(tokens))
    assert port.ask("/api/status", "Authorization: Bearer wrong", wait=access.WRONG_SECONDS / 2) == ""
    assert port.ask("/api/status", "Authorization: Bearer wrong").startswith("401 this token is not known here")


def test_after_some_wrong_tokens_those_of_an_address_are_not_looked_at_for_a_while(tokens: Path) -> None:
    port = Asked(token_file=str(tokens))
    answers = [port.ask("/api/status", "Authorization: Bearer wrong", wait=0) for _ in range(BURST)]
    assert answers == [""] * BURST  # each is held back
    assert port.ask("/api/status", "Authorization: Bearer right", wait=0).startswith("429 too many wrong tokens")
    assert port.ask("/api/status", "Authorization: Bearer right", peer="10.0.0.2") == "200 answered"
    assert port.ask("/api/status", "Authorization: Bearer right") == "200 answered", "a second later"


def test_wrong_tokens_of_many_addresses_take_no_memory() -> None:
    wrong = WrongTokens(Clock().seconds)
    for number in range(3 * ADDRESSES):
        wrong.count(str(number))
    assert len(wrong._left) == ADDRESSES


def test_tokens_are_read_again_when_the_file_changes(tokens: Path) -> None:
    port = Asked(token_file=str(tokens))
    assert port.ask("/api/status", "Authorization: Bearer right") == "200 answered"
    tokens.write_text("newer-token\n")
    assert port.ask("/api/status", "Authorization: Bearer newer-token") == "200 answered"
    assert port.ask("/api/status", "Authorization: Bearer right").startswith("401 ")
