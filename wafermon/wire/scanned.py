"""The same as `wafermon.wire.reader` by a scanner in C, which is done without where it was not built.

The scanner judges lines and makes columns of them; no message is made of a line for that. Lines that it calls odd are read by
the `BlockReader`: those that are bad, and the few lawful ones that it does not understand. So the answers are the same.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Collection, Iterable, Sequence
from collections.abc import Set as AbstractSet
from operator import itemgetter
from typing import Any, NamedTuple

from msgspec import UNSET

from wafermon.model.blocks import Block, Tally, compact
from wafermon.model.messages import OWN_SERVICE, Kind, Message, Progress, kind_of
from wafermon.wire.lines import Origin, decode_wire
from wafermon.wire.reader import ALL, BlockReader, ReadBlock, allowed, with_trace
from wafermon.wire.shapes import Allows, Shapes, prefix

PURE = "WAFERMON_PURE"
"""The environment's variable that does without the scanner, where it is not empty."""
MAX_SHAPES = 4096
"""The scanner learns no more than so many."""


_SERVICE = Kind._fields.index("service")
_CLIENT = 3
"""The place of the client in a shape."""


def compiled() -> Any:
    """The scanner's class; None where it was not built, or is not wanted."""
    if os.environ.get(PURE):
        return None
    try:
        from wafermon.wire._scan import Scanner
    except ImportError:
        return None
    return Scanner


def reader(origin: Origin, unless_allowed: Allows | None = None) -> BlockReader | ScannedReader:
    """Whichever there is."""
    scanner = compiled()
    return BlockReader(origin, unless_allowed) if scanner is None else ScannedReader(scanner, origin, unless_allowed)


class ScannedReader:
    """Reads the lines of one connection."""

    def __init__(self, scanner: Any, origin: Origin, unless_allowed: Allows | None = None) -> None:
        self.origin = origin
        self._new_scanner = scanner
        self._unless_allowed = unless_allowed or allowed
        self._others = BlockReader(origin, unless_allowed)
        self._begin()

    def _begin(self) -> None:
        self._scanner = self._new_scanner(UNSET, int.from_bytes(os.urandom(8), "big"))
        self._shapes = Shapes(self.origin, self._unless_allowed)

    def read(self, block: bytes, now: int, most: int = ALL) -> ReadBlock:
        """See `BlockReader.read`."""
        if len(self._shapes.table) >= MAX_SHAPES:
            self._begin()
        scanned = Scanned(*self._scanner.scan(block, now))
        if 2 * len(scanned.odd) > scanned.lines:
            return self._others.read(block, now, most)
        shapes = self._shapes
        for shape in self._scanner.shapes[len(shapes.table) :]:
            shapes.learn(shape)
        column = array("H", scanned.column)
        used = set(column)
        unusual = used & shapes.unusual
        seqs = _seqs(scanned)
        odd = self._more_odd(scanned, column, unusual, seqs)
        if odd is not None:
            return self._with_odd(block, scanned, column, seqs, odd, now, most)
        done = block
        if unusual or scanned.untimed or scanned.jobless:
            done = self._completed(block, column, scanned, (), now)
        kinds = frozenset(shapes.table[number] for number in used)
        _, tallies = _tallies(scanned, self._scanner.shapes, shapes.table)
        columns = shapes.table, compact(column.tolist())
        good = Block(done, scanned.lines, kinds, scanned.first, scanned.last, None, columns, tallies)
        return ReadBlock(len(block), good, seqs, {})

    def _more_odd(
        self, scanned: Scanned, column: Sequence[int], unusual: AbstractSet[int], seqs: Sequence[int]
    ) -> list[int] | None:
        """All lines that are to be read by the other reader; None where there is none."""
        wrong = {number for number in unusual if self._shapes.facts[number].odd}
        odd = set(scanned.odd)
        if wrong:
            odd.update(at for at, number in enumerate(column) if number in wrong)
        if self.origin.numbered and not isinstance(seqs, range):
            odd.update(at for at, seq in enumerate(seqs) if not seq)
        return sorted(odd) if odd else None

    # -- lines that are not stored as they came

    def _completed(self, block: bytes, column: array[int], scanned: Scanned, odd: Collection[int], now: int) -> bytes:
        """The lines with what they lack, but for the odd ones."""
        untimed = len(scanned.untimed)
        prefixes = self._prefixes(set(column), {"ts": now} if untimed == scanned.lines else {})
        which = array("I", column)
        if odd or scanned.jobless or 0 < untimed < scanned.lines:
            if untimed < scanned.lines:
                for at in scanned.untimed:
                    which[at] += len(self._shapes.facts)
                prefixes += self._prefixes(set(column), {"ts": now})
            lines = block.split(b"\n")
            for at in scanned.jobless:
                message = decode_wire(lines[at])
                assert isinstance(message, Progress)  # no other type has a job
                prefixes.append(with_trace(prefixes[which[at]], message.job_id))
                which[at] = len(prefixes) - 1
            prefixes.append(b"")
            for at in odd:
                which[at] = len(prefixes) - 1
        return self._scanner.splice(block, which.tobytes(), prefixes)  # type: ignore[no-any-return]

    def _prefixes(self, used: Iterable[int], more: dict[str, Any]) -> list[bytes]:
        """What goes before the lines of each shape, with `more` in it; nothing for those that are not used."""
        prefixes, made = [b""] * len(self._shapes.facts), dict[tuple[Any, ...], bytes]()
        for number in used:
            added = self._shapes.facts[number].added
            key = tuple(added.items())
            if key not in made:
                made[key] = prefix({**added, **more})
            prefixes[number] = made[key]
        return prefixes

    # -- lines that the other reader has to read

    def _with_odd(
        self,
        block: bytes,
        scanned: Scanned,
        column: array[int],
        seqs: Sequence[int],
        odd: Sequence[int],
        now: int,
        most: int,
    ) -> ReadBlock:
        lines = block.split(b"\n")[:-1]
        read = self._others.read(b"\n".join([*(lines[at] for at in odd), b""]), now, most)
        count = read.block.count + len(read.refused)
        if count < len(odd):  # it stopped; so this stops there
            return self.read(b"\n".join([*lines[: odd[count - 1] + 1], b""]), now, most)
        refused = {odd[place]: one for place, one in read.refused.items()}
        taken = [at for place, at in enumerate(odd) if place not in read.refused]
        stored = self._completed(block, column, scanned, odd, now).split(b"\n")[:-1]
        numbers, all_seqs = list(column), list(seqs)
        table, others = read.block.columns
        shift = len(self._shapes.table)
        for at, line, number, seq in zip(taken, read.block.lines, others, read.numbers, strict=True):
            stored[at], numbers[at], all_seqs[at] = line, number + shift, seq
        if refused:
            good = [at for at in range(len(lines)) if at not in refused]
            stored = [stored[at] for at in good]
            numbers = [numbers[at] for at in good]
            all_seqs = [all_seqs[at] for at in good]
        table = [*self._shapes.table, *table]
        kinds = frozenset(table[number] for number in set(numbers))
        tallies = None
        own = any(kind[_SERVICE] == OWN_SERVICE for kind in read.block.kinds)
        if (
            len(odd) == len(scanned.odd) and not own
        ):  # else the scanner has counted some of them, or none are to be counted
            tallies = _merged(
                *_tallies(scanned, self._scanner.shapes, self._shapes.table),
                zip(taken, read.block.messages, strict=True),
            )
        raw = b"\n".join([*stored, b""]) if stored else b""
        stamps = [read.block.first, read.block.last] if read.block.count else []
        first, last = min([scanned.first, *stamps]), max([scanned.last, *stamps])
        done = Block(raw, len(stored), kinds, first, last, None, (table, compact(numbers)), tallies)
        return ReadBlock(len(block), done if stored else Block.of(b"", []), all_seqs, refused)


