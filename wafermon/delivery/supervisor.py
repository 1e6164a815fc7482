"""Runs everything that follows the journal, and begins again whatever fails. Nothing that follows the journal just stops.

A follower is an object with an endless `run` (see `wafermon.journal.follower.Follower`). Whatever exception ends it is logged with its
cause, counted, shown in health, and `run` is called again after a backoff. One that may step over (all but deliveries) passes over a group at
which it has failed three times in a row.

    followers = Supervisor(reactor, journal.now)
    followers.start(correlator)
    followers.states["correlation"].problem      # what health shows; empty where all is well
    await followers.stop("correlation", within=5.0)
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from wafermon.delivery.backoff import Backoff
from wafermon.journal.follower import Follower
from wafermon.model.errors import printable
from wafermon.model.position import Position

TRIES = 3
"""So many failures in a row at one group, and it is stepped over."""
FIRST_SECONDS = 1.0
MOST_SECONDS = 30.0
"""Of the backoff between a failure and the next run."""
STEADY_SECONDS = 10.0
"""A failure is shown in health until the follower has run for so long since, or is past the group."""
POSITIONS = 10
"""So many stepped-over positions are shown; older ones are in the log."""


class State(Enum):
    """What a follower does now."""

    STOPPED = "stopped"
    RUNNING = "running"
    WAITING = "waiting"
    """It has failed and waits for its next run."""
    STEPPING = "stepping over"
    STOPPING = "stopping"
    """Its run was cancelled and has not ended."""
    FINISHING = "finishing"


class Event(Enum):
    """What happens to it."""

    START = "start"
    FAILED = "failed"
    AGAIN = "again"
    STEP = "step"
    STEPPED = "stepped"
    STOP = "stop"
    ENDED = "ended"
    GIVEN_UP = "given up"


NEXT = {
    (State.STOPPED, Event.START): State.RUNNING,
    (State.RUNNING, Event.FAILED): State.WAITING,
    (State.RUNNING, Event.STOP): State.STOPPING,
    (State.WAITING, Event.AGAIN): State.RUNNING,
    (State.WAITING, Event.STEP): State.STEPPING,
    (State.WAITING, Event.STOP): State.STOPPED,
    (State.STEPPING, Event.STEPPED): State.RUNNING,
    (State.STEPPING, Event.FAILED): State.WAITING,
    (State.STEPPING, Event.STOP): State.FINISHING,
    (State.STOPPING, Event.ENDED): State.FINISHING,
    (State.STOPPING, Event.GIVEN_UP): State.STOPPED,
    (State.FINISHING, Event.ENDED): State.STOPPED,
    (State.FINISHING, Event.GIVEN_UP): State.STOPPED,
}
"""All transitions; no other is possible."""


@dataclass
class FollowerState:
    """What health and metrics show of one follower. Times are microseconds since the epoch."""

    name: str
    state: State = State.STOPPED
    restarts: int = 0
    """How often it has failed, and so was begun again, since the sidecar's start."""
    last_error: str = ""
    last_error_at: int = 0
    stepped_over: int = 0
    """Groups that it passed over because it failed at them."""
    positions: deque[Position] = field(default_factory=lambda: deque(maxlen=POSITIONS))
    """The latest of them."""
    problem: str = ""
    """Why it does not work now; empty where it does."""


