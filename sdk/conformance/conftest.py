"""Fixtures: a language, a driver process, a sidecar."""

from __future__ import annotations

import signal
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from conformance import ABILITIES, LANGUAGES, Driver, Language, available, lacking, not_for
from fake_sidecar import FakeSidecar, Manners

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests" / "support"))  # for `ports`

LEFT_OUT = pytest.StashKey["Counter[str]"]()
TEST_TIMEOUT = 120  # seconds, with what its fixtures do


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """A test that hangs fails."""

    def give_up(*_: object) -> None:
        pytest.fail(f"not done within {TEST_TIMEOUT} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(TEST_TIMEOUT)
    try:
        return (yield)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def pytest_configure(config: pytest.Config) -> None:
    for name in LANGUAGES:
        config.addinivalue_line("markers", f"lang_{name}: the tests of the {name} SDK")
    config.addinivalue_line("markers", "xdist_group(name): what pytest-xdist, if it is there, runs in one process")
    config.addinivalue_line("markers", f"needs(*abilities): for languages that can: {', '.join(ABILITIES)}")
    config.addinivalue_line("markers", "languages(*names): for these languages only")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "language" in metafunc.fixturenames:
        only = metafunc.definition.get_closest_marker("languages")
        names = only.args if only is not None else tuple(LANGUAGES)
        marked = [
            pytest.param(name, marks=(getattr(pytest.mark, f"lang_{name}"), pytest.mark.xdist_group(name)))
            for name in names
        ]
        metafunc.parametrize("language", marked, indirect=True, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What a language can't do is not run, and counted: a skip is for what is missing on this machine."""
    apply, left_out = [], []
    for item in items:
        (left_out if why_not(item) else apply).append(item)
    if left_out:
        items[:] = apply
        config.hook.pytest_deselected(items=left_out)
        config.stash[LEFT_OUT] = Counter(filter(None, map(why_not, left_out)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    reasons = config.stash.get(LEFT_OUT, Counter())
    if reasons:
        terminalreporter.section("does not apply")
    for reason, count in sorted(reasons.items()):
        terminalreporter.line(f"{count:4} {reason}")


def why_not(item: pytest.Item) -> str | None:
    """Why a test is none for its language, or None."""
    given = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    language = LANGUAGES.get(given.get("language", ""))
    if language is None:
        return None
    needed = {ability for marker in item.iter_markers("needs") for ability in marker.args}
    assert needed <= set(ABILITIES), needed
    return lacking(language, sorted(needed)) or (not_for(language, given["case"]) if "case" in given else None)


@pytest.fixture(scope="session")
def language(request: pytest.FixtureRequest) -> Language:
    return available(request.param)


@pytest.fixture
def sidecars() -> Iterator[Callable[..., FakeSidecar]]:
    """Starts sidecars; at the end every one must have seen nothing but good protocol."""
    started: list[FakeSidecar] = []

    def start(*script: Manners, **options: Any) -> FakeSidecar:
        started.append(FakeSidecar(script, **options).start())
        return started[-1]

    yield start
    for sidecar in started:
        sidecar.stop()
    problems = [problem for sidecar in started for problem in sidecar.problems]
    assert not problems, "\n".join(problems[:20])


@pytest.fixture
def sidecar(sidecars: Callable[..., FakeSidecar]) -> FakeSidecar:
    return sidecars()


@pytest.fixture
def drivers(tmp_path: Path) -> Iterator[Callable[..., Driver]]:
    """Starts driver processes, which share a spill dir."""
    started: list[Driver] = []

    def start(language: Language, **env: str) -> Driver:
        started.append(Driver(language, tmp_path, **env))
        return started[-1]

    yield start
    for driver in started:
        driver.done()


@pytest.fixture
def driver(drivers: Callable[..., Driver], language: Language) -> Driver:
    return drivers(language)
