"""What came of a connection and was not taken: lines, and frames between them. Pure."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from wafermon.wire.frames import NOT_A_FRAME, BadFrame, Head, find_head, read_head
from wafermon.wire.framing import LineBuffer, Lines, LongLine


class Frame(NamedTuple):
    """A frame that is whole: `frames.open_frame` makes lines of it."""

    head: Head
    data: bytes | bytearray


class OpenedFrame(NamedTuple):
    """A frame that was forwarded, opened: it is taken whole. See `Inbox.took_frame`."""

    head: Head
    raw: bytes


class _Part(Enum):
    """What is being read."""

    LINES = "lines"
    FRAME = "a frame's bytes"
    WHOLE = "a frame that is whole"
    OPENING = "a frame that is being decompressed"
    OPENED = "a frame's lines"


class Inbox:
    """`feed` it, ask for `next`, and say what becomes of that: `took`, `took_long`, or `opening` and `opened`."""

    __slots__ = ("_codec", "_forwarded", "_frame", "_head", "_lines", "_most", "_opened", "_part", "_raw")

    def __init__(self, limit: int) -> None:
        """`limit` is the longest line."""
        self._lines = LineBuffer(limit)
        self._part = _Part.LINES
        self._codec = ""
        self._most = 0
        self._head: Head
        self._frame = bytearray()
        self._opened: LineBuffer
        self._forwarded = False
        self._raw = b""

    def grant(self, codec: str, most: int) -> None:
        """From now on frames of this codec may come; each of at most `most` bytes of lines."""
        self._codec, self._most = codec, most

    def grant_forward(self, codec: str, most: int) -> None:
        """From now on nothing but frames that are forwarded may come, of this codec or none."""
        self.grant(codec, most)
        self._forwarded = True

    def __len__(self) -> int:
        """The bytes that are held, or will be once the frame that came is opened."""
        held = len(self._lines)
        if self._part is _Part.OPENED:
            return held + (len(self._raw) if self._forwarded else len(self._opened))
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

    def next(self) -> Lines | LongLine | Frame | OpenedFrame | None:
        """What is next; None where more has to come first. Raises frames.BadFrame."""
        if self._part is _Part.WHOLE:
            return Frame(self._head, self._frame)
        if self._part is _Part.OPENED and self._forwarded:
            return OpenedFrame(self._head, self._raw)
        if self._part is _Part.OPENED:
            found = self._opened.next()
            if found is not None:
                return found
            self._part = _Part.LINES
            del self._opened
        if self._part is not _Part.LINES:
            return None
        return self._next_lines()

    def _next_lines(self) -> Lines | LongLine | Frame | OpenedFrame | None:
        if self._forwarded:
            return self._next_forwarded()
        found = self._lines.next()
        if not self._codec or not isinstance(found, Lines):
            return found
        first, end = find_head(found.block)
        if first:
            return Lines(found.block[:first]) if first < len(found.block) else found
        return self._begin(read_head(found.block[:end], self._codec, self._most), found, end)

    def _next_forwarded(self) -> Lines | LongLine | Frame | OpenedFrame | None:
        found = self._lines.next()
        if found is None:
            return None
        if not isinstance(found, Lines):
            raise BadFrame(NOT_A_FRAME)
        end = found.block.index(b"\n") + 1
        return self._begin(read_head(found.block[:end], self._codec, self._most, forwarded=True), found, end)

    def _begin(self, head: Head, found: Lines, end: int) -> Lines | LongLine | Frame | OpenedFrame | None:
        self._head = head
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
    def is_amid_frame(self) -> bool:
        """Whether nothing can be taken before the rest of a frame has come."""
        return self._part is _Part.FRAME

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
        if self._forwarded:
            self._raw = raw
        else:
            self._opened = LineBuffer(self._lines.limit, raw)
        self._part = _Part.OPENED

    def took_frame(self) -> None:
        """The last `OpenedFrame` is done with."""
        self._raw = b""
        self._part = _Part.LINES

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
        self._raw = b""
        self._part = _Part.LINES
