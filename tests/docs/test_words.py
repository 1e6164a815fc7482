"""The words that were decided: one word a thing, common words, no metaphors. In pages, help, messages and log lines."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon import ROOT, pages

from wafermon.cli.manual import pages as manual_pages

INSTEAD = {
    r"mend(?:s|ed|ing)?": "fix",
    r"lack(?:s|ed|ing)?": "has no …, is missing; pending, of messages",
    r"behind": "past, where a cursor has passed something; after, below, pending",
    r"strangers?": "another program, a file that is not ours, unknown",
    r"dear(?:er|est)?": "costs more",
    r"deaf": "does not listen",
    r"doors?": "listener, port",
    r"buried|bury|graves?": "dropped, dead letter",
    r"heal(?:s|ed|ing)?": "repair, works again",
    r"sinks?": "backend",
    r"(?:once|twice|times|\d+) an? (?:second|minute|hour|day|week)": "per",
    r"one an? (?:host|pod|machine|process|day)": "per",
    r"furniture|rooms": "package, part",
    r"(?:lets?|letting) go of": "delete, forget, drop",
    r"whatever is killed when": "after a kill at any time",
    r"without a word": "silently, without saying so",
    r"whoever": "a program that, if you",
    r"lawful": "allowed, normal",
    r"(?:knows?|known) no request again": "does not recognise a repeated request",
    r"look(?:s|ed)? after": "manage, keep",
    r"notifications?": "alert",
    r"dead[- ]man(?:'s)?[- ]switch(?:es)?|heartbeat schedules?": "schedule",
    r"delivery receipts?|delivery reports?": "receipt",
    r"relay(?:s|ed|ing)?|federat\w+": "forward",
    r"alert(?:ing)? channels?": "channel",
}
"""A pattern of words, and what is said in their place."""
FORBIDDEN = {re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE): instead for pattern, instead in INSTEAD.items()}
LAWFUL = [
    re.compile(r"behind (?:a|the|its|your|another) (?:[a-z]+ )?(?:proxy|NAT|firewall|load balancer)"),
]
"""Where one of them is the common word for it."""


def said(text: str) -> Iterator[str]:
    """The forbidden words of a text, each with what to say."""
    for lawful in LAWFUL:
        text = lawful.sub("", text)
    for pattern, instead in FORBIDDEN.items():
        for found in pattern.finditer(text):
            around = " ".join(text[max(0, found.start() - 40) : found.end() + 40].split())
            yield f"{found[0]!r} in {around!r}: say {instead}"


def prose(page: Path) -> str:
    """A page without its code."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "", text)


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_pages(page: Path) -> None:
    assert [*said(prose(page))] == []


@pytest.mark.parametrize("name", manual_pages())
def test_help(name: str) -> None:
    assert [*said(manual_pages()[name])] == []


MODULES = sorted(path for path in (ROOT / "wafermon").rglob("*.py") if "monitoring_sdk" not in path.parts)


def docstrings(tree: ast.AST) -> Iterator[ast.Constant]:
    """Strings that stand alone: they are for readers of the source."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.value


def test_messages_and_log_lines() -> None:
    found = []
    for module in MODULES:
        tree = ast.parse(module.read_text(encoding="utf-8"))
        left_out = {id(one) for one in docstrings(tree)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in left_out:
                found += [f"{module.relative_to(ROOT)}:{node.lineno}: {one}" for one in said(node.value)]
    assert found == []


def test_one_that_is_forbidden_is_found() -> None:
    assert len([*said("Mend it: the sink lacks 12 lines, 5 a second, behind a proxy and behind the cursor.")]) == 5


def test_the_glossary_has_each_word_once() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8").partition("## Words\n")[2]
    rows = re.findall(r"^\| ([^|]+) \| ", text, re.MULTILINE)
    words = [word.strip() for row in rows[1:] for word in re.split("[,;]", row)]
    assert len(words) > 30
    assert sorted(words) == sorted(set(words))
    wanted = "message event metric progress resource span trace job run client seq ack stream mark journal segment group block position " \
        "cursor follower route batch delivery backend spill backpressure drain receipt frame schedule alarm alert channel forward"  # fmt: skip
    assert set(wanted.split()) <= set(words), set(wanted.split()) - set(words)
