"""Hello, acks, refusals, reconnects: what an SDK does when its sidecar is late, rude, or away."""

from __future__ import annotations

import itertools
import socket
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from conformance import LANGUAGES, SDK, Driver, Language, assert_law, numbers, read_spill, spill_files
from fake_sidecar import FakeSidecar, Manners

Sidecars = Callable[..., FakeSidecar]
Drivers = Callable[..., Driver]


def open_sdk(driver: Driver, sidecar: FakeSidecar, **options: Any) -> None:
    driver("open", service="conformance", url=sidecar.url, **options)


def timed(driver: Driver, call: str, **args: Any) -> tuple[Any, float]:
    began = time.monotonic()
    return driver(call, **args), time.monotonic() - began


def assert_each_once(sidecar: FakeSidecar, count: int) -> None:
    """Each message of the bursts is there once, in order."""
    assert numbers(sidecar.messages) == list(range(count))


# -- hello


def test_hello(driver: Driver, sidecar: FakeSidecar) -> None:
    driver("setenv", WAFERMON_TOKEN="from-env")
    for options, token in (({}, "from-env"), ({"token": "secret"}, "secret")):
        open_sdk(driver, sidecar, **options)
        driver("log_event", level="info", message="m")
        assert driver("flush", timeout=5)
        driver("close")
        hello = sidecar.connections[-1].hello
        assert hello["service"] == "conformance"
        assert hello["host"] == socket.gethostname()
        assert hello["pid"] == driver.pid == driver("pid")
        assert hello["sdk"] == f"{driver.language.name}/2.0.0"
        assert hello.get("token") == token
    driver("setenv", WAFERMON_TOKEN=None)
    open_sdk(driver, sidecar)
    driver("log_event", level="info", message="m")
    assert driver("flush", timeout=5)
    assert "token" not in sidecar.connections[-1].hello
    assert len({connection.client for connection in sidecar.connections}) == 3, "a client id came twice"


def test_several_objects(driver: Driver, sidecar: FakeSidecar) -> None:
    """Objects that are open at the same time are streams of their own."""
    for name in ("one", "two", "three"):
        driver("open", service=name, url=sidecar.url)
        driver("log_event", level="info", message=name)
        assert driver("flush", timeout=5)
    assert Counter((message["service"], message["seq"]) for message in sidecar.messages) == {
        ("one", 1): 1,
        ("two", 1): 1,
        ("three", 1): 1,
    }
    assert len(sidecar.open_connections()) == 3


@pytest.mark.needs("unix")
def test_unix_socket(driver: Driver, sidecars: Sidecars, tmp_path: Any) -> None:
    sidecar = sidecars(path=str(tmp_path / "wafermon.sock"))
    open_sdk(driver, sidecar)
    driver("burst", n=100)
    assert driver("flush", timeout=5)
    assert_each_once(sidecar, 100)


@pytest.mark.needs("ipv6")
def test_ipv6(driver: Driver, sidecars: Sidecars) -> None:
    try:
        sidecar = sidecars(host="::1")
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    open_sdk(driver, sidecar)
    driver("burst", n=10)
    assert driver("flush", timeout=5)
    assert_each_once(sidecar, 10)


# -- acknowledgement


def test_burst(driver: Driver, sidecar: FakeSidecar) -> None:
    """10,000 calls in a tight loop arrive once each; where Python is concerned, without a spill file."""
    open_sdk(driver, sidecar)
    driver("burst", n=10)
    assert driver("flush", timeout=5)
    driver("burst", n=9_990, first=10)
    assert driver("flush", timeout=20)
    stats = driver.stats()
    assert_law(stats)
    assert stats["acked"] == 10_000 and stats["dropped"] == 0
    if driver.language.name == "python":
        assert stats["spilled"] == 0
    assert sorted(numbers(sidecar.messages)) == list(range(10_000))
    streams: dict[str, list[int]] = {}
    for message in sidecar.messages:
        streams.setdefault(message["client"], []).append(message["context"]["i"])
    assert all(stream == sorted(stream) for stream in streams.values()), "order within a stream"


