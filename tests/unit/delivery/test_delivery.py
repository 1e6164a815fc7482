"""Whatever a backend does, each message is stored once, or named; and a delivery never just stops."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any

import pytest
from deliveries import LONGEST, TIMEOUT, Running
from memory_backend import MemoryBackend, MemoryPlace
from memory_journal import NOW
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, fail

from wafermon import routing
from wafermon.delivery import Delivery, Workers
from wafermon.delivery.delivery import NEXT, UNKNOWN_TRIES, Event, Lag, State
from wafermon.interfaces import (
    Batch,
    Health,
    Position,
    RetryableError,
    Superseded,
)
from wafermon.model.settings import BatchLimits, Retry

ERRORS: list[Callable[[], Exception]] = [
    lambda: OSError(28, "No space left on device"),
    lambda: RuntimeError("a plugin's own"),
    lambda: CancelledError(),
    lambda: TimeoutError(),
    lambda: RetryableError("down"),
    lambda: KeyError("x"),
]
ODD = pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error()).__name__)
OUTSTANDING = pytest.mark.parametrize("outstanding", [1, 3])


@OUTSTANDING
def test_everything_is_delivered_once_and_in_order(outstanding: int) -> None:
    running = Running(outstanding).start()
    for first in range(1, 101, 10):
        running.put(first, first + 9)
    assert running.stored() == list(range(1, 101))
    assert running.delivery.health().state == "ok"
    assert running.delivery.lag == Lag()
    assert running.delivery.figures.messages == 100
    assert running.delivery.figures.batches == 10
    assert running.place.position is not None and running.journal.cursors["one"].kept == running.place.writes[-1].end


# The sweep: every call that can fail fails once, and hangs once.


@OUTSTANDING
@ODD
@pytest.mark.parametrize("call", ["open", "write"])
def test_a_call_of_the_backend_that_fails_once(outstanding: int, error: Callable[[], Exception], call: str) -> None:
    running = Running(outstanding)
    running.place.fail_next(call, error())
    running.start()
    for first in range(1, 61, 10):
        running.put(first, first + 9)
    running.wait(LONGEST)
    assert running.stored() == list(range(1, 61))
    assert running.dead() == []
    assert running.delivery.error == "" and running.delivery.figures.last_error
    assert running.supervisor.states["one"].restarts == 0


@OUTSTANDING
@ODD
@pytest.mark.parametrize("call", ["read", "rewind", "put", "received"])
def test_a_call_of_others_that_fails_once(outstanding: int, error: Callable[[], Exception], call: str) -> None:
    running = Running(outstanding, poison=b'"m7"')
    faults = running.letters.faults if call == "put" else running.journal.faults
    faults.fail_next(call, error())
    if call == "received":
        running.place.fail_next("open", RetryableError("so that it asks"))
    running.start()
    for first in range(1, 61, 10):
        running.put(first, first + 9)
    running.wait(3 * LONGEST)
    assert running.stored() == [n for n in range(1, 61) if n != 7]
    assert running.dead() == [7]
    assert running.delivery.error == ""


@OUTSTANDING
@pytest.mark.parametrize("answer", [None, OSError(5, "Input/output error"), CancelledError()], ids=repr)
@pytest.mark.parametrize("call", ["open", "write"])
def test_a_call_that_hangs_shows_as_failing_and_is_waited_for(
    outstanding: int, call: str, answer: Exception | None
) -> None:
    running = Running(outstanding)
    hangs: Deferred[Any] = Deferred()
    running.place.fail_next(call, hangs)
    running.start()
    running.put(1, 10)
    running.put(11, 20)
    calls = len(running.place.calls)
    running.wait(TIMEOUT)
    assert running.delivery.health().state == "failing"
    assert f"{call}: no answer for 6" in running.delivery.health().detail
    running.wait(10 * TIMEOUT)
    assert f"{call}: no answer for 66" in running.delivery.problem
    assert len(running.place.calls) == calls, "nothing else is asked meanwhile"
    hangs.callback(running.place.position) if answer is None else hangs.errback(answer)
    running.put(21, 30)
    running.wait(2 * LONGEST)
    assert running.stored() == list(range(1, 31))
    assert running.delivery.health().state == "ok"


@pytest.mark.parametrize("call", ["read", "rewind", "put"])
def test_what_hangs_elsewhere_is_waited_for(call: str) -> None:
    running = Running(poison=b'"m7"')
    hangs: Deferred[None] = Deferred()
    (running.letters.faults if call == "put" else running.journal.faults).fail_next(call, hangs)
    running.start()
    running.put(1, 10)
    running.wait(100.0)
    assert running.dead() == []
    assert set(running.stored()) <= set(range(1, 7)), "nothing past a message that is not yet named"
    hangs.callback(None)
    running.wait(LONGEST)
    assert running.stored() == [n for n in range(1, 11) if n != 7]
    assert running.dead() == [7]


# Failures that pass


def test_what_fails_is_tried_for_ever_with_growing_waits() -> None:
    running = Running(down="the database is down").start(retry=Retry(initial=0.1, max=30.0))
    times: list[float] = []
    before = 0
    running.put(1, 5)
    for _ in range(2000):
        running.wait(0.1)
        if len(running.place.writes) > before:
            before = len(running.place.writes)
            times.append(running.clock.seconds())
    waits = [round(later - earlier) for earlier, later in itertools.pairwise(times)]
    assert waits[-3:] == [30, 30, 30]
    assert waits == sorted(waits) and max(waits) == 30
    assert running.delivery.health() == Health("failing", "the database is down")
    assert running.delivery.figures.retries == len(running.place.writes)
    assert running.delivery.figures.error_since >= NOW
    running.place.down = ""
    running.wait(LONGEST)
    assert running.stored() == [1, 2, 3, 4, 5] and running.delivery.error == ""
    running.place.down = "again"
    running.put(6, 6)
    assert len(running.place.writes) - before > 3, "the waits begin short again"


def test_the_same_unknown_error_ten_times_in_a_row_is_a_refusal_and_a_cancel_never() -> None:
    running = Running()
    running.place.fail_next("write", *[ValueError("odd") for _ in range(UNKNOWN_TRIES)])
    running.start()
    running.put(1, 1)
    running.wait(200.0)
    assert running.dead() == [1] and running.letters.letters[0].reason == "ValueError: odd"
    for passing in (CancelledError, lambda: RetryableError("x"), lambda: Superseded("x")):
        running.place.fail_next("write", *[passing() for _ in range(3 * UNKNOWN_TRIES)])
        running.put(2, 2)
        running.wait(3 * UNKNOWN_TRIES * LONGEST)
        assert running.dead() == [1]
    nine = [ValueError("odd") for _ in range(UNKNOWN_TRIES - 1)]
    running.place.fail_next("write", *nine, ValueError("other"), *nine)
    running.put(3, 3)
    running.wait(2 * UNKNOWN_TRIES * LONGEST)
    assert running.dead() == [1] and running.stored() == [2, 2, 2, 3]


# Several at a time


def test_so_many_batches_are_under_way_as_the_backend_takes() -> None:
    running = Running(3, held=True).start()
    running.journal.put(range(1, 101))
    running.wait(5.0)
    assert running.sizes() == [10, 10, 10]
    assert running.delivery.lag.messages >= 100
    running.place.release()
    running.wait(5.0)
    assert running.stored() == list(range(1, 101))


def test_after_a_failure_it_is_one_at_a_time_until_that_batch_is_stored() -> None:
    running = Running(3, held=True).start()
    running.place.fail_next("write", RetryableError("once"))
    running.journal.put(range(1, 61))
    running.wait(5.0)
    states = [running.delivery.state]
    running.place.release()
    running.clock.advance(0)
    states.append(running.delivery.state)
    running.place.held = True
    running.wait(5.0)
    assert states == [State.DELIVERING, State.ALONE]
    assert running.sizes() == [10, 10, 10, 10], "the first one again, alone"
    assert running.place.writes[3].start == running.place.writes[0].start
    running.place.release()
    running.wait(5.0)
    assert running.stored() == list(range(1, 61))
    assert running.place.writes[4].start == running.place.writes[1].start


def test_a_backend_that_stores_out_of_order_is_asked_where_it_stands() -> None:
    class Hasty(MemoryBackend):
        """Fails the first batch after it has stored the second."""

        def write(self, batch: Batch) -> Deferred[None]:
            if self.place.writes:
                return super().write(batch)
            self.place.writes.append(batch)
            return first

    first: Deferred[None] = Deferred()
    running = Running(2)
    running.build = lambda config: Hasty(running.place)
    running.start()
    running.journal.put(range(1, 21))
    running.wait(1.0)
    assert running.stored() == list(range(11, 21))
    first.errback(RetryableError("and yet the younger one is stored"))
    running.wait(LONGEST)
    assert running.place.calls.count("open") == 2
    running.put(21, 30)
    assert running.stored() == list(range(11, 31))


# Batches


def test_batches_are_cut_by_count_bytes_and_age() -> None:
    running = Running().start(batch=BatchLimits(messages=4, bytes=0, age=2.0))
    running.journal.put(range(1, 11))
    running.wait(1.0)
    assert running.sizes() == [4, 4]
    running.wait(2.0)
    assert running.sizes() == [4, 4, 2]
    running = Running().start(batch=BatchLimits(messages=0, bytes=200, age=2.0))
    running.journal.put(range(1, 4), size=150)
    running.wait(0.5)
    assert running.sizes() == [3], "a group's messages that stand together count as one piece"


def test_a_batch_says_when_and_where_its_messages_were_received() -> None:
    running = Running().start(batch=BatchLimits(messages=10, age=5.0))
    running.journal.put(range(1, 4))
    running.wait(1.0)
    running.journal.put(range(4, 6))
    running.wait(10.0)
    [batch] = running.place.writes
    times = [group.time for group in running.journal.groups]
    assert batch.received == (times[0], times[1]) and times[0] < times[1]
    first, second = running.journal.groups
    assert batch.position(0) == first.start and batch.position(3) == second.start
    line = batch.lines[0]
    assert batch.position(1) == first.start._replace(offset=len(line) + 1)


# The supervisor


def test_a_fault_in_reading_begins_it_again_from_what_is_kept() -> None:
    running = Running().start()
    running.put(1, 10)
    running.journal.faults.fail_next("read", KeyError("a fault of our own"))
    running.put(11, 20)
    assert running.delivery.health().state == "failing" or running.supervisor.states["one"].restarts == 1
    running.wait(2 * LONGEST)
    running.put(21, 30)
    assert running.stored() == list(range(1, 31))
    assert running.supervisor.states["one"].restarts == 1


def test_it_is_begun_again_only_once_the_backend_has_answered() -> None:
    running = Running().start()
    hangs: Deferred[None] = Deferred()
    running.place.fail_next("write", hangs)
    running.put(1, 10)
    running.journal.faults.fail_next("read", KeyError("a fault of our own"))
    running.put(11, 20)
    running.wait(10 * LONGEST)
    assert running.place.calls == ["open", "write"]
    hangs.errback(OSError("at last"))
    running.wait(LONGEST)
    assert running.place.calls[:3] == ["open", "write", "open"]
    assert running.stored() == list(range(1, 21))


def test_a_delivery_never_steps_over() -> None:
    running = Running().start()
    running.journal.faults.fail_next("read", *[KeyError("again") for _ in range(10)])
    running.put(1, 10)
    running.wait(20 * LONGEST)
    assert running.stored() == list(range(1, 11))
    assert running.supervisor.states["one"].stepped_over == 0


# What others see


def test_a_backend_whose_health_raises_is_failing() -> None:
    class Sick(MemoryBackend):
        def health(self) -> Health:
            raise ZeroDivisionError("oh")

    running = Running()
    running.build = lambda config: Sick(running.place)
    running.start()
    assert running.delivery.health().state == "failing"


def test_version_1_backends_work() -> None:
    class Old:
        def __init__(self, place: MemoryPlace) -> None:
            self._inner = MemoryBackend(place)

        def open(self) -> Deferred[Position | None]:
            return self._inner.open()

        def write(self, batch: Batch) -> Deferred[None]:
            return self._inner.write(batch)

        def close(self) -> Deferred[None]:
            return self._inner.close()

        def health(self) -> Health:
            return self._inner.health()

    running = Running(poison=b'"m3"')
    running.build = lambda config: Old(running.place)
    running.start()
    running.put(1, 10)
    running.wait(5.0)
    assert running.delivery.outstanding == 1 and running.delivery.exactly_once
    assert running.stored() == [1, 2, *range(4, 11)] and running.dead() == [3]


def test_lag_is_in_messages_bytes_and_seconds() -> None:
    running = Running(held=True).start()
    running.journal.put(range(1, 6))
    running.wait(7.0)
    lag = running.delivery.lag
    assert lag.messages == 5 and lag.bytes == running.journal.end.offset
    assert lag.seconds == pytest.approx(7.0, abs=0.01)
    running.place.release()
    running.wait(0.1)
    assert running.delivery.lag == Lag()


@OUTSTANDING
def test_what_is_tried_again_lags(outstanding: int) -> None:
    running = Running(outstanding, poison=b'"m3"').start()
    running.place.down = "down"
    running.journal.put(range(1, 26))
    running.wait(50.0)
    for _ in range(100):
        running.wait(0.3)
        assert running.delivery.lag.messages >= 25, "between two tries too"
        assert running.delivery.lag.bytes == running.journal.end.offset
        assert running.delivery.position == running.journal.groups[0].start
    running.place.down = ""
    running.letters.faults.fail_next("put", hangs := Deferred[None]())
    running.wait(LONGEST)
    assert running.stored() == [1, 2] and running.delivery.lag.messages == 23
    hangs.callback(None)
    running.wait(5.0)
    assert running.delivery.lag == Lag() and running.delivery.position is None


def test_lag_is_known_while_the_backend_can_not_be_opened() -> None:
    running = Running()
    running.journal.places["one"] = running.journal.end
    running.journal.put(range(1, 6))
    running.place.fail_next("open", *[OSError("not there") for _ in range(3)])
    running.start()
    running.clock.advance(0.05)
    assert running.delivery.lag.bytes == running.journal.end.offset
    assert running.delivery.lag.messages > 0


def test_drain_fires_when_what_is_there_now_is_delivered() -> None:
    running = Running().start(batch=BatchLimits(age=1000.0))
    running.journal.put(range(1, 6))
    running.wait(5.0)
    assert running.stored() == []
    drained: list[None] = []
    running.delivery.drain().addCallback(drained.append)
    running.wait(1.0)
    assert running.stored() == [1, 2, 3, 4, 5] and drained == [None]
    again = running.delivery.drain()
    assert again.called


def test_all_transitions_lead_somewhere_and_closed_is_the_end() -> None:
    assert {state for state, _ in NEXT} == set(State) - {State.CLOSED}
    assert {event for _, event in NEXT} == set(Event)
    assert not [event for state, event in NEXT if state is State.CLOSED]


def test_a_backend_that_answers_at_once_and_wrongly_does_not_end_it() -> None:
    running = Running()
    running.place.fail_next("write", fail(OSError("at once")))
    running.start()
    running.put(1, 3)
    running.wait(LONGEST)
    assert running.stored() == [1, 2, 3]


def test_a_thread_that_a_closed_backend_leaves_behind_hangs_nobody() -> None:
    """`close` is to fire when nothing runs any more; a third party's may fire too soon."""
    running, workers, released = Running(), Workers(0, 1, "one"), threading.Event()
    delivery = Delivery(
        running.config("one"), MemoryBackend(running.places["one"]), running.journal, running.letters, routing.load,  # type: ignore[arg-type]
        running.clock, workers,
    )  # fmt: skip
    delivery.start()
    workers.callInThread(released.wait)
    rescue = threading.Timer(10, released.set)
    rescue.start()
    closed = [Deferred.fromCoroutine(delivery.end()), Deferred.fromCoroutine(delivery.close())]
    assert all(one.called for one in closed)
    assert delivery.state is State.CLOSED
    assert not released.is_set()
    rescue.cancel()
    released.set()
