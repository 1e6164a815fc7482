"""Backends come, change and go: at most one works under a name, nothing is lost, and only the stop gives one up."""

from __future__ import annotations

from typing import Any

import pytest
from deliveries import LONGEST, TIMEOUT, Running
from memory_backend import MemoryBackend
from twisted.internet.defer import CancelledError, Deferred

from wafermon.delivery.deliveries import NEXT, Event, State
from wafermon.interfaces import Position, RetryableError
from wafermon.journal import CursorInUse, UnknownCursor
from wafermon.model.changes import CannotChange
from wafermon.model.settings import BatchLimits

OTHER = {"batch": BatchLimits(messages=9)}
"""Another config."""


def closes(running: Running) -> int:
    return running.place.calls.count("close")


# Another config


def test_a_backend_whose_config_changes_goes_on_where_it_was() -> None:
    running = Running().start()
    for n in range(10):
        running.put(n * 10 + 1, n * 10 + 10)
        running.take(running.config("one", batch=BatchLimits(messages=3 + n)))
    running.wait(5.0)
    assert running.stored() == list(range(1, 101))
    assert closes(running) == 10 and len(running.made) == 11


def test_the_same_config_changes_nothing() -> None:
    running = Running().start()
    running.take(running.config("one"))
    assert len(running.made) == 1 and closes(running) == 0


def test_counters_go_on_over_a_reload() -> None:
    running = Running(poison=b'"m3"').start()
    running.put(1, 10)
    running.wait(5.0)
    before = running.delivery.figures
    assert (before.messages, before.dead_letters) == (9, 1) and before.batches > 1
    running.take(running.config("one", **OTHER))
    running.wait(1.0)
    running.put(11, 20)
    assert running.delivery is running.made[1]
    assert running.delivery.figures.messages == 19 and running.delivery.figures.dead_letters == 1
    running.take()
    running.wait(1.0)
    assert dict(running.deliveries) == {}
    running.take(running.config("one"))
    running.put(21, 21)
    assert running.delivery.figures.messages == 20


@pytest.mark.parametrize("call", ["open", "write"])
def test_nothing_opens_in_its_place_before_a_call_that_hangs_has_ended(call: str) -> None:
    """A file backend that was still cutting its files back in a thread cut away what its successor had stored."""
    running = Running()
    hangs: Deferred[Any] = Deferred()
    running.place.fail_next(call, hangs)
    running.start()
    running.put(1, 10)
    running.take(running.config("one", **OTHER))
    running.put(11, 20)
    running.wait(10 * TIMEOUT)
    assert len(running.made) == 2 and running.place.calls.count("open") == 1
    assert running.delivery is running.made[0] and running.delivery.health().state == "failing"
    assert f"{call}: no answer for" in running.delivery.health().detail
    hangs.callback(None)
    running.wait(LONGEST)
    assert running.stored() == list(range(1, 21))
    assert running.delivery is running.made[1] and closes(running) == 1


def test_close_is_called_while_open_is_under_way() -> None:
    running = Running()
    running.place.fail_next("open", hangs := Deferred[Any]())
    running.start()
    running.wait(1.0)
    running.take(running.config("one", **OTHER))
    running.wait(1.0)
    assert running.place.calls == ["open", "close"], "it may end what is under way"
    hangs.errback(RetryableError("closed meanwhile"))
    running.wait(1.0)
    assert running.place.calls == ["open", "close", "open"]


def test_a_backend_of_version_1_is_not_closed_before_its_calls_have_ended() -> None:
    class Old(MemoryBackend):
        outstanding: Any
        exactly_once: Any

        def __init__(self, place: Any) -> None:
            super().__init__(place)
            del self.outstanding

    del_attr = MemoryBackend.exactly_once
    try:
        del MemoryBackend.exactly_once
        running = Running()
        running.build = lambda config: Old(running.place)
        running.place.fail_next("open", hangs := Deferred[Any]())
        running.start()
        running.take(running.config("one", **OTHER))
        running.wait(100.0)
        assert running.place.calls == ["open"]
        hangs.callback(None)
        running.wait(1.0)
        assert running.place.calls == ["open", "close", "open"]
    finally:
        MemoryBackend.exactly_once = del_attr


