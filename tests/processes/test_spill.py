"""Spill files of other users and of other pid namespaces reach a sidecar that is no root. Needs root to become them."""

from __future__ import annotations

import json
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from as_nobody import AS_NOBODY
from daemon import ROOT, until
from served import CONFIG, Served
from token_daemon import TokenDaemon

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="becoming other users needs root")

OWNER, PROGRAM = 65_533, 65_532
"""Users without an entry in /etc/passwd: the sidecar's, and a program's."""

SPILL = """
import fcntl, os, sys, time
path, seconds, user = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
os.setgroups([])
os.setgid(user)
os.setuid(user)
fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
os.fchmod(fd, 0o660)
fcntl.flock(fd, fcntl.LOCK_EX)
os.write(fd, sys.stdin.buffer.read())
os.utime(path, (time.time() - 40,) * 2)
print("written", os.getpid(), flush=True)
time.sleep(seconds)
"""


def event(client: str, seq: int, **fields: Any) -> bytes:
    line = {
        "type": "event",
        "service": "spilled",
        "level": "info",
        "message": "m",
        "client": client,
        "seq": seq,
        **fields,
    }
    return json.dumps(line).encode() + b"\n"


def spill(path: Path, data: bytes, *before: str, seconds: float = 0, user: int = PROGRAM) -> subprocess.Popen[bytes]:
    """A program of another user that writes a file, holds its lock for so long, and ends without saying so. `before` is
    what starts it."""
    program = subprocess.Popen(
        [*before, sys.executable, "-c", SPILL, str(path), str(seconds), str(user)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert program.stdin and program.stdout
    program.stdin.write(data)
    program.stdin.close()
    assert program.stdout.readline().startswith(b"written")
    return program


@pytest.fixture
def shared(public_path: Path) -> Iterator[Served]:
    """A sidecar of a user of its own, and the packaged folder."""
    daemon = Served(public_path, CONFIG)
    daemon.command = [sys.executable, "-c", AS_NOBODY.format(uid=OWNER, gid=OWNER)]
    for path in (public_path, public_path / "spill"):
        os.chown(path, OWNER, OWNER)
    (public_path / "spill").chmod(0o3777)
    with daemon:
        yield daemon
    assert "Traceback" not in daemon.log(), daemon.log()


def test_the_packaged_folder_is_as_these_tests_have_it() -> None:
    text = (ROOT / "deploy" / "tmpfiles.d" / "wafermon.conf").read_text()
    [line] = [line.split() for line in text.splitlines() if line.startswith("d /var/spool/wafermon")]
    assert line[2:5] == ["3777", "wafermon", "wafermon"]


def test_another_users_file_is_taken_up_once_its_program_has_gone(shared: Served) -> None:
    client = secrets.token_hex(8)
    path = shared.directory / "spill" / f"spilled.1.{client}.ldjson"
    program = spill(path, event(client, 1) + event(client, 2), seconds=600)
    other = secrets.token_hex(8)
    spill(path.with_name(f"spilled.1.{other}.ldjson"), event(other, 1)).wait()
    until(lambda: len(shared.stored("spilled")) == 1, "the file that is left")
    assert path.exists(), "its owner lives"
    program.kill()
    program.wait()
    until(lambda: len(shared.stored("spilled")) == 3, "the file of the program that was killed")
    assert list(path.parent.iterdir()) == []


def test_a_user_can_neither_read_nor_remove_anothers_file(shared: Served) -> None:
    client = secrets.token_hex(8)
    path = shared.directory / "spill" / f"spilled.1.{client}.ldjson"
    program = spill(path, event(client, 1), seconds=600)
    tried = subprocess.run(
        ["sh", "-c", f"cat {path}; rm -f {path}; mv {path} {path}.taken"],
        user=PROGRAM - 1, group=PROGRAM - 1, extra_groups=[], capture_output=True,
    )  # fmt: skip
    assert tried.returncode != 0
    assert tried.stdout == b""
    assert path.exists()
    program.kill()
    program.wait()


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
def test_process_1_of_another_pid_namespace(shared: Served) -> None:
    if subprocess.run(["unshare", "--pid", "--fork", "true"], capture_output=True).returncode:
        pytest.skip("this machine makes no pid namespaces")
    client = secrets.token_hex(8)
    path = shared.directory / "spill" / f"spilled.1.{client}.ldjson"
    inside = ("unshare", "--pid", "--fork")
    program = spill(path, event(client, 1), *inside, seconds=600)
    other = secrets.token_hex(8)
    spill(path.with_name(f"spilled.1.{other}.ldjson"), event(other, 1), *inside).wait()
    until(lambda: len(shared.stored("spilled")) == 1, "the file of the one that ended")
    assert path.exists(), "its lock holds across namespaces"
    [process_1] = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()
    os.kill(int(process_1), signal.SIGKILL)
    program.wait()
    until(lambda: len(shared.stored("spilled")) == 2, "the file of process 1")


def test_what_can_t_be_taken_is_counted_by_owner_and_logged_once_a_minute(shared: Served) -> None:
    folder = shared.directory / "spill"
    for number in range(3):
        path = folder / f"a.{number}.{secrets.token_hex(8)}.ldjson"
        path.symlink_to("/etc/passwd")
        os.chown(path, PROGRAM, PROGRAM, follow_symlinks=False)
    until(lambda: shared.get("/api/status")["spill"]["stuck"] == {str(PROGRAM): 3}, "the count in the status")
    assert shared.metrics()[f'wafermon_spill_files_stuck{{owner="{PROGRAM}"}}'] == 3
    assert shared.get("/api/status")["ready"], "any user could make it fail"
    client = secrets.token_hex(8)
    spill(folder / f"spilled.1.{client}.ldjson", event(client, 1)).wait()
    until(lambda: shared.stored("spilled"), "another file")
    assert shared.log().count("Spill files can't be taken up") == 1


def test_where_tokens_bind_services_a_file_speaks_for_what_its_owner_is_given(public_path: Path) -> None:
    daemon = TokenDaemon(public_path, "secret web-*\n")
    config = public_path / "wafermon.yaml"
    nobody = pwd.getpwnam("nobody").pw_uid
    config.write_text(
        config.read_text().replace("spill_dir: spill", f"spill_dir: spill, spill_owners: {{{nobody}: [cron]}}")
    )
    (public_path / "spill").chmod(0o3777)
    with daemon:
        client = secrets.token_hex(8)
        path = public_path / "spill" / f"payments.1.{client}.ldjson"
        data = event(client, 1, service="payments", level="critical") + event(client, 2, service="cron")
        spill(path, data, user=nobody).wait()
        until(lambda: daemon.stored("cron"), "what the owner may say")
        letters = until(daemon.letters, "what it may not")
    assert [(letter["code"], letter["seq"]) for letter in letters] == [("unauthorized", 1)]
    assert daemon.stored("payments") == []
