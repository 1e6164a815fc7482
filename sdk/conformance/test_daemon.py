"""The same against the real daemon: what is stored is what was called, each message once, whoever is killed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import daemon as real
from conformance import Driver, Language, assert_law, load_cases, numbers, spill_files
from daemon import Daemon
from test_cases import carry_out, check_messages

Drivers = Callable[..., Driver]


@pytest.fixture(scope="session", autouse=True)
def installed() -> None:
    reason = real.missing()
    if reason is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def bench(language: Language, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Driver, Daemon]]:
    """One daemon and one driver process for all cases of a language."""
    folder = tmp_path_factory.mktemp(f"daemon-{language.name}")
    driver = Driver(language, folder)
    daemon = Daemon(folder, driver.spill).start()
    yield driver, daemon
    driver.done()
    daemon.stop()


@pytest.fixture
def daemon(driver: Driver, tmp_path: Path) -> Iterator[Daemon]:
    running = Daemon(tmp_path, driver.spill).start()
    yield running
    running.stop()


@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in load_cases()])
def test_case_is_stored(case: dict[str, Any], bench: tuple[Driver, Daemon]) -> None:
    driver, daemon = bench
    if reason := case.get("not", {}).get(driver.language.name):
        pytest.skip(f"does not apply: {driver.language.name} {reason}")
    offset = daemon.store.stat().st_size if daemon.store.exists() else 0
    done = carry_out(case, driver, daemon.url)
    expect = case.get("expect", [])
    count = case.get("expect_burst", len(expect))
    daemon.wait(lambda: len(daemon.messages(offset)) >= count, 10)
    messages = daemon.messages(offset)
    # What the sidecar splices in where an SDK has left it out.
    expected = [{"trace_id": item["job_id"], **item} if item["type"] == "progress" else item for item in expect]
    check_messages({**case, "expect": expected}, done, messages)
    assert driver("close") is None


@pytest.mark.parametrize("buffer", [50, 1_000])
def test_kill_of_the_daemon(driver: Driver, daemon: Daemon, buffer: int) -> None:
    """SIGKILL in the middle of the stream, again and again: in the end each message is stored exactly once."""
    rounds, each = 3, 1_000
    driver("open", service="conformance", url=daemon.url, buffer=buffer)
    driver("burst", n=1)
    assert driver("flush", timeout=10)
    for number in range(rounds):
        driver.post("burst", n=each, first=1 + number * each)
        seen = len(daemon.messages())
        daemon.wait(lambda before=seen: len(daemon.messages()) > before, 0.5)
        daemon.kill()
        driver.answer("burst")
        daemon.start()
        driver.until(lambda stats: stats["state"] == "connected", 10)
    assert driver("flush", timeout=60), driver.stats()
    stats = driver.stats()
    assert_law(stats)
    total = rounds * each + 1
    assert stats["acked"] == total and stats["dropped"] == 0
    daemon.wait(lambda: len(daemon.messages()) >= total, 20)
    assert sorted(numbers(daemon.messages())) == list(range(total))


def test_orphan_is_taken_up(driver: Driver, tmp_path: Path) -> None:
    """What a program left that never saw its sidecar: the daemon stores it once, and removes the file."""
    daemon = Daemon(tmp_path, driver.spill)
    driver("open", service="conformance", url=daemon.url, buffer=20)
    driver("burst", n=500)
    driver("close")
    assert driver.exit() == 0
    left = spill_files(driver.spill)
    assert left
    for path in left:  # a file is an orphan 10 s after its last write
        os.utime(path, (time.time() - 60, time.time() - 60))
    daemon.start()
    try:
        assert daemon.wait(lambda: not list(driver.spill.iterdir()), 60), daemon.log()
        daemon.wait(lambda: len(daemon.messages()) >= 500, 10)
        assert sorted(numbers(daemon.messages())) == list(range(500))
    finally:
        daemon.stop()


def test_file_of_a_live_owner_is_left(driver: Driver, daemon: Daemon) -> None:
    """While its owner lives, the daemon leaves a spill file alone, however old it looks."""
    driver("open", service="conformance", url="tcp://127.0.0.1:1", buffer=5)
    driver("burst", n=50)
    driver.until(lambda stats: stats["spilled"] >= 45)
    owned = spill_files(driver.spill)
    assert owned
    orphan = driver.spill / "conformance.999999999.00000000000000aa.ldjson"
    line = (
        '{"type":"event","ts":1700000000000000,"service":"conformance","host":"h","pid":999999999,'
        '"level":"info","message":"orphan","client":"00000000000000aa","seq":1}\n'
    )
    orphan.write_text(line)
    for path in (*owned, orphan):
        os.utime(path, (time.time() - 60, time.time() - 60))
    assert daemon.wait(lambda: not orphan.exists(), 60), daemon.log()
    assert spill_files(driver.spill) == owned
    daemon.wait(daemon.messages, 10)
    assert [message["message"] for message in daemon.messages()] == ["orphan"]
