"""Forks, children in other languages, and processes that are killed."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ports import free_port

from conformance import (
    HERE,
    LANGUAGES,
    Driver,
    assert_law,
    available,
    child_request,
    in_child,
    numbers,
    read_spill,
    request,
    spill_files,
)
from fake_sidecar import FakeSidecar

Sidecars = Callable[..., FakeSidecar]
Drivers = Callable[..., Driver]
NOBODY = "tcp://127.0.0.1:1"  # nothing listens there


def opening(url: str) -> dict[str, Any]:
    return {"service": "conformance", "url": url}


def open_sdk(driver: Driver, url: str, **options: Any) -> None:
    driver("open", **opening(url), **options)


def results_in_child(driver: Driver, url: str, *calls: dict[str, Any]) -> list[Any]:
    """The results of what a child did before it ended normally."""
    answers = in_child(driver, opening(url), *calls)
    assert all(answer["ok"] is True for answer in answers), answers
    return [answer.get("result") for answer in answers]


# -- children of one's own kind: forked, or where a language can't fork, the same program anew


def test_child(driver: Driver, sidecar: FakeSidecar) -> None:
    """The child is a stream of its own and starts at 0; its end leaves the parent's connection alone."""
    open_sdk(driver, sidecar.url)
    driver("burst", n=10)
    assert driver("flush", timeout=5)
    pid, before, _, flushed, after = results_in_child(
        driver,
        sidecar.url,
        request("pid"),
        request("get_stats"),
        request("burst", n=5, first=100),
        request("flush", timeout=5),
        request("get_stats"),
    )
    assert pid != driver.pid and flushed is True
    assert before["called"] == before["acked"] == before["sent"] == 0
    assert (after["called"], after["acked"], after["reconnects"]) == (5, 5, 0)
    driver("burst", n=10, first=10)
    assert driver("flush", timeout=5)
    parent, child = sidecar.connections
    assert parent.client != child.client
    assert (child.hello["pid"], {message["pid"] for message in child.messages}) == (pid, {pid})
    assert numbers(child.messages) == list(range(100, 105))
    assert numbers(parent.messages) == list(range(20)), "one connection, before and after"
    stats = driver.stats()
    assert (stats["called"], stats["acked"], stats["reconnects"]) == (20, 20, 0)
    assert_law(stats)


def test_child_delivers_at_its_exit(driver: Driver, sidecar: FakeSidecar) -> None:
    """Neither flush nor close: the child's normal exit is enough; so is a grandchild's."""
    open_sdk(driver, sidecar.url)
    grandchild = child_request(driver.language, opening(sidecar.url), request("burst", n=5, first=5))
    results_in_child(driver, sidecar.url, request("burst", n=5), grandchild)
    assert sidecar.wait(lambda: sorted(numbers(sidecar.messages)) == list(range(10)), 5), numbers(sidecar.messages)
    assert len({message["pid"] for message in sidecar.messages}) == 2


def test_child_inherits_no_message(driver: Driver, sidecar: FakeSidecar) -> None:
    """What waits in the parent, and what it has spilled, stays the parent's."""
    sidecar.stop()
    open_sdk(driver, sidecar.url, buffer=20)
    driver("burst", n=100)
    driver.until(lambda stats: stats["spilled"] >= 80)
    calls = (request("pid"), request("get_stats"), request("burst", n=5, first=1000), request("close"))
    pid, stats, *_ = results_in_child(driver, sidecar.url, *calls)
    assert stats["waiting"] == stats["called"] == 0
    theirs = [path for path in spill_files(driver.spill) if f".{pid}." in path.name]
    assert [number for path in theirs for number in numbers(read_spill(path))] == list(range(1000, 1005))
    sidecar.start()
    assert driver("flush", timeout=20)
    stats = driver.stats()
    assert stats["acked"] == 100
    assert_law(stats)
    assert sorted(numbers(sidecar.messages)) == list(range(100))
    assert spill_files(driver.spill) == theirs


def test_child_within_a_span(driver: Driver, sidecar: FakeSidecar) -> None:
    """The child goes on under the parent's span; ending that there is allowed and sends nothing."""
    open_sdk(driver, sidecar.url, trace_id="job-1")
    span = driver("start_span", name="outer")
    logged, ended, flushed = in_child(
        driver,
        opening(sidecar.url),
        request("log_event", level="info", message="child"),
        request("end_span", span_id=span),
        request("flush", timeout=5),
    )
    assert logged["ok"] and flushed["result"] is True
    assert ended["ok"] == ("fork" in driver.language.can), "a program anew does not know the span, and says so"
    driver("end_span", span_id=span)
    assert driver("flush", timeout=5)
    (event,) = [message for message in sidecar.messages if message["type"] == "event"]
    assert (event["trace_id"], event["span_id"]) == ("job-1", span)
    (end,) = [message for message in sidecar.messages if message["type"] == "span_end"]
    assert (end["span_id"], end["pid"], end["status"]) == (span, driver.pid, "ok")


