"""What the log says of deliveries, word for word."""

from __future__ import annotations

import logged
from deliveries import Running

from wafermon.delivery.refusals import MOST
from wafermon.model.settings import Retry


def test_a_backend_that_fails_and_works_again() -> None:
    running = Running().start()
    with logged.said() as said:
        running.place.down = "no route to host"
        running.put(1, 5)
        running.wait(1.0)
        running.place.down = ""
        running.wait(60.0)
    assert said[0] == "error: one can't take a batch, trying again: no route to host"
    assert said[1].startswith("info: one works again after ") and len(said) == 2


def test_one_that_can_not_be_opened() -> None:
    running = Running()
    running.place.fail_next("open", OSError("no such host"))
    with logged.said() as said:
        running.start()
        running.wait(60.0)
    assert said[0] == "error: one can't be opened, trying again: no such host"


def test_what_is_refused_becomes_dead_letters() -> None:
    running = Running().start()
    running.place.poison = b'"m3"'
    with logged.said() as said:
        running.put(1, 5)
        running.wait(60.0)
    assert said == ["error: one refuses messages, now dead letters: 1, the last because of: b'\"m3\"' can't be stored"]
    assert running.dead() == [3]


def test_one_that_refuses_message_after_message() -> None:
    running = Running().start(retry=Retry(give_up=100.0))
    running.place.poison = b'"m'
    with logged.said() as said:
        running.put(1, MOST + 5)
        running.wait(30.0)
    suspect = "it refuses message after message, and has taken none since: b'\"m' can't be stored"
    assert f"error: one refuses message after message, trying again: {suspect}" in said
    assert len(running.dead()) == MOST
    running.wait(200.0)
    assert len(running.dead()) > MOST, "after `give_up` one is set aside with each wait"


def test_one_that_goes_and_keeps_its_place_or_not() -> None:
    running = Running().start()
    running.put(1, 5)
    with logged.said() as said:
        running.take()
        running.wait(1.0)
    place = running.journal.stored("one")
    assert said == [
        f"warn: one is gone; its cursor stays, and holds the journal from {place} on until it comes back, or until "
        "`wafermon journal forget one`"
    ]
    running = Running().start(on_remove="discard")
    with logged.said() as said:
        running.take()
        running.wait(1.0)
    assert said == ["info: one is gone, and its cursor with it"]


def test_one_that_is_left_behind_at_the_stop() -> None:
    from twisted.internet.defer import Deferred

    running = Running().start()
    hangs: Deferred[None] = Deferred()
    running.place.fail_next("write", hangs)
    running.put(1, 5)
    with logged.said() as said:
        running.stop(grace=2.0, ending=3.0)
        running.wait(6.0)
    assert said == [
        "info: one keeps what is pending for the next start",
        "error: one is left running: write: no answer for 6 s",
    ]
    hangs.callback(None)
    running.wait(1.0)
