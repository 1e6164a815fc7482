"""What comes through other sidecars, and what a sidecar that forwards leaves to the other one."""

from __future__ import annotations

from typing import Any

import pytest

from wafermon.correlation import Engine, Settings
from wafermon.correlation.ledger import Ledger
from wafermon.correlation.receipts import record_of
from wafermon.journal import Group, Mark
from wafermon.model.blocks import Block
from wafermon.model.messages import Event, Message, Trace, decode_stored, dumps
from wafermon.model.position import Position
from wafermon.query.receipts import Place, receipt
from wafermon.routing import Rule, Table

T = 1_700_000_000_000_000
S = 1_000_000
JOURNAL, EDGE, PROGRAM = "a" * 16, "e" * 16, "1" * 16
TABLE = Table([Rule(("files",))])
FORWARDED = Mark(f"forward:{EDGE}", EDGE, 1 << 40)


def message(kind: str, **fields: Any) -> Message:
    own: dict[str, dict[str, Any]] = {
        "event": {"level": "info", "message": "m"},
        "progress": {"job_id": "job", "percent": 100, "status": "done"},
        "span_start": {"name": "step", "span_id": "0" * 15 + "1"},
    }
    shared = {"type": kind, "ts": T, "service": "loader", "trace_id": "job", "client": PROGRAM}
    return decode_stored(dumps({**shared, **own[kind], **fields}).encode())


def edge_receipt(forwarded: int, **fields: Any) -> Message:
    context = {
        "kind": "receipt",
        "number": 1,
        "received": forwarded,
        "sent": forwarded,
        "forwards": {"central": forwarded},
        **fields,
    }
    return message("event", service="wafermon", client=EDGE, message="receipt", context=context)


def group(number: int, *messages: Message, marks: tuple[Mark, ...] = (FORWARDED,)) -> Group:
    start = Position(JOURNAL, 1, number * 1_000)
    end = start._replace(offset=start.offset + 1_000)
    block = Block.of(b"\n" * len(messages), messages)
    return Group(start, end, T + number * S, "", [(start.offset, block)], marks=marks, elapsed=T + number * S)


def asked(ledger: Ledger) -> dict[str, Any]:
    facts = ledger.facts("job")
    assert facts is not None
    return dict(receipt("job", record_of(facts), lambda name: Place(Position(JOURNAL, 9, 0))))


def test_what_is_forwarded_is_judged_where_its_programs_are() -> None:
    ledger = Ledger(JOURNAL)
    ledger.observe(group(0, message("event", seq=7), message("progress", seq=900)), TABLE)
    found = asked(ledger)
    assert (found["received"], found["forwarded"], found["gaps"], found["unclosed"], found["unnumbered"]) == (
        2,
        2,
        [],
        [],
        0,
    )
    assert (found["complete"], found["edge_unknown"], found["sent"]) == (None, 2, None)
    ledger.take_told()
    ledger.observe(group(1, edge_receipt(2)), TABLE)
    found = asked(ledger)
    assert (found["complete"], found["edge_unknown"], found["sent"]) == (True, 0, 2)
    assert found["edges"][EDGE]["forwarded"] == 2
    assert [one.trace_id for one in ledger.take_told()] == ["job"], "it is told again"
    twin = Ledger(JOURNAL)
    *_, snapshot = ledger.snapshot_in_parts()
    twin.restore(snapshot)
    assert asked(twin) == found


@pytest.mark.parametrize(("fields", "complete"), [
    ({"gaps": [[PROGRAM, 3, 4, True, False]]}, False), ({"dropped": 1}, False), ({"rejected": 1}, False), ({"unclosed": [PROGRAM]}, False),
    ({"unnumbered": 1}, None), ({"begun_before": True}, None), ({"forwards": {"central": 3}}, False), ({"forwards": {"central": 1}}, None),
    ({"forwards": "no"}, None), ({"gaps": [[1]]}, None), ({}, True),
])  # fmt: skip
def test_what_was_lost_at_an_edge_is_lost(fields: dict[str, Any], complete: bool | None) -> None:
    ledger = Ledger(JOURNAL)
    ledger.observe(group(0, message("event", seq=7), message("progress", seq=900)), TABLE)
    ledger.observe(group(1, edge_receipt(2, **fields)), TABLE)
    assert asked(ledger)["complete"] is complete


