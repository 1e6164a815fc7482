"""Whatever comes, whenever, and wherever the sidecar is killed between: each transition of a schedule is journalled exactly once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import pytest
from expected import JOURNAL, D, H, M, S, date, rules
from hypothesis import given, settings
from hypothesis import strategies as st

from wafermon.correlation import Derived, Engine, key_of
from wafermon.correlation.schedules import said
from wafermon.journal import Presence
from wafermon.model.blocks import Block
from wafermon.model.messages import Event, Message, Trace, decode_stored, dumps, encode_stored

SCHEDULES: dict[str, dict[str, Any]] = {
    "cron": {
        "match": {"job": "a*"}, "cron": "*/10 * * * *", "start_grace": "2m", "at_least": "1m", "at_most": "20m", "silent": "3m",
        "failures": 2,
    },
    "often": {"match": {"job": ["a*", "b"]}, "cron": "* * * * *", "start_grace": "10s", "runs": 2},
    "each": {"match": {"job": "b", "service": "reader"}, "every": "5m", "start_grace": "1m", "silent": "30s"},
    "hosts": {"match": {"job": "*"}, "every": "3m", "start_grace": "10s", "per_host": True},
    "heard": {"match": {"service": "reader"}, "every": "2m", "start_grace": "10s"},
    "heard-each": {"match": {"service": "*"}, "every": "90s", "start_grace": 0, "per_host": True},
}  # fmt: skip
RULES = rules(SCHEDULES)


class Group(NamedTuple):
    time: int
    elapsed: int
    messages: list[Message]
    presence: list[Presence]


def observe(engine: Engine, group: Group) -> list[Derived]:
    block = Block.of(b"", group.messages)
    engine.begin([block], group.time, group.elapsed)
    if group.presence:
        engine.follow(group.presence, group.elapsed)
    return engine.observe_blocks([block], group.time, group.elapsed)


def back(one: Derived) -> Message:
    """As the journal brings it back."""
    return decode_stored(encode_stored(one.message))


def progress(job: str, service: str, host: str, percent: float, status: str, before: int) -> dict[str, Any]:
    body = {
        "type": "progress",
        "job_id": job,
        "trace_id": job,
        "service": service,
        "host": host,
        "percent": percent,
        "pid": 7,
    }
    return {**body, "before": before, **({"status": status} if status else {})}


def event(service: str, host: str) -> dict[str, Any]:
    return {"type": "event", "level": "info", "message": "", "service": service, "host": host, "before": 0}


BODIES = st.one_of(
    st.builds(
        progress,
        st.sampled_from(["a1", "a2", "b"]),
        st.sampled_from(["reader", "checker"]),
        st.sampled_from(["fab1", "fab2"]),
        st.sampled_from([0, 50, 100]),
        st.sampled_from(["", "", "loading", "done", "failed", "cancelled"]),
        st.sampled_from([0, 0, 0, S, 5 * M, 2 * H, 3 * D]),
    ),
    st.builds(event, st.sampled_from(["reader", "checker"]), st.sampled_from(["fab1", "fab2"])),
)
TIMES = st.sampled_from([S // 1_000, S, 20 * S, M, 4 * M, 30 * M])
STEPS = st.one_of(
    st.tuples(st.just("group"), TIMES, st.lists(BODIES, min_size=1, max_size=4)),
    st.tuples(st.just("group"), TIMES, st.lists(BODIES, min_size=1, max_size=4)),
    st.tuples(st.just("advance"), TIMES),
    st.tuples(st.just("read"), st.integers(1, 3)),
    st.tuples(st.just("append"), st.integers(1, 4)),
    st.tuples(st.just("snapshot")),
    st.tuples(st.just("crash"), st.sampled_from([0, S, 20 * M, 2 * D])),
    st.tuples(st.just("set_date"), st.sampled_from([-S, S, -2 * M, 2 * M, -H, H, 30 * D])),
    st.tuples(st.just("ask"), st.sampled_from(sorted(SCHEDULES)), st.sampled_from([0, M, 10 * M, -1])),
    st.tuples(st.just("connection"), st.sampled_from(["came", "went"]), st.sampled_from(["reader", "checker"])),
)


class Sidecar:
    """A journal in memory and an engine as its cursor. A crash leaves the journal and the last snapshot."""

    def __init__(self) -> None:
        self.time, self.elapsed = date("2026-10-24 23:55"), 5 * H
        self.journal: list[Group] = []
        self.checkpoint: tuple[int, bytes | None] = (0, None)
        self.presence: list[Presence] = []
        self.crash(0)
        self.snapshot()
        self.begun = self.checkpoint

    def crash(self, away: int) -> None:
        self.time += away
        self.elapsed += away
        self._journal([said.started(away, JOURNAL, self.time)])
        self.engine = Engine(RULES, JOURNAL)
        self.cursor, snapshot = self.checkpoint
        if snapshot is not None:
            self.engine.restore(snapshot)
        for group in self.journal[self.cursor :]:
            observe(self.engine, group)
        self.cursor = len(self.journal)
        self.outbox: list[Derived] = self.engine.pending()

    def _journal(self, messages: list[Message]) -> None:
        self.journal.append(Group(self.time, self.elapsed, messages, self.presence))
        self.presence = []

    def set_date(self, by: int) -> None:
        self.time += by

    def group(self, later: int, bodies: list[dict[str, Any]]) -> None:
        self.time += later
        self.elapsed += later
        stamped = [{**body, "ts": self.time - body["before"], "client": body["service"]} for body in bodies]
        self._journal([decode_stored(dumps(body).encode()) for body in stamped])

    def connection(self, what: str, service: str) -> None:
        self.presence.append(Presence(what, service, service, "fab1", 7))
        self._journal([])

    def ask(self, schedule: str, later: int) -> None:
        kind = "resumed" if later < 0 else "paused"
        until = self.time + later if later > 0 else 0
        self._journal([said.asked(kind, schedule, until, "anna", JOURNAL, self.time)])

    def read(self, groups: int) -> None:
        for group in self.journal[self.cursor : self.cursor + groups]:
            self.outbox += observe(self.engine, group)
            self.cursor += 1

    def advance(self, later: int) -> None:
        self.read(len(self.journal))
        self.time += later
        self.elapsed += later
        self.outbox += self.engine.advance(self.elapsed)

    def append(self, count: int) -> None:
        if self.outbox:
            self._journal([back(one) for one in self.outbox[:count]])
            del self.outbox[:count]

    def snapshot(self) -> None:
        self.checkpoint = self.cursor, self.engine.snapshot()


def is_derived(message: Message) -> bool:
    return key_of(message) is not None


@settings(max_examples=200)
@given(st.lists(STEPS, max_size=40))
def test_exactly_once(steps: list[tuple[Any, ...]]) -> None:
    sidecar = Sidecar()
    for step in steps:
        getattr(sidecar, step[0])(*step[1:])
    sidecar.advance(2 * H)
    sidecar.append(len(sidecar.outbox))
    sidecar.advance(0)
    assert not sidecar.outbox
    assert not sidecar.engine.pending()

    own = [one for group in sidecar.journal for one in group.messages if is_derived(one)]
    undisturbed = Engine(RULES, JOURNAL)
    begun, snapshot = sidecar.begun
    assert snapshot is not None
    undisturbed.restore(snapshot)
    wanted: list[Derived] = []
    for group in sidecar.journal[begun:]:
        wanted += observe(undisturbed, group._replace(messages=[one for one in group.messages if not is_derived(one)]))
    wanted += undisturbed.advance(sidecar.elapsed)
    while undisturbed.behind:
        wanted += undisturbed.advance(sidecar.elapsed)
    assert Counter(map(key_of, own)) == Counter({one.key: 1 for one in wanted})
    assert {key_of(one): one for one in own} == {one.key: back(one) for one in wanted}


@settings(max_examples=150)
@given(st.lists(STEPS.filter(lambda step: step[0] in ("group", "crash", "ask", "set_date", "connection")), max_size=25))
def test_a_snapshot_holds_everything(steps: list[tuple[Any, ...]]) -> None:
    sidecar = Sidecar()
    for step in steps:
        getattr(sidecar, step[0])(*step[1:])
    whole, chain = Engine(RULES, JOURNAL), Engine(RULES, JOURNAL)
    whole.pending()
    chain.pending()
    for group in sidecar.journal:
        snapshot, chain = chain.snapshot(), Engine(RULES, JOURNAL)
        chain.restore(snapshot)
        assert observe(chain, group) == observe(whole, group)
        assert {one.key: one for one in chain.pending()} == {one.key: one for one in whole.pending()}
        assert chain.schedules.records() == whole.schedules.records()
        assert chain.schedules.counters == whole.schedules.counters
        assert chain.schedules.told == whole.schedules.told


@settings(max_examples=100)
@given(st.lists(STEPS, max_size=30))
def test_what_is_open_is_told_and_what_recovers_was_open(steps: list[tuple[Any, ...]]) -> None:
    """An alarm opens, and one `recovered` closes all of them: no more, no less."""
    sidecar = Sidecar()
    for step in steps:
        getattr(sidecar, step[0])(*step[1:])
    sidecar.advance(2 * H)
    sidecar.append(len(sidecar.outbox))
    sidecar.advance(0)
    open_: dict[tuple[str, str], bool] = {}
    for group in sidecar.journal:
        for one in group.messages:
            if isinstance(one, Event) and one.context and is_derived(one) and "schedule" in one.context:
                who = one.context["schedule"], one.context.get("host", "")
                if one.level == "warning":
                    open_[who] = True
                elif one.context["kind"] == "recovered":
                    assert open_.pop(who)
    left = {(one["schedule"], one["host"]) for one in sidecar.engine.schedules.records() if one["open"]}
    assert left == set(open_)


@dataclass(frozen=True)
class OlderSettings:
    stalled_after: float = 300.0
    trace_idle: float = 600.0
    trace_max: float = 86_400.0
    max_traces: int = 20_000


class OlderSnapshot(msgspec.Struct):
    """What sidecars of before there were schedules read of one."""

    version: int
    journal: str
    settings: OlderSettings
    awaiting: list[Trace | Event]


def test_a_sidecar_of_before_reads_the_snapshot_and_one_of_now_that_of_before() -> None:
    sidecar = Sidecar()
    sidecar.advance(H)
    assert sidecar.engine.awaiting
    snapshot = sidecar.engine.snapshot()
    older = msgspec.msgpack.decode(snapshot, type=OlderSnapshot)
    assert (older.awaiting, older.settings) == ([], OlderSettings(0, 0, 0))
    state = msgspec.msgpack.decode(snapshot)
    for name in ("schedules", "awaiting_more", "more_at"):
        del state[name]
    for name in ("schedules", "after_start"):
        del state["settings"][name]
    again = Engine(RULES, JOURNAL)
    again.restore(msgspec.msgpack.encode(state))
    assert again.pending() == []
    # All are expected from the time of that snapshot on.
    assert {one["since"] for one in again.schedules.records()} == {sidecar.time}
    again.advance(sidecar.elapsed + H)
    assert again.schedules.told["not_started"] > 0


def test_a_snapshot_that_is_damaged_is_refused_and_changes_nothing() -> None:
    sidecar = Sidecar()
    state = msgspec.msgpack.decode(sidecar.engine.snapshot())
    before = sidecar.engine.schedules.records()
    for damaged in (b"no snapshot", state["schedules"][:-5]):
        with pytest.raises(ValueError, match="not a snapshot"):
            sidecar.engine.restore(msgspec.msgpack.encode({**state, "schedules": damaged}))
        assert sidecar.engine.schedules.records() == before
