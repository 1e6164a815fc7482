"""`wafermon run` at its edges: odd names, every signal, streams that are closed, full or left open by something in the background."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from commands import COMMAND, environment
from daemon import Daemon, until


def run(daemon: Daemon, job: str, *command: str, shell: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
    """`shell`: redirections that a shell makes before it runs this."""
    argv = [*COMMAND, "run", "--url", f"tcp://127.0.0.1:{daemon.port}", "--job", job, "--service", job, "--", *command]
    if shell:
        argv = ["bash", "-c", f'exec "$@" {shell}', "bash", *argv]
    return subprocess.run(argv, env=environment(), capture_output=True, text=True, timeout=60, check=False, **options)


def progress(daemon: Daemon, job: str) -> list[str]:
    """What became of the job, once it has ended."""

    def ended() -> list[str] | None:
        found = [line["status"] for line in daemon.stored(job) if line["type"] == "progress"]
        return found if found and found[-1] in ("done", "failed") else None

    statuses: list[str] = until(ended, f"the end of {job}")
    return statuses


@pytest.mark.parametrize("number", [34, 35, 40, 63, 64, signal.SIGKILL, signal.SIGSEGV])
def test_a_command_that_any_signal_ends_ends_its_job(daemon: Daemon, number: int) -> None:
    done = run(daemon, f"sig{int(number)}", "sh", "-c", f"kill -{int(number)} $$")
    assert (done.returncode, "Traceback" in done.stderr) == (128 + number, False)
    assert progress(daemon, f"sig{int(number)}")[-1] == "failed"


@pytest.mark.parametrize("name", ["g++", "my script.sh", "[", "a@b.sh", "größe.sh", "x" * 140, "wafermon"])
def test_a_command_of_any_name_runs(daemon: Daemon, tmp_path: Path, name: str) -> None:
    script = tmp_path / name
    script.write_text("#!/bin/sh\nexit 7\n")
    script.chmod(0o755)
    argv = [*COMMAND, "run", "--url", f"tcp://127.0.0.1:{daemon.port}", "--job", "named", "--", str(script)]
    done = subprocess.run(argv, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (7, "")


@pytest.mark.parametrize("closed", ["2>&-", "<&- 2>&-", "<&- >&- 2>&-", "<&-", ">&-"])
def test_closed_streams_hide_nothing_and_disturb_nothing(daemon: Daemon, closed: str) -> None:
    done = run(daemon, "closed", "sh", "-c", "echo to-stderr >&2; exit 5", shell=closed)
    assert done.returncode == 5
    assert progress(daemon, "closed")[-1] == "failed"
    assert "to-stderr" in [line.get("message") for line in daemon.stored("closed")]


def test_a_slow_reader_of_our_standard_error_gets_every_line(daemon: Daemon) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    argv = [*COMMAND, "run", "--url", f"tcp://127.0.0.1:{daemon.port}", "--job", "slow", "--service", "slow", "--"]
    process = subprocess.Popen([*argv, "sh", "-c", "seq 1 50000 >&2"], env=environment(), stderr=writing)
    os.close(writing)
    got = b""
    while data := os.read(reading, 4096):
        got += data
        time.sleep(0.001)
    os.close(reading)
    assert process.wait(30) == 0
    assert got.split() == [b"%d" % number for number in range(1, 50001)]


def test_what_is_left_in_the_background_goes_on(daemon: Daemon, tmp_path: Path) -> None:
    steps = tmp_path / "steps"
    script = f"(for i in 1 2 3; do sleep 0.3; echo line $i >&2; echo $i >>{steps}; done) >/dev/null & exit 3"
    assert run(daemon, "left", "bash", "-c", script).returncode == 3
    until(lambda: steps.exists() and steps.read_text().split() == ["1", "2", "3"], "the steps of what goes on")


def test_an_endless_writer_in_the_background_does_not_hold_the_end(daemon: Daemon, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    script = f"yes >&2 & echo $! >{pid}; exit 3"
    try:
        assert run(daemon, "endless", "bash", "-c", script).returncode == 3
        assert progress(daemon, "endless")[-1] == "failed"
    finally:
        os.kill(int(pid.read_text()), signal.SIGKILL)