def test_late_ack(driver: Driver, sidecars: Sidecars) -> None:
    sidecar = sidecars(Manners(ack_after=1.5))
    open_sdk(driver, sidecar)
    driver("burst", n=20)
    flushed, took = timed(driver, "flush", timeout=0.4)
    assert flushed is False and 0.3 < took < 1.2
    stats = driver.stats()
    assert stats["waiting"] == 20 and stats["acked"] == 0
    assert_law(stats)
    assert driver("flush", timeout=5) is True
    stats = driver.stats()
    assert stats["acked"] == stats["sent"] == 20 and stats["waiting"] == stats["resent"] == 0
    assert_each_once(sidecar, 20)


def test_replies_in_pieces(driver: Driver, sidecars: Sidecars) -> None:
    """Replies byte by byte, with spaces, CRLF, unknown fields and unknown types."""
    sidecar = sidecars(Manners(slow=True, chatty=True, reject={4: "bad_message"}))
    open_sdk(driver, sidecar)
    driver("burst", n=20)
    assert driver("flush", timeout=20)
    stats = driver.stats()
    assert (stats["acked"], stats["rejected"], stats["reconnects"]) == (19, 1, 0)
    assert len(sidecar.connections) == 1


def test_torn_ack(driver: Driver, sidecars: Sidecars) -> None:
    """Half an ack is none, and nothing of it is left when the next connection begins."""
    sidecar = sidecars(Manners(torn_ack=True), Manners())
    open_sdk(driver, sidecar)
    driver("burst", n=30)
    assert driver("flush", timeout=10)
    stats = driver.stats()
    assert stats["acked"] == 30 and stats["reconnects"] == 1
    assert_each_once(sidecar, 30)


def test_error_reply(driver: Driver, sidecars: Sidecars) -> None:
    """A rejected message is settled: counted, never sent again."""
    sidecar = sidecars(Manners(reject={3: "bad_message", 10: "unknown_type"}))
    open_sdk(driver, sidecar)
    driver("burst", n=10)
    assert driver("flush", timeout=5)
    stats = driver.stats()
    assert (stats["acked"], stats["rejected"], stats["waiting"]) == (8, 2, 0)
    sidecar.connections[0].end()
    driver("burst", n=5, first=10)
    assert driver("flush", timeout=10)
    stats = driver.stats()
    assert (stats["acked"], stats["rejected"]) == (13, 2)
    assert_law(stats)
    assert sidecar.repeated == 0
    assert_each_once(sidecar, 15)


# -- reconnects


def test_reset(driver: Driver, sidecars: Sidecars) -> None:
    """After a reset everything unacknowledged comes again, in order, the same bytes (the fake sidecar compares)."""
    sidecar = sidecars(Manners(reset_after=5, ack=False), Manners(reset_after=7, ack=False), Manners())
    open_sdk(driver, sidecar)
    driver("burst", n=20)
    assert driver("flush", timeout=10)
    stats = driver.stats()
    assert stats["acked"] == stats["sent"] == 20 and stats["resent"] > 0 and stats["reconnects"] == 2
    assert_law(stats)
    assert sidecar.repeated > 0
    assert_each_once(sidecar, 20)


def test_cut_within_a_line(driver: Driver, sidecars: Sidecars) -> None:
    sidecar = sidecars(*(Manners(close_after=size, ack=False) for size in (1, 500, 1777)), Manners())
    open_sdk(driver, sidecar)
    driver("burst", n=30)
    assert driver("flush", timeout=15)
    assert driver.stats()["acked"] == 30
    assert_each_once(sidecar, 30)
    assert any(connection.tail for connection in sidecar.connections), "no cut was within a line"


