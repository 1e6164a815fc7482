"""What the ledger keeps of each stream. Pure."""

from __future__ import annotations

from msgspec import Struct, field

CHANGES = 16


class Said(Struct, gc=False):
    """An SDK's last stats line."""

    order: int
    called: int
    dropped: int
    unsent: int
    last: int
    final: bool


class Changes(Struct, gc=False):
    """A count that only grows, with when it did."""

    at: list[tuple[int, int]] = field(default_factory=list)
    """(order, count from then on), the latest `CHANGES`."""

    @property
    def now(self) -> int:
        return self.at[-1][1] if self.at else 0

    def to(self, order: int, count: int) -> None:
        if count > self.now:
            self.at.append((order, count))
            del self.at[:-CHANGES]

    def since(self, order: int) -> int:
        """How much it grew since then; rather more, where that was too long ago."""
        before = 0
        for at, count in self.at:
            if at >= order:
                break
            before = count
        return self.now - before


class Stream(Struct, gc=False):
    """One client's numbers."""

    mark: int
    """Everything up to here has come, or never will."""
    heard: int
    messages: int = 0
    """Accepted ones, without stats lines."""
    gaps: list[tuple[int, int]] = field(default_factory=list)
    """First and last number of each that never came."""
    more_gaps: int = 0
    """Numbers in further gaps."""
    rejected: Changes = field(default_factory=Changes)
    """Lines whose trace can't be read."""
    dropped: Changes = field(default_factory=Changes)
    said: Said | None = None
    owner: str = ""
    """The SDK whose spill file it is, once that has said so."""
    named: int = 0
    """Up to here its owner's stats lines have named it."""
    files: dict[str, int] = field(default_factory=dict)
    """The spill files that its last stats line named and that are not there in full, with their last number."""
    more_files: int = 0
    """Those of them that there was no room for."""
    family: list[str] = field(default_factory=list)
    """Its spill files that are known here."""
    traces: dict[str, None] = field(default_factory=dict)
    """Those for which it, or a file of its family, is not closed."""
    service: str = ""

    def gap_up_to(self, last: int) -> bool:
        return any(first <= last for first, _ in self.gaps)
