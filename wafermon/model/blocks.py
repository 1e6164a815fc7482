"""Lines, and what they have in common: what passes through the sidecar without being looked at one by one.

A block has columns beside its lines: the kind of each message, as a small number, and what was counted of each trace. They are made when
the lines are read, or are in the journal, or are found out from the messages by the first that needs them.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Collection, Container, Iterable, Iterator, Sequence
from itertools import chain, compress, groupby, islice, pairwise
from operator import ne
from typing import Any

from msgspec import Struct, UnsetType

from wafermon.model.messages import (
    OWN_SERVICE,
    Kind,
    Measured,
    Message,
    Metric,
    client_of,
    decode_all,
    kind_of,
    measured,
    trace_ids,
    trace_of,
    ts_of,
)

FOLLOWED = frozenset({"span_start", "span_end", "progress", "trace"})
"""The types of messages that say more of a trace than that they are there."""
SMALL = 64
"""A block of fewer messages is melted with its neighbours."""
FEW = 4
"""What is kept of a block beside its lines is at the most one thing for so many messages."""
Column = Sequence[int]
"""One small number for each message."""
_SERVICE, _TYPE = map(Kind._fields.index, ("service", "type"))


class Tally(Struct, gc=False):
    """What was counted of one trace in one client's stream."""

    trace_id: str | UnsetType
    """UNSET: of the messages without a trace."""
    client: str | UnsetType
    first: int
    """The least `ts`."""
    last: int
    counts: dict[tuple[Any, ...], int]
    """Messages by their kinds, in the order in which those were met. Those of one message may share it, so nobody changes it but `add`."""
    count: int
    """How many messages."""

    def add(self, first: int, last: int, kind: tuple[Any, ...], count: int) -> None:
        """Messages of a kind with these times."""
        if first < self.first:
            self.first = first
        if last > self.last:
            self.last = last
        if self.count == 1:
            self.counts = dict(self.counts)
        self.count += count
        self.counts[kind] = self.counts.get(kind, 0) + count


