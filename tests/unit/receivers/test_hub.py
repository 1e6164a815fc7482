"""What connections share: limits, acks, the stop."""

from __future__ import annotations

import json
import threading
import zlib
from typing import Any

import logged
import pytest
from appended_journal import MemoryJournal, as_journal
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from wires import Admission, Sidecar, Transport, Wire

from wafermon.model.lograte import FOLLOWS, LINES
from wafermon.model.settings import Limits
from wafermon.net.principals import Principal
from wafermon.receivers.lines import hub
from wafermon.receivers.lines.connection import Connection
from wafermon.receivers.lines.hub import Receiver, ReceiverFactory
from wafermon.wire import frames


def two(sidecar: Sidecar) -> tuple[Wire, Wire]:
    return sidecar.hello(client="a" * 16), sidecar.hello(client="b" * 16)


def stopped(sidecar: Sidecar, patience: float = 2.0) -> list[None]:
    done: list[None] = []
    Deferred.fromCoroutine(sidecar.hub.stop(patience)).addCallback(done.append)
    return done


def test_connections_are_counted_and_forgotten() -> None:
    sidecar = Sidecar()
    one, other = two(sidecar)
    assert (sidecar.hub.connections, sidecar.hub.figures.connections) == (2, 2)
    one.connection.connectionLost(Failure(ConnectionDone()))
    assert sidecar.hub.connections == 1
    assert len(sidecar.journal.marks) == 1, "a hello alone leaves no mark"
    other.send(other.lines(1))
    other.connection.connectionLost(Failure(ConnectionDone()))
    assert len(sidecar.journal.marks) == 1
    sidecar.journal.marks.saved(sidecar.journal.marks.moved())
    assert len(sidecar.journal.marks) == 0, "what is on disk leaves the memory"


def test_one_ack_for_all_that_a_sync_settled() -> None:
    sidecar = Sidecar(automatic=False)
    one, other = two(sidecar)
    for seq in (1, 2, 3):
        one.send(one.lines(seq))
    other.send(other.lines(1))
    sidecar.journal.commit()
    assert [reply["seq"] for reply in one.heard()] == [3]
    assert [reply["seq"] for reply in other.heard()] == [1]


def test_an_ack_is_repeated_each_second_until_all_is_durable() -> None:
    sidecar = Sidecar(automatic=False)
    one, other = two(sidecar)
    one.send(one.lines(1))
    assert [reply["seq"] for reply in one.after(3)] == [0, 0, 0]
    sidecar.journal.commit()
    assert [reply["seq"] for reply in one.after(3)] == [1]
    assert other.heard() == []


def test_a_stop_takes_no_more_and_acknowledges_what_was_taken() -> None:
    sidecar = Sidecar(automatic=False)
    one, other = two(sidecar)
    one.send(one.lines(1))
    done = stopped(sidecar)
    assert one.transport.paused
    one.send(one.lines(2))
    assert other.closed is False
    sidecar.journal.commit()
    assert [reply["seq"] for reply in one.heard()] == [1]
    sidecar.clock.pump([0.1] * 3)
    assert one.closed and other.closed
    for wire in (one, other):
        wire.connection.connectionLost(Failure(ConnectionDone()))
    sidecar.clock.pump([0.1] * 3)
    assert done == [None]
    assert len(sidecar.journal.lines) == 1


def test_a_stop_waits_for_the_ack_that_is_about_to_be_sent() -> None:
    sidecar = Sidecar(automatic=False)
    wire = sidecar.hello()
    wire.send(wire.lines(1))
    done = stopped(sidecar)
    sidecar.clock.callLater(hub.LOOK_SECONDS / 2, sidecar.journal.commit)  # just before the stop looks
    sidecar.clock.advance(hub.LOOK_SECONDS)
    sidecar.clock.pump([hub.LOOK_SECONDS] * 3)
    assert wire.closed
    assert [reply["seq"] for reply in wire.heard()] == [1]
    wire.connection.connectionLost(Failure(ConnectionDone()))
    sidecar.clock.advance(hub.LOOK_SECONDS)
    assert done == [None]


