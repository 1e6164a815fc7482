"""Receipts clause by clause: what came, what did not, and what nobody can know."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import pytest

from wafermon.correlation import Engine, Settings, streams
from wafermon.correlation import ledger as ledgers
from wafermon.correlation.ledger import Ledger
from wafermon.correlation.receipts import record_of
from wafermon.journal import Group, Mark, Rejected
from wafermon.model.blocks import Block
from wafermon.model.messages import Event, Message, decode_stored, dumps, encode_stored
from wafermon.model.position import Position
from wafermon.model.records import Receipt
from wafermon.query.receipts import Place, receipt, stored_record
from wafermon.routing import Rule, Table

T = 1_700_000_000_000_000
S = 1_000_000
JOURNAL = "a" * 16
ONE, TWO, FILE, OTHER = "1" * 16, "2" * 16, "f" * 16, "e" * 16
TABLE = Table(
    [Rule(("db",), type=("metric",)), Rule((), type=("resource",)), Rule(("db", "files"), service=("loader", "w*"))]
)


class Scene:
    """A ledger that is fed, and its twin that is restored from a snapshot before each group."""

    def __init__(self) -> None:
        self.ledger = Ledger(JOURNAL)
        self.now = T
        self.offset = 0
        self.segment = 1
        self.seqs: dict[str, int] = {}
        self.kept: dict[str, Position] = {}
        self.told: list[dict[str, Any]] = []
        """The receipts that the journal is to keep."""
        self.skipped: dict[str, list[tuple[Position, Position]]] = {}

    @property
    def end(self) -> Position:
        return Position(JOURNAL, self.segment, self.offset)

    def line(self, kind: str = "event", client: str = ONE, seq: int = 0, **fields: Any) -> Message:
        """The next line of a client. `seq` -1: it has none."""
        shared = {"ts": T, "service": "loader", "trace_id": "job"}
        own: dict[str, dict[str, Any]] = {
            "event": {"level": "info", "message": ""},
            "metric": {"name": "n", "value": 1},
            "resource": {"cpu": 1},
        }
        number = {"client": client, "seq": seq or self.seqs.get(client, 0) + 1} if seq >= 0 else {}
        if number:
            self.seqs[client] = number["seq"]  # type: ignore[assignment]
        return decode_stored(dumps({"type": kind, **shared, **own.get(kind, {}), **number, **fields}).encode())

    def progress(self, status: str, client: str = ONE, **fields: Any) -> Message:
        return self.line("progress", client, job_id="job", percent=50, status=status, **fields)

    def stats(
        self, client: str = ONE, files: dict[str, int] | None = None, *, called: int = 0, **figures: Any
    ) -> Message:
        seq = self.seqs[client] = self.seqs.get(client, 0) + 1
        streams = [{"client": name, "last": last} for name, last in (files or {}).items()]
        body = {"called": called, "dropped": 0, "unsent": 0, "last": seq - 1, "streams": streams, **figures}
        return decode_stored(
            dumps({"type": "stats", "ts": T, "service": "loader", "client": client, "seq": seq, **body}).encode()
        )

    def final(self, client: str = ONE, files: dict[str, int] | None = None, **figures: Any) -> Message:
        return self.stats(client, files, final=True, **figures)

    def group(self, *messages: Message, rejected: Sequence[Rejected] = (), marks: dict[str, int] | None = None) -> None:
        self.now += S
        start = self.end
        self.offset += 1_000
        last = {str(one.client): one.seq for one in messages if one.client and one.client != JOURNAL}
        last |= {one.client: max(one.seq, int(last.get(one.client, 0) or 0)) for one in rejected if one.client}
        last |= marks or {}
        blocks = [(start.offset, Block.of(b"\n" * len(messages), messages))] if messages else []
        group = Group(
            start, self.end, self.now, "", blocks, [(start.offset, one) for one in rejected],
            marks=[Mark("", client, int(seq or 0)) for client, seq in last.items()], elapsed=self.now,
        )  # fmt: skip
        twin = Ledger(JOURNAL)
        twin.restore(snapshot(self.ledger))
        told = []
        for one in (self.ledger, twin):
            one.observe(group, TABLE)
            told.append([record_of(facts) | {"number": facts.account.told} for facts in one.take_told()])
        assert told[0] == told[1]
        self.told += told[0]
        assert snapshot(twin) == snapshot(self.ledger)

    def delivered(self, *backends: str) -> None:
        for name in backends or ("db", "files"):
            self.kept[name] = self.end

    def receipt(self, name: str = "job") -> Receipt:
        facts = self.ledger.facts(self.ledger.find(name))
        assert facts is not None
        kept = receipt(facts.trace_id, json.loads(json.dumps(record_of(facts))), self.place)
        assert kept == receipt(facts.trace_id, record_of(facts), self.place)
        return kept

    def place(self, name: str) -> Place:
        return Place(self.kept.get(name), self.skipped.get(name, ()))


def snapshot(ledger: Ledger) -> bytes:
    *_, data = ledger.snapshot_in_parts()
    return data


def summary(trace_id: str) -> Message:
    body = {
        "type": "trace",
        "ts": T,
        "service": "wafermon",
        "client": JOURNAL,
        "trace_id": trace_id,
        "first": T,
        "last": T,
    }
    return decode_stored(
        dumps({**body, "services": [], "counts": {}, "errors": 0, "status": "idle", "part": 1}).encode()
    )


def refused(line: str, client: str = ONE, seq: int = 0) -> Rejected:
    return Rejected("bad_message", "", line.encode(), "peer", T, client, seq)


def whole(scene: Scene, **figures: Any) -> Receipt:
    """A job that begins, says something, ends and is closed, and that the backends have."""
    scene.group(scene.progress("running"), scene.line(), scene.line("metric"))
    scene.group(scene.progress("done"), scene.final(called=4, **figures))
    scene.delivered()
    return scene.receipt()


def test_everything_came() -> None:
    assert whole(Scene()) == {
        "job": "job", "complete": True, "running": False, "sent": 4, "received": 4, "rejected": 0, "dropped": 0, "gaps": [],
        "more_gaps": 0, "unclosed": [], "more_unclosed": 0, "closed": 1, "unjudged": 0, "unnumbered": 0, "no_route": 0, "begun_before": False, "forwarded": 0, "edges": {}, "edge_unknown": 0,
        "services": {},
        "backends": {
            "db": {"routed": 4, "stored": 4, "dead": 0, "skipped": 0},
            "files": {"routed": 3, "stored": 3, "dead": 0, "skipped": 0},
        },
    }  # fmt: skip


def test_a_backend_that_waits() -> None:
    scene = Scene()
    whole(scene)
    scene.kept["db"] = Position(JOURNAL, 1, 1_999)
    found = scene.receipt()
    assert (found["complete"], found["backends"]["db"]["stored"], found["backends"]["files"]["stored"]) == (
        False,
        None,
        3,
    )
    del scene.kept["db"]
    assert scene.receipt()["complete"] is False


def test_what_comes_after_the_last_message_for_a_backend_is_not_waited_for() -> None:
    """A cursor stays where its last message was, as long as nothing more is for it."""
    scene = Scene()
    scene.group(scene.line())
    scene.delivered("files")
    scene.group(scene.line("metric"), scene.final(called=2))
    scene.delivered("db")
    assert scene.receipt()["complete"] is True


def test_what_a_rule_discards_is_no_loss_and_what_no_rule_takes_is() -> None:
    scene = Scene()
    scene.group(scene.line("resource"), scene.final(called=1))
    assert (scene.receipt()["complete"], scene.receipt()["backends"]) == (True, {})
    scene = Scene()
    scene.group(scene.line(service="stranger"), scene.final(called=1))
    assert (scene.receipt()["complete"], scene.receipt()["no_route"]) == (False, 1)


def test_a_gap_is_never_complete() -> None:
    scene = Scene()
    scene.group(scene.line(seq=1), scene.line(seq=4), scene.line(seq=5))
    scene.group(scene.line(seq=7), scene.final(called=7))
    scene.delivered()
    found = scene.receipt()
    gap = {"client": ONE, "job": "job", "pending": False}
    assert found["gaps"] == [{**gap, "first": 2, "last": 3}, {**gap, "first": 6, "last": 6}]
    assert (found["complete"], found["unclosed"], found["sent"]) == (False, [], None)
    assert found["services"] == {ONE: "loader"}


def test_a_gap_at_the_beginning_is_one() -> None:
    scene = Scene()
    scene.group(scene.line(seq=3), scene.final(called=3))
    assert [(gap["first"], gap["last"]) for gap in scene.receipt()["gaps"]] == [(1, 2)]


def test_gaps_of_a_stream_of_several_jobs_are_shown_in_each() -> None:
    scene = Scene()
    scene.group(scene.line(trace_id="job"), scene.line(trace_id="other", seq=3), scene.final(called=3))
    for name in ("job", "other"):
        found = scene.receipt(name)
        assert found["gaps"] == [{"client": ONE, "first": 2, "last": 2, "job": None, "pending": False}]
        assert found["complete"] is False


def test_gaps_are_bounded() -> None:
    scene = Scene()
    scene.group(*(scene.line(seq=3 * n) for n in range(1, 41)), scene.final(called=120))
    found = scene.receipt()
    assert (len(found["gaps"]), found["more_gaps"], found["complete"]) == (streams.GAPS, 2 * (40 - streams.GAPS), False)


def test_rejected_lines_fill_gaps() -> None:
    scene = Scene()
    scene.group(
        scene.line(seq=1), scene.line(seq=4), rejected=[refused('{"trace_id":"job"}', seq=2), refused("{", seq=3)]
    )
    scene.group(scene.final(called=4))
    scene.delivered()
    found = scene.receipt()
    assert (found["gaps"], found["rejected"], found["received"], found["complete"]) == ([], 2, 2, False)
    assert (found["sent"], found["unclosed"]) == (4, [])


def test_a_rejected_line_before_the_job_is_not_the_jobs() -> None:
    scene = Scene()
    scene.group(scene.line(trace_id="before"), rejected=[refused("{", seq=2)])
    scene.group(scene.line(seq=3), scene.final(called=3))
    scene.delivered()
    assert (scene.receipt()["rejected"], scene.receipt()["complete"]) == (0, True)
    assert scene.receipt("before")["rejected"] == 1


def test_what_was_dropped_since_the_job_began() -> None:
    assert (whole(Scene(), dropped=2)["complete"], whole(Scene(), dropped=2)["dropped"]) == (False, 2)
    assert whole(Scene(), dropped=2)["unclosed"] == []


def test_what_was_dropped_before_the_job_began_is_not_its_loss() -> None:
    scene = Scene()
    scene.group(scene.line(trace_id="before"), scene.stats(called=3, dropped=2))
    found = whole(scene, dropped=2)
    assert (found["complete"], found["dropped"], found["sent"]) == (True, 0, None)
    scene.group(scene.line(trace_id="after", client=TWO), scene.final(TWO, called=9, dropped=3))
    assert scene.receipt("after")["dropped"] == 3


def test_a_stream_without_a_closing_stats_line_is_unclosed() -> None:
    scene = Scene()
    scene.group(scene.progress("running"), scene.stats(called=1), scene.line(), scene.progress("done"))
    scene.delivered()
    found = scene.receipt()
    assert (found["complete"], found["unclosed"], found["sent"], found["closed"]) == (False, [ONE], None, 0)
    scene.group(scene.stats(called=3))  # an interim one after the job's end
    assert (scene.receipt()["complete"], scene.receipt()["unclosed"], scene.receipt()["sent"]) == (True, [], 3)


@pytest.mark.parametrize("after", [True, False])
def test_an_interim_line_counts_after_the_end_alone(after: bool) -> None:
    scene = Scene()
    scene.group(scene.line(client=TWO), scene.progress("running"))
    if after:
        scene.group(scene.progress("done"), scene.final(called=2), scene.stats(TWO, called=1))
    else:
        scene.group(scene.stats(TWO, called=1), scene.progress("done"), scene.final(called=2))
    scene.delivered()
    assert (scene.receipt()["complete"], scene.receipt()["unclosed"]) == (after, [] if after else [TWO])


def test_a_final_line_counts_before_the_end_too() -> None:
    scene = Scene()
    scene.group(scene.progress("running"), scene.line(client=TWO), scene.final(TWO, called=1))
    scene.group(scene.progress("done"), scene.final(called=2))
    scene.delivered()
    assert (scene.receipt()["complete"], scene.receipt()["closed"]) == (True, 2)


def test_a_stats_line_with_something_unsent_closes_nothing() -> None:
    scene = Scene()
    scene.group(scene.progress("running"), scene.progress("done"), scene.stats(called=3, unsent=1))
    scene.delivered()
    assert (scene.receipt()["complete"], scene.receipt()["unclosed"]) == (False, [ONE])


def test_a_job_that_is_not_over_is_not_complete() -> None:
    scene = Scene()
    scene.group(scene.progress("running"), scene.final(called=1))
    scene.delivered()
    assert (scene.receipt()["complete"], scene.receipt()["running"]) == (False, True)


def test_a_trace_without_a_job_ends_with_its_summary() -> None:
    scene = Scene()
    scene.group(scene.line(), scene.stats(called=1))
    scene.delivered()
    assert scene.receipt()["unclosed"] == [ONE]
    scene.group(summary("job"))
    scene.group(scene.stats(called=1))
    assert scene.receipt()["complete"] is True
    scene.group(scene.line())  # it goes on
    scene.delivered()
    assert (scene.receipt()["complete"], scene.receipt()["unclosed"]) == (False, [ONE])


def test_what_is_said_after_a_stats_line_opens_the_stream_again() -> None:
    scene = Scene()
    scene.group(scene.progress("running"), scene.progress("done"), scene.stats(called=2))
    scene.delivered()
    assert scene.receipt()["complete"] is True
    scene.group(scene.line())
    scene.delivered()
    assert (scene.receipt()["complete"], scene.receipt()["unclosed"]) == (False, [ONE])
    scene.group(scene.final(called=3))
    assert scene.receipt()["complete"] is True


def test_a_spill_file_that_came_before_it_was_named() -> None:
    scene = Scene()
    scene.group(scene.progress("running"), scene.line(client=FILE), scene.line(client=FILE))
    assert scene.receipt()["unclosed"] == [ONE, FILE]
    scene.group(scene.progress("done"), scene.final(files={FILE: 2}, called=4))
    scene.delivered()
    found = scene.receipt()
    assert (found["complete"], found["sent"], found["received"], found["closed"]) == (True, 4, 4, 1)


def test_a_spill_file_that_is_not_there_yet() -> None:
    scene = Scene()
    scene.group(scene.progress("running"), scene.progress("done"), scene.final(files={FILE: 3}, called=5))
    scene.delivered()
    found = scene.receipt()
    assert found["gaps"] == [{"client": FILE, "first": 1, "last": 3, "job": "job", "pending": True}]
    assert (found["complete"], found["unclosed"], found["sent"]) == (False, [], None)
    scene.group(scene.line(client=FILE), scene.line(client=FILE))
    assert [(gap["first"], gap["last"]) for gap in scene.receipt()["gaps"]] == [(3, 3)]
    scene.group(scene.line(client=FILE))
    scene.delivered()
    assert (scene.receipt()["complete"], scene.receipt()["sent"], scene.receipt()["gaps"]) == (True, 5, [])


def test_a_job_that_lies_in_spill_files_alone() -> None:
    scene = Scene()
    scene.group(scene.line(trace_id="other"), scene.line(client=FILE), scene.final(files={FILE: 1}, called=2))
    scene.delivered()
    assert (scene.receipt()["complete"], scene.receipt()["sent"]) == (True, None)


def test_a_gap_in_a_spill_file() -> None:
    scene = Scene()
    scene.group(scene.line(), scene.line(client=FILE, seq=2), scene.final(files={FILE: 2}, called=3))
    scene.delivered()
    assert (scene.receipt()["complete"], scene.receipt()["gaps"][0]["client"]) == (False, FILE)


def test_a_stream_of_several_jobs_does_not_say_how_much_was_sent_for_one() -> None:
    scene = Scene()
    scene.group(scene.line(trace_id="other"))
    found = whole(scene)
    assert (found["complete"], found["sent"], found["received"]) == (True, None, 4)


def test_lines_without_a_number() -> None:
    scene = Scene()
    scene.group(scene.line(seq=-1), scene.line(client="c" * 16), marks={"c" * 16: 0})
    scene.ledger = Ledger(JOURNAL)
    scene.group(scene.line(seq=-1), scene.line(seq=-1))
    found = whole(scene)
    assert (found["unnumbered"], found["complete"], found["received"]) == (2, None, 6)


def test_dead_letters_count_and_replayed_ones_do_not() -> None:
    scene = Scene()
    whole(scene)
    context = {"kind": "dead_letter", "backend": "db", "count": 2}
    event = scene.line("event", JOURNAL, service="wafermon", level="warning", context=context)
    scene.group(event)
    scene.delivered()
    found = scene.receipt()
    assert (found["complete"], found["received"]) == (False, 4)
    assert found["backends"]["db"] == {"routed": 4, "stored": 2, "dead": 2, "skipped": 0}
    for client in (TWO, OTHER):
        scene.group(scene.line(client=client, replay_to="db"))
    scene.delivered()
    found = scene.receipt()
    assert (found["complete"], found["received"], found["unclosed"]) == (True, 4, [])
    assert found["backends"]["db"] == {"routed": 4, "stored": 4, "dead": 0, "skipped": 0}


def test_what_a_cursor_passed_undelivered() -> None:
    scene = Scene()
    start = scene.end
    scene.group(scene.line())
    scene.segment, scene.offset = 2, 0
    scene.group(scene.line(), scene.final(called=2))
    scene.delivered()
    scene.skipped["db"] = [(start, start._replace(segment=2))]  # all of the first segment
    assert scene.receipt()["backends"]["db"] == {"routed": 2, "stored": 1, "dead": 0, "skipped": 1}
    assert scene.receipt()["complete"] is False
    scene.skipped["db"] = [(start._replace(offset=10), start._replace(segment=2))]  # it is not known whether this one
    assert scene.receipt()["backends"]["db"] == {"routed": 2, "stored": None, "dead": 0, "skipped": 1}
    scene.skipped["db"] = [(start._replace(segment=2, offset=5_000), start._replace(segment=9))]
    del scene.kept["db"]  # it was released after that
    assert scene.receipt()["backends"]["db"]["routed"] == 2


def test_clients_that_are_not_closed_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "SHARES", 5)
    scene = Scene()
    clients = [f"{n:016x}" for n in range(1, 9)]
    scene.group(*(scene.line(client=client) for client in clients))
    found = scene.receipt()
    assert (len(found["unclosed"]), found["unjudged"], found["complete"]) == (5, 3, False)
    scene.group(*(scene.final(client, called=1) for client in clients))
    scene.delivered()
    found = scene.receipt()
    assert (found["unclosed"], found["unjudged"], found["closed"], found["complete"]) == ([], 3, 5, False)


def test_any_number_of_short_programs_is_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three times as many as a trace may have that are not folded, and as are remembered after their end."""
    monkeypatch.setattr(ledgers, "SHARES", 100)
    monkeypatch.setattr(streams, "DONE", 100)
    scene = Scene()
    for n in range(1, 301):
        client = f"{n:016x}"
        scene.group(scene.line(client=client), scene.final(client, called=1))
    scene.delivered()
    found = scene.receipt()
    assert (found["closed"], found["sent"], found["unjudged"], found["complete"]) == (300, 300, 0, True)
    assert len(snapshot(scene.ledger)) < 3_000


