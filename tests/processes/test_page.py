"""The live page as a running sidecar serves it, and its parts that compute, in Node.js."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from daemon import ROOT, until
from served import Served, job


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
