"""The `wafermon` command, run as a shell runs it, against a real sidecar."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from commands import start, wafermon
from daemon import ROOT, Daemon, until
from ports import free_port

CONFIG = """
listen: [tcp:0:interface=127.0.0.1]
backends:
  files: {plugin: filesystem, path: "logs/{service}.jsonl"}
"""


def url(daemon: Daemon) -> str:
    return f"tcp://127.0.0.1:{daemon.port}"


def stored(daemon: Daemon, service: str, count: int) -> list[dict[str, Any]]:
    """What the files hold of a service, once it is so much."""
    until(lambda: len(daemon.stored(service)) >= count, f"{count} messages of {service}")
    return daemon.stored(service)


# -- all of them


COMMANDS = ("", "bench", "check", "doctor", "drain", "jobs", "journal", "journal check", "journal list", "receipt", "replay", "run", "status",
            "schedules", "schedules pause", "schedules resume", "schedules test", "tail", "trace")  # fmt: skip
KINDS = ("send", "send event", "send metric", "send progress")


@pytest.mark.parametrize("command", [*COMMANDS, *KINDS])
def test_every_command_explains_itself(command: str) -> None:
    done = wafermon(*command.split(), "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Usage:")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["send", "event", "no service"],
        ["send", "event", "--service", "s", "--url", "http://x", "m"],
        ["send", "event", "--service", "s", "--context", "no equals sign", "m"],
        ["send", "event", "--service", "s", "--context", "k:=no json", "m"],
        ["send", "event", "--service", "wafermon", "reserved"],
        ["send", "metric", "--service", "s", "name", "no number"],
        ["send", "progress", "--service", "s", "job", "101"],
        ["run", "--job", "has spaces", "--", "true"],
        ["run", "--job", "job"],
        ["replay"],
        ["bench", "--messages", "0"],
        ["bench", "--url", "tcp://192.0.2.1:7411"],
        ["journal", "list", "/nonexistent"],
    ],
)
def test_wrong_usage_is_told_apart_from_failure(arguments: list[str]) -> None:
    done = wafermon(*arguments)
    assert done.returncode == 2
    assert "Error: " in done.stderr
    assert "Traceback" not in done.stderr


def test_the_client_for_shell_scripts_waits_for_no_twisted() -> None:
    script = "import sys, wafermon.cli as cli; cli.main(['send', 'event', '--help'], standalone_mode=False)"
    script += "; assert 'wafermon.cli.send' in sys.modules; print({'twisted', 'pydantic'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "set()", done.stderr


# -- check


def test_a_good_config(tmp_path: Path) -> None:
    config = tmp_path / "wafermon.yaml"
    config.write_text(CONFIG)
    done = wafermon("check", config)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{config}: good: 1 listener, backends files (filesystem)\n"


def test_every_fault_of_a_config(tmp_path: Path) -> None:
    config = tmp_path / "wafermon.yaml"
    config.write_text(CONFIG + "nonsense: 1\nlimits: {max_line_bytes: 5}\n")
    done = wafermon("check", config)
    assert (done.returncode, done.stdout) == (1, "")
    first, second = done.stderr.splitlines()
    assert first.startswith(f"{config}:5: nonsense: ")
    assert second.startswith(f"{config}:6: limits.max_line_bytes: ")


def test_a_config_that_is_not_there(tmp_path: Path) -> None:
    done = wafermon("check", tmp_path / "none.yaml")
    assert done.returncode == 1
    assert "none.yaml: can't be read: No such file" in done.stderr


# -- send


def test_what_is_sent_is_stored(daemon: Daemon) -> None:
    common = ["--url", url(daemon), "--service", "shell", "--trace", "job-1"]
    assert wafermon("send", "event", *common, "--context", "k=v=w", "--context", "n:=[5]", "-x").returncode == 2
    done = wafermon("send", "event", *common, "--level", "error", "--context", "k=v=w", "--context", "n:=[5]", "füll")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert wafermon("send", "metric", *common, "temp", "-3.5", "--unit", "Cel", "--tag", "zone=3").returncode == 0
    assert wafermon("send", "metric", *common, "count", "7", "--kind", "counter").returncode == 0
    assert wafermon("send", "progress", *common, "job-1", "40", "--status", "copying").returncode == 0
    event, metric, counter, progress = stored(daemon, "shell", 4)
    assert {key: event[key] for key in ("type", "level", "message", "context", "trace_id")} == {
        "type": "event", "level": "error", "message": "füll", "context": {"k": "v=w", "n": [5]}, "trace_id": "job-1",
    }  # fmt: skip
    assert (metric["name"], metric["value"], metric["unit"], metric["tags"]) == ("temp", -3.5, "Cel", {"zone": "3"})
    assert (counter["value"], counter["kind"]) == (7, "counter")
    assert (progress["job_id"], progress["percent"], progress["status"]) == ("job-1", 40, "copying")


def test_the_environment_says_where_and_who(daemon: Daemon) -> None:
    done = wafermon("send", "event", "hello", WAFERMON_URL=url(daemon), WAFERMON_SERVICE="cron")
    assert done.returncode == 0
    assert stored(daemon, "cron", 1)[0]["message"] == "hello"


def test_without_a_sidecar_the_message_stays_in_a_file_that_replay_sends(daemon: Daemon, tmp_path: Path) -> None:
    spill = tmp_path / "own-spill"
    nobody = f"tcp://127.0.0.1:{free_port()}"
    options = ["--service", "shell", "--url", nobody, "--timeout", "0.5"]
    done = wafermon("send", "event", *options, "kept", WAFERMON_SPILL_DIR=str(spill))
    (file,) = spill.iterdir()
    assert done.returncode == 1
    assert nobody in done.stderr
    assert str(file) in done.stderr
    assert wafermon("replay", "--url", url(daemon), file).returncode == 0
    assert [message["message"] for message in stored(daemon, "shell", 1)] == ["kept"]
    assert not list(spill.iterdir())


def test_a_message_that_nothing_could_keep_is_called_lost(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    options = ["--service", "s", "--url", f"tcp://127.0.0.1:{free_port()}", "--timeout", "0.2"]
    done = wafermon("send", "event", *options, "m", WAFERMON_SPILL_DIR=str(tmp_path / "file" / "spill"))
    assert done.returncode == 1
    assert "lost" in done.stderr


# -- run


def test_a_command_is_a_span_of_a_job(daemon: Daemon) -> None:
    script = f"""
