"""TLS, tokens and Unix sockets against a running sidecar, with certificates made here."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import ssl
import subprocess
import sys
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from daemon import PATIENCE, ROOT, Client, Daemon, until
from ports import free_port
from token_daemon import TokenDaemon

from wafermon.net.tokens import parse_tokens


def refusal(connect: Any) -> dict[str, Any]:
    """What a client hears that is not let in."""
    client: Client = connect()
    try:
        return client.welcome
    finally:
        client.drop()


# TLS


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


class TLSDaemon(Daemon):
    """With a second listener, which is TLS."""

    def __init__(self, directory: Path, authority: Authority, more: str = "") -> None:
        self.tls_port = free_port()
        self.authority = authority
        authority.issue("server", server=True)
        endpoint = f'endpoint: "tls:{self.tls_port}:interface=127.0.0.1"'
        files = f"certificate: server.pem, key: server.key{more}"
        super().__init__(directory, listen=f", {{{endpoint}, {files}}}")

    def tls(self, certificate: Path | None = None, **hello: Any) -> Client:
        return Client(("127.0.0.1", self.tls_port), tls=self.authority.context(certificate), **hello)


def test_lines_over_tls_are_acknowledged_and_stored(tmp_path: Path, authority: Authority) -> None:
    with TLSDaemon(tmp_path, authority) as daemon:
        client = daemon.tls()
        client.send(range(1, 2001))
        assert client.until_acked(2000) == []
        assert client.socket.version() in ("TLSv1.2", "TLSv1.3")  # type: ignore[attr-defined]
        client.socket.unwrap().close()  # type: ignore[attr-defined]
        until(lambda: len(daemon.stored()) == 2000, "2000 lines in the file")


def test_without_a_hello_a_last_line_counts_over_tls_too(tmp_path: Path, authority: Authority) -> None:
    with TLSDaemon(tmp_path, authority) as daemon:
        plain = socket.create_connection(("127.0.0.1", daemon.tls_port))
        with authority.context().wrap_socket(plain, server_hostname="localhost") as connection:
            connection.sendall(b'{"type":"metric","service":"shell","name":"n","value":1}\n')
            connection.sendall(b'{"type":"metric","service":"shell","name":"n","value":2}')
            connection.unwrap()
        stored = until(lambda: len(daemon.stored("shell")) == 2 and daemon.stored("shell"))
        assert [one["value"] for one in stored] == [1, 2]


def test_a_refusal_over_tls_can_be_read(tmp_path: Path, authority: Authority) -> None:
    with TLSDaemon(tmp_path, authority) as daemon:
        assert refusal(lambda: daemon.tls(client="short"))["code"] == "bad_hello"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_with_a_client_ca_only_its_certificates_come_in(
    tmp_path: Path, authority: Authority, version: ssl.TLSVersion
) -> None:
    clients = Authority(tmp_path, "clients")
    good = clients.issue("good")
    bad = {
        "missing": None,
        "of another authority": Authority(tmp_path, "strangers").issue("stranger"),
        "expired": clients.issue("expired", since=timedelta(days=2), ends=-timedelta(days=1)),
        "not valid yet": clients.issue("early", since=-timedelta(days=1), ends=timedelta(days=2)),
        "a server's": clients.issue("no-client", server=True),
    }
    with TLSDaemon(tmp_path, authority, ", client_ca: clients-ca.pem") as daemon:
        for why, certificate in bad.items():
            context = authority.context(certificate)
            context.minimum_version = context.maximum_version = version
            with pytest.raises((ssl.SSLError, ConnectionError)):  # with 1.3 the client hears of it when it reads
                refused = Client(("127.0.0.1", daemon.tls_port), tls=context)
                assert not refused.welcome, why
                raise ConnectionError
        client = daemon.tls(good)
        client.send(range(1, 11))
        client.until_acked(10)
        log = daemon.log()
        assert "certificate verify failed" in log
        assert "peer did not return a certificate" in log
        assert len(daemon.stored()) <= 10


def test_openssl_s_client_speaks_to_it(tmp_path: Path, authority: Authority) -> None:
    assert shutil.which("openssl")
    good = Authority(tmp_path, "clients").issue("good")
    line = b'{"type":"metric","service":"shell","name":"n","value":%d}\n'
    with TLSDaemon(tmp_path, authority, ", client_ca: clients-ca.pem") as daemon:
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{daemon.tls_port}", "-CAfile", str(authority.path)]
        command += ["-verify_return_error", "-quiet", "-no_ign_eof"]
        certificate = ["-cert", str(good), "-key", str(good.with_suffix(".key"))]
        done = subprocess.run([*command, *certificate], input=line % 1, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        until(lambda: len(daemon.stored("shell")) == 1, "the line in the file")
        subprocess.run(command, input=line % 2, capture_output=True, timeout=60, check=False)
        old = subprocess.run(
            [*command, *certificate, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
            input=line % 3, capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        assert old.returncode != 0
        time.sleep(0.5)
        assert [one["value"] for one in daemon.stored("shell")] == [1]


def test_a_new_certificate_is_shown_to_who_comes_next_and_drops_nobody(tmp_path: Path, authority: Authority) -> None:
    with TLSDaemon(tmp_path, authority) as daemon:
        client = daemon.tls()
        before = client.socket.getpeercert(True)  # type: ignore[attr-defined]
        other = Authority(tmp_path, "other").issue("swapped", server=True)
        (tmp_path / "server.key").write_text("not a key")
        until(lambda: "expected an unencrypted PEM private key" in daemon.log(), "the refusal of a bad key")
        daemon.tls().drop()
        other.with_suffix(".key").rename(tmp_path / "server.key")
        other.rename(tmp_path / "server.pem")
        until(lambda: "new connections get the new certificate" in daemon.log(), "the new certificate")
        trusting = ssl.create_default_context(cafile=str(tmp_path / "other-ca.pem"))
        newer = Client(("127.0.0.1", daemon.tls_port), tls=trusting)
        assert newer.socket.getpeercert(True) != before  # type: ignore[attr-defined]
        client.send(range(1, 11))
        assert client.until_acked(10) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("rm server.pem", "certificate server.pem: No such file or directory"),
        ("echo x > server.pem", "certificate server.pem: expected a PEM certificate chain"),
        ("cp other.key server.key", "key server.key does not belong to the certificate server.pem"),
        ("openssl ec -in server.key -aes128 -passout pass:x -out x && mv x server.key", "expected an unencrypted PEM"),
    ],
)
def test_files_that_are_no_certificate_keep_it_from_starting(
    tmp_path: Path, authority: Authority, change: str, message: str
) -> None:
    daemon = TLSDaemon(tmp_path, authority)
    authority.issue("other")
    subprocess.run(change, shell=True, cwd=tmp_path, check=True, capture_output=True)
    assert message in start_fails(daemon)


def start_fails(daemon: Daemon) -> str:
    """What is said by a sidecar that can't start."""
    command = [str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", "wafermon", "-c", "wafermon.yaml"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=daemon.directory, env=environ, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout + done.stderr


def test_an_expired_certificate_of_its_own_is_said(tmp_path: Path, authority: Authority) -> None:
    daemon = TLSDaemon(tmp_path, authority)
    authority.issue("server", server=True, since=timedelta(days=3), ends=-timedelta(days=1))
    with daemon:
        assert "server.pem expired on" in daemon.log()


def test_plain_lines_to_a_tls_port_get_in_nowhere(tmp_path: Path, authority: Authority) -> None:
    with TLSDaemon(tmp_path, authority) as daemon:
        with socket.create_connection(("127.0.0.1", daemon.tls_port)) as connection:
            connection.sendall(b'{"type":"metric","service":"shell","name":"n","value":1}\n')
            with suppress(ConnectionResetError):
                assert b"welcome" not in connection.recv(4096)
        until(lambda: "TLS failed" in daemon.log(), "a word in the log")
        assert daemon.stored() == []


# Tokens


def test_only_known_tokens_come_in(tmp_path: Path) -> None:
    with TokenDaemon(tmp_path) as daemon:
        client = daemon.client(token="first-token")
        client.send(range(1, 11))
        client.until_acked(10)
        for hello in ({}, {"token": ""}, {"token": "first"}, {"token": "first-token "}, {"token": "ö"}):
            told = refusal(lambda hello=hello: daemon.client(**hello))
            assert told["code"] == "unauthorized"
            assert "token" in told["detail"]
        with socket.create_connection(("127.0.0.1", daemon.token_port)) as bare:
            bare.sendall(b'{"type":"metric","service":"shell","name":"n","value":1}\n')
            [line] = bare.makefile("rb").read().splitlines()
        assert json.loads(line)["code"] == "unauthorized"
        with socket.create_connection(("127.0.0.1", daemon.token_port)) as bare:
            bare.sendall(b"x" * 70_000 + b"\n" + b'{"type":"metric","service":"shell","name":"n","value":1}\n')
            assert json.loads(bare.makefile("rb").readline())["code"] == "unauthorized"
        assert "unauthorized" in daemon.log()
        assert "first-token" not in daemon.log()
        assert daemon.stored("shell") == []
        assert daemon.letters() == []


def test_a_token_has_marks_of_its_own(tmp_path: Path) -> None:
    with TokenDaemon(tmp_path) as daemon:
        first = daemon.client(token="first-token")
        first.send(range(1, 11))
        first.until_acked(10)
        second = daemon.client(token="second-token", client=first.client, service="cron")
        assert second.welcome["acked"] == 0
        second.send([1], service="cron")
        second.until_acked(1)
        first.send([11])
        first.until_acked(11)
        state = b"".join(path.read_bytes() for path in (tmp_path / "journal").glob("state.db*"))
        assert b"first-token" not in state


def test_a_token_speaks_for_its_services_alone(tmp_path: Path) -> None:
    with TokenDaemon(tmp_path) as daemon:
        told = refusal(lambda: daemon.client(token="second-token", service="test"))
        assert told["code"] == "unauthorized"
        assert "'test'" in told["detail"]
        client = daemon.client(token="second-token", service="receiver-1")
        client.send([1], service="receiver-2")
        client.send([2], service="forged")
        client.send([3], service="cron")
        [told] = client.until_acked(3)
        assert (told["seq"], told["code"]) == (2, "bad_message")
        assert "'forged'" in told["detail"]
        client.send(range(4, 8), service="receiver-3")
        assert client.until_acked(7) == []
        until(lambda: len(daemon.stored()) == 6, "six lines in the files")
        assert daemon.stored("forged") == []
        assert [letter["code"] for letter in until(daemon.letters)] == ["bad_message"]


def test_a_changed_token_file_is_read_again(tmp_path: Path) -> None:
    with TokenDaemon(tmp_path) as daemon:
        first, second = daemon.client(token="first-token"), daemon.client(token="second-token", service="cron")
        daemon.tokens.write_text("second-token receiver-* cron\nthird-token\n")
        third = daemon.client(token="third-token")
        assert third.welcome["type"] == "welcome"
        assert refusal(lambda: daemon.client(token="first-token"))["code"] == "unauthorized"
        assert first.reply() == {}, "who has no token any more goes"
        for client, service in ((second, "cron"), (third, "test")):
            client.send([1], service=service)
            client.until_acked(1)
        daemon.tokens.write_text("third-token\nthird-token\n")
        until(lambda: "stands in an earlier line" in daemon.log(), "a word in the log")
        second.send([2], service="cron")
        second.until_acked(2)
        daemon.tokens.unlink()
        until(lambda: "tokens stay as they were" in daemon.log(), "a word in the log")
        assert daemon.client(token="third-token").welcome["type"] == "welcome"
        replaced = tmp_path / "new"
        replaced.write_text("second-token\n")
        replaced.rename(daemon.tokens)
        until(lambda: refusal(lambda: daemon.client(token="third-token")).get("code") == "unauthorized")
        assert second.reply() == {}, "what it may do has changed: it says hello again"


@pytest.mark.parametrize(
    ("tokens", "problem"),
    [
        ("", "token_file tokens: No such file or directory"),
        ("# nothing\n", "there is no token in it"),
        ("a\nb\na x\n", "line 3: this token stands in an earlier line, too"),
        ("tökén\n", "line 1: a token is printable ASCII without spaces"),
    ],
)
def test_a_token_file_that_is_none_keeps_it_from_starting(tmp_path: Path, tokens: str, problem: str) -> None:
    assert problem in start_fails(TokenDaemon(tmp_path, tokens))


def test_a_token_file_that_everybody_reads_is_said(tmp_path: Path) -> None:
    daemon = TokenDaemon(tmp_path)
    daemon.tokens.chmod(0o644)
    with daemon:
        assert "chmod o-r tokens" in daemon.log()


def test_one_token_a_line() -> None:
    tokens = parse_tokens("one\n  two  \n#three\n\nfour a-* b\r\n")
    assert [principal.services for principal in tokens.values()] == [None, None, ("a-*", "b")]
    assert len({principal.name for principal in tokens.values()}) == 3


# Unix sockets


def unix_daemon(directory: Path, more: str = "", mode: str = "", path: Path | None = None) -> Daemon:
    endpoint = f"unix:{path or directory / 'w.sock'}{mode and f':mode={mode}'}"
    return Daemon(directory, listen=f', {{endpoint: "{endpoint}"{more}}}')


def connected(path: Path) -> Client | None:
    try:
        return Client(str(path))
    except OSError:
        return None


@pytest.mark.parametrize(("mode", "found"), [("", 0o660), ("600", 0o600), ("666", 0o666)])
def test_a_socket_has_its_mode_whatever_the_umask(tmp_path: Path, mode: str, found: int) -> None:
    path = tmp_path / "w.sock"
    before = os.umask(0o000)
    try:
        daemon = unix_daemon(tmp_path, mode=mode)
        daemon.start()
    finally:
        os.umask(before)
    client = until(lambda: connected(path), "the socket")
    assert path.stat().st_mode & 0o777 == found
    client.send([1])
    client.until_acked(1)
    daemon.stop()
    assert not path.exists()


def test_what_a_killed_sidecar_left_is_taken_over_and_what_lives_is_not(tmp_path: Path) -> None:
    path = tmp_path / "w.sock"
    with unix_daemon(tmp_path) as daemon:
        daemon.kill()
        assert path.is_socket()
        daemon.start()
        until(lambda: connected(path), "the socket").drop()
        (tmp_path / "second").mkdir()
        second = unix_daemon(tmp_path / "second", path=path)
        assert f"another process listens on {path}" in start_fails(second)
        Client(str(path)).drop()


@pytest.mark.parametrize(
    ("prepare", "path", "problem"),
    [
        ("touch here", "here", "is no socket"),
        ("true", "no/such/w.sock", "there is no directory"),
        ("true", "w.sock", ""),
    ],
)
def test_a_socket_that_cant_be_made_says_why(tmp_path: Path, prepare: str, path: str, problem: str) -> None:
    subprocess.run(prepare, shell=True, cwd=tmp_path, check=True)
    if problem:
        assert problem in start_fails(unix_daemon(tmp_path, path=tmp_path / path))
    else:
        assert "no user 'nobody-here'" in start_fails(unix_daemon(tmp_path, ", owner: nobody-here"))
        assert "no group 'nobody-here'" in start_fails(unix_daemon(tmp_path, ", group: nobody-here"))
        assert "no user 'nobody-here'" in start_fails(unix_daemon(tmp_path, ", allow_users: [nobody-here]"))


needs_root = pytest.mark.skipif(os.getuid() != 0, reason="taking another user's id needs root")

AS_NOBODY = """
import os, socket, sys
os.setgid({gid}); os.setuid({uid})
connection = socket.socket(socket.AF_UNIX)
connection.connect({path!r})
connection.sendall(b'{{"v":2,"type":"hello","client":"aaaaaaaaaaaaaaaa","service":"test"}}\\n')
sys.stdout.write(connection.makefile().readline())
"""


def hello_as_nobody(path: Path) -> dict[str, Any]:
    nobody = pwd.getpwnam("nobody")
    code = AS_NOBODY.format(uid=nobody.pw_uid, gid=nobody.pw_gid, path=str(path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    return json.loads(done.stdout) if done.stdout else {"type": "none", "error": done.stderr}


def says(told: dict[str, Any], code: str, detail: str) -> bool:
    return told.get("code") == code and detail in told["detail"]


@pytest.fixture
def open_path(tmp_path: Path) -> Path:
    """A directory that everybody may enter."""
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_mode & 0o5 != 0o5:
            directory.chmod(0o755)
    return tmp_path


@needs_root
def test_owner_mode_and_the_peers_user(open_path: Path) -> None:
    path = open_path / "w.sock"
    nobody = pwd.getpwnam("nobody")
    with unix_daemon(open_path, ", owner: nobody, group: nogroup", mode="600") as daemon:
        until(lambda: connected(path), "the socket")
        assert (path.stat().st_uid, path.stat().st_gid) == (nobody.pw_uid, nobody.pw_gid)
        until(lambda: hello_as_nobody(path)["type"] == "welcome", "a welcome")
        daemon.stop()
    with unix_daemon(open_path, mode="600"):
        until(lambda: connected(path), "the socket")
        assert "PermissionError" in hello_as_nobody(path)["error"]
    with unix_daemon(open_path, f", allow_users: [{os.getuid()}]", mode="666"):
        until(lambda: connected(path), "the socket")
        words = ("unauthorized", f"user {nobody.pw_uid} may not connect here")
        until(lambda: says(hello_as_nobody(path), *words), "the refusal, read before the connection is cut")
        client = Client(str(path))
        client.send([1])
        client.until_acked(1)
    with unix_daemon(open_path, ", allow_users: [nobody]", mode="666"):
        until(path.exists, "the socket")
        until(lambda: hello_as_nobody(path)["type"] == "welcome", "a welcome")
        assert refusal(lambda: Client(str(path)))["code"] == "unauthorized"


# Rates


def test_a_rate_limit_holds_for_the_client_not_for_the_connection(tmp_path: Path) -> None:
    with Daemon(tmp_path, limits="limits: {messages_per_second: 100}") as daemon:
        client = daemon.client()
        client.send(range(1, 201))
        client.until_acked(200)
        begun = time.monotonic()
        client.drop()
        again = daemon.client(client=client.client)
        again.send([201])
        other = daemon.client()
        other.send([1])
        other.until_acked(1)
        assert time.monotonic() - begun < 1, "another client does not wait"
        again.until_acked(201)
        assert time.monotonic() - begun > 1, "a reconnect is no way around the limit"
