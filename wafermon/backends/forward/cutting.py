"""A batch -> the frames that carry it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from wafermon.interfaces import Batch
from wafermon.wire.frames import PLAIN, Stretch, encode_frame

PLAIN_BYTES = 64 << 10
"""Frames are no larger once the other has refused one, and they are not compressed: nothing is left that could be wrong."""


@dataclass(frozen=True)
class Manner:
    """How to make frames."""

    codec: str
    most: int
    """Bytes of lines in a frame, unless one line is longer."""


@dataclass(frozen=True)
class Packed:
    """A batch as it goes over the wire."""

    data: bytes
    frames: int
    longest: int
    """The longest line, in bytes without its newline; 0 where there is none."""


def plainly(manner: Manner) -> Manner:
    """As the same lines are sent after a refusal."""
    return Manner(PLAIN, min(manner.most, PLAIN_BYTES))


def pack(batch: Batch, manner: Manner, now: int) -> Packed:
    """`now` is the date, in microseconds since the epoch."""
    parts = list(_cut(batch, manner.most))
    received = batch.received[0]
    data = b"".join(
        encode_frame(manner.codec, raw, lines, Stretch(start, end, received, now)) for start, end, raw, lines in parts
    )
    longest = max(map(len, batch.raw.split(b"\n"))) if batch.count else 0
    return Packed(data, len(parts), longest)


def _cut(batch: Batch, most: int) -> Iterator[tuple[int, int, bytes, int]]:
    """Start, end, lines and their number, frame by frame."""
    start, end = batch.start.number, batch.end.number
    if len(batch.raw) <= most or batch.count <= 1:
        yield start, end, batch.raw, batch.count
        return
    some, size = list[bytes](), 0
    for index, line in enumerate(batch.lines):
        if some and size + len(line) + 1 > most:
            middle = batch.position(index).number
            yield start, middle, b"\n".join([*some, b""]), len(some)
            start, some, size = middle, [], 0
        some.append(line)
        size += len(line) + 1
    yield start, end, b"\n".join([*some, b""]), len(some)


def idle(position: int, now: int) -> bytes:
    """What says that nothing waits, and that the connection lives."""
    return encode_frame(PLAIN, b"", 0, Stretch(position, position, 0, now))