def test_memory_is_bounded_whoever_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "TRACES", 20)
    for name in ("STREAMS", "DONE", "ALL_FILES"):
        monkeypatch.setattr(streams, name, 20)
    scene = Scene()
    dice = random.Random(7)
    for _ in range(400):
        client = f"{dice.randrange(1, 60):016x}"
        name = f"job-{dice.randrange(60)}"
        files = {f"{dice.randrange(1, 90):016x}": dice.randrange(1, 9) for _ in range(5)}
        scene.group(scene.line(client=client, trace_id=name), scene.stats(client, files, called=1))
    state, kept = scene.ledger, scene.ledger._streams
    assert (len(state._traces), len(kept.by_client)) == (20, 20)
    assert len(kept.done) <= 20
    assert state._shares == sum(len(known.clients) for known in state._traces.values())
    assert kept.files == sum(len(stream.files) for stream in kept.by_client.values()) <= 20
    assert all(name in state._traces for stream in kept.by_client.values() for name in stream.traces)


def test_a_stream_that_was_forgotten_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "STREAMS", 1)
    scene = Scene()
    scene.group(scene.line())
    scene.group(scene.line(client=TWO, trace_id="other"))
    scene.group(scene.final(called=1))
    scene.delivered()
    assert (scene.receipt()["unjudged"], scene.receipt()["complete"]) == (1, False)


