"""What the otlp backend does by what a receiver answers: what comes again, what does not, what is written down."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from otlp_answers import AnsweringServer, Asked, Reply
from twisted.internet.task import Clock
from twisted.python.threadpool import ThreadPool

from wafermon.backends.otlp import otlp
from wafermon.backends.otlp.answers import wait_of
from wafermon.backends.otlp.examine import problems
from wafermon.backends.otlp.store import OtlpStore
from wafermon.contract import JOURNAL, batch, line
from wafermon.interfaces import BackendContext, Batch, PermanentError, Position, Refused, RetryableError, configure
from wafermon.model.blocks import Block
from wafermon.wire.otlp import protobuf
from wafermon.wire.otlp.shapes import Answer, PartialSuccess

START = Position(JOURNAL, 1, 0)
METRIC: dict[str, Any] = {"type": "metric", "name": "n", "value": 1}
SPAN: dict[str, Any] = {
    "type": "span_end", "name": "s", "status": "ok", "start": 1_795_500_000_000_000, "duration": 1,
    "trace_id": "j", "span_id": "a" * 16,
}  # fmt: skip


@pytest.fixture
def server() -> Iterator[AnsweringServer]:
    with AnsweringServer().running() as one:
        yield one


class Place:
    """A backend's state directory and clock, over restarts of its store."""

    def __init__(self, directory: Path, url: str, **more: Any) -> None:
        self.clock = Clock()
        self.wall = 1_795_500_000.0
        self.options = configure(otlp, {"url": url, **more})
        self.context = BackendContext("o", directory, self.clock, ThreadPool(0, 1), wall=lambda: self.wall, timeout=5.0)

    def store(self) -> OtlpStore:
        store = OtlpStore(self.options, self.context)
        self.position = store.open()
        return store


@pytest.fixture
def place(server: AnsweringServer, tmp_path: Path) -> Place:
    return Place(tmp_path, server.url)


def mixed(start: Position = START, seq: int = 1) -> Batch:
    """An event, a metric and a span."""
    return batch(start, [line(seq), line(seq + 1, **METRIC), line(seq + 2, **SPAN)])


def answers(**statuses: int) -> Any:
    """A rule by signals."""
    return lambda asked: Reply(statuses.get(asked.signal, 200))


def test_a_signal_that_fails_repeats_no_other(server: AnsweringServer, place: Place) -> None:
    store, one = place.store(), mixed()
    server.rule = answers(traces=503)
    for _ in range(3):
        with pytest.raises(RetryableError):
            store.write(one)
    store = place.store()  # as after a kill
    assert place.position is None
    with pytest.raises(RetryableError):
        store.write(one)
    server.rule = answers()
    store.write(one)
    assert [len(server.of(signal)) for signal in ("logs", "metrics", "traces")] == [1, 1, 5]
    place.store()
    assert place.position == one.end


def test_a_signal_that_is_ahead_stays_so_where_the_batch_is_cut_in_another_way(
    server: AnsweringServer, place: Place
) -> None:
    server.rule = answers(metrics=503)
    store = place.store()
    with pytest.raises(RetryableError):
        store.write(mixed())
    first = mixed()
    second = mixed(first.end, seq=4)
    positions = [one.position(number) for one in (first, second) for number in range(3)]
    whole = Batch(START, second.end, Block.parse(first.raw + second.raw), find_positions=lambda: positions)
    server.rule = answers()
    store = place.store()
    store.write(whole)
    bodies = [record["body"]["stringValue"] for asked in server.of("logs") for record in asked.records()]
    assert bodies == ["wafer 1", "wafer 4"]
    store.write(first)  # the delivery went back: what is ahead no more is sent again
    assert len(server.of("logs")) == 3


@pytest.mark.parametrize(("last", "sent"), [(1, 1), (0, 2)])
def test_what_was_sent_under_the_journals_earlier_id_stays_sent(
    server: AnsweringServer, place: Place, last: int, sent: int
) -> None:
    server.rule = answers(metrics=503)
    with pytest.raises(RetryableError):
        place.store().write(mixed())
    now = "b" * 16
    place.context = replace(place.context, journal=now, formerly={JOURNAL: last})
    server.rule = answers()
    place.store().write(mixed(START._replace(journal=now)))
    assert len(server.of("logs")) == sent


