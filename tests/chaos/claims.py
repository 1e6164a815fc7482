"""What a sender claims, and what it was told: all that generator and oracle share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def numbered(service: str, number: int) -> str:
    """The text of a generator's message: of many lengths, and of no other message."""
    return f"{service} {number} " + "x" * (number * 7919 % 180)


@dataclass
class Claim:
    """The messages 1 to `claimed` of one service."""

    service: str
    claimed: int = 0
    """May have left the sender: nothing beyond is ever to be found."""
    acked: int = 0
    """Acknowledged: to be found, exactly once."""
    lost: frozenset[int] | set[int] = frozenset()
    """Below `acked`, and yet the sender never told that they are: they may be missing."""
    closed: bool = False
    """The sender has said that this is all, in a way that can be relied on."""
    ordered: bool = True
    """Sent as one stream, so that a file holds them in order."""
    text: Callable[[str, int], str] = numbered
    """(service, number) -> what the message says."""
