"""Blocks of lines -> checked messages, column by column.

What the lines of a block have in common is looked at once for all of them. A line of which anything is odd is read by itself, by
`LineReader`, which knows the exact reason; the others are not touched by that. So each line has the answer that it
has when it comes alone, and costs the same whatever its neighbours are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import repeat
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET

from wafermon.model.blocks import FOLLOWED, Block, compact, tally
from wafermon.model.messages import (
    MAX_NESTING,
    SPAN_ID,
    TRACE_ID,
    Kind,
    Message,
    Progress,
    SpanEnd,
    SpanStart,
    client_of,
    seq_of,
    trace_of,
    ts_of,
)
from wafermon.wire.lines import WITH_IDS, LineError, LineReader, Origin, decode_wire, wrong_id
from wafermon.wire.shapes import Allows, Shapes, prefix, shape_of, splice

ALL = 1 << 60
"""More errors than a block can have."""


class Refused(NamedTuple):
    """A bad line."""

    line: bytes
    """As it came, without its newline."""
    error: LineError


class ReadBlock(NamedTuple):
    """What the lines of a block say, up to where reading stopped."""

    size: int
    """Their bytes, with the newlines."""
    block: Block
    """The good ones, as they are to be stored."""
    numbers: Sequence[Any]
    """The `seq` of each of those; UNSET or 0 where it has none."""
    refused: Mapping[int, Refused]
    """The others, by their place among all."""


class BlockReader:
    """Reads the lines of one connection."""

    def __init__(self, origin: Origin, unless_allowed: Allows | None = None) -> None:
        self.origin = origin
        self._one = LineReader(origin)
        self._unless_allowed = unless_allowed or allowed
        self._begin()

    def _begin(self) -> None:
        self._numbers: dict[tuple[Any, ...], int] = {}
        self._shapes = Shapes(self.origin, self._unless_allowed)

    def read(self, block: bytes, now: int, most: int = ALL) -> ReadBlock:
        """`block` is whole lines, each ended by one newline; `now` (microseconds since the epoch) is the `ts` of those without.
        Reading stops after the line with the error number `most`, which is 1 or more."""
        lines = block.split(b"\n")
        lines.pop()
        messages, odd = _decode(lines, most)
        if len(messages) < len(lines):
            del lines[len(messages) :]
            block = b"\n".join([*lines, b""])
        if len(odd) == len(lines):
            return self._one_by_one(lines, lines.copy(), messages, odd, now, most)
        odd.update(_suspicious(block, lines))
        column = self._column(messages)
        used = set(column)
        facts, table = self._shapes.facts, self._shapes.table
        unusual = used & self._shapes.unusual
        odd.update(_places(column, {number for number in unusual if facts[number].odd}))
        traces = list(map(trace_of, messages))
        types = {table[number][_TYPE] for number in used}
        followed = [] if types.isdisjoint(FOLLOWED) else [one for one in messages if type(one) in WITH_IDS]
        odd.update(_with_wrong_ids(messages, followed, set(traces)))
        numbers = list(map(seq_of, messages))
        if self.origin.numbered and _any_unset(numbers):
            odd.update(at for at, number in enumerate(numbers) if number is UNSET)
        stamps = list(map(ts_of, messages))
        untraced = "progress" in types and UNSET in traces and any(one.trace_id is UNSET for one in followed)
        incomplete = unusual or _any_unset(stamps) or untraced
        done = block
        if (
            incomplete
            and not odd
            and not untraced
            and (done := self._complete_alike(lines, followed, used, stamps, now))
        ):
            incomplete = False
            if stamps[0] is UNSET:  # and so are all
                stamps = [now] * len(lines)
        if not odd and not incomplete:
            kinds = frozenset(table[number] for number in used)
            columns = table, compact(column)
            clients = {self._shapes.clients[number] for number in used}
            of_each = repeat(next(iter(clients))) if len(clients) == 1 else map(client_of, messages)
            tallies = tally(list(zip(traces, of_each, strict=False)), stamps, *columns)
            # Most others are asked for by nobody. Who wants them parses them; they are gone while they are still in the processor's cache.
            good = Block(done, len(lines), kinds, min(stamps), max(stamps), None, columns, tallies, followed)
            return ReadBlock(len(block), good, numbers, {})
        stored = lines.copy()
        if incomplete:
            self._complete(stored, messages, column, odd, now)
        return self._one_by_one(lines, stored, messages, odd, now, most)

    # -- what lines have in common

    def _column(self, messages: Sequence[Message]) -> list[int]:
        """The number of each message's shape."""
        try:
            return list(map(self._numbers.__getitem__, map(shape_of, messages)))
        except KeyError:
            pass
        if len(self._numbers) >= KNOWN_SHAPES:
            self._begin()
        shapes = list(map(shape_of, messages))
        for shape in dict.fromkeys(shapes):
            if shape not in self._numbers:
                self._numbers[shape] = self._shapes.learn(shape)
        return list(map(self._numbers.__getitem__, shapes))

    # -- lines that are not stored as they came

    def _complete_alike(
        self,
        lines: Sequence[bytes],
        messages: Sequence[Any],
        used: AbstractSet[int],
        stamps: Sequence[Any],
        now: int,
    ) -> bytes:
        """All lines, where all lack the same, which is set in these messages of theirs; nothing where they don't."""
        first, *others = (self._shapes.facts[number].added for number in used)
        untimed = stamps.count(UNSET)
        rests = [line[1:] for line in lines if line[0] == _BRACE]
        if any(one != first for one in others) or untimed not in (0, len(lines)) or len(rests) < len(lines):
            return b""
        added = {**first, "ts": now} if untimed else first
        if not added:
            return b""
        for name, value in added.items():
            for message in messages:
                setattr(message, name, value)
        before = prefix(added)
        return b"".join([before, (b"\n" + before).join(rests), b"\n"])

    def _complete(
        self, stored: list[bytes], messages: Sequence[Any], column: Sequence[int], odd: AbstractSet[int], now: int
    ) -> None:
        """Splice what is missing in front of the lines, and set it in their messages."""
        prefixes: dict[tuple[int, bool], bytes] = {}
        for at, (number, message, line) in enumerate(zip(column, messages, stored, strict=True)):
            if at in odd:
                continue
            added, untimed = self._shapes.facts[number].added, message.ts is UNSET
            before = prefixes.get((number, untimed))
            if before is None:
                before = prefixes[number, untimed] = prefix({**added, "ts": now} if untimed else added)
            for name, value in added.items():
                setattr(message, name, value)
            if untimed:
                message.ts = now
            if message.trace_id is UNSET and type(message) is Progress:
                message.trace_id = message.job_id
                before = with_trace(before, message.job_id)
            stored[at] = splice(before, line)

    def _one_by_one(
        self, lines: list[bytes], stored: list[bytes], messages: list[Any], odd: AbstractSet[int], now: int, most: int
    ) -> ReadBlock:
        """Read the odd lines, each by itself."""
        refused: dict[int, Refused] = {}
        for at in sorted(odd):
            try:
                stored[at], messages[at] = self._read_line(lines[at], now)
            except LineError as error:
                refused[at] = Refused(lines[at], error)
                if len(refused) == most:
                    del lines[at + 1 :], stored[at + 1 :], messages[at + 1 :]
                    break
        if refused:
            stored = [line for at, line in enumerate(stored) if at not in refused]
            messages = [message for at, message in enumerate(messages) if at not in refused]
        good = Block.of(b"\n".join([*stored, b""]) if stored else b"", messages)
        return ReadBlock(sum(map(len, lines)) + len(lines), good, list(map(seq_of, messages)), refused)

    def _read_line(self, line: bytes, now: int) -> tuple[bytes, Message]:
        stored, message = self._one.read_line(line, now)
        if problem := self._unless_allowed(message.service or ""):
            raise LineError(*problem, message.client or None, message.seq or None)
        return stored, message