def test_halves_of_a_batch_that_is_refused_send_nothing_twice(server: AnsweringServer, place: Place) -> None:
    server.rule = lambda asked: Reply(400 if b'"bad"' in asked.body else 200)
    store = place.store()
    lines = [line(1), line(2, **METRIC), line(3, **{**METRIC, "name": "bad"}), line(4)]
    with pytest.raises(PermanentError, match=r"/v1/metrics: status 400"):
        store.write(batch(START, lines))
    first = batch(START, lines[:2])
    store.write(first)
    second = batch(first.end._replace(offset=first.end.offset - 1), lines[2:3])
    with pytest.raises(PermanentError):
        store.write(second)
    end = batch(START, lines).end
    store.write(Batch(second.end._replace(offset=second.end.offset - 1), end, Block.parse(lines[3] + b"\n")))
    sent = [record["body"]["stringValue"] for asked in server.of("logs") for record in asked.records()]
    assert sent == ["wafer 1", "wafer 4"]


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_is_tried_again(server: AnsweringServer, place: Place, status: int) -> None:
    server.rule = answers(logs=status)
    with pytest.raises(RetryableError, match=str(status)):
        place.store().write(batch(START, [line(1)]))


@pytest.mark.parametrize("status", [300, 301, 307, 400, 401, 403, 404, 405, 408, 413, 415, 422, 500, 501, 505, 511])
def test_what_is_not(server: AnsweringServer, place: Place, status: int) -> None:
    server.rule = answers(logs=status)
    with pytest.raises(PermanentError, match=f"status {status}") as raised:
        place.store().write(batch(START, [line(1)]))
    assert raised.value.code == f"http_{status}" and len(server.asked) == 1


def test_a_lost_connection_is_tried_again(place: Place, server: AnsweringServer) -> None:
    def lost(asked: Asked) -> Reply:
        raise ConnectionAbortedError

    server.rule = lost
    store = place.store()
    with pytest.raises(RetryableError, match="the connection was lost"):
        store.write(batch(START, [line(1)]))
    server.rule = answers()
    store.write(batch(START, [line(1)]))


def test_a_connection_that_the_server_ended_meanwhile_costs_nothing(place: Place, server: AnsweringServer) -> None:
    store = place.store()
    server.rule = lambda asked: Reply(headers={"Connection": "close"})
    first = batch(START, [line(1)])
    store.write(first)
    store.write(batch(first.end, [line(2)]))
    assert len(server.asked) == 2


def test_nobody_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(RetryableError, match="nothing listens there"):
        Place(tmp_path, f"http://127.0.0.1:{port}").store().write(batch(START, [line(1)]))
    with pytest.raises(RetryableError, match="does not resolve"):
        Place(tmp_path, "http://nowhere.invalid").store().write(batch(START, [line(1)]))


def test_retry_after_is_kept(server: AnsweringServer, place: Place) -> None:
    server.rule = lambda asked: Reply(429, headers={"Retry-After": "30"})
    store = place.store()
    for _ in range(5):
        with pytest.raises(RetryableError):
            store.write(batch(START, [line(1)]))
    assert len(server.asked) == 1
    server.rule = answers()
    place.clock.advance(29.9)
    with pytest.raises(RetryableError, match="left alone"):
        store.write(batch(START, [line(1)]))
    place.clock.advance(0.2)
    store.write(batch(START, [line(1)]))
    assert len(server.asked) == 2


def test_forms_of_retry_after() -> None:
    assert [wait_of(text, 1000.0) for text in (None, "", "7", "-7", "x", "1e9", "99999999999999")] == [
        0,
        0,
        7,
        0,
        0,
        0,
        900,
    ]
    assert wait_of(formatdate(1060, usegmt=True), 1000.0) == 60
    assert wait_of(formatdate(10, usegmt=True), 1000.0) == 0
    assert wait_of("Wed, 99 Foo 2026 99:99:99 GMT", 1000.0) == 0


