"""Spill files: written in overflow and by close, claimed by one reader, left to their live owner, never torn."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conformance import (
    Driver,
    Language,
    assert_law,
    dropped,
    everything,
    in_child,
    is_locked,
    numbers,
    read_spill,
    request,
    spill_files,
    without_stats,
)
from fake_sidecar import FakeSidecar, Manners

Sidecars = Callable[..., FakeSidecar]
Drivers = Callable[..., Driver]
NOBODY = "tcp://127.0.0.1:1"  # nothing listens there
BIG = 60_000  # bytes of a message, of which 17 fill a spill file


@pytest.fixture
def away(sidecar: FakeSidecar) -> FakeSidecar:
    """A sidecar that is not there yet."""
    sidecar.stop()
    return sidecar


def open_sdk(driver: Driver, url: str, **options: Any) -> None:
    driver("open", service="conformance", url=url, **options)


def test_overflow_and_back(driver: Driver, away: FakeSidecar) -> None:
    open_sdk(driver, away.url, buffer=50)
    result = driver("burst", n=500)
    assert result["elapsed"] < 5
    stats = driver.until(lambda stats: stats["spilled"] >= 450)
    assert stats["state"] == "overflow"
    assert stats["waiting"] == 500 and stats["spilled"] >= 450 and stats["dropped"] == 0
    assert_law(stats)
    files = spill_files(driver.spill)
    assert files and all(path.name.startswith(f"conformance.{driver.pid}.") for path in files)
    spilled = {message["client"] for path in files for message in read_spill(path)}
    assert len(spilled) == len(files), "each file is a stream of its own"
    away.start()
    assert driver("flush", timeout=20)
    stats = driver.stats()
    assert stats["state"] == "connected"
    assert stats["acked"] == 500 and stats["handed_over"] == stats["waiting"] == 0
    assert_law(stats)
    assert list(driver.spill.iterdir()) == []
    assert sorted(numbers(away.messages)) == list(range(500))
    # A stream a connection: the spilled ones came on their own, each in order.
    assert spilled < {connection.client for connection in away.connections}
    for connection in away.connections:
        order = numbers(connection.messages)
        assert order == sorted(order)


def test_absent_for_the_whole_life(driver: Driver) -> None:
    """The program never notices; what it said is on disk, whole and in order."""
    open_sdk(driver, NOBODY)
    result = driver("burst", n=3_000)
    assert result["elapsed"] < 10 and result["max"] < 1_000_000
    began = time.monotonic()
    driver("close")
    assert time.monotonic() - began < 1.5, "close is at once when disconnected"
    stats = driver.stats()
    assert stats["handed_over"] == 3_000 and stats["acked"] == stats["waiting"] == stats["dropped"] == 0
    assert_law(stats)
    assert driver.exit() == 0
    left = without_stats(everything(driver.spill))
    assert sorted(numbers(left)) == list(range(3_000))
    assert len({(message["client"], message["seq"]) for message in left}) == 3_000
    assert not any(is_locked(path) for path in spill_files(driver.spill))
    assert len(driver.warnings()) <= 1


def test_exit_without_close_absent(driver: Driver) -> None:
    """A normal exit closes by itself: nothing of the window is lost."""
    open_sdk(driver, NOBODY)
    driver("burst", n=200)
    began = time.monotonic()
    assert driver.exit() == 0
    assert time.monotonic() - began < 3
    assert numbers(everything(driver.spill)) == list(range(200))


def test_exit_without_close_present(driver: Driver, sidecars: Sidecars) -> None:
    sidecar = sidecars(Manners(ack_after=0.3))
    open_sdk(driver, sidecar.url)
    driver("burst", n=200)
    assert driver.exit() == 0
    assert numbers(sidecar.messages) == list(range(200))
    assert spill_files(driver.spill) == []


def test_end_of_stdin_is_an_exit(driver: Driver, sidecar: FakeSidecar) -> None:
    """The program's normal end after its last statement."""
    open_sdk(driver, sidecar.url)
    driver("burst", n=20)
    assert driver.process.stdin is not None
    driver.process.stdin.close()
    assert driver.process.wait(10) == 0
    assert sidecar.wait(lambda: numbers(sidecar.messages) == list(range(20)), 2)


