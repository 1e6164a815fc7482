"""Lines fit a terminal: tables are cut and lose columns by their importance, sentences are wrapped, the rest is cut."""

from __future__ import annotations

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wafermon.cli.layout import Sentence, branches, cells, clip, cut, table

HEADER = ["JOB", "DONE", "STATUS", "SERVICE"]
ROWS = [["lot-" + "x" * 60, "100 %", "done", "loader"], ["lot-2", "5 %", "running", "etl"]]


def shown(width: int) -> list[str]:
    lines = cut(table(HEADER, ROWS, right="-r--", color=2, hide="---1"), width)
    return [click.unstyle(line).rstrip() for line in lines]


def test_nothing_is_cut_where_nobody_looks() -> None:
    assert cut(table(HEADER, ROWS), 0) == table(HEADER, ROWS)
    assert max(map(len, shown(0))) == 64 + 2 + 5 + 2 + 7 + 2 + 6 + 1


def test_the_widest_text_is_cut_first_and_numbers_never() -> None:
    assert shown(50) == [
        "JOB                         DONE  STATUS   SERVICE",
        "lot-xxxxxxxxxxxxxxxxxxxx…  100 %  done     loader",
        "lot-2                        5 %  running  etl",
    ]
    assert all("100 %" in shown(width)[1] for width in range(20, 100))


def test_what_matters_least_is_hidden_before_a_text_can_not_be_read() -> None:
    assert [line.split()[-1] for line in shown(41)] == ["SERVICE", "loader", "etl"]
    assert [line.split()[-1] for line in shown(40)] == ["STATUS", "done", "running"]
    assert shown(24)[1] == "lot-xxx…  100 %  done"


def with_bars(width: int) -> list[str]:
    rows = [
        ["load-1", "2026-11-29 16:00:00", "█" * 30, "1"],
        ["load-2", "2026-11-29 16:30:00", "█" * 10 + "·" * 20, "2"],
    ]
    return [
        click.unstyle(line)
        for line in cut(table(["JOB", "BEGAN", "", "ERRORS"], rows, right="-kbr", hide="-1--"), width)
    ]


def test_a_bar_is_shortened_in_proportion_before_anything_else_and_a_time_is_never_cut() -> None:
    assert with_bars(0)[2].count("█") == 10
    assert with_bars(54) == [
        "JOB     BEGAN                                   ERRORS",
        "load-1  2026-11-29 16:00:00  " + "█" * 17 + "       1",
        "load-2  2026-11-29 16:30:00  " + "█" * 6 + "·" * 11 + "       2",
    ]
    for width in range(30, 90):
        assert all("…" not in line for line in with_bars(width)), width
        assert all(("2026-11-29 16:" in line) == (width >= 45) for line in with_bars(width)[1:]), width


def test_a_sentence_is_wrapped_and_what_follows_is_indented() -> None:
    line = Sentence("  ! the backend files fails: no space left on device", 4)
    assert cut([line], 30) == ["  ! the backend files fails:", "    no space left on device"]
    assert cut([line], 0) == [line] == cut([line], 80)


def test_a_word_that_no_line_has_room_for_is_cut() -> None:
    assert cut([Sentence("see " + "x" * 40, 2)], 20) == ["see", "  " + "x" * 17 + "…"]


@pytest.mark.parametrize(
    ("text", "width", "clipped"),
    [("abc", 3, "abc"), ("abcd", 3, "ab…"), ("晶圓廠", 6, "晶圓廠"), ("晶圓廠", 5, "晶圓…"), ("晶圓廠", 4, "晶…"), ("e\u0301e\u0301", 2, "e\u0301e\u0301")],
)  # fmt: skip
def test_wide_characters_take_two_columns_and_marks_none(text: str, width: int, clipped: str) -> None:
    assert clip(text, width) == clipped


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"]), max_size=80)


@given(st.lists(st.tuples(TEXTS, TEXTS, st.integers(0, 10**9).map(str)), max_size=4), st.integers(30, 120))
def test_any_table_fits(rows: list[tuple[str, str, str]], width: int) -> None:
    lines = cut(table(["NAME", "TEXT", "COUNT"], rows, right="--r", color=0, hide="-1"), width)
    assert len(lines) == len(rows) + 1
    assert all(cells(line) <= width for line in lines)


def test_a_tree_has_branches() -> None:
    depths = [0, 1, 2, 3, 3, 1, 2, 0, 1]
    assert branches(depths) == ["", "├ ", "│ └ ", "│   ├ ", "│   └ ", "└ ", "  └ ", "", "└ "]
    assert max(map(len, branches([*range(40)]))) == 20
