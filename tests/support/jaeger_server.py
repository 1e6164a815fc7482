"""A real Jaeger of the tests' own, which takes OTLP and keeps traces in memory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pytest
from built_server import BuiltServer, program
from daemon import until
from ports import free_port

# All ports that it opens; what is not named would be the same one on each machine.
PORTS = (
    "collector.grpc-server.host-port", "collector.http-server.host-port", "collector.otlp.grpc.host-port", "query.grpc-server.host-port",
    "admin.http.host-port", "http-server.host-port", "processor.jaeger-binary.server-host-port", "processor.jaeger-compact.server-host-port",
    "processor.zipkin-compact.server-host-port",
)  # fmt: skip


class JaegerServer(BuiltServer):
    """One Jaeger. `start` it; `remove` ends it and takes its directory away."""

    def __init__(self) -> None:
        self.binary = program("jaeger")
        self.directory = Path(tempfile.mkdtemp(prefix="wafermon-jaeger-"))
        self.otlp_port, self.query_port = free_port(), free_port()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.otlp_port}"

    def start(self) -> None:
        """Returns when it answers."""
        ports = {name: free_port() for name in PORTS}
        ports |= {"collector.otlp.http.host-port": self.otlp_port, "query.http-server.host-port": self.query_port}
        options = [f"--{name}=127.0.0.1:{port}" for name, port in ports.items()]
        with (self.directory / "jaeger.log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(self.binary), "--collector.otlp.enabled=true", "--memory.max-traces=1000", *options],
                env={"PATH": os.environ["PATH"], "HOME": str(self.directory), "JAEGER_DISABLED": "true"},
                cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        until(self._answers, "a Jaeger that answers")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.directory / "jaeger.log").read_text()
        try:
            self.ask("/api/services")
        except URLError:
            return False
        return True

    def ask(self, path: str) -> Any:
        """What its API answers, as its page asks it."""
        with urlopen(f"http://127.0.0.1:{self.query_port}{path}", timeout=60) as answer:
            return json.load(answer)["data"]

    def trace(self, trace_id: str) -> tuple[list[dict[str, Any]], dict[str, str]]:
        """The spans of a trace, and the service of each process id in them; none where it knows no such trace."""
        try:
            [found] = self.ask(f"/api/traces/{trace_id}")
        except HTTPError as error:
            assert error.code == 404
            return [], {}
        return found["spans"], {name: one["serviceName"] for name, one in found["processes"].items()}

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


@pytest.fixture
def jaeger() -> Iterator[JaegerServer]:
    one = JaegerServer()
    try:
        one.start()
        yield one
    finally:
        one.remove()
