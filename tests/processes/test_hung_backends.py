"""A backend that hangs in its thread takes nobody along: not the other backends, not a reload, not the stop."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from daemon import ROOT, Daemon, until
from ports import free_port

PLUGIN = '''
import time
from pathlib import Path
from twisted.internet.threads import deferToThreadPool
from twisted.internet.defer import succeed
from zope.interface import implementer
from wafermon.interfaces import Health, IBackend, IBackendFactory


@implementer(IBackendFactory)
class StuckFactory:
    name = "stuck"

    def configure(self, options):
        return options["at"]

    def build(self, options, context):
        if options == "build":
            raise KeyError("no such bucket")
        return Stuck(options, context)


@implementer(IBackend)
class Stuck:
    """Hangs in one of its calls, as on a network mount that is gone, while the file `released` is not there."""

    def __init__(self, at, context):
        self._at, self._context = at, context

    def _call(self, name):
        if name != self._at:
            return succeed(None)
        return deferToThreadPool(self._context.reactor, self._context.pool, self._hang)

    def _hang(self):
        while not Path("released").exists():
            time.sleep(0.05)

    def open(self):
        return self._call("open")

    def write(self, batch):
        return self._call("write")

    def close(self):
        return self._call("close")

    def health(self):
        return Health("ok")


stuck = StuckFactory()
'''
CONFIG = """
listen: ["tcp:{{port}}:interface=127.0.0.1"]
http: tcp:{http}:interface=127.0.0.1
reload: signal
stop_within: {within}
journal: {{{{dir: journal, segment_bytes: 1MiB, max_bytes: 64MiB, spill_dir: spill}}}}
backends:
  files: {{{{plugin: filesystem, path: "logs/{{{{service}}}}.jsonl", batch: {{{{age: 50ms}}}}}}}}
{more}
dead_letters: {{{{dir: dead-letters}}}}
"""


class Hanging(Daemon):
    """With so many backends that hang in `at`."""

    def __init__(self, directory: Path, count: int, at: str, within: str = "4s") -> None:
        package = directory / "plugins" / "wafermon" / "backends"
        package.mkdir(parents=True)
        (package / "stuck.py").write_text(PLUGIN)
        self.http = free_port()
        lines = [f"  stuck{n}: {{{{plugin: stuck, at: {at}, timeout: 1s}}}}" for n in range(count)]
        super().__init__(directory, CONFIG.format(http=self.http, within=within, more="\n".join(lines)))
        self.environ["PYTHONPATH"] = f"{ROOT}:{directory / 'plugins'}"

    def status(self) -> dict[str, Any]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/api/status", timeout=60) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            return dict(json.load(error))


@pytest.mark.parametrize(("at", "count"), [("open", 1), ("write", 1), ("close", 1), ("write", 12)])
def test_a_backend_that_hangs_holds_up_nobody_and_not_the_stop(tmp_path: Path, at: str, count: int) -> None:
    with Hanging(tmp_path, count, at) as daemon:
        client = daemon.client()
        client.send(range(1, 11))
        client.until_acked(10)
        until(lambda: len(daemon.stored()) == 10, "what the healthy backend gets")
        if at != "close":
            wanted = f"{at}: no answer for "
            until(lambda: wanted in daemon.status()["backends"]["stuck0"]["detail"], "that it shows as failing")
            assert any("the backend stuck0 fails" in problem for problem in daemon.status()["problems"])
        file = tmp_path / "wafermon.yaml"
        file.write_text(file.read_text() + "limits: {max_connections: 77}\n")
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGHUP)
        until(lambda: "in force: limits" in daemon.log(), "the reload")
        client.send(range(11, 21))
        client.until_acked(20)
        until(lambda: len(daemon.stored()) == 20, "what the healthy backend gets after the reload")
        begun = time.monotonic()
        assert daemon.stop() in (0, -signal.SIGTERM)
        assert time.monotonic() - begun < 30, "the bound is 4 s, and the machine may be busy"
        assert re.search(rf"stuck0 is left running: {at}: no answer for", daemon.log())
        assert "wafermon has stopped" in daemon.log(), "the journal was closed all the same"
    assert "Traceback" not in daemon.log()


def test_a_plugin_that_fails_is_named_at_the_start_and_refused_at_a_reload(tmp_path: Path) -> None:
    problem = "backends.stuck0: the backend can't be built: 'no such bucket'"
    daemon = Hanging(tmp_path, 1, "build")
    command = [str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", "wafermon", "-c", "wafermon.yaml"]
    environ = {**os.environ, **daemon.environ}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert f"wafermon can't start: {problem}" in done.stderr + done.stdout
    file = tmp_path / "wafermon.yaml"
    bad = file.read_text()
    file.write_text(bad.replace("at: build", "at: never"))
    with daemon:
        file.write_text(bad.replace("stuck0", "stuck1"))
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGHUP)
        until(lambda: problem.replace("stuck0", "stuck1") in daemon.log(), "the refusal")
        client = daemon.client()
        client.send(range(1, 11))
        client.until_acked(10)
        until(lambda: len(daemon.stored()) == 10, "what the old config goes on to deliver")


def test_what_a_backend_that_hung_had_not_got_is_delivered_after_the_next_start(tmp_path: Path) -> None:
    with Hanging(tmp_path, 1, "write") as daemon:
        client = daemon.client()
        client.send(range(1, 11))
        client.until_acked(10)
        daemon.stop()
        file = tmp_path / "wafermon.yaml"
        now = '  stuck0: {plugin: filesystem, path: "second/{service}.jsonl"}'
        file.write_text(re.sub(r"  stuck0: .*", now, file.read_text()))
        daemon.start()
        second = tmp_path / "second" / "test.jsonl"
        until(lambda: second.exists() and second.read_bytes().count(b"\n") == 10, "what it had not got")


# Cursors without a backend


def removed(daemon: Hanging) -> None:
    """Take the second backend out of the config."""
    file = daemon.directory / "wafermon.yaml"
    file.write_text(re.sub(r"  stuck0: .*\n", "", file.read_text()))
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)


def wafermon(daemon: Hanging, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("wafermon")), *arguments]
    http = (
        ["--http", f"http://127.0.0.1:{daemon.http}"]
        if arguments[0] != "doctor" and arguments[:2] != ("journal", "list")
        else []
    )
    return subprocess.run([*command, *http], cwd=daemon.directory, capture_output=True, text=True, timeout=120)


def test_a_cursor_without_a_backend_is_named_everywhere_and_can_be_forgotten(tmp_path: Path) -> None:
    with Hanging(tmp_path, 1, "write") as daemon:
        client = daemon.client()
        client.send(range(1, 101))
        client.until_acked(100)
        until(lambda: "write: no answer" in daemon.status()["backends"]["stuck0"]["detail"], "that it hangs")
        said = wafermon(daemon, "journal", "forget", "stuck0")
        assert said.returncode == 1 and "is a backend of the config" in said.stderr
        removed(daemon)
        until(lambda: "stuck0" not in daemon.status()["backends"], "the reload")
        said = wafermon(daemon, "journal", "forget", "stuck0")
        assert said.returncode == 1 and "still ending" in said.stderr
        (tmp_path / "released").touch()
        until(lambda: "stuck0" in daemon.status()["cursors_without_backend"], "the cursor")
        held = daemon.status()["cursors_without_backend"]["stuck0"]
        assert held["bytes"] >= 0 and held["messages"] >= 0

        daemon.stop()
        before = len(daemon.log())
        daemon.start()
        assert "The cursor stuck0 has no backend" in daemon.log()[before:]
        assert "the cursor stuck0 has no backend" in wafermon(daemon, "status").stdout
        assert "the cursor stuck0 has no backend" in wafermon(daemon, "drain", "--timeout", "60").stderr
        doctor = wafermon(daemon, "doctor", "--config", "wafermon.yaml").stdout
        assert "the cursor stuck0 has no backend" in doctor and "wafermon journal forget stuck0" in doctor
        metrics = urllib.request.urlopen(f"http://127.0.0.1:{daemon.http}/metrics", timeout=60).read().decode()
        assert re.search(r'^wafermon_cursor_without_backend_bytes\{cursor="stuck0"\} \d', metrics, re.MULTILINE)

        said = wafermon(daemon, "journal", "forget", "stuck0")
        assert said.returncode == 0 and said.stdout.startswith("stuck0 is forgotten; for it were kept ")
        assert daemon.status()["cursors_without_backend"] == {}
        said = wafermon(daemon, "journal", "forget", "stuck0")
        assert said.returncode == 1 and "no cursor stuck0" in said.stderr
        bare = urllib.request.Request(f"http://127.0.0.1:{daemon.http}/api/cursors/files/forget", method="POST")
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(bare, timeout=60)


def test_a_cursor_is_forgotten_in_a_directory_without_a_sidecar(tmp_path: Path) -> None:
    with Hanging(tmp_path, 1, "close") as daemon:
        client = daemon.client()
        client.send(range(1, 11))
        client.until_acked(10)
        said = wafermon(daemon, "journal", "forget", "stuck0", "--dir", "journal")
        assert said.returncode == 1 and "stop the sidecar first" in said.stderr
        daemon.stop()
        said = wafermon(daemon, "journal", "forget", "nobody", "--dir", "journal")
        assert said.returncode == 1 and "no cursor 'nobody'" in said.stderr and "stuck0" in said.stderr
        said = wafermon(daemon, "journal", "forget", "stuck0", "--dir", "journal")
        assert said.returncode == 0 and "stuck0 is forgotten" in said.stdout
        assert "cursor stuck0" not in wafermon(daemon, "journal", "list", "journal").stdout
