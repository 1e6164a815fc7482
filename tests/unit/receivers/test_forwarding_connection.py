"""A connection of a sidecar that forwards: its turn among many, and frames that say what is not so."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from appended_journal import MemoryJournal
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from wires import Admission, Sidecar, Transport, Wire

from wafermon.journal import Entry
from wafermon.model.onward import Stop, read_paths
from wafermon.model.settings import LINE_MAX
from wafermon.net.principals import Principal
from wafermon.receivers.forward import turns
from wafermon.receivers.lines import hub
from wafermon.receivers.lines.states import State
from wafermon.wire.frames import Stretch, encode_frame

EDGE = Principal(forward="edge")
BEGIN = 1 << 31


def edge(sidecar: Sidecar, number: int = 1, principal: Principal = EDGE) -> Wire:
    wire = sidecar.connect(Admission(principal))
    wire.hello(client=f"{number:016x}", forward=True, instance="one", compress=["zlib"])
    return wire


def frame(start: int, end: int, *lines: bytes, codec: str = "zlib") -> bytes:
    return encode_frame(codec, b"".join(lines), len(lines), Stretch(BEGIN + start, BEGIN + end))


def said(head: dict[str, Any], data: bytes) -> bytes:
    return json.dumps({"type": "frame", "codec": "zlib", **head}).encode() + b"\n" + data


# its turn


def test_a_program_is_heard_between_the_frames_of_many_sidecars(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that goes on by half a millisecond with every second frame that is journalled."""
    sidecar, append, later = Sidecar(), MemoryJournal.append, list[Callable[[], None]]()
    edges = [edge(sidecar, number + 1) for number in range(50)]
    program = sidecar.hello(client="f" * 16)

    def slowly(journal: MemoryJournal, entry: Entry) -> None:
        sidecar.clock.rightNow += turns.TURN_SECONDS / 2
        append(journal, entry)

    def turn() -> int:
        """What the reactor does before it looks at the sockets again; answers how many lines are there then."""
        calls = later.copy()
        later.clear()
        for call in calls:
            call()
        return len(sidecar.journal.lines)

    sidecar.clock.advance(1)
    monkeypatch.setattr(MemoryJournal, "append", slowly)
    monkeypatch.setattr(sidecar.hub, "later", lambda _, call: later.append(call))
    for wire in edges:
        wire.connection.dataReceived(frame(0, 10, wire.line(1)) + frame(10, 20, wire.line(2)))
    assert turn() == 2, "no more than fit into its time"
    program.connection.dataReceived(program.lines(1))
    assert sidecar.journal.lines[2] == program.lines(1)[:-1], "whoever speaks next does not wait for the rest"
    count = 0
    while turn() < 101:
        count += 1
    assert count == 48


def test_frames_of_many_sidecars_are_gathered_and_those_of_few_are_not() -> None:
    sidecar = Sidecar()
    edges = [edge(sidecar, number + 1) for number in range(hub.FEW_FORWARD)]

    def come(number: int) -> int:
        """How many lines the journal has once all have sent one more."""
        for wire in edges:
            wire.connection.dataReceived(frame(10 * number, 10 * number + 10, wire.line(number + 1)))
        sidecar.clock.advance(0)
        return len(sidecar.journal.lines)

    assert [come(0), come(1)] == [hub.FEW_FORWARD, 2 * hub.FEW_FORWARD]
    edges.append(edge(sidecar, hub.FEW_FORWARD + 1))
    before = come(2)
    assert before == 2 * hub.FEW_FORWARD, "the last round began just now"
    edges.pop()
    assert come(3) == before
    sidecar.clock.advance(hub.GATHER_SECONDS)
    assert len(sidecar.journal.lines) == before + 2 * hub.FEW_FORWARD + 1


def test_many_sidecars_wait_for_one_that_is_gathered_no_longer_than_they_may() -> None:
    assert hub.GATHER_MOST <= 0.1
    sidecar = Sidecar()
    edges = [edge(sidecar, number + 1) for number in range(2_000)]
    for number in range(3):
        for wire in edges[:10]:
            wire.connection.dataReceived(frame(10 * number, 10 * number + 10, wire.line(number + 1)))
            sidecar.clock.advance(hub.GATHER_MOST / 9)
        assert len(sidecar.journal.lines) >= 10 * number + 9
    sidecar.clock.advance(hub.GATHER_MOST)
    assert len(sidecar.journal.lines) == 30