import sys
sys.path.insert(0, {str(ROOT / "sdk/python")!r})
from monitoring_sdk import MonitoringSDK
with MonitoringSDK("inner") as sdk:
    sdk.log_event("info", "from within")
print("result")
print("first", file=sys.stderr)
sys.stderr.write("second, without an end")
sys.exit(3)
"""
    options = ["--job", "job-7", "--service", "outer", "--level", "warning", "--url", url(daemon)]
    done = wafermon("run", *options, "--", sys.executable, "-c", script, WAFERMON_URL=url(daemon))
    assert (done.returncode, done.stdout, done.stderr) == (3, "result\n", "first\nsecond, without an end")
    begun, span, first, second, resource, ended, end, failed = stored(daemon, "outer", 8)
    assert (begun["type"], begun["job_id"], begun["status"]) == ("progress", "job-7", "running")
    assert (span["type"], span["trace_id"], span["name"]) == ("span_start", "job-7", Path(sys.executable).name)
    assert (first["level"], first["message"]) == ("warning", "first")
    assert second["message"] == "second, without an end"
    assert first["span_id"] == span["span_id"]
    assert (resource["type"], resource["mem"] > 0, resource["cpu"] > 0) == ("resource", True, True)
    assert (ended["level"], ended["message"], ended["context"]["status"]) == ("error", "exit status 3", 3)
    assert (end["type"], end["status"], end["span_id"]) == ("span_end", "error", span["span_id"])
    assert (failed["type"], failed["status"]) == ("progress", "failed")
    inner = stored(daemon, "inner", 1)[0]
    assert (inner["trace_id"], inner["span_id"]) == ("job-7", span["span_id"])


@pytest.mark.parametrize(
    "arguments, status, job",
    [
        (["true"], 0, "done"),
        (["sh", "-c", "kill -KILL $$"], 128 + 9, "failed"),
        (["no-such-command-anywhere"], 127, "failed"),
        (["/dev/null"], 126, "failed"),
        (["sh", "-c", "exit 41"], 41, "failed"),
    ],
)
def test_the_exit_status_is_the_job_s_end(daemon: Daemon, arguments: list[str], status: int, job: str) -> None:
    done = wafermon("run", "--job", "job-1", "--service", "run", "--url", url(daemon), "--", *arguments)
    assert done.returncode == status
    last = until(lambda: [m for m in daemon.stored("run") if m["type"] == "progress" and m["status"] != "running"])
    assert [message["status"] for message in last] == [job]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_are_passed_on(daemon: Daemon, number: signal.Signals) -> None:
    trap = f"trap 'echo got >&2; exit 5' {number.name[3:]}; echo ready; while :; do sleep 0.05; done"
    process = start("run", "--job", "job-1", "--service", "run", "--url", url(daemon), "--", "sh", "-c", trap)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.communicate(timeout=60)[1] == "got\n"
    assert process.returncode == 5


def test_what_a_command_leaves_running_is_not_waited_for(daemon: Daemon) -> None:
    script = "sleep 300 >/dev/null & echo $!; echo said >&2"
    done = wafermon("run", "--job", "job-1", "--service", "run", "--url", url(daemon), "--", "sh", "-c", script)
    os.kill(int(done.stdout), signal.SIGKILL)
    assert (done.returncode, done.stderr) == (0, "said\n")


def test_a_command_does_not_need_a_sidecar(tmp_path: Path) -> None:
    spill = tmp_path / "spill"
    nobody = f"tcp://127.0.0.1:{free_port()}"
    script = "echo out; echo err >&2; exit 4"
    done = wafermon("run", "--job", "j", "--url", nobody, "--", "sh", "-c", script, WAFERMON_SPILL_DIR=str(spill))
    assert (done.returncode, done.stdout, done.stderr) == (4, "out\n", "err\n")
    (file,) = spill.iterdir()
    assert b'"status":"failed"' in file.read_bytes()


# -- bench


def test_bench_prints_what_the_sidecar_took(daemon: Daemon) -> None:
    done = wafermon("bench", "--url", url(daemon), "--messages", "1001", "--connections", "3", "--size", "300")
    assert (done.returncode, done.stderr) == (0, "")
    first, rate, ack = done.stdout.splitlines()
    assert first.startswith("1001 messages of 300 bytes over 3 connections")
    assert rate.startswith("rate")
    assert ack.startswith("ack")
    messages = stored(daemon, "wafermon-bench", 1001)
    assert len({(message["client"], message["seq"]) for message in messages}) == len(messages) == 1001
    sizes = {len(line) for line in (daemon.directory / "logs/wafermon-bench.jsonl").read_bytes().splitlines()}
    assert max(sizes) <= 300 and min(sizes) > 280


def test_send_to_a_port_where_nobody_listens_says_so_at_once_and_keeps_the_message(tmp_path: Path) -> None:
    began = time.monotonic()
    done = wafermon(
        "send", "event", "--service", "sh", "--timeout", "600", "--url", f"tcp://127.0.0.1:{free_port()}", "hello",
        WAFERMON_SPILL_DIR=str(tmp_path),
    )  # fmt: skip
    assert time.monotonic() - began < 60, "it does not wait for --timeout"
    assert done.returncode == 1
    assert "can't be reached: Connection refused; it stays in" in done.stderr
    [file] = tmp_path.glob("*.ldjson")
    assert b"hello" in file.read_bytes()


def test_bench_without_a_sidecar() -> None:
    done = wafermon("bench", "--url", f"tcp://127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert "can't be reached" in done.stderr


# -- journal


def test_a_journal_is_left_alone_while_a_sidecar_runs_on_it(daemon: Daemon) -> None:
    for command in ("list", "check"):
        done = wafermon("journal", command, daemon.directory / "journal")
        assert done.returncode == 1
        assert daemon.process is not None
        assert f"in use by process {daemon.process.pid}; stop the sidecar first" in done.stderr


def test_a_directory_without_a_journal_stays_as_it_is(tmp_path: Path) -> None:
    done = wafermon("journal", "check", tmp_path)
    assert done.returncode == 1
    assert "holds no journal" in done.stderr
    assert not list(tmp_path.iterdir())


def test_what_a_journal_holds_and_whether_it_is_whole(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon:
        client = daemon.client()
        for seq in (1, 2, 3):  # a group each
            client.send([seq])
            client.until_acked(seq)
        client.drop()
        daemon.kill()
    journal = tmp_path / "journal"
    listed = wafermon("journal", "list", journal)
    assert listed.returncode == 0
    assert "cursor files: segment " in listed.stdout
    checked = wafermon("journal", "check", journal)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert f"{journal}: good: " in checked.stdout
    (segment,) = [path for path in journal.glob("*.segment") if b"message 2" in path.read_bytes()]
    whole = segment.read_bytes()

    segment.write_bytes(whole + b'{"type":"event","a group that')
    checked = wafermon("journal", "check", journal)
    assert checked.returncode == 0
    assert f"{segment}: ends in 29 unfinished bytes" in checked.stdout

    segment.write_bytes(whole.replace(b"message 2", b"massage 2"))
    checked = wafermon("journal", "check", journal)
    assert checked.returncode == 1
    assert checked.stderr.startswith(f"{segment}:")
    assert "1 faults, see journal check" in wafermon("journal", "list", journal).stdout
    segment.write_bytes(whole)
    assert wafermon("journal", "check", journal).returncode == 0
