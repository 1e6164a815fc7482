"""Forwarding's pure parts: batches to frames and back, options, how far was sent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.testing import StringTransportWithDisconnection

from wafermon.backends.forward.cutting import Manner, idle, pack, plainly
from wafermon.backends.forward.link import Link
from wafermon.backends.forward.options import ForwardOptions, read_token
from wafermon.backends.forward.reach import Reach
from wafermon.contract import JOURNAL, batch, line
from wafermon.interfaces import ConfigError, Position
from wafermon.model.checking import checked
from wafermon.wire.frames import PACKERS, BadFrame, Head, find_head, open_frame, read_head

START = Position(JOURNAL, 7, 100)


def frames_in(data: bytes, codec: str, most: int) -> list[tuple[Head, bytes]]:
    found = []
    while data:
        first, end = find_head(data if data.endswith(b"\n") else data + b"\n")
        assert first == 0
        head = read_head(data[:end], codec, most, forwarded=True)
        found.append((head, open_frame(head, data[end : end + head.size])))
        data = data[end + head.size :]
    return found


@given(
    st.sampled_from([*PACKERS, "none"]),
    st.lists(st.integers(0, 3_000), min_size=1, max_size=30),
    st.integers(2_000, 20_000),
)
def test_a_batch_in_frames_is_the_batch(codec: str, sizes: list[int], most: int) -> None:
    one = batch(START, [line(seq + 1, message="x" * size) for seq, size in enumerate(sizes)])
    packed = pack(one, Manner(codec, most), 5)
    found = frames_in(packed.data, codec, 1 << 20)
    assert b"".join(raw for _, raw in found) == one.raw
    assert len(found) == packed.frames
    assert packed.longest == max(map(len, one.lines))
    stretches = [head.stretch for head, _ in found]
    at = one.start.number
    for stretch in stretches:
        assert stretch is not None and stretch.start == at and stretch.now == 5
        at = stretch.end
    assert at == one.end.number
    assert all(head.raw <= most or head.lines == 1 for head, _ in found)


def test_an_idle_frame_holds_nothing() -> None:
    [(head, raw)] = frames_in(idle(START.number, 9), "zlib", 1)
    assert raw == b"" and head.stretch is not None and head.stretch.start == head.stretch.end == START.number


def test_after_a_refusal_frames_are_small_and_plain() -> None:
    assert plainly(Manner("zstd", 1 << 22)) == Manner("none", 64 << 10)


@pytest.mark.parametrize(("head", "said"), [
    (b'{"type":"frame","codec":"none","bytes":0,"raw":0,"lines":0}\n', "start: expected"),
    (b'{"type":"frame","codec":"none","bytes":0,"raw":0,"lines":0,"start":5,"end":4}\n', "end: 4 is less"),
    (b'{"type":"frame","codec":"none","bytes":0,"raw":0,"lines":0,"start":-1,"end":4}\n', "start: expected"),
    (b'{"type":"frame","codec":"none","bytes":0,"raw":0,"lines":0,"start":0,"end":9223372036854775808}\n', "end: expected"),
    (b'{"type":"frame","codec":"none","bytes":3,"raw":4,"lines":1,"start":0,"end":1}\n', "bytes: 3 is not raw"),
    (b'{"type":"frame","codec":"none","bytes":4,"raw":4,"lines":0,"start":0,"end":1}\n', "lines: none"),
    (b'{"type":"frame","codec":"zlib","bytes":0,"raw":0,"lines":0,"start":0,"end":1}\n', "lines: none"),
    (b'{"type":"frame","codec":"zstd","bytes":1,"raw":1,"lines":1,"start":0,"end":1}\n', "codec: 'zstd' was not granted"),
    (b'{"type":"frame","codec":"none","bytes":9999,"raw":9999,"lines":1,"start":0,"end":1}\n', "more than max_frame"),
])  # fmt: skip
def test_a_bad_head_is_refused(head: bytes, said: str) -> None:
    with pytest.raises(BadFrame, match=said):
        read_head(head, "zlib", 100, forwarded=True)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**31 - 1))
def test_a_position_as_a_number(segment: int, offset: int) -> None:
    position = Position(JOURNAL, segment, offset)
    assert Position.of_number(JOURNAL, position.number) == position < Position.of_number(JOURNAL, position.number + 1)


@pytest.mark.parametrize(
    "url", ["tls://central:7413", "tcp://[::1]:7413", "tcp://10.0.0.1:1", "unix:/run/wafermon/c.sock"]
)
def test_urls(url: str) -> None:
    assert checked(ForwardOptions, {"url": url}).url == url


@pytest.mark.parametrize("given", [
    {}, {"url": "central:7413"}, {"url": "http://central:1"}, {"url": "tcp://central:0"}, {"url": "tcp://a:1", "ca_file": "x"},
    {"url": "tls://a:1", "certificate": "x"}, {"url": "tls://a:1", "key": "x"}, {"url": "tcp://a:1", "compress": "lz4"},
])  # fmt: skip
def test_wrong_options(given: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        checked(ForwardOptions, given)


def test_a_token_is_the_first_word_of_the_first_line(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("# of edge 1\n\nabc def\n")
    assert read_token(path) == "abc" and read_token(None) == ""
    for text in ("", "# nothing\n", "ä\n", "x" * 513):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=str(path)):
            read_token(path)


def test_how_far_may_have_been_sent_is_kept(tmp_path: Path) -> None:
    reach = Reach(tmp_path, JOURNAL)
    seven, eight = Position(JOURNAL, 7, 5).number, Position(JOURNAL, 8, 0).number
    assert reach.covers(eight), "nothing is known yet"
    reach.extend(seven)
    assert reach.includes(seven) and not reach.includes(eight)
    again = Reach(tmp_path, JOURNAL)
    assert again.covers(seven) and not again.covers(eight)
    again.extend(eight)
    assert Reach(tmp_path, JOURNAL).covers(eight)
    assert Reach(tmp_path, "f" * 16).covers(eight), "after a renewal nothing is known"


def test_an_ack_of_what_was_never_sent_ends_the_connection() -> None:
    ended = list[Exception]()
    link = Link(b"hello\n", lambda: 0.0, lambda _: None, lambda _, problem: ended.append(problem))
    transport = StringTransportWithDisconnection()
    transport.protocol = link
    transport.abortConnection = transport.loseConnection  # type: ignore[method-assign]
    link.makeConnection(transport)
    welcome = {
        "type": "welcome",
        "sidecar": "c" * 16,
        "forward": True,
        "acked": 10,
        "max_line": 65536,
        "max_frame": 65536,
    }
    link.dataReceived(json.dumps(welcome).encode() + b"\n")
    link.sent = 20
    link.dataReceived(b'{"type":"ack","seq":20}\n')
    assert link.acked == 20 and ended == []
    link.dataReceived(b'{"type":"ack","seq":21}\n')
    assert link.acked == 20 and "20 is what was sent" in str(ended[0])
