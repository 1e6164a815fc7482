"""What becomes of the frames of one sidecar that forwards: taken whole, or known already. Pure.

The mark of a forwarding stream is a position of the other's journal, as a number. A frame stands for a stretch of that journal. One that
ends at or before the appended mark has come before; one that begins at or after it is taken, and the mark is at its end then; one
that the mark lies within can't be taken, since its lines are taken all or none: the other has to ask again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from wafermon.journal import Rejected, Stream
from wafermon.model.blocks import Block
from wafermon.model.errors import ProtocolError
from wafermon.model.messages import OWN_SERVICE
from wafermon.net.principals import Principal
from wafermon.wire.frames import Head, Stretch
from wafermon.wire.lines import Origin
from wafermon.wire.scanned import reader


class Overlap(ProtocolError):
    """The mark lies within a frame. Nothing of it was taken."""

    def __init__(self, stretch: Stretch, mark: int) -> None:
        detail = f"what is here ends at {mark}, within the frame from {stretch.start} to {stretch.end}: ask again"
        super().__init__("overlap", detail)


@dataclass(slots=True)
class TakenFrame:
    """What `Forwarding.take` made of a frame."""

    block: Block | None = None
    """Its good lines, byte for byte."""
    rejected: list[Rejected] = field(default_factory=list)
    skipped: int = 0
    """How far, as the difference of two numbers, the frame began after what is here: the other left that out for good, or has lost it."""


class Forwarding:
    """Reads the frames of one connection, and moves the stream's appended mark over them."""

    def __init__(self, stream: Stream, principal: Principal, longest: int, edge: str) -> None:
        """`longest` is the longest line in bytes; `edge` the sidecar at the other end, for the dead letters."""
        self.stream = stream
        self._principal = principal
        self._longest = longest
        self._edge = edge
        self._reader = reader(Origin(forwarded=True), self._unless_allowed if principal.services is not None else None)

    def knows(self, head: Head) -> bool:
        """Whether the frame has come before. Raises Overlap."""
        assert head.stretch is not None
        start, end = head.stretch.start, head.stretch.end
        mark = self.stream.appended
        if end <= mark:
            return True
        if start < mark:
            raise Overlap(head.stretch, mark)
        return False

    def take(self, head: Head, raw: bytes, now: int) -> TakenFrame | None:
        """The lines of a frame, each ended by a newline, received at `now` (microseconds since the epoch); None where it has come
        before. Raises Overlap."""
        if self.knows(head):
            return None
        assert head.stretch is not None
        taken = TakenFrame()
        mark, self.stream.appended = self.stream.appended, head.stretch.end
        if mark:
            taken.skipped = head.stretch.start - mark
        if len(raw) > self._longest:
            raw = self._without_long_lines(taken, raw, now)
        if raw:
            read = self._reader.read(raw, now)
            for line, error in read.refused.values():
                self._reject(taken, line, error.code, error.detail, now, error.client, error.seq)
            if read.block.count:
                taken.block = read.block
        return taken

    def _without_long_lines(self, taken: TakenFrame, raw: bytes, now: int) -> bytes:
        lines = raw.split(b"\n")[:-1]
        if max(map(len, lines)) <= self._longest:
            return raw
        for line in lines:
            if len(line) > self._longest:
                detail = f"longer than {self._longest} bytes; what is kept of it are the first {self._longest}"
                self._reject(taken, line[: self._longest], "line_too_long", detail, now, None, None)
        return b"".join(line + b"\n" for line in lines if len(line) <= self._longest)

    def _unless_allowed(self, service: str) -> tuple[str, str] | None:
        problem = "" if service == OWN_SERVICE else self._principal.unless_allowed(service)
        return ("unauthorized", problem) if problem else None

    def _reject(
        self, taken: TakenFrame, line: bytes, code: str, detail: str, now: int, client: str | None, seq: int | None
    ) -> None:
        numbered = (client, seq) if client and seq else ("", 0)
        taken.rejected.append(Rejected(code, detail, line, self._edge, now, *numbered))
