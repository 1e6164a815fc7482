"""What docs/security.md promises of files, logs and rights."""

from __future__ import annotations

import json
import os
import pwd
import secrets
import stat
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from as_nobody import AS_NOBODY
from daemon import CONFIG, Client, Daemon, until
from sent_lines import BAD
from token_daemon import TokenDaemon

from wafermon.journal.clock import Known
from wafermon.journal.groups import Mark
from wafermon.journal.state import State
from wafermon.model.errors import printable


def test_nothing_is_open_to_others_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        daemon = Daemon(tmp_path)
        daemon.start()
    finally:
        os.umask(before)
    client = daemon.client()
    client.send(range(1, 20_001), trace_id="job-1")
    client.send_line(b"nonsense")
    client.until_acked(20_001)
    until(lambda: len(daemon.stored()) == 20_000 and daemon.letters())
    daemon.stop()
    for name in ("journal", "dead-letters", "logs"):
        for path in [tmp_path / name, *(tmp_path / name).rglob("*")]:
            mode = stat.S_IMODE(path.stat().st_mode)
            most = 0o640 if path.is_file() else 0o750 if name == "logs" else 0o700
            assert not mode & ~most, f"{path} has mode {mode:o}"


def test_what_clients_say_forges_no_log_line(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon:
        evil = "\x1b[2J\x07\r\n2026-01-01T00:00:00+0000 [wafermon#critical] forged\x9b31m\u2028"
        for _, line, *_ in BAD:
            daemon_line(daemon, line)
        for field in ("service", "client", "host", "sdk", "token", "v", "type", evil):
            hello = {"v": 2, "type": "hello", "client": secrets.token_hex(8), "service": "s", field: evil}
            daemon_line(daemon, json.dumps(hello).encode())
        for name in (f"a{evil.replace('/', '')}.1.{'a' * 16}.ldjson", f"forged\n.1.{'b' * 16}.ldjson"):
            path = tmp_path / "spill" / name
            path.write_text("nonsense\n")
            os.utime(path, (0, 0))
        time.sleep(6)
        log = daemon.log()
        assert "refused: bad_hello" in log
        assert "forged" not in log
        assert all(one == "\n" or one == "\t" or one.isprintable() for one in log)
        assert len(log.splitlines()) < 60


def daemon_line(daemon: Daemon, line: bytes) -> None:
    with daemon.bare() as connection, suppress(OSError):
        connection.sendall(line + b"\n")
        connection.shutdown(1)
        connection.makefile("rb").read()


def test_printable() -> None:
    assert printable("a\nb\x1b[m\x9b\u202e ü") == "a\\nb\\x1b[m\\x9b\\u202e ü"
    assert len(printable("x" * 10_000)) == 1001


def test_the_log_does_not_grow_with_what_clients_do_wrong(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon:
        for _ in range(300):
            daemon_line(daemon, b'{"v":2,"type":"hello"}')
        until(lambda: "more such lines are counted" in daemon.log())
        assert daemon.log().count("refused: bad_hello") <= 20


def test_marks_of_clients_that_are_gone_are_bounded(tmp_path: Path) -> None:
    state = State(tmp_path / "state.db", marks_max=100)
    for round_number in range(10):
        state.save({}, [Mark("", f"{round_number:08x}{number:08x}", 7) for number in range(30)], Known(round_number, 0))
    found = [state.mark("", f"{round_number:08x}{0:08x}") for round_number in range(10)]
    assert found[-3:] == [7, 7, 7]
    assert found[:6] == [0] * 6
    state.close()
    assert State(tmp_path / "state.db", marks_max=100).mark("", f"{9:08x}{29:08x}") == 7


def test_a_spill_file_of_a_program_that_had_a_token_counts_once(tmp_path: Path) -> None:
    with TokenDaemon(tmp_path, "first-token\n") as daemon:
        client = daemon.client(token="first-token")
        client.send(range(1, 51))
        client.until_acked(50)
        client.drop()
        path = tmp_path / "spill" / f"test.{2**22 - 1}.{client.client}.ldjson"
        path.write_text("".join(json.dumps(client.line(seq)) + "\n" for seq in range(41, 61)))
        os.utime(path, (time.time() - 40, time.time() - 40))
        until(lambda: not list(path.parent.iterdir()), "the spill file gone")
        until(lambda: len(daemon.stored()) >= 60)
        assert [line["seq"] for line in daemon.stored()] == list(range(1, 61))
        assert daemon.client(token="first-token", client=client.client).welcome["acked"] == 50, "nobody moved its mark"


@pytest.mark.skipif(os.getuid() != 0, reason="taking another user's id needs root")
def test_it_needs_no_rights(tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    for directory in (tmp_path, *tmp_path.parents[:3]):
        if directory != Path("/tmp"):
            directory.chmod(0o755)
    daemon = Daemon(tmp_path, listen=', "unix:w.sock:mode=660"')
    daemon.command = [sys.executable, "-c", AS_NOBODY.format(uid=nobody.pw_uid, gid=nobody.pw_gid)]
    for path in (tmp_path, tmp_path / "spill"):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    with daemon:
        client = daemon.client()
        client.send(range(1, 101))
        client.until_acked(100)
        until(lambda: len(daemon.stored()) == 100)
        Client(str(tmp_path / "w.sock")).drop()
        assert daemon.process is not None
        status = Path(f"/proc/{daemon.process.pid}/status").read_text()
        assert f"Uid:\t{nobody.pw_uid}\t{nobody.pw_uid}" in status
    assert "Traceback" not in daemon.log()


@pytest.mark.skipif(os.getuid() != 0, reason="giving a folder away needs root")
def test_a_spill_folder_of_our_name_that_another_user_made_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / f"wafermon-{os.getuid()}"
    with Daemon(tmp_path, CONFIG.replace("spill_dir: spill", f"spill_dir: {folder.name}")) as daemon:
        folder.mkdir()
        os.chown(folder, pwd.getpwnam("nobody").pw_uid, -1)
        client = "a" * 16
        event = {"type": "event", "service": "spilled", "level": "info", "message": "m", "client": client, "seq": 1}
        path = folder / f"spilled.{2**22 - 1}.{client}.ldjson"
        path.write_text(json.dumps(event) + "\n")
        os.utime(path, (0, 0))
        until(lambda: "belongs to another user" in daemon.log(), "a word in the log")
        assert path.exists()
        os.chown(folder, os.getuid(), -1)
        until(lambda: daemon.stored("spilled"), "the file's line, now that the folder is ours")
