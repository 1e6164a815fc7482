"""What came of a connection and was not taken: lines, and frames between them. Pure."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from wafermon.wire.frames import Head, find_head, read_head
from wafermon.wire.framing import LineBuffer, Lines, LongLine


class Frame(NamedTuple):
    """A frame that is whole: `frames.open_frame` makes lines of it."""

    head: Head
    data: bytes | bytearray


class _Part(Enum):
    """What is being read."""

    LINES = "lines"
    FRAME = "a frame's bytes"
    WHOLE = "a frame that is whole"
    OPENING = "a frame that is being decompressed"
    OPENED = "a frame's lines"


class Inbox:
    """`feed` it, ask for `next`, and say what becomes of that: `took`, `took_long`, or `opening` and `opened`."""

    __slots__ = ("_codec", "_frame", "_head", "_lines", "_most", "_opened", "_part")

    def __init__(self, limit: int) -> None:
        """`limit` is the longest line."""
        self._lines = LineBuffer(limit)
        self._part = _Part.LINES
        self._codec = ""
        self._most = 0
        self._head: Head
        self._frame = bytearray()
        self._opened: LineBuffer

    def grant(self, codec: str, most: int) -> None:
        """From now on frames of this codec may come; each of at most `most` bytes of lines."""
        self._codec, self._most = codec, most

    def __len__(self) -> int:
        """The bytes that are held, or will be once the frame that came is opened."""
        held = len(self._lines)
        if self._part is _Part.OPENED:
            return held + len(self._opened)
        if self._part in (_Part.WHOLE, _Part.OPENING):
            return held + self._head.size + self._head.raw
        return held + len(self._frame)

    @property
    def limit(self) -> int:
        return self._lines.limit

    def feed(self, data: bytes) -> None:
        self._lines.feed(data)
        self._collect()

    def start(self, most: int) -> bytes:
        """The first bytes that are held, of a connection that sends its first line."""
        return self._lines.start(most)

    def next(self) -> Lines | LongLine | Frame | None:
        """What is next; None where more has to come first. Raises frames.BadFrame."""
        if self._part is _Part.WHOLE:
            return Frame(self._head, self._frame)
        if self._part is _Part.OPENED:
            found = self._opened.next()
            if found is not None:
                return found
            self._part = _Part.LINES
            del self._opened
        if self._part is not _Part.LINES:
            return None
        return self._next_lines()

    def _next_lines(self) -> Lines | LongLine | Frame | None:
        found = self._lines.next()
        if not self._codec or not isinstance(found, Lines):
            return found
        first, end = find_head(found.block)
        if first:
            return Lines(found.block[:first]) if first < len(found.block) else found
        self._head = read_head(found.block[:end], self._codec, self._most)
        self._lines.took(found, end)
        self._part = _Part.FRAME
        self._collect()
        return self.next()

    def _collect(self) -> None:
        if self._part is _Part.FRAME:
            self._frame += self._lines.take_bytes(self._head.size - len(self._frame))
            if len(self._frame) == self._head.size:
                self._part = _Part.WHOLE

    @property
    def is_opening(self) -> bool:
        """Whether a frame's lines have to come before anything else is taken."""
        return self._part is _Part.OPENING

    def opening(self) -> None:
        """Lines are being made of the frame that was whole; `opened` will be told them."""
        self._part = _Part.OPENING

    def opened(self, raw: bytes) -> None:
        """These are the lines of the frame that was whole."""
        self._frame = bytearray()
        self._opened = LineBuffer(self._lines.limit, raw)
        self._part = _Part.OPENED

    def took(self, lines: Lines, size: int, *, left: bool = False) -> None:
        """See `LineBuffer.took`."""
        self._source.took(lines, size, left=left)

    def took_long(self) -> None:
        """See `LineBuffer.took_long`."""
        self._source.took_long()

    @property
    def _source(self) -> LineBuffer:
        return self._opened if self._part is _Part.OPENED else self._lines

    def end(self) -> None:
        """Nothing more comes: a last line without a newline is one all the same."""
        if self._part is not _Part.FRAME:
            self._lines.end()

    def clear(self) -> None:
        """Hold nothing any more."""
        self._lines.clear()
        self._frame = bytearray()
        self._part = _Part.LINES
