"""The commands that ask a running sidecar over HTTP, run as a shell runs them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import start, wafermon
from daemon import until
from ports import free_port
from served import Served, job


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with Served(tmp_path) as running:
        yield running
    assert "Traceback" not in running.log(), running.log()


def ask(daemon: Served, *arguments: object) -> subprocess.CompletedProcess[str]:
    return wafermon(*arguments, WAFERMON_HTTP=f"http://127.0.0.1:{daemon.http_port}", COLUMNS="100")


def interrupt(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGINT)
    return process.communicate(timeout=30)[0]


@pytest.mark.parametrize("command", ["status", "jobs", "trace x", "tail", "drain"])
def test_where_nobody_answers_that_is_said_with_what_to_do(command: str) -> None:
    done = wafermon(*command.split(), "--http", f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "no sidecar answers at http://127.0.0.1:" in done.stderr
    assert "Connection refused" in done.stderr and "twistd -n wafermon" in done.stderr


@pytest.mark.parametrize("url", ["ftp://x", "http://x:99999", "unix://x", "127.0.0.1:7412"])
def test_an_address_that_is_none_is_wrong_usage(url: str) -> None:
    done = wafermon("status", "--http", url)
    assert done.returncode == 2
    assert "expected http://HOST:PORT, https://HOST:PORT or unix:///PATH" in done.stderr


def test_something_else_that_answers_is_told_from_a_sidecar() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        process = start("status", "--http", f"http://127.0.0.1:{other.getsockname()[1]}")
        connection, _ = other.accept()
        connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
        connection.close()
        _, error = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "no sidecar answers" in error and "Traceback" not in error


def test_status_of_a_ready_sidecar(served: Served) -> None:
    client = served.client()
    client.send(range(1, 11))
    client.until_acked(10)
    until(lambda: served.get("/api/status")["backends"]["files"]["delivered"] == 10, "delivered")
    done = ask(served, "status")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("wafermon 2.0.0: ready, up ")
    assert "10 accepted, 0 duplicate, 0 rejected" in done.stdout
    assert f"127.0.0.1:{served.port}" in done.stdout
    files = next(line for line in done.stdout.splitlines() if line.startswith("files"))
    assert files.split()[:8] == ["files", "ok", "0", "0", "B", "0", "s", "10"]
    found = json.loads(ask(served, "status", "--json").stdout)
    assert found["ready"] is True and found["messages"]["accepted"] == 10
    client.close()


def test_status_of_one_that_is_not_ready_says_why_and_fails(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("in the way")
    with Served(tmp_path) as served:
        client = served.client()
        client.send([1])
        client.until_acked(1)
        until(lambda: served.request("/health/ready")[0] == 503, "unready")
        done = ask(served, "status")
        assert done.returncode == 1
        assert "NOT READY" in done.stdout and "! the backend files fails: " in done.stdout
        assert "failing" in done.stdout and " since 20" in done.stdout
        assert json.loads(ask(served, "status", "--json").stdout)["problems"]
        client.close()


def test_status_again_and_again_with_rates(served: Served) -> None:
    process = start("status", "--watch", WAFERMON_HTTP=f"http://127.0.0.1:{served.http_port}")
    assert process.stdout is not None
    seen = ""
    while "/s)" not in seen:
        line = process.stdout.readline()
        assert line, "it ended"
        seen += line
    interrupt(process)
    assert seen.count("wafermon 2.0.0: ready") >= 2


def test_jobs_that_run_and_that_ended(served: Served) -> None:
    assert ask(served, "jobs").stdout == "no jobs\n"
    job(served, "job-1", status="failed")
    client = served.client()
    client.send_line({"type": "progress", "job_id": "job-2", "percent": 12.5, "service": "etl", "trace_id": "t",
                      "client": client.client, "seq": 1})  # fmt: skip
    client.until_acked(1)
    until(lambda: len(json.loads(ask(served, "jobs", "--json").stdout)) == 2, "both")
    header, second, first = ask(served, "jobs").stdout.splitlines()
    assert header.split() == ["JOB", "DONE", "STATUS", "SERVICE", "RUNS", "LAST", "HEARD", "TRACE"]
    assert first.split()[:7] == ["job-1", "100", "%", "failed", "loader", "3.0", "ms"]
    assert second.split()[:5] == ["job-2", "12.5", "%", "running", "etl"] and second.endswith("  t")
    assert "job-1" not in ask(served, "jobs", "--running").stdout
    assert "job-2" not in ask(served, "jobs", "--service", "load*").stdout
    assert len(json.loads(ask(served, "jobs", "--json", "--limit", 1).stdout)) == 1
    client.close()


def test_a_trace_as_a_waterfall(served: Served) -> None:
    job(served, "lot/1 ".strip())
    until(lambda: ask(served, "trace", "lot/1").returncode == 0, "the trace")
    shown = ask(served, "trace", "lot/1").stdout
    load, parse = (next(line for line in shown.splitlines() if name in line) for name in ("load  ", "└ parse"))
    assert load.split()[:4] == ["load", "loader", "error", "+0"] and "2.0 ms" in load
    assert parse.split()[:5] == ["└", "parse", "loader", "ok", "+100"] and "1.0 ms" in parse
    # the inner span took half of the outer one, and began a twentieth after it
    assert parse.count("█") == pytest.approx(load.count("█") / 2, abs=1)
    assert parse.index("█") > load.index("█")
    assert all(len(line) <= 100 for line in shown.splitlines())
    assert "parsed  rows=7" in shown
    assert json.loads(ask(served, "trace", "lot/1", "--json").stdout)["spans"][1]["depth"] == 1
    done = ask(served, "trace", "unknown")
    assert done.returncode == 1 and "nothing is known of" in done.stderr


def test_tail_shows_what_comes_and_no_control_characters(served: Served) -> None:
    environment = {"WAFERMON_HTTP": f"http://127.0.0.1:{served.http_port}"}
    people = start("tail", "--service", "a*", **environment)
    programs = start("tail", "--json", "--trace", "job-1", **environment)
    client = served.client()

    def both_watch() -> bool:
        # a message that one of them shows may have come before the other one watched
        client.seq = getattr(client, "seq", 0) + 1  # type: ignore[attr-defined]
        client.send([client.seq], service="abc", trace_id="job-1", message="hello\x1b[31m")  # type: ignore[attr-defined]
        client.until_acked(client.seq)  # type: ignore[attr-defined]
        return all(_readable(process) for process in (people, programs))

    until(both_watch, "both watching")
    client.send([client.seq + 1], service="other", message="not shown")  # type: ignore[attr-defined]
    client.until_acked(client.seq + 1)  # type: ignore[attr-defined]
    shown, lines = interrupt(people), interrupt(programs)
    assert "info      abc  hello\N{REPLACEMENT CHARACTER}[31m" in shown
    assert "\x1b" not in shown and "not shown" not in shown
    assert {json.loads(line)["trace_id"] for line in lines.splitlines()} == {"job-1"}
    client.close()


def _readable(process: subprocess.Popen[str]) -> bool:
    import select

    return bool(select.select([process.stdout], [], [], 0.1)[0])  # type: ignore[type-var]


def test_tail_ends_with_the_sidecar(served: Served) -> None:
    process = start("tail", WAFERMON_HTTP=f"http://127.0.0.1:{served.http_port}")
    client = served.client()
    seq = 0
    while not _readable(process):
        seq += 1
        client.send([seq])
        client.until_acked(seq)
    served.stop()
    _, error = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "ended the stream" in error or "no sidecar answers" in error
    served.start()


def test_drain_waits_until_the_backend_has_everything(served: Served) -> None:
    client = served.client()
    client.send(range(1, 3_001))
    client.until_acked(3_000)
    done = ask(served, "drain")
    assert (done.returncode, done.stdout) == (0, "all is delivered: nothing is pending for files\n")
    assert len(served.stored("test")) == 3_000
    found: dict[str, Any] = json.loads(ask(served, "drain", "--json", "--backend", "files").stdout)
    assert found["drained"] is True
    done = ask(served, "drain", "--backend", "nonsense")
    assert done.returncode == 1 and "no backend 'nonsense'; there are files" in done.stderr
    client.close()


def test_drain_shows_what_is_missing_and_gives_up(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("in the way")
    with Served(tmp_path) as served:
        client = served.client()
        client.send(range(1, 11))
        client.until_acked(10)
        done = ask(served, "drain", "--timeout", 1)
        assert done.returncode == 1
        assert "files: 10 messages pending" in done.stderr and "and fails: " in done.stderr
        assert "not drained within 1 s" in done.stderr
        os.unlink(tmp_path / "logs")
        assert ask(served, "drain").returncode == 0
        client.close()


def test_jobs_and_trace_say_what_they_leave_out(served: Served) -> None:
    client = served.client()
    ts = time.time_ns() // 1000
    seq = 0
    for number in range(60):
        seq += 1
        client.send_line({"type": "progress", "v": 2, "ts": ts, "service": "loader", "client": client.client, "seq": seq,
                          "job_id": f"job-{number}", "percent": 1})  # fmt: skip
    for number in range(1_100):
        seq += 1
        client.send_line({"type": "span_end", "v": 2, "ts": ts + number, "service": "loader", "client": client.client, "seq": seq,
                          "trace_id": "job-7", "span_id": f"{number + 1:016x}", "name": "step", "status": "ok", "start": ts, "duration": 5})  # fmt: skip
    for number in range(250):
        seq += 1
        client.send_line({"type": "event", "v": 2, "ts": ts + number, "service": "loader", "client": client.client, "seq": seq,
                          "trace_id": "job-7", "level": "info", "message": "m"})  # fmt: skip
    client.until_acked(seq)
    until(lambda: served.get("/api/jobs")["total"] == 60, "all jobs")
    until(lambda: served.get("/api/traces/job-7")["counts"].get("event") == 250, "all events")
    said = ask(served, "jobs").stdout
    assert "10 more jobs left out: --after " in said
    assert "left out" not in ask(served, "jobs", "--limit", "60").stdout
    assert "55 more jobs left out" in ask(served, "jobs", "--running", "--limit", "5").stdout
    as_json = ask(served, "jobs", "--json")
    assert len(json.loads(as_json.stdout)) == 50
    assert "10 more jobs left out" in as_json.stderr
    said = ask(served, "trace", "job-7").stdout
    assert "100 more spans that ended are left out: these are the 1,000 that came first" in said
    assert "50 earlier events are left out: these are the latest 200" in said
    client.close()
