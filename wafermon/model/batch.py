"""What a backend is handed: messages in journal order, and the stretch of journal that they stand for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

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
    received: tuple[int, int] = (0, 0)
    """When the first and the last of the messages were received, in microseconds since the epoch. It never goes back from
    one message to the next, unlike `ts`. (0, 0) where there is none."""
    find_positions: Callable[[], Sequence[Position]] | None = field(default=None, repr=False, compare=False)
    """Answers with the position of each message. None: the lines stand one after the other, from `start` on."""

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
    def size(self) -> int:
        """The bytes of `raw`."""
        return self.block.size

    @property
    def lines(self) -> list[bytes]:
        """The raw lines without their newlines."""
        return self.block.lines

    def position(self, index: int) -> Position:
        """Where the journal holds the message of this index. The first call takes time that grows with the batch."""
        return self._positions[index]

    @cached_property
    def _positions(self) -> Sequence[Position]:
        if self.find_positions is not None:
            return self.find_positions()
        offsets = accumulate((len(line) + 1 for line in self.lines), initial=self.start.offset)
        return [self.start._replace(offset=offset) for offset in offsets][:-1]