# -- children in other languages


def test_environment_of_children(driver: Driver, sidecar: FakeSidecar) -> None:
    """A child's environment follows trace and span: set, within a span, after it."""

    def seen() -> dict[str, str]:
        output = driver("spawn", argv=["env"], stdin="")["stdout"]
        pairs = (line.partition("=") for line in output.splitlines())
        return {
            name.removeprefix("WAFERMON_"): value
            for name, _, value in pairs
            if name in ("WAFERMON_TRACE_ID", "WAFERMON_SPAN_ID")
        }

    open_sdk(driver, sidecar.url)
    assert seen() == {}, "an empty one would be a variable too"
    driver("set_trace_id", trace_id="job-7")
    assert seen() == {"TRACE_ID": "job-7"}
    outer = driver("start_span", name="outer")
    assert seen() == {"TRACE_ID": "job-7", "SPAN_ID": outer}
    inner = driver("start_span", name="inner", trace_id="job-8")
    assert seen() == {"TRACE_ID": "job-8", "SPAN_ID": inner}
    driver("end_span", span_id=inner)
    assert seen() == {"TRACE_ID": "job-7", "SPAN_ID": outer}
    driver("end_span", span_id=outer)
    assert seen() == {"TRACE_ID": "job-7"}


@pytest.mark.needs("traceparent")
def test_traceparent_of_children(driver: Driver, sidecar: FakeSidecar) -> None:
    """A child that speaks OpenTelemetry falls into the trace too: 32 hex as they are, a job by the hash of its id."""

    def seen() -> list[str]:
        """The parts of the child's TRACEPARENT, one list of none where there is none."""
        output = driver("spawn", argv=["env"], stdin="")["stdout"]
        found = [line.partition("=")[2] for line in output.splitlines() if line.startswith("TRACEPARENT=")]
        return found[0].split("-") if found else []

    open_sdk(driver, sidecar.url)
    assert seen() == []
    driver("set_trace_id", trace_id="job-7")
    digest = hashlib.sha256(b"job-7").hexdigest()
    version, trace, parent, flags = seen()
    assert (version, trace, flags) == ("00", digest[:32], "01")
    assert parent == digest[32:48], "no span is open, and a parent of zeros would be invalid"
    span = driver("start_span", name="outer")
    assert seen() == ["00", digest[:32], span, "01"]
    w3c = "4bf92f3577b34da6a3ce929d0e0e4736"
    inner = driver("start_span", name="inner", trace_id=w3c)
    assert seen() == ["00", w3c, inner, "01"]
    driver("end_span", span_id=inner)
    assert seen() == ["00", digest[:32], span, "01"]
    driver("end_span", span_id=span)
    assert seen()[1:3] == [digest[:32], digest[32:48]]


@pytest.mark.needs("traceparent")
@pytest.mark.parametrize("trace", ["0" * 32, "4BF92F3577B34DA6A3CE929D0E0E4736"])
def test_traceparent_is_valid(driver: Driver, sidecar: FakeSidecar, trace: str) -> None:
    """32 characters that W3C does not allow as a trace id are hashed like any job id."""
    open_sdk(driver, sidecar.url)
    driver("set_trace_id", trace_id=trace)
    output = driver("spawn", argv=["env"], stdin="")["stdout"]
    expected = hashlib.sha256(trace.encode()).hexdigest()[:32]
    assert f"TRACEPARENT=00-{expected}-" in output


@pytest.mark.parametrize("child", list(LANGUAGES))
def test_trace_reaches_children(driver: Driver, sidecar: FakeSidecar, child: str) -> None:
    """Any language's child in any language falls into the same trace, under the right span, by its environment."""
    program = available(child)
    calls = (
        request("open", service="child", url=sidecar.url),
        request("log_event", level="info", message="from the child"),
        request("start_span", name="inner"),
        request("log_metric", name="m", value=1),
        request("flush", timeout=5),
        request("exit"),
    )
    open_sdk(driver, sidecar.url)
    driver("set_trace_id", trace_id="job-4711")
    outer = driver("start_span", name="outer")
    done = driver("spawn", argv=list(program.argv), stdin="".join(json.dumps(call) + "\n" for call in calls))
    assert done["status"] == 0
    answers = [json.loads(line) for line in done["stdout"].splitlines()]
    assert all(answer["ok"] is True for answer in answers), answers
    event, start, metric = (message for message in sidecar.messages if message["service"] == "child")
    assert {message["trace_id"] for message in (event, start, metric)} == {"job-4711"}
    assert event["span_id"] == start["parent_id"] == outer
    assert metric["span_id"] == start["span_id"] == answers[2]["result"]
    driver("end_span", span_id=outer)


