"""The wire protocol against a running sidecar."""

from __future__ import annotations

import fcntl
import json
import os
import re
import resource
import secrets
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from daemon import Client, Daemon, until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sent_lines import BAD


def cpu_seconds(daemon: Daemon) -> float:
    assert daemon.process is not None
    fields = Path(f"/proc/{daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss(daemon: Daemon) -> float:
    """MiB."""
    assert daemon.process is not None
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024


def test_welcome_ack_and_the_file(daemon: Daemon) -> None:
    client = daemon.client()
    assert client.welcome["v"] == 2
    assert client.welcome["acked"] == 0
    assert client.welcome["max_line"] == 65536
    assert re.fullmatch("[0-9a-f]{16}", client.welcome["sidecar"])
    client.send(range(1, 101))
    assert client.until_acked(100) == []
    until(lambda: len(daemon.stored()) == 100, "100 lines in the file")
    assert [line["seq"] for line in daemon.stored()] == list(range(1, 101))


def test_what_the_hello_said_is_spliced_in(daemon: Daemon) -> None:
    client = daemon.client(service="test", host="fab1", pid=4711)
    line = {"type": "progress", "job_id": "job-1", "percent": 5, "client": client.client, "seq": 1}
    client.send_line(line)
    client.until_acked(1)
    [stored] = until(daemon.stored, "a line in the file")
    assert abs(stored.pop("ts") - time.time() * 1e6) < 60e6
    assert stored == {**line, "service": "test", "host": "fab1", "pid": 4711, "trace_id": "job-1"}


def test_after_a_reconnect_the_same_lines_count_once(daemon: Daemon) -> None:
    client = daemon.client()
    client.send(range(1, 51))
    client.until_acked(50)
    client.drop()
    again = daemon.client(client=client.client)
    assert again.welcome["acked"] == 50
    again.send(range(41, 61))
    again.until_acked(60)
    until(lambda: len(daemon.stored()) >= 60, "60 lines in the file")
    assert [line["seq"] for line in daemon.stored()] == list(range(1, 61))


def test_marks_survive_sigkill(daemon: Daemon) -> None:
    client = daemon.client()
    client.send(range(1, 51))
    client.until_acked(50)
    daemon.kill()
    daemon.start()
    again = daemon.client(client=client.client)
    assert again.welcome["acked"] == 50
    assert again.welcome["sidecar"] == client.welcome["sidecar"]
    again.send(range(1, 61))
    again.until_acked(60)
    until(lambda: len(daemon.stored()) >= 60, "60 lines in the file")
    assert [line["seq"] for line in daemon.stored()] == list(range(1, 61))


def test_lines_that_are_all_known_are_acknowledged_again(daemon: Daemon) -> None:
    client = daemon.client()
    client.send(range(1, 11))
    client.until_acked(10)
    client.send(range(1, 11))
    client.until_acked(10)


def test_a_new_connection_of_a_client_closes_the_older_one(daemon: Daemon) -> None:
    older = daemon.client()
    newer = daemon.client(client=older.client)
    assert older.reply() == {}
    newer.send(range(1, 3))
    newer.until_acked(2)


def test_principals_keep_their_own_marks(tmp_path: Path) -> None:
    path = tmp_path / "wafermon.sock"
    with Daemon(tmp_path, listen=f', "unix:{path}:mode=660"') as daemon:
        client = daemon.client()
        client.send(range(1, 4))
        client.until_acked(3)
        other = Client(str(path), client=client.client)
        assert other.welcome["acked"] == 0
        assert oct(path.stat().st_mode)[-3:] == "660"
        other.send(range(1, 3))
        other.until_acked(2)


def test_a_gap_is_taken_and_a_jump_refused(daemon: Daemon) -> None:
    client = daemon.client()
    client.send([1, 5])
    client.until_acked(5)
    client.send([1_000_006])
    reply = client.reply()
    assert (reply["type"], reply["seq"], reply["code"]) == ("error", 1_000_006, "bad_message")
    client.send([6])
    client.until_acked(6)
    assert [letter["code"] for letter in until(daemon.letters)] == ["bad_message"]


def test_a_line_of_another_client_is_refused_and_moves_nothing(daemon: Daemon) -> None:
    client = daemon.client()
    client.send_line({**client.line(1), "client": "0" * 16})
    assert client.reply()["code"] == "bad_message"
    client.send([1, 2])
    client.until_acked(2)
    assert [line["seq"] for line in until(daemon.stored)] == [1, 2]


def test_errors_come_before_the_ack_that_covers_them(daemon: Daemon) -> None:
    client = daemon.client()
    lines = [json.dumps(client.line(seq, **({"level": "loud"} if seq % 3 == 0 else {}))) for seq in range(1, 301)]
    client.send_line("\n".join(lines).encode())
    errors: set[int] = set()
    acked = 0
    while acked < 300:
        reply = client.reply()
        if reply["type"] == "error":
            assert reply["seq"] > acked
            errors.add(reply["seq"])
        else:
            acked = reply["seq"]
            assert errors >= set(range(3, acked + 1, 3))
    assert errors == set(range(3, 301, 3))
    letters = until(lambda: len(daemon.letters()) == 100 and daemon.letters(), "100 dead letters")
    assert {letter["seq"] for letter in letters} == errors


@pytest.mark.parametrize(("data", "code", "detail"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_every_bad_line_gets_an_error_and_a_dead_letter_and_the_connection_lives(
    shared: Daemon, data: bytes, code: str, detail: str
) -> None:
    name = secrets.token_hex(8)
    client = shared.client(client=name, service="svc")
    other = data == {case[0]: case[1] for case in BAD}["another client"]
    data = data if other else data.replace(b"9f2c9f2c9f2c9f2c", name.encode())
    data = data.replace(b'"seq": 7', b'"seq": 1')
    client.send_line(data + b"\n" + json.dumps(client.line(2)).encode())
    [reply] = client.until_acked(2)
    assert (reply["type"], reply["seq"], reply["code"]) == ("error", 1, code)
    assert detail in reply["detail"]
    letters = until(lambda: [one for one in shared.letters() if one.get("client") == name or other], "the dead letter")
    assert letters[-1]["code"] == code
    client.drop()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with Daemon(tmp_path_factory.mktemp("shared")) as running:
        yield running
    assert "Traceback" not in running.log(), running.log()


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(st.lists(st.binary(max_size=40).map(lambda data: data.replace(b"\n", b"")), max_size=8))
def test_any_bytes_give_one_error_or_ack_a_line(shared: Daemon, lines: list[bytes]) -> None:
    client = shared.client()
    client.socket.sendall(
        b"".join(line + b"\n" for line in lines) + json.dumps(client.line(len(lines) + 1)).encode() + b"\n"
    )
    replies = client.until_acked(len(lines) + 1)
    assert [reply["seq"] for reply in replies] == list(range(1, len(lines) + 1))
    client.drop()


def test_nc_without_hello_is_served(daemon: Daemon) -> None:
    with daemon.bare() as connection:
        line = {"type": "metric", "service": "shell", "name": "n", "value": 1}
        connection.sendall(json.dumps(line).encode() + b"\r\nnonsense\n" + json.dumps({**line, "value": 2}).encode())
        connection.shutdown(socket.SHUT_WR)
        replies = [json.loads(reply) for reply in connection.makefile("rb")]
    assert [(reply["type"], reply["code"]) for reply in replies] == [("error", "bad_json")]
    assert "seq" not in replies[0]
    stored = until(lambda: len(daemon.stored("shell")) == 2 and daemon.stored("shell"))
    assert [one["value"] for one in stored] == [1, 2]


def test_a_cut_off_line_of_an_acknowledged_connection_leaves_nothing(daemon: Daemon) -> None:
    client = daemon.client()
    client.send([1])
    client.socket.sendall(json.dumps(client.line(2)).encode())
    assert {reply["type"] for reply in client.close()} == {"ack"}
    again = daemon.client(client=client.client)
    assert again.welcome["acked"] == 1
    assert daemon.letters() == []


def test_acks_come_after_the_client_has_shut_down_its_side(daemon: Daemon) -> None:
    client = daemon.client()
    client.send(range(1, 1001))
    assert client.close()[-1] == {"type": "ack", "seq": 1000}


def test_a_client_that_reads_nothing_is_served_in_bounded_memory(daemon: Daemon) -> None:
    client = daemon.client()
    before = rss(daemon)
    client.socket.settimeout(0.5)
    bad = b"x\n" * 30_000
    with pytest.raises(TimeoutError):
        for _ in range(200):
            client.socket.sendall(bad)
    assert rss(daemon) < before + 30
    other = daemon.client()
    other.send([1])
    other.until_acked(1)


@pytest.mark.parametrize(
    ("start", "word"),
    [(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP"), (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", "TLS")],
)
def test_what_is_not_the_protocol_gets_one_helpful_line_and_a_close(daemon: Daemon, start: bytes, word: str) -> None:
    with daemon.bare() as connection:
        connection.sendall(start)
        [line] = connection.makefile("rb").read().splitlines()
    assert word in json.loads(line)["detail"]
    assert daemon.letters() == []


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"v": 1}, "v: 1 is not spoken"),
        ({"v": "2"}, "v: expected int"),
        ({"client": "short"}, "client: expected 16"),
        ({"client": None}, "client: expected str"),
        ({"service": "a b"}, "service: "),
        ({"service": "wafermon"}, "service: 'wafermon' is reserved"),
        ({"pid": -3}, "pid: "),
        ({"ack": "yes"}, "ack: "),
    ],
)
def test_a_bad_hello_is_refused_with_the_field(daemon: Daemon, fields: dict[str, Any], detail: str) -> None:
    hello = {"v": 2, "type": "hello", "client": "a" * 16, "service": "s", "ack": True, **fields}
    with daemon.bare() as connection:
        connection.sendall(json.dumps(hello).encode() + b"\n" + b'{"type":"event"}\n')
        [line] = connection.makefile("rb").read().splitlines()
    reply = json.loads(line)
    assert reply["code"] == "bad_hello"
    assert detail in reply["detail"]


