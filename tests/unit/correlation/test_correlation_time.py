"""Deadlines go by a time that nobody sets; a date that is wrong and put right neither fires nor delays them."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wafermon.correlation import Engine, Settings
from wafermon.model.messages import Message, decode_stored, dumps

T = 1_700_000_000_000_000
S = 1_000_000
YEAR = 365 * 86_400 * S
JOURNAL = "00000000000000aa"
RULES = Settings(stalled_after=6, trace_idle=10, trace_max=40, max_traces=3)


def message(**body: Any) -> Message:
    return decode_stored(dumps({"ts": T, "service": "reader", **body}).encode())


def progress(trace_id: str, status: str = "") -> Message:
    return message(
        type="progress", trace_id=trace_id, job_id=trace_id, percent=5, **({"status": status} if status else {})
    )


def event(trace_id: str) -> Message:
    return message(type="event", trace_id=trace_id, level="info", message="m")


@pytest.mark.parametrize("step", [-YEAR, YEAR])
def test_a_date_that_steps_fires_nothing_and_delays_nothing(step: int) -> None:
    it = Engine(RULES, JOURNAL)
    it.observe([progress("a")], T, S)
    assert not it.observe([event("b")], T + step, 3 * S)
    assert not it.advance(7 * S - 1)
    [stalled] = it.advance(7 * S)
    assert stalled.message.context == {  # type: ignore[union-attr]
        "kind": "job_stalled", "job_id": "a", "percent": 5.0, "service": "reader", "last_progress": T,
    }  # fmt: skip


def test_a_derived_message_has_the_date_of_its_deadline() -> None:
    it = Engine(RULES, JOURNAL)
    it.observe([progress("a")], T, 100 * S)
    [stalled] = it.advance(110 * S)
    assert stalled.message.ts == T + 6 * S
    it.observe([progress("a", "done")], T + 20 * S, 120 * S)
    [trace] = it.observe([event("b")], T + YEAR, 130 * S)
    assert trace.message.ts == T + 25 * S, "it goes by the date that the group before had"


def test_a_trace_that_is_pushed_out_has_the_date_of_what_pushes_it_out() -> None:
    it = Engine(RULES, JOURNAL)
    for number in range(3):
        it.observe([progress(f"t{number}")], T + number * S, number * S)
    [trace] = it.observe([progress("late")], T + YEAR, 4 * S)
    assert trace.key.startswith("trace t0 ")
    assert trace.message.ts == T + YEAR


def test_a_snapshot_keeps_the_date() -> None:
    first, second = Engine(RULES, JOURNAL), Engine(RULES, JOURNAL)
    first.observe([progress("a")], T, 100 * S)
    second.restore(first.snapshot())
    assert second.advance(110 * S) == first.advance(110 * S)


BY_2_0_0 = (
    "eJy9lL1uE0EQx9dEShEJ0VBQoStAogwFDQ15D4rT5HZsNlnvHrt7dtzZkhGkQUqeAIf7spFRKioKixYhKujgGXgE5j58cWwIiIIt7nZ0ezu///x39kXWQ2OF"
    "Vq3sQEdGgTzfvTQAcovOCdWx47l1ICVyH9oOzfbMGQjQF1zizrSad+Ho3owefhnarddK9z+z7Z07t45vLGIpeviNMbb18kzwyX4cgnGtZB87kaoW3d5jyRME"
    "wy/CtjDWNWEsYSXKCjLiYYRoeoISjlKDwNEs0kBHytlRgsZo08rbIGRk0LLEhqDsMKEscrCID/S+HaZPI4ywTvru67DEC/4H3qyg8amslGmdcXR+f22MYwVd"
    "jKUGntVb1htm5RZ4ATYleFSOzHn1Z6l8UyrZtSq1CP9GarP695Lz0OgOqbRXmzKa8OdZiCYgFR8f/WDlSEmmi2zMtcK1Cpw5+0uTChaDoS6q82FNw6VifHnM"
    "ElQc+cnpBFo59EEUp/70OHaDEBPsEUgi6SWzPhhFn7IuqYAOvideD7wuHKL1lPaWAh96D7y7WaCVwyP3LD4Uir+hpX7dRWkxp+pDI3PvZiVzTdq8KLW/3LWh"
    "n/SuNaIHn4bLn/I+tNF0tcqX7TmBNJCCEmy09nd2vVJXLr3S4cbQk5pq08+07DXbuFRcDNXJWkUlQ/4FNS/T0V01fov0L7lZ3zGt+ZLM13SXsbKl6vm0OEnV"
    "9Cd/neHG"
)
"""A snapshot as 2.0.0 took it: a stalled, b idle with an event, c with an open span, d just done, at T + 7 s."""


def test_a_snapshot_of_2_0_0_is_read_and_carried_on() -> None:
    it = Engine(RULES, JOURNAL)
    it.restore(zlib.decompress(base64.b64decode(BY_2_0_0)))
    assert [one.key for one in it.pending()] == [f"job_stalled a a {T + 6 * S}", f"trace a 1 {T + 7 * S}"]
    assert [one["trace_id"] for one in it.traces()] == ["d", "c", "b"]
    # A journal of 2.0.0 has no `elapsed`: it goes on from the date.
    found = it.observe([event("e")], T + 30 * S, T + 30 * S)
    assert [one.key for one in found] == [f"trace b 1 {T + 10 * S}", f"trace d 1 {T + 12 * S}"]
    assert [one.key for one in it.advance(T + 45 * S)][:2] == [
        f"span_abandoned c {'1' * 16} {T + 40 * S}",
        f"trace c 1 {T + 40 * S}",
    ]


@pytest.mark.parametrize("changes", [{"version": 3}, {"version": 0}, {"journal": "0" * 16}])
def test_another_version_or_journal_is_refused_and_changes_nothing(changes: dict[str, Any]) -> None:
    it = Engine(RULES, JOURNAL)
    it.observe([progress("a")], T, S)
    state = msgspec.msgpack.decode(it.snapshot())
    before = it.traces()
    with pytest.raises(ValueError, match="expected 2 and '00000000000000aa'"):
        it.restore(msgspec.msgpack.encode({**state, **changes}))
    assert it.traces() == before


MESSAGES = st.sampled_from([progress("a"), progress("b"), progress("a", "done"), event("c"), event("d")])
GROUPS = st.lists(
    st.tuples(
        st.sampled_from([1, S, 5 * S, 7 * S, 30 * S]),
        st.sampled_from([0, 0, 0, -YEAR, YEAR, -S]),
        st.lists(MESSAGES, max_size=3),
    ),
    max_size=15,
)


@settings(max_examples=200)
@given(groups=GROUPS, advances=st.lists(st.integers(0, 14)), snapshots=st.lists(st.integers(0, 14)))
def test_what_is_derived_depends_on_the_groups_alone(
    groups: list[tuple[int, int, list[Message]]], advances: list[int], snapshots: list[int]
) -> None:
    plain, disturbed = Engine(RULES, JOURNAL), Engine(RULES, JOURNAL)
    wanted, found = [], []
    elapsed, date = 0, T
    for number, (later, step, messages) in enumerate(groups):
        if number in advances:
            found += disturbed.advance(elapsed + later - 1)
        if number in snapshots:
            snapshot, disturbed = disturbed.snapshot(), Engine(RULES, JOURNAL)
            disturbed.restore(snapshot)
        elapsed, date = elapsed + later, date + step
        wanted += plain.observe(messages, date + elapsed, elapsed)
        found += disturbed.observe(messages, date + elapsed, elapsed)
    assert found == wanted
    assert disturbed.pending() == plain.pending()
