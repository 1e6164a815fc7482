"""The receiver for OTLP in a real sidecar, asked by OpenTelemetry's own SDK and by hand."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from certificates import Authority
from collector import Taken
from commands import wafermon
from daemon import CONFIG, ROOT, Daemon, until
from jaeger_server import JaegerServer
from ports import free_port

from wafermon.wire.otlp import protobuf
from wafermon.wire.otlp.bodies import BODY_BYTES
from wafermon.wire.otlp.ids import trace_hex
from wafermon.wire.otlp.shapes import AnyValue, LogRecord, Logs, ResourceLogs, ScopeLogs

PROGRAM = ROOT / "tests" / "support" / "otel_program.py"
TIME = 1_795_500_000_000_000_000
JSON, PROTOBUF = "application/json", "application/x-protobuf"


class OtlpDaemon(Daemon):
    """A sidecar that also takes OTLP."""

    def __init__(self, directory: Path, more: str = "", scheme: str = "tcp", **config: Any) -> None:
        self.otlp_port = free_port()
        endpoint = f"{scheme}:{self.otlp_port}:interface=127.0.0.1"
        super().__init__(directory, listen=f', {{otlp: "{endpoint}"{more}}}', **config)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.otlp_port}"

    def post(
        self, body: bytes, media_type: str = JSON, path: str = "/v1/logs", method: str = "POST", **headers: str
    ) -> tuple[int, Any]:
        """The status, and what was answered."""
        status, answer, _ = self.ask(body, media_type, path, method, **headers)
        return status, json.loads(answer) if media_type == JSON or answer.startswith(b"{") else answer

    def ask(
        self, body: bytes, media_type: str = JSON, path: str = "/v1/logs", method: str = "POST", **headers: str
    ) -> tuple[int, bytes, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.otlp_port, timeout=60)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, body, {"Content-Type": media_type, **named})
            response = connection.getresponse()
            return response.status, response.read(), {name.lower(): one for name, one in response.getheaders()}
        finally:
            connection.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OtlpDaemon]:
    """One for many tests, each of which has services of its own."""
    with OtlpDaemon(tmp_path_factory.mktemp("otlp")) as running:
        yield running
        assert running.process is not None
        status = Path(f"/proc/{running.process.pid}/status").read_text()
        peak = next(line for line in status.splitlines() if "VmHWM" in line)
        assert int(peak.split()[1]) < 400_000, peak
    assert "Traceback" not in running.log(), running.log()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[OtlpDaemon]:
    with OtlpDaemon(tmp_path) as running:
        yield running
    assert "Traceback" not in running.log(), running.log()


def logs(*texts: str, service: str = "app", first: int = 0) -> dict[str, Any]:
    """A request as JSON has it; each record has a time of its own."""
    attributes = [{"key": "service.name", "value": {"stringValue": service}}]
    records = [
        {"timeUnixNano": str(TIME + (first + at) * 1000), "severityNumber": 9, "body": {"stringValue": text}}
        for at, text in enumerate(texts)
    ]
    return {"resourceLogs": [{"resource": {"attributes": attributes}, "scopeLogs": [{"logRecords": records}]}]}


def written(*texts: str, **more: Any) -> bytes:
    return json.dumps(logs(*texts, **more)).encode()


def in_protobuf(*texts: str) -> bytes:
    records = [LogRecord(time_unix_nano=TIME, body=AnyValue(string_value=text)) for text in texts]
    return protobuf.encode("logs", Logs([ResourceLogs(None, [ScopeLogs(None, records)])]))


def run_program(url: str, name: str, **environ: str) -> dict[str, str]:
    """OpenTelemetry's SDK for Python; answers with the ids that it used."""
    done = subprocess.run(
        [sys.executable, str(PROGRAM), url, name], capture_output=True, text=True, timeout=120,
        env={"PATH": os.environ["PATH"], **environ},
    )  # fmt: skip
    assert done.returncode == 0 and not done.stderr, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_a_program_of_opentelemetrys_python_sdk(shared: OtlpDaemon) -> None:
    said = run_program(shared.url, "py-app")
    stored = shared.stored("py-app") if until(lambda: len(shared.stored("py-app")) >= 7, "all of it") else []
    spans = {one["name"]: one for one in stored if one["type"] == "span_end"}
    assert {one["trace_id"] for one in spans.values()} == {said["trace"]}
    assert spans["inner"]["parent_id"] == spans["outer"]["span_id"] == said["outer"]
    assert "parent_id" not in spans["outer"]
    assert spans["outer"]["tags"] == {"wafers": 25, "good": "true"} and spans["outer"]["status"] == "ok"
    assert spans["inner"]["tags"] == {"kind": "client", "status.message": "it went wrong"}
    assert spans["inner"]["status"] == "error" and spans["inner"]["duration"] >= 0
    events = {one["message"]: one for one in stored if one["type"] == "event"}
    assert set(events) == {"from py-app", "ValueError: boom"}
    log = events["from py-app"]
    assert (log["level"], log["span_id"], log["context"]["lot"]) == ("warning", said["outer"], "L7")
    assert (events["ValueError: boom"]["level"], events["ValueError: boom"]["span_id"]) == (
        "error",
        spans["inner"]["span_id"],
    )
    metrics = {one["name"]: one for one in stored if one["type"] == "metric"}
    assert {name: one["value"] for name, one in metrics.items()} == {
        "wafers": 25,
        "seconds_count": 1,
        "seconds_sum": 0.5,
    }
    assert metrics["wafers"]["tags"] == {"tool": "x"} and metrics["wafers"]["unit"] == "{wafer}"
    assert {(one["host"], one["resource"]["line"]) for one in stored} == {("fab7", 7)}
    assert all(isinstance(one["pid"], int) for one in stored)