def test_a_stop_waits_no_longer_than_it_was_told_to() -> None:
    sidecar = Sidecar(automatic=False)
    one, _ = two(sidecar)
    one.send(one.lines(1))
    done = stopped(sidecar, 2.0)
    sidecar.clock.pump([0.1] * 19)
    assert not one.closed
    sidecar.clock.pump([0.1] * 15)
    assert one.closed
    assert done == [None]


@pytest.mark.parametrize("error", [OSError("x"), RuntimeError("x"), CancelledError()])
@pytest.mark.parametrize("call", ["acknowledge", "end", "refuse"])
def test_the_tick_goes_on_whatever_one_connection_raises(call: str, error: Exception) -> None:
    sidecar = Sidecar(automatic=False, idle_timeout=10.0, first_line=10.0)
    broken, sound = two(sidecar)
    silent = sidecar.connect()
    wires = [broken, sound, silent]
    broken.send(broken.lines(1))
    sound.send(sound.lines(1))
    target = silent if call == "refuse" else broken

    def fails(*_: Any, **__: Any) -> None:
        raise error

    original = getattr(Connection, call)

    def sometimes(self: Connection, *args: Any, **how: Any) -> Any:
        return fails() if self is target.connection else original(self, *args, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Connection, call, sometimes)
        assert sound.after(3) != []
        sound.after(9)
    assert target.transport.aborted
    assert all(wire.closed for wire in wires)


def test_the_allowance_of_a_stream_is_kept_for_as_long_as_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "ALLOWANCES", 2)
    sidecar = Sidecar()
    streams = [sidecar.journal.marks.hold("", f"{number:016x}") for number in range(3)]
    for number, stream in enumerate(streams):
        sidecar.hub.allow(stream, 10.0 + number)
    assert [sidecar.hub.allowed_at(stream) for stream in streams] == [0.0, 11.0, 12.0]
    sidecar.clock.pump([1.0] * 11)
    assert [sidecar.hub.allowed_at(stream) for stream in streams] == [0.0, 0.0, 12.0]


def test_what_clients_do_wrong_is_logged_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    sidecar = Sidecar()
    said: list[str] = []
    warn = lambda self, text, **fields: said.append(text.format(**fields))  # noqa: E731
    monkeypatch.setattr(sidecar.hub, "log", type("Log", (), {"warn": warn})())
    for _ in range(20):
        sidecar.hub.complain("peer", "problem")
    assert said == ["peer: problem"] * LINES + [f"About clients: {FOLLOWS}"]
    sidecar.clock.pump([1.0] * 61)
    assert said[-1] == f"About clients: {20 - LINES} more such lines within a minute"
    sidecar.hub.complain("peer", "problem")
    assert said[-1] == "peer: problem"


def test_a_listeners_connections_are_those_that_it_admitted() -> None:
    sidecar = Sidecar()
    mine, other = Admission(Principal("a")), Admission()
    wires = [Wire(sidecar, mine), Wire(sidecar, mine), Wire(sidecar, other)]
    wires[0].hello(client="a" * 16)
    wires[2].hello(client="b" * 16)
    assert sidecar.hub.admitted_by(mine) == [wires[0].connection]
    assert wires[0].connection.principal == Principal("a")
    wires[0].connection.end()
    assert sidecar.hub.admitted_by(mine) == []


def test_the_token_is_what_the_hello_says() -> None:
    sidecar = Sidecar()
    admission = Admission()
    Wire(sidecar, admission).hello(token="secret")
    Wire(sidecar, admission).send(b'{"type":"metric"}\n')
    assert admission.tokens == ["secret", ""]


def test_a_frame_is_at_most_a_quarter_of_a_segment() -> None:
    sidecar = Sidecar(frame_bytes=1 << 20)
    assert sidecar.hub.frame_bytes == 1 << 20
    sidecar.journal.settings.segment_bytes = 1 << 20
    assert sidecar.hub.frame_bytes == 1 << 18


