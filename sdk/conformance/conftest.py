"""Fixtures: a language, a driver process, a sidecar."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from conformance import ABILITIES, LANGUAGES, Driver, Language, available, lacking
from fake_sidecar import FakeSidecar, Manners

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


@pytest.fixture(scope="session")
def language(request: pytest.FixtureRequest) -> Language:
    return available(request.param)


@pytest.fixture(autouse=True)
def able(request: pytest.FixtureRequest) -> None:
    """Skip what the language can't do."""
    marked = request.node.get_closest_marker("needs")
    if marked is None:
        return
    assert set(marked.args) <= set(ABILITIES), marked.args
    if reason := lacking(request.getfixturevalue("language"), marked.args):
        pytest.skip(reason)


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
