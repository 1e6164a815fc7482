"""One connection on a Clock: hello, lines, acks, errors, frames, and the end."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from wires import CLIENT, Admission, Sidecar, Wire

from wafermon.net.principals import Principal
from wafermon.receivers.lines.states import ANSWERED, ASKS, PAUSED, TABLE, TAKING, WAITS, Input, State, after
from wafermon.wire.frames import INLINE_BYTES

LIMIT = 65_536


@pytest.fixture
def logged() -> Iterator[list[dict[str, Any]]]:
    """What is logged meanwhile."""
    events: list[dict[str, Any]] = []
    observer: Any = events.append
    globalLogPublisher.addObserver(observer)
    yield events
    globalLogPublisher.removeObserver(observer)


def acks(replies: list[dict[str, Any]]) -> list[int]:
    return [reply["seq"] for reply in replies if reply["type"] == "ack"]


def codes(replies: list[dict[str, Any]]) -> list[str]:
    return [reply["code"] for reply in replies if reply["type"] == "error"]


def frame(*lines: bytes, **fields: Any) -> bytes:
    raw = b"".join(lines)
    data = zlib.compress(raw)
    head = {"type": "frame", "codec": "zlib", "bytes": len(data), "raw": len(raw), "lines": len(lines), **fields}
    return json.dumps(head).encode() + b"\n" + data


# states


def test_every_state_leads_to_its_end() -> None:
    for state in State:
        assert after(after(state, Input.PART), Input.LOST) is State.GONE
        assert set(TABLE[state]) <= set(Input)
    assert TABLE[State.GONE] == {}
    assert TAKING | WAITS <= ANSWERED
    assert not ANSWERED & {State.WAITING, *ASKS, State.PARTING, State.GONE}
    assert PAUSED == WAITS | ASKS and not WAITS & ASKS


@pytest.mark.parametrize("state", list(State))
def test_what_is_held_is_released_to_where_it_was(state: State) -> None:
    held = after(state, Input.HOLD)
    if held is not state:
        assert held in WAITS
        assert after(held, Input.RELEASE) is state


# hello, welcome, ack


def test_hello_lines_ack() -> None:
    sidecar = Sidecar(automatic=False)
    wire = sidecar.connect()
    [welcome] = wire.hello()
    assert welcome == {
        "v": 2, "type": "welcome", "sidecar": sidecar.journal.id, "acked": 0, "max_line": LIMIT, "features": ["stats"],
    }  # fmt: skip
    assert wire.send(wire.lines(1, 2)) == []
    sidecar.journal.commit()
    assert acks(wire.heard()) == [2]
    assert sidecar.journal.lines == wire.lines(1, 2).splitlines()
    assert sidecar.hub.figures.messages == 2


def test_hello_and_lines_may_come_in_any_pieces() -> None:
    sidecar = Sidecar()
    wire = sidecar.connect()
    hello = json.dumps({"v": 2, "type": "hello", "client": CLIENT}).encode() + b"\r\n"
    said = [reply for byte in hello + wire.lines(1, 2) for reply in wire.send(bytes([byte]))]
    assert [reply["type"] for reply in said] == ["welcome", "ack", "ack"]
    assert len(sidecar.journal.lines) == 2


def test_what_the_hello_said_is_spliced_in() -> None:
    sidecar = Sidecar()
    wire = sidecar.hello(host="fab1", pid=4711)
    wire.send(b'{"type":"metric","name":"n","value":1,"client":"%s","seq":1}\n' % CLIENT.encode())
    [stored] = map(json.loads, sidecar.journal.lines)
    assert (stored["service"], stored["host"], stored["pid"]) == ("s", "fab1", 4711)
    assert stored["ts"] == sidecar.journal.now()


@pytest.mark.parametrize(("first", "code"), [
    (b'{"v":2,"type":"hello","client":"short"}\n', "bad_hello"),
    (b"GET / HTTP/1.1\r\n", "bad_hello"),
    (b"\x16\x03\x01\x02", "bad_hello"),
    (b'{"v":2,"type":"hello","client":"%s","token":"wrong"}\n' % CLIENT.encode(), "unauthorized"),
])  # fmt: skip
def test_a_refused_client_is_told_why_read_for_a_second_and_cut(first: bytes, code: str) -> None:
    sidecar = Sidecar()
    wire = sidecar.connect()
    assert codes(wire.send(first)) == [code]
    assert wire.transport.half_closed and not wire.transport.aborted
    assert wire.send(wire.lines(1)) == []
    assert sidecar.journal.lines == []
    wire.after(1)
    assert wire.transport.aborted
    assert sidecar.hub.figures.refused == 1


def test_a_hello_of_a_service_that_the_token_may_not_name_is_unauthorized() -> None:
    sidecar = Sidecar()
    wire = sidecar.connect(Admission(Principal("token:1", ("web-*",))))
    assert codes(wire.hello(service="payments")) == ["unauthorized"]


def test_lines_of_a_service_that_the_token_may_not_name_are_refused_one_by_one() -> None:
    sidecar = Sidecar()
    wire = sidecar.connect(Admission(Principal("token:1", ("web-*",))))
    wire.hello(service="web-1")
    replies = wire.send(
        wire.line(1, service="web-2") + wire.line(2, service="payments") + wire.line(3, service="web-3")
    )
    assert codes(replies) == ["bad_message"]
    assert [json.loads(line)["service"] for line in sidecar.journal.lines] == ["web-2", "web-3"]


def test_a_newer_connection_of_a_client_closes_the_older_one() -> None:
    sidecar = Sidecar()
    older, newer = sidecar.hello(), sidecar.hello()
    assert older.closed and not newer.closed
    assert acks(newer.send(newer.lines(1))) == [1]
    older.connection.connectionLost(Failure(ConnectionDone()))
    assert acks(newer.send(newer.lines(2))) == [2], "what is left of the older one takes nothing along"


def test_a_reconnect_goes_on_from_what_is_durable() -> None:
    sidecar = Sidecar()
    wire = sidecar.hello()
    wire.send(wire.lines(1, 2))
    wire.connection.connectionLost(Failure(ConnectionLost()))
    again = sidecar.connect()
    assert again.hello()[0]["acked"] == 2
    assert acks(again.send(again.lines(1, 2))) == [2]
    assert acks(again.send(again.lines(1, 2, 3))) == [3]
    assert len(sidecar.journal.lines) == 3
    assert sidecar.hub.figures.duplicates == 4


# errors


def test_errors_go_out_before_the_ack_that_covers_them() -> None:
    sidecar = Sidecar(automatic=False)
    wire = sidecar.hello()
    assert wire.send(wire.line(1) + b"nonsense\n" + wire.line(3)) == []
    sidecar.journal.commit()
    assert [(reply["type"], reply["seq"]) for reply in wire.heard()] == [("error", 2), ("ack", 3)]
    assert sidecar.journal.rejected == [("bad_json", 2)]


def test_a_client_without_a_hello_hears_errors_alone() -> None:
    sidecar = Sidecar()
    wire = sidecar.connect()
    replies = wire.send(b'{"type":"metric","service":"a","name":"n","value":1}\nnonsense\n')
    assert [(reply["type"], reply["code"]) for reply in replies] == [("error", "bad_json")]
    assert len(sidecar.journal.lines) == 1
    wire.send(b'{"type":"metric","service":"a","name":"n","value":2}')
    wire.end()
    assert len(sidecar.journal.lines) == 2, "a last line needs no newline"
    assert wire.transport.disconnecting


def test_no_line_is_added_where_a_client_without_a_hello_ends_while_it_is_held() -> None:
    sidecar = Sidecar()
    wire = sidecar.connect()
    sidecar.journal.congested = True
    wire.send(b'{"type":"metric","service":"a","name":"n","value":1}\n')
    wire.end()
    assert not wire.closed
    sidecar.journal.relieve()
    assert (len(sidecar.journal.lines), sidecar.journal.rejected) == (1, [])
    wire.heard()
    assert wire.transport.disconnecting


@pytest.mark.parametrize("cut", [1, 100, 65_535, 65_536, 65_537, 65_538, 100_000, 1 << 18])
@pytest.mark.parametrize("size", [65_536, 65_537, 150_000])
def test_a_long_line_is_refused_however_the_stream_is_cut(cut: int, size: int) -> None:
    sidecar = Sidecar()
    wire = sidecar.hello()
    long = wire.line(2, fill="")
    long = long.replace(b'"fill": "', b'"fill": "' + b"x" * (size + 1 - len(long)))
    data = wire.line(1) + long + wire.line(3)
    said = (
        [reply for start in range(0, len(data), cut) for reply in wire.send(data[start : start + cut])]
        if cut > 1
        else []
    )
    if cut == 1:
        said = wire.send(data[: len(wire.line(1)) + 1]) + wire.send(data[len(wire.line(1)) + 1 :])
    said += wire.after(2)
    assert codes(said) == ["line_too_long"] * (size > LIMIT)
    assert acks(said)[-1] == 3
    assert len(sidecar.journal.lines) == 3 - (size > LIMIT)
    assert all(len(line) <= LIMIT for line in sidecar.journal.lines)


def test_a_client_that_reads_no_errors_is_held_counted_and_ended_by_the_idle_timeout() -> None:
    sidecar = Sidecar(idle_timeout=10.0)
    wire, other = sidecar.hello(), sidecar.hello(client="a" * 16)
    wire.stop_reading()
    wire.send(b"x\n" * 1000)
    assert wire.transport.paused
    assert sidecar.hub.held_bytes > 1 << 16
    other.after(6)
    other.send(other.lines(1))
    other.after(5)
    assert wire.closed
    assert not other.closed
    assert sidecar.hub.held_bytes == 0


def test_a_client_that_reads_now_and_then_is_not_idle() -> None:
    sidecar = Sidecar(idle_timeout=10.0)
    wire = sidecar.hello()
    for _ in range(4):
        wire.stop_reading()
        wire.send(b"x\n")
        wire.after(6)
        wire.read_again()
        wire.heard()
    assert not wire.closed
    assert acks(wire.send(wire.lines(5)))[-1:] == [5]


def test_errors_that_are_not_read_are_bounded_over_all() -> None:
    sidecar = Sidecar(partial_bytes=200_000)
    wires = [sidecar.hello(client=f"{number:016x}") for number in range(5)]
    for wire in wires:
        wire.stop_reading()
        wire.send(b"x\n")
    assert [wire.closed for wire in wires] == [False, False, False, True, True]


def test_reading_goes_on_once_the_errors_are_read() -> None:
    sidecar = Sidecar()
    wire = sidecar.hello()
    wire.stop_reading()
    wire.send(b"x\n" * 300)
    before = len(sidecar.journal.rejected)
    assert before == 100, "a client that does not read is not served for ever"
    wire.read_again()
    said = [reply for _ in range(10) for reply in wire.heard()]
    assert len(sidecar.journal.rejected) == 300
    assert codes(said) == ["bad_json"] * 300
    assert acks(said)[-1] == 300


# waiting


def test_a_congested_journal_pauses_reading_and_loses_nothing() -> None:
    sidecar = Sidecar()
    wire = sidecar.hello()
    wire.send(wire.lines(1))
    sidecar.journal.congested = True
    assert wire.send(wire.lines(2, 3)) == []
    assert wire.transport.paused
    assert acks(wire.after(2)) == [1, 1], "the ack is repeated each second"
    sidecar.journal.relieve()
    assert acks(wire.heard()) == [3]
    assert not wire.transport.paused


@pytest.mark.parametrize(
    "part", [b'{"type":"metric"', b'{"type":"frame","codec":"zlib","bytes":9,"raw":9,"lines":1}\nabc']
)
def test_the_ack_is_repeated_while_a_part_is_held(part: bytes) -> None:
    sidecar = Sidecar()
    wire = sidecar.connect()
    wire.hello(compress=["zlib"])
    wire.send(wire.lines(1))
    assert acks(wire.after(3)) == []
    wire.send(part)
    assert acks(wire.after(3)) == [1, 1, 1]


def test_a_part_of_a_line_counts_and_is_bounded() -> None:
    sidecar = Sidecar(partial_bytes=100)
    one, two = sidecar.hello(), sidecar.hello(client="a" * 16)
    one.send(b"x" * 60)
    assert sidecar.hub.held_bytes == 60
    two.send(b"y" * 41)
    assert two.closed and not one.closed
    assert sidecar.hub.held_bytes == 60
    one.send(b"\n")
    assert sidecar.hub.held_bytes == 0


def test_a_rate_limit_holds_a_client_over_reconnects() -> None:
    sidecar = Sidecar(messages_per_second=10)
    wire = sidecar.hello()
    wire.send(wire.lines(*range(1, 11)))
    wire.connection.connectionLost(Failure(ConnectionDone()))
    again = sidecar.hello()
    again.send(again.lines(11))
    assert again.transport.paused
    again.after(0.5)
    assert len(sidecar.journal.lines) == 10
    assert acks(again.after(1))[-1] == 11
    assert not again.transport.paused


def test_what_is_unsettled_when_the_client_ends_its_side_is_acknowledged_before_the_close() -> None:
    sidecar = Sidecar(automatic=False)
    wire = sidecar.hello()
    wire.send(wire.lines(1) + b'{"type":"met')
    assert wire.end() == []
    assert not wire.closed
    sidecar.journal.commit()
    assert acks(wire.heard()) == [1]
    assert wire.transport.disconnecting
    assert len(sidecar.journal.lines) == 1, "the part of a line comes again"


def test_a_silent_client_is_refused_and_a_quiet_one_ended() -> None:
    sidecar = Sidecar(first_line=5.0, idle_timeout=10.0)
    silent, quiet = sidecar.connect(), sidecar.hello()
    silent.send(b'{"v":2,')
    assert codes(silent.after(6)) == ["bad_hello"]
    assert not quiet.closed
    quiet.after(5)
    assert quiet.transport.disconnecting


def test_a_client_that_the_journal_holds_is_not_idle() -> None:
    sidecar = Sidecar(idle_timeout=10.0)
    wire = sidecar.hello()
    sidecar.journal.congested = True
    wire.send(wire.lines(1))
    wire.after(30)
    assert not wire.closed


def test_a_connection_too_many_is_refused() -> None:
    sidecar = Sidecar(max_connections=1)
    sidecar.hello()
    assert codes(sidecar.connect().heard()) == ["too_many_connections"]
    assert sidecar.hub.connections == 1


# frames


def framed(**limits: Any) -> tuple[Sidecar, Wire]:
    sidecar = Sidecar(**limits)
    wire = sidecar.connect()
    [welcome] = wire.hello(compress=["none", "zlib"])
    assert (welcome["compress"], welcome["max_frame"]) == ("zlib", sidecar.hub.frame_bytes)
    return sidecar, wire


@pytest.mark.parametrize("cut", [1, 7, 1 << 20])
def test_lines_in_a_frame_are_lines(cut: int) -> None:
    sidecar, wire = framed()
    data = (
        wire.line(1)
        + frame(wire.line(2), b"nonsense\n", wire.line(4))
        + wire.line(5)
        + frame(wire.line(6), wire.line(7))
    )
    said = [reply for start in range(0, len(data), cut) for reply in wire.send(data[start : start + cut])]
    assert codes(said) == ["bad_json"]
    assert acks(said)[-1] == 7
    assert [json.loads(line)["seq"] for line in sidecar.journal.lines] == [1, 2, 4, 5, 6, 7]
    assert sidecar.journal.rejected == [("bad_json", 3)]


def test_frame_bytes_are_not_taken_for_lines() -> None:
    sidecar, wire = framed()
    data = zlib.compressobj(0)
    raw = wire.line(1, text='\r\n{"type":"frame"}\r\n')
    packed = data.compress(raw) + data.flush()
    head = {"type": "frame", "codec": "zlib", "bytes": len(packed), "raw": len(raw), "lines": 1}
    assert b"\n" in packed
    assert acks(wire.send(json.dumps(head).encode() + b"\r\n" + packed + wire.line(2))) == [2]
    assert len(sidecar.journal.lines) == 2


@pytest.mark.parametrize("bad", [
    {"raw": 1 << 30}, {"bytes": 1 << 30}, {"lines": 3}, {"codec": "zstd"}, {"codec": "none"}, {"raw": 7}, {"lines": 0},
])  # fmt: skip
def test_a_bad_frame_is_refused_whole_and_the_connection_closed(bad: dict[str, Any]) -> None:
    sidecar, wire = framed()
    said = wire.send(wire.line(1) + frame(wire.line(2), wire.line(3), **bad) + wire.line(4))
    assert codes(said) == ["bad_frame"]
    assert wire.transport.half_closed
    assert len(sidecar.journal.lines) == 1, "what came before it was taken"
    assert sidecar.hub.held_bytes == 0
    plain = sidecar.connect()
    assert plain.hello()[0]["acked"] == 1
    assert acks(plain.send(plain.lines(2, 3, 4))) == [4]


def test_a_frame_that_has_not_come_whole_counts() -> None:
    sidecar, wire = framed(partial_bytes=5000)
    lines = [wire.line(seq) for seq in range(1, 11)]
    data = frame(*lines)
    wire.send(data[:-1])
    assert 0 < sidecar.hub.held_bytes < len(data)
    wire.send(data[-1:])
    assert (sidecar.hub.held_bytes, len(sidecar.journal.lines)) == (0, 10)
    wire.send(b'{"type":"frame","codec":"zlib","bytes":6000,"raw":6000,"lines":1}\n' + b"x" * 5001)
    assert wire.closed


@pytest.mark.parametrize("size", [INLINE_BYTES - 100, INLINE_BYTES + 100, 1 << 20])
def test_a_frame_of_any_size_is_taken_whole(size: int) -> None:
    sidecar, wire = framed()
    lines: list[bytes] = []
    while sum(map(len, lines)) < size:
        lines.append(wire.line(len(lines) + 1))
    said = wire.send(frame(*lines) + wire.line(len(lines) + 1))
    said += wire.after(1)
    assert acks(said)[-1] == len(lines) + 1
    assert sidecar.journal.lines == [line[:-1] for line in [*lines, wire.line(len(lines) + 1)]]


def test_a_large_frame_is_opened_elsewhere_and_reading_waits_for_it() -> None:
    sidecar, wire = framed()
    opened: Deferred[bytes] = Deferred()
    sidecar.hub.open_frame = lambda head, data: opened  # type: ignore[method-assign]
    lines = [wire.line(seq) for seq in range(1, 1001)]
    wire.send(frame(*lines))
    assert wire.transport.paused
    assert sidecar.journal.lines == []
    wire.after(3)
    assert wire.transport.paused
    opened.callback(b"".join(lines))
    assert acks(wire.heard())[-1] == 1000
    assert not wire.transport.paused


def test_a_frame_that_is_opened_after_its_connection_has_gone_is_nothing() -> None:
    sidecar, wire = framed()
    opened: Deferred[bytes] = Deferred()
    sidecar.hub.open_frame = lambda head, data: opened  # type: ignore[method-assign]
    lines = [wire.line(seq) for seq in range(1, 1001)]
    wire.send(frame(*lines))
    wire.connection.connectionLost(Failure(ConnectionLost()))
    opened.callback(b"".join(lines))
    assert sidecar.journal.lines == []
    assert sidecar.hub.held_bytes == 0


def test_a_frame_waits_while_the_journal_is_congested() -> None:
    sidecar, wire = framed()
    sidecar.journal.congested = True
    wire.send(frame(wire.line(1)))
    assert wire.transport.paused
    sidecar.journal.relieve()
    assert acks(wire.heard()) == [1]


def test_without_a_grant_a_frame_is_an_unknown_type() -> None:
    sidecar = Sidecar()
    wire = sidecar.hello()
    assert codes(wire.send(b'{"type":"frame","codec":"zlib","bytes":1,"raw":1,"lines":1}\n')) == ["unknown_type"]


# what fails


@pytest.mark.parametrize("error", [OSError("x"), RuntimeError("x"), CancelledError()])
def test_lines_that_the_journal_does_not_take_move_no_mark_and_come_again(
    error: Exception, logged: list[dict[str, Any]]
) -> None:
    sidecar = Sidecar()
    wire, other = sidecar.hello(), sidecar.hello(client="a" * 16)
    sidecar.journal.fails = [error]
    wire.send(wire.lines(1, 2))
    assert wire.transport.aborted
    wire.connection.connectionLost(Failure(ConnectionLost()))
    assert acks(other.send(other.lines(1))) == [1]
    again = sidecar.connect()
    assert again.hello()[0]["acked"] == 0
    assert acks(again.send(again.lines(1, 2))) == [2]
    assert len(sidecar.journal.lines) == 3
    assert [event["log_failure"].value for event in logged if "log_failure" in event] == [error]


@pytest.mark.parametrize("error", [OSError("x"), RuntimeError("x"), CancelledError()])
@pytest.mark.parametrize("call", ["write", "pauseProducing", "resumeProducing"])
def test_a_transport_that_fails_takes_no_other_connection_along(call: str, error: Exception) -> None:
    sidecar = Sidecar(automatic=False)
    wires = [sidecar.hello(client=f"{number:016x}") for number in range(3)]
    for wire in wires:
        wire.send(wire.lines(1) + b"x\n")

    def fails(*_: object) -> None:
        raise error

    setattr(wires[1].transport, call, fails)
    sidecar.journal.congested = True
    wires[1].send(wires[1].lines(3))
    sidecar.journal.commit()
    for wire in (wires[0], wires[2]):
        assert [reply["type"] for reply in wire.heard()] == ["error", "ack"]
    sidecar.journal.relieve()
    for wire in (wires[0], wires[2]):
        wire.send(wire.lines(3))
    sidecar.journal.commit()
    for wire in (wires[0], wires[2]):
        assert acks(wire.heard())[-1] == 3
    assert wires[1].transport.aborted


# what is counted and said


def test_what_comes_is_added_up_over_connections() -> None:
    sidecar = Sidecar()
    one, other = sidecar.hello(), sidecar.hello(client="a" * 16)
    one.send(one.lines(1, 2))
    one.send(one.lines(3) + b"x\n" + b"y\n")
    other.send(other.lines(1, 1, 5) + b"x\n" + b'{"type":"nonsense"}\n')
    figures = sidecar.hub.figures
    assert (figures.messages, figures.duplicates, figures.gaps) == (5, 1, 3)
    assert figures.rejected == {"bad_json": 3, "unknown_type": 1}


def test_what_is_refused_keeps_who_sent_it() -> None:
    sidecar = Sidecar()
    for pid, kept in ((4711, 4711), (0, 0)):
        wire = sidecar.hello(client=f"{pid:016x}", service="svc", host="fab1", pid=pid)
        wire.send(b"nonsense\n")
        [one] = sidecar.journal.committed[-1].rejected
        assert (one.service, one.host, one.pid) == ("svc", "fab1", kept)
        assert (one.client, one.seq, one.line, one.code) == (f"{pid:016x}", 1, b"nonsense", "bad_json")


def test_a_jump_is_refused_without_a_number_of_the_stream() -> None:
    sidecar = Sidecar()
    wire = sidecar.hello()
    wire.send(wire.lines(2_000_000))
    [one] = sidecar.journal.committed[-1].rejected
    assert (one.client, one.seq) == ("", 0)
    assert acks(wire.send(wire.lines(1))) == [1]


def test_a_client_that_reads_again_is_heard_from_then_on() -> None:
    sidecar = Sidecar(idle_timeout=10.0)
    wire = sidecar.hello()
    wire.stop_reading()
    wire.after(9)
    wire.read_again()
    wire.after(9)
    assert not wire.closed
    assert wire.connection.last_heard == 9.0


def test_large_reads_are_kept_while_replies_wait_in_small_ones() -> None:
    sidecar = Sidecar()
    wire = sidecar.hello()
    wire.connection.dataReceived(b" " * (1 << 16))
    assert wire.transport.bufferSize == 1 << 18
    wire.send(b"\n" + wire.lines(1))
    assert wire.transport.bufferSize == 1 << 18


def test_tls_that_fails_is_said(logged: list[dict[str, Any]]) -> None:
    sidecar = Sidecar()
    wire = sidecar.connect()
    error = type("Error", (Exception,), {"__module__": "OpenSSL.SSL"})
    wire.connection.connectionLost(Failure(error([("SSL routines", "", "no shared cipher")])))
    said = [event for event in logged if "problem" in event]
    assert said and "TLS failed" in said[0]["problem"]


def test_a_fault_names_its_connection(logged: list[dict[str, Any]]) -> None:
    sidecar = Sidecar()
    wire = sidecar.hello()
    sidecar.journal.fails = [RuntimeError("x")]
    wire.send(wire.lines(1))
    [event] = [event for event in logged if "log_failure" in event]
    assert event["log_format"] == "A fault at the connection of {peer}, which is closed"
    assert event["peer"] == wire.connection.peer


def test_a_refusal_says_why_and_what_is_kept_of_a_long_line_says_when() -> None:
    sidecar = Sidecar()
    sidecar.clock.advance(7.0)
    [refusal] = sidecar.connect().send(b"GET / HTTP/1.1\r\n")
    assert refusal["code"] == "bad_hello" and "HTTP" in refusal["detail"]
    wire = sidecar.hello()
    [error, _] = wire.send(b"x" * (LIMIT + 100) + b"\n")
    assert error["detail"] == f"longer than {LIMIT} bytes; what is kept of it are the first {LIMIT}"
    [one] = sidecar.journal.committed[-1].rejected
    assert (one.line, one.time, one.code) == (b"x" * LIMIT, sidecar.journal.now(), "line_too_long")


@pytest.mark.parametrize(("reason", "taken"), [(ConnectionDone(), 1), (ConnectionLost(), 0)])
def test_a_last_line_without_a_newline_counts_where_the_client_ended_well(reason: Exception, taken: int) -> None:
    """Without a hello, over TLS, which has no half-closed connections."""
    sidecar = Sidecar()
    wire = sidecar.connect()
    wire.connection.dataReceived(b'{"type":"metric","service":"s","name":"n","value":1}')
    wire.connection.connectionLost(Failure(reason))
    assert len(sidecar.journal.lines) == taken


# when it is said


def test_an_ack_goes_out_before_whatever_else_waits_for_what_is_durable() -> None:
    """The reactor looks at its sockets only after all the calls that are due."""
    sidecar, sent = Sidecar(automatic=False), list[bytes]()
    wire = sidecar.hello()

    def send() -> None:
        sent.append(wire.transport.value())
        wire.transport.clear()

    wire.transport.doWrite = send  # type: ignore[attr-defined]
    wire.connection.dataReceived(wire.lines(1, 2))
    sidecar.journal.commit()
    sidecar.clock.callLater(0, lambda: sent.append(b"a reader of the journal"))
    sidecar.clock.advance(0)
    assert [sent[0].count(b'"ack"'), sent[1:]] == [1, [b"a reader of the journal"]]
    wire.connection.dataReceived(b"bad\n" * 100)
    sidecar.journal.commit()
    sidecar.clock.advance(0)
    assert len(sent) <= 3, "many errors go out together"
    count = len(sent)
    wire.connection.acknowledge(again=True)
    assert len(sent) == count, "what is repeated to many is sent by and by"