def test_what_is_rejected_as_a_whole_becomes_dead_letters(server: AnsweringServer, place: Place) -> None:
    body = b'{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"too old"}}'
    server.rule = lambda asked: Reply(body=body) if asked.signal == "logs" else Reply()
    store = place.store()
    one = batch(START, [line(1), line(2, **METRIC), line(3)])
    with pytest.raises(Refused) as raised:
        store.write(one)
    assert raised.value.reasons == {0: "too old", 2: "too old"}
    store.write(Batch(one.start, one.end, Block.parse(one.lines[1] + b"\n"), find_positions=lambda: [one.position(1)]))
    assert len(server.of("logs")) == 1 and len(server.of("metrics")) == 1
    assert store.figures["rejected"] == 2 and store.figures["metrics"] == 1


def test_what_is_rejected_is_in_no_total(server: AnsweringServer, tmp_path: Path) -> None:
    body = b'{"partialSuccess":{"rejectedDataPoints":"1","errorMessage":"no"}}'
    replies = [Reply(body=body), Reply()]
    server.rule = lambda asked: replies.pop(0)
    store = Place(tmp_path, server.url, temporality="cumulative").store()
    first = batch(START, [line(1, **{**METRIC, "kind": "counter", "value": 5})])
    with pytest.raises(Refused):
        store.write(first)
    store.write(batch(first.end, [line(2, **{**METRIC, "kind": "counter", "value": 2})]))
    [metric] = server.asked[1].records()
    assert metric["sum"]["dataPoints"][0]["asDouble"] == 2


def test_what_is_rejected_in_part_is_counted_and_not_sent_again(server: AnsweringServer, place: Place) -> None:
    server.rule = lambda asked: Reply(body=b'{"partialSuccess":{"rejectedLogRecords":1,"errorMessage":"too old"}}')
    store = place.store()
    store.write(batch(START, [line(1), line(2), line(3)]))
    assert (store.figures["logs"], store.figures["rejected"]) == (2, 1) and len(server.asked) == 1


@pytest.mark.parametrize("body", [b"", b"{}", b'{"partialSuccess":{}}', b'{"partialSuccess":null}', b"<html>", b"\xff",
                                  b'{"partialSuccess":{"errorMessage":"a warning"}}'])  # fmt: skip
def test_successes(server: AnsweringServer, place: Place, body: bytes) -> None:
    server.rule = lambda asked: Reply(body=body)
    store = place.store()
    store.write(batch(START, [line(1)]))
    assert store.figures["rejected"] == 0


def test_answers_in_protobuf(server: AnsweringServer, tmp_path: Path) -> None:
    partial = protobuf.encode_answer("logs", Answer(PartialSuccess(rejected_log_records=1, error_message="no")))
    replies = [
        Reply(body=b"\n\0", media_type="application/x-protobuf"),
        Reply(body=partial, media_type="application/x-protobuf"),
    ]
    server.rule = lambda asked: replies.pop(0)
    store = Place(tmp_path, server.url, encoding="protobuf").store()
    first = batch(START, [line(1)])
    store.write(first)
    assert server.asked[0].headers["Content-Type"] == "application/x-protobuf"
    with pytest.raises(Refused, match="no"):
        store.write(batch(first.end, [line(2)]))


def test_a_request_that_is_too_large_is_halved_and_the_next_are_smaller(server: AnsweringServer, place: Place) -> None:
    lines = [line(seq, message="x" * 30_000) for seq in range(1, 17)]
    server.rule = lambda asked: Reply(413 if len(asked.body) > 200_000 else 200)
    store = place.store()
    first = batch(START, lines)
    store.write(first)
    assert sum(len(asked.records()) for asked in server.asked if len(asked.body) <= 200_000) == 16
    refused = sum(len(asked.body) > 200_000 for asked in server.asked)
    store.write(batch(first.end, lines))
    assert sum(len(asked.body) > 200_000 for asked in server.asked) == refused


