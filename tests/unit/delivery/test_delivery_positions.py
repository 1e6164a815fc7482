"""Where a backend says that it stands: the delivery goes on there, and what is missing is named."""

from __future__ import annotations

from typing import Any

from deliveries import LONGEST, Running
from memory_journal import ID
from twisted.internet.defer import succeed

from wafermon.interfaces import Health, Position, PositionMoved, RetryableError


def test_a_backend_that_stands_further_is_followed_there() -> None:
    running = Running().start()
    running.put(1, 10)
    running.put(11, 20)
    later = running.journal.end
    running.journal.put(range(21, 31))
    running.place.position = running.journal.end
    running.place.fail_next("write", PositionMoved("it came through"))
    running.wait(LONGEST)
    running.put(31, 40)
    assert running.stored() == [*range(1, 21), *range(31, 41)]
    assert running.journal.cursors["one"].kept > later and running.delivery.missing == ""


def test_a_backend_that_was_set_back_gets_again_what_it_lost() -> None:
    running = Running().start()
    running.put(1, 10)
    kept = running.place.position
    running.put(11, 20)
    running.place.position = kept
    del running.place.lines[10:]
    running.place.fail_next("write", PositionMoved("restored from a backup"))
    running.put(21, 30)
    running.wait(LONGEST)
    assert running.stored() == list(range(1, 31))
    assert running.delivery.missing == "" and running.delivery.health() == Health("ok")


def test_what_the_journal_does_not_hold_any_more_is_named() -> None:
    running = Running().start()
    running.put(1, 10)
    kept = running.place.position
    running.put(11, 20)
    running.put(21, 30)
    running.journal.delete_before(running.journal.groups[1].end)
    running.place.position = kept
    running.place.lines.clear()
    running.place.fail_next("write", PositionMoved("restored from a backup"))
    running.put(31, 40)
    running.wait(LONGEST)
    assert running.stored() == list(range(21, 41))
    health = running.delivery.health()
    assert health.state == "ok" and str(kept) in health.detail and "is missing there" in health.detail


def test_a_backend_that_lost_everything_gets_what_there_is() -> None:
    running = Running().start()
    running.put(1, 10)
    running.put(11, 20)
    running.place.position = None
    running.place.lines.clear()
    running.place.fail_next("write", PositionMoved("an empty database"))
    running.put(21, 30)
    running.wait(LONGEST)
    assert running.stored() == list(range(1, 31))


def test_a_backend_that_moves_again_and_again_is_not_asked_without_a_pause() -> None:
    running = Running().start()
    running.place.fail_next("write", *[PositionMoved("again") for _ in range(1000)])
    running.put(1, 10)
    running.wait(100.0)
    assert 5 < running.place.calls.count("open") < 20
    assert running.delivery.health().state == "failing"


def test_a_position_beyond_the_end_is_another_journals_with_the_same_id() -> None:
    """However long the journal becomes: what is at these places is not what the backend has."""
    running = Running()
    running.journal.places["one"] = running.journal.end
    running.place.position = Position(ID, 9, 9)
    running.journal.put(range(1, 6))
    running.start()
    running.wait(60.0)
    assert running.stored() == []
    assert running.place.calls.count("open") > 2
    health = running.delivery.health()
    assert health.state == "failing" and "wafermon journal renew" in health.detail


def test_after_a_renewal_a_position_of_before_is_this_journals() -> None:
    running = Running()
    running.journal.formerly = {"0" * 16: 1}
    running.journal.put(range(1, 4))
    running.place.position = running.journal.end._replace(journal="0" * 16)
    running.journal.places["one"] = running.journal.groups[0].start
    running.journal.open_anew()
    running.journal.put(range(4, 6))
    running.start()
    running.wait(1.0)
    assert running.stored() == [4, 5] and running.delivery.missing == ""


def test_what_this_process_has_sent_lies_beyond_the_end_of_the_start() -> None:
    """Also where the backend had nothing at its first answer, and where its config goes and comes back."""
    running = Running().start()
    running.put(1, 10)
    running.place.fail_next("write", PositionMoved("a fail-over"))
    running.put(11, 20)
    running.wait(LONGEST)
    assert running.stored() == list(range(1, 21))
    running.take()
    running.start()
    running.put(21, 30)
    running.wait(LONGEST)
    assert running.stored() == list(range(1, 31)) and running.delivery.health().state == "ok"


def test_after_a_renewal_a_position_of_the_original_says_nothing() -> None:
    running = Running()
    running.journal.formerly = {"0" * 16: 1}
    running.journal.put(range(1, 4))
    running.journal.places["one"] = running.journal.end
    running.place.position = Position("0" * 16, 9, 9)
    running.journal.put(range(4, 6))
    running.start()
    running.wait(1.0)
    assert running.stored() == [4, 5]


def test_a_position_that_this_journal_does_not_know() -> None:
    position = Position("0" * 16, 7, 7)
    running = Running()
    running.journal.places["one"] = running.journal.end
    running.place.position = position
    running.journal.put(range(1, 6))
    running.start()
    running.wait(1.0)
    assert running.stored() == [1, 2, 3, 4, 5]
    assert str(position) in running.delivery.missing


def test_what_lies_before_the_journals_oldest_is_noted_as_missing_from_where_the_backend_stood() -> None:
    running = Running()
    stood = running.journal.end
    running.journal.put(range(1, 4))
    running.journal.oldest = running.journal.places["one"] = running.journal.end
    running.place.position = stood
    running.journal.open_anew()
    running.start()
    running.put(4, 5)
    assert running.stored() == [4, 5] and str(stood) in running.delivery.missing
    assert running.journal.skipped == [("one", stood, running.journal.oldest)]


def test_a_failing_delivery_shows_the_backends_figures_all_the_same() -> None:
    running = Running()
    real = running.build

    def build(config: Any) -> Any:
        backend = real(config)
        backend.health = lambda: Health("ok", "", {"rows": 7})
        return backend

    running.build = build
    running.start()
    running.place.down = "the database is down"
    running.put(1, 3)
    assert running.delivery.health() == Health("failing", "the database is down", {"rows": 7})


def test_the_age_of_the_backlog_is_known_before_the_backend_opens() -> None:
    running = Running()
    running.journal.places["one"] = running.journal.end
    running.journal.put(range(1, 4))
    running.place.fail_next("open", *[RetryableError("down")] * 20)
    running.start()
    running.wait(60.0)
    assert running.place.position is None
    assert 59.0 <= running.delivery.lag.seconds <= 61.0


def test_what_was_accepted_before_a_backend_came_is_not_for_it() -> None:
    running = Running()
    running.journal.put(range(1, 6))
    running.place.position = running.journal.groups[0].start
    running.start()
    running.put(6, 8)
    assert running.stored() == [6, 7, 8] and running.delivery.missing == ""


def test_an_answer_that_is_no_position_is_a_failure() -> None:
    running = Running()
    running.place.fail_next("open", succeed("yesterday"))
    running.start()
    assert "open answered str" in running.delivery.error
    running.wait(1.0)
    running.put(1, 1)
    assert running.stored() == [1]