def test_close_with_a_full_window(driver: Driver, sidecars: Sidecars) -> None:
    """What was sent and not acknowledged goes to a file of the SDK's own client, with its seqs, as the same bytes."""
    sidecar = sidecars(Manners(ack=False))
    open_sdk(driver, sidecar.url)
    driver("burst", n=300)
    driver.until(lambda _: len(sidecar.messages) == 300)
    began = time.monotonic()
    driver("close", timeout=0.5)
    assert 0.3 < time.monotonic() - began < 1.5
    stats = driver.stats()
    assert stats["handed_over"] == 300 and stats["waiting"] == stats["acked"] == 0
    assert_law(stats)
    client = sidecar.connections[0].client
    (path,) = spill_files(driver.spill)
    assert path.name == f"conformance.{driver.pid}.{client}.ldjson"
    assert [message["seq"] for message in read_spill(path)] == list(range(1, 301))
    sent = bytes(sidecar.connections[0].data).split(b"\n", 1)[1]
    assert path.read_bytes() == sent


def test_close_hands_over_the_rest(driver: Driver, sidecars: Sidecars) -> None:
    """Half of the window is acknowledged: the other half is what close leaves."""
    sidecar = sidecars(Manners(), Manners(ack=False))
    open_sdk(driver, sidecar.url)
    driver("burst", n=100)
    assert driver("flush", timeout=5)
    sidecar.connections[0].end()
    driver("burst", n=60, first=100)
    driver.until(lambda _: len(sidecar.messages) == 160)
    driver("close", timeout=0.3)
    stats = driver.stats()
    assert (stats["acked"], stats["handed_over"]) == (100, 60)
    left = everything(driver.spill)
    assert [message["seq"] for message in left] == list(range(101, 161))
    assert numbers(left) == list(range(100, 160))


@pytest.mark.needs("shared_spill")
@pytest.mark.parametrize("umask", [0o077, 0o000])
def test_mode(language: Language, drivers: Drivers, umask: int) -> None:
    """0660 whatever the umask: in a setgid spill dir the group is the sidecar's, which reads and removes the files."""
    before = os.umask(umask)
    try:
        driver = drivers(language)
    finally:
        os.umask(before)
    open_sdk(driver, NOBODY, buffer=10)
    driver("burst", n=100)
    driver.until(lambda stats: stats["spilled"] >= 90)
    overflowed = spill_files(driver.spill)
    assert overflowed
    driver("close")
    assert len(spill_files(driver.spill)) > len(overflowed)
    modes = {path.stat().st_mode & 0o7777 for path in spill_files(driver.spill)}
    assert modes == {0o660}, [oct(mode) for mode in modes]


# -- claims


def test_claimed_file_is_left_alone(driver: Driver, away: FakeSidecar) -> None:
    """A file that somebody else renamed is handed over; the SDK sends the others."""
    open_sdk(driver, away.url, buffer=5)
    driver("burst", n=70, size=BIG)
    stats = driver.until(lambda stats: stats["spilled"] >= 65)
    files = sorted(spill_files(driver.spill), key=lambda path: path.stat().st_mtime_ns)
    assert len(files) >= 3, "a file holds at most 1 MiB"
    taken = files[0].rename(files[0].with_name(files[0].name + ".taken"))
    claimed = numbers(read_spill(taken))
    assert claimed
    away.start()
    assert driver("flush", timeout=20)
    stats = driver.stats()
    assert_law(stats)
    assert stats["handed_over"] == len(claimed) and stats["acked"] == 70 - len(claimed)
    assert sorted(numbers(away.messages) + claimed) == list(range(70))
    assert list(driver.spill.iterdir()) == [taken], "somebody else's claim is not touched"


