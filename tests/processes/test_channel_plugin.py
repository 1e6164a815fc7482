"""A third party's channel, dropped into the package: the one of docs/alerts.md, in a real sidecar with a real place to send to."""

from __future__ import annotations

import json
import os
import re
import socketserver
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from commands import wafermon
from daemon import ROOT, Client, until
from ports import free_port
from served import Served

CONFIG = """
listen: ["tcp:{port}:interface=127.0.0.1"{listen}]
http: tcp:{limits}:interface=127.0.0.1
reload: signal
journal: {{dir: journal, segment_bytes: 1MiB, max_bytes: 64MiB, spill_dir: spill}}
backends:
  files: {{plugin: filesystem, path: "logs/{{service}}.jsonl", batch: {{age: 50ms}}}}
alerts:
  sign: {{plugin: line, endpoint: "tcp:127.0.0.1:PORT", at_most: 0}}
"""


def example() -> tuple[str, str]:
    """The module of the page: its path and its text."""
    [found] = re.findall(
        r"^`(wafermon/alerts/channels/\w+\.py)`:\n\n```python\n(.*?)^```$",
        (ROOT / "docs" / "alerts.md").read_text(),
        re.DOTALL | re.MULTILINE,
    )
    return found[0], found[1]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A directory on the import path that holds it, and a module that can't be loaded."""
    name, text = example()
    path = tmp_path / "site" / name
    path.parent.mkdir(parents=True)
    path.write_text(text)
    path.with_name("broken.py").write_text("import no_such_module_anywhere\n")
    return tmp_path / "site"


def environ(site: Path) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join([str(ROOT), str(site)])}


class Sign:
    """Keeps the lines that it gets. `answers` are the next ones; then `ok`."""

    def __init__(self, port: int) -> None:
        self.lines: list[dict[str, Any]] = []
        self.answers: list[bytes] = []
        sign = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                for line in self.rfile:
                    answer = sign.answers.pop(0) if sign.answers else b"ok"
                    if answer == b"ok":
                        sign.lines.append(json.loads(line))
                    self.wfile.write(answer + b"\n")

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

        self._server = Server(("127.0.0.1", port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self) -> Sign:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def fail_job(client: Client, seq: int) -> None:
    body = {"type": "progress", "job_id": f"job-{seq}", "percent": 50, "status": "failed", "service": "etl"}
    client.send_line({**body, "client": client.client, "seq": seq})
    client.until_acked(seq)


def test_it_is_sent_alarms_in_order_over_failures_and_a_kill(tmp_path: Path, site: Path) -> None:
    port = free_port()
    served = Served(tmp_path, CONFIG.replace("PORT", str(port)))
    served.environ = environ(site)
    with served:
        client = served.client()
        for seq in (1, 2):
            fail_job(client, seq)
        until(lambda: served.get("/api/status")["alerts"]["sign"]["failed"] >= 1, "a try without a place")
        assert "can't connect: " in served.get("/api/status")["alerts"]["sign"]["error"]
        client.drop()
        served.kill()
        served.start()
        with Sign(port) as sign:
            sign.answers = [b"busy", b"ok", b"no such thing", b"ok"]
            client = served.client()
            fail_job(client, 3)
            until(lambda: len(sign.lines) == 2, "two of three; one is refused")
            assert [one["text"].partition(" of ")[0] for one in sign.lines] == ["job job-1", "job job-3"]
            assert len({one["id"] for one in sign.lines}) == 2
            until(lambda: served.get("/api/status")["alerts"]["sign"]["sent"] == 2, "their count")
            assert served.get("/api/status")["alerts"]["sign"]["refused"] == 1
            done = wafermon("alert", "test", "sign", "--http", f"http://127.0.0.1:{served.http_port}")
            assert done.returncode == 0, done.stderr
            assert [one["action"] for one in sign.lines[2:]] == ["trigger", "resolve"]
            client.close()
        assert "The channel plugin broken can't be loaded: ModuleNotFoundError" in served.log()


def test_its_keys_are_checked_as_all_others(tmp_path: Path, site: Path) -> None:
    config = tmp_path / "wafermon.yaml"
    text = "backends: {files: {plugin: filesystem, path: 'x/{service}.jsonl'}}\nalerts:\n  sign: {plugin: line, endpiont: x}\n"
    config.write_text(text)
    done = wafermon("check", config, **environ(site))
    assert done.returncode == 1
    assert f"{config}:3: alerts.sign.endpiont: " in done.stdout + done.stderr
    assert "did you mean 'endpoint'?" in done.stdout + done.stderr
    config.write_text(text.replace("endpiont: x", "endpoint: 'tcp:127.0.0.1:5000'"))
    done = wafermon("check", config, **environ(site))
    assert done.returncode == 0, done.stdout + done.stderr
    assert wafermon("check", config).returncode == 1, "without it on the path there is no such plugin"


def test_the_page_s_module_is_typed_as_the_interface_says(site: Path) -> None:
    code = (
        "from zope.interface.verify import verifyObject as v; from wafermon.interfaces import *; "
        "from wafermon.alerts.channels import find_channels; f = find_channels()['line']; v(IChannelFactory, f); "
        "v(IChannel, f.build(f.options(endpoint='tcp:h:1'), ChannelContext('sign', None)))"
    )
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **environ(site)}, check=True, timeout=120)
