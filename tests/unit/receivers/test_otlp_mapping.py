"""What OpenTelemetry's programs send -> lines, and what the line reader says of them."""

from __future__ import annotations

import contextlib
import json
from hashlib import sha256
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wafermon.backends.otlp.mapping import items_of
from wafermon.backends.otlp.requests import Counters, request_of
from wafermon.contract import line, one_of_each
from wafermon.model.messages import decode_stored
from wafermon.receivers.otlp.mapping import SENDERS, lines_of, service_of
from wafermon.receivers.otlp.recent import KEPT_SECONDS, Recent
from wafermon.receivers.otlp.senders import Sender
from wafermon.receivers.otlp.traces import LOOK_SECONDS, TraceHashes
from wafermon.wire.lines import LineReader, Origin
from wafermon.wire.otlp import bodies, protobuf
from wafermon.wire.otlp.ids import nobody_hex, trace_hex
from wafermon.wire.otlp.shapes import (
    SIGNALS,
    AnyValue,
    CountedPoint,
    Exemplar,
    Gauge,
    Histogram,
    Link,
    LogRecord,
    Logs,
    Metric,
    Metrics,
    NumberDataPoint,
    PartialSuccess,
    Request,
    Resource,
    ResourceLogs,
    ResourceMetrics,
    ResourceSpans,
    Scope,
    ScopeLogs,
    ScopeMetrics,
    ScopeSpans,
    Signal,
    Span,
    SpanEvent,
    Status,
    Sum,
    Traces,
)
from wafermon.wire.otlp.values import attributes_of

TIME = 1_795_500_000_000_000_000
LONGEST = 65_536
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def lines(
    signal: Signal, request: Any, known: dict[str, str] | None = None, longest: int = LONGEST
) -> list[dict[str, Any]]:
    """The lines of a request in JSON, each as the reader takes it."""
    read = bodies.read(signal, bodies.JSON, json.dumps(request).encode())
    made = lines_of(read, (known or {}).get, longest)
    for one in made.lines:
        assert len(one) <= longest
        LineReader(Origin()).read_line(one, TIME // 1000)
    return [json.loads(one) for one in made.lines]


def attributes(**values: Any) -> list[dict[str, Any]]:
    return [{"key": key.replace("__", "."), "value": value} for key, value in values.items()]


def nobody(hashed: str) -> None:
    """No trace is known."""


def of_log(**record: Any) -> Any:
    return {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"timeUnixNano": str(TIME), **record}]}]}]}


def of_span(**span: Any) -> Any:
    whole = {
        "traceId": TRACE,
        "spanId": SPAN,
        "name": "s",
        "startTimeUnixNano": str(TIME),
        "endTimeUnixNano": str(TIME + 1500),
        **span,
    }
    return {"resourceSpans": [{"scopeSpans": [{"spans": [whole]}]}]}


def of_metric(**metric: Any) -> Any:
    return {"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": "m", **metric}]}]}]}


def point(**more: Any) -> dict[str, Any]:
    return {"dataPoints": [{"timeUnixNano": str(TIME), **more}]}


@pytest.mark.parametrize(("name", "service"), [
    ("queue-service", "queue-service"), ("my app/ü", "my_app__"), ("", "unknown_service"), (None, "unknown_service"), (3, "unknown_service"),
    ("wafermon", "wafermon_"), ("x" * 200, "x" * 128),
])  # fmt: skip
def test_names_of_services(name: Any, service: str) -> None:
    assert service_of(name) == service


def test_resource_and_scope() -> None:
    request = of_log()
    request["resourceLogs"][0]["resource"] = {"attributes": attributes(
        service__name={"stringValue": "app"}, host__name={"stringValue": "fab\n1"}, process__pid={"intValue": "7"},
        telemetry__sdk__name={"stringValue": "x"}, k8s__pod__name={"stringValue": "p"},
    )}  # fmt: skip
    request["resourceLogs"][0]["scopeLogs"][0]["scope"] = {"name": "lib"}
    [one] = lines("logs", request)
    assert (one["service"], one["host"], one["pid"]) == ("app", "fab1", 7)
    assert (one["resource"], one["scope"]) == ({"k8s.pod.name": "p"}, "lib")


