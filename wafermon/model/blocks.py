"""Lines, and what they have in common: what passes through the sidecar without being looked at one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from wafermon.model.messages import Message, decode_stored, kind_of, ts_of


class Block:
    """Stored lines in order. Who needs their messages parses them, once, by asking for them."""

    __slots__ = ("_messages", "_parts", "count", "first", "kinds", "last", "raw")

    def __init__(
        self,
        raw: bytes,
        count: int,
        kinds: frozenset[tuple[Any, ...]],
        first: int,
        last: int,
        messages: Sequence[Message] | None = None,
    ) -> None:
        self.raw = raw
        """The lines, each ended by a newline."""
        self.count = count
        self.kinds = kinds
        """The distinct `messages.Kind`s among them, as plain tuples."""
        self.first = first
        """The least `ts`, or what none is less than, in microseconds since the epoch; 0 where there are no lines."""
        self.last = last
        """The greatest `ts`, or what none is greater than."""
        self._parts: Sequence[Block] = ()
        self._messages = messages

    @classmethod
    def of(cls, raw: bytes, messages: Sequence[Message], kinds: frozenset[tuple[Any, ...]] | None = None) -> Block:
        """Lines whose messages (and their kinds) are known."""
        stamps = list(map(ts_of, messages)) or [0]
        kinds = frozenset(map(kind_of, messages)) if kinds is None else kinds
        return cls(raw, len(messages), kinds, min(stamps), max(stamps), messages)

    @classmethod
    def parse(cls, raw: bytes) -> Block:
        """Lines of which nothing is known yet. Raises msgspec.DecodeError for what no sidecar stores."""
        return cls.of(raw, list(map(decode_stored, raw.split(b"\n")[:-1])))

    @classmethod
    def join(cls, blocks: Sequence[Block]) -> Block:
        """The lines of several blocks, one after the other."""
        if len(blocks) == 1:
            return blocks[0]
        filled = [block for block in blocks if block.count]
        joined = cls(
            b"".join([block.raw for block in blocks]),
            sum(block.count for block in blocks),
            frozenset().union(*(block.kinds for block in blocks)),
            min((block.first for block in filled), default=0),
            max((block.last for block in filled), default=0),
        )
        joined._parts = filled
        return joined

    @property
    def parts(self) -> Sequence[Block]:
        """The blocks that it was joined of. What came from one connection at once has more in common than the whole."""
        return self._parts or (self,)

    @property
    def messages(self) -> Sequence[Message]:
        """What the lines say."""
        if self._messages is None:
            self._messages = list(map(decode_stored, self.raw.split(b"\n")[:-1]))
        return self._messages

    @property
    def lines(self) -> list[bytes]:
        """The lines without their newlines, one for each of `messages`."""
        return self.raw.split(b"\n")[:-1]

    def each_kind(self) -> Iterator[tuple[Any, ...]]:
        """The kind of each message, in order."""
        return map(kind_of, self.messages)

    def release(self) -> None:
        """Nobody is expected to need the messages soon."""
        self._messages = None

    def cut(self, start: int, stop: int) -> Block:
        """Its messages from index `start` to before `stop`."""
        return self if start == 0 and stop >= self.count else self.pick(range(start, min(stop, self.count)))

    def split(self, index: int) -> tuple[Block, Block]:
        """The messages before `index`, and the others. Where all are of one kind no line is looked at, and the times of
        both are those of the whole."""
        if len(self.kinds) > 1:
            return self.cut(0, index), self.cut(index, self.count)
        rest = self.raw.split(b"\n", index)[-1]
        head = self.raw[: len(self.raw) - len(rest)]
        return (
            Block(head, index, self.kinds, self.first, self.last),
            Block(rest, self.count - index, self.kinds, self.first, self.last),
        )

    def pick(self, indices: Iterable[int]) -> Block:
        """Its messages at these indices."""
        lines, messages, indices = self.lines, self.messages, list(indices)
        raw = b"\n".join([*(lines[index] for index in indices), b""]) if indices else b""
        return Block.of(raw, [messages[index] for index in indices])
