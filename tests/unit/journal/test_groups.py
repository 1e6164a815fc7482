"""What a group's lines say of its blocks, so that nobody has to parse the messages to find it out."""

from __future__ import annotations

from typing import Any

import pytest
from journals import NOW, ROUTES, line

from wafermon.journal.groups import TOLD_MESSAGES, Stamp, decode_group, encode_blocks, encode_commit, scan
from wafermon.model.blocks import Block
from wafermon.model.messages import dumps


def block_of(count: int, services: int) -> Block:
    return Block.parse(b"".join(line(number, service=f"s{number % services}") + b"\n" for number in range(count)))


def decoded(lines: bytes) -> Block:
    """The only block of a group of these lines."""
    data = lines + encode_commit([lines], Stamp(NOW, NOW), [])
    [span] = scan(data)
    [(_, block)] = decode_group(data, span, "j", 1, ROUTES).blocks
    return block


@pytest.mark.parametrize("services", [1, 2, 3])
def test_what_is_told_of_a_block_is_what_its_messages_say(services: int) -> None:
    block = block_of(TOLD_MESSAGES, services)
    told = encode_blocks([block])
    assert (b"!columns " in told, b"!blocks " in told) == (services > 1, True)
    found, parsed = decoded(told + block.raw), Block.parse(block.raw)
    assert (found.count, found.first, found.last, found.kinds) == (
        parsed.count,
        parsed.first,
        parsed.last,
        parsed.kinds,
    )
    assert list(found.tallies()) == list(parsed.tallies())
    assert found.messages == parsed.messages


def test_of_a_small_block_nothing_is_told() -> None:
    assert encode_blocks([block_of(TOLD_MESSAGES - 1, 2)]) == b""


@pytest.mark.parametrize("kind", [[], ["s0", "event", "info", None], ["s0", "event", "info", None, None, "more"]])
def test_where_another_version_told_more_or_less_the_messages_are_parsed(kind: list[Any]) -> None:
    block = block_of(3, 1)
    told = f"!blocks {dumps([[block.size, 99, 1, 2, [kind]]])}\n".encode()
    found = decoded(told + block.raw)
    assert (found.count, found.first, found.last) == (3, NOW, NOW + 2)
    assert found.kinds == block.kinds
