"""The memory of the latest traces: what it keeps, and that it is bounded whatever clients send."""

from __future__ import annotations

import json
import sys
from collections import OrderedDict
from typing import Any

from wafermon.correlation import recent as module
from wafermon.correlation import views
from wafermon.correlation.programs import Programs
from wafermon.correlation.recent import Recent, RecentSpan
from wafermon.model.blocks import Block
from wafermon.model.messages import decode_object
from wafermon.model.span_tree import tree

T = 1_700_000_000_000_000


def line(kind: str, trace: str = "t", **fields: Any) -> dict[str, Any]:
    bodies: dict[str, dict[str, Any]] = {
        "event": {"level": "info", "message": "m"},
        "progress": {"job_id": trace, "percent": 50},
        "span_start": {"span_id": "0" * 16, "name": "load"},
        "span_end": {"span_id": "0" * 16, "name": "load", "status": "ok", "start": T, "duration": 7.4},
    }
    return {"type": kind, "ts": T, "service": "s", "trace_id": trace, **bodies[kind], **fields}


def observe(recent: Recent, *bodies: dict[str, Any]) -> None:
    recent.observe([Block.parse(b"".join(json.dumps(body).encode() + b"\n" for body in bodies))], T)


def test_a_span_is_whole_in_either_order_of_its_messages() -> None:
    whole = RecentSpan("load", "s", "", T, 7, "ok")
    for bodies in ([line("span_start"), line("span_end")], [line("span_end"), line("span_start")], [line("span_end")]):
        recent = Recent()
        observe(recent, *bodies)
        assert recent.traces["t"].spans == {"0" * 16: whole}


def test_the_trace_heard_of_last_stays_longest() -> None:
    recent = Recent()
    for number in range(module.TRACES):
        observe(recent, line("progress", f"job-{number}"))
    observe(recent, line("progress", "job-0"))
    observe(recent, line("progress", "one more"))
    assert len(recent.traces) == module.TRACES
    assert "job-0" in recent.traces and "job-1" not in recent.traces


def test_spans_are_bounded_in_a_trace_and_in_all() -> None:
    recent = Recent()
    for trace in range(30):
        spans = [line("span_end", f"t{trace}", span_id=f"{number:016x}") for number in range(1_200)]
        observe(recent, *spans)
    assert len(recent.traces["t29"].spans) == module.SPANS
    assert sum(len(trace.spans) for trace in recent.traces.values()) <= module.ALL_SPANS
    assert list(recent.traces)[-1] == "t29" and "t0" not in recent.traces


def test_traces_without_spans_and_jobs_push_out_none_that_has_some() -> None:
    recent = Recent()
    observe(recent, line("progress", "job"))
    for number in range(2 * module.TRACES):
        summary = {"type": "trace", "ts": T, "service": "wafermon", "client": "0" * 16, "trace_id": f"t{number}", "first": T,
                   "last": T, "services": ["s"], "counts": {}, "errors": 0, "status": "idle", "part": 1}  # fmt: skip
        observe(recent, summary)
    assert list(recent.traces) == ["job"]
    assert recent.summary("t0") is None
    assert recent.summary(f"t{2 * module.TRACES - 1}") is not None


def test_the_latest_events_of_a_trace_among_all_others() -> None:
    recent = Recent()
    for number in range(300):
        observe(recent, line("event", "a", ts=T + number, message=f"m{number}"), line("event", "b", ts=T + number))
    events = recent.events("a", 200)
    assert [event["message"] for event in events] == [f"m{number}" for number in range(100, 300)]
    assert recent.events("unknown", 200) == []


def test_kept_blocks_take_bounded_memory() -> None:
    recent = Recent()
    block = Block.parse(b"".join(json.dumps(line("event", message="x" * 900)).encode() + b"\n" for _ in range(250)))
    for _ in range(50):
        recent.observe([Block(bytes(bytearray(block.raw)), block.count, block.kinds, T, T)], T)
    kept = list(recent._blocks)
    assert 10 < len(kept) < 20
    assert sum(sys.getsizeof(one.raw) for one in kept) <= module.BLOCK_BYTES


def test_ordinary_blocks_are_not_looked_into() -> None:
    class Sealed(Block):
        @property
        def messages(self) -> Any:
            raise AssertionError("parsed")

        @property
        def lines(self) -> Any:
            raise AssertionError("split")

    known = Block.parse(json.dumps(line("event")).encode() + b"\n")
    Recent().observe([Sealed(known.raw, known.count, known.kinds, T, T)], T)


def test_spans_that_are_each_others_parents_come_out_once() -> None:
    spans = [
        {"span_id": "a", "parent_id": "b", "start": 2}, {"span_id": "b", "parent_id": "a", "start": 1},
        {"span_id": "c", "parent_id": "c", "start": 3}, {"span_id": "d", "parent_id": "elsewhere", "start": 0},
    ]  # fmt: skip
    assert [(span["span_id"], span["depth"]) for span in tree(spans)] == [("d", 0), ("b", 0), ("a", 1), ("c", 0)]


def derived(kind: str, trace: str = "t", **context: Any) -> dict[str, Any]:
    """An event of the sidecar's own about a trace."""
    return line("event", trace, service="wafermon", client="0" * 16, seq=1, context={"kind": kind, **context})


