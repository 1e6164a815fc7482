"""Several HTTP ports, with TLS, tokens and client certificates: real sockets, a real daemon."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import Authority
from commands import COMMAND, environment, wafermon
from daemon import Daemon, until
from ports import free_port

CONFIG = """
listen: ["tcp:{port}:interface=127.0.0.1"]
http:
{limits}
reload: signal
journal: {{dir: journal, spill_dir: spill}}
backends:
  files: {{plugin: filesystem, path: "logs/{{service}}.jsonl", batch: {{age: 50ms}}}}
"""


class Ports(Daemon):
    """A daemon with what `entries` say under `http`; in them ``OPEN``, ``TLS`` and ``UNIX`` are places."""

    def __init__(self, directory: Path, *entries: str) -> None:
        self.open, self.secure = free_port(), free_port()
        self.authority = Authority(directory, "ours")
        self.authority.issue("server", server=True)
        (directory / "tokens").write_text("right\n")
        (directory / "tokens").chmod(0o600)
        super().__init__(directory, CONFIG, limits=self.lines(*entries))

    def lines(self, *entries: str) -> str:
        places = {
            "OPEN": f"endpoint: 'tcp:{self.open}:interface=127.0.0.1'",
            "TLS": f"endpoint: 'tls:{self.secure}:interface=127.0.0.1', certificate: server.pem, key: server.key",
            "UNIX": "endpoint: 'unix:http.sock'",
        }
        for place, said in places.items():
            entries = tuple(entry.replace(place, said) for entry in entries)
        return "\n".join(f"  - {{{entry}}}" for entry in entries)

    def reconfigure(self, *entries: str) -> None:
        """Put other ports in force."""
        text = CONFIG.format(port=self.port, limits=self.lines(*entries))
        (self.directory / "wafermon.yaml").write_text(text)
        count = self.log().count("is in force")
        self.hang_up()
        until(lambda: self.log().count("is in force") > count, "the new config")

    def hang_up(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    def connection(self, port: int, context: ssl.SSLContext | None = None) -> http.client.HTTPConnection:
        if context is not None:
            return http.client.HTTPSConnection("localhost", port, timeout=30, context=context)
        return http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def ask(self, port: int, path: str, context: ssl.SSLContext | None = None, **headers: str) -> tuple[int, str]:
        connection = self.connection(port, context)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def say(self, url: str, *arguments: str, **variables: str) -> tuple[int, str]:
        done = wafermon(*arguments, WAFERMON_HTTP=url, **variables)
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def ports(tmp_path: Path) -> Iterator[Ports]:
    with Ports(tmp_path, "OPEN, serve: [health, metrics]", "TLS, serve: [api, page], token_file: tokens") as running:
        yield running
    assert "Traceback" not in running.log(), running.log()


def test_each_port_serves_its_part(ports: Ports) -> None:
    trusting = ports.authority.context()
    assert ports.ask(ports.open, "/health/live") == (200, "live\n")
    assert ports.ask(ports.open, "/metrics")[0] == 200
    assert ports.ask(ports.open, "/api/status")[0] == 404
    assert ports.ask(ports.secure, "/api/status", trusting)[0] == 401
    assert ports.ask(ports.secure, "/api/status", trusting, Authorization="Bearer wrong")[0] == 401
    assert ports.ask(ports.secure, "/api/status", trusting, Authorization="Bearer right")[0] == 200
    assert ports.ask(ports.secure, "/metrics", trusting, Authorization="Bearer right")[0] == 404


def test_commands_take_the_token_and_the_authority_from_the_environment(ports: Ports) -> None:
    url, trust = f"https://localhost:{ports.secure}", {"WAFERMON_TLS_CA": str(ports.authority.path)}
    code, said = ports.say(url, "status", "--json", **trust, WAFERMON_HTTP_TOKEN="right")
    assert code == 0, said
    served = json.loads(said)["http"]
    assert [one["serve"] for one in served] == [["health", "metrics"], ["api", "page"]]
    code, said = ports.say(url, "status", **trust)
    assert code == 1
    assert "401" in said and "WAFERMON_HTTP_TOKEN" in said
    code, said = ports.say(url, "status", WAFERMON_HTTP_TOKEN="right")
    assert code == 1
    assert "WAFERMON_TLS_CA" in said
    code, said = ports.say(url, "status", WAFERMON_HTTP_TOKEN="two words")
    assert code == 2
    assert "WAFERMON_HTTP_TOKEN" in said


def test_doctor_finds_the_api_by_the_config(ports: Ports) -> None:
    done = subprocess.run(
        [*COMMAND, "doctor", "--config", "wafermon.yaml"],
        cwd=ports.directory, env=environment(), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "a sidecar 2" in done.stdout, done.stdout + done.stderr


def test_client_certificates_are_asked_for(tmp_path: Path) -> None:
    with Ports(tmp_path, "TLS, client_ca: ours-ca.pem") as ports:
        client = ports.authority.issue("client")
        assert ports.ask(ports.secure, "/api/status", ports.authority.context(client), Host="any.example")[0] == 200
        with pytest.raises((OSError, http.client.HTTPException)):
            ports.ask(ports.secure, "/api/status", ports.authority.context())
        files = {"WAFERMON_TLS_CA": str(ports.authority.path), "WAFERMON_TLS_CERT": str(client)}
        url = f"https://localhost:{ports.secure}"
        code, said = ports.say(url, "status", **files, WAFERMON_TLS_KEY=str(client.with_suffix(".key")))
        assert code == 0, said


def test_a_new_certificate_and_new_tokens_are_taken_without_a_reload(ports: Ports) -> None:
    other = Authority(ports.directory, "new")
    other.issue("server", server=True)
    (ports.directory / "tokens").write_text("newer\n")

    def served() -> bool:
        try:
            return ports.ask(ports.secure, "/api/status", other.context(), Authorization="Bearer newer")[0] == 200
        except ssl.SSLError:
            return False

    until(served, "the new certificate")
    assert ports.ask(ports.secure, "/api/status", other.context(), Authorization="Bearer right")[0] == 401


def test_a_stream_ends_with_its_token(ports: Ports) -> None:
    connection = ports.connection(ports.secure, ports.authority.context())
    connection.request("GET", "/api/tail", headers={"Authorization": "Bearer right"})
    answer = connection.getresponse()
    assert answer.readline() == b": watching\n"
    (ports.directory / "tokens").write_text("newer\n")
    with pytest.raises((OSError, http.client.HTTPException)):
        while answer.readline():
            pass
        raise http.client.HTTPException("it ended")
    connection.close()


def test_a_reload_swaps_ports_and_what_is_answered_goes_on(ports: Ports) -> None:
    tail = ports.connection(ports.secure, ports.authority.context())
    tail.request("GET", "/api/tail", headers={"Authorization": "Bearer right"})
    stream = tail.getresponse()
    kept = ports.connection(ports.open)
    kept.request("GET", "/health/live")
    assert kept.getresponse().read() == b"live\n"
    # The open port stays and serves more; the TLS port goes, with a stream that is under way.
    ports.reconfigure("OPEN", "UNIX, serve: [api]")
    kept.request("GET", "/api/status")
    assert kept.getresponse().status == 200, "the same connection"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", ports.secure), 5)
    client = ports.client()
    client.send([1])
    client.until_acked(1)
    while not (line := stream.readline()).startswith(b"data: "):
        assert line
    client.close()
    code, said = ports.say(f"unix://{ports.directory}/http.sock", "status")
    assert code == 0, said
    kept.close()
    tail.close()


def test_a_reload_that_takes_plain_http_to_tls_and_back_keeps_the_address(tmp_path: Path) -> None:
    with Ports(tmp_path, "OPEN") as ports:
        place = f"'tls:{ports.open}:interface=127.0.0.1'"
        ports.reconfigure(f"endpoint: {place}, certificate: server.pem, key: server.key")
        assert ports.ask(ports.open, "/api/status", ports.authority.context())[0] == 200
        ports.reconfigure("OPEN")
        assert ports.ask(ports.open, "/api/status")[0] == 200


def test_a_port_that_can_not_be_opened_changes_nothing(ports: Ports) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        text = CONFIG.format(
            port=ports.port, limits=ports.lines("OPEN", f"endpoint: 'tcp:{number}:interface=127.0.0.1'")
        )
        (ports.directory / "wafermon.yaml").write_text(text)
        ports.hang_up()
        until(lambda: "is refused" in ports.log(), "the refusal")
    assert ports.ask(ports.open, "/api/status")[0] == 404, "as it was"
    assert (
        f"can't serve HTTP on tcp:{number}"
        in json.loads(ports.ask(ports.open, "/health/ready")[1])["refused_config"]["faults"][0]
    )


def test_check_warns_of_an_api_that_the_network_reaches(tmp_path: Path) -> None:
    ports = Ports(tmp_path, "endpoint: 'tcp:7412'")
    done = wafermon("check", tmp_path / "wafermon.yaml")
    assert done.returncode == 0
    assert "http[0]: warning: tcp:7412 serves api and page to other machines without TLS and a token" in done.stderr
    for entry in ("endpoint: 'tcp:7412', serve: [health, metrics]", "OPEN", "UNIX", "TLS"):
        (tmp_path / "wafermon.yaml").write_text(CONFIG.format(port=ports.port, limits=ports.lines(entry)))
        done = wafermon("check", tmp_path / "wafermon.yaml")
        assert (done.returncode, done.stderr) == (0, "")