@pytest.mark.parametrize(("number", "text", "level"), [
    (1, "", "debug"), (8, "", "debug"), (9, "", "info"), (13, "", "warning"), (16, "", "warning"), (17, "", "error"), (21, "", "critical"),
    (24, "", "critical"), (99, "", "critical"), (0, "WARN", "warning"), (0, "Fatal", "critical"), (0, "?", "info"), (-5, "", "info"),
])  # fmt: skip
def test_severities(number: int, text: str, level: str) -> None:
    assert lines("logs", of_log(severityNumber=number, severityText=text))[0]["level"] == level


@pytest.mark.parametrize(("body", "message"), [
    ({"stringValue": "x"}, "x"), ({"intValue": "7"}, "7"), ({"boolValue": True}, "true"), ({"bytesValue": "AAE="}, "0001"), ({}, ""), (None, ""),
    ({"kvlistValue": {"values": [{"key": "a", "value": {"arrayValue": {"values": [{"intValue": 1}, {}]}}}]}}, '{"a":[1,null]}'),
    ({"doubleValue": "NaN"}, "NaN"), ({"doubleValue": 0.5}, "0.5"), ({"stringValue": "a\0b"}, "a\ufffdb"),
])  # fmt: skip
def test_bodies_of_log_records(body: Any, message: str) -> None:
    assert lines("logs", of_log(body=body))[0]["message"] == message


def test_times() -> None:
    assert lines("logs", of_log())[0]["ts"] == TIME // 1000
    assert lines("logs", of_log(timeUnixNano=0, observedTimeUnixNano=str(TIME + 5000)))[0]["ts"] == TIME // 1000 + 5
    read = bodies.read("logs", bodies.JSON, json.dumps(of_log(timeUnixNano=None)).encode())
    made = lines_of(read, nobody, LONGEST)
    assert "ts" not in json.loads(made.lines[0]) and not made.timed


def test_ids() -> None:
    one = lines("logs", of_log(traceId=TRACE.upper(), spanId=SPAN))[0]
    assert (one["trace_id"], one["span_id"]) == (TRACE, SPAN)
    for none in ("0" * 32, "", "x", "ab"):
        assert "trace_id" not in lines("logs", of_log(traceId=none))[0]
    assert lines("logs", of_log(traceId=TRACE), {TRACE: "job-1"})[0]["trace_id"] == "job-1"


def test_a_job_that_an_attribute_names() -> None:
    job = attributes(job__id={"stringValue": "job-1"})
    for trace_id in (trace_hex("job-1"), ""):
        one = lines("logs", of_log(traceId=trace_id, attributes=job))[0]
        assert one["trace_id"] == "job-1" and "context" not in one
    other = lines("logs", of_log(traceId=TRACE, attributes=job))[0]
    assert other["trace_id"] == TRACE and other["context"] == {"job.id": "job-1"}
    assert "trace_id" not in lines("logs", of_log(attributes=attributes(job__id={"stringValue": "a b"})))[0]


def test_a_span() -> None:
    said = attributes(
        a={"boolValue": True},
        b={"arrayValue": {"values": [{"intValue": 1}]}},
        c={"intValue": str(2**60)},
        d={},
        e={"doubleValue": 0.5},
    )
    link = {"traceId": trace_hex("job-2"), "spanId": SPAN}
    status = {"code": 2, "message": "bad"}
    [one] = lines(
        "traces",
        of_span(kind=2, attributes=said, links=[link], status=status, parentSpanId="b" * 16),
        {trace_hex("job-2"): "job-2"},
    )
    assert (one["type"], one["duration"], one["status"], one["parent_id"]) == ("span_end", 1.5, "error", "b" * 16)
    assert one["tags"] == {
        "a": "true", "b": "[1]", "c": str(2**60), "d": None, "e": 0.5, "kind": "server", "status.message": "bad", "links": f"job-2/{SPAN}",
    }  # fmt: skip


def test_a_span_that_ends_before_it_starts() -> None:
    assert lines("traces", of_span(endTimeUnixNano=str(TIME - 10**9)))[0]["duration"] == 0