def test_race_for_claims(driver: Driver, away: FakeSidecar) -> None:
    """Somebody claims files while the SDK sends its own: each message goes one way."""
    open_sdk(driver, away.url, buffer=5)
    count = 220
    driver("burst", n=count, size=BIG)
    driver.until(lambda stats: stats["spilled"] >= count - 5)
    elsewhere = driver.spill.parent / "claimed"
    elsewhere.mkdir()
    stop = threading.Event()

    def claim() -> None:
        while not stop.is_set():
            closed = sorted(spill_files(driver.spill))[:-1]
            if closed:
                try:
                    closed[-1].rename(elsewhere / (closed[-1].name + ".taken"))
                except FileNotFoundError:
                    pass  # lost the race
            time.sleep(0.02)

    claimant = threading.Thread(target=claim)
    away.start()
    claimant.start()
    try:
        assert driver("flush", timeout=30)
    finally:
        stop.set()
        claimant.join()
    stats = driver.stats()
    assert_law(stats)
    claimed = numbers(everything(elsewhere, ".taken"))
    assert stats["handed_over"] == len(claimed)
    assert sorted(numbers(away.messages) + claimed) == list(range(count))


def test_delivery_of_a_file_breaks_off(driver: Driver, away: FakeSidecar) -> None:
    """A reset in the middle of a spill file: it is sent again from its mark, nothing twice."""
    away.behave(Manners(), Manners(reset_after=20, ack=False), Manners(close_after=3_000), Manners())
    open_sdk(driver, away.url, buffer=10)
    driver("burst", n=300)
    driver.until(lambda stats: stats["spilled"] >= 290)
    away.start()
    assert driver("flush", timeout=30)
    stats = driver.stats()
    assert stats["acked"] == 300
    assert_law(stats)
    assert sorted(numbers(away.messages)) == list(range(300))
    assert list(driver.spill.iterdir()) == []


@pytest.mark.needs("lock")
def test_owner_holds_a_lock(driver: Driver) -> None:
    """The lock of a live owner: its death ends it, and SIGKILL tears no line."""
    open_sdk(driver, NOBODY, buffer=10)
    driver("burst", n=100)
    driver.until(lambda stats: stats["spilled"] >= 90)
    files = spill_files(driver.spill)
    assert files and all(is_locked(path) for path in files)
    driver.post("kill_self")
    assert driver.process.wait(10) == -signal.SIGKILL
    assert not any(is_locked(path) for path in files)
    assert numbers(everything(driver.spill))[-1] == 99


@pytest.mark.needs("lock")
def test_child_keeps_no_lock(driver: Driver) -> None:
    """The lock is its owner's alone: a child's end does not free it, and the child's own files are free after it."""
    open_sdk(driver, NOBODY, buffer=10)
    driver("burst", n=100)
    driver.until(lambda stats: stats["spilled"] >= 90)
    assert all(is_locked(path) for path in spill_files(driver.spill))
    opening = {"service": "conformance", "url": NOBODY}
    assert in_child(driver, opening, request("log_event", level="info", message="child"))[0]["ok"] is True
    own = [path for path in spill_files(driver.spill) if f".{driver.pid}." in path.name]
    theirs = [path for path in spill_files(driver.spill) if path not in own]
    assert own and all(is_locked(path) for path in own), "the child's exit freed its parent's lock"
    assert theirs and not any(is_locked(path) for path in theirs)
    driver.post("kill_self")
    assert driver.process.wait(10) == -signal.SIGKILL
    assert not any(is_locked(path) for path in own)


def test_kill_leaves_whole_lines(driver: Driver) -> None:
    """Killed in the middle of a burst into spill files, an SDK leaves whole lines, growing by one. The
    kernel may cut off the last one."""
    open_sdk(driver, NOBODY, buffer=10)
    driver("burst", n=1_000)
    driver.post("burst", n=200_000, first=1_000)
    time.sleep(0.15)
    os.kill(driver.pid, signal.SIGKILL)
    driver.process.wait(10)
    spilled = [numbers(read_spill(path, killed=True)) for path in spill_files(driver.spill)]
    assert spilled
    together = sorted(number for one in spilled for number in one)
    assert together == list(range(together[0], together[0] + len(together))), "gaps"
    assert len(together) >= 900


def test_orphans_of_others_are_not_ours(driver: Driver, sidecar: FakeSidecar) -> None:
    """An SDK sends its own files only: taking up orphans is the sidecar's work."""
    orphan = driver.spill / "conformance.1.00000000000000aa.ldjson"
    orphan.write_text('{"type":"event"}\n')
    open_sdk(driver, sidecar.url)
    driver("burst", n=10)
    assert driver("flush", timeout=5)
    driver("close")
    assert driver.exit() == 0
    assert orphan.read_text() == '{"type":"event"}\n'
    assert len(sidecar.messages) == 10