def test_a_close_that_hangs_is_waited_for() -> None:
    running = Running().start()
    running.put(1, 5)
    running.place.fail_next("close", hangs := Deferred[Any]())
    running.take(running.config("one", **OTHER))
    running.put(6, 10)
    running.wait(2 * TIMEOUT)
    assert running.delivery.health().detail.startswith("close: no answer for 12")
    assert running.place.calls.count("open") == 1 and running.stored() == [1, 2, 3, 4, 5]
    hangs.callback(None)
    running.wait(1.0)
    assert running.stored() == list(range(1, 11))


@pytest.mark.parametrize(
    "error", [OSError("no"), RuntimeError("no"), CancelledError()], ids=lambda error: type(error).__name__
)
def test_a_close_that_fails_holds_nobody_up(error: Exception) -> None:
    running = Running().start()
    running.place.fail_next("close", error)
    running.take(running.config("one", **OTHER))
    running.put(1, 5)
    assert running.stored() == [1, 2, 3, 4, 5]


def test_the_last_of_many_configs_counts() -> None:
    running = Running()
    running.place.fail_next("open", hangs := Deferred[Any]())
    running.start()
    for n in range(2, 7):
        running.take(running.config("one", batch=BatchLimits(messages=n)))
        running.wait(0.5)
    hangs.callback(None)
    running.put(1, 12)
    running.wait(2.0)
    assert running.stored() == list(range(1, 13)) and running.sizes() == [6, 6]
    assert running.place.calls.count("open") == 2


def test_a_backend_between_a_failure_and_its_next_run_can_be_replaced() -> None:
    running = Running().start()
    running.journal.faults.fail_next("read", KeyError("a fault of our own"))
    running.put(1, 5)
    running.journal.faults.fail_next("rewind", KeyError("another"))
    running.wait(1.0)
    running.take(running.config("one", **OTHER))
    running.wait(LONGEST)
    assert running.stored() == [1, 2, 3, 4, 5] and running.delivery is running.made[1]


def test_a_backend_that_can_not_be_built_is_refused_and_nothing_changes() -> None:
    running = Running(1, "one", "two").start()

    def broken(config: Any) -> Any:
        raise RuntimeError("no")

    running.build = broken
    with pytest.raises(CannotChange, match=r"backends.two: the backend can't be built: no"):
        running.deliveries.prepare({"one": running.config("one"), "two": running.config("two", **OTHER)})
    running.put(1, 3)
    assert running.stored("one") == running.stored("two") == [1, 2, 3]


def test_no_backend_waits_for_another() -> None:
    running = Running(1, "one", "two")
    running.places["one"].fail_next("write", Deferred())
    running.start()
    running.put(1, 10)
    assert running.stored("two") == list(range(1, 11))


# Gone from the config


def test_one_that_is_kept_holds_its_place_and_comes_back() -> None:
    running = Running().start()
    running.put(1, 5)
    running.place.down = "down"
    running.put(6, 10)
    running.take()
    running.wait(1.0)
    assert dict(running.deliveries) == {} and not running.deliveries.leaving
    assert running.journal.stored("one") == running.place.position and running.journal.forgotten == []
    running.place.down = ""
    running.take(running.config("one"))
    running.wait(1.0)
    assert running.stored() == list(range(1, 11))


def test_one_that_drains_gets_what_was_meant_for_it_and_is_forgotten() -> None:
    running = Running(down="down").start(on_remove="drain")
    running.put(1, 10)
    running.take()
    running.wait(100.0)
    assert list(running.deliveries.leaving) == ["one"] and "one" not in running.deliveries
    running.place.down = ""
    running.wait(LONGEST)
    assert running.stored() == list(range(1, 11))
    assert running.journal.forgotten == ["one"] and not running.deliveries.leaving and closes(running) == 1