def test_a_parent_that_stands_for_none() -> None:
    """A W3C traceparent must name a parent; where no span is open, SDKs make one of the job's id."""
    hashed = trace_hex("job-1")
    assert nobody_hex("job-1") == sha256(b"job-1").hexdigest()[32:48]
    [one] = lines("traces", of_span(traceId=hashed, parentSpanId=nobody_hex("job-1")), {hashed: "job-1"})
    assert "parent_id" not in one and one["trace_id"] == "job-1"


def test_numbers() -> None:
    assert lines("metrics", of_metric(unit="By", gauge=point(asInt="7")))[0] | {"ts": 0} == {
        "type": "metric", "ts": 0, "service": "unknown_service", "name": "m", "value": 7, "unit": "By",
    }  # fmt: skip
    kinds = [(1, True, "counter"), (2, True, None), (2, False, None), (0, True, None)]
    for temporality, monotonic, kind in kinds:
        data = {**point(asDouble=1.5), "aggregationTemporality": temporality, "isMonotonic": monotonic}
        assert lines("metrics", of_metric(sum=data))[0].get("kind") == kind
    assert lines("metrics", of_metric(gauge=point(asDouble="Infinity")))[0]["value"] == "Infinity"
    assert (
        lines("metrics", of_metric(gauge=point())) == [] == lines("metrics", of_metric(gauge=point(asInt=1, flags=1)))
    )


@pytest.mark.parametrize("kind", ["histogram", "exponentialHistogram", "summary"])
def test_histograms(kind: str) -> None:
    data = {**point(count="3", sum=1.5, bucketCounts=["1", "2"], explicitBounds=[1.0]), "aggregationTemporality": 1}
    found = lines("metrics", of_metric(unit="s", **{kind: data}))
    assert [(one["name"], one["value"], one["unit"]) for one in found] == [("m_count", 3, "1"), ("m_sum", 1.5, "s")]
    assert {one.get("kind") for one in found} == {None if kind == "summary" else "counter"}


@pytest.mark.parametrize("text", ["x", "ü", "\x01", '"', "\\", "🚀"])
def test_what_is_too_long_is_shortened(text: str) -> None:
    said = attributes(a={"stringValue": text * 70_000}, b={"intValue": 1})
    [one] = lines("logs", of_log(body={"stringValue": text * 70_000}, attributes=said, traceId=TRACE))
    assert (
        one["truncated"]
        and one["trace_id"] == TRACE
        and one["message"].startswith(text * 100)
        and "truncated" in one["context"]
    )
    [one] = lines("logs", of_log(body={"stringValue": text * 70_000}, attributes=attributes(b={"intValue": 1})))
    assert one["context"] == {"b": 1} and len(msgspec.json.encode(one)) > LONGEST * 0.8


def test_nesting_beyond_what_a_line_may_have_is_refused_alone() -> None:
    value: Any = {"intValue": 1}
    for _ in range(40):
        value = {"arrayValue": {"values": [value]}}
    read = bodies.read("logs", bodies.JSON, json.dumps(of_log(attributes=attributes(a=value))).encode())
    with pytest.raises(Exception, match="nested deeper"):
        LineReader(Origin()).read_line(lines_of(read, nobody, LONGEST).lines[0], 1)


@pytest.mark.parametrize(
    "value", [{"intValue": "x"}, {"intValue": "9" * 30}, {"doubleValue": "x"}, {"bytesValue": "?"}]
)
def test_values_that_are_none(value: Any) -> None:
    with pytest.raises(ValueError, match=r"number|float|base64|literal"):
        lines("logs", of_log(attributes=attributes(a=value)))


@pytest.mark.parametrize("signal", SIGNALS)
def test_what_the_backend_sends_comes_back(signal: Signal) -> None:
    """From one sidecar to another: under the same trace, with what OTLP has a place for."""
    messages = [decode_stored(one) for one in one_of_each(1)] + [
        decode_stored(line(99, trace_id="job-1", level="error", context={"a": [1]}))
    ]
    items = [
        item for number, message in enumerate(messages) for item in items_of(signal, message, number, 0, progress=True)
    ]
    request = request_of(signal, items, {}, Counters(False, 0)).request
    for body, media_type in (
        (msgspec.json.encode(request), bodies.JSON),
        (protobuf.encode(signal, request), bodies.PROTOBUF),
    ):
        made = lines_of(bodies.read(signal, media_type, body), nobody, 1 << 20)
        found = [json.loads(one) for one in made.lines]
        assert made.timed and len(found) >= (1 if signal == "traces" else 4)
        for one in made.lines:
            LineReader(Origin()).read_line(one, 1)
        if signal == "traces":
            assert (found[0]["trace_id"], found[0]["name"], found[0]["start"], found[0]["duration"]) == (
                "job-4711",
                "load",
                TIME // 1000,
                17,
            )
        if signal == "logs":
            [last] = [one for one in found if one["message"] == "wafer 99"]
            assert (last["trace_id"], last["level"], last["message"], last["context"]["a"]) == (
                "job-1",
                "error",
                "wafer 99",
                [1],
            )


