"""Which lines there are depends on the bytes alone, not on how they were cut into reads."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wafermon.wire.framing import CAREFUL_BYTES, SLICE_BYTES, LineBuffer, Lines, LongLine

LIMIT = 20
PIECES = st.sampled_from([b"\n", b"\r\n", b"\r", b"a", b"b" * 7, b"c" * 19, b"d" * 20, b"e" * 21, b"f" * 60])


def lines_of(data: bytes) -> list[tuple[bool, bytes]]:
    """Each line that is whole, and whether it is too long: then its beginning."""
    found = [line.removesuffix(b"\r") for line in data.split(b"\n")[:-1]]
    return [(len(line) > LIMIT, line[:LIMIT]) for line in found]


def read(buffer: LineBuffer, most: int = 1 << 30) -> list[tuple[bool, bytes]]:
    """Everything that there is; of each block at most `most` lines at a time."""
    found: list[tuple[bool, bytes]] = []
    while (one := buffer.next()) is not None:
        assert buffer.next() == one, "asking changes nothing"
        if isinstance(one, LongLine):
            found.append((True, one.start))
            buffer.took_long()
        else:
            assert one.block.endswith(b"\n")
            taken = one.block.split(b"\n")[:-1][:most]
            found += [(False, line) for line in taken]
            buffer.took(one, sum(len(line) + 1 for line in taken), left=most < 5)
    return found


@given(st.lists(PIECES, max_size=30).map(b"".join), st.lists(st.integers(0, 200)), st.integers(1, 9))
def test_the_lines_are_the_same_however_the_bytes_come(data: bytes, cuts: list[int], most: int) -> None:
    buffer = LineBuffer(LIMIT)
    found = []
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for start, end in itertools.pairwise(places):
        buffer.feed(data[start:end])
        found += read(buffer, most)
        assert len(buffer) <= LIMIT + 1
    assert found == lines_of(data)


@pytest.mark.parametrize(("before", "more"), [(20, []), (21, [(True, b"x" * 20)])])
def test_a_last_line_needs_no_newline_once_nothing_more_comes(before: int, more: list[tuple[bool, bytes]]) -> None:
    buffer = LineBuffer(LIMIT)
    buffer.feed(b"a\n" + b"x" * before)
    assert read(buffer) == [(False, b"a")]
    buffer.end()
    assert read(buffer) == (more or [(False, b"x" * 20)])


@pytest.mark.parametrize("data", [b"", b"a\n"])
def test_nothing_is_added_where_the_last_line_is_whole(data: bytes) -> None:
    buffer = LineBuffer(LIMIT)
    buffer.feed(data)
    buffer.end()
    assert read(buffer) == lines_of(data)


def test_a_line_that_goes_on_is_not_kept() -> None:
    buffer = LineBuffer(LIMIT)
    for _ in range(100):
        buffer.feed(b"x" * 1000)
        assert buffer.next() is None
        assert len(buffer) <= LIMIT
    buffer.end()
    assert read(buffer) == [(True, b"x" * LIMIT)]


def test_blocks_are_bounded_and_smaller_after_one_that_was_left() -> None:
    line = b"y" * 15 + b"\n"
    buffer = LineBuffer(LIMIT, line * (3 * SLICE_BYTES // 16))
    sizes = []
    while isinstance(found := buffer.next(), Lines):
        sizes.append(len(found.block))
        buffer.took(found, 16 if len(sizes) == 1 else len(found.block), left=len(sizes) == 1)
    assert sizes[:3] == [SLICE_BYTES, CAREFUL_BYTES, 2 * CAREFUL_BYTES]
    assert max(sizes) == SLICE_BYTES


def test_a_line_longer_than_a_careful_block_is_whole() -> None:
    buffer = LineBuffer(1 << 16, b"a\n" + b"z" * 60_000 + b"\n")
    first = buffer.next()
    assert isinstance(first, Lines)
    buffer.took(first, 2, left=True)
    assert buffer.next() == Lines(b"z" * 60_000 + b"\n")


def test_bytes_between_lines_are_taken_as_they_are() -> None:
    buffer = LineBuffer(LIMIT)
    buffer.feed(b"a\n\r\n\0b")
    first = buffer.next()
    assert isinstance(first, Lines)
    buffer.took(first, 2)
    assert buffer.take_bytes(3) == b"\r\n\0"
    assert buffer.take_bytes(5) == b"b"
    assert len(buffer) == 0


def test_a_cleared_buffer_holds_nothing() -> None:
    buffer = LineBuffer(LIMIT)
    buffer.feed(b"x" * 50)
    assert buffer.next() is None
    buffer.clear()
    buffer.feed(b"a\n")
    assert read(buffer) == [(False, b"a")]
    buffer.feed(b"bcd")
    assert buffer.start(2) == b"bc"
