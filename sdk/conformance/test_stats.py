"""Stats lines: what an SDK says of itself to a sidecar that offers to take it, so that a receipt can be judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conformance import (
    Driver,
    assert_law,
    everything,
    in_child,
    numbers,
    only_stats,
    read_spill,
    request,
    spill_files,
    without_stats,
)
from fake_sidecar import FakeSidecar, Manners, Message, stats_problems

pytestmark = pytest.mark.needs("stats")

Sidecars = Callable[..., FakeSidecar]
NOBODY = "tcp://127.0.0.1:1"  # nothing listens there
OFFERED = Manners(features=("stats",))
INTERIM = 10.0  # seconds after the last message, at most
NOISE = 1.0  # seconds that a busy machine may add


def open_sdk(driver: Driver, url: str, **options: Any) -> None:
    driver("open", service="conformance", url=url, **options)


def await_stats(driver: Driver, sidecar: FakeSidecar, count: int = 1) -> Message:
    """The stats line of that number, once it has come."""
    driver.until(lambda _: len(only_stats(sidecar.messages)) >= count, INTERIM + 5)
    assert len(only_stats(sidecar.messages)) >= count, "no stats line came"
    return only_stats(sidecar.messages)[count - 1]


def figures(stats: Message) -> dict[str, Any]:
    return {name: stats[name] for name in ("called", "dropped", "unsent", "last", "streams")}


def streams(messages: list[Message], own: str) -> list[dict[str, Any]]:
    """Clients and last seqs of all streams but the SDK's own, sorted."""
    last = Counter[str]()
    for message in messages:
        if message["client"] != own:
            last[message["client"]] = max(last[message["client"]], message["seq"])
    return [{"client": client, "last": seq} for client, seq in sorted(last.items())]


def by_client(stats: Message) -> list[dict[str, Any]]:
    return sorted(stats["streams"], key=lambda stream: str(stream["client"]))


def test_interim(driver: Driver, sidecars: Sidecars) -> None:
    """Within 10 s after the last message, in the SDK's own stream, and in none of its figures."""
    sidecar = sidecars(OFFERED)
    open_sdk(driver, sidecar.url)
    driver("burst", n=20)
    assert driver("flush", timeout=5)
    stats = await_stats(driver, sidecar)
    last = without_stats(sidecar.messages)[-1]
    assert 0 <= stats["ts"] - last["ts"] <= (INTERIM + NOISE) * 1e6
    assert figures(stats) == {"called": 20, "dropped": 0, "unsent": 0, "last": 20, "streams": []}
    assert (stats["client"], stats["seq"]) == (last["client"], 21)
    assert (stats["service"], stats["host"], stats["pid"]) == (last["service"], last["host"], last["pid"])
    assert "final" not in stats
    assert driver("flush", timeout=5)
    told = driver.stats()
    assert (told["called"], told["sent"], told["acked"], told["waiting"]) == (20, 20, 20, 0)
    driver("burst", n=5, first=20)
    again = await_stats(driver, sidecar, 2)
    assert figures(again) == {"called": 25, "dropped": 0, "unsent": 0, "last": 26, "streams": []}
    assert len(only_stats(sidecar.messages)) == 2, "nothing new is no reason for a stats line"


def test_final(driver: Driver, sidecars: Sidecars) -> None:
    sidecar = sidecars(OFFERED)
    open_sdk(driver, sidecar.url)
    driver("burst", n=10)
    driver("close")
    stats = sidecar.messages[-1]
    assert (stats["type"], stats["final"], stats["seq"]) == ("stats", True, 11)
    assert figures(stats) == {"called": 10, "dropped": 0, "unsent": 0, "last": 10, "streams": []}
    assert len(only_stats(sidecar.messages)) == 1
    told = driver.stats()
    assert (told["called"], told["sent"], told["acked"], told["handed_over"]) == (10, 10, 10, 0)
    assert_law(told)
    assert spill_files(driver.spill) == []


def test_final_at_exit(driver: Driver, sidecars: Sidecars) -> None:
    """The normal end of a program closes, so it says its last word too."""
    sidecar = sidecars(OFFERED)
    open_sdk(driver, sidecar.url)
    driver("burst", n=10)
    assert driver.exit() == 0
    assert [message["type"] for message in sidecar.messages[-1:]] == ["stats"]
    assert sidecar.messages[-1]["final"] is True


def test_never_called(driver: Driver, sidecars: Sidecars) -> None:
    """An SDK that had nothing to say says nothing of itself."""
    sidecar = sidecars(OFFERED)
    open_sdk(driver, sidecar.url)
    driver("close")
    assert sidecar.messages == []
    open_sdk(driver, NOBODY)
    driver("close")
    assert spill_files(driver.spill) == []


def test_not_offered(driver: Driver, sidecar: FakeSidecar) -> None:
    """A sidecar of today gets none, neither within the time of an interim one nor at close."""
    open_sdk(driver, sidecar.url)
    driver("burst", n=10)
    driver.until(lambda _: only_stats(sidecar.messages), INTERIM + NOISE)
    driver("close")
    assert only_stats(sidecar.messages) == []
    assert len(sidecar.messages) == 10


def test_never_welcomed(driver: Driver) -> None:
    """Who never had a welcome ends the file that close leaves with a final line."""
    open_sdk(driver, NOBODY)
    driver("burst", n=30)
    driver("close")
    (path,) = spill_files(driver.spill)
    *messages, stats = read_spill(path)
    assert numbers(messages) == list(range(30)) and only_stats(messages) == []
    assert (stats["type"], stats["final"]) == ("stats", True)
    assert figures(stats) == {"called": 30, "dropped": 0, "unsent": 0, "last": 30, "streams": []}
    assert stats_problems(stats) == []
    told = driver.stats()
    assert (told["called"], told["handed_over"], told["waiting"]) == (30, 30, 0)
    assert_law(told)


