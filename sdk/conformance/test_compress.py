"""Frames: several lines compressed together, toward a sidecar that grants it and from a program that asks for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from conformance import Driver, Language, assert_law, numbers
from fake_sidecar import Connection, FakeSidecar, Manners

pytestmark = pytest.mark.needs("compress")

Sidecars = Callable[..., FakeSidecar]
Drivers = Callable[..., Driver]
GRANTED = Manners(compress=True)


@pytest.fixture
def driver(drivers: Drivers, language: Language) -> Driver:
    return drivers(language, WAFERMON_COMPRESS="zlib")


def open_sdk(driver: Driver, sidecar: FakeSidecar, **options: Any) -> None:
    driver("open", service="conformance", url=sidecar.url, **options)


def wait_and_start(driver: Driver, sidecar: FakeSidecar, count: int) -> None:
    """So many messages wait before there is a sidecar, so that they are framed for certain."""
    sidecar.stop()
    open_sdk(driver, sidecar)
    driver("burst", n=count)
    driver.until(lambda stats: stats["waiting"] == count)
    sidecar.start()


def framed(connection: Connection) -> int:
    """How many lines came in frames."""
    return sum(frame.lines for frame in connection.frames)


def test_frames(driver: Driver, sidecars: Sidecars) -> None:
    """What waits goes in frames, which the fake sidecar measures, and arrives once each, in order."""
    sidecar = sidecars(GRANTED)
    wait_and_start(driver, sidecar, 800)
    assert driver("flush", timeout=10)
    (connection,) = sidecar.connections
    assert "zlib" in connection.hello["compress"]
    assert framed(connection) + connection.plain == 800 and framed(connection) >= 790
    raw, compressed = (sum(getattr(frame, name) for frame in connection.frames) for name in ("raw", "compressed"))
    assert compressed < raw / 3
    assert numbers(sidecar.messages) == list(range(800))
    stats = driver.stats()
    assert (stats["sent"], stats["acked"], stats["resent"]) == (800, 800, 0)
    assert_law(stats)


def test_burst(driver: Driver, sidecars: Sidecars) -> None:
    """A tight loop: frames and lines between each other are one stream."""
    sidecar = sidecars(GRANTED)
    open_sdk(driver, sidecar)
    driver("burst", n=5_000)
    assert driver("flush", timeout=20)
    assert sorted(numbers(sidecar.messages)) == list(range(5_000))
    assert_law(driver.stats())


def test_little_goes_plainly(driver: Driver, sidecars: Sidecars) -> None:
    """Below 1 KiB a frame would gain nothing."""
    sidecar = sidecars(GRANTED)
    open_sdk(driver, sidecar)
    for i in range(3):
        driver("burst", n=1, first=i)
        assert driver("flush", timeout=5)
    (connection,) = sidecar.connections
    assert connection.plain == 3 and connection.frames == []


def test_large_messages(driver: Driver, sidecars: Sidecars) -> None:
    """At most 256 KiB at a time, which is four of the longest lines."""
    sidecar = sidecars(GRANTED)
    sidecar.stop()
    open_sdk(driver, sidecar)
    driver("burst", n=20, size=60_000)
    sidecar.start()
    assert driver("flush", timeout=10)
    assert sidecar.connections[0].frames
    assert numbers(sidecar.messages) == list(range(20))


@pytest.mark.parametrize("value", [None, "", "no-such-codec"])
def test_off(drivers: Drivers, language: Language, sidecars: Sidecars, value: str | None) -> None:
    """Who does not ask for it, or for what nobody has, sends lines."""
    driver = drivers(language, **({} if value is None else {"WAFERMON_COMPRESS": value}))
    sidecar = sidecars(GRANTED)
    wait_and_start(driver, sidecar, 100)
    assert driver("flush", timeout=10)
    (connection,) = sidecar.connections
    assert "compress" not in connection.hello
    assert connection.plain == 100 and connection.frames == []


def test_not_granted(driver: Driver, sidecar: FakeSidecar) -> None:
    """A sidecar of today ignores the question and gets lines."""
    wait_and_start(driver, sidecar, 100)
    assert driver("flush", timeout=10)
    (connection,) = sidecar.connections
    assert connection.plain == 100 and connection.frames == []


def test_bad_frame(driver: Driver, sidecars: Sidecars) -> None:
    """Refused once, the SDK sends the same lines plainly, for good, and says so once."""
    sidecar = sidecars(Manners(compress=True, bad_frame=True), GRANTED)
    wait_and_start(driver, sidecar, 300)
    assert driver("flush", timeout=15)
    assert numbers(sidecar.messages) == list(range(300))
    second = sidecar.connections[1]
    assert "compress" not in second.hello and second.frames == []
    second.end()
    driver("burst", n=200, first=300)
    assert driver("flush", timeout=15)
    assert sidecar.connections[2].frames == []
    assert numbers(sidecar.messages) == list(range(500))
    warnings = driver.warnings()
    assert len(warnings) == 1 and "bad_frame" in warnings[0], warnings
    stats = driver.stats()
    assert stats["acked"] == 500 and stats["rejected"] == 0
    assert_law(stats)


def test_cut_within_a_frame(driver: Driver, sidecars: Sidecars) -> None:
    """Half a frame is nothing: after the reconnect all of it comes again, compressed again."""
    sidecar = sidecars(*(Manners(compress=True, ack=False, close_after=size) for size in (20, 150, 400)), GRANTED)
    wait_and_start(driver, sidecar, 800)
    assert driver("flush", timeout=15)
    assert len(sidecar.connections) == 4 and sidecar.connections[3].frames
    assert numbers(sidecar.messages) == list(range(800))
    stats = driver.stats()
    assert (stats["acked"], stats["sent"], stats["reconnects"]) == (800, 800, 3)


def test_spill_files(driver: Driver, sidecars: Sidecars) -> None:
    """They travel compressed too, each on its own connection."""
    sidecar = sidecars(GRANTED)
    sidecar.stop()
    open_sdk(driver, sidecar, buffer=50)
    driver("burst", n=1_000)
    driver.until(lambda stats: stats["spilled"] >= 950)
    sidecar.start()
    assert driver("flush", timeout=20)
    assert sorted(numbers(sidecar.messages)) == list(range(1_000))
    assert len(sidecar.connections) >= 2
    assert all(connection.frames for connection in sidecar.connections)


@pytest.mark.needs("compress", "stats")
def test_stats_lines(driver: Driver, sidecars: Sidecars) -> None:
    """A stats line is a line like any other, inside a frame or outside."""
    sidecar = sidecars(Manners(compress=True, features=("stats",)))
    wait_and_start(driver, sidecar, 100)
    driver.until(lambda stats: stats["state"] == "connected")
    driver("close")
    assert numbers(sidecar.messages) == list(range(100))
    assert sidecar.messages[-1]["type"] == "stats"
