"""Whether the columns of a block are those of its messages."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import UnsetType

from wafermon.model.blocks import FOLLOWED, Block, Tally
from wafermon.model.messages import OWN_SERVICE, Message, decode_stored, kind_of


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
    assert merged(block) == tallied(messages)
    assert list(merged(block)) == list(tallied(messages))
    assert list(block.messages) == messages


Pair = tuple[str | UnsetType, str | UnsetType]


def tallied(messages: Sequence[Message]) -> dict[Pair, Tally]:
    """Counted one by one."""
    found: dict[Pair, Tally] = {}
    for message in messages:
        if message.service != OWN_SERVICE:
            pair, ts = (message.trace_id, message.client), message.ts or 0
            found.setdefault(pair, Tally(*pair, ts, ts, {}, 0)).add(ts, ts, kind_of(message), 1)
    return found


def merged(block: Block) -> dict[Pair, Tally]:
    """What the block says of each pair."""
    found: dict[Pair, Tally] = {}
    for one in block.tallies():
        known = found.setdefault(
            (one.trace_id, one.client), Tally(one.trace_id, one.client, one.first, one.last, {}, 0)
        )
        for kind, count in one.counts.items():
            known.add(one.first, one.last, kind, count)
    return found