def test_what_a_sidecar_with_a_backlog_sends_is_not_gathered() -> None:
    sidecar = Sidecar()
    edges = [edge(sidecar, number + 1) for number in range(3 * hub.FEW_FORWARD)]
    one, other = edges[:2]
    sidecar.clock.pump([1, 1])
    one.connection.dataReceived(frame(0, 10, one.line(1)))
    sidecar.clock.advance(0)
    one.connection.dataReceived(frame(10, 20, one.line(2)))
    sidecar.clock.advance(0)
    assert len(sidecar.journal.lines) == 1, "the last round began just now"
    for number in range(5):
        lines = [other.line(20 * number + at, name="n" * 1_000) for at in range(1, 21)]
        other.connection.dataReceived(frame(10 * number, 10 * number + 10, *lines, codec="none"))
        sidecar.clock.advance(0)
        assert len(sidecar.journal.lines) == 2 + 20 * (number + 1), "with those that waited"


def test_whoever_goes_while_it_waits_for_what_is_durable_is_told_nothing() -> None:
    sidecar = Sidecar(automatic=False)
    one, other = edge(sidecar, 1), edge(sidecar, 2)
    for wire in (one, other):
        wire.send(frame(0, 10, wire.line(1)))
    sidecar.journal.commit()
    one.connection.connectionLost(Failure(ConnectionDone()))
    assert [one.heard(), other.heard()] == [[], [{"type": "ack", "seq": BEGIN + 10}]]


def test_a_sidecar_is_granted_frames_that_are_read_in_one_turn() -> None:
    def granted(**limits: Any) -> list[Any]:
        wire = Sidecar(**limits).connect(Admission(EDGE))
        [welcome] = wire.hello(forward=True, instance="one", compress=["zlib"])
        return [welcome["max_frame"], welcome["max_line"]]

    assert granted() == [LINE_MAX + 1, 65536], "the longest line of any sidecar has room"
    assert granted(frame_bytes=100_000) == [100_000, 65536]
    assert granted(frame_bytes=1_000) == [65537, 65536]


def test_acks_are_repeated_a_few_at_a_time_and_not_just_after_one(monkeypatch: pytest.MonkeyPatch) -> None:
    sidecar, later = Sidecar(automatic=False), list[Callable[[], None]]()
    edges = [edge(sidecar, number + 1) for number in range(2 * hub.LOOKS)]
    for wire in edges:
        wire.send(frame(0, 10, wire.line(1)))
    assert not any(wire.heard() for wire in edges)
    with monkeypatch.context() as patch:
        patch.setattr(sidecar.hub, "soon", later.append)
        sidecar.clock.advance(1.0)
        said = [sum(bool(wire.transport.value()) for wire in edges)]
        while later:
            later.pop()()
            said.append(sum(bool(wire.transport.value()) for wire in edges))
    assert said == [hub.LOOKS, 2 * hub.LOOKS]
    assert all(wire.heard() == [{"type": "ack", "seq": 0}] for wire in edges)
    sidecar.clock.advance(0.8)
    sidecar.journal.commit()
    assert all(wire.heard() == [{"type": "ack", "seq": BEGIN + 10}] for wire in edges)
    for wire in edges:
        wire.connection.dataReceived(frame(10, 20, wire.line(2)))
    sidecar.clock.pump([0.1] * 4)
    assert not any(wire.heard() for wire in edges), "0.4 s ago they heard of it"
    sidecar.clock.pump([0.5, 0.5, 0.0])
    assert all(wire.heard() == [{"type": "ack", "seq": BEGIN + 10}] for wire in edges)


def test_sidecars_take_turns_frame_by_frame() -> None:
    sidecar = Sidecar()
    one, other = edge(sidecar, 1), edge(sidecar, 2)
    one.connection.dataReceived(b"".join(frame(10 * n, 10 * n + 10, one.line(n + 1)) for n in range(3)))
    other.connection.dataReceived(frame(0, 10, other.line(1)))
    sidecar.clock.advance(0)
    assert [json.loads(line)["client"][-1] for line in sidecar.journal.lines] == ["1", "2", "1", "1"]


