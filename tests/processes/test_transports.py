"""Each SDK reaches a real sidecar over every transport that it claims; docs/security.md and sdk/README.md say which."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from certificates import Authority
from commands import environment
from daemon import Daemon, until
from drivers import command_of
from ports import free_port

CLAIMED = {
    "tcp": ["python", "perl", "c", "r", "java"],
    "unix": ["python", "perl", "c", "java"],
    "tls": ["python", "perl", "c-tls", "java"],
}


def say(command: list[str], directory: Path, **variables: str) -> tuple[list[dict[str, object]], str]:
    """Three calls and a flush; the answers, and what came on stderr."""
    calls = [
        {"call": "open", "args": {"service": "transported"}},
        {"call": "log_event", "args": {"level": "info", "message": "by wire"}},
        {"call": "log_metric", "args": {"name": "n", "value": 1}},
        {"call": "log_progress", "args": {"job_id": "job-1", "percent": 5}},
        {"call": "flush", "args": {"timeout": 10}},
        {"call": "get_stats", "args": {}},
        {"call": "exit", "args": {}},
    ]
    done = subprocess.run(
        command,
        input="".join(json.dumps(call) + "\n" for call in calls),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment(WAFERMON_SPILL_DIR=str(directory), **variables),
    )
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.mark.parametrize(
    ("transport", "language"), [(transport, one) for transport, languages in CLAIMED.items() for one in languages]
)
def test_it_gets_through(tmp_path: Path, transport: str, language: str) -> None:
    command = command_of(language)
    if (transport, language) == ("tls", "perl") and subprocess.run(["perl", "-MIO::Socket::SSL", "-e1"]).returncode:
        pytest.skip("IO::Socket::SSL is not installed")
    spill, port = tmp_path / "of-the-sdk", free_port()
    spill.mkdir()
    authority, clients = Authority(tmp_path, "ours"), Authority(tmp_path, "clients")
    authority.issue("server", server=True)
    client = clients.issue("client")
    (tmp_path / "tokens").write_text("the-token transported\n")
    endpoint = {
        "tcp": f"tcp:{port}:interface=127.0.0.1",
        "unix": f"unix:{tmp_path}/w.sock",
        "tls": f"tls:{port}:interface=127.0.0.1",
    }[transport]
    files = ", certificate: server.pem, key: server.key, client_ca: clients-ca.pem" if transport == "tls" else ""
    url = {"tcp": f"tcp://127.0.0.1:{port}", "unix": f"unix://{tmp_path}/w.sock", "tls": f"tls://localhost:{port}"}
    trust = {
        "WAFERMON_TLS_CA": str(authority.path),
        "WAFERMON_TLS_CERT": str(client),
        "WAFERMON_TLS_KEY": str(client.with_suffix(".key")),
    }
    with Daemon(tmp_path, listen=f', {{endpoint: "{endpoint}", token_file: tokens{files}}}') as daemon:
        answers, stderr = say(command, spill, WAFERMON_URL=url[transport], WAFERMON_TOKEN="the-token", **trust)
        assert all(answer["ok"] for answer in answers), answers
        assert answers[4]["result"] is True, stderr
        assert answers[5]["result"]["acked"] == 3  # type: ignore[index]
        until(lambda: len(daemon.stored("transported")) == 3, "three lines in the file")
        assert list(spill.iterdir()) == []


def test_a_certificate_that_cant_be_used_is_said_once(tmp_path: Path) -> None:
    variables = {"WAFERMON_URL": "tls://127.0.0.1:1", "WAFERMON_TLS_CA": str(tmp_path / "no.pem")}
    answers, stderr = say(command_of("python"), tmp_path, **variables)
    assert answers[0]["ok"]
    assert stderr.count("can't use the files of WAFERMON_TLS_CA") == 1


def test_a_c_sdk_without_tls_says_once_how_to_get_it(tmp_path: Path) -> None:
    answers, stderr = say(command_of("c"), tmp_path, WAFERMON_URL="tls://127.0.0.1:1", WAFERMON_DISABLED="1")
    assert all(answer["ok"] for answer in answers), answers
    warning = "wafermon: built without TLS: make TLS=1; the default serves: tls://127.0.0.1:1\n"
    assert stderr == warning
