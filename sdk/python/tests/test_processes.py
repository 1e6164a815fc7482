"""Exits, forks and children of a program that has the Python SDK."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_sidecar import FakeSidecar
from helpers import law, numbers, read, run, spilled

from monitoring_sdk import MonitoringSDK

SDK = Path(__file__).resolve().parent.parent


def test_a_short_program_delivers_at_its_exit(sidecar: FakeSidecar, tmp_path: Path) -> None:
    done = run(
        """
        import sys
        from monitoring_sdk import MonitoringSDK
        MonitoringSDK("tests", sys.argv[1]).log_event("info", "m", {"i": 1})
        """,
        sidecar.url,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert numbers(sidecar.messages) == [1] and not spilled(tmp_path)


def test_a_first_call_in_an_exit_handler_still_arrives(sidecar: FakeSidecar, tmp_path: Path) -> None:
    done = run(
        """
        import atexit, sys
        from monitoring_sdk import MonitoringSDK
        sdk = MonitoringSDK("tests", sys.argv[1])
        atexit.register(lambda: sdk.log_event("info", "m", {"i": 1}))
        """,
        sidecar.url,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert numbers(sidecar.messages) == [1] and not spilled(tmp_path)


def test_an_exit_without_a_sidecar_is_quick_and_leaves_a_file(tmp_path: Path) -> None:
    began = time.monotonic()
    done = run(
        """
        from monitoring_sdk import MonitoringSDK
        sdk = MonitoringSDK("tests", "tcp://127.0.0.1:1")
        for i in range(10):
            sdk.log_event("info", "m", {"i": i})
        """
    )
    assert (done.returncode, done.stderr) == (0, "") and time.monotonic() - began < 2
    (path,) = spilled(tmp_path)
    assert numbers(read(path)) == list(range(10))


def test_a_forked_child_starts_empty(sidecar: FakeSidecar, sdk: MonitoringSDK) -> None:
    span = sdk.start_span("outer")
    sdk.log_event("info", "m", {"i": 1})
    assert sdk.flush()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            empty = sdk.get_stats()
            sdk.end_span(span)
            sdk.log_event("info", "m", {"i": 2})
            delivered = sdk.flush()
            os.write(writing, json.dumps([empty, delivered, law(sdk)]).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        empty, delivered, stats = json.load(answer)
    os.waitpid(child, 0)
    assert not any(value for name, value in empty.items() if name != "state") and empty["state"] == "disconnected"
    assert delivered and stats["called"] == 1
    sdk.log_event("info", "m", {"i": 3})
    sdk.end_span(span)
    assert sdk.flush()
    assert law(sdk)["reconnects"] == 0, "the child has disturbed the parent's connection"
    clients = {message["client"] for message in sidecar.messages}
    assert len(clients) == 2 and sorted(numbers(sidecar.messages)) == [1, 2, 3]
    assert len([message for message in sidecar.messages if message["type"] == "span_end"]) == 1


def test_the_child_keeps_none_of_the_parents_descriptors(sidecar: FakeSidecar, tmp_path: Path) -> None:
    done = run(
        """
        import os, sys
        from monitoring_sdk import MonitoringSDK
        before = set(os.listdir("/proc/self/fd"))
        up = MonitoringSDK("tests", sys.argv[1])
        down = MonitoringSDK("tests", "tcp://127.0.0.1:1", buffer=2)
        up.log_event("info", "m", {"i": 1})
        for i in range(9):
            down.log_event("info", "m", {"i": i})
        assert up.flush()
        assert down.get_stats()["spilled"] == 7
        assert len(os.listdir("/proc/self/fd")) >= len(before) + 2
        child = os.fork()
        if not child:
            left = len(os.listdir("/proc/self/fd")) - len(before)
            os._exit(left)
        assert os.waitpid(child, 0)[1] == 0
        """,
        sidecar.url,
    )
    assert (done.returncode, done.stderr.replace("DeprecationWarning", "")) == (0, ""), done.stderr


def test_forks_from_a_busy_parent(sidecar: FakeSidecar) -> None:
    done = run(
        """
        import os, sys, threading, warnings
        warnings.simplefilter("ignore")  # forking with threads: that is what this is about
        from monitoring_sdk import MonitoringSDK
        sdk = MonitoringSDK("tests", sys.argv[1])
        stop = threading.Event()
        def work():
            while not stop.is_set():
                sdk.log_event("info", "parent", {"i": -1})
                stop.wait(0.0002)
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for i in range(20):
            child = os.fork()
            if not child:
                sdk.log_event("info", "child", {"i": i})
                os._exit(0 if sdk.flush() else 1)
            assert os.waitpid(child, 0)[1] == 0
        stop.set()
        for thread in threads:
            thread.join()
        assert sdk.flush()
        assert sdk.get_stats()["reconnects"] == 0
        """,
        sidecar.url,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(i for i in numbers(sidecar.messages) if i >= 0) == list(range(20))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_children_deliver(method: str, sidecar: FakeSidecar, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import multiprocessing, os, sys\n"
        "from monitoring_sdk import MonitoringSDK\n"
        "sdk = MonitoringSDK('tests', os.environ['SIDECAR'])\n"
        "def work(i):\n"
        "    sdk.log_event('info', 'm', {'i': i})\n"
        "if __name__ == '__main__':\n"
        "    context = multiprocessing.get_context(sys.argv[1])\n"
        "    sdk.log_event('info', 'm', {'i': 0})\n"
        "    children = [context.Process(target=work, args=(i,)) for i in (1, 2, 3)]\n"
        "    [child.start() for child in children]\n"
        "    [child.join() for child in children]\n"
        "    with context.Pool(2) as pool:\n"
        "        pool.map(work, [4, 5, 6, 7])\n"
        "        pool.close()\n"
        "        pool.join()\n"
    )
    os.environ["SIDECAR"] = sidecar.url
    command = [sys.executable, str(program), method]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(numbers(sidecar.messages)) == list(range(8))
    assert not spilled(tmp_path)


def test_an_unhandled_kill_loses_only_what_was_in_memory(sidecar: FakeSidecar, tmp_path: Path) -> None:
    done = run(
        """
        import os, signal, sys
        from monitoring_sdk import MonitoringSDK
        sdk = MonitoringSDK("tests", "tcp://127.0.0.1:1", buffer=10)
        for i in range(100):
            sdk.log_event("info", "m", {"i": i})
        assert sdk.get_stats()["spilled"] == 90
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    assert done.returncode == -signal.SIGKILL
    (path,) = spilled(tmp_path)
    assert numbers(read(path)) == list(range(10, 100))
