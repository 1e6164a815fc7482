"""The config is read when somebody asks, one reading at a time, and the last word is always read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from wafermon.daemon.reloader import NEXT, PAUSE_SECONDS, Event, Reloader, State
from wafermon.model.changes import CannotChange
from wafermon.model.errors import ConfigError, Fault


class Threads:
    """A reactor and its pool, whose calls are done when a test says so."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.calls: list[Callable[[], None]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.clock, name)

    def callFromThread(self, call: Callable[..., object], *arguments: object) -> None:
        call(*arguments)

    def callInThreadWithCallback(self, done: Callable[[bool, Any], None], call: Callable[..., Any], *more: Any) -> None:
        def work() -> None:
            try:
                result = call(*more)
            except Exception:  # noqa: BLE001  # as a thread pool does
                from twisted.python.failure import Failure

                done(False, Failure())
            else:
                done(True, result)

        self.calls.append(work)


class Place:
    """A config that can be read."""

    def __init__(self) -> None:
        self.threads = Threads()
        self.version = 0
        self.taken: list[int] = []
        self.error: Exception | None = None
        self.reloader = Reloader(Path("w.yaml"), self.read, self.take, self.threads, self.threads, lambda: 7)  # type: ignore[arg-type]

    def read(self) -> Any:
        return self.version

    def take(self, config: Any) -> Sequence[str]:
        if self.error is not None:
            raise self.error
        self.taken.append(config)
        return ["limits"]

    def work(self) -> None:
        self.threads.calls.pop(0)()


def test_it_is_read_when_it_is_asked_for() -> None:
    place = Place()
    place.version = 1
    place.reloader.request()
    place.work()
    assert place.taken == [1] and place.reloader.count == 1
    place.threads.clock.advance(10)
    assert place.threads.calls == [] and not place.threads.clock.getDelayedCalls()


def test_whoever_asks_while_it_is_read_has_it_read_again_after_a_pause_and_once() -> None:
    place = Place()
    place.reloader.request()
    for _ in range(5):
        place.reloader.request()
    assert len(place.threads.calls) == 1
    place.work()
    place.version = 2
    for _ in range(5):
        place.reloader.request()
    assert place.threads.calls == []
    place.threads.clock.advance(PAUSE_SECONDS)
    place.work()
    place.threads.clock.advance(10)
    assert place.taken == [0, 2] and place.threads.calls == []


@pytest.mark.parametrize(
    ("error", "said"),
    [(ConfigError([Fault("limits", "bad")]), ("limits: bad",)), (CannotChange("no port"), ("w.yaml: no port",))],
)
def test_what_is_refused_is_kept_until_one_is_accepted(error: Exception, said: tuple[str, ...]) -> None:
    place = Place()
    place.error = error
    place.reloader.request()
    place.work()
    assert place.reloader.refused is not None
    assert place.reloader.refused.faults == said and place.reloader.refused.at == 7
    place.error = None
    place.threads.clock.advance(PAUSE_SECONDS)
    place.reloader.request()
    place.work()
    assert place.reloader.refused is None and place.taken == [0]


def test_a_fault_of_its_own_ends_nothing() -> None:
    place = Place()
    place.error = KeyError("x")
    place.reloader.request()
    place.work()
    place.error = None
    place.threads.clock.advance(PAUSE_SECONDS)
    place.reloader.request()
    place.work()
    assert place.taken == [0]


def test_after_a_stop_nothing_is_put_in_force() -> None:
    from twisted.internet.defer import Deferred

    place = Place()
    place.reloader.request()
    stopped: list[None] = []
    Deferred.fromCoroutine(place.reloader.stop()).addCallback(stopped.append)
    assert stopped == []
    place.work()
    assert stopped == [None] and place.taken == []
    place.reloader.request()
    place.threads.clock.advance(10)
    assert place.threads.calls == []


def test_a_stop_in_the_pause_leaves_no_timer() -> None:
    from twisted.internet.defer import Deferred

    place = Place()
    place.reloader.request()
    place.work()
    stopped: list[None] = []
    Deferred.fromCoroutine(place.reloader.stop()).addCallback(stopped.append)
    assert stopped == [None] and not place.threads.clock.getDelayedCalls()


def test_every_event_is_known_wherever_it_may_come() -> None:
    assert {state for state, _ in NEXT} == set(State)
    for state in State:
        assert (state, Event.ASK) in NEXT and (state, Event.STOP) in NEXT
