"""Lines that fit a terminal. Pure.

What makes lines writes them whole: `table` rows, `Sentence`s, other text. `cut` makes them fit a width, which it alone knows: it lays tables out
again, with texts cut and columns hidden by their importance, wraps sentences at spaces, and cuts what is left. Where nobody looks at a terminal
the width is 0, and all of it stays.
"""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import click

COLORS = {
    "failed": "red", "failing": "red", "gone": "red", "error": "red", "critical": "red", "abandoned": "yellow", "stalled": "yellow",
    "unfinished": "yellow", "warning": "yellow", "done": "green", "ok": "green",
    "not_started": "red", "silent": "red", "too_long": "yellow", "too_fast": "yellow", "late": "yellow", "overlapping": "yellow",
    "recovered": "green",
}  # fmt: skip
"""Statuses and levels."""
READABLE, LEAST = 16, 4
"""A text is cut to no less than the first before a column is hidden, and to the second after that."""
LEAST_BAR = 8
"""A bar is shortened to no less before a column is hidden."""
GAP = "  "


def colored(text: str, word: str) -> str:
    """`text` in the color of a status or level; `click.echo` leaves colors out where no terminal reads."""
    return click.style(text, fg=COLORS[word]) if word in COLORS else text


def cells(text: str) -> int:
    """How many columns of a terminal it takes, styles apart."""
    if text.isascii() and "\x1b" not in text:
        return len(text)
    return sum(map(_cells_of, click.unstyle(text)))


def _cells_of(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def clip(text: str, width: int) -> str:
    """No wider than `width` columns, with an ellipsis for what is left out and without styles then; 0 is no limit."""
    if not width or cells(text) <= width:
        return text
    kept, room = [], width - 1
    for char in click.unstyle(text):
        room -= _cells_of(char)
        if room < 0:
            break
        kept.append(char)
    return "".join(kept) + "…"


class Sentence(str):
    """A line that is wrapped, with what follows indented by `hang` columns."""

    hang: int

    def __new__(cls, text: str, hang: int = 0) -> Sentence:
        made = super().__new__(cls, text)
        made.hang = hang
        return made

    def fitted(self, width: int) -> list[str]:
        if cells(self) <= width:
            return [self]
        text, indent = click.unstyle(self), " " * self.hang
        lines = textwrap.wrap(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
        return [clip(line, width) for line in lines]


class Row(str):
    """A row of a table in its full width; it knows its table, which `cut` may lay out again."""

    __slots__ = ("table",)
    table: Table


class Table:
    """Aligned columns."""

    def __init__(
        self, header: Sequence[str], rows: Iterable[Sequence[str]], right: str = "", color: int = -1, hide: str = ""
    ) -> None:
        self._header, self._rows = list(header), [list(row) for row in rows]
        self._right, self._color, self._hide = right, color, hide

    def lines(self, width: int = 0) -> list[str]:
        """Those of the header and of each row, as wide as they are with 0."""
        shown = list(range(len(self._header)))
        natural = [max(cells(row[at]) for row in [self._header, *self._rows]) for at in shown]
        widths = self._narrowed(natural, shown, width, READABLE)
        for at in self._by_importance():
            if _whole(widths, shown) <= width or not width:
                break
            shown.remove(at)
            widths = self._narrowed(natural, shown, width, READABLE)
        widths = self._narrowed(widths, shown, width, LEAST)
        return [
            click.style(self._line(self._header, shown, widths, styled=False), dim=True),
            *(self._line(row, shown, widths, styled=True) for row in self._rows),
        ]

    def _by_importance(self) -> list[int]:
        """The columns that may be hidden, the least important one first."""
        marked = [(mark, at) for at, mark in enumerate(self._hide) if mark.isdigit()]
        return [at for _, at in sorted(marked)]

    def _kind(self, at: int) -> str:
        """As `table` has it in `right`."""
        return self._right[at : at + 1] or "-"

    def _narrowed(self, natural: Sequence[int], shown: Sequence[int], width: int, least: int) -> list[int]:
        """The widths with bars shortened first and then the widest texts cut, as far as `least` allows; numbers and times are never cut."""
        widths = list(natural)
        for at in shown:
            excess = _whole(widths, shown) - width if width and self._kind(at) == "b" else 0
            widths[at] -= min(max(0, excess), max(0, widths[at] - LEAST_BAR))
        while width and (excess := _whole(widths, shown) - width) > 0:
            texts = sorted({widths[at] for at in shown if self._kind(at) == "-"}, reverse=True)
            if not texts or texts[0] <= least:
                break
            next_one = max(least, texts[1] if len(texts) > 1 else least)
            widest = [at for at in shown if self._kind(at) == "-" and widths[at] == texts[0]]
            each = min(texts[0] - next_one, -(-excess // len(widest)))
            for at in widest:
                widths[at] -= each
        return widths

    def _cell(self, row: Sequence[str], at: int, width: int) -> str:
        """What stands in a column of this width. Bars keep their proportions."""
        text = row[at]
        if not width or self._kind(at) != "b":
            return clip(text, width) if width else ""
        longest = max(len(one[at]) for one in self._rows)
        if width >= longest or not text:
            return text
        length = max(1, len(text) * width // longest)
        return "".join(text[place * len(text) // length] for place in range(length))

    def _line(self, row: Sequence[str], shown: Sequence[int], widths: Sequence[int], *, styled: bool) -> str:
        parts = []
        for at in shown:
            cell = self._cell(row, at, widths[at])
            pad = " " * (widths[at] - cells(cell))
            padded = pad + cell if self._kind(at) == "r" else cell + pad
            parts.append(colored(padded, row[at]) if styled and at == self._color else padded)
        return GAP.join(parts).rstrip()


def _whole(widths: Sequence[int], shown: Sequence[int]) -> int:
    return sum(widths[at] for at in shown) + len(GAP) * (len(shown) - 1)


def table(
    header: Sequence[str], rows: Iterable[Sequence[str]], right: str = "", color: int = -1, hide: str = ""
) -> list[str]:
    """Aligned columns, in full width. `right` has a letter for each column: ``r`` for numbers, which are aligned to the right and never cut, ``k`` for
    what is never cut either and aligned to the left, such as a time, ``b`` for a bar, which is shortened first, ``-`` for text. The column of number `color` holds words that may have one. `hide` has a digit for each column that may be left out where it is narrow: 1 goes first."""
    made = Table(header, rows, right, color, hide)
    lines: list[str] = []
    for line in made.lines():
        row = Row(line)
        row.table = made
        lines.append(row)
    return lines


def cut(lines: Iterable[str], width: int) -> list[str]:
    """Lines that are no wider than `width` columns; 0 is no limit."""
    return [*_fitted(lines, width)] if width else list(lines)


def _fitted(lines: Iterable[str], width: int) -> Iterator[str]:
    for made, group in groupby(lines, key=lambda line: line.table if isinstance(line, Row) else None):
        if made is not None:
            yield from (clip(line, width) for line in made.lines(width))
            continue
        for line in group:
            yield from line.fitted(width) if isinstance(line, Sentence) else [clip(line, width)]


def branches(depths: Sequence[int]) -> list[str]:
    """What stands before each name of a tree, whose nodes come parents first; at most the ten innermost levels."""
    made: list[str] = []
    follows: dict[int, bool] = {}
    for depth in reversed(depths):
        parts = ["│ " if follows.get(level) else "  " for level in range(1, depth)]
        if depth:
            parts.append("├ " if follows.get(depth) else "└ ")
        made.append("".join(parts[-10:]))
        follows = {level: known for level, known in follows.items() if level < depth} | {depth: True}
    return made[::-1]
