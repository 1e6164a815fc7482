"""Backends are found by a Python of its own, whoever wrote them and wherever they are installed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "writing-a-backend.md"


def examples() -> dict[str, str]:
    """The guide's files: a fenced block after a line that names the file in backquotes, by that name."""
    found = re.findall(r"^`([\w./-]+)`:\n\n```\w+\n(.*?)^```$", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    return dict(found)


def find_plugins(*directories: Path) -> dict[str, Any]:
    """What a Python of its own finds with `directories` on its path; and what that wrote anywhere."""
    code = """if True:
        import json, sys
        from twisted.logger import globalLogBeginner, textFileLogObserver
        globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
        from wafermon.backends import find_plugins
        plugins = find_plugins()
        print(json.dumps({"factories": sorted(plugins.factories), "broken": dict(plugins.broken)}))
    """
    path = os.pathsep.join(map(str, [ROOT, *directories]))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return {**json.loads(done.stdout), "noise": done.stderr}


def drop(directory: Path, name: str, text: str) -> Path:
    """A module in the plugin package, as a third party's distribution installs it."""
    package = directory / "wafermon" / "backends"
    package.mkdir(parents=True, exist_ok=True)
    (package / f"{name}.py").write_text(text)
    return directory


@pytest.fixture(scope="module")
def distribution(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guide's example, built and installed as a distribution of its own."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("target")
    for name, text in examples().items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text)
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation",
         "--disable-pip-version-check", "--root-user-action=ignore", "--target", str(target), str(source)],
        check=True,
        timeout=300,
    )  # fmt: skip
    return target


def test_an_installed_distribution_is_found(distribution: Path) -> None:
    assert not list(distribution.rglob("__init__.py"))
    found = find_plugins(distribution)
    assert {"filesystem", "sqlite"} <= set(found["factories"])
    assert "sqlite" not in found["broken"]


def test_without_it_it_is_not() -> None:
    found = find_plugins()
    assert "filesystem" in found["factories"] and "sqlite" not in found["factories"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import no_such_module_anywhere", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("def f(:", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit('no')", "SystemExit: no"),
    ],
)
def test_a_broken_module_is_named_and_hinders_no_other(
    tmp_path: Path, distribution: Path, text: str, reason: str
) -> None:
    found = find_plugins(drop(tmp_path, "bad", text), distribution)
    assert {"filesystem", "sqlite"} <= set(found["factories"])
    assert found["broken"]["bad"].startswith(reason)
    assert found["noise"] == ""


def test_a_factory_without_a_name_is_broken(tmp_path: Path) -> None:
    text = examples()["wafermon/backends/sqlite.py"].replace('name = "sqlite"', 'name = ""')
    assert find_plugins(drop(tmp_path, "nameless", text))["broken"] == {"nameless": "its factory has no name"}


def test_a_name_belongs_to_one_plugin(tmp_path: Path) -> None:
    text = examples()["wafermon/backends/sqlite.py"]
    found = find_plugins(drop(drop(tmp_path, "one", text), "two", text))
    assert found["factories"].count("sqlite") == 1
    assert list(found["broken"].values()) == ["another plugin is called 'sqlite' already"]


def test_a_cache_that_cannot_be_written_is_no_news(tmp_path: Path) -> None:
    text = examples()["wafermon/backends/sqlite.py"]
    package = drop(tmp_path, "mine", text) / "wafermon" / "backends"
    (package / "dropin.cache").mkdir()  # not even root writes a file over a directory
    found = find_plugins(tmp_path)
    assert "sqlite" in found["factories"]
    assert found["noise"] == ""


def test_what_was_cached_and_broke_since_is_named(tmp_path: Path) -> None:
    helper = tmp_path / "helper_of_mine.py"
    helper.write_text("")
    drop(tmp_path, "mine", "import helper_of_mine\n" + examples()["wafermon/backends/sqlite.py"])
    assert "sqlite" in find_plugins(tmp_path)["factories"]
    helper.unlink()
    found = find_plugins(tmp_path)
    assert "sqlite" not in found["factories"]
    assert found["broken"] == {"mine": "ModuleNotFoundError: No module named 'helper_of_mine'"}