class Block:
    """Stored lines in order. Who needs their messages parses them, once, by asking for them."""

    __slots__ = (
        "_column",
        "_followed",
        "_kinds",
        "_lines",
        "_messages",
        "_parts",
        "_raw",
        "_table",
        "_tallies",
        "count",
        "first",
        "last",
        "size",
    )

    def __init__(
        self,
        raw: bytes | None,
        count: int,
        kinds: frozenset[tuple[Any, ...]] | None,
        first: int,
        last: int,
        messages: Sequence[Message] | None = None,
        columns: tuple[Sequence[tuple[Any, ...]], Column] | None = None,
        tallies: Sequence[Tally] | None = None,
        followed: Sequence[Message] | None = None,
    ) -> None:
        """`kinds`: None where `parts` tell them; `columns`: see `Block.columns`; `tallies`: see `Block.tallies`; `followed`: see
        `Block.followed`."""
        self._raw = raw
        self.size = len(raw or b"")
        """Of `raw`."""
        self.count = count
        self._kinds = kinds
        self.first = first
        """The least `ts`, or what none is less than, in microseconds since the epoch; 0 where there are no lines."""
        self.last = last
        """The greatest `ts`, or what none is greater than."""
        self._parts: Sequence[Block] = ()
        self._messages = messages
        self._table: Sequence[tuple[Any, ...]] = columns[0] if columns else ()
        self._column: Column | None = columns[1] if columns else None
        self._tallies = tallies
        self._followed = followed
        self._lines: list[bytes] | None = None

    @classmethod
    def of(cls, raw: bytes, messages: Sequence[Message]) -> Block:
        """Lines whose messages are known."""
        stamps = list(map(ts_of, messages)) or [0]
        table, column = numbered(list(map(kind_of, messages)))
        return cls(raw, len(messages), frozenset(table), min(stamps), max(stamps), messages, (table, column))

    @classmethod
    def parse(cls, raw: bytes) -> Block:
        """Lines of which nothing is known yet. Raises msgspec.DecodeError for what no sidecar stores."""
        return cls.of(raw, decode_all(raw.split(b"\n")[:-1]))

    @classmethod
    def join(cls, blocks: Sequence[Block]) -> Block:
        """The lines of several blocks, one after the other, which stay apart as its `parts`."""
        if len(blocks) == 1:
            return blocks[0]
        filled = [block for block in blocks if block.count]
        joined = cls(
            None,
            sum(block.count for block in blocks),
            None,
            min((block.first for block in filled), default=0),
            max((block.last for block in filled), default=0),
        )
        joined._parts = filled
        joined.size = sum(block.size for block in filled)
        return joined

    @classmethod
    def melt(cls, blocks: Sequence[Block]) -> Block:
        """The same without parts: what is looked at once for a block is looked at once for all."""
        melted = cls.join(blocks)
        if melted._parts:
            melted._kinds, melted._raw = melted.kinds, melted.raw
            melted._table, melted._column = melted.columns
            parts, melted._parts = melted._parts, ()
            if all(part._messages is not None for part in parts):
                melted._messages = list(chain.from_iterable(part.messages for part in parts))
            if all(part._followed is not None for part in parts):
                melted._followed = list(chain.from_iterable(part.followed for part in parts))
            if all(part._tallies is not None for part in parts):
                melted._tallies = list(chain.from_iterable(part.tallies() for part in parts))
        return melted

    @property
    def parts(self) -> Sequence[Block]:
        """The blocks that it was joined of. What came from one connection at once has more in common than the whole."""
        return self._parts or (self,)

    @property
    def raw(self) -> bytes:
        """The lines, each ended by a newline."""
        if self._raw is None:  # many get by without the copy
            self._raw = b"".join([block.raw for block in self._parts])
        return self._raw

    @property
    def messages(self) -> Sequence[Message]:
        """What the lines say."""
        if self._messages is None:
            self._messages = list(chain.from_iterable(part._parsed() for part in self.parts))
        return self._messages

    def _parsed(self) -> Iterable[Message]:
        return decode_all(self.lines) if self._messages is None else self._messages

    @property
    def lines(self) -> list[bytes]:
        """The lines without their newlines, one for each of `messages`."""
        return self.raw.split(b"\n")[:-1]

    @property
    def kinds(self) -> frozenset[tuple[Any, ...]]:
        """The distinct `messages.Kind`s among them, as plain tuples."""
        if self._kinds is None:  # many get by without
            self._kinds = frozenset().union(*(block.kinds for block in self._parts))
        return self._kinds

    @property
    def types(self) -> frozenset[str]:
        """The types of its messages."""
        return frozenset(kind[_TYPE] for kind in self.kinds)

    # -- columns

    @property
    def columns(self) -> tuple[Sequence[tuple[Any, ...]], Column]:
        """A table of kinds, and the index in it of each message's kind. The table may hold others too."""
        if self._column is None:
            if len(self.kinds) == 1:
                self._table, self._column = tuple(self.kinds), bytes(self.count)
            else:
                self._table, self._column = numbered(list(self.each_kind()))
        return self._table, self._column

    def each_kind(self) -> Iterator[tuple[Any, ...]]:
        """The kind of each message, in order."""
        if self._parts:
            return chain.from_iterable(part.each_kind() for part in self._parts)
        if self._column is None and len(self.kinds) != 1:
            return map(kind_of, self.messages)
        table, column = self.columns
        return map(table.__getitem__, column)

    def places(self, kinds: Container[tuple[Any, ...]]) -> list[int]:
        """The indices of the messages of these kinds."""
        table, column = self.columns
        numbers = {number for number in set(column) if table[number] in kinds}
        return list(compress(range(self.count), map(numbers.__contains__, column)))

    def at(self, places: Collection[int]) -> list[Message]:
        """The messages at these indices. No others are parsed."""
        if self._messages is not None or 2 * len(places) > self.count:
            messages = self.messages
            return [messages[place] for place in places]
        return decode_all(self.lines_at(places))

    def lines_at(self, places: Collection[int]) -> list[bytes]:
        """The lines at these indices. More may be asked for soon."""
        if not places:
            return []
        if self._lines is None:
            self._lines = self.lines
        lines = self._lines
        return [lines[place] for place in places]

    def of_types(self, types: Container[str]) -> list[Message]:
        """Its messages of these types. No others are parsed."""
        return self.of_kinds({kind for kind in self.kinds if kind[_TYPE] in types})

    def of_service(self, service: str) -> list[Message]:
        """Its messages of this service. No others are parsed."""
        return self.of_kinds({kind for kind in self.kinds if kind[_SERVICE] == service})

    def of_kinds(self, kinds: Collection[tuple[Any, ...]]) -> list[Message]:
        """Its messages of these kinds. No others are parsed."""
        return self.at(self.places(kinds)) if kinds else []

    def metrics(self) -> Sequence[Metric | Measured]:
        """Its metrics, as far as they are summed up."""
        kinds = {kind for kind in self.kinds if kind[_TYPE] == Metric.type}
        if self._messages is not None:
            return [message for message in self.of_kinds(kinds) if isinstance(message, Metric)]
        return measured(self.lines_at(self.places(kinds))) if kinds else []

    @property
    def followed(self) -> Sequence[Message]:
        """Those of spans and jobs, and summaries of traces."""
        if self._followed is None:
            if self._parts:
                self._followed = list(chain.from_iterable(part.followed for part in self._parts))
            else:
                self._followed = self.of_types(FOLLOWED)
        return self._followed

    def tallies(self) -> Sequence[Tally]:
        """What was counted of each trace and client, but for the sidecar's own messages. One may be there several times; those that
        are met first come first."""
        if self._tallies is None:
            self._tallies = self._count()
        return self._tallies

    def _count(self) -> list[Tally]:
        messages = self.messages
        keys: list[Any] = list(zip(map(trace_of, messages), map(client_of, messages), strict=True))
        table, column = self.columns
        own = {number for number in set(column) if table[number][_SERVICE] == OWN_SERVICE}
        if own:
            keys = [None if number in own else key for key, number in zip(keys, column, strict=True)]
        return tally(keys, list(map(ts_of, messages)), table, column)

    @property
    def is_counted(self) -> bool:
        """Whether `tallies` and `trace_ids` cost next to nothing."""
        return self._tallies is not None

    def trace_ids(self) -> set[str]:
        """Those of all its messages, the sidecar's own too. No message is made of a line for that."""
        if self._tallies is not None:
            own = map(trace_of, self.of_service(OWN_SERVICE))
            ids: Iterable[Any] = chain((tally.trace_id for tally in self._tallies), own)
        elif self._messages is not None:
            ids = map(trace_of, self._messages)
        else:
            ids = trace_ids(self.lines)
        return {one for one in ids if isinstance(one, str)}

    # -- parts of it

    def release(self) -> None:
        """Nobody is expected to need the messages soon. What was found out about them stays where it is small: who comes later need not
        find it out again."""
        self._messages = self._lines = None
        if self._tallies is not None and len(self._tallies) * FEW > self.count:
            self._tallies = None
        if self._followed is not None and len(self._followed) * FEW > self.count:
            self._followed = None

    def cut(self, start: int, stop: int) -> Block:
        """Its messages from index `start` to before `stop`."""
        if stop < self.count:
            return self.split(stop)[0].cut(start, stop)
        return self if start == 0 else self.split(start)[1]

    def split(self, index: int) -> tuple[Block, Block]:
        """The messages before `index`, and the others. No line is looked at, and the times of both are those of the whole."""
        rest = self.raw.split(b"\n", index)[-1] if index < self.count else b""
        head = self.raw[: len(self.raw) - len(rest)]
        return self._stretch(head, slice(index)), self._stretch(rest, slice(index, None))

    def _stretch(self, raw: bytes, which: slice) -> Block:
        table, column = self.columns
        column = column[which]
        messages = None if self._messages is None else self._messages[which]
        return self._part(raw, table, column, messages)

    def pick(self, indices: Iterable[int]) -> Block:
        """Its messages at these indices; the times are those of the whole."""
        lines, indices = self.lines, list(indices)
        raw = b"\n".join([*(lines[index] for index in indices), b""]) if indices else b""
        table, column = self.columns
        messages = None if self._messages is None else [self._messages[index] for index in indices]
        return self._part(raw, table, compact([column[index] for index in indices]), messages)

    def _part(
        self, raw: bytes, table: Sequence[tuple[Any, ...]], column: Column, messages: Sequence[Message] | None
    ) -> Block:
        kinds = frozenset(table[number] for number in set(column))
        first, last = (self.first, self.last) if len(column) else (0, 0)
        return Block(raw, len(column), kinds, first, last, messages, (table, column))


