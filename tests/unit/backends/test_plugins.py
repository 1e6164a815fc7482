"""Backends are found, whoever wrote them and wherever they are installed; the guide's example is one that works."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from memory_backend import MemoryFactory, MemoryPlace
from twisted.internet import reactor

from wafermon.contract import BackendContract, line
from wafermon.model.messages import loads

ROOT = Path(__file__).parents[3]
GUIDE = ROOT / "docs" / "writing-a-backend.md"


def examples() -> dict[str, str]:
    """The guide's files: a fenced block after a line that names the file in backquotes, by that name."""
    found = re.findall(r"^`([\w./-]+)`:\n\n```\w+\n(.*?)^```$", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    return dict(found)


def example_module() -> ModuleType:
    module = ModuleType("example_backend")
    sys.modules[module.__name__] = module
    exec(compile(examples()["wafermon/backends/sqlite.py"], str(GUIDE), "exec"), module.__dict__)
    return module


class TestMemoryBackend(BackendContract):
    factory = MemoryFactory()

    def setup_method(self) -> None:
        super().setup_method()
        self.place = MemoryPlace(poison=b"cyanide")

    def options(self) -> dict[str, Any]:
        return {"place": self.place}

    def read_back(self) -> Iterable[tuple[str, int]]:
        return [(value["client"], value["seq"]) for value in map(loads, self.place.lines)]

    def unreachable(self) -> AbstractContextManager[None]:
        return self.place.unreachable()

    def poison(self, seq: int) -> bytes:
        return line(seq, message="cyanide")

    @contextmanager
    def lost_reply(self) -> Iterator[None]:
        self.place.lost = True
        yield
        self.place.lost = False

    def snapshot(self) -> Callable[[], object]:
        lines, position = list(self.place.lines), self.place.position

        def restore() -> None:
            self.place.lines, self.place.position = lines, position

        return restore


class TestMemoryBackendOfSeveralBatches(TestMemoryBackend):
    def setup_method(self) -> None:
        super().setup_method()
        self.place.outstanding = 3
        self.place.later = lambda finish: reactor.callLater(0, finish)

    @contextmanager
    def stuck(self) -> Iterator[None]:
        self.place.held = True
        yield
        self.place.release()


class TestMemoryBackendThatNamesMessages(TestMemoryBackend):
    def setup_method(self) -> None:
        super().setup_method()
        self.place = MemoryPlace(unfit=b"cyanide")


class TestExampleOfTheGuide(BackendContract):
    factory = example_module().sqlite

    def options(self) -> dict[str, Any]:
        return {"file": str(self.directory / "messages.db")}

    def read_back(self) -> Iterable[tuple[str, int]]:
        with sqlite3.connect(self.directory / "messages.db") as db:
            return db.execute("SELECT client, seq FROM messages").fetchall()

    @contextmanager
    def unreachable(self) -> Iterator[None]:
        with sqlite3.connect(self.directory / "messages.db") as db:
            db.execute("ALTER TABLE messages RENAME TO hidden")
        yield
        with sqlite3.connect(self.directory / "messages.db") as db:
            db.execute("ALTER TABLE hidden RENAME TO messages")

    @contextmanager
    def lost_reply(self) -> Iterator[None]:
        kind = type(self._built[0][0])
        write = kind._write

        def lost(backend: Any, batch: Any) -> None:
            reached = backend._reached
            write(backend, batch)
            backend._reached = reached
            raise sqlite3.OperationalError("the reply was lost")

        kind._write = lost
        yield
        kind._write = write

    def snapshot(self) -> Callable[[], object]:
        kept = sqlite3.connect(":memory:")
        with sqlite3.connect(self.directory / "messages.db") as db:
            db.backup(kept)

        def restore() -> None:
            with sqlite3.connect(self.directory / "messages.db") as db:
                kept.backup(db)

        return restore


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
