"""Traces that end early and only counted something: no message of their own, one a minute for all."""

from __future__ import annotations

from typing import Any

import pytest

from wafermon.correlation import Derived, Engine, Settings, key_of
from wafermon.correlation.engine import MINUTE
from wafermon.model.messages import Message, decode_stored, dumps, encode_stored, loads

T = 1_700_000_000_000_000
S = 1_000_000
JOURNAL = "00000000000000aa"
M = T - T % MINUTE + MINUTE
"""When the minute of T is over."""


def message(type: str, trace_id: str) -> Message:
    span = {"name": "load", "span_id": "a" * 16}
    fields: dict[str, dict[str, Any]] = {
        "event": {"level": "info", "message": "hello"},
        "progress": {"job_id": trace_id, "percent": 0},
        "span_start": span,
        "span_end": {**span, "status": "ok", "start": T, "duration": 1},
    }
    return decode_stored(dumps({"type": type, "ts": T, "service": "s", "trace_id": trace_id, **fields[type]}).encode())


def engine(max_traces: int) -> Engine:
    return Engine(Settings(max_traces=max_traces), JOURNAL)


def stored(one: Derived) -> Message:
    return decode_stored(encode_stored(one.message))


def bodies(derived: list[Derived]) -> list[dict[str, Any]]:
    return [loads(encode_stored(one.message)) for one in derived]


def evicting(it: Engine, names: str, at: int) -> list[dict[str, Any]]:
    return bodies(it.observe([message("event", name) for name in names], at))


def told(ts: int, count: int) -> dict[str, Any]:
    return {"kind": "traces_evicted", "minute": ts // MINUTE - 1, "count": count}


def test_they_are_told_of_once_a_minute_of_journal_time() -> None:
    it = engine(max_traces=1)
    assert not evicting(it, "abc", T)
    assert not evicting(it, "d", M - 1)
    assert it.counters["evicted_traces"] == 3
    first, *none = evicting(it, "ef", M + 5 * S)
    assert not none and first["context"] == told(M, 3) and first["ts"] == M and first["level"] == "warning"
    assert "trace_id" not in first and first["service"] == "wafermon"
    [second] = bodies(it.advance(M + 2 * MINUTE))
    assert second["context"] == told(M + MINUTE, 2) and second["ts"] == M + MINUTE
    assert not it.advance(M + 3 * MINUTE)


@pytest.mark.parametrize("kind", ["span_start", "span_end", "progress"])
def test_one_with_a_span_or_a_job_has_its_summary(kind: str) -> None:
    it = engine(max_traces=1)
    it.observe([message(kind, "a")], T)
    [one] = evicting(it, "b", T)
    assert one["type"] == "trace" and one["trace_id"] == "a"


def test_parts_without_a_summary_are_none() -> None:
    it = engine(max_traces=1)
    evicting(it, "abab", T)
    it.observe([message("span_end", "a")], T)
    assert [(one["trace_id"], one["part"]) for one in evicting(it, "b", T)] == [("a", 1)]
    evicting(it, "a", T)
    evicting(it, "b", T)
    it.observe([message("span_end", "a")], T)
    assert [(one["trace_id"], one["part"]) for one in evicting(it, "b", T)] == [("a", 2)]


@pytest.mark.parametrize("cut", range(6))
def test_a_replay_tells_the_same(cut: int) -> None:
    """Wherever the snapshot was taken; what the journal holds already strikes its own."""
    groups = [("ab", T), ("cd", T + S), ("ef", M + S), ("g", M + 2 * MINUTE), ("hi", M + 5 * MINUTE)]
    it, whole = engine(max_traces=1), list[str]()
    for names, at in groups:
        whole += [one.key for one in it.observe([message("event", name) for name in names], at)]
    assert len(whole) == len(set(whole)) == 3

    again = engine(max_traces=1)
    keys: list[str] = []
    for names, at in groups[:cut]:
        keys += [one.key for one in again.observe([message("event", name) for name in names], at)]
    other = Engine(again.settings, JOURNAL)
    other.restore(again.snapshot())
    for names, at in groups[cut:]:
        keys += [one.key for one in other.observe([message("event", name) for name in names], at)]
    assert keys == whole
    pending = other.pending()
    assert [one.key for one in pending] == whole
    assert [key_of(stored(one)) for one in pending] == whole
    other.observe([stored(one) for one in pending], M + 5 * MINUTE)
    assert not other.awaiting


def test_settings_that_change_leave_it_due() -> None:
    it = engine(max_traces=1)
    evicting(it, "ab", T)
    it.configure(engine(max_traces=5).settings)
    assert [one["context"] for one in bodies(it.advance(M))] == [told(M, 1)]
