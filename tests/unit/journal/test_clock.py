"""The two times of a group."""

from __future__ import annotations

from wafermon.journal.clock import PAUSE_MAX, SECOND, Clock, Known

START = 1_700_000_000


class Times:
    """A date that somebody sets, and a time that nobody does."""

    def __init__(self) -> None:
        self.wall = float(START)
        self.seconds = 50.0

    def pass_by(self, seconds: float) -> None:
        self.wall += seconds
        self.seconds += seconds

    def clock(self, time: int = 0, known: Known | None = None) -> Clock:
        clock = Clock(lambda: self.wall, lambda: self.seconds)
        clock.begin(time, known)
        return clock


def test_the_receive_time_follows_the_date() -> None:
    times = Times()
    clock = times.clock()
    assert clock.now() == START * SECOND
    times.pass_by(1.5)
    assert clock.now() == START * SECOND + 1_500_000
    times.wall += 86_400
    assert clock.now() == (START + 86_400) * SECOND + 1_500_000


def test_a_small_step_back_of_the_date_is_waited_out() -> None:
    times = Times()
    clock = times.clock()
    clock.now()
    times.wall -= 60
    for _ in range(59):
        times.pass_by(1)
        assert clock.now() == START * SECOND
        assert not clock.stamp().back
        assert clock.fault == ""
    times.pass_by(2)
    assert clock.now() == (START + 1) * SECOND
    assert clock.steps_back == 0


def test_a_date_that_stays_lower_for_a_minute_is_believed_once() -> None:
    times = Times()
    clock = times.clock()
    clock.stamp()
    times.wall -= 86_400
    assert clock.now() == START * SECOND
    assert "86400 s lower" in clock.fault
    times.pass_by(59.9)
    assert clock.stamp().time == START * SECOND
    times.pass_by(0.1)
    stamp = clock.stamp()
    assert stamp.back
    assert stamp.time == (START - 86_400 + 60) * SECOND
    assert clock.steps_back == 1
    assert clock.fault == ""
    assert not clock.stamp().back


def test_a_date_that_comes_back_within_the_minute_is_no_step() -> None:
    times = Times()
    clock = times.clock()
    clock.now()
    times.wall -= 100
    clock.now()
    times.seconds += 30
    times.wall += 100
    clock.now()
    times.wall -= 100
    clock.now()
    times.seconds += 59
    assert clock.now() == START * SECOND
    assert clock.steps_back == 0


def test_elapsed_is_set_by_nobody() -> None:
    times = Times()
    clock = times.clock()
    before = clock.elapsed()
    times.wall -= 1_000_000
    times.seconds += 2.5
    assert clock.elapsed() - before == 2_500_000
    assert clock.stamp().elapsed == clock.elapsed()
    times.wall += 5_000_000
    assert clock.elapsed() - before == 2_500_000


def test_elapsed_goes_on_over_a_restart_by_what_the_date_says() -> None:
    times = Times()
    known = times.clock().known()
    times.wall += 100
    assert times.clock(0, known).elapsed() == known.elapsed + 100 * SECOND


def test_elapsed_of_a_restart_is_neither_negative_nor_longer_than_thirty_days() -> None:
    times = Times()
    known = Known(77, START * SECOND)
    times.wall -= 1000
    assert times.clock(0, known).elapsed() == 77
    times.wall += 3 * 365 * 86_400
    assert times.clock(0, known).elapsed() == 77 + PAUSE_MAX


def test_a_restart_goes_on_from_the_receive_time_of_the_last_group() -> None:
    times = Times()
    ahead = (START + 500) * SECOND
    clock = times.clock(ahead, Known(1, ahead))
    assert clock.now() == ahead
    assert clock.stamp().time == ahead
    times.pass_by(60)
    assert clock.now() == ahead - 440 * SECOND
