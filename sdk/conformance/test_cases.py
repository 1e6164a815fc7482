"""The table of cases: these calls put these messages on the wire, in every language."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from conformance import (
    VARIABLES,
    Driver,
    DriverError,
    Language,
    assert_law,
    differences,
    expand,
    load_cases,
    numbers,
)
from fake_sidecar import FakeSidecar, Message


class Bench:
    """One sidecar and one driver process for all cases of a language."""

    def __init__(self, language: Language, folder: Any) -> None:
        self.language = language
        self.folder = folder
        self.sidecar = FakeSidecar().start()
        self._driver: Driver | None = None

    def driver(self) -> Driver:
        if self._driver is None or self._driver.process.poll() is not None:
            self._driver = Driver(self.language, self.folder)
        return self._driver

    def end(self) -> None:
        if self._driver is not None:
            self._driver.done()
        self.sidecar.stop()


@pytest.fixture(scope="session")
def bench(language: Language, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = Bench(language, tmp_path_factory.mktemp(language.name))
    yield bench
    bench.end()


@dataclass(frozen=True)
class Done:
    """What is known once a case's calls are done."""

    began: int  # microseconds since the epoch
    ended: int
    stats: dict[str, Any]
    saved: dict[str, Any]  # results by the names that the case gives them
    envelope: dict[str, Any]  # what all messages have in common


def carry_out(case: dict[str, Any], driver: Driver, url: str) -> Done:
    """The case's calls, up to a flush; the SDK is left open."""
    saved: dict[str, Any] = {}
    # A language may export its trace to its own environment: the last case's is not this one's.
    given = expand(case.get("env", {}), saved, url)
    driver("setenv", **{**dict.fromkeys(VARIABLES), "WAFERMON_SPILL_DIR": str(driver.spill), **given})
    opening = expand(case.get("open", {"service": "conformance"}), saved, url)
    if not given.get("WAFERMON_URL"):
        opening.setdefault("url", url)
    began = time.time_ns() // 1000
    driver("open", **opening)
    for request in case["calls"]:
        args = expand(request["args"], saved)
        if request.get("error"):
            with pytest.raises(DriverError) as caught:
                driver(request["call"], **args)
            assert str(caught.value) != "unsupported"
            assert driver.process.poll() is None, "the driver died"
        else:
            result = driver(request["call"], **args)
            if "save" in request:
                saved[request["save"]] = result
    assert driver("flush", timeout=5) is True
    ended = time.time_ns() // 1000
    envelope = {"service": opening.get("service"), "host": socket.gethostname(), "pid": driver.pid}
    return Done(began, ended, driver.stats(), saved, envelope)


def check_messages(case: dict[str, Any], done: Done, messages: list[Message]) -> None:
    """What arrived is what the case expects, and one stream."""
    assert_law(done.stats)
    for name, value in case.get("stats", {}).items():
        assert done.stats[name] == value, f"{name} is {done.stats[name]}, expected {value}"
    assert len({message["client"] for message in messages}) <= 1
    if "expect_burst" in case:
        assert numbers(messages) == list(range(case["expect_burst"]))
        stamps = [message["ts"] for message in messages]
        assert stamps == sorted(stamps)
        return
    context = {"saved": done.saved, "messages": messages}
    wrong: list[str] = []
    for index, (expected, message) in enumerate(zip(case["expect"], messages)):
        assert done.began <= message["ts"] <= done.ended
        assert message["seq"] == index + 1
        known = {"ts": message["ts"], "client": message["client"], "seq": message["seq"]}
        wrong += differences({**done.envelope, **known, **expected}, message, context, f"message {index}")
    assert not wrong, "\n".join(wrong)
    assert len(messages) == len(case["expect"]), [message["type"] for message in messages]


@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in load_cases()])
def test_case(case: dict[str, Any], bench: Bench) -> None:
    driver, sidecar = bench.driver(), bench.sidecar
    sidecar.problems.clear()
    known = len(sidecar.connections)
    done = carry_out(case, driver, sidecar.url)
    driver("close", timeout=2)
    check_messages(case, done, [message for one in sidecar.connections[known:] for message in one.messages])
    raw = b"".join(bytes(connection.data) for connection in sidecar.connections[known:]).decode()
    for pattern in case.get("raw", []):
        assert re.search(pattern, raw), pattern
    assert not sidecar.problems, "\n".join(sidecar.problems)


def test_every_notation_is_known() -> None:
    """A misspelt notation or matcher in a case would otherwise be taken for data."""
    known = {"bytes", "codes", "float", "int", "repeat", "nest", "cycle", "saved", "times", "url"}
    known |= {"maybe", "is", "between", "text", "prefix", "has", "field"}
    used = set(re.findall(r'"\$(\w+)"', json.dumps(load_cases())))
    assert used == known, used ^ known