# -- what is read of a body


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for signal in SIGNALS:
        for media_type in (bodies.JSON, bodies.PROTOBUF):
            with contextlib.suppress(bodies.Unreadable, ValueError):
                lines_of(bodies.read(signal, media_type, data), nobody, LONGEST)
        with contextlib.suppress(protobuf.Malformed, protobuf.TooMany):
            protobuf.check_count(signal, data, 10)
    for encoding in ("", "gzip"):
        with contextlib.suppress(bodies.Unreadable):
            bodies.unpack(data, encoding)


def test_values_of_protobuf_are_counted_before_they_are_made() -> None:
    body = protobuf.encode(
        "logs", bodies.read("logs", bodies.JSON, json.dumps(of_log(attributes=attributes(a={"intValue": 1}))).encode())
    )
    protobuf.check_count("logs", body, 5)  # resource, scope, record, attribute, value
    with pytest.raises(protobuf.TooMany):
        protobuf.check_count("logs", body, 4)
    for end in range(1, len(body)):
        with pytest.raises(protobuf.Malformed):
            protobuf.check_count("logs", body[:end], 5)


# -- what is known of before


def test_requests_that_come_again() -> None:
    now = [0.0]
    recent, answers = Recent(lambda: now[0]), list[Any]()
    assert recent.find(b"a") is None
    recent.begin(b"a")
    waiting = recent.find(b"a")
    assert waiting is not None
    waiting.addCallback(answers.append)
    recent.answered(b"a", PartialSuccess(rejected_spans=1), keep=True)
    assert answers == [PartialSuccess(rejected_spans=1)]
    now[0] = KEPT_SECONDS - 1
    again = recent.find(b"a")
    assert again is not None
    again.addCallback(answers.append)
    assert len(answers) == 2
    now[0] += 2
    assert recent.find(b"a") is None and len(recent) == 0
    recent.begin(b"b")
    recent.answered(b"b", PartialSuccess(), keep=False)
    assert recent.find(b"b") is None


def test_few_requests_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wafermon.receivers.otlp.recent.KEPT_MOST", 2)
    recent = Recent(lambda: 0.0)
    for digest in (b"a", b"b", b"c"):
        recent.begin(digest)
        recent.answered(digest, PartialSuccess(), keep=True)
    assert recent.find(b"a") is None and recent.find(b"c") is not None and len(recent) == 2


def test_hashes_of_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wafermon.receivers.otlp.traces.KNOWN_MOST", 2)
    live = ["job-1", TRACE]
    hashes = TraceHashes(lambda: live, lambda: 0.0)
    hashes.refresh()
    assert hashes.find(trace_hex("job-1")) == "job-1" and hashes.find(TRACE) is None
    live[:] = ["job-2"]
    hashes.refresh()
    assert (hashes.find(trace_hex("job-1")), hashes.find(trace_hex("job-2"))) == ("job-1", "job-2")
    live[:] = ["job-3"]
    hashes.refresh()
    assert (hashes.find(trace_hex("job-1")), hashes.find(trace_hex("job-3"))) == (None, "job-3")


def test_many_traces_are_not_looked_through_at_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wafermon.receivers.otlp.traces.FEW", 1)
    now, live = [0.0], ["job-1", "job-2"]
    hashes = TraceHashes(lambda: live, lambda: now[0])
    hashes.refresh()
    live.append("job-3")
    hashes.refresh()
    assert hashes.find(trace_hex("job-3")) is None
    now[0] = LOOK_SECONDS
    hashes.refresh()
    assert hashes.find(trace_hex("job-3")) == "job-3"