def test_requests_of_a_signal_that_were_taken_are_not_sent_again(
    server: AnsweringServer, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wafermon.backends.otlp.store.REQUEST_BYTES", 50_000)
    lines = [line(seq, message="x" * 10_000) for seq in range(1, 17)]
    server.rule = lambda asked: Reply(503 if len(server.asked) == 3 else 200)
    one = batch(START, lines)
    with pytest.raises(RetryableError):
        place.store().write(one)
    place.store().write(one)
    seen = [
        record["attributes"][-1]["value"]["stringValue"]
        for at, asked in enumerate(server.asked)
        if at != 2
        for record in asked.records()
    ]
    assert len(seen) == len(set(seen)) == 16


def test_what_is_sent_beside(server: AnsweringServer, tmp_path: Path) -> None:
    more = {
        "headers": {"Authorization": "Bearer x"},
        "resource": {"deployment.environment.name": "fab"},
        "compress": "none",
    }
    Place(tmp_path, f"{server.url}/otlp/", **more).store().write(batch(START, [line(1)]))
    [asked] = server.asked
    assert asked.headers["Authorization"] == "Bearer x" and "Content-Encoding" not in asked.headers
    assert {"key": "deployment.environment.name", "value": {"stringValue": "fab"}} in asked.said["resourceLogs"][0][
        "resource"
    ]["attributes"]


def test_signals_that_are_not_wanted(server: AnsweringServer, tmp_path: Path) -> None:
    Place(tmp_path, server.url, signals=["traces"]).store().write(mixed())
    assert [asked.signal for asked in server.asked] == ["traces"]


def test_a_damaged_record_is_kept_beside(server: AnsweringServer, place: Place, tmp_path: Path) -> None:
    for damaged in (
        b"x",
        b"[]",
        b'{"position":3,"ahead":{}}',
        b'{"position":"a:b:c","ahead":{}}',
        b'{"position":null,"ahead":[]}',
    ):
        (tmp_path / "position.json").write_bytes(damaged)
        place.store()
        assert place.position is None


def test_a_proxy_of_the_environment(server: AnsweringServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://user:pa%20ss@127.0.0.1:{server.port}")
    Place(tmp_path, "http://otlp.example.org:4318").store().write(batch(START, [line(1)]))
    [asked] = server.asked
    assert (
        asked.headers["Proxy-Authorization"] == "Basic dXNlcjpwYSBzcw=="
        and asked.headers["Host"] == "otlp.example.org:4318"
    )
    monkeypatch.setenv("no_proxy", "otlp.example.org")
    with pytest.raises(RetryableError):
        Place(tmp_path, "http://otlp.example.org:4318").store().write(batch(START, [line(1)]))


def test_what_doctor_asks(server: AnsweringServer, place: Place) -> None:
    assert problems(place.options) == []
    assert [json.loads(asked.body) for asked in server.asked] == [{}, {}, {}]
    server.rule = answers(metrics=404)
    [problem] = problems(place.options)
    assert "v1/metrics: status 404; `url` is without" in problem


@pytest.mark.parametrize(("given", "path", "words"), [
    ({"url": "localhost:4318"}, "url", "such as http://localhost:4318"),
    ({"url": "http://localhost:4318/v1/logs"}, "url", "the part before /v1/"),
    ({"url": "http://localhost:4318?x=1"}, "url", "such as"),
    ({}, "url", "missing"),
    ({"signals": []}, "signals", "some of logs, metrics, traces"),
    ({"signals": ["logs", "logs"]}, "signals", "each once"),
    ({"headers": {"Content-Type": "x"}}, "headers", "none of HTTP's own"),
    ({"headers": {"X": "a\nb"}}, "headers", "on one line"),
    ({"resource": {"service.name": "x"}}, "resource", "messages say that themselves"),
    ({"ca_file": "/x"}, "ca_file", "has no certificate"),
    ({"url": "https://x", "certificate": "/x"}, "key", "go together"),
    ({"temporality": "both"}, "temporality", "delta"),
])  # fmt: skip
def test_what_a_config_may_not_say(given: dict[str, Any], path: str, words: str) -> None:
    from wafermon.model.errors import ConfigError

    with pytest.raises(ConfigError) as raised:
        configure(otlp, {"url": "http://x", **given} if given else {})
    assert words in {fault.path: fault.problem for fault in raised.value.faults}[path]
