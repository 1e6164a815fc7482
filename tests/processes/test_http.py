"""What a running sidecar says over HTTP: real sockets, a real daemon."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from commands import wafermon
from daemon import Daemon, until
from ports import free_port
from served import CONFIG, Served, job


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with Served(tmp_path) as running:
        yield running
    assert "Traceback" not in running.log(), running.log()


# -- health


def test_a_healthy_sidecar_is_live_and_ready(served: Served) -> None:
    until(lambda: served.get("/health/ready")["backends"]["files"]["state"] == "ok", "an open backend")
    status, body = served.request("/health/ready")
    answer = json.loads(body)
    assert status == 200
    assert answer["ready"] and answer["problems"] == []
    assert answer["listeners"][0]["address"] == f"127.0.0.1:{served.port}"
    assert answer["journal"]["max_bytes"] == 4 << 20
    backend = answer["backends"]["files"]
    assert (backend["state"], backend["error"], backend["lag_messages"]) == ("ok", "", 0)
    assert served.request("/")[0] == 200
    assert served.request("/nonsense")[0] == 404
    assert served.request("/health/live", "HEAD") == (200, b"")


def test_a_backend_that_fails_makes_it_unready_and_shows_since_when_and_how_far_it_is_behind(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where the directory should be")
    with Served(tmp_path) as served:
        before = time.time_ns() // 1000
        client = served.client()
        client.send(range(1, 101))
        client.until_acked(100)
        until(lambda: served.request("/health/ready")[0] == 503, "unready")
        until(lambda: served.get("/api/status")["backends"]["files"]["lag_seconds"] > 0.5, "an age")
        backend = served.get("/api/status")["backends"]["files"]
        assert backend["state"] == "failing"
        assert "logs" in backend["error"] == backend["last_error"]
        assert abs(backend["error_since"] - before) < 30_000_000
        assert backend["lag_messages"] == 100
        assert backend["lag_bytes"] > 100 * 100
        assert served.get("/health/ready")["problems"] == [f"the backend files fails: {backend['error']}"]
        (tmp_path / "logs").unlink()
        until(lambda: served.request("/health/ready")[0] == 200, "ready again")
        until(lambda: served.get("/api/status")["backends"]["files"]["lag_messages"] == 0, "no lag")
        backend = served.get("/api/status")["backends"]["files"]
        assert (backend["lag_bytes"], backend["lag_seconds"], backend["delivered"]) == (0, 0, 100)
        assert backend["error"] == "" and backend["error_since"] is None and backend["last_error"]
        client.close()


def test_a_full_journal_makes_it_unready_and_it_recovers(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("in the way")
    with Served(tmp_path) as served:
        client = served.client()
        client.socket.settimeout(0.2)
        seq = 0
        with pytest.raises(TimeoutError):
            for _ in range(400):
                client.send(range(seq + 1, seq + 101), message="x" * 1_000)
                seq += 100
        until(lambda: served.get("/health/ready")["journal"]["full"], "full")
        status, body = served.request("/health/ready")
        assert status == 503
        assert "the journal is full, the receivers pause" in json.loads(body)["problems"]
        backend = served.get("/api/status")["backends"]["files"]
        # what waits on disk is reckoned by its bytes
        assert backend["lag_messages"] == pytest.approx(
            served.metrics()["wafermon_messages_journalled_total"], rel=0.05
        )
        (tmp_path / "logs").unlink()
        until(lambda: served.request("/health/ready")[0] == 200, "ready again")
        client.drop()


# -- metrics


def test_what_follows_the_journal_is_shown(served: Served) -> None:
    followers = served.get("/api/status")["followers"]
    assert {"!correlation", "!dead-letters"} <= followers.keys()
    assert followers["!correlation"] == {
        "state": "running", "problem": "", "restarts": 0, "last_error": "", "last_error_at": None, "stepped_over": 0, "positions": [],
    }  # fmt: skip
    figures = served.metrics()
    assert figures['wafermon_follower_restarts_total{follower="!correlation"}'] == 0
    assert figures['wafermon_follower_stepped_over_total{follower="!dead-letters"}'] == 0


def test_dead_letters_that_can_not_be_written_make_it_unready_until_they_can(served: Served, tmp_path: Path) -> None:
    [folder] = tmp_path.glob("dead*")
    folder.rmdir()
    folder.write_text("in the way")
    client = served.client()
    client.send_line(b"nonsense")
    client.send([2])
    client.until_acked(2)
    until(lambda: served.request("/health/ready")[0] == 503, "not ready")
    [problem] = served.get("/health/ready")["problems"]
    assert problem.startswith("dead letters can't be written: ")
    assert str(folder.name) in problem
    assert served.get("/api/status")["dead_letters"]["error"] in problem
    until(lambda: len(served.stored("test")) == 1, "deliveries go on")
    folder.unlink()
    until(lambda: served.request("/health/ready")[0] == 200, "ready again")
    assert served.get("/api/status")["dead_letters"]["written"] == 1
    assert served.get("/api/status")["followers"]["!dead-letters"]["restarts"] == 0
    client.close()


def test_metrics_count_what_happened(served: Served) -> None:
    client = served.client()
    client.send(range(1, 51))
    client.until_acked(50)
    client.send(range(41, 51))
    client.send_line(b"nonsense")
    client.send_line({"type": "event", "service": "sdk", "level": "warning", "message": "7 messages dropped",
                      "context": {"kind": "dropped", "count": 7}, "client": client.client, "seq": 52})  # fmt: skip
    client.until_acked(52)
    until(lambda: served.metrics()['wafermon_messages_delivered_total{backend="files"}'] == 51, "delivered")
    until(lambda: served.metrics()["wafermon_dead_letters_written_total"] == 1, "a letter")
    figures = served.metrics()
    assert figures["wafermon_messages_received_total"] == 62
    assert figures["wafermon_messages_accepted_total"] == 51
    assert figures["wafermon_messages_duplicate_total"] == 10
    assert figures['wafermon_messages_rejected_total{code="bad_json"}'] == 1
    assert figures['wafermon_messages_rejected_total{code="bad_utf8"}'] == 0
    assert figures["wafermon_messages_journalled_total"] == 51
    assert figures["wafermon_sdk_dropped_total"] == 7
    assert figures["wafermon_connections"] == 1
    assert figures['wafermon_ack_seconds_bucket{le="+Inf"}'] == figures["wafermon_journal_groups_total"] > 0
    assert figures["wafermon_ack_seconds_sum"] > 0
    assert figures['wafermon_delivery_lag_messages{backend="files"}'] == 0
    assert 0 < figures["wafermon_journal_bytes"] < figures["wafermon_journal_max_bytes"] == 4 << 20
    assert figures["wafermon_reactor_delay_seconds"] >= 0
    assert figures["wafermon_ready"] == 1
    assert figures["process_resident_memory_bytes"] > 1 << 20
    client.close()


def test_no_label_takes_what_clients_choose(served: Served) -> None:
    before = set(served.metrics())
    for number in range(20):
        job(served, f"job-{number}")
    until(lambda: served.metrics()["wafermon_messages_accepted_total"] == 140, "all")
    assert set(served.metrics()) == before


# -- jobs and traces


def test_a_job_that_ended_is_still_shown_with_its_finished_spans_and_events(served: Served) -> None:
    ts = job(served, "lot/4711")
    until(lambda: served.get("/api/traces/lot%2F4711").get("status") == "done", "the end")
    until(lambda: served.metrics()["wafermon_traces_live"] == 0, "the trace's end", 30)
    until(lambda: "spans" in served.get("/api/traces/lot%2F4711"), "its summary, which is journalled first")
    found = served.get("/api/traces/lot%2F4711")
    assert [
        (span["name"], span["depth"], span["status"], span["start"] - ts, span["duration"]) for span in found["spans"]
    ] == [
        ("load", 0, "error", 100, 2_000),
        ("parse", 1, "ok", 200, 1_000),
    ]
    expected = {
        "job_id": "lot/4711", "trace_id": "lot/4711", "percent": 100, "status": "done", "service": "loader",
        "first": ts, "last_progress": ts + 3_000, "stalled": False, "gone": False, "kind": "lot/*", "state": "done",
        "services": ["loader"], "errors": 1, "reached": [None] * 20, "eta": None,
    }  # fmt: skip
    assert found["jobs"] == [expected] == served.get("/api/jobs")["jobs"]
    [event] = found["events"]
    assert (event["message"], event["context"], event["ts"]) == ("parsed", {"rows": 7}, ts + 300)
    assert (found["first"], found["last"], found["errors"], found["services"]) == (ts, ts + 3_000, 1, ["loader"])
    assert served.request("/api/traces/unknown")[0] == 404


def test_what_the_journal_still_holds_is_remembered_after_a_restart(served: Served) -> None:
    job(served, "before")
    until(lambda: served.metrics()["wafermon_messages_journalled_total"] == 8, "the trace's summary", 30)
    shown = served.get("/api/traces/before")
    for end in (served.stop, served.kill):
        end()
        served.start()
        until(lambda: served.request("/api/traces/before")[0] == 200, "the memory")
        assert {**served.get("/api/traces/before"), "now": 0} == {**shown, "now": 0}
        assert [one["job_id"] for one in served.get("/api/jobs")["jobs"]] == ["before"]


def test_a_stalled_job_is_told_from_one_that_runs(served: Served) -> None:
    client = served.client()
    seqs = count(1)

    def shown() -> bool | None:
        """Whether the job counts as stalled; None before correlation has read of it."""
        jobs = served.get("/api/jobs")["jobs"]
        return jobs[0]["stalled"] if jobs else None

    def alive() -> bool:
        """Let the job be heard of, as one that runs is again and again. What it did is acknowledged before it is read."""
        seq = next(seqs)
        progress = {"type": "progress", "job_id": "slow", "percent": min(seq, 99), "service": "s"}
        client.send_line({**progress, "client": client.client, "seq": seq})
        client.until_acked(seq)
        return shown() is False

    until(alive, "a job that runs")
    until(shown, "a stall", 20)
    until(alive, "life")
    assert len(served.get("/api/jobs?limit=0")["jobs"]) == 0
    client.close()


# -- tail


class Stream:
    """A tail's events as they come."""

    def __init__(self, daemon: Served, query: str = "") -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", daemon.http_port, timeout=30)
        self.connection.request("GET", f"/api/tail{query}")
        self.answer = self.connection.getresponse()
        assert self.answer.status == 200
        assert self.answer.getheader("content-type") == "text/event-stream"
        assert self.answer.readline() == b": watching\n"

    def next(self) -> tuple[str, Any]:
        """The next event's name and data."""
        name = "message"
        while line := self.answer.readline():
            if line.startswith(b"event: "):
                name = line[7:-1].decode()
            if line.startswith(b"data: "):
                return name, json.loads(line[6:])
        raise AssertionError("the stream ended")