class Scanned(NamedTuple):
    """What the scanner answers with."""

    lines: int
    column: bytes
    """For each line the number of its shape, in two bytes."""
    seqs: bytes | tuple[int]
    """For each its `seq`, in eight bytes; or the first, where each is one more than the one before."""
    first: int
    last: int
    traces: list[tuple[int, str, int, int, int | list[tuple[int, int]]]]
    """For each trace and client: where it was met, its id (empty where there is none), the least and the greatest `ts`, and the shape of its only message, or how
    many there are of each."""
    untimed: list[int]
    jobless: list[int]
    odd: list[int]
    """Lines of which nothing else is known."""


def _seqs(scanned: Scanned) -> Sequence[int]:
    if isinstance(scanned.seqs, tuple):
        return range(scanned.seqs[0], scanned.seqs[0] + scanned.lines)
    return array("q", scanned.seqs)


def _tallies(
    scanned: Scanned, shapes: Sequence[tuple[Any, ...]], table: Sequence[tuple[Any, ...]]
) -> tuple[list[int], list[Tally]]:
    """With the line where each was met before it. `shapes` is the scanner's, `table` the kinds of its numbers."""
    lines, found = list[int](), list[Tally]()
    ones: dict[int, dict[tuple[Any, ...], int]] = {}
    for line, trace_id, first, last, counted in scanned.traces:
        if isinstance(counted, int):
            one = ones.get(counted)
            if one is None:
                one = ones[counted] = {table[counted]: 1}
            lines.append(line)
            found.append(Tally(trace_id or UNSET, shapes[counted][_CLIENT], first, last, one, 1))
            continue
        one_of_many = Tally(trace_id or UNSET, shapes[counted[0][0]][_CLIENT], first, last, {}, 0)
        for number, many in counted:
            one_of_many.add(first, last, table[number], many)
        lines.append(line)
        found.append(one_of_many)
    return lines, found


def _merged(lines: Sequence[int], tallies: Sequence[Tally], others: Iterable[tuple[int, Message]]) -> list[Tally]:
    """With more messages; those that are met first come first."""
    found = {(tally.trace_id, tally.client): (line, tally) for line, tally in zip(lines, tallies, strict=True)}
    for line, message in others:
        key, ts = (message.trace_id, message.client), message.ts or 0
        where, tally = found.get(key) or (line, Tally(*key, ts, ts, {}, 0))
        tally.add(ts, ts, kind_of(message), 1)
        found[key] = min(where, line), tally
    return [tally for _, tally in sorted(found.values(), key=itemgetter(0))]
