"""What a start finds in a journal's directory, and what it cuts away there. Blocks."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from twisted.logger import Logger

from wafermon.files import Files
from wafermon.journal.clock import Known
from wafermon.journal.errors import CannotOpen
from wafermon.journal.groups import HEAD_START, VERSION, Head, Mark, count_messages
from wafermon.journal.segments import SegmentFile, path_of, segments_in
from wafermon.model.position import Position

HEAD_BYTES = 4096


@dataclass
class Recovered:
    """What `Recovery.run` found."""

    lengths: dict[int, int] = field(default_factory=dict)
    """The segments' lengths in bytes, by ascending number."""
    messages: dict[int, int] = field(default_factory=dict)
    """How many messages a segment holds, where that is known."""
    marks: list[Mark] = field(default_factory=list)
    """Those that no checkpoint holds."""
    time: int = 0
    """The receive time of the last group; 0 where there is none."""
    known: Known | None = None
    """What that group says of the elapsed time."""
    gone: tuple[int, int] = (0, 0)
    """The segment before the first one, and its length, where that is known."""


def heads_in(directory: Path, files: Files) -> dict[int, Head | None]:
    """What the segments say of themselves, by ascending number; None where that can't be read. Raises CannotOpen for one that
    a newer wafermon wrote."""
    heads: dict[int, Head | None] = {}
    for number in segments_in(directory, files):
        file = SegmentFile(directory, number, files)
        try:
            head = heads[number] = Head.decode(file.start(HEAD_BYTES))
        finally:
            file.close()
        if head is not None and head.version > VERSION:
            raise CannotOpen(
                f"{file.path} has format {head.version}, and this wafermon reads formats up to {VERSION}: "
                "start the version that wrote it, or give another journal.dir"
            )
    return heads


def may_be_begun(data: bytes) -> bool:
    """Whether this may be all that is left of a first write that was cut short: the start of a head, or what a power cut left blank."""
    return HEAD_START.startswith(data[: len(HEAD_START)]) or not data[0]


class Recovery:
    """Reads the segments from the last checkpoint on, and the last one in any case."""

    log = Logger()

    def __init__(
        self,
        directory: Path,
        files: Files,
        journal: str,
        marked: int,
        set_aside: Callable[[Position, bytes], None],
        missing: Callable[[str], None],
        ids: Collection[str] = (),
    ) -> None:
        """`ids` are the journal's, those that it had before included. `marked` is the segment of the last checkpoint. What is damaged goes to `set_aside`, and that something is gone
        is said to `missing`."""
        self._dir = directory
        self._files = files
        self._journal = journal
        self._ids = {journal, *ids}
        self._marked = marked
        self._set_aside = set_aside
        self._missing = missing

    def run(self) -> Recovered:
        """Raises CannotOpen or OSError; it may be run again then."""
        recovered = Recovered()
        heads = heads_in(self._dir, self._files)
        for number, head in heads.items():
            self._check(number, head)
        lengths = segments_in(self._dir, self._files)
        self._drop_failed(heads, lengths)
        self._obey(heads, lengths)
        self._look_for_gaps(heads, lengths)
        newest = max((number for number, length in lengths.items() if length), default=0)
        for number, length in lengths.items():
            if head := heads.get(number):
                recovered.messages.setdefault(head.after, head.messages)
            last = number == newest
            if last or number >= self._marked:
                length = self._recover_segment(number, length, recovered, last=last)
            if length:
                recovered.lengths[number] = length
            else:
                self._files.remove(path_of(self._dir, number))
        first = heads.get(min(recovered.lengths, default=0))
        if first is not None and first.ended > 0:
            recovered.gone = (first.after, first.ended)
        known = recovered.messages.items()
        recovered.messages = {one: count for one, count in known if one in recovered.lengths and count >= 0}
        return recovered

    def _check(self, number: int, head: Head | None) -> None:
        path = path_of(self._dir, number)
        if head is None:
            return
        if head.journal not in self._ids:
            raise CannotOpen(
                f"{path} belongs to the journal {head.journal}, and {self._dir} to {self._journal}: move the file away"
            )
        if head.segment != number:
            raise CannotOpen(
                f"{path} is segment {head.segment} under another name: move the file away, or name it back"
            )

    def _drop_failed(self, heads: dict[int, Head | None], lengths: dict[int, int]) -> None:
        """Segments that failed before anything in them counted: what is in them stands in a later one too."""
        for head in list(heads.values()):
            for number in head.dropped if head is not None else ():
                if number in lengths:
                    self._files.remove(path_of(self._dir, number))
                    del lengths[number], heads[number]

    def _obey(self, heads: dict[int, Head | None], lengths: dict[int, int]) -> None:
        """Let segments end where the one after them says that they ended."""
        for head in heads.values():
            if head is None or head.ended < 0 or head.after not in lengths:
                continue
            length = lengths[head.after]
            if length > head.ended:
                message = "Journal segment {segment}: cutting {bytes} bytes that a failed write left at its end"
                self.log.info(message, segment=head.after, bytes=length - head.ended)
                self._cut(head.after, head.ended)
                lengths[head.after] = head.ended
            elif length < head.ended:
                message = "Journal segment {segment} has lost {bytes} bytes at its end: what they held and was not delivered yet is lost"
                self.log.error(message, segment=head.after, bytes=head.ended - length)
                self._missing(f"segment {head.after}")

    def _cut(self, number: int, length: int) -> None:
        file = SegmentFile(self._dir, number, self._files, cuts=True)
        try:
            file.cut(length)
        finally:
            file.close()

    def _look_for_gaps(self, heads: dict[int, Head | None], lengths: dict[int, int]) -> None:
        """Segments are deleted from the oldest on: one that is missing between two others was taken away."""
        for head in heads.values():
            if head is not None and head.after not in lengths and head.after > min(lengths):
                message = "Journal segment {segment} is missing: what it held and was not delivered yet is lost"
                self.log.error(message, segment=head.after)
                self._missing(f"segment {head.after}")

    def _recover_segment(self, number: int, length: int, recovered: Recovered, *, last: bool) -> int:
        """Read a segment's marks; where it is the last one, cut its unfinished tail. Answers with its length."""
        file = SegmentFile(self._dir, number, self._files, cuts=last)
        good = messages = 0
        try:
            for span, data in file.spans(0, length):
                if span.commit is not None:
                    good = span.end
                    messages += count_messages(data)
                    stamp = span.commit.stamp
                    recovered.time, recovered.known = stamp.time, Known(stamp.elapsed, stamp.time)
                    recovered.marks += span.commit.marks
                elif span.end < length or b"\n!commit " in data or (not span.start and not may_be_begun(data)):
                    self._set_aside(Position(self._journal, number, span.start), data)
            recovered.messages[number] = messages
            if not last:
                return length
            if good < length:
                message = "Journal segment {segment}: cutting {bytes} unfinished bytes at its end"
                self.log.info(message, segment=number, bytes=length - good)
            # Also where nothing is cut: a process that was killed may not have synced what its clients are told now.
            file.cut(good)
            return good
        finally:
            file.close()