def test_what_waits_for_its_turn_is_bounded() -> None:
    sidecar = Sidecar()
    wire = edge(sidecar)
    lines = [wire.line(n + 1, name="n" * 60_000) for n in range(3)]
    wire.connection.dataReceived(b"".join(frame(n, n + 1, line, codec="none") for n, line in enumerate(lines)))
    assert wire.transport.paused and wire.connection.state is State.HELD
    assert wire.heard()[-1]["seq"] == BEGIN + 3
    assert not wire.transport.paused


def test_a_large_frame_is_read_through_and_taken_once_it_is_whole() -> None:
    sidecar = Sidecar()
    wire = edge(sidecar)
    data = frame(0, 10, *(wire.line(n, name="n" * 900) for n in range(1, 300)), codec="none")
    for at in range(0, len(data), 50_000):
        assert sidecar.journal.lines == []
        wire.connection.dataReceived(data[at : at + 50_000])
        assert not wire.transport.paused or at + 50_000 > len(data)
        replies = wire.heard()
    assert replies[-1]["seq"] == BEGIN + 10 and len(sidecar.journal.lines) == 299


def test_what_came_whole_before_the_end_is_taken_and_acknowledged() -> None:
    sidecar = Sidecar(automatic=False)
    wire = edge(sidecar)
    wire.connection.dataReceived(
        frame(0, 10, wire.line(1)) + frame(10, 20, wire.line(2)) + frame(20, 30, wire.line(3))[:-1]
    )
    wire.connection.readConnectionLost()
    assert not wire.transport.disconnecting
    sidecar.journal.commit()
    assert wire.heard()[-1]["seq"] == BEGIN + 20, "half a frame is none"
    assert wire.transport.disconnecting and len(sidecar.journal.lines) == 2


def test_one_that_goes_while_it_waits_has_no_turn() -> None:
    sidecar = Sidecar()
    wire = edge(sidecar)
    wire.connection.dataReceived(frame(0, 10, wire.line(1)))
    wire.connection.abort()
    assert wire.heard() == [] and sidecar.journal.lines == []


# what is not so

LINE = b'{"type":"event"}\n'
PACKED = zlib.compress(LINE)
PLACE = {"start": BEGIN, "end": BEGIN + 10}
BOMB = zlib.compress(b"\n" * (64 << 20))


@pytest.mark.parametrize(("head", "data", "detail"), [
    ({"bytes": len(PACKED), "raw": len(LINE), "lines": 2, **PLACE}, PACKED, "it holds 1, and says 2"),
    ({"bytes": len(PACKED), "raw": len(LINE) + 1, "lines": 1, **PLACE}, PACKED, "does not give 18 bytes"),
    ({"bytes": len(PACKED), "raw": len(LINE) - 1, "lines": 1, **PLACE}, PACKED, "does not give 16 bytes"),
    ({"bytes": len(PACKED) + 3, "raw": len(LINE), "lines": 1, **PLACE}, PACKED + b"abc", "3 follow"),
    ({"bytes": len(BOMB), "raw": len(BOMB), "lines": 1, **PLACE}, BOMB, "does not give"),
    ({"bytes": 20, "raw": 1 << 62, "lines": 1, **PLACE}, b"", "more than max_frame"),
    ({"bytes": 1 << 20, "raw": 20, "lines": 1, **PLACE}, b"", "more than raw"),
    ({"bytes": 20, "raw": 20, "lines": 21, **PLACE}, b"", "more than 20 bytes"),
    ({"bytes": 20, "raw": 100_000, "lines": 50_000, **PLACE}, b"", "50000 messages have more than 100000 bytes"),
    ({"bytes": 20, "raw": 20, "lines": 1, "start": 20, "end": 10}, b"", "less than start"),
    ({"bytes": 20, "raw": 20, "lines": 1, "start": 0, "end": 1 << 63}, b"", "end: expected"),
    ({"bytes": 20, "raw": 20, "lines": 1, "end": 5}, b"", "start: expected"),
    ({"bytes": True, "raw": 20, "lines": 1, **PLACE}, b"", "bytes: expected"),
    ({"bytes": 20, "raw": 20, "lines": 0, **PLACE}, b"", "lines: none"),
    ({"codec": "none", "bytes": 5, "raw": 5, "lines": 0, **PLACE}, b"", "and 5 bytes of them"),
    ({"codec": "none", "bytes": 5, "raw": 6, "lines": 1, **PLACE}, b"", "is not raw"),
    ({"codec": "zstd", "bytes": 20, "raw": 20, "lines": 1, **PLACE}, b"", "not granted"),
    ({"type": "event"}, b"", "nothing between them"),
])  # fmt: skip
def test_a_frame_that_says_what_is_not_so_is_refused_and_nothing_of_it_taken(
    head: dict[str, Any], data: bytes, detail: str
) -> None:
    sidecar = Sidecar()
    wire = edge(sidecar)
    wire.send(frame(0, 0))
    [error] = [one for one in wire.send(said(head, data)) if one["type"] == "error"]
    assert error["code"] == "bad_frame" and detail in error["detail"]
    assert wire.connection.state is State.PARTING and sidecar.journal.lines == []
    again = sidecar.connect(Admission(EDGE))
    [welcome] = again.hello(client=f"{1:016x}", forward=True, instance="one")
    assert welcome["acked"] == BEGIN, "the mark is where it was"