def test_a_later_version_is_welcomed_with_ours(daemon: Daemon) -> None:
    assert daemon.client(v=3).welcome["v"] == 2


def test_too_many_connections_are_refused(tmp_path: Path) -> None:
    with Daemon(tmp_path, limits="limits: {max_connections: 3}") as daemon:
        held = [until(lambda: _welcomed(daemon)) for _ in range(3)]
        with daemon.bare() as connection:
            [line] = connection.makefile("rb").read().splitlines()
        assert json.loads(line)["code"] == "too_many_connections"
        for client in held:
            client.send([1])
            client.until_acked(1)


def _welcomed(daemon: Daemon) -> Client | None:
    client = daemon.client()
    return client if client.welcome.get("type") == "welcome" else None


def test_a_silent_connection_is_closed(tmp_path: Path) -> None:
    with Daemon(tmp_path, limits="limits: {first_line: 1s, idle_timeout: 2s}") as daemon:
        with daemon.bare() as connection:
            [line] = connection.makefile("rb").read().splitlines()
            assert "no line within" in json.loads(line)["detail"]
        client = daemon.client()
        assert client.reply() == {}


def test_an_endless_line_is_skipped_to_its_newline_in_bounded_memory(daemon: Daemon) -> None:
    client = daemon.client()
    before = rss(daemon)
    for _ in range(500):
        client.socket.sendall(b"x" * 65536)
    client.socket.sendall(b"\n")
    client.send([2])
    replies = client.until_acked(2)
    assert [(reply["seq"], reply["code"]) for reply in replies] == [(1, "line_too_long")]
    assert rss(daemon) < before + 20
    [letter] = until(daemon.letters)
    assert letter["line"] == "x" * 65536


