"""Who may come in by a token, and for which services."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wafermon.net.principals import Principal
from wafermon.net.tokens import FILE_MAX, TokenFile, parse_tokens


def token_file(path: Path, text: str) -> TokenFile:
    file = path / "tokens"
    file.write_text(text)
    file.chmod(0o600)
    return TokenFile(file)


def test_a_token_is_all_of_it(tmp_path: Path) -> None:
    tokens = token_file(tmp_path, "first-token\nfirst-other web-*\n")
    assert tokens.find("first-token") is not None
    for wrong in ("", "f", "first", "first-toke", "first-token ", "first-tokem", "First-token", "girst-token"):
        assert tokens.find(wrong) is None
    found = tokens.find("first-other")
    assert found is not None and found.services == ("web-*",)


def test_each_token_is_a_principal_of_its_own() -> None:
    principals = list(parse_tokens("a\nb\n").values())
    assert principals[0].name != principals[1].name
    assert all(principal.name.startswith("token:") and len(principal.name) == 38 for principal in principals)


@pytest.mark.parametrize(("text", "problem"), [
    ("", "no token"), ("# one\n\n", "no token"), ("ä\n", "line 1: a token is printable"), ("a\n#\na\n", "line 3: this token"),
])  # fmt: skip
def test_a_file_that_can_not_be_one_is_refused_with_its_line(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_tokens(text)


def test_services_are_bound_where_one_token_names_some(tmp_path: Path) -> None:
    assert not token_file(tmp_path, "a\nb\n").binds_services
    assert token_file(tmp_path, "a\nb web-*\n").binds_services


def test_a_changed_file_is_read_again_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    tokens = token_file(tmp_path, "old\n")
    before = tokens.find("old")
    assert before is not None and not tokens.refresh()
    tokens.path.write_text("newer\n")
    assert tokens.refresh()
    assert tokens.find("old") is None and not tokens.holds(before)
    tokens.path.write_text("# none is left\n")
    os.utime(tokens.path, (1, 1))
    assert not tokens.refresh()
    assert tokens.find("newer") is not None
    tokens.path.write_text("again\n")
    assert tokens.refresh()


@pytest.mark.parametrize("make", [
    lambda path: path.write_bytes(b"\xff\n"),
    lambda path: path.write_bytes(b"#" * (FILE_MAX + 1)),
    lambda path: path.mkdir(),
])  # fmt: skip
def test_a_file_that_is_none_names_itself(tmp_path: Path, make: object) -> None:
    path = tmp_path / "tokens"
    make(path)  # type: ignore[operator]
    with pytest.raises(ValueError, match=str(path)):
        TokenFile(path)


@pytest.mark.parametrize(("services", "service", "allowed"), [
    (None, "a", True), ((), "a", False), ((), "", False), (("a",), "a", True), (("a",), "ab", False), (("a*", "b"), "b", True),
    (("a*", "b"), "ac", True), (("a?",), "a", False), (("a.b",), "axb", False),
])  # fmt: skip
def test_services_are_globs(services: tuple[str, ...] | None, service: str, allowed: bool) -> None:
    principal = Principal("p", services)
    assert principal.allows(service) is allowed
    assert bool(principal.unless_allowed(service)) is not allowed


def test_a_token_may_forward_under_a_name() -> None:
    found = list(parse_tokens("a +forward=edge-1\nb web-* +forward=edge.2 cron\nc web-*\n").values())
    assert [one.forward for one in found] == ["edge-1", "edge.2", ""]
    assert [one.services for one in found] == [None, ("web-*", "cron"), ("web-*",)]


@pytest.mark.parametrize(("text", "problem"), [
    ("a +forward\n", "expected a name"), ("a +forward=a/b\n", "expected a name"), ("a +forwards=a\n", "is not known"),
    ("a +forward=a +forward=b\n", "more than one"),
])  # fmt: skip
def test_a_word_that_is_none_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_tokens(text)
