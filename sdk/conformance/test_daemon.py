"""The same against the real daemon: what is stored is what was called, each message once, whichever is killed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import daemon as real
from conformance import (
    LANGUAGES,
    Driver,
    Language,
    assert_law,
    load_cases,
    not_for,
    numbers,
    spill_files,
    without_stats,
)
from daemon import Daemon
from fake_sidecar import Message
from test_cases import Done, carry_out, check_messages

Drivers = Callable[..., Driver]
WITHOUT_LOCK = [name for name, language in LANGUAGES.items() if "lock" not in language.can]


@pytest.fixture(scope="session", autouse=True)
def installed() -> None:
    reason = real.missing()
    if reason is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


class Stored:
    """All cases of a language carried out by one driver process, and what the daemon has stored of them."""

    def __init__(self, language: Language, folder: Path) -> None:
        driver = Driver(language, folder)
        daemon = Daemon(folder, driver.spill).start()
        self.done: dict[str, Done | Exception] = {}
        count = 0
        for case in load_cases():
            if not_for(language, case):
                continue
            try:
                self.done[case["name"]] = carry_out(case, driver, daemon.url)
                driver("close")
            except Exception as error:
                self.done[case["name"]] = error
            count += case.get("expect_burst", len(case.get("expect", [])))
        daemon.wait(lambda: daemon.store.exists() and daemon.store.read_bytes().count(b"\n") >= count, 10)
        self._messages = daemon.messages()
        driver.done()
        daemon.stop()

    def messages(self, done: Done) -> list[Message]:
        """What is stored of a case: cases follow each other, so their times tell them apart."""
        messages = without_stats(self._messages)
        return [message for message in messages if done.began <= message["ts"] <= done.ended]


@pytest.fixture(scope="session")
def stored(language: Language, tmp_path_factory: pytest.TempPathFactory) -> Stored:
    return Stored(language, tmp_path_factory.mktemp(f"daemon-{language.name}"))


@pytest.fixture
def daemon(driver: Driver, tmp_path: Path) -> Iterator[Daemon]:
    running = Daemon(tmp_path, driver.spill).start()
    yield running
    running.stop()


@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in load_cases()])
def test_case_is_stored(case: dict[str, Any], language: Language, stored: Stored) -> None:
    done = stored.done[case["name"]]
    if isinstance(done, Exception):
        raise done
    # What the sidecar splices in where an SDK has left it out.
    expected = [
        {"trace_id": item["job_id"], **item} if item["type"] == "progress" else item for item in case.get("expect", [])
    ]
    check_messages({**case, "expect": expected}, done, stored.messages(done))


def test_kill_of_the_daemon(driver: Driver, daemon: Daemon) -> None:
    """SIGKILL in the middle of the stream, again and again: in the end each message is stored exactly once."""
    rounds, each = 3, 1_000
    driver("open", service="conformance", url=daemon.url, buffer=100)
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
    for path in left:  # without a lock a file is left over 30 s after its last write
        os.utime(path, (time.time() - 60, time.time() - 60))
    daemon.start()
    try:
        assert daemon.wait(lambda: not list(driver.spill.iterdir()), 60), daemon.log()
        daemon.wait(lambda: len(daemon.messages()) >= 500, 10)
        assert sorted(numbers(daemon.messages())) == list(range(500))
    finally:
        daemon.stop()


@pytest.mark.needs("lock")
def test_file_of_a_live_owner_is_left(driver: Driver, tmp_path: Path) -> None:
    """While its owner holds the lock, the daemon leaves a spill file alone, however old it looks."""
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
    daemon = Daemon(tmp_path, driver.spill).start()
    try:
        assert daemon.wait(lambda: not orphan.exists(), 60), daemon.log()
        daemon.wait(daemon.messages, 10)
        assert [message["message"] for message in daemon.messages()] == ["orphan"]
        assert spill_files(driver.spill) == owned
    finally:
        daemon.stop()


@pytest.mark.languages(*WITHOUT_LOCK)
def test_file_of_a_live_owner_without_a_lock_arrives_once(driver: Driver, tmp_path: Path) -> None:
    """A file without a lock is taken up once it was untouched for a while. What its owner sends then counts once."""
    daemon = Daemon(tmp_path, driver.spill)
    driver("open", service="conformance", url=daemon.url, buffer=5)
    driver("burst", n=50)
    driver.until(lambda stats: stats["spilled"] >= 45)
    owned = spill_files(driver.spill)
    for path in owned:
        os.utime(path, (time.time() - 60, time.time() - 60))
    daemon.start()
    try:
        driver("burst", n=50, first=50)
        driver("flush", timeout=20)
        driver("close")
        assert daemon.wait(lambda: not list(driver.spill.iterdir()), 60), daemon.log()
        daemon.wait(lambda: len(numbers(daemon.messages())) >= 100, 20)
        assert sorted(numbers(daemon.messages())) == list(range(100))
    finally:
        daemon.stop()


@pytest.mark.languages(*WITHOUT_LOCK)
def test_owner_without_a_lock_writes_on(driver: Driver, tmp_path: Path) -> None:
    """The daemon has taken the file between two writes: what comes next lies in a new one, in the same stream."""
    driver("open", service="conformance", url="tcp://127.0.0.1:1", buffer=5)
    driver("burst", n=50)
    driver.until(lambda stats: stats["spilled"] >= 45)
    (owned,) = spill_files(driver.spill)
    os.utime(owned, (time.time() - 60, time.time() - 60))
    daemon = Daemon(tmp_path, driver.spill).start()
    try:
        assert daemon.wait(lambda: not list(driver.spill.iterdir()), 60), daemon.log()
        driver("burst", n=50, first=50)
        driver("close")
        stats = driver.stats()
        assert (stats["called"], stats["handed_over"]) == (100, 100)
        assert_law(stats)
        for path in spill_files(driver.spill):
            os.utime(path, (time.time() - 60, time.time() - 60))
        assert daemon.wait(lambda: len(numbers(daemon.messages())) >= 100, 60), daemon.log()
        assert sorted(numbers(daemon.messages())) == list(range(100))
    finally:
        daemon.stop()
