"""What others cause fills no log."""

from __future__ import annotations

from twisted.internet.task import Clock

from wafermon.model.lograte import FOLLOWS, LINES, LogRate


class Said:
    """A log with such a bound."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.rate = LogRate(self.clock.seconds)
        self.lines: list[str] = []

    def log(self, times: int) -> None:
        for _ in range(times):
            self.rate.log(lambda: self.lines.append("line"), self.lines.append)


def test_few_lines_are_all_said() -> None:
    said = Said()
    said.log(LINES)
    assert said.lines == ["line"] * LINES


def test_beyond_that_they_are_counted_and_told_after_a_minute() -> None:
    said = Said()
    said.log(1_000)
    assert said.lines == ["line"] * LINES + [FOLLOWS]
    said.clock.advance(60)
    said.rate.tick(said.lines.append)
    assert said.lines[-1] == f"{1_000 - LINES} more such lines within a minute"
    said.log(1)
    assert said.lines[-1] == "line"


def test_the_next_line_tells_it_too() -> None:
    said = Said()
    said.log(LINES + 2)
    said.clock.advance(61)
    said.log(1)
    assert said.lines[-2:] == ["2 more such lines within a minute", "line"]


def test_a_day_of_lines_is_a_few_per_minute() -> None:
    said = Said()
    for _ in range(24 * 60):
        said.log(100)
        said.clock.advance(60)
    assert len(said.lines) <= 24 * 60 * (LINES + 2)


def test_a_clock_that_was_set_back_does_not_silence_it() -> None:
    times = iter([1e9, 5.0, 5.0])
    rate = LogRate(lambda: next(times), lines=1)
    lines: list[str] = []
    rate.log(lambda: lines.append("line"), lines.append)
    rate.log(lambda: lines.append("line"), lines.append)
    assert lines[-1] == "line" and len(lines) == 2