def test_the_programs_of_a_request_are_told_apart_and_counted() -> None:
    """By what their resources say; of very many the first hundred."""

    def of(**said: object) -> ResourceLogs:
        records = [ScopeLogs(None, [LogRecord(body=AnyValue("x")), LogRecord(body=AnyValue("y"))])]
        return ResourceLogs(Resource(attributes_of({key.replace("_", "."): one for key, one in said.items()})), records)

    java = {"telemetry_sdk_name": "opentelemetry", "telemetry_sdk_language": "java", "telemetry_sdk_version": "1.62.0"}
    first = of(service_name="a", host_name="h", process_pid=7, service_instance_id="i\n1", **java)
    made = lines_of(Logs([first, of(service_name="b"), first, ResourceLogs(None, [])]), nobody, LONGEST)
    assert dict(made.senders) == {Sender("a", "h", 7, "i1", "opentelemetry-java/1.62.0"): 4, Sender("b"): 2}
    many = lines_of(Logs([of(service_name=f"s{n}") for n in range(500)]), nobody, LONGEST)
    assert (len(many.lines), len(many.senders), sum(many.senders.values())) == (1_000, SENDERS, 2 * SENDERS)


SAID = attributes_of({
    "text": "\u00e9\U0001f600", "empty": "", "yes": True, "no": False, "minus": -5, "zero": 0, "large": 2**63 - 1, "least": -(2**63),
    "real": 1.5, "nothing": 0.0, "none": None, "long": "y" * 20_000, "list": [1, "a", [True], {}], "map": {"k": {"q": None}},
})  # fmt: skip
IDS = ("0123456789abcdef" * 2, "0123456789abcdef")
ALL: list[tuple[Signal, Request]] = [
    ("logs", Logs([ResourceLogs(Resource(SAID), [ScopeLogs(Scope("s", "v"), [
        LogRecord("5", "6", 9, "INFO", "name", AnyValue("text"), SAID, *IDS), LogRecord(),
    ])]), ResourceLogs()])),
    ("traces", Traces([ResourceSpans(None, [ScopeSpans(None, [
        Span(*IDS, IDS[1], "n", 2, "1", str(2**64 - 1), SAID, [SpanEvent("4", "e", SAID)], [Link(*IDS)], Status("m", 2)), Span(),
    ])])])),
    ("metrics", Metrics([ResourceMetrics(Resource(SAID), [ScopeMetrics(Scope(), [
        Metric("a", "u", gauge=Gauge([
            NumberDataPoint("1", "2", 0.0, None, SAID, [Exemplar("1", 2.0, None, IDS[1], IDS[0])], 1),
            NumberDataPoint(as_double="NaN"), NumberDataPoint(as_int="-7"), NumberDataPoint(as_int="0"),
        ])),
        Metric("b", sum=Sum([NumberDataPoint(as_double="-Infinity")], 2, True)),
        Metric("h", histogram=Histogram([CountedPoint("1", "2", "9", 2.5, SAID, 1)], 1)),
    ])])])),
]  # fmt: skip


@pytest.mark.parametrize(("signal", "request_"), ALL, ids=[signal for signal, _ in ALL])
def test_protobuf_is_written_as_googles_library_writes_it(signal: Signal, request_: Request) -> None:
    pytest.importorskip("opentelemetry.proto")
    written = protobuf.encode(signal, request_)
    theirs = protobuf._message(signal, "Request").FromString(written)
    assert sorted(theirs.SerializeToString()) == sorted(written), "a field is missing, or of another type"
    read = protobuf.decode(signal, written)
    assert repr(protobuf.decode(signal, protobuf.encode(signal, read))) == repr(read)  # NaN is never equal
    assert msgspec.json.encode(lines_of(read, nobody, LONGEST).lines) == msgspec.json.encode(
        lines_of(request_, nobody, LONGEST).lines
    )


def test_a_number_that_its_field_cant_hold_is_a_value_error() -> None:
    pytest.importorskip("opentelemetry.proto")
    for wrong in ("-1", str(2**64)):
        with pytest.raises(ValueError, match="can't hold"):
            protobuf.encode("logs", Logs([ResourceLogs(None, [ScopeLogs(None, [LogRecord(wrong)])])]))
