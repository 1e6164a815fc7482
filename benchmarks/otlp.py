"""What OTLP costs, both ways, beside the OpenTelemetry Collector doing the same, in one run.

    python benchmarks/otlp.py [--records 200000] [--rounds 3]

The Collector is that of the tests (tests/otelcol). In: log records and spans, in requests of 512 (what SDKs send) and 5000, one request
after the other; the sidecar syncs each into its journal and writes files, the Collector writes a file and syncs nothing. Through: the same,
sent on by OTLP to a server that throws it away. CPU is the process's own, per record. What counts are the ratios.
"""

from __future__ import annotations

import argparse
import gzip
import http.client
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

from built_server import program
from commands import wafermon
from daemon import Daemon, until
from ports import free_port

from wafermon.wire.otlp import protobuf
from wafermon.wire.otlp.shapes import (
    LogRecord,
    Logs,
    Resource,
    ResourceLogs,
    ResourceSpans,
    Scope,
    ScopeLogs,
    ScopeSpans,
    Signal,
    Span,
    Traces,
)
from wafermon.wire.otlp.values import attributes_of, value_of

TIME = 1_795_500_000_000_000_000
TICKS = os.sysconf("SC_CLK_TCK")
COLLECTOR = """
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{port}"}}}}}}}}
exporters:
  file: {{path: out.jsonl}}
  otlp_http: {{endpoint: "{sink}", encoding: {encoding}, compression: gzip, sending_queue: {{enabled: false}}}}
service:
  telemetry: {{metrics: {{level: none}}, logs: {{level: warn}}}}
  pipelines:
    logs: {{receivers: [otlp], exporters: [{exporter}]}}
    traces: {{receivers: [otlp], exporters: [{exporter}]}}
"""
SIDECAR = """
listen: ["tcp:{{port}}:interface=127.0.0.1", {{{{otlp: "tcp:{otlp}:interface=127.0.0.1"}}}}]
http: unix:http.sock:mode=600
reload: signal
journal: {{{{dir: journal, max_bytes: 0, spill_dir: false}}}}
backends:
  one: {{{{{backend}}}}}
"""


class Sink(BaseHTTPRequestHandler):
    """Takes all, and keeps nothing."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


def requests(signal: Signal, records: int, size: int, as_json: bool) -> Iterator[bytes]:
    """Packed bodies, each like no other."""
    resource = Resource(attributes_of({"service.name": "queue-service", "host.name": "fab1", "process.pid": 4711}))
    scope = Scope("benchmark")
    for first in range(0, records, size):
        numbers = range(first, first + size)
        request: Logs | Traces = Logs([ResourceLogs(resource, [ScopeLogs(scope, [log(one) for one in numbers])])])
        if signal == "traces":
            request = Traces([ResourceSpans(resource, [ScopeSpans(scope, [span(one) for one in numbers])])])
        yield gzip.compress(msgspec.json.encode(request) if as_json else protobuf.encode(signal, request), 1)


def log(number: int) -> LogRecord:
    said = {"file": f"lot-{number % 97}.csv", "rows": number, "tool": "etcher-3"}
    body, time = value_of(f"wafer {number} of lot {number % 97} read"), str(TIME + number * 1000)
    return LogRecord(
        time, time, 9, "INFO", "", body, attributes_of(said), f"{number // 500 + 1:032x}", f"{number + 1:016x}"
    )


def span(number: int) -> Span:
    said = {"file": f"lot-{number % 97}.csv", "rows": number, "tool": "etcher-3"}
    start = TIME + number * 1000
    ids = f"{number // 500 + 1:032x}", f"{number + 1:016x}", f"{number // 500 * 500 + 1:016x}"
    return Span(*ids, "read", 1, str(start), str(start + 1_500_000), attributes_of(said))


def cpu(pid: int) -> float:
    """Seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory(pid: int) -> int:
    """Its peak in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) >> 10


def send(port: int, signal: Signal, bodies: list[bytes], as_json: bool) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    kind = "application/json" if as_json else "application/x-protobuf"
    for body in bodies:
        connection.request("POST", f"/v1/{signal}", body, {"Content-Type": kind, "Content-Encoding": "gzip"})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200, answer.status
    connection.close()


@contextmanager
def collector(through: bool, sink: str, encoding: str) -> Iterator[tuple[int, int, Callable[[], object]]]:
    """(pid, port, what waits until all is done)."""
    with tempfile.TemporaryDirectory(prefix="wafermon-otlp-") as directory:
        port, config = free_port(), Path(directory) / "config.yaml"
        exporter = "otlp_http" if through else "file"
        config.write_text(
            COLLECTOR.format(port=port, sink=sink, exporter=exporter, encoding=encoding.replace("protobuf", "proto"))
        )
        process = subprocess.Popen(
            [str(program("otelcol")), "--config", f"file:{config}"], cwd=directory, stdin=subprocess.DEVNULL
        )
        try:
            until(lambda: f"0100007F:{port:04X} 00000000:0000 0A" in Path("/proc/net/tcp").read_text(), "a collector")
            yield process.pid, port, lambda: None
        finally:
            process.kill()
            process.wait()


@contextmanager
def sidecar(through: bool, sink: str, encoding: str) -> Iterator[tuple[int, int, Callable[[], object]]]:
    with tempfile.TemporaryDirectory(prefix="wafermon-otlp-") as directory:
        port = free_port()
        files = 'plugin: filesystem, path: "logs/{{service}}.jsonl"'
        backend = f'plugin: otlp, url: "{sink}", encoding: {encoding}, signals: [logs, traces]' if through else files
        with Daemon(Path(directory), SIDECAR.format(otlp=port, backend=backend)) as daemon:
            assert daemon.process is not None
            yield daemon.process.pid, port, lambda: wafermon("drain", "--http", f"unix://{directory}/http.sock")


def measure(records: int, rounds: int, sink: str) -> None:
    print(f"{'':34} {'wafermon':>10} {'collector':>10}   us of CPU per record (peak MiB)")
    for through in (False, True):
        for signal, size, encoding in (
            ("logs", 512, "protobuf"), ("logs", 5000, "protobuf"), ("logs", 5000, "json"), ("traces", 512, "protobuf"), ("traces", 5000, "protobuf"),
        ):  # fmt: skip
            bodies = list(requests(signal, records, size, encoding == "json"))  # type: ignore[arg-type]
            whole = len(bodies) * size
            said = []
            for peer in (sidecar, collector):
                costs, peaks = [], []
                for _ in range(rounds):
                    with peer(through, sink, encoding) as (pid, port, finish):
                        before = cpu(pid)
                        send(port, signal, bodies, encoding == "json")  # type: ignore[arg-type]
                        finish()
                        costs.append((cpu(pid) - before) / whole * 1e6)
                        peaks.append(memory(pid))
                said.append(f"{statistics.median(costs):5.1f} ({max(peaks)})")
            name = f"{'through' if through else 'in'}, {signal} by {size}, {encoding}"
            print(f"{name:34} {said[0]:>10} {said[1]:>10}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sink", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.sink:
        ThreadingHTTPServer(("127.0.0.1", given.sink), Sink).serve_forever()
        return
    port = free_port()
    server = subprocess.Popen([sys.executable, __file__, "--sink", str(port)])
    try:
        until(lambda: f"0100007F:{port:04X} 00000000:0000 0A" in Path("/proc/net/tcp").read_text(), "a sink")
        measure(given.records, given.rounds, f"http://127.0.0.1:{port}")
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    main()