def test_welcome_settles(driver: Driver, sidecars: Sidecars) -> None:
    """What the welcome says is acknowledged is forgotten, the rest is sent from there on."""
    sidecar = sidecars(Manners(ack=False), Manners(acked=6))
    open_sdk(driver, sidecar)
    driver("burst", n=10)
    driver.until(lambda _: len(sidecar.messages) == 10)
    sidecar.connections[0].end()
    assert driver("flush", timeout=10)
    stats = driver.stats()
    assert (stats["acked"], stats["sent"], stats["resent"], stats["reconnects"]) == (10, 10, 4, 1)
    assert [message["seq"] for message in sidecar.connections[1].messages] == [7, 8, 9, 10]


def test_another_sidecar(driver: Driver, sidecars: Sidecars) -> None:
    """A sidecar with another journal gets the window again."""
    sidecar = sidecars(Manners(ack=False), Manners())
    open_sdk(driver, sidecar)
    driver("burst", n=10)
    driver.until(lambda _: len(sidecar.messages) == 10)
    sidecar.forget()
    sidecar.connections[0].end()
    assert driver("flush", timeout=10)
    assert_each_once(sidecar, 10)
    assert driver.stats()["acked"] == 10


def test_states(driver: Driver, sidecar: FakeSidecar) -> None:
    """connected, disconnected, overflow, and back."""
    open_sdk(driver, sidecar, buffer=20)
    driver("burst", n=5)
    assert driver("flush", timeout=5)
    assert driver.stats()["state"] == "connected"
    sidecar.stop()
    assert driver.until(lambda stats: stats["state"] == "disconnected", 5)["state"] == "disconnected"
    driver("burst", n=10, first=5)
    stats = driver.stats()
    assert stats["state"] == "disconnected" and stats["waiting"] == 10 and stats["spilled"] == 0
    driver("burst", n=60, first=15)
    stats = driver.stats()
    assert stats["state"] == "overflow" and stats["waiting"] == 70 and stats["spilled"] > 0
    assert_law(stats)
    sidecar.start()
    assert driver("flush", timeout=20)
    stats = driver.stats()
    assert stats["state"] == "connected" and stats["acked"] == 75
    assert_law(stats)
    assert sorted(numbers(sidecar.messages)) == list(range(75))


def test_silence(drivers: Drivers, language: Language, sidecars: Sidecars) -> None:
    """5 s without a byte end a connection that owes acks or a welcome; a repeated ack, even of nothing, keeps it."""
    silent, patient, deaf = (
        sidecars(Manners(ack=False), Manners()),
        sidecars(Manners(ack=False, repeat=True)),
        sidecars(Manners(welcome=False), Manners()),
    )
    running = {sidecar.url: (sidecar, drivers(language)) for sidecar in (silent, patient, deaf)}
    for sidecar, driver in running.values():
        open_sdk(driver, sidecar)
        driver("burst", n=10)
    began = time.monotonic()
    while time.monotonic() < began + 60 and not (silent.acked and deaf.acked and time.monotonic() > began + 7):
        for _, driver in running.values():
            driver.stats()
        time.sleep(0.05)
    assert len(silent.connections) == 2, "after 5 s of silence the connection is dead"
    assert silent.connections[1].opened - silent.connections[0].opened > 4.5
    assert len(patient.connections) == 1, "a connection that repeats its ack is alive"
    assert len(deaf.connections) == 2, "without a welcome for 5 s the connection is dead"
    for sidecar in (silent, deaf, patient):
        assert_each_once(sidecar, 10)
    assert running[patient.url][1].stats()["waiting"] == 10


# -- refusals and backoff


