"""Whatever the groups, and wherever the sidecar is killed between them: what is derived is journalled exactly once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from wafermon.correlation import Derived, Engine, Settings, key_of
from wafermon.model.messages import OWN_SERVICE, Message, decode_stored, dumps, encode_stored

T = 1_700_000_000_000_000
S = 1_000_000
JOURNAL = "00000000000000aa"
RULES = Settings(stalled_after=6, trace_idle=10, trace_max=40, max_traces=3)


def lines() -> Iterable[dict[str, Any]]:
    """The messages that groups are made of: few ids, so that everything meets everything."""
    for trace_id in "abcde":
        yield {"type": "event", "trace_id": trace_id, "level": "error", "message": ""}
        for span_id in ("1" * 16, "2" * 16):
            span = {"trace_id": trace_id, "span_id": span_id, "name": "n"}
            yield {"type": "span_start", **span}
            yield {"type": "span_end", **span, "status": "ok", "start": T, "duration": 1}
        for job_id in ("x", "y"):
            for status in (
                {},
                {"status": "loading"},
                {"status": "done"},
                {"status": "failed"},
                {"status": "cancelled"},
            ):
                yield {"type": "progress", "trace_id": trace_id, "job_id": job_id, "percent": 1, **status}


def stored(body: dict[str, Any]) -> Message:
    return decode_stored(dumps(body).encode())


def back(one: Derived) -> Message:
    """As the journal brings it back."""
    return decode_stored(encode_stored(one.message))


MESSAGES = st.builds(
    lambda body, service, ts: stored({**body, "service": service, "ts": T + ts}),
    st.sampled_from(list(lines())),
    st.sampled_from(["reader", "checker"]),
    st.integers(0, 3),
)
TIMES = st.sampled_from([S // 1_000, S, 5 * S, 7 * S, 30 * S])
STEPS = st.one_of(
    st.tuples(st.just("group"), TIMES, st.lists(MESSAGES, min_size=1, max_size=6)),
    st.tuples(st.just("read"), st.integers(1, 3)),
    st.tuples(st.just("advance"), TIMES),
    st.tuples(st.just("append"), st.integers(1, 4)),
    st.tuples(st.just("snapshot")),
    st.tuples(st.just("crash")),
)


class Sidecar:
    """A journal in memory and an engine as its cursor. A crash leaves the journal and the last snapshot."""

    def __init__(self) -> None:
        self.time = T
        self.journal: list[tuple[list[Message], int]] = []
        self.checkpoint: tuple[int, bytes | None] = (0, None)
        self.crash()

    def crash(self) -> None:
        self.engine = Engine(RULES, JOURNAL)
        self.cursor, snapshot = self.checkpoint
        if snapshot is not None:
            self.engine.restore(snapshot)
        for messages, time in self.journal[self.cursor :]:
            self.engine.observe(messages, time)
        self.cursor = len(self.journal)
        self.outbox: list[Derived] = self.engine.pending()

    def group(self, later: int, messages: list[Message]) -> None:
        self.time += later
        self.journal.append((messages, self.time))

    def read(self, groups: int) -> None:
        for messages, time in self.journal[self.cursor : self.cursor + groups]:
            self.outbox += self.engine.observe(messages, time)
            self.cursor += 1

    def advance(self, later: int) -> None:
        self.read(len(self.journal))
        self.time += later
        self.outbox += self.engine.advance(self.time)

    def append(self, count: int) -> None:
        if self.outbox:
            self.group(0, [back(one) for one in self.outbox[:count]])
            del self.outbox[:count]

    def snapshot(self) -> None:
        self.checkpoint = self.cursor, self.engine.snapshot()


@settings(max_examples=400)
@given(st.lists(STEPS, max_size=40))
def test_exactly_once(steps: list[tuple[Any, ...]]) -> None:
    sidecar = Sidecar()
    for step in steps:
        getattr(sidecar, step[0])(*step[1:])
    sidecar.advance(200 * S)
    sidecar.append(len(sidecar.outbox))
    sidecar.advance(0)
    assert not sidecar.outbox
    assert not sidecar.engine.pending()

    own = [one for group, _ in sidecar.journal for one in group if one.service == OWN_SERVICE]
    undisturbed = Engine(RULES, JOURNAL)
    wanted: list[Derived] = []
    for group, time in sidecar.journal:
        wanted += undisturbed.observe([one for one in group if one.service != OWN_SERVICE], time)
    wanted += undisturbed.advance(sidecar.time)
    assert Counter(map(key_of, own)) == Counter({one.key: 1 for one in wanted})
    assert {key_of(one): one for one in own} == {one.key: back(one) for one in wanted}


@settings(max_examples=200)
@given(st.lists(st.tuples(TIMES, st.lists(MESSAGES, min_size=1, max_size=6)), max_size=20))
def test_a_snapshot_holds_everything(groups: list[tuple[int, list[Message]]]) -> None:
    whole, chain, time = Engine(RULES, JOURNAL), Engine(RULES, JOURNAL), T
    for later, messages in [*groups, (200 * S, [])]:
        snapshot, chain = chain.snapshot(), Engine(RULES, JOURNAL)
        chain.restore(snapshot)
        time += later
        assert chain.observe(messages, time) == whole.observe(messages, time)
        assert chain.pending() == whole.pending()
        assert chain.traces() == whole.traces()
        assert chain.counters == whole.counters