# -- when there is no room


def test_spill_full(driver: Driver, away: FakeSidecar) -> None:
    """64 MiB in all; then the newest are dropped, counted and reported."""
    open_sdk(driver, away.url, buffer=5)
    count = 1_300
    driver("burst", n=count, size=BIG)
    stats = driver.until(lambda stats: stats["dropped"] > 0)
    time.sleep(0.3)  # a sender thread may still be writing
    stats = driver.stats()
    assert stats["state"] == "overflow"
    assert_law(stats)
    total = sum(path.stat().st_size for path in driver.spill.iterdir())
    assert 60 << 20 < total <= 64 << 20, f"{total} bytes"
    kept = sorted(numbers(everything(driver.spill)))
    assert kept == list(range(kept[0], kept[0] + len(kept))), "the newest are dropped, not the oldest"
    lost = stats["dropped"]
    assert 100 < lost < 250
    for path in spill_files(driver.spill)[6:]:  # the sidecar takes most of it up, to save the test's time
        path.rename(path.with_name(path.name + ".taken"))
    away.start()
    assert driver("flush", timeout=40)
    assert driver.until(lambda _: dropped(away.messages)) and dropped(away.messages) == lost
    assert driver("flush", timeout=5)
    stats = driver.stats()
    assert stats["dropped"] == lost
    assert_law(stats)
    arrived = numbers(away.messages) + numbers(everything(driver.spill, ".taken"))
    assert len(arrived) == len(set(arrived)) == count - lost


@pytest.mark.parametrize("where", ["file", "proc"])
def test_spill_dir_unwritable(driver: Driver, away: FakeSidecar, where: str, tmp_path: Path) -> None:
    """Without a place to spill, the newest are dropped, counted and reported once the sidecar is back."""
    obstacle = tmp_path / "obstacle"
    obstacle.write_text("")
    open_sdk(driver, away.url, buffer=20, spill_dir=str(obstacle / "below") if where == "file" else "/proc/wafermon")
    driver("burst", n=100)
    stats = driver.until(lambda stats: stats["dropped"] >= 60)
    assert stats["state"] == "overflow"
    assert stats["dropped"] == 100 - stats["waiting"] > 0 and stats["spilled"] == 0
    assert_law(stats)
    lost = stats["dropped"]
    away.start()
    assert driver("flush", timeout=15)
    driver.until(lambda _: dropped(away.messages))
    assert driver("flush", timeout=5)
    assert dropped(away.messages) == lost
    (report,) = [message for message in away.messages if message.get("context", {}).get("kind") == "dropped"]
    assert (report["type"], report["level"]) == ("event", "warning")
    assert numbers(away.messages) == list(range(100 - lost))
    assert_law(driver.stats())
    assert len(driver.warnings()) <= 1


def test_close_without_a_place(driver: Driver, tmp_path: Path) -> None:
    """Disconnected, and nowhere to write: close drops and counts, and does not raise."""
    obstacle = tmp_path / "obstacle"
    obstacle.write_text("")
    open_sdk(driver, NOBODY, spill_dir=str(obstacle / "below"))
    driver("burst", n=30)
    driver("close", timeout=0.5)
    stats = driver.stats()
    assert (stats["dropped"], stats["waiting"], stats["handed_over"]) == (30, 0, 0)
    assert_law(stats)


def test_spill_dir_from_arguments(drivers: Drivers, language: Language, tmp_path: Path) -> None:
    """The argument wins over the environment; the names tell service, pid and client."""
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    driver = drivers(language)
    driver("open", service="a.b:c-d", url=NOBODY, spill_dir=str(chosen))
    driver("burst", n=5)
    driver("close")
    assert list(driver.spill.iterdir()) == []
    (path,) = spill_files(chosen)
    assert path.name.startswith(f"a.b:c-d.{driver.pid}.")
    assert numbers(read_spill(path)) == list(range(5))