@pytest.mark.parametrize("code", ["bad_hello", "unauthorized", "rate_limited", "too_many_connections"])
def test_refusal(driver: Driver, sidecars: Sidecars, code: str) -> None:
    """A refused client keeps everything, comes again, and says so once."""
    sidecar = sidecars(Manners(refuse=code), Manners(refuse=code), Manners(refuse=code), Manners())
    open_sdk(driver, sidecar)
    driver("burst", n=10)
    assert driver("flush", timeout=15)
    assert_each_once(sidecar, 10)
    assert len(sidecar.connections) == 4
    warnings = driver.warnings()
    assert len(warnings) == 1 and code in warnings[0], warnings
    stats = driver.stats()
    assert stats["acked"] == 10 and stats["reconnects"] == 0


def test_backoff(drivers: Drivers, language: Language, sidecars: Sidecars) -> None:
    """Attempts become rarer, and two clients do not attempt at the same times."""
    pair = [(sidecars(Manners(refuse="rate_limited")), drivers(language)) for _ in range(2)]
    for sidecar, driver in pair:
        open_sdk(driver, sidecar)
        driver("burst", n=3)
    began = time.monotonic()
    while time.monotonic() < began + 4:
        for _, driver in pair:
            driver.stats()
        time.sleep(0.01)
    gaps = []
    for sidecar, _ in pair:
        opened = [connection.opened for connection in sidecar.connections]
        gaps.append([later - earlier for earlier, later in zip(opened, opened[1:])])
        # Full jitter of 0.1 s doubling: the sixth attempt comes after about 3 s, the seventh after about 6 s.
        assert 3 <= len(opened) <= 18, f"{len(opened)} attempts in 4 s"
    # Two of them may be alike by chance, but not most.
    different = [abs(one - other) > 0.001 for one, other in zip(*gaps)]
    assert sum(different) > len(different) / 2 or len(set(map(len, gaps))) > 1, f"no jitter: {gaps}"


@pytest.mark.languages(*(name for name, language in LANGUAGES.items() if language.threaded))
def test_storm(drivers: Drivers, language: Language, sidecars: Sidecars) -> None:
    """500 clients of one process come back from an outage without a storm, and nothing is lost.

    One without a thread reconnects within calls alone, and a driver calls one SDK at a time: `test_backoff` is theirs.
    """
    clients, outage = 500, 2.5
    sidecar = sidecars()
    driver = drivers(language)
    for index in range(clients):
        open_sdk(driver, sidecar)
        driver("burst", n=1, first=index)
    assert sidecar.wait(lambda: len(sidecar.messages) == clients, 20)
    sidecar.stop()
    sidecar.behave(Manners(refuse="rate_limited"))
    sidecar.start()
    began = time.monotonic()
    time.sleep(outage)
    attempts = [connection.opened - began for connection in sidecar.connections if connection.opened > began]
    # Without jitter all 500 come within one 0.1 s, without growing pauses each comes twenty-five times.
    busiest = max(Counter(int(attempt * 10) for attempt in attempts if attempt > 1.0).values())
    print(f"{len(attempts)} attempts in {outage} s, {busiest} in the busiest 0.1 s after the first second")
    assert len(attempts) < clients * 12
    assert busiest < clients * 0.6, "a storm"
    sidecar.behave(Manners())
    assert sidecar.wait(lambda: len(sidecar.open_connections()) >= clients, 40), (
        f"{len(sidecar.open_connections())} are back"
    )
    assert sorted(numbers(sidecar.messages)) == list(range(clients))


# -- time-outs


def test_never_welcomed(driver: Driver, sidecars: Sidecars) -> None:
    """A sidecar that accepts and says nothing costs no call its time; close keeps its budget and leaves all on disk."""
    sidecar = sidecars(Manners(welcome=False))
    open_sdk(driver, sidecar, buffer=100)
    result = driver("burst", n=500)
    assert result["elapsed"] < 2
    assert driver.stats()["state"] == "overflow"
    flushed, took = timed(driver, "flush", timeout=0)
    assert flushed is False and took < 0.3
    flushed, took = timed(driver, "flush", timeout=0.5)
    assert flushed is False and 0.4 < took < 1.5
    assert_law(driver.stats())
    _, took = timed(driver, "close", timeout=0.5)
    assert took < 1.5
    stats = driver.stats()
    assert stats["handed_over"] == 500 and stats["waiting"] == stats["dropped"] == 0
    assert_law(stats)
    left = [message for path in spill_files(driver.spill) for message in read_spill(path)]
    assert sorted(numbers(left)) == list(range(500))


