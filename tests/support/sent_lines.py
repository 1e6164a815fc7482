"""Lines as clients send them: sound ones, and one of each kind that is refused."""

from __future__ import annotations

import json
from typing import Any

from wafermon.wire.lines import Origin

ORIGIN = Origin(service="svc", host="h", pid=3, client="9f2c9f2c9f2c9f2c", numbered=True)


NOW = 1_700_000_000_000_000


SHARED = {"ts": NOW, "service": "svc", "host": "h", "pid": 3, "client": "9f2c9f2c9f2c9f2c", "seq": 7}


def line(**fields: Any) -> bytes:
    return json.dumps({**SHARED, **fields}).encode()


def event(**fields: Any) -> bytes:
    return line(**{"type": "event", "level": "info", "message": "m", **fields})


def stats(**fields: Any) -> bytes:
    return line(**{"type": "stats", "called": 3, "dropped": 0, "unsent": 0, "last": 6, "streams": [], **fields})


def without(name: str) -> bytes:
    value = json.loads(stats())
    del value[name]
    return json.dumps(value).encode()


def raw(text: str) -> bytes:
    """An event whose context is this text."""
    return event(context={"x": "@"}).replace(b'"@"', text.encode("utf-8", "surrogatepass"))


def nested(depth: int, opening: str = '{"k":', closing: str = "}") -> str:
    return opening * depth + "1" + closing * depth


BAD = [
    ("empty line", b"", "bad_json", "an empty line"),
    ("white space", b"  \t", "bad_json", "an empty line"),
    ("no JSON", b"hello", "bad_json", "invalid character"),
    ("cut off", event()[:-5], "bad_json", "truncated"),
    ("two values", event() + event(), "bad_json", "trailing characters"),
    ("byte order mark", b"\xef\xbb\xbf" + event(), "bad_json", "invalid character"),
    ("invalid UTF-8", event().replace(b'"m"', b'"\xff"'), "bad_utf8", "byte "),
    ("surrogate in UTF-8", raw('"\ud800"'), "bad_utf8", "byte "),
    ("overlong UTF-8", event().replace(b'"m"', b'"\xc0\xaf"'), "bad_utf8", "byte "),
    ("lone surrogate", raw(r'"\ud800"'), "bad_json", "surrogate"),
    ("lone low surrogate", raw(r'"\udc00"'), "bad_json", "surrogate"),
    ("stats without called", stats(called=None), "bad_message", "called: "),
    ("stats without streams", without("streams"), "bad_message", "streams: missing"),
    ("stats of half a message", stats(unsent=0.5), "bad_message", "unsent: "),
    ("stats of another stream", stats(streams=[{"client": "B" * 16, "last": 1}]), "bad_message", "client"),
    ("stats of a stream without an end", stats(streams=[{"client": "b" * 16}]), "bad_message", "last: missing"),
    ("stats of too many streams", stats(streams=[{"client": "b" * 16, "last": 1}] * 1001), "bad_message", "streams: "),
    ("NUL", raw(r'"a\u0000b"'), "bad_json", "NUL"),
    ("NUL in a key", raw(r'{"\u0000":1}'), "bad_json", "NUL"),
    ("control character", raw('"a\tb"'), "bad_json", "invalid character"),
    ("NaN", raw("NaN"), "bad_json", "invalid character"),
    ("-Infinity", raw("-Infinity"), "bad_json", "invalid"),
    ("leading zero", raw("01"), "bad_json", "invalid"),
    ("trailing point", raw("1."), "bad_json", "invalid"),
    ("minus alone", raw("-"), "bad_json", "invalid"),
    ("out of range", raw("1e999"), "bad_message", "context[...]: number out of range"),
    ("an endless integer", raw("9" * 5000), "bad_message", "context[...]: integer value out of range"),
    ("10,000 deep", raw(nested(10_000)), "bad_message", "nested deeper than 32"),
    ("10,000 arrays", raw(nested(10_000, "[", "]")), "bad_message", "nested deeper than 32"),
    ("10,000 open", raw("[" * 10_000), "bad_message", "nested deeper than 32"),
    ("33 deep", raw(nested(32)), "bad_message", "nested deeper than 32"),
    ("an array", b"[]", "bad_message", "expected an object, got an array"),
    ("a number", b"3", "bad_message", "expected an object, got a number"),
    ("null", b"null", "bad_message", "expected an object, got null"),
    ("no type", line(level="info"), "bad_message", "type: missing"),
    ("type null", line(type=None), "bad_message", "type: expected a string, got null"),
    ("type a number", line(type=5), "bad_message", "type: expected a string"),
    ("unknown type", line(type="log"), "unknown_type", "type: 'log' is none of event, metric"),
    ("trace", line(type="trace"), "unknown_type", "type: 'trace'"),
    ("second hello", line(type="hello"), "bad_message", "type: a hello is the first line"),
    ("v 3", event(v=3), "bad_message", "v: expected 2, got 3"),
    ("v a float", event(v=2.5), "bad_message", "v: "),
    ("service reserved", event(service="wafermon"), "bad_message", "service: 'wafermon' is reserved"),
    ("service with space", event(service="a b"), "bad_message", "service: expected 1-128 of"),
    ("service empty", event(service=""), "bad_message", "service: "),
    ("service long", event(service="a" * 129), "bad_message", "service: "),
    ("service null", event(service=None), "bad_message", "service: expected str, got null"),
    ("ts a float", event(ts=1.5), "bad_message", "ts: expected int, got float"),
    ("ts a bool", event(ts=True), "bad_message", "ts: expected int, got bool"),
    ("ts in seconds", event(ts=1_700_000_000), "bad_message", "ts: expected int >= 946684800000000"),
    ("ts beyond 2200", event(ts=8_000_000_000_000_000), "bad_message", "ts: expected int <= 7258118400000000"),
    ("pid a string", event(pid="1"), "bad_message", "pid: expected int, got str"),
    ("pid negative", event(pid=-1), "bad_message", "pid: expected int >= 0"),
    ("host a number", event(host=1), "bad_message", "host: expected str, got int"),
    ("trace id with space", event(trace_id="a b"), "bad_message", "trace_id: expected 1-128 printable"),
    ("trace id empty", event(trace_id=""), "bad_message", "trace_id: "),
    ("span id short", event(span_id="12"), "bad_message", "span_id: expected 16 of 0-9 a-f"),
    ("span id upper", event(span_id="ABCDEF0123456789"), "bad_message", "span_id: "),
    ("seq 0", event(seq=0), "bad_message", "seq: expected int >= 1"),
    ("seq beyond 2^53", event(seq=2**53 + 1), "bad_message", "seq: expected int <= 9007199254740992"),
    ("seq a float", event(seq=1.0), "bad_message", "seq: expected int, got float"),
    ("another client", event(client="0" * 16), "bad_message", "client: this connection carries the stream of"),
    ("truncated a string", event(truncated="yes"), "bad_message", "truncated: expected bool, got str"),
    ("no level", line(type="event", message="m"), "bad_message", "level: missing"),
    ("level", event(level="loud"), "bad_message", "level: expected debug, info, warning, error, critical, got 'loud'"),
    ("message null", event(message=None), "bad_message", "message: expected str, got null"),
    ("no message", line(type="event", level="info"), "bad_message", "message: missing"),
    ("context an array", event(context=[]), "bad_message", "context: expected object, got array"),
    ("metric without name", line(type="metric", value=1), "bad_message", "name: missing"),
    ("metric without value", line(type="metric", name="n"), "bad_message", "value: missing"),
    ("value a bool", line(type="metric", name="n", value=True), "bad_message", "value: "),
    ("value a word", line(type="metric", name="n", value="inf"), "bad_message", "value: expected a number, 'NaN'"),
    ("value too large", line(type="metric", name="n", value=0).replace(b": 0", b": 1e400"), "bad_message", "value: "),
    ("kind", line(type="metric", name="n", value=1, kind="sum"), "bad_message", "kind: expected gauge or counter"),
    ("tag a bool", line(type="metric", name="n", value=1, tags={"a": True}), "bad_message", "tags[...]: "),
    ("tag an array", line(type="metric", name="n", value=1, tags={"a": []}), "bad_message", "tags[...]: "),
    ("tag an object", line(type="metric", name="n", value=1, tags={"a": {}}), "bad_message", "tags[...]: "),
    ("percent 300", line(type="progress", job_id="j", percent=300), "bad_message", "percent: expected float <= 100"),
    ("percent a string", line(type="progress", job_id="j", percent="9"), "bad_message", "percent: expected float"),
    ("no job", line(type="progress", percent=3), "bad_message", "job_id: missing"),
    ("job with space", line(type="progress", job_id="a b", percent=3), "bad_message", "trace_id: "),
    ("job null", line(type="progress", job_id=None, percent=3), "bad_message", "job_id: "),
    ("status empty", line(type="progress", job_id="j", percent=3, status=""), "bad_message", "status: "),
    ("cpu null", line(type="resource", cpu=None), "bad_message", "cpu: expected float, got null"),
    ("span without trace", line(type="span_start", name="n", span_id="a" * 16), "bad_message", "trace_id: missing"),
    ("span without id", line(type="span_start", name="n", trace_id="t"), "bad_message", "span_id: missing"),
    (
        "parent",
        line(type="span_start", name="n", trace_id="t", span_id="a" * 16, parent_id="p"),
        "bad_message",
        "parent_id: expected 16 of 0-9 a-f",
    ),
    (
        "span end without start",
        line(type="span_end", name="n", trace_id="t", span_id="a" * 16, status="ok", duration=1),
        "bad_message",
        "start: missing",
    ),
    (
        "span end status",
        line(type="span_end", name="n", trace_id="t", span_id="a" * 16, status="fine", start=NOW, duration=1),
        "bad_message",
        "status: expected ok or error, got 'fine'",
    ),
]