class Supervisor:
    """All followers of one journal."""

    log = Logger()

    def __init__(
        self, reactor: Any, now: Callable[[], int], uniform: Callable[[float, float], float] = random.uniform
    ) -> None:
        """`now` is the date, in microseconds since the epoch. `uniform` draws the backoff."""
        self._reactor = reactor
        self._now = now
        self._uniform = uniform
        self._lives: dict[str, _Life] = {}
        self._known: dict[str, FollowerState] = {}

    @property
    def states(self) -> Mapping[str, FollowerState]:
        """Of every follower that was started and not stopped since, by name, as they are now."""
        return {name: life.seen() for name, life in self._lives.items()}

    def start(self, follower: Follower) -> None:
        """Run it, from now on until `stop`. What it raises at once is a failure like any other. Raises ValueError where one of its
        name runs. Counters go on where one of its name ran before."""
        name = follower.name
        if name in self._lives:
            raise ValueError(f"a follower named {name} runs already")
        state = self._known.setdefault(name, FollowerState(name))
        life = _Life(follower, state, self._reactor, self._now, Backoff(FIRST_SECONDS, MOST_SECONDS, self._uniform))
        self._lives[name] = life
        life.start()

    async def stop(self, name: str, within: float = 0.0) -> None:
        """Cancel its `run` and wait for its end and for `finish`. Where `within` is given, for so many seconds at most: what has
        not ended then is left to itself, and said in the log. An unknown name is stopped already."""
        life = self._lives.get(name)
        if life is None:
            return
        timer = self._reactor.callLater(within, life.give_up) if within else None
        try:
            await life.stop()
        finally:
            if timer is not None and timer.active():
                timer.cancel()
            if self._lives.get(name) is life:
                del self._lives[name]

    def forget(self, name: str) -> None:
        """No follower of this name comes again: its counters go."""
        if name not in self._lives:
            self._known.pop(name, None)


