"""Thin clients: how many lines of code an SDK has, without comments, blank lines and documentation."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from conformance import LANGUAGES, SDK

LEAST, MOST = 200, 600
# What one has to have to send. Apart are optional companions for what is not the language's own: TLS over Perl's
# IO::Socket::SSL or over OpenSSL in C, an adapter to a logging library.
FILES = {
    "python": ("python/monitoring_sdk.py",),
    "perl": ("perl/lib/MonitoringSDK.pm",),
    "c": ("c/monitoring_sdk.h", "c/monitoring_sdk.c"),
    "r": ("r/R/*.R",),
}


def without_comments(path: Path) -> str:
    """The source as its language sees it, more or less: what is left of a line that is only a comment is blank."""
    text = path.read_text()
    if path.suffix == ".py":
        lines = text.splitlines()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                assert node.end_lineno is not None and isinstance(node.value.value, str)
                lines[node.lineno - 1 : node.end_lineno] = [""] * (node.end_lineno - node.lineno + 1)
        text = "\n".join(lines)
    elif path.suffix == ".pm":
        text = re.sub(r"^=\w.*?(^=cut$|\Z)", "", text.partition("\n__END__\n")[0], flags=re.MULTILINE | re.DOTALL)
    elif path.suffix in (".c", ".h"):
        return re.sub(r'("(?:[^"\\\n]|\\.)*")|/\*.*?\*/', r"\1", text, flags=re.DOTALL)
    return re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE)


def lines_of_code(language: str) -> int:
    paths = [path for pattern in FILES[language] for path in SDK.glob(pattern)]
    return sum(1 for path in paths for line in without_comments(path).splitlines() if line.strip())


@pytest.mark.parametrize("name", LANGUAGES)
def test_size(name: str) -> None:
    count = lines_of_code(name)
    print(f"{name}: {count} lines")
    assert LEAST <= count <= (800 if name == "c" else MOST)