def test_one_that_is_discarded_is_forgotten_at_once() -> None:
    running = Running(down="down").start(on_remove="discard")
    running.put(1, 10)
    running.take()
    running.wait(1.0)
    assert running.stored() == [] and running.journal.forgotten == ["one"] and closes(running) == 1


def test_one_that_comes_back_while_it_drains_goes_on() -> None:
    running = Running(down="down").start(on_remove="drain")
    running.put(1, 10)
    running.take()
    running.wait(1.0)
    running.take(running.config("one", **OTHER))
    running.place.down = ""
    running.put(11, 20)
    running.wait(LONGEST)
    assert running.stored() == list(range(1, 21)) and running.journal.forgotten == []
    assert "one" in running.deliveries


def test_one_that_goes_while_its_predecessor_ends_drains_afterwards() -> None:
    running = Running().start()
    running.place.fail_next("close", hangs := Deferred[Any]())
    running.put(1, 5)
    running.take(running.config("one", on_remove="drain", **OTHER))
    running.put(6, 10)
    running.take()
    running.wait(1.0)
    assert "one" not in running.deliveries and list(running.deliveries.leaving) == ["one"]
    hangs.callback(None)
    running.wait(2.0)
    assert running.stored() == list(range(1, 11)) and running.journal.forgotten == ["one"]
    assert not running.deliveries.leaving


def test_one_that_is_discarded_while_its_predecessor_ends_never_opens() -> None:
    running = Running().start()
    running.place.fail_next("close", hangs := Deferred[Any]())
    running.take(running.config("one", on_remove="discard", **OTHER))
    running.take()
    hangs.callback(None)
    running.wait(2.0)
    assert running.place.calls == ["open", "close"] and running.journal.forgotten == ["one"]


def test_a_drain_that_can_not_begin_ends_nothing() -> None:
    running = Running(down="down").start(on_remove="drain")
    running.put(1, 10)
    running.journal.faults.fail_next("settled", Deferred())
    running.take()
    running.wait(10.0)
    running.take(running.config("one"))
    running.place.down = ""
    running.wait(LONGEST)
    assert running.stored() == list(range(1, 11))


# Cursors without a backend


def forget(running: Running, name: str) -> Any:
    """What came of it: what the cursor held, or the error."""
    outcome: list[Any] = []
    Deferred.fromCoroutine(running.deliveries.forget(name)).addBoth(outcome.append)
    [found] = outcome
    return getattr(found, "value", found)


def test_a_cursor_without_a_backend_is_named_with_what_it_holds_and_can_be_forgotten() -> None:
    running = Running(1, "one", "two")
    running.journal.places["gone"] = running.journal.end
    running.start()
    running.put(1, 10)
    assert list(running.deliveries.orphans) == ["gone"]
    assert running.deliveries.orphans["gone"].holds.bytes == running.journal.end.offset
    assert "is a backend of the config" in str(forget(running, "one"))
    assert isinstance(forget(running, "nobody"), UnknownCursor)
    assert forget(running, "gone").bytes == running.journal.end.offset
    assert not running.deliveries.orphans and running.journal.forgotten == ["gone"]


def test_one_that_is_still_ending_has_a_backend() -> None:
    running = Running().start()
    running.place.fail_next("close", hangs := Deferred[Any]())
    running.take()
    running.wait(1.0)
    assert not running.deliveries.orphans
    assert isinstance(forget(running, "one"), CursorInUse)
    hangs.callback(None)
    running.wait(1.0)
    assert list(running.deliveries.orphans) == ["one"]
    assert forget(running, "one").bytes == 0
    running.take(running.config("one"))
    assert running.delivery.figures.batches == 0, "it begins anew"


# The stop