@pytest.mark.parametrize("between", [b"\n", b"\xff\n", b"[1]\n", b"x" * 70_000 + b"\n", b"{" * 5_000 + b"\n"])
def test_there_is_nothing_between_frames(between: bytes) -> None:
    sidecar = Sidecar()
    wire = edge(sidecar)
    replies = wire.send(frame(0, 10, wire.line(1)) + between)
    assert [one["code"] for one in replies if one["type"] == "error"] == ["bad_frame"]
    assert len(sidecar.journal.lines) == 1, "what came before it was right"


def test_a_program_may_not_say_that_it_forwards() -> None:
    sidecar = Sidecar()
    wire = sidecar.connect(Admission(Principal("program")))
    [error] = wire.hello(forward=True, instance="one")
    assert error["code"] == "unauthorized"
    assert sidecar.hub.forwarders.known() == []


def test_half_a_frame_counts_for_the_memory_of_all() -> None:
    sidecar = Sidecar(partial_bytes=100_000)
    wire = edge(sidecar)
    data = said({"codec": "none", "bytes": 200_000, "raw": 200_000, "lines": 1, **PLACE}, b"x" * 90_000)
    wire.send(data)
    assert sidecar.hub.held_bytes >= 90_000 and not wire.transport.disconnecting
    wire.send(b"x" * 20_000)
    assert wire.transport.disconnecting
    assert isinstance(wire.transport, Transport) and sidecar.hub.held_bytes == 0


def test_a_sidecar_does_not_forward_to_itself() -> None:
    sidecar = Sidecar()
    wire = sidecar.connect(Admission(EDGE))
    [error] = wire.hello(client=sidecar.journal.id, forward=True, instance="one")
    assert (
        error["code"] == "bad_hello" and "to itself" in error["detail"] and "wafermon journal renew" in error["detail"]
    )
    assert sidecar.hub.forwarders.known() == []


def test_a_token_that_goes_during_a_frame_ends_it_and_nothing_of_it_is_taken() -> None:
    sidecar = Sidecar(partial_bytes=10_000_000)
    wire = edge(sidecar)
    whole = frame(0, 10, *(wire.line(n) for n in range(1, 500)))
    wire.send(whole[:-10])
    wire.connection.end()
    assert wire.send(whole[-10:]) == [] and sidecar.journal.lines == []
    again = edge(sidecar)
    assert again.send(whole)[-1]["seq"] == BEGIN + 10
    assert len(sidecar.journal.lines) == 499


# where messages go on to


def test_a_sidecar_is_told_where_messages_go_on_to() -> None:
    sidecar = Sidecar()
    there = Stop("c" * 16, "fab3")
    sidecar.hub.onward.found("central", [(there,)])
    wire, program = sidecar.connect(Admission(EDGE)), sidecar.hello()
    [welcome] = wire.hello(client=f"{1:016x}", forward=True, instance="one")
    assert read_paths(welcome["onward"]) == ((there,),)
    wire.stop_reading()
    sidecar.hub.onward.found("central", [])
    assert wire.heard() == []
    wire.read_again()
    assert wire.heard() == [{"type": "onward", "onward": []}], "once it reads again"
    sidecar.hub.onward.found("central", [(there,)])
    assert wire.heard() == [{"type": "onward", "onward": [[["c" * 16, "fab3"]]]}] and program.heard() == []