@pytest.mark.parametrize("size", [65536, 65537])
def test_the_longest_line_is_65536_bytes(daemon: Daemon, size: int) -> None:
    client = daemon.client()
    line = json.dumps(client.line(1, context={"fill": ""})).encode()
    line = line.replace(b'"fill": "', b'"fill": "' + b"x" * (size - len(line)))
    client.send_line(line)
    client.send([2])
    assert [reply["code"] for reply in client.until_acked(2)] == ["line_too_long"] * (size > 65536)


def test_the_first_line_may_be_too_long_too(daemon: Daemon) -> None:
    with daemon.bare() as connection:
        connection.sendall(b"y" * 100_000 + b'\n{"type":"resource","service":"shell"}\n')
        connection.shutdown(socket.SHUT_WR)
        replies = [json.loads(reply)["code"] for reply in connection.makefile("rb")]
    assert replies == ["line_too_long"]
    until(lambda: len(daemon.stored("shell")) == 1)


def test_partial_lines_of_all_connections_are_bounded(tmp_path: Path) -> None:
    with Daemon(tmp_path, limits="limits: {partial_bytes: 1MiB}") as daemon:
        clients = [daemon.client() for _ in range(40)]
        ended = 0
        for client in clients:
            client.socket.sendall(b"z" * 60_000)
            time.sleep(0.005)
        for client in clients:
            client.socket.settimeout(0.2)
            try:
                ended += client.reply() == {}
            except (TimeoutError, ConnectionResetError) as error:
                ended += isinstance(error, ConnectionResetError)
        assert 15 <= ended <= 30
        daemon.client()