def test_its_counters_as_increments(shared: OtlpDaemon) -> None:
    run_program(shared.url, "py-delta", OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE="delta")
    until(lambda: len(shared.stored("py-delta")) >= 7, "all of it")
    kinds = {one["name"]: one.get("kind") for one in shared.stored("py-delta") if one["type"] == "metric"}
    assert kinds == {"wafers": "counter", "seconds_count": "counter", "seconds_sum": "counter"}


def test_a_child_of_a_job_falls_into_the_job(shared: OtlpDaemon) -> None:
    """The trace's id in TRACEPARENT is a hash of the job's; what comes with it is the job's all the same."""
    command = [sys.executable, "-m", "wafermon", "run", "--job", "load-4711", "--service", "runner", "--",
               sys.executable, str(PROGRAM), shared.url, "child"]  # fmt: skip
    environ = {**os.environ, "WAFERMON_URL": f"tcp://127.0.0.1:{shared.port}"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["trace"] == trace_hex("load-4711") != "load-4711"
    until(
        lambda: len(shared.stored("child")) >= 7 and any(one["type"] == "span_end" for one in shared.stored("runner")),
        "all",
    )
    spans = {one["name"]: one for one in shared.stored("child") if one["type"] == "span_end"}
    [run] = [one for one in shared.stored("runner") if one["type"] == "span_end"]
    assert {one["trace_id"] for one in spans.values()} == {"load-4711"}
    assert spans["outer"]["parent_id"] == run["span_id"]


def test_what_is_counted(tmp_path: Path) -> None:
    with OtlpDaemon(tmp_path, config=CONFIG.replace("http: false", "http: unix:http.sock:mode=600")) as daemon:
        for _ in range(2):
            daemon.post(written("x"))
        daemon.post(b"x")
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(tmp_path / "http.sock"))
            connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            shown = b"".join(iter(lambda: connection.recv(65_536), b"")).decode()
        for line in (
            "requests_total 1.0",
            "requests_repeated_total 1.0",
            'requests_refused_total{status="400"} 1.0',
            "messages_total 1.0",
        ):
            assert f"\nwafermon_otlp_{line}\n" in shown.replace("\r", ""), shown


