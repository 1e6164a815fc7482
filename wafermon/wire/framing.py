"""The bytes of a connection -> whole lines, as they came. Pure.

Which lines are whole, and which are too long, depends on the bytes alone and never on how they were cut into reads.
"""

from __future__ import annotations

from typing import NamedTuple

SLICE_BYTES = 1 << 18
"""Lines are handed out in blocks of about this size. A message costs a seventh less in blocks of this size than in smaller
ones, and more in larger ones, which no longer fit into the cache."""
CAREFUL_BYTES = 1 << 12
"""The size of the next block after one that was left in the middle, since many of its lines were bad: the rest is split anew."""
_CR = 13


class Lines(NamedTuple):
    """Whole lines, each ended by one newline without a ``\\r`` before it, none of them too long."""

    block: bytes


class LongLine(NamedTuple):
    """A line that is longer than may be: its beginning, as much of it as a line may have."""

    start: bytes


class LineBuffer:
    """What came and was not taken. `feed`, then ask for `next` and say what was taken of it, until there is nothing."""

    __slots__ = ("_at", "_careful", "_data", "_dropped", "_too_long", "limit")

    def __init__(self, limit: int, data: bytes = b"") -> None:
        """`limit` is the longest line in bytes, without its newline and a ``\\r`` before that."""
        self.limit = limit
        self._data = data
        self._at = 0
        """What stands before this is taken."""
        self._too_long: bytes | None = None
        """The beginning of a line whose rest is skipped."""
        self._careful = SLICE_BYTES
        self._dropped = False
        """Whether a ``\\r`` was dropped from the lines that were handed out last."""

    def __len__(self) -> int:
        """The bytes that are held."""
        return len(self._data) - self._at + len(self._too_long or b"")

    def feed(self, data: bytes) -> None:
        if self._too_long is not None and not self._data:
            end = data.find(b"\n")
            if end < 0:
                return
            data = data[end:]
        if self._at:
            self._data = self._data[self._at :]
            self._at = 0
        self._data = self._data + data if self._data else data

    def start(self, most: int) -> bytes:
        """The first bytes that are held."""
        return self._data[self._at : self._at + most]

    def next(self) -> Lines | LongLine | None:
        """The next lines; None where the rest of a line has to come first."""
        data, at = self._data, self._at
        if self._too_long is not None:
            return LongLine(self._too_long) if at < len(data) else None
        end = data.rfind(b"\n", at, at + self._careful) + 1 or data.find(b"\n", at) + 1
        if not end:
            if len(data) - at > self.limit + 1:
                self._too_long = data[at : at + self.limit]
                self._data, self._at = b"", 0
            return None
        end = self._fitting(at, end)
        if end == at:
            return LongLine(data[at : at + self.limit])
        block = data[at:end] if at or end < len(data) else data
        self._dropped = b"\r" in block
        # Only before a newline: elsewhere it is white space, or an error that must be seen.
        return Lines(block.replace(b"\r\n", b"\n") if self._dropped else block)

    def _fitting(self, at: int, end: int) -> int:
        """Where the first line that is too long begins, else `end`."""
        data, limit = self._data, self.limit
        while end - at > limit + 1:
            newline = data.rfind(b"\n", at, at + limit + 1)
            if newline < 0:
                newline = data.find(b"\n", at)
                if newline - at > limit + 1 or data[newline - 1] != _CR:
                    return at
            at = newline + 1
        return end

    def took(self, lines: Lines, size: int, *, left: bool = False) -> None:
        """The first `size` bytes of these are done with, which are whole lines; `left` where many bad ones were among them, so that
        the others are for later."""
        block = lines.block
        self._careful = CAREFUL_BYTES if left else min(2 * self._careful, SLICE_BYTES)
        end = self._at + size
        if self._dropped:
            end = self._at
            for _ in range(block.count(b"\n", 0, size)):
                end = self._data.index(b"\n", end) + 1
        self._move(end)

    def took_long(self) -> None:
        """The last `LongLine` is done with."""
        self._too_long = None
        self._move(self._data.index(b"\n", self._at) + 1)

    def take_bytes(self, most: int) -> bytes:
        """Take at most so many bytes as they are, newlines or not."""
        taken = self._data[self._at : self._at + most]
        self._move(self._at + len(taken))
        return taken

    def end(self) -> None:
        """Nothing more comes: a last line without a newline is one all the same."""
        if (self._data or self._too_long is not None) and not self._data.endswith(b"\n"):
            self.feed(b"\n")

    def clear(self) -> None:
        """Hold nothing any more."""
        self._data, self._at, self._too_long = b"", 0, None

    def _move(self, at: int) -> None:
        self._data, self._at = (b"", 0) if at == len(self._data) else (self._data, at)