def test_a_rate_limit_pauses_and_loses_nothing(tmp_path: Path) -> None:
    with Daemon(tmp_path, limits="limits: {messages_per_second: 200}") as daemon:
        client = daemon.client()
        begun = time.monotonic()
        client.send(range(1, 301))
        assert client.until_acked(300) == []
        client.send(range(301, 401))
        assert client.until_acked(400) == []
        assert time.monotonic() - begun > 1
        assert [line["seq"] for line in until(lambda: len(daemon.stored()) == 400 and daemon.stored())] == list(
            range(1, 401)
        )


def test_running_out_of_descriptors_does_not_spin(tmp_path: Path) -> None:
    import resource

    with Daemon(tmp_path) as daemon:
        assert daemon.process is not None
        first = daemon.client()
        used = len(list(Path(f"/proc/{daemon.process.pid}/fd").iterdir()))
        resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (used + 5, used + 5))
        more = [daemon.bare() for _ in range(60)]
        before = cpu_seconds(daemon)
        time.sleep(2)
        assert cpu_seconds(daemon) - before < 1
        first.send([1])
        for connection in more:
            connection.close()
        first.until_acked(1)
        until(lambda: _welcomed_or_none(daemon), "a welcome after the descriptors are free again")


def _welcomed_or_none(daemon: Daemon) -> Client | None:
    try:
        return _welcomed(daemon)
    except OSError:
        return None


def test_a_repeated_ack_comes_each_second_while_the_disk_does_not_answer(daemon: Daemon) -> None:
    assert daemon.process is not None
    client = daemon.client()
    client.send([1])
    client.until_acked(1)
    # No file may become larger than this: neither the segment in use nor a new one has room for what comes.
    resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (8 << 10, resource.RLIM_INFINITY))
    client.send(range(2, 502), context={"fill": "x" * 500})
    until(lambda: "Can't write to the journal" in daemon.log(), "a disk that takes nothing")
    replies = [client.reply() for _ in range(3)]
    assert {reply["type"] for reply in replies} == {"ack"}
    assert all(reply["seq"] < 501 for reply in replies)
    resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    client.until_acked(501)
    until(lambda: len(daemon.stored()) == 501, "everything in the file")


def test_spill_files_of_programs_that_are_gone_are_taken_up(daemon: Daemon) -> None:
    client = secrets.token_hex(8)
    folder = daemon.directory / "spill"
    path = folder / f"a.b.{os.getpid()}.{client}.ldjson"
    event = {"type": "event", "service": "spilled", "level": "info", "message": "m", "client": client}
    lines = [json.dumps({**event, "seq": seq}) for seq in range(1, 1001)]
    path.write_text("\n".join(lines) + '\n{"type":"ev')
    locked = {call: folder / f"a.1.{secrets.token_hex(8)}.ldjson" for call in (fcntl.flock, fcntl.lockf)}
    files = [file.open("w") for file in locked.values()]
    for call, file in zip(locked, files, strict=True):
        file.write(lines[0] + "\n")
        file.flush()
        call(file, fcntl.LOCK_EX)
    (folder / f"link.1.{secrets.token_hex(8)}.ldjson").symlink_to(locked[fcntl.flock])
    for old in (path, *locked.values()):
        os.utime(old, (time.time() - 40, time.time() - 40))
    until(lambda: not list(folder.glob(f"*{client}*")), "the spill file gone")
    stored = until(lambda: len(daemon.stored("spilled")) >= 1000 and daemon.stored("spilled"))
    assert [one["seq"] for one in stored] == list(range(1, 1001))
    assert all(file.exists() for file in locked.values())
    assert "without a newline" in daemon.log()
    for file in files:
        file.close()
