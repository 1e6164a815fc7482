"""Whatever ends a follower, it is named and begun again; what it can't get past is stepped over, but never by a delivery."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher

from wafermon.delivery.supervisor import (
    MOST_SECONDS,
    NEXT,
    POSITIONS,
    STEADY_SECONDS,
    TRIES,
    Event,
    FollowerState,
    State,
    Supervisor,
)
from wafermon.model.position import Position

NOW = 1_700_000_000_000_000


def place(offset: int) -> Position:
    return Position("a" * 16, 1, offset)


class Follower:
    """Waits in `run` for what a test sends."""

    def __init__(self, name: str = "one", steps_over: bool = True) -> None:
        self.name = name
        self.steps_over = steps_over
        self.position: Position | None = None
        self.problem = ""
        self.calls: list[str] = []
        self.at_run: Callable[[], None] = lambda: None
        self.at_step: Callable[[], Deferred[None] | None] = lambda: None
        self.at_finish: Callable[[], Deferred[None] | None] = lambda: None
        self.waits: Deferred[None] = Deferred()

    async def run(self) -> None:
        self.calls.append("run")
        self.at_run()
        self.waits = Deferred()
        await self.waits

    async def step_over(self) -> None:
        self.calls.append("step_over")
        if (waiting := self.at_step()) is not None:
            await waiting

    async def finish(self) -> None:
        self.calls.append("finish")
        if (waiting := self.at_finish()) is not None:
            await waiting

    def fail(self, error: BaseException, at: int | None = None) -> None:
        self.position = None if at is None else place(at)
        self.waits.errback(error)


class Running:
    """A follower under a supervisor whose backoff is always the longest it may be."""

    def __init__(self, follower: Follower | None = None) -> None:
        self.clock = Clock()
        self.follower = follower or Follower()
        self.logged: list[LogEvent] = []
        self.supervisor = Supervisor(self.clock, lambda: NOW, lambda least, most: most)
        globalLogPublisher.addObserver(cast(Any, self.logged.append))
        self.supervisor.start(self.follower)

    @property
    def state(self) -> FollowerState:
        return self.supervisor.states[self.follower.name]

    def doing(self) -> State:
        return self.state.state

    def stop(self, within: float = 0.0) -> list[None]:
        ended: list[None] = []
        Deferred.fromCoroutine(self.supervisor.stop(self.follower.name, within)).addCallback(ended.append)
        return ended

    def fail(self, error: BaseException | None = None, at: int | None = None) -> None:
        """Let it fail, and begin again."""
        self.follower.fail(error or OSError(28, "No space left on device"), at)
        self.clock.advance(MOST_SECONDS)

    def said(self) -> str:
        return "\n".join(event["log_format"].format(**event) for event in self.logged if event.get("log_format"))


@pytest.fixture
def running() -> Any:
    made = Running()
    yield made
    globalLogPublisher.removeObserver(cast(Any, made.logged.append))


class Rude(Follower):
    """Whatever it is asked beside its run, it raises at once."""

    @property
    def problem(self) -> str:
        raise ValueError("its problem")

    @problem.setter
    def problem(self, value: str) -> None:
        pass

    @property
    def steps_over(self) -> bool:
        if self.steps is None:
            raise ValueError("whether it steps over")
        return self.steps

    @steps_over.setter
    def steps_over(self, value: bool) -> None:
        self.steps: bool | None = value

    def step_over(self) -> Any:
        self.calls.append("step_over")
        raise ValueError("the step")

    def finish(self) -> Any:
        self.calls.append("finish")
        raise ValueError("the finish")


@pytest.mark.parametrize(("steps", "calls"), [
    (True, ["run", "run", "run", "step_over", "step_over"]), (None, ["run", "run", "run", "run", "run"]),
])  # fmt: skip
def test_a_follower_that_raises_at_once_whatever_it_is_asked_is_begun_again_all_the_same(
    steps: bool | None, calls: list[str]
) -> None:
    follower = Rude()
    follower.steps = steps
    running = Running(follower)
    for _ in range(TRIES):
        running.fail(at=5)
    if steps is None:
        running.fail(at=5)
    running.clock.advance(MOST_SECONDS)
    assert follower.calls == calls
    assert "ValueError" in running.state.problem or "No space left" in running.state.problem
    globalLogPublisher.removeObserver(cast(Any, running.logged.append))


def test_the_stop_of_such_a_one_ends() -> None:
    running = Running(Rude())
    assert running.state.problem == "its problem can't be asked: ValueError"
    assert running.stop() == [None]
    assert running.follower.calls == ["run", "finish"]
    assert "could not save where it is" in running.said()
    globalLogPublisher.removeObserver(cast(Any, running.logged.append))


def test_such_a_one_that_hangs_is_given_up() -> None:
    running = Running(Rude())
    running.follower.waits = Deferred(lambda _: None)
    running.supervisor._lives["one"]._work = Deferred(lambda _: running.follower.calls.append("cancelled"))
    ended = running.stop(within=5.0)
    running.clock.advance(5.0)
    assert ended == [None] and "is left to itself: its problem can't be asked" in running.said()
    globalLogPublisher.removeObserver(cast(Any, running.logged.append))


class Odd(Exception):
    def __str__(self) -> str:
        raise ValueError("an exception that can't even be shown")


@pytest.mark.parametrize("error", [
    OSError(28, "No space left on device"), KeyError("x"), ValueError("a plugin's"), CancelledError(), RuntimeError(), Odd(),
    SystemExit(1), AssertionError(),
])  # fmt: skip
def test_whatever_ends_it_it_is_named_and_begun_again(running: Running, error: BaseException) -> None:
    running.follower.fail(error)
    assert running.doing() == State.WAITING
    assert type(error).__name__ in running.state.problem
    assert running.state.last_error == running.state.problem
    assert running.state.last_error_at == NOW
    assert running.state.restarts == 1
    assert running.follower.calls == ["run"]
    assert "one failed and is begun again in 1.0 s: " + type(error).__name__ in running.said()
    assert [event["log_failure"].value for event in running.logged] == [error]
    running.clock.advance(1.0)
    assert running.follower.calls == ["run", "run"]
    assert running.doing() == State.RUNNING


def test_one_that_ends_by_itself_is_begun_again_too(running: Running) -> None:
    running.follower.waits.callback(None)
    assert running.state.problem == "RuntimeError: it ended by itself"
    running.clock.advance(1.0)
    assert running.follower.calls == ["run", "run"]


def test_one_that_fails_before_it_waits_for_anything_is_begun_again(running: Running) -> None:
    def fail() -> None:
        raise OSError(5, "Input/output error")

    running.follower.at_run = fail
    running.fail()
    assert running.state.last_error == "OSError: [Errno 5] Input/output error"
    running.follower.at_run = lambda: None
    running.clock.advance(MOST_SECONDS)
    assert running.doing() == State.RUNNING


def test_a_text_from_outside_is_bounded_and_printable(running: Running) -> None:
    running.follower.fail(ValueError("\x1b[2J" + "x" * 5_000))
    assert "\x1b" not in running.state.problem
    assert len(running.state.problem) < 1_100


def test_the_backoff_doubles_up_to_its_most_while_it_fails_at_once(running: Running) -> None:
    waited = []
    for _ in range(7):
        running.follower.fail(OSError(5, "x"))
        [call] = running.clock.getDelayedCalls()
        waited.append(call.getTime() - running.clock.seconds())
        running.clock.advance(waited[-1])
    assert waited == [1, 2, 4, 8, 16, 30, 30]
    running.clock.advance(STEADY_SECONDS)
    running.follower.fail(OSError(5, "x"))
    [call] = running.clock.getDelayedCalls()
    assert call.getTime() - running.clock.seconds() == 1


def test_another_group_begins_with_the_first_backoff_again(running: Running) -> None:
    for at in (10, 20, 30):
        running.follower.fail(OSError(5, "x"), at)
        [call] = running.clock.getDelayedCalls()
        assert call.getTime() - running.clock.seconds() == 1
        running.clock.advance(1)
    assert "step_over" not in running.follower.calls


def test_an_exception_without_a_text_is_named_by_its_type(running: Running) -> None:
    running.follower.fail(RuntimeError())
    assert running.state.problem == "RuntimeError"


def test_the_problem_goes_once_it_has_run_for_a_while(running: Running) -> None:
    running.follower.fail(OSError(5, "x"))
    running.clock.advance(1)
    assert running.state.problem == "OSError: [Errno 5] x"
    running.clock.advance(STEADY_SECONDS - 0.1)
    assert running.state.problem
    running.clock.advance(0.1)
    assert running.state.problem == ""
    assert running.state.last_error == "OSError: [Errno 5] x"


def test_the_problem_goes_once_it_is_past_the_group(running: Running) -> None:
    running.follower.fail(OSError(5, "x"), 100)
    running.clock.advance(1)
    running.follower.position = place(50)
    assert running.state.problem
    running.follower.position = place(100)
    assert running.state.problem
    running.follower.position = place(101)
    assert running.state.problem == ""
    running.follower.position = None
    assert running.state.problem == ""


def test_what_hinders_it_while_it_runs_is_shown(running: Running) -> None:
    running.follower.problem = "no answer from a disk for 75 s"
    assert running.state.problem == "no answer from a disk for 75 s"
    assert running.doing() == State.RUNNING


# -- stepping over


def test_it_steps_over_the_group_at_which_it_failed_three_times(running: Running) -> None:
    for _ in range(TRIES - 1):
        running.fail(ValueError("poison"), at=100)
    assert running.follower.calls == ["run"] * TRIES
    running.fail(ValueError("poison"), at=100)
    assert running.follower.calls == [*["run"] * TRIES, "step_over", "run"]
    assert list(running.state.positions) == [place(100)]
    assert running.state.stepped_over == 1
    assert running.state.restarts == TRIES
    assert running.state.problem == ""
    assert (
        f"one has failed 3 times at {place(100)} and steps over what was received there: ValueError" in running.said()
    )
    for _ in range(TRIES - 1):
        running.fail(ValueError("poison"), at=200)
    assert running.state.stepped_over == 1


def test_after_a_step_the_same_group_has_three_tries_again(running: Running) -> None:
    for _ in range(2 * TRIES - 1):
        running.fail(ValueError("poison"), at=100)
    assert running.state.stepped_over == 1


def test_after_a_step_the_backoff_is_the_first_again(running: Running) -> None:
    for _ in range(TRIES):
        running.fail(ValueError("poison"), at=100)
    running.follower.fail(OSError(5, "x"))
    [call] = running.clock.getDelayedCalls()
    assert call.getTime() - running.clock.seconds() == 1


def test_failures_at_different_groups_or_at_none_are_not_counted_together(running: Running) -> None:
    for at in (100, 200, 100, None, None, None, None, 200, 200, 100):
        running.fail(at=at)
    assert "step_over" not in running.follower.calls


def test_a_delivery_never_steps_over() -> None:
    running = Running(Follower(steps_over=False))
    for _ in range(5 * TRIES):
        running.fail(at=100)
    assert running.follower.calls == ["run"] * (5 * TRIES + 1)
    assert running.state.stepped_over == 0


@pytest.mark.parametrize("error", [OSError(28, "full"), CancelledError(), RuntimeError("x")])
def test_stepping_over_that_fails_is_tried_again(running: Running, error: Exception) -> None:
    def fail() -> None:
        running.follower.at_step = lambda: None
        raise error

    running.follower.at_step = fail
    for _ in range(TRIES):
        running.fail(at=100)
    assert running.follower.calls == [*["run"] * TRIES, "step_over"]
    assert running.state.stepped_over == 0
    assert running.doing() == State.WAITING
    assert type(error).__name__ in running.state.problem
    running.clock.advance(MOST_SECONDS)
    assert running.follower.calls[TRIES:] == ["step_over", "step_over", "run"]
    assert running.state.stepped_over == 1
    assert running.state.restarts == TRIES


def test_it_runs_again_only_when_the_step_is_durable(running: Running) -> None:
    saved: Deferred[None] = Deferred()
    running.follower.at_step = lambda: saved
    for _ in range(TRIES):
        running.fail(at=100)
    assert running.doing() == State.STEPPING
    assert running.state.stepped_over == 0
    saved.callback(None)
    assert running.doing() == State.RUNNING
    assert running.state.stepped_over == 1


def test_the_shown_positions_are_the_latest_few(running: Running) -> None:
    for at in range(POSITIONS + 5):
        for _ in range(TRIES):
            running.fail(at=at)
    assert running.state.stepped_over == POSITIONS + 5
    assert list(running.state.positions) == [place(at) for at in range(5, POSITIONS + 5)]


# -- the stop


def test_a_stop_cancels_it_lets_it_finish_and_then_it_is_gone(running: Running) -> None:
    saved: Deferred[None] = Deferred()
    running.follower.at_finish = lambda: saved
    ended = running.stop()
    assert running.follower.calls == ["run", "finish"]
    assert running.doing() == State.FINISHING
    assert not ended
    saved.callback(None)
    assert ended == [None]
    assert running.supervisor.states == {}
    assert running.clock.getDelayedCalls() == []
    assert running.logged == []


def test_two_stops_wait_for_the_same_end(running: Running) -> None:
    saved: Deferred[None] = Deferred()
    running.follower.at_finish = lambda: saved
    first, second = running.stop(), running.stop(within=5)
    assert running.follower.calls == ["run", "finish"]
    saved.callback(None)
    assert (first, second) == ([None], [None])
    assert running.clock.getDelayedCalls() == []


def test_one_that_is_stopped_between_two_runs_saves_nothing(running: Running) -> None:
    running.follower.fail(OSError(5, "x"))
    assert running.stop() == [None]
    running.clock.advance(MOST_SECONDS)
    assert running.follower.calls == ["run"]


def test_one_that_is_stopped_while_it_steps_over_saves_nothing(running: Running) -> None:
    running.follower.at_step = Deferred
    for _ in range(TRIES):
        running.fail(at=100)
    assert running.stop() == [None]
    assert running.follower.calls[TRIES:] == ["step_over"]


def test_one_that_fails_while_it_is_stopped_is_named_and_saves_nothing() -> None:
    failing = Running(Failing())
    assert failing.stop() == [None]
    assert failing.follower.calls == ["run"]
    assert failing.supervisor.states == {}
    assert "one failed while it was stopped" in failing.said()


class Failing(Follower):
    """Its end fails."""

    async def run(self) -> None:
        try:
            await super().run()
        finally:
            raise OSError(5, "x")


@pytest.mark.parametrize("error", [OSError(28, "full"), RuntimeError("x"), KeyError("y")])
def test_one_that_can_not_finish_is_named_and_ended(running: Running, error: Exception) -> None:
    def fail() -> None:
        raise error

    running.follower.at_finish = fail
    assert running.stop() == [None]
    assert "one could not save where it is" in running.said()


def test_a_stop_gives_up_what_hangs(running: Running) -> None:
    cancelled: list[object] = []
    running.follower.at_finish = lambda: Deferred(cancelled.append)
    running.follower.problem = "no answer from a disk for 75 s"
    ended = running.stop(within=5)
    running.clock.advance(4.9)
    assert not ended
    running.clock.advance(0.1)
    assert ended == [None]
    assert "one does not end, and is left to itself: no answer from a disk for 75 s" in running.said()
    assert len(cancelled) == 1, "what is left to itself is not told"
    assert running.supervisor.states == {}


class Deaf(Follower):
    """Takes no cancel for an end, the first time."""

    async def run(self) -> None:
        try:
            await super().run()
        except CancelledError:
            self.calls.append("deaf")
            await super().run()


def test_one_that_takes_no_cancel_is_given_up() -> None:
    deaf = Running(Deaf())
    ended = deaf.stop(within=5)
    assert not ended
    deaf.clock.advance(5)
    assert ended == [None]
    assert "one does not end, and is left to itself: no answer" in deaf.said()
    deaf.clock.advance(MOST_SECONDS)
    assert deaf.follower.calls == ["run", "deaf", "run"]


def test_an_unknown_one_is_stopped_already(running: Running) -> None:
    ended: list[None] = []
    Deferred.fromCoroutine(running.supervisor.stop("other")).addCallback(ended.append)
    assert ended == [None]


def test_two_of_one_name_do_not_run_beside_each_other(running: Running) -> None:
    with pytest.raises(ValueError, match="a follower named one runs already"):
        running.supervisor.start(Follower())
    running.stop()
    successor = Follower()
    running.supervisor.start(successor)
    assert successor.calls == ["run"]


def test_counters_go_on_with_a_successor_until_the_name_is_forgotten(running: Running) -> None:
    running.fail()
    running.supervisor.forget("one")
    assert running.state.restarts == 1
    running.stop()
    running.supervisor.start(Follower())
    assert running.state.restarts == 1
    running.stop()
    running.supervisor.forget("one")
    running.supervisor.start(Follower())
    assert running.state.restarts == 0


def test_one_follower_does_not_disturb_another(running: Running) -> None:
    other = Follower("other")
    running.supervisor.start(other)
    running.fail()
    assert other.calls == ["run"]
    assert running.supervisor.states["other"].restarts == 0
    running.stop()
    assert list(running.supervisor.states) == ["other"]


def test_one_that_can_not_say_where_it_is_is_begun_again() -> None:
    class Lost(Follower):
        @property
        def position(self) -> Position | None:
            raise KeyError("x")

        @position.setter
        def position(self, value: Position | None) -> None: ...

    running = Running(Lost())
    running.fail()
    assert running.follower.calls == ["run", "run"]


@pytest.mark.parametrize("state", State)
def test_every_state_can_be_left(state: State) -> None:
    assert [event for event in Event if (state, event) in NEXT]
