"""The live page as a running sidecar serves it, and its parts that compute, in Node.js."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from daemon import ROOT, until
from served import CONFIG, Served, job


def test_a_browser_gets_the_page_and_all_that_it_loads(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        status, body = served.request("/", Accept="text/html,*/*;q=0.8")
        assert status == 200
        wanted = re.findall(r'(?:src|href)="(/page/[^"]+)"', body.decode())
        seen: set[str] = set()
        while wanted:
            path = wanted.pop()
            if path not in seen:
                seen.add(path)
                status, body = served.request(path)
                assert status == 200, path
                wanted += [f"/page/{name}" for name in re.findall(r'from "\./([^"]+)"', body.decode())]
        assert {"/page/main.mjs", "/page/trace.mjs", "/page/page.css"} <= seen
        assert served.request("/")[1].startswith(b"wafermon\n")
    assert "Traceback" not in served.log(), served.log()


def test_what_the_page_computes() -> None:
    if shutil.which("node") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no node: apt-get install nodejs")
    tests = sorted((ROOT / "tests/page").glob("*.test.mjs"))
    assert tests
    done = subprocess.run(["node", "--test", *tests], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_stream_says_hello_then_what_changes(tmp_path: Path) -> None:
    with Served(tmp_path) as served, closing(http.client.HTTPConnection("127.0.0.1", served.http_port, timeout=60)) as connection:  # fmt: skip
        connection.request("GET", "/api/stream")
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("content-type")) == (200, "text/event-stream")
        events = read_events(answer)
        name, hello = next(events)
        assert name == "hello"
        assert hello["session"] is False
        job(served, "load-1")
        told = next(data for name, data in events if name == "changes" and data["jobs"])
        assert told["traces"] == ["load-1"]
        assert [(one["job_id"], one["percent"], one["state"]) for one in told["jobs"]] == [("load-1", 100.0, "done")]
        assert next(name for name, _ in events if name != "changes") == "alive"
        assert served.get("/api/status")["viewers"] == 1
    assert "Traceback" not in served.log(), served.log()


def test_many_viewers_are_all_told(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        streams = [http.client.HTTPConnection("127.0.0.1", served.http_port, timeout=60) for _ in range(25)]
        for each in streams:
            each.request("GET", "/api/stream")
        answers = [each.getresponse() for each in streams]
        until(lambda: served.get("/api/status")["viewers"] == 25, "25 viewers")
        job(served, "load-1")
        for answer in answers:
            told = next(data for name, data in read_events(answer) if name == "changes" and data["jobs"])
            assert told["jobs"][0]["job_id"] == "load-1"
        for each in streams:
            each.close()
        until(lambda: served.get("/api/status")["viewers"] == 0, "no viewer")
    assert "Traceback" not in served.log(), served.log()


def read_events(answer: http.client.HTTPResponse) -> Iterator[tuple[str, Any]]:
    name = ""
    while line := answer.readline():
        if line.startswith(b"event: "):
            name = line[7:].decode().strip()
        elif line.startswith(b"data: "):
            yield name, json.loads(line[6:])


def test_dead_letters_are_shown_with_their_reason_and_file(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        assert served.get("/api/dead-letters")["letters"] == []
        client = served.client()
        client.send_line(b'{"v": 2, "type": "nonsense", "service": "s"}')
        client.send_line(b"\xff\xfe")
        client.close()
        until(lambda: len(served.get("/api/dead-letters")["letters"]) == 2, "two letters")
        last, first = served.get("/api/dead-letters")["letters"]
        assert "line_base64" in last
        assert first["line"] == '{"v": 2, "type": "nonsense", "service": "s"}'
        assert first["reason"] and first["code"] == "unknown_type"
        assert Path(served.directory / first["file"]).is_file()
        assert len(served.get("/api/dead-letters?limit=1")["letters"]) == 1
        assert served.request("/api/dead-letters?limit=x")[0] == 400


def test_a_browser_that_does_not_read_costs_a_bounded_buffer_and_is_told_that_it_missed_something(
    tmp_path: Path,
) -> None:
    jobs, steps = 250, 12
    config = CONFIG.replace(
        "http: tcp:{limits}:interface=127.0.0.1", 'http: ["tcp:{limits}:interface=127.0.0.1", "unix:http.sock"]'
    )
    assert config != CONFIG
    with Served(tmp_path, config) as served, closing(socket.socket(socket.AF_UNIX)) as slow:
        slow.connect(str(served.directory / "http.sock"))
        slow.sendall(b"GET /api/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with closing(http.client.HTTPConnection("127.0.0.1", served.http_port, timeout=60)) as reading:
            reading.request("GET", "/api/stream")
            events = read_events(reading.getresponse())
            until(lambda: served.get("/api/status")["viewers"] == 2, "two viewers")
            client, seq, told = served.client(), 0, 0
            for percent in range(steps):
                for number in range(jobs):
                    seq += 1
                    client.send_line(
                        {"v": 2, "type": "progress", "service": "loader", "client": client.client, "seq": seq,
                         "job_id": f"{number}-{'x' * 110}", "percent": percent, "status": "y" * 60}
                    )  # fmt: skip
                client.until_acked(seq)
                told += len(json.dumps(next(data for name, data in events if name == "changes" and data["jobs"])))
            client.close()
        # What the kernel took, and the step that it did not take whole: a small part of what the other one was told.
        slow.settimeout(60)
        got = b""
        while b"event: missed" not in got:
            got += slow.recv(1 << 20)
        before = got.partition(b"event: missed")[0]
        assert before.count(b"event: changes") < steps // 2
        assert len(before) < told // 2
    assert "Traceback" not in served.log(), served.log()