class Threads:
    """Takes work, and does it when it is told to."""

    def __init__(self) -> None:
        self.work: list[Any] = []

    def callInThreadWithCallback(self, done: Any, call: Any, *args: Any, **how: Any) -> None:
        self.work.append((done, call, args, how))

    def run(self) -> None:
        done, call, args, how = self.work.pop(0)
        thread = threading.Thread(target=lambda: done(True, call(*args, **how)))
        thread.start()
        thread.join()


def test_so_many_bytes_of_frames_are_opened_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "OPENING_BYTES", 100)
    clock = Clock()
    clock.callFromThread = lambda call, *args: clock.callLater(0, call, *args)  # type: ignore[attr-defined]
    threads: Any = Threads()
    receiver = Receiver(as_journal(MemoryJournal(clock)), Limits(), clock, threads)
    monkeypatch.setattr(frames, "open_frame", lambda head, data: data)
    opened: list[bytes] = []
    head = frames.Head("zlib", 3, 60, 1)
    for name in (b"a", b"b"):
        assert not receiver.frames_wait
        receiver.open_frame(head, name).addCallback(opened.append)
    assert receiver.frames_wait
    room: list[str] = []
    receiver.on_frame_room(lambda: room.append("first"))
    receiver.on_frame_room(lambda: room.append("second"))
    clock.advance(0)
    assert (opened, room) == ([], [])
    threads.run()
    clock.advance(0)
    clock.advance(0)
    assert (opened, room) == ([b"a"], ["first", "second"])
    assert not receiver.frames_wait


# -- who came and went


def said(sidecar: Sidecar) -> list[tuple[str, str]]:
    """What the journal was told of connections, but for the start."""
    told = [one for entry in sidecar.journal.committed for one in entry.presence]
    assert [one.what for one in told[:1]] in ([], ["started"])
    return [(one.what, one.client[:1]) for one in told[1:]]


def lost(wire: Wire) -> None:
    wire.connection.connectionLost(Failure(ConnectionDone()))


def stats(wire: Wire, seq: int, **fields: Any) -> bytes:
    figures = {"called": 1, "dropped": 0, "unsent": 0, "last": seq - 1, "streams": []}
    return wire.line(seq, type="stats", name=None, value=None, **figures, **fields).replace(
        b'"name": null, "value": null, ', b""
    )


def test_a_connection_is_announced_with_its_first_message() -> None:
    sidecar = Sidecar()
    one, other = two(sidecar)
    assert said(sidecar) == []
    one.send(one.lines(1))
    one.send(one.lines(2))
    [first] = [entry for entry in sidecar.journal.committed if entry.presence]
    assert first.block is not None and first.block.count == 1
    assert list(first.presence) == [("started", "", "", "", -1), ("came", "a" * 16, "s", "h", 7)]
    lost(one)
    lost(other)  # which said nothing
    assert said(sidecar) == [("came", "a"), ("went", "a")]


def test_one_that_says_that_it_ends_does_not_go_without_a_word() -> None:
    sidecar = Sidecar()
    one, other = two(sidecar)
    one.send(one.lines(1) + stats(one, 2, final=True))
    other.send(other.lines(1) + stats(other, 2))
    lost(one)
    lost(other)
    assert said(sidecar) == [("came", "a"), ("came", "b"), ("went", "b")]


def test_one_that_comes_back_is_announced_though_it_says_nothing() -> None:
    sidecar = Sidecar()
    one, _ = two(sidecar)
    one.send(one.lines(1))
    lost(one)
    sidecar.hello(client="a" * 16).after(1)
    assert said(sidecar) == [("came", "a"), ("went", "a"), ("came", "a")]


def test_what_the_sidecar_ends_did_not_go_by_itself() -> None:
    sidecar = Sidecar()
    one, other = two(sidecar)
    one.send(one.lines(1))
    other.send(other.lines(1))
    again = sidecar.hello(client="a" * 16)  # the older one of a client is closed
    lost(one)
    other.connection.refuse("unauthorized", "")
    lost(other)
    again.send(again.lines(2))
    assert said(sidecar) == [("came", "a"), ("came", "b"), ("came", "a")]
    stopped(sidecar)
    sidecar.clock.advance(5)
    lost(again)
    assert len(said(sidecar)) == 3