class _Life:
    """One follower, from `Supervisor.start` to its end."""

    log = Logger()

    def __init__(
        self, follower: Follower, shown: FollowerState, reactor: Any, now: Callable[[], int], backoff: Backoff
    ) -> None:
        self._follower = follower
        self._shown = shown
        self._reactor = reactor
        self._now = now
        self._backoff = backoff
        self._shown.state = State.STOPPED
        self._error = ""
        self._failed_at: Position | None = None
        self._failures = 0
        """In a row, at `_failed_at`, which is None where it was at no group, or has not failed."""
        self._begun = 0.0
        self._work: Deferred[None] | None = None
        self._timer: IDelayedCall | None = None
        self._waiters: list[Deferred[None]] = []

    def _go(self, event: Event) -> None:
        self._shown.state = NEXT[self._shown.state, event]

    def seen(self) -> FollowerState:
        self._shown.problem = self._problem()
        return self._shown

    def _problem(self) -> str:
        if self._shown.state is State.RUNNING:
            here = self._position()
            past = here is not None and self._failed_at is not None and here > self._failed_at
            if self._error and (self._steady or past):
                self._error = ""
            return self._said_problem() or self._error
        return self._error or self._said_problem()

    def _said_problem(self) -> str:
        try:
            return self._follower.problem
        except Exception as error:  # noqa: BLE001  # as with its position
            return f"its problem can't be asked: {type(error).__name__}"

    @property
    def _steady(self) -> bool:
        return bool(self._reactor.seconds() - self._begun >= STEADY_SECONDS)

    # -- running

    def start(self) -> None:
        self._go(Event.START)
        self._run()

    def _run(self) -> None:
        self._begun = self._reactor.seconds()
        self._begin(self._endless())

    async def _endless(self) -> None:
        await self._follower.run()
        raise RuntimeError("it ended by itself")

    def _begin(self, work: Coroutine[Deferred[Any], Any, None]) -> None:
        self._work = done = Deferred.fromCoroutine(work)  # `done`, since it may have ended already
        done.addBoth(self._worked)
        done.addErrback(lambda failure: self.log.failure("Internal error in the supervisor", failure))

    def _worked(self, result: Any) -> None:
        self._work = None
        state = self._shown.state
        if state is State.RUNNING:
            self._count(self._position())
            self._failed(result)
        elif state is State.STEPPING and isinstance(result, Failure):
            self._failed(result)
        elif state is State.STEPPING:
            self._stepped()
        elif state is State.STOPPING:
            self._run_ended(result)
        elif state is State.FINISHING:
            self._finished(result)

    def _failed(self, failure: Failure) -> None:
        self._go(Event.FAILED)
        self._note(failure)
        seconds = self._backoff.next()
        self._timer = self._reactor.callLater(seconds, self._again)
        message = "{name} failed and is begun again in {seconds:.1f} s: {error}"
        self.log.failure(message, failure, name=self._shown.name, seconds=seconds, error=self._error)

    def _position(self) -> Position | None:
        """Where it is; None too where it can't say."""
        try:
            return self._follower.position
        except Exception:  # noqa: BLE001  # a third party's follower: nothing of it ends the supervision
            return None

    def _count(self, position: Position | None) -> None:
        self._shown.restarts += 1
        if position != self._failed_at:
            self._failures = 0
        if position != self._failed_at or (position is None and self._steady):
            self._backoff.reset()
        self._failed_at = position
        self._failures += 1

    def _note(self, failure: Failure) -> None:
        if isinstance(failure.value, CancelledError):
            self._error = "CancelledError: something that it waited for was cancelled by others"
        else:
            text = f"{type(failure.value).__name__}: {failure.getErrorMessage()}"
            self._error = printable(text.removesuffix(": "))
        self._shown.last_error = self._error
        self._shown.last_error_at = self._now()

    def _again(self) -> None:
        self._timer = None
        if self._failed_at is not None and self._failures >= TRIES and self._may_step_over():
            self._go(Event.STEP)
            self._begin(self._step_over())
        else:
            self._go(Event.AGAIN)
            self._run()

    def _may_step_over(self) -> bool:
        try:
            return bool(self._follower.steps_over)
        except Exception:  # noqa: BLE001  # as with its position
            return False

    # In coroutines of their own, so that what is raised before anything is awaited is a failure like any other.

    async def _step_over(self) -> None:
        await self._follower.step_over()

    async def _finish(self) -> None:
        await self._follower.finish()

    def _stepped(self) -> None:
        assert self._failed_at is not None
        self._shown.stepped_over += 1
        self._shown.positions.append(self._failed_at)
        message = "{name} has failed {tries} times at {position} and steps over what was received there: {error}"
        self.log.error(
            message, name=self._shown.name, tries=self._failures, position=str(self._failed_at), error=self._error
        )
        self._failed_at = None
        self._failures = 0
        self._backoff.reset()
        self._error = ""
        self._go(Event.STEPPED)
        self._run()

    # -- the stop

    def stop(self) -> Deferred[None]:
        """Fires when it has ended, or was given up."""
        done: Deferred[None] = Deferred()
        self._waiters.append(done)
        state = self._shown.state
        if (state, Event.STOP) in NEXT:
            self._go(Event.STOP)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._work is not None and state in (State.RUNNING, State.STEPPING):
            self._work.cancel()
        self._tell_if_stopped()
        return done

    def _run_ended(self, result: object) -> None:
        self._go(Event.ENDED)
        if isinstance(result, Failure) and isinstance(result.value, CancelledError):
            self._begin(self._finish())
            return
        if isinstance(result, Failure):
            self.log.failure("{name} failed while it was stopped", result, name=self._shown.name)
        self._finished(None)

    def _finished(self, result: object) -> None:
        if isinstance(result, Failure) and not isinstance(result.value, CancelledError):
            message = "{name} could not save where it is, and reads some of the journal again: {error}"
            self.log.failure(message, result, name=self._shown.name, error=result.getErrorMessage())
        self._go(Event.ENDED)
        self._tell_if_stopped()

    def give_up(self) -> None:
        """Wait no longer for its end."""
        if (self._shown.state, Event.GIVEN_UP) not in NEXT:
            return
        late = self._problem()
        self.log.error(
            "{name} does not end, and is left to itself: {why}", name=self._shown.name, why=late or "no answer"
        )
        self._go(Event.GIVEN_UP)
        if self._work is not None:
            self._work.cancel()
        self._tell_if_stopped()

    def _tell_if_stopped(self) -> None:
        if self._shown.state is State.STOPPED:
            waiters, self._waiters = self._waiters, []
            for done in waiters:
                done.callback(None)
