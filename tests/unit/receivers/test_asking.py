"""A connection that waits to be told how far its client's stream is: the disk has to say it, and takes its time."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure
from wires import CLIENT, Admission, Sidecar, Wire

from wafermon.receivers.lines.states import State


def asking(*lines: int, **limits: Any) -> tuple[Sidecar, Wire]:
    """A connection whose hello has come, and some lines with it; the journal has not answered."""
    sidecar = Sidecar(**limits)
    sidecar.journal.slow = True
    sidecar.journal.kept = {("", CLIENT): 2}
    wire = sidecar.connect()
    hello = {"v": 2, "type": "hello", "client": CLIENT, "service": "s", "host": "h", "pid": 7}
    assert wire.send(json.dumps(hello).encode() + b"\n" + wire.lines(*lines)) == []
    return sidecar, wire


def answer(sidecar: Sidecar) -> None:
    sidecar.journal.asked.pop(0).callback(None)


def kinds(replies: list[dict[str, Any]]) -> list[str]:
    return [reply["type"] for reply in replies]


def test_what_comes_before_the_answer_waits_and_is_taken_after_it() -> None:
    sidecar, wire = asking(2, 3)
    assert wire.connection.state is State.ASKING
    assert wire.transport.paused
    assert sidecar.journal.lines == []
    answer(sidecar)
    welcome, ack = wire.heard()
    assert (welcome["acked"], ack["seq"]) == (2, 3)
    assert not wire.transport.paused
    assert sidecar.journal.lines == wire.lines(3).splitlines(), "line 2 was there before"
    assert kinds(wire.send(wire.lines(4))) == ["ack"]


def test_nothing_is_asked_of_a_hello_that_wants_no_acks() -> None:
    sidecar = Sidecar()
    sidecar.journal.slow = True
    assert kinds(sidecar.connect().hello(ack=False)) == ["welcome"]
    assert sidecar.journal.asked == []


def test_what_is_read_all_the_same_waits_in_order() -> None:
    """TLS hands over what it has deciphered, paused or not."""
    sidecar, wire = asking(3)
    wire.send(wire.lines(4))
    answer(sidecar)
    wire.heard()
    assert sidecar.journal.lines == wire.lines(3, 4).splitlines()


def test_what_waits_counts_and_is_bounded_over_all() -> None:
    sidecar, wire = asking(3, 4, partial_bytes=1000)
    assert sidecar.hub.held_bytes == len(wire.lines(3, 4))
    wire.send(wire.lines(*range(5, 12)))
    assert wire.closed
    assert sidecar.hub.held_bytes == 0
    assert sidecar.journal.asked[0].called, "nobody waits for the answer any more"


def test_who_waits_is_not_idle_and_has_said_its_first_line() -> None:
    sidecar, wire = asking(first_line=5.0, idle_timeout=10.0)
    wire.after(30)
    assert not wire.closed
    answer(sidecar)
    assert kinds(wire.heard()) == ["welcome"]
    wire.after(11)
    assert wire.closed


@pytest.mark.parametrize("reason", [ConnectionDone(), ConnectionLost()])
def test_a_connection_that_goes_meanwhile_leaves_nothing(reason: Exception) -> None:
    sidecar, wire = asking(3)
    wire.connection.connectionLost(Failure(reason))
    assert wire.connection.state is State.GONE
    assert sidecar.journal.asked.pop().called
    assert (len(sidecar.journal.marks), sidecar.hub.held_bytes, sidecar.hub.connections) == (0, 0, 0)
    again = sidecar.connect()
    again.hello()
    answer(sidecar)
    assert [reply["acked"] for reply in again.heard()] == [2]


def test_a_client_that_ends_its_side_meanwhile_is_answered_and_closed() -> None:
    sidecar, wire = asking(3)
    assert wire.end() == []
    assert wire.connection.state is State.ENDING_ASKING
    assert not wire.closed
    answer(sidecar)
    assert kinds(wire.heard()) == ["welcome", "ack"]
    assert wire.transport.disconnecting


def test_of_two_connections_of_a_client_the_newer_one_is_told() -> None:
    sidecar, older = asking()
    newer = sidecar.connect()
    newer.hello()
    assert older.closed and not newer.closed
    gone, asked = sidecar.journal.asked
    assert gone.called
    asked.callback(None)
    assert kinds(newer.heard()) == ["welcome"]
    assert older.heard() == []
    older.connection.connectionLost(Failure(ConnectionDone()))
    assert kinds(newer.send(newer.lines(3))) == ["ack"]


def test_clients_wait_each_for_its_own_answer() -> None:
    sidecar, one = asking()
    other = sidecar.connect()
    other.hello(client="a" * 16)
    sidecar.journal.asked[1].callback(None)
    assert kinds(other.heard()) == ["welcome"]
    assert one.heard() == []
    answer(sidecar)
    assert [reply["acked"] for reply in one.heard()] == [2]


@pytest.mark.parametrize("error", [sqlite3.OperationalError("disk I/O error"), RuntimeError("x"), CancelledError()])
def test_where_the_journal_can_not_say_it_the_connection_is_cut_and_the_next_is_served(error: Exception) -> None:
    sidecar, wire = asking(3)
    sidecar.journal.asked.pop(0).errback(error)
    assert wire.transport.aborted
    wire.connection.connectionLost(Failure(ConnectionLost()))
    assert sidecar.journal.lines == []
    again = sidecar.connect()
    again.hello()
    answer(sidecar)
    assert [reply["acked"] for reply in again.heard()] == [2]


def test_a_stop_does_not_wait_for_the_answer() -> None:
    sidecar, wire = asking(3)
    done: list[None] = []
    Deferred.fromCoroutine(sidecar.hub.stop(2.0)).addCallback(done.append)
    assert sidecar.journal.asked[0].called
    assert wire.closed
    wire.connection.connectionLost(Failure(ConnectionDone()))
    sidecar.clock.pump([0.1] * 3)
    assert done == [None]
    assert wire.heard() == [] and sidecar.journal.lines == []


def test_a_connection_that_is_refused_meanwhile_is_told_why_alone() -> None:
    sidecar, wire = asking(3)
    wire.connection.refuse("unauthorized", "no more")
    assert sidecar.journal.asked[0].called
    assert kinds(wire.heard()) == ["error"]
    assert not wire.transport.paused, "what comes is read and dropped"
    assert sidecar.journal.lines == []


def test_who_waits_counts_as_admitted() -> None:
    """So that a token that is taken back closes it."""
    sidecar = Sidecar()
    sidecar.journal.slow = True
    admission = Admission()
    wire = sidecar.connect(admission)
    assert sidecar.hub.admitted_by(admission) == []
    wire.hello()
    assert sidecar.hub.admitted_by(admission) == [wire.connection]
