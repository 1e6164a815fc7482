"""The recipes of the README, as they are there, in the servers and libraries that they are for."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from fake_sidecar import FakeSidecar
from helpers import until
from ports import free_port

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()
BIN = Path(sys.executable).parent
QUIET = 30.0  # seconds that a server may take to begin or to end


def recipe(name: str) -> str:
    """The code of a recipe: the block after the bold words that name it."""
    found = re.search(rf"\*\*{re.escape(name)}.*?```python\n(.*?)```", README, re.DOTALL)
    assert found, f"no recipe for {name}"
    return found[1]


def needs(module: str, program: str = "") -> Any:
    found = find_spec(module) is not None and (not program or (BIN / program).exists() or shutil.which(program))
    return pytest.mark.skipif(not found, reason=f"{module} is not installed")


def environ(sidecar: FakeSidecar, folder: Path) -> dict[str, str]:
    path = os.pathsep.join([os.environ["PYTHONPATH"], str(folder)])
    return {**os.environ, "WAFERMON_URL": sidecar.url, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}


def events(sidecar: FakeSidecar) -> Counter[str]:
    return Counter(message["message"] for message in sidecar.messages if message["type"] == "event")


class Server:
    """A web server on a port of its own, until SIGTERM."""

    def __init__(self, argv: list[str], port: int, folder: Path, env: dict[str, str]) -> None:
        self.url = f"http://127.0.0.1:{port}/"
        self._log = folder / "server.log"
        self._process = subprocess.Popen(
            argv, cwd=folder, env=env, stdout=self._log.open("wb"), stderr=subprocess.STDOUT, start_new_session=True
        )
        self._port = port
        assert until(self._listens, QUIET), self.log()

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._port), 1).close()
        except OSError:
            return False
        return True

    def get(self) -> str | None:
        try:
            with urllib.request.urlopen(self.url, timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            return None

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(QUIET)

    def kill(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def log(self) -> str:
        return self._log.read_text(errors="replace")[-3_000:]


def serve(argv: list[str], port: int, folder: Path, env: dict[str, str], requests: int) -> int:
    """Make so many requests of a server and end it; how many it has answered."""
    server = Server(argv, port, folder, env)
    try:
        answered = sum(server.get() is not None for _ in range(requests))
        server.stop()
    finally:
        server.kill()
    return answered


# -- pools


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_pool_loses_nothing(method: str, sidecar: FakeSidecar, tmp_path: Path) -> None:
    """All fifty, though the parent leaves the pool as soon as it has the results."""
    program = tmp_path / "program.py"
    program.write_text(
        recipe("Pool").replace("multiprocessing.Pool(", f"multiprocessing.get_context('{method}').Pool(")
    )
    done = subprocess.run(
        [sys.executable, str(program)], env=environ(sidecar, tmp_path), capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert until(lambda: events(sidecar)["row"] == 50), events(sidecar)


# -- Celery


@needs("celery")
def test_celery_tasks_lose_nothing(sidecar: FakeSidecar, tmp_path: Path) -> None:
    """Each worker process ends after one task, and its parent kills it as soon as it says that it is done."""
    for folder in ("queue", "control"):
        (tmp_path / folder).mkdir()
    (tmp_path / "tasks.py").write_text(recipe("Celery"))
    (tmp_path / "settings.py").write_text(
        textwrap.dedent(
            f"""
            broker_url = "filesystem://"
            broker_transport_options = {{
                "data_folder_in": {str(tmp_path / "queue")!r}, "data_folder_out": {str(tmp_path / "queue")!r},
                "control_folder": {str(tmp_path / "control")!r},
            }}
            """
        )
    )
    env = environ(sidecar, tmp_path)
    send = "import tasks; [tasks.add.delay(i) for i in range(20)]"
    assert subprocess.run([sys.executable, "-c", send], cwd=tmp_path, env=env, timeout=60).returncode == 0
    log = (tmp_path / "celery.log").open("wb")
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "tasks", "worker", "-P", "prefork", "-c", "2", "--max-tasks-per-child",
         "1", "--without-gossip", "--without-mingle", "--without-heartbeat"],
        cwd=tmp_path, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        assert until(lambda: events(sidecar)["task"] == 20, 60), events(sidecar)
    finally:  # how Celery itself ends is not what is tested
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()


# -- web servers


@needs("gunicorn")
@pytest.mark.parametrize("preload", [[], ["--preload"]])
def test_gunicorn(preload: list[str], sidecar: FakeSidecar, tmp_path: Path) -> None:
    """Whether the workers import the application or its master does."""
    (tmp_path / "app.py").write_text(recipe("WSGI"))
    port = free_port()
    argv = [sys.executable, "-m", "gunicorn", "-w", "2", "-b", f"127.0.0.1:{port}", *preload, "app:application"]
    answered = serve(argv, port, tmp_path, environ(sidecar, tmp_path), 20)
    assert answered == 20
    assert until(lambda: events(sidecar)["request"] == 20), events(sidecar)
    assert len({message["span_id"] for message in sidecar.messages if message["type"] == "span_end"}) == 20


@needs("pyuwsgi", "uwsgi")
@pytest.mark.parametrize("lazy", [[], ["--lazy-apps"]])
def test_uwsgi(lazy: list[str], sidecar: FakeSidecar, tmp_path: Path) -> None:
    """It forks without Python's hooks; what the master logged is there too, and no worker hangs."""
    (tmp_path / "app.py").write_text(recipe("WSGI") + 'sdk.log_event("info", "import")\n')
    port = free_port()
    argv = [
        str(BIN / "uwsgi"), "--http-socket", f"127.0.0.1:{port}", "--wsgi-file", "app.py", "--master", "--processes",
        "2", "--enable-threads", "--die-on-term", "--worker-reload-mercy", "8", *lazy,
    ]  # fmt: skip
    began = time.monotonic()
    server = Server(argv, port, tmp_path, environ(sidecar, tmp_path))
    try:
        assert sum(server.get() is not None for _ in range(20)) == 20
        assert until(lambda: events(sidecar)["import"] == (2 if lazy else 1)), events(sidecar)
        server.stop()
    finally:
        server.kill()
    assert "NO MERCY" not in server.log(), f"a worker hung, {time.monotonic() - began:.0f} s"
    assert until(lambda: events(sidecar)["request"] == 20), events(sidecar)


