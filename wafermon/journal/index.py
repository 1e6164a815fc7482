"""Which segments there are, how long they are and what they hold. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from wafermon.model.position import Position

MESSAGE_BYTES = 250.0
"""What a message takes, as long as none has come that says more."""


class Stretch(NamedTuple):
    """What lies between two places of the journal."""

    segments: int = 0
    """Those that it begins in or holds, also where nothing of the last one is written yet."""
    bytes: int = 0
    messages: int = 0
    """Exact for whole segments of which that is known; of a part of one it is reckoned by its bytes."""


class Index:
    """The segments of one journal, by ascending number. The last one is written to; there is always one."""

    def __init__(
        self, journal: str, lengths: Mapping[int, int], messages: Mapping[int, int], gone: tuple[int, int] = (0, 0)
    ) -> None:
        """`lengths` are in bytes; `messages` says how many a segment holds, where that is known. `gone` is the segment
        before the first one, and its length; (0, 0) where that is not known."""
        self.journal = journal
        self._lengths = dict(sorted(lengths.items()))
        self._messages = dict(messages)
        self._size = sum(self._lengths.values())
        self._gone = gone

    def __contains__(self, segment: int) -> bool:
        return segment in self._lengths

    @property
    def numbers(self) -> list[int]:
        return list(self._lengths)

    @property
    def newest(self) -> int:
        return next(reversed(self._lengths))

    @property
    def size(self) -> int:
        """The bytes of all segments."""
        return self._size

    @property
    def end(self) -> Position:
        """Where the next group will start, or a place that reads the same."""
        return Position(self.journal, self.newest, self._lengths[self.newest])

    @property
    def oldest(self) -> Position:
        """The first place that can be read."""
        return Position(self.journal, next(iter(self._lengths)), 0)

    def length(self, segment: int) -> int:
        """0 for one that is not there."""
        return self._lengths.get(segment, 0)

    def grow(self, end: Position, messages: int) -> None:
        """A group with so many messages ends there."""
        new = end.segment not in self._lengths
        self._size += end.offset - self.length(end.segment)
        self._lengths[end.segment] = end.offset
        if new or end.segment in self._messages:
            self._messages[end.segment] = self._messages.get(end.segment, 0) + messages

    def drop(self, segment: int) -> int:
        """Forget a segment; answers with its length."""
        length = self._lengths.pop(segment)
        self._messages.pop(segment, None)
        self._size -= length
        self._gone = max(self._gone, (segment, length))
        return length

    def holds(self, position: Position) -> bool:
        """Whether all that stands from there on is still there. Not beyond the end."""
        here = position.segment in self._lengths
        return here or (
            (position.segment, position.offset) >= self._gone > (0, 0) and position.segment < self.oldest.segment
        )

    def follow(self, position: Position) -> Position:
        """The same place, as the start of the next segment where it is the end of one."""
        while position.segment < self.newest and position.offset >= self.length(position.segment):
            later = next(number for number in self._lengths if number > position.segment)
            position = Position(position.journal, later, 0)
        return position

    def distance(self, position: Position) -> int:
        """The bytes from a position to the end."""
        after = sum(length for number, length in self._lengths.items() if number >= position.segment)
        return after - (position.offset if position.segment in self._lengths else 0)

    def segment_before(self, until: Position, most: int) -> Position:
        """The start of the oldest segment from which at most so many bytes lie before `until`; else of the one that
        ends there."""
        after = self.distance(until)
        starts = [Position(self.journal, number, 0) for number in self._lengths if number <= until.segment]
        near = [start for start in starts if self.distance(start) - after <= most]
        last = [start for start in starts if self._lengths[start.segment] and start < until]
        return min([*near, *last[-1:]], default=until)

    def stretch(self, start: Position, numbers: Iterable[int] | None = None, message_bytes: float = 0.0) -> Stretch:
        """What lies from `start` on, in these segments or in all. `message_bytes` is what a message takes where a segment
        does not say how many it holds."""
        segments = size = 0
        messages = 0.0
        for number in self._lengths if numbers is None else numbers:
            length = self.length(number)
            if number < start.segment:
                continue
            part = length - min(length, start.offset if number == start.segment else 0)
            segments += 1
            size += part
            if number in self._messages:
                messages += math.ceil(self._messages[number] * part / length) if length else 0
            else:
                messages += math.ceil(part / (message_bytes or MESSAGE_BYTES))
        return Stretch(segments, size, int(messages))
