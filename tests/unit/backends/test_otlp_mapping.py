"""What a message becomes in OTLP, and how increments are added up."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any, cast

import msgspec
import pytest

from wafermon.backends.otlp.mapping import Item, items_of
from wafermon.backends.otlp.requests import Counters, Made, request_of
from wafermon.contract import CLIENT, line, one_of_each, without_none
from wafermon.model.messages import decode_stored
from wafermon.wire.otlp import protobuf
from wafermon.wire.otlp.ids import span_hex, trace_hex
from wafermon.wire.otlp.shapes import SIGNALS, Signal
from wafermon.wire.otlp.values import attributes_of, plain_all

TS = 1_795_500_000_000_000
EVENT = {"level": "info", "message": "m"}
PLAIN: dict[str, Any] = {"level": None, "message": None}
SPAN = {
    **PLAIN,
    "type": "span_end",
    "name": "load",
    "status": "ok",
    "start": TS,
    "duration": 17.5,
    "trace_id": "job-1",
    "span_id": "a" * 16,
}


def items(signal: Signal, *lines: bytes, progress: bool = False) -> list[Item]:
    messages = [decode_stored(without_none(one)) for one in lines]
    return [
        item
        for number, message in enumerate(messages)
        for item in items_of(signal, message, number, TS + 5, progress=progress)
    ]


def made(signal: Signal, found: Sequence[Item], counters: Counters | None = None) -> Made:
    return request_of(signal, found, {}, counters or Counters(False, TS * 1000))


def said(signal: Signal, *lines: bytes, **more: Any) -> Any:
    """A request as JSON has it."""
    return msgspec.json.decode(msgspec.json.encode(made(signal, items(signal, *lines, **more)).request))


def record(signal: Signal, one: bytes, **more: Any) -> Any:
    """The one record of a request."""
    [resource] = said(signal, one, **more)[
        {"logs": "resourceLogs", "metrics": "resourceMetrics", "traces": "resourceSpans"}[signal]
    ]
    [scope] = resource[{"logs": "scopeLogs", "metrics": "scopeMetrics", "traces": "scopeSpans"}[signal]]
    [found] = scope[{"logs": "logRecords", "metrics": "metrics", "traces": "spans"}[signal]]
    return found


def attributes(of: Any) -> dict[str, Any]:
    from collector import attributes as read

    return read(of)


def test_whose_message_it_is() -> None:
    [resource] = said("logs", line(1), line(2))["resourceLogs"]
    assert attributes(resource["resource"]) == {
        "service.name": "queue-service", "host.name": "fab1", "process.pid": 4711, "service.instance.id": CLIENT,
    }  # fmt: skip
    [scope] = resource["scopeLogs"]
    assert scope["scope"]["name"] == "wafermon"
    assert [one["body"] for one in scope["logRecords"]] == [{"stringValue": "wafer 1"}, {"stringValue": "wafer 2"}]


def test_an_event() -> None:
    found = record(
        "logs",
        line(
            7,
            level="critical",
            context={"a": {"b": [1, 2.5, None, True]}, "job.id": "x", "": 1},
            trace_id="job-1",
            span_id="0" * 15 + "1",
        ),
    )
    assert found["timeUnixNano"] == str((TS + 7) * 1000) and found["observedTimeUnixNano"] == str((TS + 5) * 1000)
    assert (found["severityNumber"], found["severityText"]) == (21, "FATAL")
    assert found["traceId"] == sha256(b"job-1").hexdigest()[:32] and found["spanId"] == "0" * 15 + "1"
    assert attributes(found) == {"a": {"b": [1, 2.5, None, True]}, "job.id": "job-1", "log.record.uid": f"{CLIENT}-7"}


@pytest.mark.parametrize(
    ("level", "number", "text"),
    [("debug", 5, "DEBUG"), ("info", 9, "INFO"), ("warning", 13, "WARN"), ("error", 17, "ERROR")],
)
def test_levels(level: str, number: int, text: str) -> None:
    found = record("logs", line(1, level=level))
    assert (found["severityNumber"], found["severityText"]) == (number, text)


def test_ids() -> None:
    assert trace_hex("0af7651916cd43dd8448eb211c80319c") == "0af7651916cd43dd8448eb211c80319c"
    for other in ("0" * 32, "0AF7651916CD43DD8448EB211C80319C", "job-1"):
        assert trace_hex(other) == sha256(other.encode()).hexdigest()[:32]
    assert span_hex("a" * 16) == "a" * 16 and len(span_hex("0" * 16)) == 16 and span_hex("0" * 16) != "0" * 16


def test_a_span() -> None:
    found = record(
        "traces",
        line(1, **{**SPAN, "status": "error", "parent_id": "b" * 16, "tags": {"kind": "server", "tool": "x", "n": 1}}),
    )
    assert found["startTimeUnixNano"] == str(TS * 1000) and found["endTimeUnixNano"] == str(TS * 1000 + 17_500)
    assert (found["kind"], found["status"], found["parentSpanId"]) == (2, {"code": 2}, "b" * 16)
    assert attributes(found) == {"tool": "x", "n": 1, "job.id": "job-1"}


def test_a_span_that_went_well_has_no_status_and_keeps_a_kind_that_is_none_of_opentelemetrys() -> None:
    found = record("traces", line(1, **{**SPAN, "tags": {"kind": "batch"}}))
    assert "status" not in found and found["kind"] == 1 and attributes(found)["kind"] == "batch"


def test_a_span_that_was_given_up_is_a_span_and_a_record() -> None:
    context = {"kind": "span_abandoned", "span_id": "c" * 16, "name": "load", "service": "db", "started": TS - 1000}
    abandoned = line(1, service="wafermon", level="warning", trace_id="job-1", context=context)
    found = record("traces", abandoned)
    assert (found["spanId"], found["status"]["code"], found["name"]) == ("c" * 16, 2, "load")
    assert found["startTimeUnixNano"] == str((TS - 1000) * 1000)
    assert record("logs", abandoned)["severityNumber"] == 13
    for broken in ({**context, "started": "x"}, {**context, "name": None}, {**context, "span_id": 3}):
        assert items("traces", line(1, service="wafermon", level="warning", trace_id="job-1", context=broken)) == []
    assert items("traces", line(1, service="mine", level="warning", trace_id="job-1", context=context)) == []


def test_what_is_in_no_signal() -> None:
    start = line(1, **{**PLAIN, "type": "span_start", "name": "n", "trace_id": "j", "span_id": "a" * 16})
    assert [items(signal, start) for signal in SIGNALS] == [[], [], []]


def test_progress() -> None:
    running = line(1, **{**PLAIN, "type": "progress", "job_id": "job-1", "percent": 42.5, "status": "running"})
    assert items("metrics", running) == [] and items("logs", running) == []
    found = record("metrics", running, progress=True)
    assert (found["name"], found["unit"]) == ("job.progress", "%")
    [point] = found["gauge"]["dataPoints"]
    assert point["asDouble"] == 42.5 and attributes(point) == {"job.id": "job-1"}
    failed = line(
        1, **{**PLAIN, "type": "progress", "job_id": "job-1", "trace_id": "t", "percent": 99, "status": "failed"}
    )
    ended = record("logs", failed)
    assert (ended["eventName"], ended["severityNumber"]) == ("wafermon.job", 17)
    assert attributes(ended) == {
        "status": "failed", "percent": 99.0, "job.id": "job-1", "log.record.uid": f"{CLIENT}-1", "event.name": "wafermon.job",
    }  # fmt: skip


def test_resources() -> None:
    one = line(1, **{**PLAIN, "type": "resource", "cpu": 150, "mem": 4096, "disk": 7, "net": 8})
    metrics = {
        found["name"]: found for found in said("metrics", one)["resourceMetrics"][0]["scopeMetrics"][0]["metrics"]
    }
    assert metrics["process.cpu.utilization"]["gauge"]["dataPoints"][0]["asDouble"] == 1.5
    assert metrics["process.memory.usage"]["sum"]["aggregationTemporality"] == 2
    assert "isMonotonic" not in metrics["process.memory.usage"]["sum"]
    assert metrics["process.disk.io"]["sum"]["isMonotonic"] and metrics["process.network.io"]["unit"] == "By"


def test_numbers_that_are_none() -> None:
    for value in ("NaN", "Infinity", "-Infinity"):
        found = record(
            "metrics", line(1, **{**PLAIN, "type": "metric", "name": "n", "value": value, "kind": "counter"})
        )
        assert found["sum"]["dataPoints"][0]["asDouble"] == value


def test_a_summary_of_a_trace() -> None:
    found = record("logs", one_of_each(1)[-1])
    assert found["eventName"] == "wafermon.trace"
    assert attributes(found)["counts"] == {"event": 3, "level.error": 1} and attributes(found)["services"] == ["a", "b"]


def counts(seq: int, value: float, ts: int, **more: Any) -> bytes:
    return line(
        seq, **{**PLAIN, "type": "metric", "name": "wafers", "value": value, "kind": "counter", "ts": TS + ts, **more}
    )


def points(one: Made) -> list[tuple[float, int, int]]:
    """(value, start, time) of each point of counters; times in microseconds after TS."""
    request: Any = one.request
    return [
        (point.as_double, int(point.start_time_unix_nano) // 1000 - TS, int(point.time_unix_nano) // 1000 - TS)
        for group in request.resource_metrics for metric in group.scope_metrics[0].metrics for point in metric.sum.data_points
    ]  # fmt: skip


def test_increments_as_deltas() -> None:
    counters = Counters(False, TS * 1000)
    first = made(
        "metrics", items("metrics", counts(1, 2, 10), counts(2, 3, 20), counts(3, 7, 30, tags={"t": "x"})), counters
    )
    assert points(first) == [(5, 0, 20), (7, 0, 30)] and first.records == 2
    again = made("metrics", items("metrics", counts(1, 2, 10), counts(2, 3, 20)), counters)
    assert points(again) == [(5, 0, 20)], "nothing counts before it was taken"
    counters.keep(first.changes, 0)
    assert points(made("metrics", items("metrics", counts(4, 1, 40)), counters)) == [(1, 20, 40)]


def test_increments_as_totals() -> None:
    counters = Counters(True, TS * 1000)
    found = items("metrics", counts(1, 2, 10), counts(2, 3, 20))
    first = made("metrics", found, counters)
    assert points(first) == points(made("metrics", found, counters)) == [(5, 0, 20)]
    counters.keep(first.changes, 0)
    assert points(made("metrics", items("metrics", counts(3, 1, 30)), counters)) == [(6, 0, 30)]


def test_increments_of_two_programs_are_apart() -> None:
    found = made(
        "metrics", items("metrics", counts(1, 2, 10), counts(2, 3, 20, host="fab2")), Counters(True, TS * 1000)
    )
    assert points(found) == [(2, 0, 10), (3, 0, 20)]


def test_an_increment_of_before_the_start() -> None:
    counters = Counters(True, TS * 1000)
    assert points(made("metrics", items("metrics", counts(1, 2, -50)), counters)) == [(2, -50, -50)]


def test_counters_that_are_forgotten_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wafermon.backends.otlp.requests.SERIES_MOST", 1)
    counters = Counters(True, TS * 1000)
    counters.keep(made("metrics", items("metrics", counts(1, 2, 10)), counters).changes, (TS + 15) * 1000)
    counters.keep(
        made("metrics", items("metrics", counts(2, 3, 20, tags={"t": 1})), counters).changes, (TS + 25) * 1000
    )
    assert points(made("metrics", items("metrics", counts(3, 5, 30)), counters)) == [(5, 25, 30)]


@pytest.mark.parametrize("signal", SIGNALS)
def test_json_and_protobuf_say_the_same(signal: Signal) -> None:
    request = made(signal, items(signal, *one_of_each(1), progress=True)).request
    through = protobuf.decode(signal, protobuf.encode(signal, request))
    assert protobuf.encode(signal, through) == protobuf.encode(signal, request)
    again = msgspec.json.decode(msgspec.json.encode(request), type=type(request))
    assert protobuf.encode(signal, cast(Any, again)) == protobuf.encode(signal, request)


def test_what_nests_deeper_than_readers_of_protobuf_go() -> None:
    deep: Any = 1
    for _ in range(31):
        deep = {"d": deep}
    request = made("logs", items("logs", line(1, context={"x": deep}))).request
    decoded: Any = protobuf.decode("logs", protobuf.encode("logs", request))
    found = plain_all(decoded.resource_logs[0].scope_logs[0].log_records[0].attributes)["x"]
    for _ in range(16):
        found = found["d"]
    assert found == '{"d":' * 15 + "1" + "}" * 15


@pytest.mark.parametrize("value", ["", "x", 0, -(2**63), 2**63 - 1, 2.5, True, False, None, [], {}, [[1], {"a": None}]])
def test_values_come_back(value: Any) -> None:
    assert plain_all(attributes_of({"k": value})) == {"k": value}
