"""What one client sent is counted by trace; the answer is that of a count message by message."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from wafermon.correlation.ledger import _counts, _where_of
from wafermon.model.blocks import Block
from wafermon.model.messages import Event, Message, Metric

message = st.builds(
    lambda event, service, client, trace, ts: (
        Event(service=service, client=client, trace_id=trace, ts=ts, level="info", message="m")
        if event
        else Metric(service=service, client=client, trace_id=trace, ts=ts, name="n", value=1.0)
    ),
    st.booleans(),
    st.sampled_from(["loader", "etch", "wafermon"]),
    st.sampled_from(["0123456789abcdef", "fedcba9876543210"]),
    st.sampled_from(["job-1", "job-2", UNSET]),
    st.integers(1, 9),
)


@given(st.lists(message, max_size=20), st.booleans())
def test_messages_are_counted_alike_by_trace_and_one_by_one(messages: list[Message], alone: bool) -> None:
    if alone:
        messages = [one for one in messages if one.client == "0123456789abcdef" and one.service != "wafermon"]
    counted: dict[tuple[Any, ...], int] = dict(_counts(Block.of(b"", messages)))
    assert counted == dict(Counter(map(_where_of, messages)))