def test_who_sends_is_among_the_clients(tmp_path: Path) -> None:
    """By its resource and its User-Agent; connected as long as its connection is there."""
    with OtlpDaemon(tmp_path, config=CONFIG.replace("http: false", "http: unix:http.sock:mode=600")) as daemon:
        site = ["--http", f"unix://{tmp_path}/http.sock"]

        def known(*more: str) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = json.loads(wafermon("clients", "--json", *more, *site).stdout)["clients"]
            return found

        with socket.create_connection(("127.0.0.1", daemon.otlp_port)) as connection:
            for first in (0, 10):
                body = written("a", "b", first=first)
                connection.sendall(
                    b"POST /v1/logs HTTP/1.1\r\nHost: x\r\nUser-Agent: my-exporter/1.2\r\n"
                    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
                )
                assert connection.recv(1_000).startswith(b"HTTP/1.1 200")
            [one] = known("--connected")
            said = {
                key: one[key] for key in ("service", "protocol", "sdk", "messages", "connections", "address", "called")
            }
            address = f"127.0.0.1:{connection.getsockname()[1]}"
            assert said == {"service": "app", "protocol": "otlp", "sdk": "my-exporter/1.2", "messages": 4, "connections": 1,
                            "address": address, "called": None}  # fmt: skip
        until(lambda: not known("--connected"), "that it is gone")
        assert [one["connected"] for one in known("--service", "app")] == [False]
        shown = wafermon("clients", *site).stdout
        assert [word in shown for word in ("my-exporter/1.2", "gone", "unnumbered")] == [True] * 3, shown
        state = wafermon("status", *site)
        assert "otlp         0 of 1 programs connected; 4 messages in 2 requests, 0 refused" in state.stdout
        many = [
            {"resource": {"attributes": [{"key": "service.name", "value": {"stringValue": f"s{n}"}}]},
             "scopeLogs": [{"logRecords": [{"body": {"stringValue": "x"}}]}]}
            for n in range(5_000)
        ]  # fmt: skip
        assert daemon.post(json.dumps({"resourceLogs": many}).encode())[0] == 200
        assert len(known("--limit", "10000")) == 101, "not all of one request"


# -- what a request may be like


def test_json_protobuf_and_gzip(shared: OtlpDaemon) -> None:
    assert shared.post(written("one", service="forms")) == (200, {})
    assert shared.post(gzip.compress(written("two", service="forms")), Content_Encoding="gzip") == (200, {})
    half = len(written("three", service="forms")) // 2
    parts = gzip.compress(written("three", service="forms")[:half]) + gzip.compress(
        written("three", service="forms")[half:]
    )
    assert shared.post(parts, Content_Encoding="GZIP") == (200, {})
    assert shared.post(written("four", service="forms"), f"{JSON}; charset=utf-8")[0] == 200
    assert shared.post(in_protobuf("five"), PROTOBUF) == (200, b"")
    assert shared.post(gzip.compress(in_protobuf("six")), PROTOBUF, Content_Encoding="gzip") == (200, b"")
    until(lambda: len(shared.stored("forms")) == 4 and len(shared.stored("unknown_service")) == 2, "all six")


