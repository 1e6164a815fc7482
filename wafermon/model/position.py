"""A place in one journal."""

from __future__ import annotations

from typing import NamedTuple

OFFSET_BITS = 31
"""No segment is longer: see `settings.SEGMENT_MAX`, and what a group may add to it."""


class Position(NamedTuple):
    """A place in one journal: the cursor is past everything before it. Never reused."""

    journal: str
    segment: int
    offset: int

    def __str__(self) -> str:
        return f"{self.journal}:{self.segment}:{self.offset}"

    @property
    def number(self) -> int:
        """The same as one number, which grows as positions of one journal do. It says the journal no more."""
        return (self.segment << OFFSET_BITS) + self.offset

    @classmethod
    def of_number(cls, journal: str, number: int) -> Position:
        """What `number` says of that journal."""
        return cls(journal, number >> OFFSET_BITS, number & ((1 << OFFSET_BITS) - 1))

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read what ``str()`` wrote. Raises ValueError for anything else."""
        journal, segment, offset = text.split(":")
        return cls(journal, int(segment), int(offset))
