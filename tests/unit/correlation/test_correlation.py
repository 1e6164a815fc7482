"""What the engine derives from given messages, to the letter."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgspec
import pytest

from wafermon.correlation import Derived, Engine, Settings, key_of
from wafermon.correlation import ledger as ledgers
from wafermon.model.messages import OWN_SERVICE, Message, decode_stored, dumps, encode_stored, loads

T = 1_700_000_000_000_000
S = 1_000_000
JOURNAL = "00000000000000aa"
SPAN, OTHER = "a" * 16, "b" * 16


def message(type: str, trace_id: str | None = "t", *, ts: int = T, service: str = "reader", **fields: Any) -> Message:
    defaults: dict[str, dict[str, Any]] = {
        "event": {"level": "info", "message": "hello"},
        "metric": {"name": "rows", "value": 1},
        "progress": {"job_id": trace_id, "percent": 0},
        "resource": {},
        "span_start": {"name": "load", "span_id": SPAN},
        "span_end": {"name": "load", "span_id": SPAN, "status": "ok", "start": T, "duration": 1},
    }
    body = {"type": type, "ts": ts, "service": service, **defaults[type], **fields}
    if trace_id is not None:
        body["trace_id"] = trace_id
    return decode_stored(dumps(body).encode())


def stored(one: Derived) -> Message:
    return decode_stored(encode_stored(one.message))


def engine(**settings: Any) -> Engine:
    return Engine(Settings(**settings), JOURNAL)


def body(one: Derived) -> dict[str, Any]:
    return loads(encode_stored(one.message))  # type: ignore[no-any-return]


def bodies(derived: list[Derived]) -> list[dict[str, Any]]:
    return [body(one) for one in derived]


def summary(ts: int, **fields: Any) -> dict[str, Any]:
    """A `trace` of one message of `reader`, but for the fields given."""
    defaults = {"trace_id": "t", "first": T, "last": T, "services": ["reader"], "errors": 0, "part": 1}
    return {"v": 2, "type": "trace", "service": OWN_SERVICE, "client": JOURNAL, "ts": ts, **defaults, **fields}


def test_a_trace_with_spans_and_a_job() -> None:
    it = engine()
    assert not it.observe(
        [
            message("progress", ts=T + 1, percent=10, status="loading"),
            message("span_start", ts=T - 5),
            message("event", ts=T + 2, level="error", service="checker"),
            message("event", ts=T + 2, level="critical"),
            message("event", ts=T + 2),
            message("metric", ts=T + 9),
            message("resource"),
            message("metric", None),
        ],
        T,
    )
    assert not it.observe([message("span_end", ts=T + 7, status="error")], T + S)
    assert not it.observe([message("progress", ts=T + 8, percent=100, status="done")], T + 2 * S)
    assert not it.advance(T + 7 * S - 1)
    counts = {"event": 3, "progress": 2, "span_start": 1, "metric": 1, "resource": 1, "span_end": 1}
    levels = {"level.info": 1, "level.error": 1, "level.critical": 1}
    assert bodies(it.advance(T + 7 * S)) == [
        summary(
            T + 7 * S,
            first=T - 5,
            last=T + 9,
            services=["reader", "checker"],
            counts=counts | levels,
            errors=3,
            status="done",
        )
    ]
    assert it.live == 0


def test_messages_without_a_trace_leave_nothing() -> None:
    it = engine()
    assert not it.observe([message("event", None), message("metric", None)], T)
    assert it.live == 0


def test_a_late_group_fires_what_was_due_before_it_is_taken() -> None:
    it = engine()
    it.observe([message("span_end")], T)
    [ended] = it.observe([message("event", ts=T + 9)], T + 60 * S)
    assert body(ended) == summary(T + 5 * S, counts={"span_end": 1}, status="done")
    [again] = it.advance(T + 2 * 86_400 * S)
    counts = {"event": 1, "level.info": 1}
    assert body(again) == summary(T + 660 * S, first=T + 9, last=T + 9, counts=counts, status="idle", part=2)


@pytest.mark.parametrize(
    ("statuses", "status"),
    [
        (["done", "done"], "done"),
        (["done", "failed"], "failed"),
        (["cancelled", "done"], "cancelled"),
        (["cancelled", "failed"], "failed"),
    ],
)
def test_the_status_of_a_trace_is_that_of_its_jobs(statuses: list[str], status: str) -> None:
    it = engine()
    for number, one in enumerate(statuses):
        it.observe([message("progress", job_id=f"job-{number}", status=one)], T)
    assert [body["status"] for body in bodies(it.advance(T + 5 * S))] == [status]


def test_a_trace_waits_for_its_jobs_and_for_its_spans() -> None:
    it = engine(stalled_after=0)
    it.observe([message("progress"), message("span_start")], T)
    it.observe([message("span_end")], T + S)
    assert not it.advance(T + 3600 * S)
    it.observe([message("span_start"), message("progress", status="done")], T + 3600 * S)
    assert not it.advance(T + 7200 * S)
    it.observe([message("span_end")], T + 7200 * S)
    assert [body["status"] for body in bodies(it.advance(T + 7205 * S))] == ["done"]


def test_plain_messages_do_not_hold_a_settled_trace_but_a_new_span_does() -> None:
    it = engine()
    it.observe([message("span_start"), message("span_end")], T)
    it.observe([message("event")], T + 4 * S)
    it.observe([message("span_start", span_id=OTHER)], T + 4 * S)
    assert not it.advance(T + 3600 * S)
    it.observe([message("span_end", span_id=OTHER)], T + 3600 * S)
    it.observe([message("event")], T + 3604 * S)
    assert [body["ts"] for body in bodies(it.advance(T + 4000 * S))] == [T + 3605 * S]


def test_a_bare_trace_ends_when_nothing_more_is_heard() -> None:
    it = engine(trace_idle=10)
    it.observe([message("event")], T)
    it.observe([message("metric")], T + 9 * S)
    assert not it.advance(T + 19 * S - 1)
    counts = {"event": 1, "metric": 1, "level.info": 1}
    assert bodies(it.advance(T + 19 * S)) == [summary(T + 19 * S, counts=counts, status="idle")]


def test_trace_max_ends_every_trace_and_gives_up_its_spans() -> None:
    it = engine(trace_max=100, trace_idle=60)
    it.observe([message("span_start", ts=T + 3), message("span_start", span_id=OTHER, name="x" * 999)], T)
    it.observe([message("event", "busy")], T + S)
    it.observe([message("event", "busy")], T + 50 * S)
    it.observe([message("event", "busy")], T + 99 * S)
    derived = it.advance(T + 1000 * S)
    head = {"v": 2, "type": "event", "ts": T + 100 * S, "service": OWN_SERVICE, "client": JOURNAL, "trace_id": "t"}
    assert bodies(derived[:1]) == [
        {
            **head,
            "level": "warning",
            "message": "span load of reader was still open when its trace was given up",
            "context": {
                "kind": "span_abandoned",
                "span_id": SPAN,
                "name": "load",
                "service": "reader",
                "started": T + 3,
            },
        }
    ]
    assert body(derived[1])["context"]["name"] == "x" * 128
    assert body(derived[2]) == summary(T + 100 * S, last=T + 3, counts={"span_start": 2}, status="idle")
    assert body(derived[3])["trace_id"] == "busy"
    assert body(derived[3])["ts"] == T + 101 * S


def test_a_failed_job_shows_although_a_span_was_left_open() -> None:
    it = engine(trace_max=100)
    it.observe([message("span_start"), message("progress", status="failed")], T)
    assert [body.get("status") for body in bodies(it.advance(T + 100 * S))] == [None, "failed"]


def test_a_job_is_reported_once_until_it_progresses_again() -> None:
    it = engine(stalled_after=60)
    it.observe([message("progress", ts=T - 2, percent=12.5, status="sorting")], T)
    it.observe([message("progress", ts=T - 1, percent=13)], T + 30 * S)
    it.observe([message("event")], T + 80 * S)
    assert not it.advance(T + 90 * S - 1)
    assert bodies(it.advance(T + 90 * S)) == [
        {
            "v": 2,
            "type": "event",
            "ts": T + 90 * S,
            "service": OWN_SERVICE,
            "client": JOURNAL,
            "trace_id": "t",
            "level": "warning",
            "message": "job t makes no progress: 13 % sorting",
            "context": {
                "kind": "job_stalled",
                "job_id": "t",
                "percent": 13.0,
                "service": "reader",
                "last_progress": T - 1,
                "status": "sorting",
            },
        }
    ]
    assert it.jobs()[0]["stalled"]
    assert not it.advance(T + 3600 * S)
    it.observe([message("progress", percent=14)], T + 3600 * S)
    assert [body["ts"] for body in bodies(it.advance(T + 7200 * S))] == [T + 3660 * S]


def test_a_job_that_has_ended_does_not_stall_but_one_taken_up_again_does() -> None:
    it = engine(stalled_after=60)
    it.observe([message("span_start"), message("progress", status="done")], T)
    assert not it.advance(T + 3600 * S)
    it.observe([message("progress", ts=T + 1, status="again")], T + 3600 * S)
    assert [body["ts"] for body in bodies(it.advance(T + 7200 * S))] == [T + 3660 * S]


def test_what_comes_after_the_end_makes_further_parts() -> None:
    it = engine(trace_idle=10)
    for part in (1, 2, 3):
        at = T + part * 60 * S
        it.observe([message("event", ts=at)], at)
        counts = {"event": 1, "level.info": 1}
        ended = summary(at + 10 * S, first=at, last=at, counts=counts, status="idle", part=part)
        assert bodies(it.advance(at + 10 * S)) == [ended]


def test_streams_that_overtake_each_other() -> None:
    it = engine()
    it.observe([message("span_end"), message("span_start"), message("span_end", span_id=OTHER)], T)
    it.observe([message("progress", ts=T + 9, percent=100, status="done")], T)
    it.observe([message("progress", ts=T + 5, percent=50, status="loading")], T)
    assert it.jobs()[0]["percent"] == 100
    assert [body["status"] for body in bodies(it.advance(T + 5 * S))] == ["done"]


def test_the_end_of_a_job_counts_although_the_clock_of_its_host_is_behind() -> None:
    it = engine()
    it.observe([message("progress", ts=T + 9, percent=95, status="loading")], T)
    it.observe([message("progress", ts=T + 2, percent=100, status="failed")], T)
    it.observe([message("progress", ts=T + 8, percent=94, status="loading")], T)
    assert [body["status"] for body in bodies(it.advance(T + 5 * S))] == ["failed"]


def test_the_same_span_twice_is_one() -> None:
    it = engine()
    it.observe([message("span_start"), message("span_start"), message("span_end")], T)
    assert [body["counts"] for body in bodies(it.advance(T + 5 * S))] == [{"span_start": 2, "span_end": 1}]


def test_limits_of_one_trace() -> None:
    it = engine(trace_max=100)
    it.observe([message("event", service=f"s{n}") for n in range(70)], T)
    it.observe([message("progress", job_id=f"job-{n}") for n in range(20)], T)
    it.observe([message("span_start", span_id=f"{n:016x}") for n in range(1_010)], T)
    # the last jobs and spans come from `reader`, the 65th service, which is not listed either
    assert it.counters == {
        "evicted_traces": 0,
        "services_over": 6 + 20 + 1_010,
        "spans_over": 10,
        "jobs_over": 4,
        "jobs_gone": 0,
    }
    assert len(it.jobs()) == 16
    derived = bodies(it.advance(T + 100 * S))
    assert len(derived) == 1_001
    assert len(derived[-1]["services"]) == 64


def test_ended_spans_of_an_unknown_start_are_remembered_within_the_limit() -> None:
    it = engine()
    it.observe([message("span_end", span_id=f"{n:016x}") for n in range(2_000)], T)
    it.observe([message("span_start", span_id=f"{n:016x}") for n in range(1_000)], T)
    assert it.traces()[0]["open_spans"] == 0
    assert it.traces()[0]["status"] == "done"


def test_a_trace_too_many_ends_the_one_that_was_quiet_longest() -> None:
    it = engine(max_traces=2)
    it.observe([message("event", "a"), message("span_end", "b")], T)
    it.observe([message("event", "a")], T + S)
    derived = it.observe([message("event", "c")], T + 2 * S)
    counts = {"span_end": 1}
    assert bodies(derived) == [summary(T + 2 * S, trace_id="b", counts=counts, status="done")]
    assert it.counters["evicted_traces"] == 1
    assert [trace["trace_id"] for trace in it.traces()] == ["c", "a"]


def test_a_trace_evicted_twice_at_one_time_has_two_keys() -> None:
    it = engine(max_traces=1)
    derived = [one for _ in range(2) for one in it.observe([message("span_end", name) for name in "abc"], T)]
    assert len({one.key for one in derived}) == len(derived) == 5
    assert it.awaiting == 5


def test_a_group_is_taken_trace_by_trace() -> None:
    """However its messages are mixed, none is evicted before it was looked at whole."""
    it = engine(max_traces=1)
    [first, second] = it.observe([message("span_end", name) for name in "abcabc"], T)
    assert [one.message.trace_id for one in (first, second)] == ["a", "b"]
    assert first.message.counts == {"span_end": 2}  # type: ignore[union-attr]


def test_no_limits() -> None:
    it = engine(stalled_after=0, trace_idle=0, trace_max=0, max_traces=0)
    it.observe([message("progress", "a"), message("span_start", "b"), message("event", "c")], T)
    assert not it.advance(T + 10**6 * S)
    it.observe([message("span_end", "b")], T + 10**6 * S)
    it.restore(it.snapshot())
    assert [body["trace_id"] for body in bodies(it.advance(T + 2 * 10**6 * S))] == ["b"]


def test_own_messages_strike_what_waits_for_them_and_start_no_trace() -> None:
    it = engine(trace_idle=10, stalled_after=5, trace_max=60)
    it.observe([message("event", "x"), message("progress", "y"), message("span_start", "y")], T)
    derived = it.advance(T + 60 * S)
    assert [one.key.split()[0] for one in derived] == ["job_stalled", "trace", "span_abandoned", "trace"]
    assert it.pending() == derived
    for left, one in enumerate(reversed(derived)):
        assert key_of(stored(one)) == one.key
        assert it.awaiting == 4 - left
        assert not it.observe([stored(one)], T + 60 * S)
    assert not it.pending()
    assert it.live == 0


def test_own_messages_of_another_journal_or_kind_strike_nothing() -> None:
    it = engine(trace_idle=10)
    it.observe([message("event")], T)
    [one] = it.advance(T + 60 * S)
    foreign = {**body(one), "client": "00000000000000bb"}
    other = message("event", service=OWN_SERVICE, client=JOURNAL, context={"kind": "dropped"})
    plain = message("event", service=OWN_SERVICE, client=JOURNAL)
    assert not it.observe([decode_stored(dumps(foreign).encode()), other, plain], T + 60 * S)
    assert it.pending() == [one]
    assert it.live == 0


def test_the_clock_never_goes_back() -> None:
    it = engine(trace_idle=10)
    it.observe([message("event")], T)
    it.observe([message("event")], T - 3600 * S)
    assert [body["ts"] for body in bodies(it.advance(T + 10 * S))] == [T + 10 * S]


def test_restored_settings_hold_until_the_replay_is_done() -> None:
    first = engine(trace_idle=10)
    first.observe([message("event")], T)
    second = engine(trace_idle=100)
    second.restore(first.snapshot())
    third = engine(trace_idle=100)
    third.restore(first.snapshot())
    assert [one.message.ts for one in second.advance(T + 10 * S)] == [T + 10 * S]
    assert not third.pending()
    assert not third.advance(T + 99 * S)
    assert [one.message.ts for one in third.advance(T + 100 * S)] == [T + 100 * S]


def test_a_snapshot_of_the_releases_before_is_taken_up() -> None:
    """They kept what waits as objects, whose fields stood in another order."""
    it = engine(trace_idle=10)
    it.observe([message("event"), message("progress", "y"), message("span_start", "y")], T)
    derived = it.advance(T + 2 * 86_400 * S)
    assert len(derived) == 4
    state = msgspec.msgpack.decode(it.snapshot())
    state["awaiting"] = [dict(sorted(body(one).items(), reverse=True)) for one in derived]
    again = engine(trace_idle=10)
    again.restore(msgspec.msgpack.encode(state))
    assert again.pending() == derived


def test_settings_can_change() -> None:
    it = engine(trace_idle=100)
    it.observe([message("event")], T)
    it.configure(Settings(trace_idle=10))
    assert [one.message.ts for one in it.advance(T + 60 * S)] == [T + 10 * S]


@pytest.mark.parametrize("data", [b"", b"\xff", b"\x80", Engine(Settings(), "other").snapshot()])
def test_what_is_no_snapshot_is_refused_and_changes_nothing(data: bytes) -> None:
    it = engine()
    it.observe([message("event")], T)
    with pytest.raises(ValueError, match="snapshot"):
        it.restore(data)
    assert it.live == 1


def test_what_people_see() -> None:
    it = engine()
    it.observe([message("event", "old")], T)
    spans = [("3", "", 30), ("2", "1", 20), ("1", "", 10), ("4", "2", 40), ("5", "9", 5), ("6", "7", 6), ("7", "6", 7)]
    group = [
        message("span_start", span_id=n * 16, ts=T + at, name=f"span {n}", **({"parent_id": p * 16} if p else {}))
        for n, p, at in spans
    ]
    it.observe([*group, message("progress", job_id="job-1", percent=40, status="loading", ts=T + 50)], T + S)
    assert [trace["trace_id"] for trace in it.traces()] == ["t", "old"]
    assert [trace["trace_id"] for trace in it.traces(limit=1)] == ["t"]
    seen = it.trace("t")
    assert seen is not None
    tree = [(span.pop("span_id")[0], span.pop("depth")) for span in seen["spans"]]
    assert tree == [("5", 0), ("1", 0), ("2", 1), ("4", 2), ("3", 0), ("6", 0), ("7", 1)]
    span = {"parent_id": "1" * 16, "name": "span 2", "service": "reader", "start": T + 20}
    assert seen.pop("spans")[2] == {**span, "duration": None, "status": None}
    job = {
        "job_id": "job-1",
        "trace_id": "t",
        "percent": 40.0,
        "status": "loading",
        "service": "reader",
        "first": T + 50,
        "last_progress": T + 50,
        "stalled": False,
        "gone": False,
    }
    assert it.jobs() == [job]
    assert seen == {
        "trace_id": "t",
        "part": 1,
        "status": "running",
        "first": T + 5,
        "last": T + 50,
        "services": ["reader"],
        "counts": {"span_start": 7, "progress": 1},
        "errors": 0,
        "jobs": [job],
        "events": [],
        "left_out": {"spans": 0, "events": 0},
    }
    assert it.traces()[0]["open_spans"] == 7
    assert it.trace("unknown") is None


def test_many_traces_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few bytes of each trace that is gone would be seen."""
    monkeypatch.setattr(ledgers, "TRACES", 400)
    it = engine(max_traces=100)

    def load(start: int) -> int:
        for n in range(start, start + 5_000, 100):
            group = [
                one for i in range(n, n + 100) for one in (message("span_start", f"t{i}"), message("progress", f"t{i}"))
            ]
            out = it.observe(group, T + n * 1_000)
            it.observe([stored(one) for one in out], T + n * 1_000)
        assert it.live == 100
        assert it.awaiting == 0
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        half, whole = load(0), load(5_000)
    finally:
        tracemalloc.stop()
    assert whole < half * 1.1 + 10_000
    assert it.counters["evicted_traces"] == 9_900


def test_short_traces_leave_no_deadlines_behind() -> None:
    it = engine()
    for n in range(2_000):
        out = it.observe([message("span_end", f"t{n}")], T + n * S)
        it.observe([stored(one) for one in out], T + n * S)
    assert it.live <= 6
    assert len(it._deadlines) == it.live
