"""Spans: of functions, coroutines and generators, of threads and children."""

from __future__ import annotations

import asyncio
import contextvars
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from conformance import without_stats
from fake_sidecar import FakeSidecar

from monitoring_sdk import MonitoringSDK

SDK = Path(__file__).resolve().parent.parent


def test_spans_nest_and_fail(sidecar: FakeSidecar, sdk: MonitoringSDK) -> None:
    with sdk.span("outer", tags={"a": 1}) as outer:
        with pytest.raises(KeyError), sdk.span("inner"):
            sdk.log_event("info", "in")
            raise KeyError
        sdk.log_event("info", "out")
    sdk.log_event("info", "after")
    assert sdk.flush()
    ends = {message["name"]: message for message in sidecar.messages if message["type"] == "span_end"}
    assert ends["inner"]["status"] == "error" and ends["inner"]["parent_id"] == outer
    assert ends["outer"]["status"] == "ok" and ends["outer"]["tags"] == {"a": 1} and "parent_id" not in ends["outer"]
    spans = {message["message"]: message.get("span_id") for message in sidecar.messages if message["type"] == "event"}
    assert spans == {"in": ends["inner"]["span_id"], "out": outer, "after": None}


def test_spans_of_functions_and_within_coroutines(sidecar: FakeSidecar, sdk: MonitoringSDK) -> None:
    @sdk.span("plain")
    def plain(depth: int) -> int:
        sdk.log_event("info", f"plain {depth}")
        return plain(depth - 1) + 1 if depth else 0

    async def waiting(name: str) -> str:
        with sdk.span("async"):
            await asyncio.sleep(0.01)
            sdk.log_event("info", name)
            return name

    async def both() -> list[str]:
        return await asyncio.gather(waiting("a"), waiting("b"))

    assert plain(1) == 1 and plain.__name__ == "plain"
    assert asyncio.run(both()) == ["a", "b"]
    assert sdk.flush()
    events = {message["message"]: message["span_id"] for message in sidecar.messages if message["type"] == "event"}
    starts = [message for message in sidecar.messages if message["type"] == "span_start"]
    ends = [message for message in sidecar.messages if message["type"] == "span_end"]
    assert len(starts) == len(ends) == 4
    assert len(set(events.values())) == 4, "each call has a span of its own, in each task too"
    durations = [message["duration"] for message in ends if message["name"] == "async"]
    assert min(durations) >= 10_000, "the span lasts until the coroutine has ended"


def names(sidecar: FakeSidecar, kind: str = "span_end") -> list[str]:
    return [message["name"] for message in sidecar.messages if message["type"] == kind]


def spans_of_events(sidecar: FakeSidecar) -> dict[str, str | None]:
    """By the message of each event, the name of the span in which it was logged."""
    starts = {message["span_id"]: message["name"] for message in sidecar.messages if message["type"] == "span_start"}
    events = [message for message in sidecar.messages if message["type"] == "event"]
    return {message["message"]: starts.get(message.get("span_id", "")) for message in events}


def test_a_decorated_coroutine_has_its_span_until_it_ends(sidecar: FakeSidecar, sdk: MonitoringSDK) -> None:
    @sdk.span("fetch")
    async def fetch(name: str) -> str:
        await asyncio.sleep(0.01)
        sdk.log_event("info", name)
        if name == "c":
            raise KeyError(name)
        return name

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*map(fetch, "abc"), return_exceptions=True)

    assert asyncio.iscoroutinefunction(fetch) and fetch.__name__ == "fetch"
    found = asyncio.run(all_of_them())
    assert found[:2] == ["a", "b"] and isinstance(found[2], KeyError)
    assert sdk.flush()
    ends = [message for message in sidecar.messages if message["type"] == "span_end"]
    assert sorted(message["status"] for message in ends) == ["error", "ok", "ok"]
    assert min(message["duration"] for message in ends) >= 10_000
    assert len({message["span_id"] for message in sidecar.messages if message["type"] == "event"}) == 3


def test_a_decorated_generator_is_current_only_while_it_runs(sidecar: FakeSidecar, sdk: MonitoringSDK) -> None:
    @sdk.span("rows")
    def rows() -> Generator[int, int, str]:
        sdk.log_event("info", "first")
        got = yield 1
        sdk.log_event("info", f"got {got}")
        try:
            yield 2
        except LookupError:
            sdk.log_event("info", "caught")
        yield 3
        return "end"

    generator = rows()
    assert next(generator) == 1
    sdk.log_event("info", "between")
    assert not os.environ["WAFERMON_SPAN_ID"]
    assert generator.send(7) == 2
    assert generator.throw(LookupError()) == 3
    with pytest.raises(StopIteration) as stop:
        next(generator)
    assert stop.value.value == "end"
    sdk.log_event("info", "after")
    assert sdk.flush()
    assert spans_of_events(sidecar) == {
        "first": "rows", "between": None, "got 7": "rows", "caught": "rows", "after": None,
    }  # fmt: skip
    assert [message["status"] for message in sidecar.messages if message["type"] == "span_end"] == ["ok"]


