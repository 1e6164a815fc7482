"""What programs do to an SDK: fork behind Python's back, copy the environment, interrupt it, drop it, pickle it."""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from fake_sidecar import FakeSidecar, Manners
from helpers import law, run, until

from monitoring_sdk import MonitoringSDK

Sidecars = Callable[..., FakeSidecar]
Sdks = Callable[..., MonitoringSDK]
NOBODY = "tcp://127.0.0.1:1"
SDK = Path(__file__).resolve().parent.parent


def numbers(sidecar: FakeSidecar) -> list[int]:
    return sorted(message["context"]["i"] for message in sidecar.messages if message["type"] == "event")


def senders() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("wafermon")]


# -- forks

# A thread that waits for the interpreter at the moment of such a fork is not in the child, whose interpreter waits for
# it. That no SDK can help, and it is not what is tested here: the parent forks while its sender sleeps.
HOOKLESS = """
        import ctypes, os, sys, time
        sys.setswitchinterval(1000)  # a thread gives the interpreter away only when it waits for something else
        def fork(sdk):
            while sdk._sender.mark:
                time.sleep(0.001)
            return ctypes.PyDLL(None).fork()  # calls none of Python's hooks
"""


def test_a_fork_without_hooks_is_seen_at_the_next_call(sidecars: Sidecars) -> None:
    """As uWSGI forks its workers, in C: nothing of the child is lost, and nothing of the parent is in it."""
    sidecar = sidecars(Manners(ack=False), Manners())
    done = run(
        HOOKLESS
        + """
        from monitoring_sdk import MonitoringSDK
        sdk = MonitoringSDK("tests", sys.argv[1])
        children = []
        for child in range(5):
            for i in range(50):
                sdk.log_event("info", "m", {"i": 1000 + child * 50 + i})
            pid = fork(sdk)
            if not pid:
                for i in range(20):
                    sdk.log_event("info", "m", {"i": child * 20 + i})
                good = sdk.flush(10) and sdk.get_stats()["called"] == sdk.get_stats()["acked"] == 20
                os._exit(0 if good else 1)
            children.append(pid)
        assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 5
        assert sdk.get_stats()["waiting"] == 250 and sdk.get_stats()["reconnects"] == 0
        os._exit(0)
        """,
        sidecar.url,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert numbers(sidecar) == [*range(100), *range(1000, 1250)]
    assert len({message["client"] for message in sidecar.messages}) == 6


@pytest.mark.parametrize("call", ["get_stats()", "flush(0)", "close()"])
def test_a_fork_without_hooks_is_seen_by_other_calls_too(call: str, sidecar: FakeSidecar) -> None:
    done = run(
        HOOKLESS
        + f"""
        from monitoring_sdk import MonitoringSDK
        sdk = MonitoringSDK("tests", sys.argv[1])
        for i in range(200):
            sdk.log_event("info", "m", {{"i": i}})
        pid = fork(sdk)
        if not pid:
            sdk.{call}
            os._exit(sdk.get_stats()["called"])
        assert os.waitpid(pid, 0)[1] == 0
        assert sdk.flush(10)
        """,
        sidecar.url,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert numbers(sidecar) == list(range(200))


def test_where_no_page_can_be_wiped_the_pid_tells() -> None:
    """The fallback of other systems, in a process that has none of the kernel's help."""
    done = run(
        HOOKLESS
        + """
        sys.platform = "other"
        import monitoring_sdk
        sdk = monitoring_sdk.MonitoringSDK("tests", "tcp://127.0.0.1:1")
        assert isinstance(sdk._sender.here, monitoring_sdk.process.SamePid)
        sdk.log_event("info", "m")
        pid = fork(sdk)
        if not pid:
            os._exit(sdk.get_stats()["called"])
        assert os.waitpid(pid, 0)[1] == 0
        assert sdk.get_stats()["called"] == 1
        os._exit(0)
        """
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_fork_does_not_wait_for_a_sidecar_that_is_being_dialled(tmp_path: Path) -> None:
    """A host that swallows connection requests; the child keeps none of the sockets."""
    done = run(
        """
        import os, socket, threading, time
        from monitoring_sdk import MonitoringSDK
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fill = [socket.socket() for _ in range(4)]
        for sock in fill:
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        before = len(os.listdir("/proc/self/fd"))
        sdks = [MonitoringSDK("tests", "tcp://127.0.0.1:%d" % listener.getsockname()[1]) for _ in range(3)]
        for sdk in sdks:
            sdk.log_event("info", "x")
        deadline = time.monotonic() + 10
        while len(os.listdir("/proc/self/fd")) < before + 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert sum(thread.name == "wafermon-dialer" for thread in threading.enumerate()) == 3
        took = []
        for _ in range(10):
            began = time.perf_counter()
            pid = os.fork()
            took.append(time.perf_counter() - began)
            if not pid:
                os._exit(len(os.listdir("/proc/self/fd")) - before)
            assert os.waitpid(pid, 0)[1] == 0
        print(min(took))
        os._exit(0)
        """
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert float(done.stdout) < 0.1, "it was 0.2 s for each SDK"


# -- the environment, signals


def test_the_environment_never_misses_what_was_there(sidecar: FakeSidecar) -> None:
    """Other threads copy it while the main thread opens and closes spans."""
    done = run(
        """
        import os, sys, threading
        from monitoring_sdk import MonitoringSDK
        sdk = MonitoringSDK("tests", sys.argv[1])
        stop, errors = threading.Event(), []
        def copy(how):
            while not stop.is_set():
                try:
                    how()
                except Exception as error:
                    errors.append(repr(error))
        ways = (lambda: dict(os.environ), lambda: {**os.environ}, sdk.child_env)
        threads = [threading.Thread(target=copy, args=(way,)) for way in ways]
        sys.setswitchinterval(1e-5)
        for thread in threads:
            thread.start()
        for _ in range(3000):
            with sdk.span("s"):
                pass
        stop.set()
        for thread in threads:
            thread.join()
        assert not errors, errors[:3]
        assert not sdk.child_env().keys() & {"WAFERMON_TRACE_ID", "WAFERMON_SPAN_ID", "TRACEPARENT"}
        """,
        sidecar.url,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_signal_handlers_may_log_flush_and_read_stats(sidecar: FakeSidecar) -> None:
    """In between anything that the main thread does with the SDK, its first call too."""
    done = run(
        """
        import faulthandler, signal, sys
        from monitoring_sdk import MonitoringSDK
        faulthandler.dump_traceback_later(25, exit=True)
        sdk, busy, count = MonitoringSDK("tests", sys.argv[1]), False, [0, 0]
        def handle(*_):
            global busy
            if not busy:
                busy = True
                count[0] += 1
                sdk.log_event("info", "handler", {"i": count[0]})
                sdk.flush(0.5)
                sdk.get_stats()
                busy = False
        signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0011)
        while count[0] < 800:
            count[1] += 1
            sdk.log_event("info", "main", {"i": -count[1]})
            sdk.flush(0.5)
            sdk.get_stats()
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert sdk.flush(10)
        stats = sdk.get_stats()
        assert stats["called"] == stats["acked"] == sum(count), (stats, count)
        """,
        sidecar.url,
    )
    assert (done.returncode, done.stderr) == (0, "")


# -- dropped, pickled


def test_a_dropped_sdk_is_closed(sidecar: FakeSidecar) -> None:
    """Its messages arrive, and its thread and its connection go, without a close."""
    for i in range(10):
        MonitoringSDK("tests", sidecar.url).log_event("info", "m", {"i": i})
    assert until(lambda: len(sidecar.messages) == 10)
    assert until(lambda: not senders()), senders()
    assert until(lambda: not sidecar.open_connections())
    assert numbers(sidecar) == list(range(10))


def test_a_dropped_sdk_without_a_sidecar_leaves_a_file(tmp_path: Path) -> None:
    MonitoringSDK("tests", NOBODY).log_event("info", "m")
    assert until(lambda: not senders())
    (path,) = (tmp_path / "spill").iterdir()
    assert [json.loads(line)["type"] for line in path.read_bytes().splitlines()] == ["event", "stats"]


def test_a_program_that_dropped_its_sdk_delivers_at_its_exit(sidecar: FakeSidecar) -> None:
    done = run(
        """
        import sys
        from monitoring_sdk import MonitoringSDK
        def once():
            MonitoringSDK("tests", sys.argv[1]).log_event("info", "m", {"i": 1})
        once()
        """,
        sidecar.url,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert numbers(sidecar) == [1]


def test_a_pickled_sdk_begins_anew_in_the_same_trace(sidecar: FakeSidecar, sdks: Sdks, tmp_path: Path) -> None:
    sdk = sdks(sidecar.url, buffer=7, spill_dir=str(tmp_path / "elsewhere"), token="t")
    sdk.set_trace_id("job-1")
    sdk.log_event("info", "original")
    copy = pickle.loads(pickle.dumps(sdk))
    copy.log_event("info", "copy")
    assert sdk.flush() and copy.flush()
    assert law(copy)["called"] == law(sdk)["called"] == 1
    copy.close()
    one, two = sidecar.messages
    assert one["client"] != two["client"] and one["trace_id"] == two["trace_id"] == "job-1"
    assert {connection.hello["token"] for connection in sidecar.connections} == {"t"}


def test_an_sdk_travels_to_a_spawned_child(sidecar: FakeSidecar, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import multiprocessing, sys\n"
        "from monitoring_sdk import MonitoringSDK\n"
        "def work(sdk, i):\n"
        "    sdk.log_event('info', 'child', {'i': i})\n"
        "if __name__ == '__main__':\n"
        "    sdk = MonitoringSDK('tests', sys.argv[1])\n"
        "    child = multiprocessing.get_context('spawn').Process(target=work, args=(sdk, 1))\n"
        "    child.start(); child.join()\n"
        "    sys.exit(child.exitcode)\n"
    )
    done = subprocess.run([sys.executable, str(program), sidecar.url], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert numbers(sidecar) == [1]


# -- values


class Lazy(Mapping[str, Any]):
    """A mapping whose source has gone."""

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("detached")

    def __getitem__(self, key: str) -> Any:
        raise KeyError(key)


class Proxy:
    """As web frameworks have them: outside of a request it has not even a class."""

    @property
    def __class__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("working outside of request context")


def test_what_raises_becomes_text(sidecar: FakeSidecar, sdk: MonitoringSDK) -> None:
    sdk.log_event("info", "m", {"lazy": Lazy(), "in": [Lazy(), 1], "proxy": Proxy()})
    sdk.log_event("info", "m", Lazy())
    sdk.log_metric("n", 1, tags={"t": Lazy()})
    assert sdk.flush()
    first, second, third = sidecar.messages
    assert first["context"] == {"lazy": "<Lazy>", "in": ["<Lazy>", 1], "proxy": "<Proxy>"}
    assert second["context"] == {"value": "<Lazy>"}
    assert third["tags"] == {"t": '"<Lazy>"'} or third["tags"] == {"t": "<Lazy>"}


def test_numbers_of_other_types(sidecar: FakeSidecar, sdk: MonitoringSDK) -> None:
    sdk.log_progress("job", Decimal("50"))
    sdk.log_progress("job", Fraction(1, 2))
    sdk.log_metric("m", Decimal("1.25"))
    sdk.log_event("info", "m", {"d": Decimal("0.1"), "f": Fraction(1, 2), 7: "seven"})
    for wrong in (Decimal("NaN"), Decimal(101), "50", True, None, [50]):
        with pytest.raises(ValueError, match="a percent is a number from 0 to 100"):
            sdk.log_progress("job", wrong)  # type: ignore[arg-type]
    assert sdk.flush()
    assert [message.get("percent") for message in sidecar.messages[:2]] == [50, 0.5]
    assert sidecar.messages[2]["value"] == 1.25
    assert sidecar.messages[3]["context"] == {"d": "0.1", "f": 0.5, "7": "seven"}


def test_values_of_numpy(sidecar: FakeSidecar, sdk: MonitoringSDK) -> None:
    numpy = pytest.importorskip("numpy")
    context = {
        "bool": numpy.bool_(True), "int": numpy.int32(7), "float": numpy.float32(0.5), "nan": numpy.float64("nan"),
        "array": numpy.arange(3), "matrix": numpy.ones((2, 2)), "bools": numpy.array([True, False]),
        "text": numpy.array(["a", "b"]), "scalar": numpy.array(4), "time": numpy.datetime64("2026-01-02"),
        "in": [numpy.int64(1), {"deep": numpy.float64(2.5)}],
    }  # fmt: skip
    sdk.log_event("info", "m", context)
    sdk.log_event("info", "huge", {"a": numpy.zeros(10_000_000)})
    sdk.log_metric("n", numpy.float32(0.25), tags={"flag": numpy.bool_(False)})
    sdk.log_progress("job", numpy.int64(50))
    with pytest.raises(TypeError):
        sdk.log_metric("n", numpy.bool_(True))
    assert sdk.flush()
    first, huge, metric, progress = sidecar.messages
    assert first["context"] == {
        "bool": True, "int": 7, "float": 0.5, "nan": None, "array": [0, 1, 2], "matrix": [[1.0, 1.0], [1.0, 1.0]],
        "bools": [True, False], "text": ["a", "b"], "scalar": 4, "time": "2026-01-02", "in": [1, {"deep": 2.5}],
    }  # fmt: skip
    assert huge["context"] == {"a": "[0. 0. 0. ... 0. 0. 0.]"}
    assert (metric["value"], metric["tags"], progress["percent"]) == (0.25, {"flag": "false"}, 50)


def test_levels_of_other_libraries(sidecar: FakeSidecar, sdk: MonitoringSDK) -> None:
    import logging

    for level in ("WARN", "Fatal", "err", logging.DEBUG, logging.CRITICAL, 25, "30", "INFO"):
        sdk.log_event(level, "m")
    for wrong in (0, 60, True, 20.0, None, "", "loud", b""):
        with pytest.raises((ValueError, TypeError)):
            sdk.log_event(wrong, "m")  # type: ignore[arg-type]
    assert sdk.flush()
    levels = [message["level"] for message in sidecar.messages]
    assert levels == ["warning", "critical", "error", "debug", "critical", "info", "warning", "info"]


# -- spill files, names


def test_spill_files_have_their_mode_whatever_the_umask(sdks: Sdks, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        sdk = sdks(NOBODY, buffer=5)
        for i in range(25):
            sdk.log_event("info", "m", {"i": i})
        assert law(sdk)["spilled"] == 20
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "spill").iterdir()] == [0o660]


def test_each_attempt_looks_up_again_and_tries_every_address(
    sidecars: Sidecars, sdks: Sdks, monkeypatch: pytest.MonkeyPatch
) -> None:
    sidecar = sidecars()
    port = int(sidecar.url.rpartition(":")[2])
    answers: list[Any] = [socket.gaierror("unknown"), ["127.0.0.9"], ["127.0.0.8", "127.0.0.9", "127.0.0.1"]]
    asked: list[Any] = []

    def look_up(host: bytes, port: int, **_: Any) -> Any:
        asked.append(host)
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answer]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    sdk = sdks(f"tcp://sidecar.invalid:{port}")
    sdk.log_event("info", "m")
    assert sdk.flush(20)
    assert len(asked) == 3 and len(sidecar.connections) == 1


# -- compression, stats


def test_a_python_without_zlib_sends_lines(sidecars: Sidecars) -> None:
    sidecar = sidecars(Manners(compress=True))
    done = run(
        """
        import sys
        sys.modules["zlib"] = None  # some Pythons have it built in
        from monitoring_sdk import MonitoringSDK
        sdk = MonitoringSDK("tests", sys.argv[1])
        for i in range(100):
            sdk.log_event("info", "m", {"i": i})
        assert sdk.flush()
        """,
        sidecar.url,
        env={**os.environ, "WAFERMON_COMPRESS": "zlib"},
    )
    assert (done.returncode, done.stderr) == (0, "wafermon: this Python has no zlib: lines go uncompressed\n")
    assert numbers(sidecar) == list(range(100)) and not sidecar.connections[0].frames


def test_a_stats_line_names_at_most_a_thousand_streams(sdks: Sdks, tmp_path: Path) -> None:
    """The line keeps its length, however many files there have been."""
    sdk = sdks(NOBODY)
    for i in range(1_500):
        sdk._sender._spool.streams[f"{i:016x}"] = i + 1
    for _ in range(1_001):
        sdk.log_event("info", "m")
    assert law(sdk)["spilled"] > 0
    assert len(sdk._sender._spool.streams) <= 1_500
    sdk.close()
    own = max((tmp_path / "spill").iterdir(), key=lambda path: path.stat().st_size)
    last = own.read_bytes().splitlines()[-1]
    assert json.loads(last)["final"] is True and len(last) <= 65_536


# -- types


@pytest.mark.skipif(sys.version_info < (3, 10), reason="the checker needs a later Python")
def test_an_installed_sdk_has_types(tmp_path: Path) -> None:
    """What `pip install` puts down is typed for the programs that use it."""
    pytest.importorskip("mypy")
    built = subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation",
         "--target", str(tmp_path / "site"), str(SDK)],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    program = tmp_path / "program.py"
    program.write_text(
        "from monitoring_logging import MonitoringHandler\n"
        "from monitoring_sdk import MonitoringSDK\n"
        "sdk = MonitoringSDK('x')\n"
        "reveal_type(sdk.get_stats())\n"
        "reveal_type(MonitoringHandler(sdk).level)\n"
        "sdk.log_event('info', 3)\n"
    )
    environ = {**os.environ, "MYPYPATH": "", "PYTHONPATH": str(tmp_path / "site")}
    checked = subprocess.run(
        [sys.executable, "-c", CHECK, str(tmp_path / "site"), str(program)],
        capture_output=True, text=True, timeout=100, check=False, cwd=tmp_path, env=environ,
    )  # fmt: skip
    assert 'Revealed type is "dict[str, Any]"' in checked.stdout.replace("builtins.", "").replace("typing.", "")
    assert 'Argument 2 to "log_event" of "MonitoringSDK" has incompatible type "int"' in checked.stdout
    assert "import-untyped" not in checked.stdout and checked.stdout.count("error:") == 1, checked.stdout


# mypy finds types in the site-packages of an interpreter, which it asks for them.
CHECK = """
import sys
from mypy import api, modulefinder
site, program = sys.argv[1:]
found = modulefinder.get_search_dirs
modulefinder.get_search_dirs = lambda executable: (found(executable)[0], [site])
from mypy import build
if hasattr(build, "get_search_dirs"):
    build.get_search_dirs = modulefinder.get_search_dirs
print(api.run(["--strict", program])[0])
"""