def test_never_welcomed_with_spill(driver: Driver) -> None:
    """The final line names the other files, each to its last seq."""
    open_sdk(driver, NOBODY, buffer=20)
    driver("burst", n=200)
    driver.until(lambda stats: stats["spilled"] >= 180)
    driver("close")
    left = everything(driver.spill)
    (stats,) = only_stats(left)
    own = [message for message in left if message["client"] == stats["client"]]
    assert own[-1] is stats and stats["last"] == len(own) - 1 >= 1
    assert (stats["called"], stats["dropped"], stats["unsent"]) == (200, 0, 0)
    assert by_client(stats) == streams(left, stats["client"]) != []
    assert stats["last"] + sum(stream["last"] for stream in stats["streams"]) == 200


def test_after_overflow(driver: Driver, sidecars: Sidecars) -> None:
    """The files that were sent long ago are named too: without them a gap could not be told."""
    sidecar = sidecars(OFFERED)
    sidecar.stop()
    open_sdk(driver, sidecar.url, buffer=50)
    driver("burst", n=500)
    driver.until(lambda stats: stats["spilled"] >= 450)
    sidecar.start()
    assert driver("flush", timeout=20)
    driver("close", timeout=10)
    own = (
        without_stats(sidecar.messages)[0]["client"]
        if not only_stats(sidecar.messages)
        else sidecar.messages[-1]["client"]
    )
    stats = only_stats(sidecar.messages)[-1]
    assert stats["final"] is True and stats["client"] == own
    assert (stats["called"], stats["dropped"], stats["unsent"]) == (500, 0, 0)
    assert by_client(stats) == streams(sidecar.messages, own) != []
    messages = [message for message in without_stats(sidecar.messages) if message["client"] == own]
    lines = [message for message in sidecar.messages if message["client"] == own]
    assert stats["last"] == lines[-1]["seq"] - 1 == len(lines) - 1
    assert len(messages) + sum(stream["last"] for stream in stats["streams"]) == 500
    told = driver.stats()
    assert (told["called"], told["acked"]) == (500, 500)
    assert_law(told)


def test_dropped(driver: Driver, sidecars: Sidecars, tmp_path: Path) -> None:
    """What was dropped since the SDK began."""
    (tmp_path / "obstacle").write_text("")
    sidecar = sidecars(OFFERED)
    sidecar.stop()
    open_sdk(driver, sidecar.url, buffer=20, spill_dir=str(tmp_path / "obstacle" / "below"))
    driver("burst", n=100)
    lost = driver.until(lambda stats: stats["dropped"] >= 60)["dropped"]
    sidecar.start()
    assert driver("flush", timeout=15)
    driver("close", timeout=10)
    stats = only_stats(sidecar.messages)[-1]
    assert stats["final"] is True
    assert (stats["dropped"], stats["unsent"], stats["streams"]) == (lost, 0, [])
    assert stats["called"] == driver.stats()["called"]
    assert_law(driver.stats())


def test_left_in_the_file_of_close(driver: Driver, sidecars: Sidecars) -> None:
    """A final line that nobody acknowledged lies in the file after the messages, and counts nowhere."""
    sidecar = sidecars(Manners(ack=False, features=("stats",)))
    open_sdk(driver, sidecar.url)
    driver("burst", n=10)
    driver.until(lambda _: len(sidecar.messages) >= 10)
    driver("close", timeout=0.5)
    left = everything(driver.spill)
    assert numbers(left) == list(range(10))
    assert left[-1]["type"] == "stats" and left[-1]["final"] is True and len(left) == 11
    told = driver.stats()
    assert (told["called"], told["handed_over"], told["acked"], told["waiting"]) == (10, 10, 0, 0)
    assert_law(told)


def test_sent_again(driver: Driver, sidecars: Sidecars) -> None:
    """It keeps its seq and its bytes like any message; a rejection changes no figure."""
    # Acks repeated, though of nothing: else the connection might be given up for silent before the line comes.
    sidecar = sidecars(Manners(ack=False, repeat=True, features=("stats",)), Manners(reject={6: "unknown_type"}))
    open_sdk(driver, sidecar.url)
    driver("burst", n=5)
    await_stats(driver, sidecar)
    sidecar.connections[0].end()
    assert driver("flush", timeout=10)
    told = driver.until(lambda stats: stats["acked"] == 5)
    assert (told["called"], told["acked"], told["rejected"], told["sent"], told["resent"]) == (5, 5, 0, 5, 5)
    assert_law(told)
    assert sidecar.wait(lambda: sidecar.acked.get(sidecar.connections[0].client, 0) >= 6, 5)
    assert [message["seq"] for message in sidecar.messages[:6]] == [1, 2, 3, 4, 5, 6]


def test_child(driver: Driver, sidecars: Sidecars) -> None:
    """The child's figures are its own."""
    sidecar = sidecars(OFFERED)
    open_sdk(driver, sidecar.url)
    driver("burst", n=10)
    assert driver("flush", timeout=5)
    opening = {"service": "conformance", "url": sidecar.url}
    assert in_child(driver, opening, request("burst", n=5, first=10))[0]["ok"] is True
    driver("close")
    finals = {stats["client"]: stats["called"] for stats in only_stats(sidecar.messages) if "final" in stats}
    assert sorted(finals.values()) == [5, 10]