def test_a_watcher_sees_what_its_globs_let_through_as_it_comes(served: Served) -> None:
    all_of_it, by_service = Stream(served), Stream(served, "?service=a*")
    by_trace, by_level = Stream(served, "?trace=job-*"), Stream(served, "?level=%3E%3Dwarning")
    client = served.client()
    wanted: list[dict[str, Any]] = [
        {"service": "abc"}, {"service": "b", "trace_id": "job-1"}, {"service": "b", "level": "error"},
    ]  # fmt: skip
    for seq, fields in enumerate(wanted, 1):
        client.send([seq], **fields)
    client.until_acked(3)
    assert [all_of_it.next()[1]["seq"] for _ in wanted] == [1, 2, 3]
    assert by_service.next()[1]["service"] == "abc"
    assert by_trace.next()[1]["trace_id"] == "job-1"
    assert by_level.next()[1]["level"] == "error"
    client.close()
    assert served.request("/api/tail?level=loud")[0] == 400


def test_a_watcher_that_does_not_read_loses_messages_and_is_told_and_nobody_waits_for_it(served: Served) -> None:
    slow = socket.create_connection(("127.0.0.1", served.http_port))
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    slow.sendall(b"GET /api/tail HTTP/1.0\r\n\r\n")
    client = served.client()
    # 10 MB, in portions that one second may show: it is the buffer that is full
    for first in range(1, 10_001, 1_000):
        client.send(range(first, first + 1_000), message="x" * 900)
        client.until_acked(first + 999)
        time.sleep(0.25)
    slow.settimeout(30)
    received = b""
    while b"event: lost" not in received:
        chunk = slow.recv(1 << 20)
        assert chunk
        received = received[-100:] + chunk
    count = int(received.partition(b'event: lost\ndata: {"count":')[2].partition(b"}")[0] or 0)
    assert count > 0
    slow.close()
    client.close()