def melted(blocks: Sequence[Block]) -> list[Block]:
    """The same lines, where small neighbours have become one block: each block has a price."""
    found: list[Block] = []
    for small, some in groupby(blocks, lambda block: block.count < SMALL):
        run = list(some)
        found += [Block.melt(run)] if small else run
    return found


def numbered(kinds: Sequence[tuple[Any, ...]]) -> tuple[Sequence[tuple[Any, ...]], Column]:
    """The kind of each message -> what `Block.columns` is."""
    numbers = {kind: number for number, kind in enumerate(dict.fromkeys(kinds))}
    return list(numbers), compact(list(map(numbers.__getitem__, kinds)))


def compact(numbers: Sequence[int]) -> Column:
    """The same in less memory."""
    try:
        return bytes(numbers)
    except ValueError:
        return array("I", numbers)


def tally(keys: Sequence[Any], stamps: Sequence[int], table: Sequence[tuple[Any, ...]], column: Column) -> list[Tally]:
    """For each message its trace and client (or None, where it does not count), its `ts`, and what `Block.columns` is -> what was
    counted of each of these pairs. Neighbours of one are looked at together."""
    if not keys:
        return []
    count = len(keys)
    changes = list(compress(range(1, count), map(ne, keys, islice(keys, 1, None))))
    found: dict[Any, Tally] = {}
    ones: dict[int, dict[tuple[Any, ...], int]] = {}
    if len(changes) * 4 > count:
        for key, ts, number in zip(keys, stamps, column, strict=True):
            known = found.get(key)
            if known is not None:
                known.add(ts, ts, table[number], 1)
            elif key is not None:
                one = ones.get(number)
                if one is None:
                    one = ones[number] = {table[number]: 1}
                found[key] = Tally(key[0], key[1], ts, ts, one, 1)
        return list(found.values())
    for start, stop in pairwise([0, *changes, count]):
        key = keys[start]
        if key is None:
            continue
        some = stamps[start:stop]
        known = found.get(key)
        if known is None:
            known = found[key] = Tally(key[0], key[1], some[0], some[0], {}, 0)
        first, last = min(some), max(some)
        for number, many in Counter(column[start:stop]).items():
            known.add(first, last, table[number], many)
    return list(found.values())
