"""What a backend refuses: it is found, named and set aside; and a backend that refuses everything counts as failing."""

from __future__ import annotations

from typing import Any

import pytest
from deliveries import GIVE_UP, LONGEST, Running
from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher

from wafermon.delivery.refusals import MOST
from wafermon.interfaces import PermanentError, Refused
from wafermon.model.settings import BatchLimits, Retry

OUTSTANDING = pytest.mark.parametrize("outstanding", [1, 3])


@OUTSTANDING
def test_a_message_that_is_refused_is_found_by_halves_and_named(outstanding: int) -> None:
    running = Running(outstanding, poison=b'"m13"').start()
    running.journal.put(range(1, 41))
    running.wait(10.0)
    assert running.stored() == [n for n in range(1, 41) if n != 13]
    [letter] = running.letters.letters
    assert (letter.code, letter.backend) == ("refused", "one")
    assert letter.reason == "b'\"m13\"' can't be stored"
    assert letter.position == running.journal.groups[0].start._replace(
        offset=running.journal.groups[0].blocks[0][1].raw.index(b"\n", running.journal.groups[0].blocks[0][1].raw.index(b'"m12"')) + 1
    )  # fmt: skip
    assert running.delivery.figures.dead_letters == 1 and running.delivery.figures.messages == 39


@OUTSTANDING
def test_messages_that_are_named_become_dead_letters_and_the_rest_comes_again_with_the_same_ends(
    outstanding: int,
) -> None:
    running = Running(outstanding, unfit=b'3"').start()
    running.journal.put(range(1, 21))
    running.wait(10.0)
    assert running.stored() == [n for n in range(1, 21) if n not in (3, 13)]
    assert running.dead() == [3, 13]
    first, again = [batch for batch in running.place.writes if batch.start == running.journal.groups[0].start][-2:]
    assert (first.start, first.end) == (again.start, again.end)
    assert (first.count, again.count) == (10, 9)


def test_nothing_is_set_aside_while_a_later_batch_is_durable() -> None:
    running = Running(3, poison=b'"m5"', held=True).start()
    for first in (1, 11, 21):
        running.put(first, first + 9)
    assert running.sizes() == [10, 10, 10]
    hangs: Deferred[None] = Deferred()
    running.letters.faults.fail_next("put", hangs)
    running.place.release()
    running.wait(5.0)
    assert running.stored() == [1, 2, 3, 4], "up to the message that is being set aside"
    hangs.callback(None)
    running.wait(5.0)
    assert running.stored() == [n for n in range(1, 31) if n != 5]


def test_a_refusal_that_names_everything_or_nonsense_is_no_more_than_a_refusal() -> None:
    running = Running().start()
    running.place.fail_next("write", Refused({0: "a", 1: "b"}))
    running.put(1, 2)
    assert running.stored() == [1, 2] and running.dead() == [], "halves were tried before anything is set aside"
    for nonsense in ({}, {7: "out of range"}, {-1: "x"}):
        running.place.fail_next("write", Refused(nonsense))
        running.put(3, 4)
        running.wait(LONGEST)
    assert running.stored() == [1, 2, 3, 4, 3, 4, 3, 4] and running.dead() == []
    running.place.fail_next("write", Refused({0: "alone"}))
    running.put(5, 5)
    assert running.dead() == [5]


def test_an_empty_batch_that_is_refused_is_tried_again() -> None:
    running = Running()
    running.place.fail_next("write", PermanentError("poison"), PermanentError("not even that"), Refused({0: "x"}))
    running.start()
    running.put(1, 1)
    running.wait(LONGEST)
    running.put(2, 2)
    assert running.dead() == [1] and running.stored() == [2]


def test_a_backend_that_refuses_everything_counts_as_failing() -> None:
    running = Running(poison=b"event").start()
    running.journal.put(range(1, 41))
    running.wait(5.0)
    assert running.dead() == list(range(1, MOST + 1)), "twenty are believed"
    running.wait(GIVE_UP - 60.0)
    assert len(running.dead()) == MOST
    assert running.delivery.health().state == "failing"
    assert "refuses message after message" in running.delivery.health().detail
    running.wait(120.0)
    then = len(running.dead())
    assert MOST < then <= MOST + 6, "one each backoff"
    running.wait(10 * LONGEST)
    assert then + 9 <= len(running.dead()) <= then + 11
    assert running.delivery.health().state == "failing"
    running.place.poison = b""
    running.wait(2 * LONGEST)
    assert running.stored() == [n for n in range(1, 41) if n not in running.dead()]
    assert running.delivery.health().state == "ok"


def test_a_backend_that_takes_messages_again_loses_none_that_waited() -> None:
    running = Running(poison=b"event").start()
    running.journal.put(range(1, 41))
    running.wait(100.0)
    running.place.poison = b""
    running.wait(LONGEST)
    assert running.dead() == list(range(1, MOST + 1))
    assert running.stored() == list(range(MOST + 1, 41))


def test_give_up_0_waits_for_ever() -> None:
    running = Running(poison=b"event").start(retry=Retry(give_up=0.0))
    running.journal.put(range(1, 31))
    running.wait(10 * GIVE_UP, step=1.0)
    assert len(running.dead()) == MOST


def test_many_refusals_with_something_accepted_between_are_believed() -> None:
    running = Running(poison=b'1"').start()
    running.journal.put(range(1, 400))
    running.wait(20.0)
    assert running.dead() == [n for n in range(1, 400) if n % 10 == 1]
    assert len(running.stored()) == 399 - 40 and running.delivery.health().state == "ok"


def test_refusals_are_told_at_once_and_then_once_in_a_while() -> None:
    told: list[Any] = []

    def observe(event: Any) -> None:
        if "refuses messages, now dead letters" in (event.get("log_format") or ""):
            told.append(event["count"])

    globalLogPublisher.addObserver(observe)  # type: ignore[arg-type]  # a function is one
    try:
        running = Running(poison=b'1"').start(batch=BatchLimits(messages=1000, age=0.05))
        for n in range(30):
            running.journal.put(range(n * 10, n * 10 + 10))
            running.wait(1.0)
    finally:
        globalLogPublisher.removeObserver(observe)  # type: ignore[arg-type]
    assert told[0] == 1 and len(told) == 3, "ten seconds lie between two"
    assert all(9 <= count <= 11 for count in told[1:])
    assert len(running.dead()) == 30


def test_a_batch_is_sent_when_its_oldest_message_is_old_enough_and_not_before() -> None:
    running = Running().start(batch=BatchLimits(age=2.0))
    running.journal.put(range(1, 2))
    running.wait(1.0)
    running.journal.put(range(2, 3))
    running.wait(0.9)
    assert running.stored() == []
    running.wait(0.2)
    assert running.stored() == [1, 2]
    running.journal.put(range(3, 4))
    running.wait(1.9)
    assert running.stored() == [1, 2]
    running.wait(0.2)
    assert running.stored() == [1, 2, 3]
