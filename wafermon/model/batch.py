"""What a backend is handed: messages in journal order, and the stretch of journal that they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wafermon.model.blocks import Block
from wafermon.model.messages import Message
from wafermon.model.position import Position


@dataclass(frozen=True)
class Batch:
    """Messages in journal order, with the stretch of journal that they stand for.

    A batch may be empty: its stretch then holds nothing for this backend, and only the position moves.
    """

    start: Position
    end: Position
    block: Block
    """The lines, and what they have in common: a backend that can do with that need not parse any."""

    @property
    def count(self) -> int:
        return self.block.count

    @property
    def messages(self) -> Sequence[Message]:
        """What the lines say; parsed when it is first asked for. ``messages[i]`` is what ``lines[i]`` says."""
        return self.block.messages

    @property
    def raw(self) -> bytes:
        """The lines joined, each ended by a newline."""
        return self.block.raw

    @property
    def lines(self) -> list[bytes]:
        """The raw lines without their newlines."""
        return self.block.lines