def test_without_acknowledgement_nobody_is_announced() -> None:
    sidecar = Sidecar()
    wire = sidecar.hello(ack=False)
    wire.send(wire.lines(1))
    lost(wire)
    assert said(sidecar) == []


@pytest.mark.parametrize(("address", "peer"), [
    (IPv4Address("TCP", "10.0.0.1", 4711), "10.0.0.1:4711"), (IPv6Address("TCP", "::1", 5), "[::1]:5"), (None, "unix"),
])  # fmt: skip
def test_a_peer_is_named_as_people_write_it(address: Any, peer: str) -> None:
    sidecar = Sidecar()
    connection = ReceiverFactory(sidecar.hub, Admission()).buildProtocol(address)
    assert connection.peer == peer
    connection.makeConnection(Transport())
    connection.dataReceived(b"nonsense\n")
    [one] = sidecar.journal.committed[-1].rejected
    assert one.peer == peer
    named = ReceiverFactory(sidecar.hub, Admission()).buildProtocol(address)
    named.makeConnection(Transport())
    named.dataReceived(b'{"v":2,"type":"hello","client":"%s"}\nnonsense\n' % (b"a" * 16))
    [one] = sidecar.journal.committed[-1].rejected
    assert one.peer == peer


def test_a_refused_line_is_no_message() -> None:
    sidecar = Sidecar()
    one, _ = two(sidecar)
    one.send(b"nonsense\n")
    assert (sidecar.hub.figures.messages, sidecar.hub.figures.rejected) == (0, {"bad_json": 1})


def test_without_a_hello_a_token_s_services_bind_as_well() -> None:
    sidecar = Sidecar()
    wire = sidecar.connect(Admission(Principal("token:1", ("web-*",))))
    wire.connection.dataReceived(b"".join(
        b'{"type":"metric","service":"%s","name":"n","value":1}\n' % name for name in (b"web-1", b"pay")
    ))  # fmt: skip
    sidecar.clock.advance(0)
    assert len(sidecar.journal.lines) == 1


def test_nobody_is_remembered_as_asking_once_it_is_told() -> None:
    sidecar = Sidecar()
    two(sidecar)
    assert sidecar.hub._asking == {}


def test_what_takes_too_much_memory_is_said() -> None:
    sidecar = Sidecar(partial_bytes=1000)
    one, _ = two(sidecar)
    with logged.said() as said:
        one.send(b"x" * 2000)
    assert said == [
        f"warn: {one.connection.peer}: closed: what clients have begun to send, and do not read, takes 2000 bytes, "
        "more than limits.partial_bytes"
    ]


def test_the_rate_limit_lets_go_on_when_its_time_has_come_whatever_the_clock_says() -> None:
    sidecar = Sidecar(messages_per_second=10)
    sidecar.clock.advance(1000.0)
    one, _ = two(sidecar)
    one.send(one.lines(1))
    one.send(one.lines(2))
    assert len(sidecar.journal.lines) == 1
    sidecar.clock.advance(0.11)
    assert len(sidecar.journal.lines) == 2


@pytest.mark.parametrize(("error", "told"), [(frames.BadFrame("odd"), "bad_frame"), (RuntimeError("x"), "")])
def test_a_large_frame_that_can_not_be_opened_ends_its_connection(error: Exception, told: str) -> None:
    sidecar = Sidecar(frame_bytes=8 << 20)
    wire = sidecar.hello(compress=["zlib"])
    opening: Deferred[bytes] = Deferred()
    sidecar.hub.open_frame = lambda head, data: opening  # type: ignore[method-assign]
    raw = wire.line(1, tags={"fill": "x" * 60_000}) * 10
    data = zlib.compress(raw)
    head = {"type": "frame", "codec": "zlib", "bytes": len(data), "raw": len(raw), "lines": 10}
    wire.send(json.dumps(head).encode() + b"\n" + data)
    opening.errback(error)
    assert wire.closed
    assert [reply["code"] for reply in wire.heard()] == ([told] if told else [])
    assert wire.transport.aborted is not bool(told)
    assert sidecar.journal.lines == []
