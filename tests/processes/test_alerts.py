"""Channels of alarms, with a real daemon and real receivers: HTTP, Alertmanager, SMTP."""

from __future__ import annotations

import http.client
import json
import random
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from alarm_server import AlarmServer
from certificates import Authority
from daemon import Client, until
from ports import free_port
from served import Served

CONFIG = """
listen: ["tcp:{port}:interface=127.0.0.1"{listen}]
http: tcp:{limits}:interface=127.0.0.1
reload: signal
journal: {{dir: journal, segment_bytes: 1MiB, max_bytes: 64MiB, spill_dir: spill}}
correlation: {{stalled_after: 1s}}
backends:
  files: {{plugin: filesystem, path: "logs/{{service}}.jsonl", batch: {{age: 50ms}}}}
alerts:
"""


def alerting(directory: Path, *channels: str) -> Served:
    """`channels` are lines of the config."""
    more = "".join(f"  {one}\n" for one in channels).replace("{", "{{").replace("}", "}}")
    return Served(directory, CONFIG + more)


def fail_job(client: Client, seq: int, job_id: str = "") -> None:
    body = {"type": "progress", "job_id": job_id or f"job-{seq}", "percent": 50, "status": "failed", "service": "etl"}
    client.send_line({**body, "client": client.client, "seq": seq})
    client.until_acked(seq)


def figures(served: Served, name: str = "hook") -> dict[str, Any]:
    found: dict[str, Any] = served.get("/api/status")["alerts"].get(name, dict.fromkeys(("sent", "next_try"), None))
    return found


def test_an_alarm_is_posted_whole_and_a_test_too(tmp_path: Path) -> None:
    with AlarmServer() as server, alerting(tmp_path, f"hook: {{plugin: webhook, url: '{server.url}'}}") as served:
        client = served.client()
        fail_job(client, 1)
        until(lambda: len(server.bodies) == 1, "the alarm")
        assert server.bodies[0]["dedup_key"] == "job/job-1"
        assert server.bodies[0]["action"] == "trigger"
        assert server.bodies[0]["event"]["job_id"] == "job-1"
        assert server.bodies[0]["id"]
        until(lambda: figures(served)["sent"] == 1, "its count")
        assert served.request("/api/alerts/hook/test", "POST", **{"X-Wafermon": "1"})[0] == 200
        assert [one["action"] for one in server.bodies[1:]] == ["trigger", "resolve"]
        assert served.request("/api/alerts/no/test", "POST", **{"X-Wafermon": "1"})[0] == 404
        assert served.request("/api/alerts/hook/test", "POST")[0] == 403
        assert served.metrics()['wafermon_alerts_total{channel="hook",outcome="sent"}'] == 1
        client.close()


def test_what_the_receiver_can_not_take_now_comes_again_and_what_it_refuses_does_not(tmp_path: Path) -> None:
    with (
        AlarmServer() as server,
        alerting(tmp_path, f"hook: {{plugin: webhook, url: '{server.url}', at_most: 0}}") as served,
    ):
        server.answers = [(429, {"retry-after": "3"}), (503, {}), (200, {}), (400, {})]
        client = served.client()
        began = time.monotonic()
        for seq in (1, 2, 3):
            fail_job(client, seq)
        until(lambda: figures(served)["next_try"] is not None, "the wait")
        until(lambda: len(server.bodies) == 2, "two of three")
        assert time.monotonic() - began >= 3, "Retry-After"
        assert [one["event"]["job_id"] for one in server.bodies] == ["job-1", "job-3"]
        until(lambda: figures(served)["sent"] == 2 and not figures(served)["pending"], "their count")
        assert (figures(served)["refused"], figures(served)["failed"], figures(served)["pending"]) == (1, 2, 0)
        client.close()


def test_what_is_beyond_the_rate_comes_as_a_digest(tmp_path: Path) -> None:
    with (
        AlarmServer() as server,
        alerting(tmp_path, f"hook: {{plugin: webhook, url: '{server.url}', at_most: 2/8s}}") as served,
    ):
        client = served.client()
        for seq in range(1, 8):
            fail_job(client, seq)
        until(lambda: len(server.bodies) == 3, "two and a digest")
        assert [one["kind"] for one in server.bodies] == ["job_failed", "job_failed", "digest"]
        assert server.bodies[2]["event"]["count"] == 5
        assert server.bodies[2]["summary"] == "5 alarms were held back: 5 job_failed"
        until(lambda: figures(served)["pending"] == 0, "an empty outbox")
        client.close()