GOOD = [
    event(),
    event(v=2, context={"a": [1, {"b": None}], "c": "\u2028\U0001f600", "d": 1e300}),
    event(context={}, trace_id="job-4711", span_id="0123456789abcdef", truncated=True),
    raw(nested(31)),
    raw("123456789012345678901234567890"),
    line(type="metric", name="n", value=1),
    line(type="metric", name="n", value=1.5, unit="Cel", tags={"a": "b", "c": 1, "d": 1.5}, kind="counter"),
    line(type="metric", name="n", value="NaN", tags={"not finite": None}),
    line(type="metric", name="n", value="-Infinity"),
    line(type="progress", job_id="job-1", percent=0, trace_id="job-1"),
    line(type="progress", job_id="job-1", percent=99.5, status="done", trace_id="t"),
    line(type="resource"),
    line(type="resource", cpu=1.5, mem=3, disk=0, net=2**60),
    line(type="span_start", name="n", trace_id="t", span_id="a" * 16),
    line(type="span_start", name="n", trace_id="t", span_id="a" * 16, parent_id="b" * 16, tags={"a": 1}),
    line(type="span_end", name="n", trace_id="t", span_id="a" * 16, status="error", start=NOW, duration=0.5),
    line(type="stats", called=3, dropped=0, unsent=1, last=6, streams=[]),
    line(
        type="stats",
        called=3,
        dropped=0,
        unsent=0,
        last=6,
        streams=[{"client": "b" * 16, "last": 4, "x": 1}],
        final=True,
    ),
]