def test_hung(driver: Driver, sidecars: Sidecars) -> None:
    """A sidecar that stops reading: calls go on, memory stays bounded, everything is on disk in the end."""
    sidecar = sidecars(Manners(read=False))
    open_sdk(driver, sidecar)
    driver("burst", n=1)
    driver.until(lambda stats: stats["state"] == "connected")
    count = 6_000
    result = driver("burst", n=count - 1, first=1, size=2_000)
    assert result["max"] < 1_000_000, result
    stats = driver.stats()
    assert stats["spilled"] > 0 and stats["acked"] == 0
    assert_law(stats)
    _, took = timed(driver, "close")
    assert took < 4, "close has a budget of 2 s"
    stats = driver.stats()
    assert stats["handed_over"] == count and stats["waiting"] == 0
    # What close() leaves of the own client is as large as window and buffer.
    own = sidecar.connections[0].client
    left = [
        message
        for path in spill_files(driver.spill)
        for message in read_spill(path, 8 << 20 if own in path.name else 1 << 20)
    ]
    assert sorted(numbers(left)) == list(range(count))
    assert len({(message["client"], message["seq"]) for message in left}) == count


def test_close_waits_for_late_acks(driver: Driver, sidecars: Sidecars) -> None:
    sidecar = sidecars(Manners(ack_after=0.5))
    open_sdk(driver, sidecar)
    driver("burst", n=50)
    _, took = timed(driver, "close")
    assert took < 2.5
    stats = driver.stats()
    assert stats["acked"] == 50 and stats["handed_over"] == 0
    assert spill_files(driver.spill) == []
    assert_each_once(sidecar, 50)


def test_after_close(driver: Driver, sidecar: FakeSidecar) -> None:
    """Calls after close are counted as dropped and send nothing; closing twice is harmless."""
    open_sdk(driver, sidecar)
    driver("burst", n=3)
    driver("close")
    driver("burst", n=4, first=3)
    driver("close")
    assert driver("flush", timeout=0.2) is True
    stats = driver.stats()
    assert (stats["called"], stats["acked"], stats["dropped"]) == (7, 3, 4)
    assert_law(stats)
    assert_each_once(sidecar, 3)


def test_chaos(driver: Driver, sidecar: FakeSidecar) -> None:
    """Ends of every kind, in turn, while calls go on: each message arrives once and the stats add up."""

    def cut(reset: bool) -> None:
        for connection in sidecar.open_connections():
            connection.end(reset)

    ends = itertools.cycle((lambda: sidecar.stop(reset=True), sidecar.stop, lambda: cut(False), lambda: cut(True)))
    open_sdk(driver, sidecar, buffer=200)
    for step in range(12):
        driver("burst", n=150, first=150 * step)
        next(ends)()
        driver("burst", n=50, first=150 * 12 + 50 * step)
        if sidecar.port is None:
            sidecar.start()
        driver.stats()
    assert driver("flush", timeout=30)
    stats = driver.stats()
    assert_law(stats)
    assert stats["acked"] == 200 * 12 == stats["called"]
    assert sorted(numbers(sidecar.messages)) == list(range(200 * 12))


def test_languages_are_complete() -> None:
    """Each folder with a driver describes itself, so that none is left out."""
    assert {"python", "perl", "c", "r"} <= set(LANGUAGES)
    assert {path.parent.name for path in SDK.glob("*/driver.*")} <= set(LANGUAGES)