def test_a_receiver_that_is_away_holds_nothing_and_none_is_lost_over_kills(tmp_path: Path) -> None:
    """The oracle: failed jobs in the files = alarms at the server, each at least once."""
    port = free_port()
    with alerting(tmp_path, f"hook: {{plugin: webhook, url: 'http://127.0.0.1:{port}/', at_most: 0}}") as served:
        seq = 0
        draw = random.Random(7)

        def rounds(count: int) -> None:
            nonlocal seq
            for _ in range(count):
                client = served.client()
                first = seq + 1
                for number in range(first, first + 15):
                    body = {
                        "type": "progress",
                        "job_id": f"j-{number}",
                        "percent": 1,
                        "status": "failed",
                        "service": "etl",
                    }
                    client.send_line({**body, "client": client.client, "seq": number - first + 1})
                client.until_acked(15)
                seq += 15
                time.sleep(draw.uniform(0, 0.3))  # anywhere in the midst of it
                client.drop()
                served.kill()
                served.start()

        rounds(2)
        with AlarmServer(port) as server:
            rounds(4)
            wanted = {f"j-{number}" for number in range(1, seq + 1)}
            until(lambda: {one["event"]["job_id"] for one in server.bodies} >= wanted, "every alarm", 90)
            until(lambda: len(served.stored("etl")) == seq, "every event in the files")
            assert {one["job_id"] for one in served.stored("etl")} == wanted
            ids = {one["id"] for one in server.bodies}
            assert len(ids) == seq, "what is sent again has the same id"


def test_alertmanager_takes_it_and_a_test_is_resolved(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "am.yml").write_text("route: {receiver: none}\nreceivers: [{name: none}]\n")
    manager = subprocess.Popen(
        ["prometheus-alertmanager", "--config.file=am.yml", f"--web.listen-address=127.0.0.1:{port}",
         "--cluster.listen-address=", "--storage.path=am"], cwd=tmp_path, stderr=subprocess.DEVNULL)  # fmt: skip

    def alerts() -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", "/api/v2/alerts")
            return json.loads(connection.getresponse().read())
        except OSError:
            return None
        finally:
            connection.close()

    try:
        until(lambda: alerts() == [], "Alertmanager")
        line = f"am: {{plugin: webhook, format: alertmanager, url: 'http://127.0.0.1:{port}', at_most: 0}}"
        with alerting(tmp_path, line) as served:
            client = served.client()
            fail_job(client, 1, "load-4711")
            until(lambda: len(alerts()) == 1, "the alert")
            assert alerts()[0]["labels"] == {
                "alertname": "wafermon",
                "kind": "job_failed",
                "service": "etl",
                "job": "load-*",
            }
            assert "4711" in alerts()[0]["annotations"]["summary"]
            assert served.request("/api/alerts/am/test", "POST", **{"X-Wafermon": "1"})[0] == 200
            assert len(alerts()) == 1, "the test was resolved at once"
            until(lambda: figures(served, "am")["sent"] == 1, "its count")
            client.close()
    finally:
        manager.kill()
        manager.wait()


class _Mailbox:
    def __init__(self) -> None:
        self.mails: list[tuple[str, bool]] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.mails.append((envelope.content.decode(), session.ssl is not None))
        return "250 taken"


def test_a_mail_is_sent_with_starttls_to_a_real_server(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "fab")
    certificate = authority.issue("mail", server=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    box = _Mailbox()
    port = free_port()
    controller = Controller(box, hostname="127.0.0.1", port=port, tls_context=context, require_starttls=True)
    controller.start()
    try:
        line = f"mail: {{plugin: email, to: [fab@example.org], smtp: 'smtp://localhost:{port}', starttls: true, ca_file: '{authority.path}'}}"
        with alerting(tmp_path, line) as served:
            client = served.client()
            fail_job(client, 1)
            until(lambda: len(box.mails) == 1, "the mail")
            mail, secure = box.mails[0]
            assert secure
            assert "Subject: [wafermon] job_failed: job job-1 of etl failed at 50 %" in mail
            assert "Auto-Submitted: auto-generated" in mail
            until(lambda: figures(served, "mail")["sent"] == 1, "its count")
            client.close()
    finally:
        controller.stop()


def test_a_reload_changes_and_ends_channels(tmp_path: Path) -> None:
    with (
        AlarmServer() as one,
        AlarmServer() as two,
        alerting(tmp_path, f"hook: {{plugin: webhook, url: '{one.url}'}}") as served,
    ):
        assert served.process is not None
        client = served.client()
        fail_job(client, 1)
        until(lambda: len(one.bodies) == 1, "the first")
        until(lambda: figures(served)["sent"] == 1, "its count")
        file = tmp_path / "wafermon.yaml"
        config = file.read_text()
        file.write_text(config.replace(one.url, two.url))
        served.process.send_signal(1)
        until(lambda: figures(served)["sent"] == 0, "the new channel")
        fail_job(client, 2)
        until(lambda: len(two.bodies) == 1, "the second")
        assert len(one.bodies) == 1
        file.write_text(config[: config.index("alerts:")])
        served.process.send_signal(1)
        until(lambda: served.get("/api/status")["alerts"] == {}, "none")
        client.close()
