"""Each package imports what its row of docs/architecture.md names, and nothing else of wafermon."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest
from daemon import ROOT

SOURCE = ROOT / "wafermon"
EVERYWHERE = {"model", "files", "interfaces"}
"""What all packages may import."""
EDGES: dict[str, set[str]] = {
    "model": set(),
    "files": set(),
    "interfaces": set(),
    "wire": set(),
    "net": set(),
    "routing": set(),
    "config": {"routing"},
    "journal": set(),
    "receivers": {"wire", "net", "journal"},
    "correlation": {"journal"},
    "delivery": {"journal", "routing"},
    "query": {"correlation"},
    "backends": {"wire", "net", "query"},
    "alerts": {"journal", "net"},
    "web": {"query", "delivery", "alerts", "receivers", "journal", "net"},
    "daemon": {
        "wire", "net", "routing", "config", "journal", "receivers", "correlation", "delivery", "query", "backends",
        "alerts", "web",
    },
    "cli": {"wire", "query", "config", "backends", "alerts", "journal", "monitoring_sdk"},
    "tap": {"daemon", "config", "backends", "alerts"},
    "errors": set(),
    "contract": set(),
    "monitoring_sdk": set(),
    "__main__": {"cli"},
}  # fmt: skip
"""Package or module at the top -> what it may import besides EVERYWHERE and itself."""
BARE = {"model": set[str](), "files": {"model"}, "interfaces": {"model"}, "monitoring_sdk": set[str]()}
"""Those that may not even import all of EVERYWHERE, and what they may."""
MAY_TAKE_THE_REACTOR = {"tap", "daemon", "cli"}
MODULES = sorted(path for path in SOURCE.rglob("*.py") if path.parent != SOURCE or path.stem != "__init__")


def package_of(name: str) -> str:
    """``wafermon.journal.segments`` -> ``journal``; the root itself, which holds the version, is none."""
    return name.partition(".")[2].partition(".")[0]


def imported(tree: ast.AST, within: str) -> Iterator[str]:
    """The full names of all modules that are imported anywhere, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(within.split(".")[: len(within.split(".")) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "import_module":
            first = node.args[0]
            yield from (
                part.value
                for part in ast.walk(first)
                if isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value
            )


def allowed(package: str) -> set[str]:
    return {package, *EDGES[package], *BARE.get(package, EVERYWHERE)}


def faults(names: Iterable[str], package: str) -> list[str]:
    """What of these a module of the package may not import."""
    return [
        name
        for name in names
        if name.startswith("wafermon.") and package_of(name) in EDGES and package_of(name) not in allowed(package)
    ]


def place(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_package_imports_what_its_row_names(path: Path) -> None:
    assert place(path) in EDGES, f"{place(path)} is a package that docs/architecture.md does not know"
    assert faults(imports_of(path), place(path)) == []


@pytest.mark.parametrize("source", [
    "from wafermon.delivery import Delivery",
    "import wafermon.daemon.sidecar",
    "from wafermon import daemon",
    "from ..web import page",
    "def f():\n    from wafermon.receivers.lines import hub",
    "import_module('wafermon.tap')",
])  # fmt: skip
def test_an_import_along_no_edge_is_found(source: str) -> None:
    assert len(faults(imported(ast.parse(source), "wafermon.journal"), "journal")) == 1


def test_the_edges_have_no_circle() -> None:
    pending = {package: (EDGES[package] | BARE.get(package, EVERYWHERE)) - {package} for package in EDGES}
    while free := [package for package, needs in pending.items() if not needs & pending.keys()]:
        for package in free:
            del pending[package]
    assert not pending


def test_modules_within_a_package_import_each_other_one_way() -> None:
    """No two modules need each other, type annotations included."""
    names = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in MODULES if path.stem != "__init__"
    }
    needs = {name: needed(path) & names.keys() for name, path in names.items()}
    both = [
        (name, other) for name, others in needs.items() for other in others if name < other and name in needs[other]
    ]
    assert not both, "these import each other"


def needed(path: Path) -> set[str]:
    """Modules whose names, or names within them, are imported."""
    return {prefix for name in imports_of(path) for prefix in (name, name.rpartition(".")[0])}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports_of(path: Path) -> frozenset[str]:
    return frozenset(imported(tree_of(path), ".".join(path.relative_to(ROOT).parent.parts)))


def global_reactors(tree: ast.Module) -> list[int]:
    """The lines at which a module takes the global reactor as soon as it is imported."""
    return [
        node.lineno
        for node in outside_functions(tree)
        if (isinstance(node, ast.ImportFrom) and any(alias.name == "reactor" for alias in node.names))
        or (isinstance(node, ast.Import) and any(alias.name.endswith(".reactor") for alias in node.names))
    ]


def outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield child
            yield from outside_functions(child)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_the_global_reactor_is_taken_at_the_top_alone(path: Path) -> None:
    if place(path) not in MAY_TAKE_THE_REACTOR and "reactor" in path.read_text():
        assert global_reactors(tree_of(path)) == []


def test_a_global_reactor_is_found() -> None:
    assert global_reactors(ast.parse("if True:\n    from twisted.internet import reactor")) == [2]
    assert global_reactors(ast.parse("import twisted.internet.reactor")) == [1]
    assert global_reactors(ast.parse("def f():\n    from twisted.internet import reactor")) == []


def test_the_drawing_is_the_folder_list() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    rows = dict(re.findall(r"^\| `([a-z_]+)(?:/|\.py)?` \|.*\| ([^|]*) \|$", page, re.MULTILINE))
    drawn = {name: set(re.findall(r"`([a-z_]+)`", may)) for name, may in rows.items()}
    assert drawn == {name: edges for name, edges in EDGES.items() if name not in ("errors", "__main__")}
    for name in drawn:
        assert (SOURCE / name).is_dir() or (SOURCE / f"{name}.py").is_file()
