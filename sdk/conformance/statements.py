"""How many statements a program has, and which of its lines hold more than one, in each language of the SDKs.

A statement is an assignment, a call, a declaration, a return, and also an `if`, a loop or a `try`, with what is inside
counted apart. The heads of functions and classes, imports, comments and documentation are none. It makes no difference
how the code is laid out, so nothing is gained by squeezing it.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

# What opens a block, or stands before a statement of its own.
_KEYWORDS = {
    ".c": "if for while do switch",
    ".h": "if for while do switch",
    ".pm": "if elsif unless for foreach while until",
    ".R": "if for while repeat",
    ".java": "if for while do switch try",
    ".go": "if for switch select",
    ".js": "if for while do switch try",
    ".mjs": "if for while do switch try",
    ".cjs": "if for while do switch try",
    ".ts": "if for while do switch try",
}
_HEADS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
_ENDED_BY_LINES = {".R", ".go", ".js", ".mjs", ".cjs", ".ts"}
_HASH_COMMENTS = {".pm", ".R"}
_DOUBLE = r'"(?:[^"\\\n]|\\.)*"'
_SINGLE = r"'(?:[^'\\\n]|\\.)*'"
_BACKTICK = r"`(?:[^`\\]|\\.)*`"
_TOKEN = re.compile(r"[A-Za-z_]\w*|\n|[^\sA-Za-z_]")
# A line that ends so, or whose next one begins so, goes on.
_GOES_ON = re.compile(r"(?:[-+*/%=&|<>,.?:!~^({\[]|\b(?:in|else))$")
_CONTINUES = re.compile(r"[-+*/%=&|<>,.?:)\]]|(?:else|catch|finally)\b")


def _without_words(text: str, suffix: str) -> str:
    """The source without comments and documentation, each string as an empty one; line breaks stay."""
    if suffix == ".pm":
        text = re.sub(r"^=\w.*?(^=cut$|\Z)", _breaks, text.partition("\n__END__\n")[0], flags=re.MULTILINE | re.DOTALL)
        text = re.sub(r"\bq[qwr]?\{[^{}\n]*\}|\$[#&;]", '""', text)
    comment = r"(?<![$\\])#[^\n]*" if suffix in _HASH_COMMENTS else r"//[^\n]*|/\*.*?\*/"
    pattern = re.compile(f"({comment})|({_DOUBLE}|{_SINGLE}|{_BACKTICK})", re.DOTALL)
    text = pattern.sub(lambda found: _breaks(found) if found[1] else '""' + _breaks(found), text)
    text = re.sub(r"^import \([^)]*\)", _breaks, text, flags=re.MULTILINE)
    return re.sub(r"^(?:import|package|use|#\s*include)\b[^\n]*", "", text, flags=re.MULTILINE)


def _breaks(found: re.Match[str]) -> str:
    return "\n" * found[0].count("\n")


def _python(path: Path) -> tuple[list[int], list[int]]:
    """The line on which each statement begins, and those on which heads and imports do."""
    found: tuple[list[int], list[int]] = [], []
    for node in ast.walk(ast.parse(path.read_text())):
        documentation = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node, ast.stmt) and not documentation:
            found[isinstance(node, _HEADS)].append(node.lineno)
    return found


def _other(path: Path) -> tuple[list[int], list[int]]:
    """The lines of statements that end, and those of the keywords that begin one."""
    suffix = path.suffix
    text = _without_words(path.read_text(), suffix)
    lines = text.split("\n")
    keywords = set(_KEYWORDS[suffix].split())
    brackets: list[str] = []
    ends: list[int] = []
    begins: list[int] = []
    number, pending = 1, False  # pending: something stands here that no semicolon has ended yet
    head: int | None = None  # how many brackets are open around the `for …; …; … {` of Go, which has no parentheses
    for token in _TOKEN.findall(text):
        in_block = not brackets or brackets[-1] == "{"
        if token == "\n":
            following = lines[number].strip() if number < len(lines) else ""
            ended = not _GOES_ON.search(lines[number - 1].rstrip()) and not _CONTINUES.match(following)
            if suffix in _ENDED_BY_LINES and in_block and pending and ended:
                ends.append(number)
                pending = False
            number += 1
        elif token == ";":
            if in_block and head is None:
                ends.append(number)
            pending = False
        elif token in "([{":
            if token == "{" and len(brackets) == head:
                head = None
            brackets.append(token)
            pending = token != "{" and pending
        elif token in ")]}":
            literal = bool(brackets) and brackets.pop() == "{" and bool(brackets) and brackets[-1] != "{"
            pending = token != "}" or literal
        elif token in keywords:
            begins.append(number)
            pending = False
            head = len(brackets) if suffix == ".go" else None
        else:
            pending = True
    return ends, begins


def count(path: Path) -> int:
    """How many statements the file has."""
    if path.suffix == ".py":
        return len(_python(path)[0])
    ends, begins = _other(path)
    return len(ends) + len(begins)


def squeezed(path: Path) -> list[int]:
    """The numbers of lines that hold more than one statement."""
    if path.suffix == ".py":
        statements, heads = _python(path)
        lines = Counter(statements + heads)
    else:
        lines = Counter(_other(path)[0])
    return sorted(number for number, statements in lines.items() if statements > 1)