def test_a_decorated_generator_may_be_left_early_or_fail(sidecar: FakeSidecar, sdk: MonitoringSDK) -> None:
    closed = []

    @sdk.span("rows")
    def rows(fail: bool) -> Iterator[int]:
        try:
            yield 1
            if fail:
                raise KeyError
            yield 2
        finally:
            closed.append(fail)

    for _ in rows(False):
        break
    with pytest.raises(KeyError):
        list(rows(True))
    assert closed == [False, True]
    sdk.log_event("info", "after")
    assert sdk.flush()
    assert [message["status"] for message in sidecar.messages if message["type"] == "span_end"] == ["ok", "error"]
    assert spans_of_events(sidecar) == {"after": None}


def test_a_decorated_asynchronous_generator(sidecar: FakeSidecar, sdk: MonitoringSDK) -> None:
    @sdk.span("rows")
    async def rows(fail: bool) -> AsyncIterator[int]:
        await asyncio.sleep(0.001)
        sdk.log_event("info", "inside")
        yield 1
        if fail:
            raise KeyError
        yield 2

    async def take(fail: bool) -> list[int]:
        found = []
        async for row in rows(fail):
            sdk.log_event("info", f"outside {row}")
            found.append(row)
        return found

    assert asyncio.run(take(False)) == [1, 2]
    with pytest.raises(KeyError):
        asyncio.run(take(True))
    assert sdk.flush()
    assert spans_of_events(sidecar) == {"inside": "rows", "outside 1": None, "outside 2": None}
    assert [message["status"] for message in sidecar.messages if message["type"] == "span_end"] == ["ok", "error"]


def test_a_span_ended_elsewhere_is_current_nowhere(sidecar: FakeSidecar, sdk: MonitoringSDK) -> None:
    outer = sdk.start_span("outer")
    inner = sdk.start_span("inner")
    sdk.set_trace_id("job-2")
    thread = threading.Thread(target=sdk.end_span, args=(inner,))
    thread.start()
    thread.join()
    assert os.environ["WAFERMON_SPAN_ID"] == sdk.child_env()["WAFERMON_SPAN_ID"] == outer
    sdk.log_event("info", "in outer")

    def generator() -> Iterator[None]:
        with sdk.span("left"):
            yield

    left = generator()
    next(left)
    contextvars.copy_context().run(left.close)
    sdk.log_event("info", "left")
    sdk.end_span(outer)
    sdk.log_event("info", "nowhere")
    assert sdk.flush()
    assert spans_of_events(sidecar) == {"in outer": "outer", "left": "outer", "nowhere": None}
    assert "status" in sidecar.messages[-2] and {message.get("status", "ok") for message in sidecar.messages} == {"ok"}


def test_the_folder_is_all_that_is_copied(sidecar: FakeSidecar, tmp_path: Path) -> None:
    """Copied to the side of a program, in a Python that has nothing installed, all of it works."""
    shutil.copytree(SDK / "monitoring_sdk", tmp_path / "monitoring_sdk", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "program.py").write_text(
        "import asyncio, sys\n"
        "from monitoring_sdk import MonitoringSDK\n"
        "sdk = MonitoringSDK('tests', sys.argv[1])\n"
        "@sdk.span('late')\n"
        "async def late():\n"
        "    sdk.log_event('info', 'm', {'i': 0})\n"
        "asyncio.run(late())\n"
        "sdk.log_resource()\n"
        "sdk.close()\n"
    )
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environ["WAFERMON_COMPRESS"] = "zlib"
    command = [sys.executable, "-S", "program.py", sidecar.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path, env=environ, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    kinds = [message["type"] for message in without_stats(sidecar.messages)]
    assert kinds == ["span_start", "event", "span_end", "resource"]


def test_threads_have_spans_of_their_own(sidecar: FakeSidecar, sdk: MonitoringSDK) -> None:
    sdk.set_trace_id("job-1")
    span = sdk.start_span("main")
    thread = threading.Thread(target=lambda: sdk.log_event("info", "thread"))
    thread.start()
    thread.join()
    sdk.end_span(span)
    assert sdk.flush()
    (event,) = [message for message in sidecar.messages if message["type"] == "event"]
    assert "span_id" not in event and event["trace_id"] == "job-1"


def test_children_inherit_trace_and_span(sdk: MonitoringSDK) -> None:
    sdk.set_trace_id("job-1")
    with sdk.span("outer") as span:
        seen = subprocess.check_output(["sh", "-c", "echo $WAFERMON_TRACE_ID $WAFERMON_SPAN_ID"], text=True)
        assert seen.split() == ["job-1", span]
        assert sdk.child_env()["WAFERMON_SPAN_ID"] == span
    assert os.environ["WAFERMON_SPAN_ID"] == "" and "WAFERMON_SPAN_ID" not in sdk.child_env()
    assert os.environ["WAFERMON_TRACE_ID"] == "job-1"

    def elsewhere() -> None:
        with sdk.span("thread") as inner:
            assert not os.environ.get("WAFERMON_SPAN_ID")
            assert sdk.child_env()["WAFERMON_SPAN_ID"] == inner

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()


def test_a_trace_set_inside_a_span_lasts(sidecar: FakeSidecar, sdk: MonitoringSDK) -> None:
    span = sdk.start_span("s")
    sdk.set_trace_id("job-2")
    sdk.log_event("info", "in")
    sdk.end_span(span)
    sdk.log_event("info", "after")
    assert sdk.flush()
    start, event, end, after = sidecar.messages
    assert start["trace_id"] == end["trace_id"] != "job-2"
    assert (event["trace_id"], event["span_id"]) == ("job-2", span)
    assert after["trace_id"] == "job-2" and "span_id" not in after
