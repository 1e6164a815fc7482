"""Alarms that wait: quiet hours, an outbox that overflows, receivers that do not behave, and reloads and kills meanwhile. Real processes."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alarm_server import AlarmServer
from daemon import Client, until
from ports import free_port
from served import Served

from wafermon.alerts.outbox import MOST

CONFIG = """
listen: ["tcp:{port}:interface=127.0.0.1"{listen}]
http: tcp:{limits}:interface=127.0.0.1
reload: signal
journal: {{dir: journal, segment_bytes: 1MiB, max_bytes: 64MiB, spill_dir: spill}}
backends:
  files: {{plugin: filesystem, path: "logs/{{service}}.jsonl", batch: {{age: 50ms}}}}
alerts:
"""


def alerting(directory: Path, channel: str) -> Served:
    return Served(directory, CONFIG + f"  hook: {channel}\n".replace("{", "{{").replace("}", "}}"))


def reload(served: Served, channel: str) -> None:
    """Another channel of that name, by SIGHUP."""
    assert served.process is not None
    file = served.directory / "wafermon.yaml"
    text = file.read_text()
    before = served.log().count("in force: ")
    file.write_text(text[: text.index("  hook:")] + f"  hook: {channel}\n")
    served.process.send_signal(signal.SIGHUP)
    until(lambda: served.log().count("in force: ") > before, "the reload")


def fail_jobs(client: Client, first: int, last: int) -> None:
    body = {"type": "progress", "percent": 50, "status": "failed", "service": "etl", "client": client.client}
    client.send_all({**body, "job_id": f"job-{seq}", "seq": seq} for seq in range(first, last + 1))
    client.until_acked(last)


def figures(served: Served) -> dict[str, Any]:
    found: dict[str, Any] = served.get("/api/status")["alerts"].get("hook", {})
    return found


def jobs(server: AlarmServer) -> list[str]:
    return [str(one["event"].get("job_id")) for one in server.bodies]


def around_now() -> str:
    """Quiet hours that began and do not end soon."""
    return "-".join(time.strftime("%H:%M", time.localtime(time.time() + 60 * minutes)) for minutes in (-3, 90))


def test_quiet_hours_hold_alarms_over_kills_and_a_reload_ends_them(tmp_path: Path) -> None:
    with AlarmServer() as server:
        channel = f"{{plugin: webhook, url: '{server.url}', at_most: 0, quiet: '{around_now()}'}}"
        with alerting(tmp_path, channel) as served:
            client = served.client()
            fail_jobs(client, 1, 3)
            until(lambda: figures(served)["held"] == 3, "alarms that are held")
            client.drop()
            served.kill()
            served.start()
            client = served.client()
            fail_jobs(client, 1, 2)
            until(lambda: figures(served)["held"] == 5, "alarms that are held after a kill")
            assert server.bodies == []
            assert figures(served)["pending"] == 5
            reload(served, f"{{plugin: webhook, url: '{server.url}', at_most: 0}}")
            until(lambda: len(server.bodies) == 1, "their digest")
            assert (server.bodies[0]["kind"], server.bodies[0]["event"]["count"]) == ("digest", 5)
            until(lambda: figures(served).get("pending") == 0, "an empty outbox")
            fail_jobs(client, 3, 3)
            until(lambda: len(server.bodies) == 2, "one after the quiet hours")
            assert server.bodies[1]["kind"] == "job_failed"
            client.close()


def test_an_outbox_that_overflows_drops_the_oldest_and_counts_them(tmp_path: Path) -> None:
    port, over = free_port(), 70
    channel = f"{{plugin: webhook, url: 'http://127.0.0.1:{port}/', at_most: AT_MOST}}"
    with alerting(tmp_path, channel.replace("AT_MOST", "3/h")) as served:
        client = served.client()
        for first in range(1, MOST + over, 500):
            fail_jobs(client, first, min(first + 499, MOST + over))
        until(lambda: figures(served)["dropped"] == over, "as many as there were too many")
        assert figures(served)["pending"] == MOST
        assert served.metrics()['wafermon_alerts_total{channel="hook",outcome="dropped"}'] == over
        assert served.metrics()['wafermon_alerts_pending{channel="hook"}'] == MOST
        client.drop()
        served.kill()
        served.start()
        until(lambda: figures(served)["pending"] == MOST, "the same after a kill")
        assert figures(served)["dropped"] == over
        with AlarmServer(port) as server:
            until(lambda: figures(served)["held"] == MOST - 3, "what is beyond the rate to be held")
            assert jobs(server) == [f"job-{over + n}" for n in (1, 2, 3)], "the oldest that is left comes first"
            reload(served, channel.replace("AT_MOST", "0"))
            until(lambda: len(server.bodies) == 4, "the digest")
            assert server.bodies[3]["event"]["count"] == MOST - 3
            until(lambda: figures(served).get("pending") == 0, "an empty outbox")
            assert figures(served)["dropped"] == over, "it is kept over a reload"


def test_a_reload_while_an_alarm_is_being_sent_loses_none_and_sends_none_twice(tmp_path: Path) -> None:
    with AlarmServer() as first, AlarmServer() as second:
        channel = "{plugin: webhook, url: 'URL', at_most: 0}"
        with alerting(tmp_path, channel.replace("URL", first.url)) as served:
            client = served.client()
            first.answers = [(503, {})] * 1000
            fail_jobs(client, 1, 20)
            until(lambda: figures(served)["failed"] >= 1, "a try")
            reload(served, channel.replace("URL", second.url))
            until(lambda: len(second.bodies) == 20, "all at the other place")
            assert jobs(second) == [f"job-{seq}" for seq in range(1, 21)]
            assert first.bodies == []
            client.close()


# -- receivers that do not behave


class Odd:
    """A server that answers each connection with some bytes, or never. One that `speaks_first` does not wait for anything."""

    def __init__(self, answers: list[bytes | None], *, speaks_first: bool = False) -> None:
        self._answers = answers
        self._speaks_first = speaks_first
        self.taken: list[bytes] = []
        self._held: list[socket.socket] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            answer = self._answers.pop(0) if self._answers else OK
            self.taken.append(b"" if self._speaks_first else connection.recv(65536))
            if answer is None:
                self._held.append(connection)
                continue
            connection.sendall(answer)
            connection.close()

    def close(self) -> None:
        self._socket.close()
        for one in self._held:
            one.close()


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@contextmanager
def odd(*answers: bytes | None, speaks_first: bool = False) -> Iterator[Odd]:
    server = Odd([*answers], speaks_first=speaks_first)
    try:
        yield server
    finally:
        server.close()


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (b"", "failed"),
        (b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", "failed"),
        (b"HTTP/1.1 429 Slow\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n", "failed"),
        (b"HTTP/1.1 429 Slow\r\nretry-after: nonsense\r\ncontent-length: 0\r\n\r\n", "failed"),
        (b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n", "refused"),
        (b"HTTP/1.1 307 Moved\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n", "refused"),
        (b"this is no HTTP\r\n\r\n", "failed"),
        (b"HTTP/1.1 503 No\r\ncontent-length: 99999999\r\n\r\n" + b"x" * 100_000, "failed"),
        (b"HTTP/1.1 500 \xff\xfe\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "failed"),
    ],
    ids=["closes", "500", "429", "429-odd", "302", "307", "no-http", "endless", "bad-chunk"],
)
def test_a_webhook_that_answers_oddly_holds_nothing_and_the_next_alarm_comes(
    tmp_path: Path, answer: bytes, outcome: str
) -> None:
    with odd(answer) as server:
        channel = f"{{plugin: webhook, url: 'http://127.0.0.1:{server.port}/', at_most: 0}}"
        with alerting(tmp_path, channel) as served:
            client = served.client()
            fail_jobs(client, 1, 2)
            until(lambda: figures(served)[outcome] == 1, outcome)
            until(lambda: figures(served)["pending"] == 0, "an empty outbox")
            assert figures(served)["sent"] == (2 if outcome == "failed" else 1)
            assert len(server.taken) == (3 if outcome == "failed" else 2), "a redirect is followed nowhere"
            assert served.request("/health/ready")[0] == 200
            assert "Traceback" not in served.log()
            client.close()


def test_a_webhook_that_hangs_holds_no_stop_and_the_alarm_comes_after_the_start(tmp_path: Path) -> None:
    with odd(None) as server:
        channel = f"{{plugin: webhook, url: 'http://127.0.0.1:{server.port}/', at_most: 0}}"
        with alerting(tmp_path, channel) as served:
            client = served.client()
            fail_jobs(client, 1, 1)
            until(lambda: len(server.taken) == 1, "a request that is not answered")
            client.send(range(2, 500))
            client.until_acked(499)
            until(lambda: len(served.stored("test")) == 498, "delivery meanwhile")
            client.drop()
            served.stop()
            assert "wafermon has stopped" in served.log()
            served.start()
            until(lambda: figures(served)["sent"] == 1, "the alarm after the start")
            ids = {json.loads(one.partition(b"\r\n\r\n")[2])["id"] for one in server.taken if b"{" in one}
            assert len(ids) == 1
            assert "Traceback" not in served.log()


@pytest.mark.parametrize(
    "answer",
    [b"", b"220 mail\r\n", b"421 too busy\r\n", b"554 no\r\n", b"what is this\r\n"],
    ids=["closes", "closes-later", "421", "554", "no-smtp"],
)
def test_a_mail_server_that_closes_is_asked_again(tmp_path: Path, answer: bytes) -> None:
    """What a server says before it knows of any mail is of no mail."""
    with odd(*[answer] * 100, speaks_first=True) as server:
        channel = f"{{plugin: email, to: [fab@example.org], smtp: 'smtp://127.0.0.1:{server.port}', at_most: 0}}"
        with alerting(tmp_path, channel) as served:
            client = served.client()
            fail_jobs(client, 1, 1)
            until(lambda: figures(served)["failed"] + figures(served)["refused"] >= 2, "tries")
            assert (figures(served)["pending"], figures(served)["refused"]) == (1, 0)
            assert "Traceback" not in served.log()
            client.close()
