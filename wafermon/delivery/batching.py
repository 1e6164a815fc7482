"""Journal groups -> batches for one backend. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from wafermon.journal import Group
from wafermon.model.batch import Batch
from wafermon.model.blocks import Block
from wafermon.model.position import Position
from wafermon.model.settings import BatchLimits
from wafermon.routing import Table


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of one group's lines, from `start` to `end`, and those among them that are for this backend."""

    start: Position
    end: Position
    block: Block
    chosen: Sequence[int] | None
    """The indices of the messages for this backend; None where all are."""
    time: int = 0
    """When the group was received, in microseconds since the epoch."""

    @property
    def count(self) -> int:
        return self.block.count if self.chosen is None else len(self.chosen)

    def selected(self) -> Block:
        """The chosen lines."""
        return self.block if self.chosen is None else self.block.pick(self.chosen)

    def positions(self) -> list[Position]:
        """Where each chosen line stands."""
        lines = self.block.raw.split(b"\n")[:-1]
        starts = accumulate((len(line) + 1 for line in lines), initial=self.start.offset)
        places = [self.start._replace(offset=offset) for offset in starts]
        return places[:-1] if self.chosen is None else [places[index] for index in self.chosen]

    def cut(self, count: int) -> tuple[Piece, Piece]:
        """Its first `count` chosen messages, and the rest."""
        at = count if self.chosen is None else self.chosen[count]
        first, second = self.block.split(at)
        middle = self.start._replace(offset=self.start.offset + first.size)
        if self.chosen is None:
            return replace(self, end=middle, block=first), replace(self, start=middle, block=second)
        rest = [index - at for index in self.chosen[count:]]
        return (
            replace(self, end=middle, block=first, chosen=self.chosen[:count]),
            replace(self, start=middle, block=second, chosen=rest),
        )


@dataclass(frozen=True)
class Gathered:
    """A batch, and what it was made of."""

    start: Position
    end: Position
    pieces: Sequence[Piece]

    @property
    def count(self) -> int:
        return sum(piece.count for piece in self.pieces)

    def batch(self) -> Batch:
        return Batch(
            self.start,
            self.end,
            Block.join([piece.selected() for piece in self.pieces]),
            (self.pieces[0].time, self.pieces[-1].time) if self.pieces else (0, 0),
            self.positions,
        )

    def positions(self) -> list[Position]:
        """Where each message stands."""
        return [position for piece in self.pieces for position in piece.positions()]

    def empty(self) -> Gathered:
        """The same stretch with nothing in it."""
        return Gathered(self.start, self.end, [])

    def divide(self, indices: Collection[int]) -> tuple[Gathered, Gathered]:
        """The same stretch with the messages of these indices alone, and with all others."""
        chosen, rest = list[Piece](), list[Piece]()
        first = 0
        for piece in self.pieces:
            places = range(piece.block.count) if piece.chosen is None else piece.chosen
            mine = [place for index, place in enumerate(places, first) if index in indices]
            others = [place for index, place in enumerate(places, first) if index not in indices]
            chosen += [replace(piece, chosen=mine)] if mine else []
            rest += [replace(piece, chosen=others) if mine else piece] if others else []
            first += piece.count
        return Gathered(self.start, self.end, chosen), Gathered(self.start, self.end, rest)

    def halves(self) -> tuple[Gathered, Gathered]:
        """The two halves of two messages or more."""
        half = self.count // 2
        first: list[Piece] = []
        rest = deque(self.pieces)
        while half:
            piece = rest.popleft()
            if piece.count > half:
                piece, other = piece.cut(half)
                rest.appendleft(other)
            first.append(piece)
            half -= piece.count
        middle = rest[0].start
        return Gathered(self.start, middle, first), Gathered(middle, self.end, list(rest))


def select(start: Position, block: Block, table: Table, backend: str, time: int) -> Piece | None:
    """What of a block that stands at `start` and was received at `time` goes to a backend."""
    end = start._replace(offset=start.offset + block.size)
    goes = {way is not None and backend in way for way in table.ways(block.kinds)}
    if goes == {False}:
        return None
    if False not in goes:
        return Piece(start, end, block, None, time)
    wanted = set(filter(table.going(backend), block.kinds))
    return Piece(start, end, block, block.places(wanted), time)


class Gatherer:
    """Collects what one backend is to get, in order, until a batch is full."""

    def __init__(self, backend: str, limits: BatchLimits, position: Position) -> None:
        self._backend = backend
        self._limits = limits
        self._pieces: deque[Piece] = deque()
        self._count = 0
        self._bytes = 0
        self._start = position
        self._through = position

    @property
    def count(self) -> int:
        """The messages that wait."""
        return self._count

    @property
    def oldest(self) -> Piece | None:
        """The first that waits."""
        return self._pieces[0] if self._pieces else None

    @property
    def full(self) -> bool:
        limits = self._limits
        return 0 < limits.messages <= self._count or 0 < limits.bytes <= self._bytes

    @property
    def crossed(self) -> bool:
        """Whether nothing waits, but the journal's segment is another one by now."""
        return not self._pieces and self._through.segment != self._start.segment

    @property
    def moved(self) -> bool:
        """Whether there is anything to write, be it only a position."""
        return self._through != self._start

    def add(self, group: Group, table: Table) -> None:
        for offset, block in group.blocks:
            piece = select(group.start._replace(offset=offset), block, table, self._backend, group.time)
            if piece is not None:
                self._pieces.append(piece)
                self._count += piece.count
                self._bytes += piece.block.size
        self._through = group.end

    def take(self) -> Gathered:
        """As much as a batch may hold, which is nothing but a position where nothing is for this backend."""
        limits = self._limits
        pieces: list[Piece] = []
        count = size = 0
        while self._pieces and not (limits.bytes and size >= limits.bytes):
            piece = self._pieces.popleft()
            room = limits.messages - count if limits.messages else piece.count
            if piece.count > room:
                if not room:
                    self._pieces.appendleft(piece)
                    break
                piece, rest = piece.cut(room)
                self._pieces.appendleft(rest)
            pieces.append(piece)
            count += piece.count
            size += piece.block.size
        self._count -= count
        self._bytes -= size
        end = self._pieces[0].start if self._pieces else self._through
        gathered = Gathered(self._start, end, pieces)
        self._start = end
        return gathered