@pytest.mark.languages("python")
def test_trace_passes_through_every_language(driver: Driver, sidecar: FakeSidecar, tmp_path: Path) -> None:
    """A chain of processes, one per language, each the child of the one before."""
    order = [available(name) for name in LANGUAGES]
    stdin = ""
    for depth, language in reversed(list(enumerate(order))):
        calls = [request("open", service=language.name, url=sidecar.url), request("start_span", name=str(depth))]
        if stdin:
            following = tmp_path / f"stdin-{depth}"
            following.write_text(stdin)
            command = f"{shlex.join(order[depth + 1].argv)} < {shlex.quote(str(following))}"
            calls.append(request("spawn", argv=["sh", "-c", command], stdin=""))
        stdin = "".join(json.dumps(call) + "\n" for call in [*calls, request("flush", timeout=5), request("exit")])
    open_sdk(driver, sidecar.url, trace_id="chain")
    (tmp_path / "first").write_text(stdin)
    done = driver(
        "spawn", argv=["sh", "-c", f"{shlex.join(order[0].argv)} < {shlex.quote(str(tmp_path / 'first'))}"], stdin=""
    )
    assert done["status"] == 0
    starts = sorted(
        (message for message in sidecar.messages if message["type"] == "span_start"), key=lambda start: start["name"]
    )
    assert [(start["service"], start["trace_id"]) for start in starts] == [
        (language.name, "chain") for language in order
    ]
    assert [start.get("parent_id") for start in starts] == [None, *(start["span_id"] for start in starts[:-1])]


# -- killed


def test_kill_of_the_program(driver: Driver, sidecar: FakeSidecar) -> None:
    """What was acknowledged is safe; where there is no sender thread, so is what a call handed to the kernel."""
    open_sdk(driver, sidecar.url)
    driver("burst", n=50)
    assert driver("flush", timeout=5)
    if not driver.language.threaded:
        driver("burst", n=50, first=50)
    driver.post("kill_self")
    assert driver.process.wait(10) == -signal.SIGKILL
    expected = list(range(50 if driver.language.threaded else 100))
    assert sidecar.wait(lambda: numbers(sidecar.messages) == expected, 5), numbers(sidecar.messages)


class SidecarProcess:
    """`fake_sidecar.py` as a program: what it has acknowledged outlives SIGKILL."""

    def __init__(self, journal: Path) -> None:
        self.port = free_port()
        self.journal = journal
        self.start()

    def start(self) -> None:
        argv = [sys.executable, str(HERE / "fake_sidecar.py"), str(self.port), str(self.journal)]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith(b"ready")

    def kill(self) -> None:
        self.process.kill()
        self.wait()

    def wait(self) -> int:
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        return self.process.wait(10)

    def messages(self) -> list[Any]:
        return [json.loads(line) for line in self.journal.read_bytes().splitlines()]


@pytest.fixture
def killable(tmp_path: Path) -> Iterator[SidecarProcess]:
    sidecar = SidecarProcess(tmp_path / "journal")
    yield sidecar
    if sidecar.process.poll() is None:
        assert sidecar.wait() == 0, "it found something to complain about"


@pytest.mark.parametrize("buffer", [50, 1_000])
def test_kill_of_the_sidecar(driver: Driver, killable: SidecarProcess, buffer: int) -> None:
    """SIGKILL in the middle of the stream, again and again: in the end each message is there exactly once."""
    rounds, each = 4, 600
    open_sdk(driver, f"tcp://127.0.0.1:{killable.port}", buffer=buffer)
    for number in range(rounds):
        driver.post("burst", n=each, first=number * each)
        os.kill(killable.process.pid, signal.SIGKILL)
        killable.wait()
        driver.answer("burst")
        killable.start()
        driver.until(lambda stats: stats["state"] == "connected", 5)
    assert driver("flush", timeout=30)
    stats = driver.stats()
    assert_law(stats)
    assert stats["acked"] == rounds * each and stats["dropped"] == 0
    # A port that was free a moment ago may be one that another program on this machine still tries to reach.
    ours = [message for message in killable.messages() if message["pid"] == driver.pid]
    assert sorted(numbers(ours)) == list(range(rounds * each))
    assert spill_files(driver.spill) == []