KNOWN_SHAPES = 4096
_span_of: Callable[[Message], Any] = attrgetter("span_id")
_parent_of: Callable[[Any], Any] = attrgetter("parent_id")
_OPENERS = bytes(range(256))
_BRACE = ord("{")
_NOT_OPENERS = bytes(c for c in range(256) if c not in b"{[\n")
_TYPE = Kind._fields.index("type")
_PRINTABLE = re.compile("[!-~]*")
_SPANS = frozenset({SpanStart, SpanEnd})
_FEW_DIGITS = 200
"""A number of fewer digits is no greater than a float can be, as long as its exponent has two."""


def _number_signs() -> bytes:
    """Makes large exponents look alike, see `_large_numbers`."""
    table = bytearray(range(256))
    for digit in b"0123456789+":
        table[digit] = ord("0")
    for end in b",}] \t\r\n":
        table[end] = ord(",")
    table[ord("E")] = ord("e")
    return bytes(table)


_NUMBER_SIGNS = _number_signs()
_LARGE_EXPONENT = re.compile(rb"e000+,")
_MANY_DIGITS = b"0" * _FEW_DIGITS


def allowed(service: str) -> None:
    """Any service may."""


def with_trace(before: bytes, trace_id: str) -> bytes:
    """A `prefix` that names a trace, too."""
    return (before or b"{") + prefix({"trace_id": trace_id})[1:]


