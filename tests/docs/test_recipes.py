"""The recipes of schedules and alerts are tried: each config is checked, and each command runs under its schedule, as cron, systemd or a shell
would run it."""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alarm_server import AlarmServer
from commands import environment, wafermon
from daemon import ROOT, until
from served import Served

PAGES = [ROOT / "docs" / name for name in ("schedules.md", "alerts.md")]
YAML = re.compile(r"^```yaml\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PLUGIN = re.compile(r"^`(wafermon/alerts/channels/\w+\.py)`:\n\n```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CRON = re.compile(r"^```\n(?:\S+ ){5} *(wafermon run .*)\n```$", re.MULTILINE)
SYSTEMD = re.compile(r"`ExecStart=(wafermon run [^`]*)`")
SHELL = re.compile(r"^```sh\n(wafermon send .*)\n```$", re.MULTILINE)
SERVED = """
listen: ["tcp:{port}:interface=127.0.0.1"{listen}]
http: tcp:{limits}:interface=127.0.0.1
reload: signal
journal: {{dir: journal, segment_bytes: 1MiB, max_bytes: 64MiB, spill_dir: spill}}
backends:
  files: {{plugin: filesystem, path: "logs/{{service}}.jsonl", batch: {{age: 20ms}}}}
"""


def text(page: str) -> str:
    return (ROOT / "docs" / page).read_text()


def blocks() -> Iterator[Any]:
    for page in PAGES:
        for number, block in enumerate(YAML.findall(page.read_text())):
            yield pytest.param(block, id=f"{page.stem}-{number}")


@pytest.mark.parametrize("block", [*blocks()])
def test_each_config_is_accepted(block: str, tmp_path: Path) -> None:
    for name, module in PLUGIN.findall(text("alerts.md")):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(module)
    config = tmp_path / "wafermon.yaml"
    config.write_text("backends: {files: {plugin: filesystem, path: 'logs/{service}.jsonl'}}\n" + block)
    done = wafermon("check", config, PAGERDUTY_KEY="k", PYTHONPATH=f"{ROOT}:{tmp_path}")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A sidecar with all schedules of the page."""
    found = [
        block.removeprefix("schedules:\n")
        for block in YAML.findall(text("schedules.md"))
        if block.startswith("schedules:")
    ]
    config = "schedules:\n" + "".join(found)
    with Served(tmp_path_factory.mktemp("served"), SERVED + config.replace("{", "{{").replace("}", "}}")) as one:
        until(lambda: one.get("/api/schedules")["total"] >= 3, "the schedules")
        yield one


def run(words: str, served: Served, directory: Path, *, status: int = 0) -> None:
    """As a shell does. In the place of the program that is to be run there is one that ends at once."""
    script = directory / "wafermon"
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m wafermon "$@"\n')
    script.chmod(0o755)
    words = re.sub(r" -- \S+", f" -- sh -c 'exit {status}'", words)
    variables = environment(WAFERMON_URL=f"tcp://127.0.0.1:{served.port}")
    variables["PATH"] = f"{directory}:{variables['PATH']}"
    done = subprocess.run(
        ["sh", "-c", words], env=variables, cwd=directory, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == status, done.stderr


def schedule(served: Served, name: str, host: str = "") -> dict[str, Any]:
    for one in served.get(f"/api/schedules?name={name}")["schedules"]:
        if one["host"] in ("", host):
            return dict(one)
    return {}


def last_run(served: Served, name: str, host: str = "") -> str:
    found = schedule(served, name, host).get("last_run") or {"run": ""}
    return str(found["run"])


def test_a_line_of_cron(served: Served, tmp_path: Path) -> None:
    [line] = CRON.findall(text("schedules.md"))
    run(line.replace("\\%", "%"), served, tmp_path)
    date = subprocess.run(["date", "+%F"], capture_output=True, text=True, check=True).stdout.strip()
    until(lambda: last_run(served, "nightly-load") == f"load-{date}", "the run of its schedule")
    assert "%" not in line.replace("\\%", ""), "cron reads a bare % as the end of the line"


def test_a_systemd_timer(served: Served, tmp_path: Path) -> None:
    [line] = SYSTEMD.findall(text("schedules.md"))
    host = socket.gethostname()
    run(line.replace("%H", host), served, tmp_path)
    until(lambda: last_run(served, "backup", host) == f"backup-{host}", "the run of its host")


def test_a_nightly_lot_and_a_queue(served: Served, tmp_path: Path) -> None:
    lot, queue = SHELL.findall(text("schedules.md"))
    run(lot, served, tmp_path)
    until(lambda: [one["run"] for one in schedule(served, "lots")["runs"]] == ["lot-4711"], "the lot's run")
    assert schedule(served, "lots")["runs"][0]["percent"] == 40
    run(queue, served, tmp_path)
    until(lambda: schedule(served, "queue")["last"], "the queue to be heard")
    assert schedule(served, "queue")["state"] == "running"


def test_what_fails_by_cron_or_systemd_comes_to_the_channel(tmp_path: Path) -> None:
    [cron], [systemd] = CRON.findall(text("alerts.md")), SYSTEMD.findall(text("alerts.md"))
    [block] = [one for one in YAML.findall(text("alerts.md")) if "nights:" in one]
    with AlarmServer() as server:
        config = block.replace("http://127.0.0.1:9000/", server.url).replace('match: {job: "nightly-*"}', "at_most: 0")
        with Served(tmp_path, SERVED + config.replace("{", "{{").replace("}", "}}")) as served:
            run(cron.replace("\\%", "%"), served, tmp_path, status=3)
            run(systemd.replace("%i", "db7"), served, tmp_path, status=4)
            until(lambda: len(server.bodies) == 2, "two alarms")
            assert [one["kind"] for one in server.bodies] == ["job_failed"] * 2
            assert [one["event"]["job_id"].partition("-")[0] for one in server.bodies] == ["nightly", "backup"]