@needs("flask")
def test_flask(sidecar: FakeSidecar, tmp_path: Path) -> None:
    """Each request is a span; what a request logs is inside it."""
    (tmp_path / "app.py").write_text(recipe("Flask"))
    program = """
        import app
        client = app.app.test_client()
        assert [client.get("/").status_code for _ in range(5)] == [200] * 5
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=environ(sidecar, tmp_path), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    ends = {message["span_id"]: message for message in sidecar.messages if message["type"] == "span_end"}
    logged = [message for message in sidecar.messages if message["type"] == "event"]
    assert len(ends) == len(logged) == 5
    assert {message["span_id"] for message in logged} == set(ends)


def test_asgi(sidecar: FakeSidecar, tmp_path: Path) -> None:
    """As any ASGI server calls it, several requests at the same time."""
    (tmp_path / "app.py").write_text(recipe("ASGI"))
    program = """
        import asyncio, app
        async def request():
            sent = []
            async def receive(): return {"type": "http.request", "body": b""}
            async def send(message): sent.append(message["type"])
            await app.application({"type": "http", "method": "GET", "path": "/"}, receive, send)
            return sent
        async def main():
            return await asyncio.gather(*[request() for _ in range(5)])
        assert asyncio.run(main()) == [["http.response.start", "http.response.body"]] * 5
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=environ(sidecar, tmp_path), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    ends = {message["span_id"] for message in sidecar.messages if message["type"] == "span_end"}
    logged = [message["span_id"] for message in sidecar.messages if message["type"] == "event"]
    assert len(logged) == 5 and set(logged) == ends and len(ends) == 5


def test_dict_config(sidecar: FakeSidecar, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(recipe("logging.config"))
    done = subprocess.run(
        [sys.executable, str(program)], env=environ(sidecar, tmp_path), capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    (message,) = [message for message in sidecar.messages if message["type"] == "event"]
    assert (message["service"], message["level"], message["message"]) == ("file-receiver", "warning", "7 rows")


@pytest.fixture(autouse=True)
def _in_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
