"""What becomes of the lines of one connection: accepted, refused, or dropped because they came before. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from wafermon.journal import Rejected, Stream
from wafermon.model.blocks import Block
from wafermon.net.principals import ANYBODY, Principal
from wafermon.wire.lines import LineError, Origin
from wafermon.wire.reader import ReadBlock
from wafermon.wire.scanned import reader

MAX_JUMP = 1_000_000
"""A `seq` further ahead than this is refused."""
MAX_REFUSED = 100
"""A block is left after so many refused lines: the replies wait in bounded memory, and so do other clients, some 2 ms."""


class Reply(NamedTuple):
    """An error to send once the line is durable among the rejected."""

    seq: int | None
    code: str
    detail: str


@dataclass(slots=True)
class Taken:
    """What `Deduplicator.take` made of the first `size` bytes of a block."""

    size: int
    block: Block | None = None
    rejected: list[Rejected] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    duplicates: int = 0
    gaps: int = 0
    """Numbers that were left out."""


class Deduplicator:
    """Reads blocks of whole lines and moves the stream's appended mark over them."""

    def __init__(self, origin: Origin, stream: Stream | None, peer: str, principal: Principal = ANYBODY) -> None:
        self._reader = reader(origin, self._unless_allowed if principal.services is not None else None)
        self._origin = origin
        self._principal = principal
        self._stream = stream
        self._peer = peer
        self._next = stream.synced + 1 if stream else 0
        """The number of the next line, should it not say so itself."""

    def take(self, block: bytes, now: int) -> Taken:
        """`block` is whole lines, each ended by a newline; `now` the receive time in microseconds since the epoch."""
        read = self._reader.read(block, now, MAX_REFUSED)
        taken = Taken(read.size)
        stream, kept = self._stream, read.block
        if stream is None:
            for line, error in read.refused.values():
                self._refuse(taken, line, error, now)
        elif self._in_order(read):
            before = stream.appended
            for at, (line, error) in read.refused.items():
                self._reject(taken, line, error.code, error.detail, now, before + at + 1, numbered=True)
            stream.appended = before + kept.count + len(read.refused)
            self._next = stream.appended + 1
        else:
            kept = self._settle_each(taken, block.split(b"\n"), read, now)
        if kept.count:
            taken.block = kept
        return taken

    def _in_order(self, read: ReadBlock) -> bool:
        """Whether each line has the number after that of the one before; one whose number can't be read has it."""
        stream = self._stream
        assert stream is not None
        first = stream.appended + 1
        expected = range(first, first + read.block.count + len(read.refused))
        if read.numbers == expected:
            return True
        if 0 in read.refused and self._next != first:
            return False
        for at, (_, error) in read.refused.items():
            if error.client not in (None, stream.client) or error.seq not in (None, first + at):
                return False
        wanted = (
            [first + at for at in range(len(expected)) if at not in read.refused] if read.refused else list(expected)
        )
        return list(read.numbers) == wanted

    def _settle_each(self, taken: Taken, lines: Sequence[bytes], read: ReadBlock, now: int) -> Block:
        """The good lines that were not there before; `lines` is all of them as they came."""
        good, refused = read.block, read.refused
        kept = list[int]()
        numbers = enumerate(read.numbers)
        for at in range(good.count + len(refused)):
            if at in refused:
                self._refuse(taken, *refused[at], now)
                continue
            index, seq = next(numbers)
            if self._settle(taken, lines[at], seq or None, now):
                kept.append(index)
        return good if len(kept) == good.count else good.pick(kept)

    def _unless_allowed(self, service: str) -> tuple[str, str] | None:
        problem = self._principal.unless_allowed(service)
        return (self._principal.code, problem) if problem else None

    def refuse(self, line: bytes, error: LineError, now: int) -> Taken:
        """Take a line that was never read because of its length."""
        taken = Taken(0)
        self._refuse(taken, line, error, now)
        return taken

    def _refuse(self, taken: Taken, line: bytes, error: LineError, now: int) -> None:
        stream = self._stream
        seq = error.seq
        foreign = stream is not None and error.client not in (None, stream.client)
        if stream is None or foreign:
            # Another stream's number says nothing of this one's.
            self._reject(taken, line, error.code, error.detail, now, seq, numbered=False)
        elif self._settle(taken, line, seq, now):
            self._reject(
                taken,
                line,
                error.code,
                error.detail,
                now,
                stream.appended,
                numbered=True,
            )

    def _settle(self, taken: Taken, line: bytes, seq: int | None, now: int) -> bool:
        """Move the mark to `seq`; False where this line is a duplicate or jumps too far."""
        stream = self._stream
        assert stream is not None
        if seq is None:
            seq = self._next
        if seq <= stream.appended:
            self._next = seq + 1
            taken.duplicates += 1
            return False
        jump = seq - stream.appended
        if jump > MAX_JUMP:
            detail = f"seq: {seq} is {jump} ahead of what came before; at most {MAX_JUMP} is taken for a gap"
            self._reject(taken, line, "bad_message", detail, now, seq, numbered=False)
            return False
        self._next = seq + 1
        taken.gaps += jump - 1
        stream.appended = seq
        return True

    def _reject(
        self,
        taken: Taken,
        line: bytes,
        code: str,
        detail: str,
        now: int,
        seq: int | None,
        *,
        numbered: bool,
    ) -> None:
        stream = self._stream
        client, number = (stream.client, seq) if stream is not None and numbered and seq else ("", 0)
        origin = self._origin
        pid = max(origin.pid, 0)
        one = Rejected(code, detail, line, self._peer, now, client, number, origin.service, origin.host, pid)
        taken.rejected.append(one)
        taken.replies.append(Reply(seq, code, detail))