def _decode(lines: Sequence[bytes], most: int) -> tuple[list[Any], set[int]]:
    """Their messages, and the indices of lines that have none: another's message stands in their place, so that the columns of
    all are of one length. After more than `most` of those it stops, and answers with fewer messages than lines."""
    messages: list[Any] = []
    odd: set[int] = set()
    decoded = map(decode_wire, lines)
    while True:
        try:
            messages.extend(decoded)  # it keeps what it had before one raises, and goes on after that one
            break
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            odd.add(len(messages))
            messages.append(None)
            if len(odd) > most:
                break
    if odd:
        filler = next((message for message in messages if message is not None), None)
        for at in odd:
            messages[at] = filler
    return messages, odd


def _suspicious(block: bytes, lines: Sequence[bytes]) -> Iterator[int]:
    """The lines that may hold what the decoder does not look at: deep nesting; and in unknown fields invalid
    UTF-8, NUL, and numbers out of range."""
    nesting = block.translate(_OPENERS, _NOT_OPENERS).split(b"\n")
    if len(max(nesting, key=len)) > MAX_NESTING + 1:
        yield from (at for at, openers in enumerate(nesting) if len(openers) > MAX_NESTING + 1)
    if b"\\" in block and b"\\u0000" in block:
        yield from (at for at, line in enumerate(lines) if b"\\u0000" in line)
    if not block.isascii() and not _is_utf8(block):
        yield from (at for at, line in enumerate(lines) if not _is_utf8(line))
    if _large_numbers(block):
        yield from (at for at, line in enumerate(lines) if _large_numbers(line + b"\n"))


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _large_numbers(lines: bytes) -> bool:
    """Whether there may be a number among them that no float can hold: one with an exponent of three digits or more, or
    of very many digits. The end of a text may look like one."""
    signs = lines.translate(_NUMBER_SIGNS)
    return _LARGE_EXPONENT.search(signs) is not None or _MANY_DIGITS in signs


def _any_unset(values: Iterable[Any]) -> bool:
    """Whether a number is missing among them. UNSET can't be compared with anything."""
    try:
        return max(values) is UNSET
    except TypeError:
        return True


def _places(column: Sequence[int], numbers: AbstractSet[int]) -> Iterator[int]:
    if numbers:
        yield from (at for at, number in enumerate(column) if number in numbers)


def _with_wrong_ids(messages: Sequence[Any], with_ids: Sequence[Any], traces: AbstractSet[Any]) -> list[int]:
    """The messages of which an id of a trace, span or job is wrong. Their client and service are not looked at. `with_ids` are those
    among them whose type has more ids than others."""
    spans = [message for message in with_ids if type(message) in _SPANS]
    jobs = (
        {message.job_id for message in with_ids if type(message) is Progress} if len(spans) < len(with_ids) else set()
    )
    span_ids = set(map(_span_of, messages)).union(map(_parent_of, spans))
    complete = UNSET not in set(map(_span_of, spans)) and UNSET not in set(map(trace_of, spans))
    if complete and _are_printable((traces | jobs) - {UNSET}) and _are_span_ids(span_ids - {UNSET}):
        return []
    return [at for at, message in enumerate(messages) if _wrong_ids(message)]


def _wrong_ids(message: Any) -> bool:
    trace_id, span_id = message.trace_id, message.span_id
    return bool(
        (trace_id is not UNSET and not TRACE_ID.fullmatch(trace_id))
        or (span_id is not UNSET and not SPAN_ID.fullmatch(span_id))
        or (type(message) in WITH_IDS and wrong_id(message))
    )


def _are_printable(ids: AbstractSet[str]) -> bool:
    return _PRINTABLE.fullmatch("".join(ids)) is not None


def _are_span_ids(ids: AbstractSet[str]) -> bool:
    joined = "".join(ids).encode("utf-8", "surrogatepass")
    return not ids or (set(map(len, ids)) == {16} and not joined.translate(None, b"0123456789abcdef"))
