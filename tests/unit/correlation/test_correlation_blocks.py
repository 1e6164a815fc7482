"""What the engine sees of a block at once is what it sees message by message."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wafermon.correlation import Engine, Settings
from wafermon.model.blocks import Block
from wafermon.model.messages import Message, decode_stored, dumps

NOW = 1_700_000_000_000_000
SETTINGS = Settings(stalled_after=3, trace_idle=4, trace_max=60, max_traces=3)


def message(ts: int, service: str, trace: str, what: str) -> Message:
    head = {"ts": NOW + ts, "service": service} | ({"trace_id": trace} if trace else {})
    body = {
        "debug": {"type": "event", "level": "debug", "message": "m"},
        "error": {"type": "event", "level": "error", "message": "m"},
        "metric": {"type": "metric", "name": "n", "value": 1},
        "progress": {"type": "progress", "job_id": "j", "percent": 5, "status": "done", "trace_id": trace or "j"},
        "span": {"type": "span_start", "name": "n", "span_id": "a" * 16, "trace_id": trace or "t"},
    }[what]
    return decode_stored(dumps({**body, **head}).encode())  # type: ignore[dict-item]


messages = st.builds(
    message,
    st.integers(0, 1000),
    st.sampled_from(["a", "b"]),
    st.sampled_from(["", "t1", "t2", "t3", "t4"]),
    st.sampled_from(["debug", "error", "metric", "progress", "span"]),
)
alike = st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(["t1", "t2", "t5"])).flatmap(
    lambda both: st.lists(
        st.builds(
            message,
            st.integers(0, 1000),
            st.just(both[0]),
            st.just(both[1]),
            st.sampled_from(["debug", "error", "metric"]),
        ),
        min_size=1,
        max_size=6,
    )
)
groups = st.lists(
    st.tuples(st.lists(st.lists(messages, min_size=1, max_size=4) | alike, max_size=4), st.integers(0, 5))
)


@given(groups)
def test_blocks_and_messages_say_the_same(groups: list[tuple[list[list[Message]], int]]) -> None:
    by_block, by_message = Engine(SETTINGS, "j" * 16), Engine(SETTINGS, "j" * 16)
    time = NOW
    for blocks, seconds in groups:
        time += seconds * 1_000_000
        made = [Block.of(b"", block) for block in blocks]
        first = by_block.observe_blocks(made, time)
        assert first == by_message.observe([one for block in blocks for one in block], time)
    assert by_block.snapshot() == by_message.snapshot()
