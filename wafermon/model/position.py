"""A place in one journal."""

from __future__ import annotations

from typing import NamedTuple


class Position(NamedTuple):
    """A place in one journal: the cursor is past everything before it. Never reused."""

    journal: str
    segment: int
    offset: int

    def __str__(self) -> str:
        return f"{self.journal}:{self.segment}:{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read what ``str()`` wrote. Raises ValueError for anything else."""
        journal, segment, offset = text.split(":")
        return cls(journal, int(segment), int(offset))
