"""What becomes of the lines of one connection: accepted, refused, or dropped because they came before. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from wafermon.journal import Rejected, Stream
from wafermon.model.blocks import Block
from wafermon.model.messages import Kind, Message
from wafermon.net.principals import ANYBODY, Principal
from wafermon.wire.lines import LineError, LineReader, Origin

MAX_JUMP = 1_000_000
"""A `seq` further ahead than this is refused."""
MAX_REFUSED = 100
"""A block is left after so many refused lines: the replies wait in bounded memory, and so do other clients, some 2 ms."""
_SERVICE = Kind._fields.index("service")


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
        self._reader = LineReader(origin)
        self._origin = origin
        self._principal = principal
        self._stream = stream
        self._peer = peer
        self._next = stream.synced + 1 if stream else 0
        """The number of the next line, should it not say so itself."""

    def take(self, block: bytes, now: int) -> Taken:
        """`block` is whole lines, each ended by a newline; `now` the receive time in microseconds since the epoch."""
        read = self._reader.read_block(block)
        stream = self._stream
        if read is not None and self._allows(read.kinds):
            messages = read.messages
            done = Block(block, len(messages), read.kinds, read.first, read.last, messages)
            if stream is None:
                return Taken(len(block), done)
            first = stream.appended + 1
            after = first + len(messages)
            if [message.seq for message in messages] == list(range(first, after)):
                stream.appended = after - 1
                self._next = after
                return Taken(len(block), done)
        return self._take_lines(block, now)

    def _allows(self, kinds: Iterable[tuple[Any, ...]]) -> bool:
        if self._principal.services is None:
            return True
        return all(self._principal.allows(service) for service in {kind[_SERVICE] for kind in kinds})

    def _take_lines(self, block: bytes, now: int) -> Taken:
        taken = Taken(0)
        lines: list[bytes] = []
        messages: list[Message] = []
        for line in block.split(b"\n")[:-1]:
            taken.size += len(line) + 1
            try:
                stored, message = self._reader.read_line(line, now)
                if problem := self._principal.unless_allowed(message.service or ""):
                    raise LineError(self._principal.code, problem, message.client or None, message.seq or None)
            except LineError as error:
                self._refuse(taken, line, error, now)
                if len(taken.rejected) >= MAX_REFUSED:
                    break
                continue
            seq = message.seq or None
            if self._stream is None or self._settle(taken, line, seq, now):
                lines.append(stored)
                messages.append(message)
        if messages:
            taken.block = Block.of(b"\n".join([*lines, b""]), messages)
        return taken

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
