"""What `pip install` makes of the tree: the command, the twistd plugin, the data, and nothing of Twisted's own."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from daemon import ROOT

from wafermon import __version__

PARTS = ("setup.py", "pyproject.toml", "README.md", "wafermon", "twisted", "sdk/python/monitoring_sdk")
PIP = ("install", "--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check")


def run(*command: object, cwd: Path, **variables: str) -> str:
    # Without PYTHONPATH, which would show the tree itself.
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", **variables},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is packaged, which a build may litter."""
    copy = tmp_path_factory.mktemp("tree")
    for part in PARTS:
        (copy / part).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, copy / part, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, copy / part)
    (copy / "twisted/plugins/dropin.cache").write_bytes(b"what twistd leaves in a tree that it ran in")
    return copy


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("wheel")
    options = [option for option in PIP if option != "install"]
    run(sys.executable, "-m", "pip", "wheel", *options, "-w", target, tree, cwd=target)
    (made,) = target.iterdir()
    return made


def environment(directory: Path) -> Path:
    """A virtual environment that sees what is installed here, though not how wafermon itself may be; its Python."""
    run(sys.executable, "-m", "venv", "--without-pip", directory, cwd=directory.parent)
    (packages,) = directory.glob("lib/python*/site-packages")
    (packages / "here.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return directory / "bin/python"


def test_a_wheel_holds_the_package_and_nothing_of_twisted(wheel: Path) -> None:
    assert f"-{__version__}-" in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        sdk = {name: archive.read(name) for name in names if name.startswith("wafermon/monitoring_sdk/")}
    assert {"wafermon/py.typed", "wafermon/config/default.yaml", "wafermon/cli/__init__.py"} <= names
    assert {name for name in names if name.startswith("twisted/")} == {"twisted/plugins/wafermon_plugin.py"}
    assert not [name for name in names if name.endswith((".cache", ".pyc"))]
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"wafermon", "twisted"}
    there = [path for path in (ROOT / "sdk/python/monitoring_sdk").iterdir() if path.is_file()]
    assert sdk == {f"wafermon/monitoring_sdk/{path.name}": path.read_bytes() for path in there}


def test_a_wheel_holds_all_of_the_live_page(wheel: Path) -> None:
    there = {str(path.relative_to(ROOT)) for path in (ROOT / "wafermon/web/page").iterdir()}
    with zipfile.ZipFile(wheel) as archive:
        assert there and there <= set(archive.namelist())


def compiled(wheel: Path) -> set[str]:
    """What is in C, without the endings."""
    with zipfile.ZipFile(wheel) as archive:
        return {name.partition(".")[0] for name in archive.namelist() if name.endswith(".so")}


def test_without_a_compiler_what_is_in_c_is_left_out(wheel: Path, tree: Path, tmp_path: Path) -> None:
    assert compiled(wheel) == {"wafermon/backends/timescaledb/_rows", "wafermon/wire/_scan", "wafermon/wire/_sums"}
    bare, target = tmp_path / "tree", tmp_path / "wheel"
    shutil.copytree(tree, bare, symlinks=True, ignore=shutil.ignore_patterns("build", "*.so", "*.egg-info"))
    options = [option for option in PIP if option != "install"]
    run(sys.executable, "-m", "pip", "wheel", *options, "-w", target, bare, cwd=tmp_path, CC="false")
    (made,) = target.iterdir()
    assert compiled(made) == set()


def test_every_module_is_in_the_wheel(wheel: Path) -> None:
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "wafermon").rglob("*.py")}
    with zipfile.ZipFile(wheel) as archive:
        assert modules <= set(archive.namelist())


@pytest.mark.parametrize("how", ["wheel", "editable"])
def test_an_installed_wafermon_is_found_by_twistd_and_by_the_shell(
    how: str, wheel: Path, tree: Path, tmp_path: Path
) -> None:
    python = environment(tmp_path / "env")
    what = ["-e", tree] if how == "editable" else [wheel]
    run(sys.executable, "-m", "pip", "--python", python, *PIP, *what, cwd=tmp_path)
    home = tree if how == "editable" else tmp_path / "env"
    found = run(python, "-c", "import wafermon.monitoring_sdk as sdk; print(sdk.__file__)", cwd=tmp_path)
    assert Path(found.strip()).is_relative_to(home)
    twistd = run(python, "-c", "from twisted.scripts.twistd import run; run()", "--help", cwd=tmp_path)
    assert re.search(r"^ +wafermon +a monitoring sidecar", twistd, re.MULTILINE)
    run(python, "-c", "from twisted.scripts.twistd import run; run()", "wafermon", "--help", cwd=tmp_path)
    command = python.with_name("wafermon")
    assert run(command, "--version", cwd=tmp_path) == f"wafermon, version {__version__}\n"
    (tmp_path / "c.yaml").write_text(
        "listen: [tcp:0]\nbackends: {f: {plugin: filesystem, path: 'l/{service}.jsonl'}}\n"
    )
    assert "good" in run(command, "check", "c.yaml", cwd=tmp_path)


READER = "from wafermon.wire import scanned, sums; print({scanned.compiled() is not None, sums.summer() is not None} == {True})"


@pytest.mark.parametrize("compiler", ["cc", "false"])
def test_the_scanner_is_built_where_there_is_a_compiler(compiler: str, tree: Path, tmp_path: Path) -> None:
    """From the sdist, as pip does where no wheel fits."""
    run(sys.executable, "setup.py", "-q", "sdist", "-d", tmp_path, cwd=tree)
    [sdist] = tmp_path.glob("*.tar.gz")
    python = environment(tmp_path / "env")
    run(sys.executable, "-m", "pip", "--python", python, *PIP, sdist, cwd=tmp_path, CC=compiler)
    built = compiler != "false"
    assert run(python, "-c", READER, cwd=tmp_path) == f"{built}\n"
    assert run(python, "-c", READER, cwd=tmp_path, WAFERMON_PURE="1") == "False\n"
