"""A real OpenTelemetry Collector of the tests' own, which writes what it takes into a file before it answers."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from built_server import BuiltServer, program
from daemon import until
from ports import free_port

# A file with a rotation is written to without a buffer.
CONFIG = """
receivers:
  otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{port}"{tls}}}}}}}
exporters:
  file: {{path: "{file}", rotation: {{max_megabytes: 100000}}}}
service:
  telemetry: {{metrics: {{level: none}}, logs: {{level: warn}}}}
  pipelines:
    logs: {{receivers: [otlp], exporters: [file]}}
    metrics: {{receivers: [otlp], exporters: [file]}}
    traces: {{receivers: [otlp], exporters: [file]}}
"""
BEGINNING = re.compile(rb'\{"resource(Logs|Metrics|Spans)"')
PLACE = "test.place"
"""The attribute of resources by which tests tell what is theirs."""


class Collector(BuiltServer):
    """One collector. `start` it; `remove` ends it and takes its directory away."""

    def __init__(self, certificate: Path | None = None, client_ca: Path | None = None) -> None:
        """With a `certificate`, whose key is beside it, it speaks TLS; with a `client_ca` to holders of its certificates alone."""
        self.binary = program("otelcol")
        self.directory = Path(tempfile.mkdtemp(prefix="wafermon-otelcol-"))
        self.port = free_port()
        self.file = self.directory / "taken.jsonl"
        self.scheme = "https" if certificate else "http"
        self._numbers = count(1)
        tls = ""
        if certificate:
            tls = f', tls: {{cert_file: "{certificate}", key_file: "{certificate.with_suffix(".key")}"'
            tls += f', client_ca_file: "{client_ca}"}}' if client_ca else "}"
        (self.directory / "config.yaml").write_text(CONFIG.format(port=self.port, file=self.file, tls=tls))

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns when it listens."""
        with (self.directory / "collector.log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(self.binary), "--config", f"file:{self.directory / 'config.yaml'}"],
                env={"PATH": os.environ["PATH"], "HOME": str(self.directory)},
                cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        until(self._listens, "a collector that listens")

    def _listens(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.directory / "collector.log").read_text()
        listening = Path("/proc/net/tcp").read_text()
        return f"0100007F:{self.port:04X} 00000000:0000 0A" in listening

    def post(self, signal_: str, body: bytes, **headers: str) -> tuple[int, bytes]:
        """Ask it by hand."""
        asked = Request(f"{self.url}/v1/{signal_}", body, {"Content-Type": "application/json", **headers})
        with urlopen(asked, timeout=60) as answer:
            return answer.status, answer.read()

    def place(self) -> Taken:
        """What is sent from now on with an attribute of its own."""
        return Taken(self, f"place-{next(self._numbers)}", self.file.stat().st_size if self.file.exists() else 0)

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


class Taken:
    """What a collector took of one test."""

    def __init__(self, collector: Collector, name: str, begins: int) -> None:
        self.collector = collector
        self.resource = {PLACE: name}
        self.name = name
        self._begins = begins

    def _of(self, kind: str, scopes: str, records: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """(attributes of the resource, record) of each."""
        if not self.collector.file.exists():
            return []
        with self.collector.file.open("rb") as file:
            file.seek(self._begins)
            lines = file.read().split(b"\n")[:-1]
        found = []
        for line in lines:
            for one in _object(line).get(kind, []):
                of = attributes(one["resource"])
                if of.get(PLACE) == self.name:
                    found += [(of, record) for scope in one[scopes] for record in scope[records]]
        return found

    def logs(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        return self._of("resourceLogs", "scopeLogs", "logRecords")

    def spans(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        return self._of("resourceSpans", "scopeSpans", "spans")

    def metrics(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        return self._of("resourceMetrics", "scopeMetrics", "metrics")

    def points(self) -> list[tuple[str, dict[str, Any]]]:
        """(name of the metric, point) of each."""
        return [
            (metric["name"], point)
            for _, metric in self.metrics()
            for point in (metric.get("gauge") or metric["sum"])["dataPoints"]
        ]

    def uids(self) -> list[tuple[str, int]]:
        """(client, seq) of each log record; what is there twice, twice."""
        found = []
        for _, record in self.logs():
            client, _, seq = attributes(record)["log.record.uid"].partition("-")
            found.append((client, int(seq)))
        return found


def _object(line: bytes) -> dict[str, Any]:
    """What a line of its file says. A collector that was killed may leave the beginning of one, for which it gave no answer; the next
    one goes on after that."""
    try:
        return dict(json.loads(line))
    except json.JSONDecodeError:
        begins = [found.start() for found in BEGINNING.finditer(line)]
        return _object(line[begins[-1] :]) if begins and begins[-1] > 0 else {}


def attributes(of: dict[str, Any]) -> dict[str, Any]:
    """Of a record, or a resource."""
    return {one["key"]: _plain(one.get("value", {})) for one in of.get("attributes", [])}


def _plain(value: dict[str, Any]) -> Any:
    for kind, said in value.items():
        if kind == "intValue":
            return int(said)
        if kind == "arrayValue":
            return [_plain(one) for one in said.get("values", [])]
        if kind == "kvlistValue":
            return {one["key"]: _plain(one.get("value", {})) for one in said.get("values", [])}
        return said
    return None


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """A running collector that all tests share. Who stops it starts it again."""
    one = Collector()
    try:
        one.start()
        yield one
    finally:
        one.remove()


@pytest.fixture
def taken(collector: Collector) -> Taken:
    return collector.place()
