"""Whether the columns of a block are those of its messages."""

from __future__ import annotations

from collections.abc import Sequence

from wafermon.model.blocks import FOLLOWED, Block, Tally
from wafermon.model.messages import OWN_SERVICE, TS_MAX, Message, decode_stored, kind_of


def check(block: Block, raw: bytes) -> None:
    """It holds these lines, and its columns are those of their messages."""
    messages = [decode_stored(one) for one in raw.split(b"\n")[:-1]]
    kinds = [kind_of(message) for message in messages]
    assert (block.raw, block.count) == (raw, len(messages))
    assert block.kinds == set(kinds)
    assert list(block.each_kind()) == kinds
    assert all(block.first <= (message.ts or 0) <= block.last for message in messages)
    for kind in block.kinds:
        assert block.places({kind}) == [place for place, one in enumerate(kinds) if one == kind]
    assert block.followed == [message for message in messages if message.type in FOLLOWED]
    assert block.of_service("a") == [message for message in messages if message.service == "a"]
    assert {one.trace_id: one for one in merged(block)} == {one: tallied(one, messages) for one in traces(messages)}
    assert [one.trace_id for one in merged(block)] == traces(messages)
    assert list(block.messages) == messages


def traces(messages: Sequence[Message]) -> list[str]:
    own = {message.trace_id: None for message in messages if message.trace_id and message.service != OWN_SERVICE}
    return list(own)


def tallied(trace: str, messages: Sequence[Message]) -> Tally:
    found = [message for message in messages if message.trace_id == trace and message.service != OWN_SERVICE]
    tally = Tally(trace, TS_MAX, 0, {})
    for message in found:
        tally.add(message.ts or 0, message.ts or 0, kind_of(message), 1)
    return tally


def merged(block: Block) -> list[Tally]:
    found: dict[str, Tally] = {}
    for one in block.tallies():
        known = found.setdefault(one.trace_id, Tally(one.trace_id, one.first, one.last, {}))
        for kind, count in one.counts.items():
            known.add(one.first, one.last, kind, count)
    return list(found.values())