def test_a_stop_delivers_what_is_there() -> None:
    running = Running(1, "one", "two").start(batch=BatchLimits(age=1000.0))
    running.journal.put(range(1, 6))
    stopped = running.stop()
    running.wait(1.0)
    assert stopped == [None] and running.stored("one") == running.stored("two") == [1, 2, 3, 4, 5]
    assert closes(running) == 1 and dict(running.deliveries) == {}
    assert running.journal.stored("one") == running.place.position


def test_a_stop_waits_for_a_backend_that_is_down_no_longer_than_its_grace() -> None:
    running = Running(down="down").start()
    running.put(1, 5)
    stopped = running.stop(grace=5.0)
    running.wait(4.8)
    assert stopped == [] and closes(running) == 0
    running.wait(0.5)
    assert stopped == [None] and closes(running) == 1


@pytest.mark.parametrize(("call", "seconds"), [("open", 12.0), ("write", 12.0), ("close", 7.0)])
def test_a_stop_leaves_a_backend_that_hangs(call: str, seconds: float) -> None:
    """After its grace, where something is pending, and the time that it has to end."""
    running = Running()
    running.place.fail_next(call, hangs := Deferred[Any]())
    running.start()
    running.put(1, 5)
    stopped = running.stop(grace=5.0, ending=7.0)
    running.wait(seconds - 0.3)
    assert stopped == []
    running.wait(0.5)
    assert stopped == [None]
    hangs.callback(None)
    running.wait(1.0)


@pytest.mark.parametrize("call", ["open", "write"])
def test_what_has_hung_for_long_gets_no_grace(call: str) -> None:
    running = Running()
    running.place.fail_next(call, hangs := Deferred[Any]())
    running.start(timeout=30.0)
    running.put(1, 5)
    running.wait(31.0)
    stopped = running.stop(grace=5.0, ending=7.0)
    running.wait(6.7)
    assert stopped == []
    running.wait(0.5)
    assert stopped == [None]
    hangs.callback(None)
    running.wait(1.0)


def test_one_that_hangs_delays_no_other() -> None:
    running = Running(1, "one", "two").start()
    running.places["one"].fail_next("write", hangs := Deferred[Any]())
    running.put(1, 5)
    stopped = running.stop(grace=5.0, ending=7.0)
    running.wait(1.0)
    assert list(running.deliveries._slots) == ["one"]
    assert running.stored("two") == [1, 2, 3, 4, 5]
    assert stopped == []
    running.wait(11.3)
    assert stopped == [None]
    hangs.callback(None)
    running.wait(1.0)


def test_one_that_was_ending_before_the_stop_has_no_more_time_than_others() -> None:
    running = Running().start()
    running.place.fail_next("close", hangs := Deferred[Any]())
    running.take()
    running.wait(1.0)
    stopped = running.stop(grace=5.0, ending=7.0)
    running.wait(6.7)
    assert stopped == []
    running.wait(0.5)
    assert stopped == [None]
    hangs.callback(None)
    running.wait(1.0)


def test_a_batch_that_the_backend_has_is_waited_for() -> None:
    running = Running(held=True).start()
    running.put(1, 5)
    stopped = running.stop(grace=1.0, ending=20.0)
    running.wait(10.0)
    assert stopped == [] and closes(running) == 0
    running.place.release()
    running.wait(1.0)
    assert stopped == [None] and running.stored() == [1, 2, 3, 4, 5]
    assert running.journal.stored("one") == running.place.position


def test_a_stop_while_one_drains_and_one_is_replaced() -> None:
    running = Running(1, "one", "two").start(on_remove="drain")
    running.places["one"].down = running.places["two"].down = "down"
    running.put(1, 5)
    running.take(running.config("two", **OTHER))
    running.wait(1.0)
    stopped = running.stop(grace=2.0)
    running.wait(10.0)
    assert stopped == [None] and running.journal.forgotten == []
    assert isinstance(running.journal.stored("one"), Position)


def test_all_transitions_lead_somewhere_and_gone_is_the_end() -> None:
    assert {state for state, _ in NEXT} == set(State) - {State.GONE}
    assert {event for _, event in NEXT} == set(Event)