def test_a_body_in_pieces(shared: OtlpDaemon) -> None:
    body = written("chunked", service="pieces")
    with socket.create_connection(("127.0.0.1", shared.otlp_port)) as connection:
        connection.sendall(
            b"POST /v1/logs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for byte in body:
            connection.sendall(b"1\r\n%c\r\n" % byte)
        connection.sendall(b"0\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
    until(lambda: shared.stored("pieces"), "the message")


BOMB = gzip.compress(b" " * (BODY_BYTES + 1))
MANY = b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[' + b",".join([b"{}"] * 2_000_000) + b"]}]}]}"


def nested(tag: bytes, content: bytes) -> bytes:
    """A field of protobuf."""
    return tag + protobuf._varint(len(content)) + content


REFUSED = [
    ("bad JSON", b'{"resourceLogs":[{"x"', {}, 400, "no JSON"),
    ("no request", b'{"resourceLogs":3}', {}, 400, "no such request"),
    ("a number that is none", b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"x"}]}]}]}', {}, 400, "not what it should be"),
    ("deep JSON", b'{"resourceLogs":' + b"[" * 100_000 + b"]" * 100_000 + b"}", {}, 400, ""),
    ("bad protobuf", b"\xff\xff\xff", {"media_type": PROTOBUF}, 400, "no protobuf"),
    ("bad gzip", b"no gzip at all", {"Content_Encoding": "gzip"}, 400, "no gzip"),
    ("gzip without an end", gzip.compress(b"{}")[:-9], {"Content_Encoding": "gzip"}, 400, "cut off"),
    ("an empty gzip", b"", {"Content_Encoding": "gzip"}, 400, "cut off"),
    ("another coding", b"{}", {"Content_Encoding": "br"}, 415, "send gzip"),
    ("another type", b"x", {"media_type": "text/plain"}, 415, "text/plain"),
    ("no type", b"x", {"media_type": ""}, 415, "application/x-protobuf"),
    ("another path", b"{}", {"path": "/v1/profiles"}, 404, "/v1/traces"),
    ("another method", b"", {"method": "GET"}, 405, "POST"),
    ("21 MiB", b" " * (21 << 20), {}, 413, "smaller requests"),
    ("a bomb", BOMB, {"Content_Encoding": "gzip"}, 413, "unpacked"),
    ("many values", gzip.compress(MANY), {"Content_Encoding": "gzip"}, 413, "values"),
    ("many values in protobuf", gzip.compress(nested(b"\n", nested(b"\x12", b"\x12\0" * (5 << 20)))),
     {"media_type": PROTOBUF, "Content_Encoding": "gzip"}, 413, "values"),
    ("a page in a browser", b"{}", {"Origin": "http://localhost"}, 403, "Origin"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "how", "status", "words"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_what_is_refused(shared: OtlpDaemon, body: bytes, how: dict[str, Any], status: int, words: str) -> None:
    found, answer, headers = shared.ask(body, **how)
    assert found == status, answer
    if how.get("media_type") == PROTOBUF:
        assert headers["content-type"] == PROTOBUF and words.encode() in answer
    else:
        assert words in json.loads(answer)["message"]
    assert shared.ask(b"{}")[0] == 200


def test_a_partial_success_says_what_was_refused_and_keeps_it(shared: OtlpDaemon) -> None:
    request = logs("good", "old", "good too", service="partial")
    [resource] = request["resourceLogs"]
    resource["scopeLogs"][0]["logRecords"][1]["timeUnixNano"] = "1000000"
    status, answer = shared.post(json.dumps(request).encode())
    assert (status, answer["partialSuccess"]["rejectedLogRecords"]) == (200, 1)
    assert "ts" in answer["partialSuccess"]["errorMessage"]
    until(lambda: len(shared.stored("partial")) == 2, "the good ones")
    letter = until(lambda: [one for one in shared.letters() if "old" in one["line"]], "a dead letter")[0]
    assert json.loads(letter["line"])["service"] == "partial"


OF_SPANS = {"resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "spans"}}]}}


def test_a_span_without_a_trace(shared: OtlpDaemon) -> None:
    span = {"name": "x", "spanId": "a" * 16, "startTimeUnixNano": str(TIME), "endTimeUnixNano": str(TIME)}
    body = json.dumps(
        {"resourceSpans": [{**OF_SPANS, "scopeSpans": [{"spans": [span, {**span, "traceId": "B" * 32}]}]}]}
    ).encode()
    _, answer = shared.post(body, path="/v1/traces")
    assert answer == {"partialSuccess": {"rejectedSpans": 1, "errorMessage": "trace_id: missing"}}
    [stored] = until(lambda: shared.stored("spans"), "the other one")
    assert stored["trace_id"] == "b" * 32


# -- again and again


def test_the_same_request_again_is_taken_once(shared: OtlpDaemon) -> None:
    for _ in range(3):
        assert shared.post(written("once", service="again")) == (200, {})
    assert shared.post(gzip.compress(written("once", service="again")), Content_Encoding="gzip") == (200, {})
    timeless = logs("now", service="again")
    del timeless["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]["timeUnixNano"]
    for _ in range(2):  # two that look alike and say no time may well be two
        shared.post(json.dumps(timeless).encode())
    until(lambda: len(shared.stored("again")) >= 3, "all of it")
    assert Counter(one["message"] for one in shared.stored("again")) == {"once": 1, "now": 2}


def test_what_was_answered_outlives_a_kill(daemon: OtlpDaemon) -> None:
    """Under load, killed again and again: each request whose answer was 200 is stored; what came again after a kill may be there twice."""
    answered: set[str] = set()
    stopping = threading.Event()

    def send(number: int) -> None:
        at = 0
        while not stopping.is_set():
            texts = [f"{number}-{at}-{one}" for one in range(20)]
            try:
                status, _ = daemon.post(written(*texts, first=at * 20))
            except (OSError, http.client.HTTPException):
                continue  # the same again, as senders do
            if status == 200:
                answered.update(texts)
                at += 1

    threads = [threading.Thread(target=send, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            before = len(answered)
            until(lambda before=before: len(answered) > before + 100, "some load")  # type: ignore[misc]
            daemon.kill()
            daemon.start()
        before = len(answered)
        until(lambda: len(answered) > before + 100, "load after it all")
    finally:
        stopping.set()
        for thread in threads:
            thread.join(60)
    until(lambda: answered <= {one["message"] for one in daemon.stored("app")}, "everything")
    counts = Counter(one["message"] for one in daemon.stored("app"))
    assert sum(count - 1 for count in counts.values()) <= 3 * 3 * 20


def test_a_full_journal_asks_senders_to_come_later(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where the directory should be")
    with OtlpDaemon(tmp_path, config=CONFIG.replace("64MiB", "4MiB")) as daemon:
        text = "x" * 60_000
        number = 0

        def is_full() -> bool:
            nonlocal number
            number += 1
            answer = []
            asking = threading.Thread(
                target=lambda: answer.append(daemon.ask(written(*[text] * 30, first=number * 30))), daemon=True
            )
            asking.start()
            asking.join(5)
            return bool(answer) and answer[0][0] == 429 and answer[0][2]["retry-after"] == "2"

        until(is_full, "a full journal", patience=120)
        (tmp_path / "logs").unlink()
        until(lambda: daemon.ask(written("after"))[0] == 200, "room")


def test_more_than_the_rate_limit_allows(tmp_path: Path) -> None:
    with OtlpDaemon(tmp_path, limits="limits: {messages_per_second: 10}") as daemon:
        assert daemon.post(written(*["x"] * 30))[0] == 200
        status, _, headers = daemon.ask(written("y", first=100))
        assert status == 429 and 1 <= int(headers["retry-after"]) <= 3
        until(lambda: daemon.ask(written("y", first=100))[0] == 200, "room")


# -- who may send


def test_a_unix_socket_and_its_users(tmp_path: Path) -> None:
    def ask(name: str) -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(tmp_path / name))
            connection.sendall(
                b"POST /v1/logs HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
            )
            return b"".join(iter(lambda: connection.recv(65_536), b"")).partition(b"\r\n")[0]

    listen = ', {{otlp: "unix:open.sock"}}, {{otlp: "unix:closed.sock", allow_users: [{other}]}}'
    with Daemon(tmp_path, listen=listen.format(other=os.getuid() + 1)):
        assert ask("open.sock").endswith(b" 200 OK") and ask("closed.sock").endswith(b" 401 Unauthorized")


def test_tokens(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("first\nsecond app-*\n")
    tokens.chmod(0o600)
    with OtlpDaemon(tmp_path, ", token_file: tokens") as daemon:
        status, answer, headers = daemon.ask(written("x"))
        assert (status, headers["www-authenticate"]) == (401, 'Bearer realm="wafermon"')
        assert "OTEL_EXPORTER_OTLP_HEADERS" in json.loads(answer)["message"]
        assert daemon.post(written("x"), Authorization="Bearer third")[0] == 401
        assert daemon.post(written("x"), Authorization="Bearer first") == (200, {})
        status, answer = daemon.post(written("y"), Authorization="Bearer second")
        assert (status, answer["partialSuccess"]["rejectedLogRecords"]) == (200, 1)
        assert daemon.post(written("z", service="app-1"), Authorization="Bearer second") == (200, {})
        tokens.write_text("other\n")
        until(lambda: daemon.post(written("w"), Authorization="Bearer first")[0] == 401, "a token that is gone")
        statuses = [daemon.post(written("x"), Authorization="Bearer guess")[0] for _ in range(20)]
        assert set(statuses) == {401, 429}
    assert "Traceback" not in daemon.log()


def test_tls_with_a_clients_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "fab")
    server, client = authority.issue("server", server=True), authority.issue("client")
    more = f", certificate: {server}, key: {server.with_suffix('.key')}, client_ca: {authority.path}"
    with OtlpDaemon(tmp_path, more, "tls") as daemon:
        url = f"https://127.0.0.1:{daemon.otlp_port}"
        found = {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(authority.path), "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": str(client),
                 "OTEL_EXPORTER_OTLP_CLIENT_KEY": str(client.with_suffix(".key"))}  # fmt: skip
        run_program(url, "py-tls", **found)
        until(lambda: len(daemon.stored("py-tls")) >= 7, "all of it")
        connection = http.client.HTTPSConnection("127.0.0.1", daemon.otlp_port, context=authority.context(), timeout=60)
        with pytest.raises((ssl.SSLError, OSError)):
            connection.request("POST", "/v1/logs", b"{}", {"Content-Type": JSON})
            connection.getresponse()
        connection.close()


def test_a_reload_opens_and_closes_it(daemon: OtlpDaemon) -> None:
    config = daemon.directory / "wafermon.yaml"
    with_it = config.read_text()
    assert daemon.process is not None
    config.write_text(with_it.replace(f', {{otlp: "tcp:{daemon.otlp_port}:interface=127.0.0.1"}}', ""))
    daemon.process.send_signal(signal.SIGHUP)

    def is_closed() -> bool:
        try:
            socket.create_connection(("127.0.0.1", daemon.otlp_port)).close()
        except ConnectionRefusedError:
            return True
        return False

    until(is_closed, "a closed port")
    config.write_text(with_it.replace("otlp:", "endpoint:"))  # the same port, for lines now
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: not is_closed(), "an open port")
    config.write_text(with_it)
    daemon.process.send_signal(signal.SIGHUP)

    def is_back() -> bool:
        try:
            return daemon.post(b"{}") == (200, {})
        except (OSError, http.client.HTTPException):
            return False

    until(is_back, "OTLP again")


# -- OpenTelemetry's other SDKs


def clients() -> Path:
    """What tests/otel-clients has made. Without it the test is skipped; in CI it fails."""
    said = subprocess.run([ROOT / "tests" / "otel-clients", "path"], capture_output=True, text=True, check=True)
    path = Path(said.stdout.strip())
    if not path.exists():
        problem = "OpenTelemetry's clients are missing: tests/otel-clients makes them"
        pytest.fail(problem) if os.environ.get("CI") else pytest.skip(problem)
    return path


MIXED = r"""
perl -I{root}/sdk/perl/lib -e '
  use MonitoringSDK; my $sdk = MonitoringSDK->new(service => "mixed-perl");
  my $span = $sdk->start_span("perl"); $sdk->log_event("info", "from perl"); $sdk->end_span($span); $sdk->close;' &&
java -Xshare:auto -cp '{clients}/java:{clients}/java/lib/*' Program {url} mixed-java &&
node {clients}/node/program.js {url} mixed-node protobuf &&
node {clients}/node/program.js {url} mixed-node-json json &&
Rscript -e 'source("{root}/sdk/r/monitoring_sdk.R"); sdk <- MonitoringSDK$new(service = "mixed-r")
  span <- sdk$start_span("r"); sdk$end_span(span); sdk$close()'
"""


def test_a_job_of_many_languages_is_one_trace(tmp_path: Path, taken: Taken, jaeger: JaegerServer) -> None:
    """Perl and R with wafermon's SDKs, Java and Node.js with OpenTelemetry's: under the job's id here, in one trace at the collector and in Jaeger."""
    otlp = f"\n  otlp: {{{{plugin: otlp, url: {taken.collector.url}, signals: [traces], resource: {{{{test.place: {taken.name}}}}}}}}}"
    otlp += f"\n  jaeger: {{{{plugin: otlp, url: {jaeger.url}, signals: [traces]}}}}"
    config = CONFIG.replace(
        "\nroutes: [{{to: [files]}}]", f"{otlp}\nroutes: [{{{{to: [files, otlp, jaeger]}}}}]"
    ).replace("http: false", "http: unix:http.sock:mode=600")
    with OtlpDaemon(tmp_path, config=config) as daemon:
        script = MIXED.format(root=ROOT, clients=clients(), url=daemon.url)
        command = [
            sys.executable,
            "-m",
            "wafermon",
            "run",
            "--job",
            "mixed-4711",
            "--service",
            "runner",
            "--",
            "sh",
            "-c",
            script,
        ]
        environ = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "WAFERMON_URL": f"tcp://127.0.0.1:{daemon.port}",
            "WAFERMON_SPILL_DIR": str(tmp_path / "spill"),
        }
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stderr
        names = {
            "mixed-perl": {"perl"},
            "mixed-r": {"r"},
            **{key: {"outer", "inner"} for key in ("mixed-java", "mixed-node", "mixed-node-json")},
        }

        def spans() -> list[dict[str, Any]]:
            return [one for name in [*names, "runner"] for one in daemon.stored(name) if one["type"] == "span_end"]

        until(lambda: len(spans()) == 9, "all spans")
        assert {one["trace_id"] for one in spans()} == {"mixed-4711"}
        assert {name: {one["name"] for one in spans() if one["service"] == name} for name in names} == names
        [run] = [one for one in spans() if one["service"] == "runner"]
        assert {one.get("parent_id") for one in spans() if one["name"] in ("perl", "outer", "r")} == {run["span_id"]}
        errors = [
            one for name in names for one in daemon.stored(name) if one["type"] == "event" and one["level"] == "error"
        ]
        assert len(errors) == 3 and all("boom" in one["message"] for one in errors)

        until(lambda: len(taken.spans()) == 9, "all spans at the collector")
        assert {span["traceId"] for _, span in taken.spans()} == {trace_hex("mixed-4711")}
        assert {of["service.name"] for of, _ in taken.spans()} == {*names, "runner"}

        until(lambda: len(jaeger.trace(trace_hex("mixed-4711"))[0]) == 9, "all spans in Jaeger")
        shown_spans, services = jaeger.trace(trace_hex("mixed-4711"))
        assert set(services.values()) == {*names, "runner"}
        by_id = {one["spanID"]: one for one in shown_spans}
        [root] = [one for one in shown_spans if not one["references"]]
        parents = {(services[one["processID"]], by_id[ref["spanID"]]["operationName"])
                   for one in shown_spans for ref in one["references"] if one["operationName"] != "inner"}  # fmt: skip
        assert parents == {(name, root["operationName"]) for name in names}
        # By the job's id, as a person looks for it there.
        [found] = jaeger.ask("/api/traces?service=runner&tags=" + quote('{"job.id":"mixed-4711"}'))
        assert len(found["spans"]) == 9

        shown = wafermon("clients", "--json", "--http", f"unix://{tmp_path}/http.sock")
        sdks = {one["service"]: one["sdk"] for one in json.loads(shown.stdout)["clients"]}
        assert sdks["mixed-java"].startswith("OTel-OTLP-Exporter-Java/"), sdks
        assert sdks["mixed-node"].startswith("OTel-OTLP-Exporter-JavaScript/"), sdks
        assert sdks["mixed-perl"].startswith("perl/") and sdks["mixed-r"].startswith("r/"), sdks

        shown = wafermon("trace", "mixed-4711", "--json", "--http", f"unix://{tmp_path}/http.sock")
        assert len(json.loads(shown.stdout)["spans"]) == 9, shown.stdout
    assert "Traceback" not in daemon.log()
