"""The rooms of the house import only what stands before them; see docs/architecture.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon import ROOT

HOUSE = ROOT / "wafermon"
ROOMS = [
    "errors", "changes", "messages", "blocks", "interfaces", "routing", "config", "journal", "receiver", "correlation", "delivery",
    "backends", "hooks", "http", "reload", "notify", "garbage", "service", "tap", "cli", "commands",
]  # fmt: skip
"""From the ground up. `tap` and `cli` are the two doors; `commands` is what is behind the second."""
TOP = {"tap", "cli", "commands", "__main__"}
APART = {"contract": {"errors", "changes", "messages", "blocks", "interfaces"}, "monitoring_sdk": set[str]()}
"""Not in the house: the test tool that third parties import, and the SDK, which is handed out on its own."""
MAY_TAKE_THE_REACTOR = {"tap", "service", "cli"}
MODULES = sorted(path for path in HOUSE.rglob("*.py") if path.parent != HOUSE or path.stem != "__init__")


def room_of(name: str) -> str:
    """``wafermon.journal.disk`` -> ``journal``; the package itself, which holds the version, is none."""
    return name.partition(".")[2].partition(".")[0]


def imported(tree: ast.AST, package: str) -> Iterator[str]:
    """The full names of all modules that are imported anywhere, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "import_module":
            first = node.args[0]
            yield from (part.value for part in ast.walk(first) if isinstance(part, ast.Constant) and part.value != "")


def package_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).parent.parts)


def allowed(room: str) -> set[str]:
    if room in APART:
        return APART[room]
    if room in TOP:
        return {*ROOMS, *APART} - {"tap"} - ({"cli"} if room == "commands" else set())
    return {*ROOMS[: ROOMS.index(room)], room}


def faults(source: str, package: str, room: str) -> list[str]:
    """What a module imports and may not."""
    names = [name for name in imported(ast.parse(source), package) if name.partition(".")[0] == "wafermon"]
    known = {*ROOMS, *APART}
    return [name for name in names if room_of(name) in known and room_of(name) not in allowed(room)]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_imports_point_to_earlier_rooms(path: Path) -> None:
    room = path.relative_to(HOUSE).parts[0].removesuffix(".py")
    assert room in {*ROOMS, *APART, *TOP}, f"{room} is a room that docs/architecture.md does not know"
    assert faults(path.read_text(), package_of(path), room) == []


@pytest.mark.parametrize("source", [
    "from wafermon.delivery import Delivery",
    "import wafermon.service",
    "from wafermon import service",
    "from ..http import page",
    "def f():\n    from wafermon.receiver.hello import read_hello",
    "import_module('wafermon.tap')",
])  # fmt: skip
def test_an_import_that_points_up_is_found(source: str) -> None:
    assert len(faults(source, "wafermon.journal", "journal")) == 1


def global_reactors(source: str) -> list[int]:
    """The lines at which a module takes the global reactor as soon as it is imported."""
    return [
        node.lineno
        for node in outside_functions(ast.parse(source))
        if (isinstance(node, ast.ImportFrom) and any(alias.name == "reactor" for alias in node.names))
        or (isinstance(node, ast.Import) and any(alias.name.endswith(".reactor") for alias in node.names))
    ]


def outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield child
            yield from outside_functions(child)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_the_global_reactor_is_taken_by_the_doors_alone(path: Path) -> None:
    room = path.relative_to(HOUSE).parts[0].removesuffix(".py")
    if room not in MAY_TAKE_THE_REACTOR:
        assert global_reactors(path.read_text()) == []


def test_a_global_reactor_is_found() -> None:
    assert global_reactors("if True:\n    from twisted.internet import reactor") == [2]
    assert global_reactors("import twisted.internet.reactor") == [1]
    assert global_reactors("def f():\n    from twisted.internet import reactor") == []


def test_the_drawing_is_the_folder_list() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    drawn = re.findall(r"^  ([a-z_]+)(?:\.py|/) ", page, re.MULTILINE)
    assert drawn == [*ROOMS, "contract"]
    for name in drawn:
        assert (HOUSE / name).is_dir() or (HOUSE / f"{name}.py").is_file()