def test_more_watchers_than_there_may_be_are_refused_and_a_place_is_given_back(served: Served) -> None:
    streams = [Stream(served) for _ in range(16)]
    status, body = served.request("/api/tail")
    assert status == 503 and b"watching already" in body
    streams.pop().connection.close()

    def free() -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", served.http_port, timeout=30)
        connection.request("GET", "/api/tail")
        answer = connection.getresponse().status
        connection.close()
        return answer == 200

    until(free, "a place")


# -- drain


def test_drain_is_a_post_with_a_header_and_ends_when_the_backend_has_everything(served: Served) -> None:
    client = served.client()
    client.send(range(1, 1_001))
    client.until_acked(1_000)
    status, body = served.request("/api/drain", "POST", **{"X-Wafermon": "test"})
    assert status == 200
    last = json.loads(body.splitlines()[-1])
    assert last["drained"] and last["backends"]["files"]["lag_messages"] == 0
    assert len(served.stored("test")) == 1_000
    assert served.request("/api/drain", "POST")[0] == 403
    assert served.request("/api/drain", "GET")[0] == 405
    status, body = served.request("/api/drain?backend=nonsense", "POST", **{"X-Wafermon": "test"})
    assert (status, body) == (404, b"no backend 'nonsense'; there are files\n")
    client.close()