def test_what_the_sidecar_found_out_is_shown_with_the_job_and_the_span() -> None:
    recent = Recent()
    observe(recent, line("progress"), line("span_start"))
    trace = recent.traces["t"]
    observe(recent, derived("job_stalled", job_id="other"), derived("span_abandoned", span_id="f" * 16))
    assert not trace.jobs["t"].reported and trace.spans["0" * 16].status is None
    observe(recent, derived("job_stalled", job_id="t"))
    assert trace.jobs["t"].reported and not trace.jobs["t"].gone
    observe(recent, derived("gone", job_id="t"), derived("span_abandoned", span_id="0" * 16))
    assert trace.jobs["t"].gone
    assert trace.spans["0" * 16].status == "abandoned"


def test_a_job_says_when_it_was_heard_of() -> None:
    recent = Recent()
    observe(recent, line("progress"))
    assert recent.traces["t"].jobs["t"].heard == T


def test_a_trace_of_which_only_the_summary_is_known_is_shown_by_that() -> None:
    recent = Recent()
    summary = {"type": "trace", "ts": T, "service": "wafermon", "client": "0" * 16, "trace_id": "t", "first": T - 5,
               "last": T, "services": ["s"], "counts": {"event": 3}, "errors": 1, "status": "idle", "part": 2}  # fmt: skip
    observe(recent, summary)
    shown = views.trace(OrderedDict(), recent, "t", Programs())
    assert shown is not None
    assert {name: shown[name] for name in ("trace_id", "part", "status", "first", "last", "services", "counts", "errors")} == {
        "trace_id": "t", "part": 2, "status": "idle", "first": T - 5, "last": T, "services": ["s"], "counts": {"event": 3},
        "errors": 1,
    }  # fmt: skip
    assert shown["jobs"] == [] and shown["spans"] == []
    assert views.trace(OrderedDict(), recent, "another", Programs()) is None


def test_the_root_of_a_trace_that_is_not_known_is_none() -> None:
    assert views.root_of(OrderedDict(), Recent(), "t") is None


def test_a_job_is_listed_with_its_trace() -> None:
    recent = Recent()
    observe(recent, line("progress", "lot-1"))
    [job] = views.jobs(OrderedDict(), recent, 10)
    assert (job["trace_id"], job["job_id"]) == ("lot-1", "lot-1")


def test_messages_of_a_trace_are_found_whatever_its_id_and_its_neighbours_look_like() -> None:
    for trace in ("job-1", "a/b", '"quoted"', "back\\slash", "ü", "a\nb", "\n", "u0041"):
        recent = Recent()
        observe(
            recent, line("event", "job-10"), line("event", trace, message="one"), line("event", "x", message=f"of {trace}")
        )  # fmt: skip
        observe(recent, line("event", trace, message='two \\ " \n', ts=T + 1), line("event", "x"))
        escaped = json.dumps(line("event", trace, message="three", ts=T + 2)).replace("o", "\\u006f")
        recent.observe([Block.parse(escaped.encode() + b"\n")], T)
        assert [event["message"] for event in recent.events(trace, 10)] == ["one", 'two \\ " \n', "three"], trace


def test_what_is_not_there_is_not_looked_for(monkeypatch: Any) -> None:
    recent = Recent()
    for number in range(10):
        observe(recent, line("event", message=str(number), ts=T + number))
    looked: list[bytes] = []
    find = module._messages_in

    def counted(block: bytes, trace: str, enough: Any) -> Any:
        looked.append(block)
        return find(block, trace, enough)

    monkeypatch.setattr(module, "_messages_in", counted)
    found = recent.messages("t", 3, {"event": 10})
    assert [event["message"] for event in found["event"]] == ["7", "8", "9"]
    assert len(looked) == 3


def test_of_a_type_of_which_there_is_enough_nothing_more_is_read(monkeypatch: Any) -> None:
    recent = Recent()
    bodies = [line("progress", job_id="j", percent=5.0)]
    bodies += [line("event", message=str(number), ts=T + 1 + number) for number in range(10)]
    for body in bodies:
        recent.observe([Block.parse(json.dumps(body, separators=(",", ":")).encode() + b"\n")], T)
    read: list[bytes] = []
    decode = decode_object

    def counted(text: bytes) -> Any:
        read.append(text)
        return decode(text)

    monkeypatch.setattr(module, "decode_object", counted)
    found = recent.messages("t", 3)
    assert [event["message"] for event in found["event"]] == ["7", "8", "9"]
    assert [one["percent"] for one in found["progress"]] == [5.0]
    assert len(read) == 4


def test_blocks_that_are_known_to_be_of_others_are_not_searched(monkeypatch: Any) -> None:
    recent = Recent()
    for number in range(20):
        block = Block.parse(
            json.dumps(line("event", f"t{number % 2}", message=str(number), ts=T + number)).encode() + b"\n"
        )
        if number >= 10:
            block.tallies()
        recent.observe([block], T)
    searched: list[bytes] = []
    find = module._messages_in

    def counted(block: bytes, trace: str, enough: Any) -> Any:
        searched.append(block)
        return find(block, trace, enough)

    monkeypatch.setattr(module, "_messages_in", counted)
    assert [event["message"] for event in recent.events("t1", 99)] == [str(number) for number in range(1, 20, 2)]
    assert len(searched) == 15


def test_which_traces_a_block_has_is_not_kept_where_these_are_many() -> None:
    recent = Recent()
    block = Block.parse(b"".join(json.dumps(line("event", f"t{n}")).encode() + b"\n" for n in range(module.TOLD + 1)))
    block.tallies()
    recent.observe([block], T)
    assert [one.traces for one in recent._blocks] == [None]
    assert len(recent.events("t7", 9)) == 1