def test_a_program_s_own_stream_beside_it_is_judged_here() -> None:
    ledger = Ledger(JOURNAL)
    own = message("event", client="2" * 16, seq=3)
    ledger.observe(group(0, message("progress", seq=9), own, marks=(FORWARDED, Mark("", "2" * 16, 3))), TABLE)
    found = asked(ledger)
    assert (found["received"], found["forwarded"], found["unclosed"]) == (2, 1, ["2" * 16])
    assert [(gap["first"], gap["last"]) for gap in found["gaps"]] == [(1, 2)]


def test_a_receipt_of_an_edge_is_told_on_once_the_trace_has_ended_here() -> None:
    ledger = Ledger(JOURNAL)
    ledger.observe(group(1, message("progress", percent=50, status="loading"), edge_receipt(1)), TABLE)
    assert ledger.take_told() == []
    ledger.observe(group(2, message("progress")), TABLE)
    assert [facts.trace_id for facts in ledger.take_told()] == ["job"]
    ledger.observe(group(3, edge_receipt(2)), TABLE)
    assert [facts.trace_id for facts in ledger.take_told()] == ["job"]


def test_where_never_is_derived_only_receipts_are() -> None:
    engine = Engine(Settings(stalled_after=1, trace_idle=5, derive="never", forwards=("files",)), JOURNAL)
    one = group(0, message("span_start", seq=1), marks=(Mark("", PROGRAM, 1),))
    assert engine.observe_blocks([block for _, block in one.blocks], one.time, one.elapsed) == []
    engine.ledger.observe(one, TABLE)
    assert engine.live == 1, "it is followed all the same"
    [told] = engine.advance(T + 100_000 * S)
    assert isinstance(told.message, Event) and isinstance(told.message.context, dict)
    assert told.message.context["kind"] == "receipt" and told.message.context["forwards"] == {"files": 1}
    assert engine.live == 0


def test_what_another_sidecar_summed_up_is_not_summed_up_again() -> None:
    engine = Engine(Settings(trace_idle=5), JOURNAL)
    trace = Trace(
        v=2, ts=T, service="wafermon", client=EDGE, trace_id="job", first=T, last=T, services=["loader"], counts={"event": 1}, errors=0,
        status="idle", part=1,
    )  # fmt: skip
    assert engine.observe([message("event", seq=1), trace], T) == []
    assert engine.advance(T + 60 * S) == [] and engine.live == 0


@pytest.mark.parametrize("fields", [
    {"received": 1.5}, {"received": -1}, {"received": 1 << 70}, {"received": True}, {"forwards": {"central": "1"}}, {"forwards": [1]},
    {"gaps": [["c", 1.5, 3]]}, {"gaps": [["c", 3, 1 << 60]]}, {"gaps": [["c"]]}, {"gaps": ["c"]}, {"gaps": {}}, {"unclosed": 3}, {"more_gaps": None},
])  # fmt: skip
def test_a_receipt_of_an_edge_that_can_not_be_is_none(fields: dict[str, Any]) -> None:
    ledger = Ledger(JOURNAL)
    ledger.observe(group(1, message("event"), message("progress"), edge_receipt(2, **fields)), TABLE)
    assert asked(ledger)["edges"] == {}


def test_what_an_edge_says_of_what_was_sent_is_none_where_it_is_no_number() -> None:
    ledger = Ledger(JOURNAL)
    ledger.observe(group(1, message("event"), message("progress"), edge_receipt(2, sent="all")), TABLE)
    assert asked(ledger)["edges"][EDGE]["sent"] is None
    *_, kept = ledger.snapshot_in_parts()
    again = Ledger(JOURNAL)
    again.restore(kept)
    assert asked(again)["edges"] == asked(ledger)["edges"]