def test_http_over_a_unix_socket_and_off(tmp_path: Path) -> None:
    config = CONFIG.replace("http: tcp:{limits}:interface=127.0.0.1", "http: unix:http.sock:mode=600")
    with Daemon(tmp_path, config):
        path = tmp_path / "http.sock"
        until(path.exists, "the socket")
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(str(path))
            asking.sendall(b"GET /health/live HTTP/1.0\r\n\r\n")
            assert asking.makefile("rb").read().endswith(b"live\n")
    config = CONFIG.replace("http: tcp:{limits}:interface=127.0.0.1", "http: false")
    with Daemon(tmp_path, config) as silent:
        assert silent.client().welcome["type"] == "welcome"
        assert "HTTP" not in silent.log().rpartition("is ready")[2]


def test_draining_with_nothing_to_deliver_and_stopping_take_no_time(served: Served) -> None:
    job(served, "job-1")
    served.stop()
    served.start()
    began = time.monotonic()
    assert served.request("/api/drain", "POST", **{"X-Wafermon": "test"})[0] == 200
    served.stop()
    assert time.monotonic() - began < 4, "less than a stop waits for a backend"
    served.start()


# -- reload


def reload(daemon: Served, config: str) -> None:
    assert daemon.process is not None
    (daemon.directory / "wafermon.yaml").write_text(config)
    daemon.process.send_signal(signal.SIGHUP)


def test_a_reload_moves_it_to_another_port_and_a_refused_config_is_told(served: Served) -> None:
    config = (served.directory / "wafermon.yaml").read_text()
    old, new = served.http_port, free_port()
    reload(served, config.replace(f"http: tcp:{old}:", f"http: tcp:{new}:"))
    served.http_port = new
    until(served.answers, "the new port")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", old))
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        reload(served, config.replace(f"http: tcp:{old}:", f"http: tcp:{taken}:"))
        until(lambda: served.get("/health/ready")["refused_config"], "a refusal")
    refused = served.get("/health/ready")
    [fault] = refused["refused_config"]["faults"]
    assert fault.endswith(f"can't serve HTTP on tcp:{taken}:interface=127.0.0.1: Address already in use")
    assert refused["ready"] and served.metrics()["wafermon_config_refused"] == 1
    shown = wafermon("status", "--http", f"http://127.0.0.1:{new}").stdout
    assert "refused the config of" in shown and "Address already in use" in shown
    reload(served, config)
    served.http_port = old
    until(served.answers, "the old port")
    assert served.get("/health/ready")["refused_config"] is None


def test_a_reload_gives_its_unix_socket_another_mode(tmp_path: Path) -> None:
    config = CONFIG.replace("http: tcp:{limits}:interface=127.0.0.1", "http: unix:http.sock:mode=600")
    with Daemon(tmp_path, config) as daemon:
        path = tmp_path / "http.sock"
        until(path.exists, "the socket")
        assert daemon.process is not None
        text = (tmp_path / "wafermon.yaml").read_text()
        (tmp_path / "wafermon.yaml").write_text(text.replace("mode=600", "mode=660"))
        daemon.process.send_signal(signal.SIGHUP)
        until(lambda: path.stat().st_mode & 0o777 == 0o660, "the other mode")
        shown = wafermon("status", "--http", f"unix://{path}")
        assert "refused the config" not in shown.stdout and shown.returncode == 0


def test_a_replaced_backend_is_shown_as_it_is_now(served: Served) -> None:
    client = served.client()
    client.send(range(1, 11))
    client.until_acked(10)
    until(lambda: served.metrics()['wafermon_messages_delivered_total{backend="files"}'] == 10, "delivered")
    config = (served.directory / "wafermon.yaml").read_text()
    reload(served, config.replace("  files: {plugin", "  other: {plugin").replace("logs/", "others/"))
    until(lambda: list(served.get("/api/status")["backends"]) == ["other"], "the other one")
    client.send(range(11, 21))
    client.until_acked(20)
    until(lambda: served.metrics().get('wafermon_messages_delivered_total{backend="other"}') == 10, "delivered")
    assert 'wafermon_messages_delivered_total{backend="files"}' not in served.metrics()
    client.close()