def test_where_the_counting_began_late() -> None:
    """After an update: what a stream said before is no gap, and what had begun is not called complete."""
    scene = Scene()
    engine = Engine(Settings(), JOURNAL)
    engine.observe([scene.line(seq=100)], scene.now)
    old = engine.snapshot()
    engine.restore(old.replace(b"ledger", b"nobody", 1))
    scene.ledger = engine.ledger
    scene.group(scene.line(seq=101), scene.line(seq=102, trace_id="new"), scene.final(called=102))
    scene.delivered()
    assert (scene.receipt()["complete"], scene.receipt()["begun_before"], scene.receipt()["gaps"]) == (None, True, [])
    assert (scene.receipt("new")["complete"], scene.receipt("new")["gaps"]) == (True, [])


def test_a_job_is_found_by_its_own_id() -> None:
    scene = Scene()
    scene.group(
        scene.line("progress", job_id="lot-1", trace_id="4bf92f3577b34da6a3ce929d0e0e4736", percent=1, status="running")
    )
    assert scene.receipt("lot-1")["job"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert scene.ledger.find("lot-2") == ""


def test_a_client_that_speaks_after_its_last_word_breaks_nothing() -> None:
    scene = Scene()
    scene.group(scene.line(), scene.final(called=1), scene.line(), scene.final(called=2))
    scene.group(scene.line())
    scene.delivered()
    assert (scene.receipt()["complete"], scene.receipt()["gaps"], scene.receipt()["unclosed"]) == (False, [], [ONE])


def test_the_receipt_of_a_job_is_kept_once_it_is_closed() -> None:
    scene = Scene()
    whole(scene)
    [record] = scene.told
    assert receipt("job", record, scene.place) == scene.receipt()
    scene.now += ledgers.TOLD_AFTER
    scene.group()
    assert len(scene.told) == 1


def test_one_that_is_not_closed_is_kept_after_a_minute_and_again_when_it_is() -> None:
    scene = Scene()
    scene.group(scene.progress("running"), scene.progress("done"))
    scene.now += ledgers.TOLD_AFTER - 2 * S
    scene.group()
    assert scene.told == []
    scene.group()
    assert [(one["unclosed"], one["number"]) for one in scene.told] == [([ONE], 1)]
    scene.group(scene.final(called=2))
    assert [(one["unclosed"], one["number"]) for one in scene.told[1:]] == [([], 2)]
    scene.delivered()
    assert receipt("job", scene.told[1], scene.place)["complete"] is True


def test_of_a_trace_without_a_job_nothing_is_kept() -> None:
    scene = Scene()
    scene.group(scene.line(), scene.final(called=1), summary("job"))
    assert scene.told == []


def test_what_the_journal_kept_is_read_with_the_dead_letters_that_came_after() -> None:
    scene = Scene()
    whole(scene)
    kept = {"service": "wafermon", "context": {"kind": "receipt", **scene.told[0]}}
    letters = {"service": "wafermon", "context": {"kind": "dead_letter", "backend": "db", "count": 1}}
    stranger = {"service": "loader", "context": {"kind": "receipt"}}
    record = stored_record([letters, {"service": "wafermon"}, kept, letters, stranger])
    assert record is not None
    found = receipt("job", record, scene.place)
    assert (found["complete"], found["backends"]["db"]["dead"]) == (False, 1)
    record = stored_record([kept])
    assert record is not None
    assert receipt("job", record, scene.place) == scene.receipt()
    assert stored_record([letters]) is None


def test_the_engine_journals_it_once() -> None:
    scene = Scene()
    engine = Engine(Settings(), JOURNAL)
    engine.ledger = scene.ledger
    line = [scene.progress("running"), scene.progress("done"), scene.final(called=2)]
    engine.ledger.observe(
        Group(
            scene.end, scene.end._replace(offset=9), T, "", [(0, Block.of(b"\n\n\n", line))], marks=[Mark("", ONE, 3)]
        ),
        TABLE,
    )
    [one] = engine.tell_receipts(T)
    assert isinstance(one.message, Event) and one.message.context
    assert one.message.message == "receipt: 2 messages of 2 sent received"
    assert engine.tell_receipts(T) == []
    again = Engine(Settings(), JOURNAL)
    again.restore(engine.snapshot())
    assert [pending.key for pending in again.pending()] == [one.key]
    again.came_back([decode_stored(encode_stored(one.message))])
    assert again.pending() == []


@pytest.mark.parametrize("line", [
    '{"type":"event","trace_id":"job"}', '{"type":"progress","job_id":"job"}', '{"type":"progress","trace_id":"job","job_id":"x"}',
])  # fmt: skip
def test_a_refused_line_counts_in_the_trace_that_it_names(line: str) -> None:
    assert ledgers._trace_of(line.encode()) == "job"


@pytest.mark.parametrize("line", ['{"type":"event","job_id":"job"}', '{"trace_id":7}', "[]", "{", '{"trace_id":""}'])
def test_a_refused_line_that_names_no_trace(line: str) -> None:
    assert ledgers._trace_of(line.encode()) == ""


def test_whatever_was_forgotten_a_question_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, room in (
        (ledgers, "TRACES", 20),
        (ledgers, "ALL_SHARES", 35),
        (streams, "STREAMS", 9),
        (streams, "DONE", 6),
    ):
        monkeypatch.setattr(module, name, room)
    answered = 0
    for seed in range(4):
        dice, scene = random.Random(seed), Scene()
        for _ in range(50):
            messages, rejected = list[Message](), list[Rejected]()
            for _ in range(dice.randrange(1, 8)):
                client, name = f"{dice.randrange(1, 12):016x}", f"job-{dice.randrange(40)}"
                files = {f"{dice.randrange(1, 14):016x}": dice.randrange(1, 9)}
                number = scene.seqs.get(client, 0) + 1
                what = dice.choice(
                    ("lines", "lines", "lines", "progress", "stats", "files", "final", "replay", "end", "bad")
                )
                if what == "lines":
                    kind, service = dice.choice(("event", "metric", "resource")), dice.choice(("loader", "x"))
                    seq = dice.choice((0, 0, -1))
                    messages.append(scene.line(kind, client, seq, trace_id=name, service=service))
                elif what == "progress":
                    status = dice.choice(("running", "done"))
                    messages.append(scene.line(what, client, trace_id=name, job_id=name, percent=5, status=status))
                elif what in ("stats", "files"):
                    messages.append(scene.stats(client, files if what == "files" else {}, called=2, dropped=seed % 2))
                elif what == "final":
                    messages.append(scene.final(client, called=3))
                elif what == "replay":
                    messages.append(scene.line(client=client, trace_id=name, replay_to="db"))
                elif what == "end":
                    messages.append(summary(name))
                else:
                    scene.seqs[client] = number
                    rejected.append(refused(json.dumps({"trace_id": name}) if number % 2 else "{", client, number))
            scene.group(*messages, rejected=rejected)
            found = map(scene.ledger.facts, list(scene.ledger._traces))
            answered += sum(bool(record_of(facts)) for facts in found if facts is not None)
    assert answered > 1_000
