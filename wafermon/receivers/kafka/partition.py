"""One partition: its records as entries of the journal, and how far it was read. Without Kafka's library, and without waiting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from wafermon.journal import Entry, Rejected, Stream
from wafermon.wire.frames import LEAST_BYTES, SHORT_LINES
from wafermon.wire.lines import Origin
from wafermon.wire.scanned import reader

SLICE_BYTES = 1 << 18
"""Lines go into the journal in blocks of about this size, as those of connections do."""

NEWLINE = b"\n"
KEPT_BYTES = 1024
"""What is kept of a record with very many lines that are no messages."""


class Place(NamedTuple):
    """A partition, by name."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"


@dataclass
class Figures:
    """Counters since the start, of a topic."""

    messages: int = 0
    rejected: int = 0
    """Lines that were refused."""
    skipped: int = 0
    """Records without a value."""
    lost: int = 0
    """Offsets that the topic's retention took before they were read."""


class State(Enum):
    READING = "reading"
    STOPPED = "stopped"
    """It can't be read on before a person has done something."""
    GONE = "gone"
    """It is not ours any more: what is still to come of it is another's."""


class Partition:
    """See the module."""

    def __init__(self, place: Place, topic_id: str, stream: Stream, figures: Figures) -> None:
        """`stream` is held by the caller. `figures` are those of the topic."""
        self.place = place
        self.topic_id = topic_id
        self.stream = stream
        self.state = State.READING
        self.problem = ""
        self.high: int | None = None
        """The first offset that is not there yet, as far as known."""
        self.committed = 0
        """What the group was told last."""
        self._figures = figures
        self._reader = reader(Origin(forwarded=True), None)
        self._seen = stream.appended

    @property
    def next(self) -> int | None:
        """The offset to begin at; None where nothing was read yet."""
        return self.stream.appended or None

    @property
    def lag(self) -> int | None:
        """Offsets that are there and were not read yet; None where that is not known."""
        return None if self.high is None else max(0, self.high - max(self._seen, self.stream.appended))

    def ended(self, offset: int) -> None:
        """There is nothing before this offset that was not given."""
        self._seen = max(self._seen, offset)
        self.high = max(self.high or 0, offset)

    def skip(self, low: int) -> Entry:
        """What was before this offset is gone; answers with what makes that durable."""
        self._figures.lost += low - self.stream.appended
        self.stream.appended = low
        return Entry(stream=self.stream, seq=low)

    def entries(self, offsets: Sequence[int], values: Sequence[bytes | None], most: int, now: int) -> Iterator[Entry]:
        """What records say, block by block; each moves the mark once it is taken. A line is at most `most` bytes. What came before
        is dropped. `now` is the receive time, in microseconds since the epoch."""
        stream = self.stream
        start = 0
        while start < len(offsets):
            size, end = 0, start
            while end < len(offsets) and size < SLICE_BYTES:
                size += len(values[end] or b"") + 1
                end += 1
            new = [at for at in range(start, end) if offsets[at] >= stream.appended]
            start = end
            if new and self.state is not State.GONE:
                entry = self._entry([offsets[at] for at in new], [values[at] for at in new], most, now)
                stream.appended = entry.seq
                yield entry

    def _entry(self, offsets: list[int], values: list[bytes | None], most: int, now: int) -> Entry:
        lines: list[bytes] = []
        places: list[int] = []
        rejected: list[Rejected] = []
        for offset, value in zip(offsets, values, strict=True):
            if value is None:
                self._figures.skipped += 1
                continue
            if value.count(NEWLINE) > SHORT_LINES + len(value) // LEAST_BYTES:
                detail = f"{value.count(NEWLINE)} lines in {len(value)} bytes are no messages; its beginning is kept"
                rejected.append(self._rejected("bad_record", detail, value[: min(most, KEPT_BYTES)], offset, now))
                continue
            for line in value.removesuffix(b"\n").split(b"\n"):
                if len(line) > most:
                    detail = f"longer than {most} bytes; its beginning is kept"
                    rejected.append(self._rejected("line_too_long", detail, line[:most], offset, now))
                else:
                    lines.append(line)
                    places.append(offset)
        block = None
        if lines:
            found = self._reader.read(b"\n".join([*lines, b""]), now)
            block = found.block if found.block.count else None
            rejected += [
                self._rejected(error.code, error.detail, line, places[at], now)
                for at, (line, error) in found.refused.items()
            ]
            self._figures.messages += found.block.count
        self._figures.rejected += len(rejected)
        return Entry(block, rejected, self.stream, offsets[-1] + 1)

    def _rejected(self, code: str, detail: str, line: bytes, offset: int, now: int) -> Rejected:
        return Rejected(code, detail, line, f"kafka:{self.place}@{offset}", now)
