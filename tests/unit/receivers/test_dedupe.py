"""Which lines of a connection are accepted, refused, or known."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wafermon.journal import Stream
from wafermon.net.principals import Principal
from wafermon.receivers.lines.dedupe import MAX_JUMP, MAX_REFUSED, Deduplicator, Taken
from wafermon.wire.lines import LineError, Origin

CLIENT = "9f2c6b1d00e4a873"
NOW = 1_795_500_000_000_000


def line(seq: int | None = 1, client: str | None = CLIENT, **fields: Any) -> bytes:
    message = {
        "type": "metric",
        "ts": NOW,
        "service": "s",
        "name": "n",
        "value": 1,
        "client": client,
        "seq": seq,
        **fields,
    }
    return json.dumps({name: value for name, value in message.items() if value is not None}).encode() + b"\n"


def numbered(at: int = 0, principal: Principal | None = None) -> tuple[Deduplicator, Stream]:
    stream = Stream("", CLIENT, at)
    origin = Origin(client=CLIENT, numbered=True)
    return Deduplicator(origin, stream, "peer", principal or Principal()), stream


def count(taken: Taken) -> int:
    return taken.block.count if taken.block else 0


@pytest.mark.parametrize("split", [False, True])
def test_lines_move_the_mark_one_by_one(split: bool) -> None:
    dedupe, stream = numbered()
    data = b"".join(map(line, range(1, 6)))
    parts = [part + b"\n" for part in data.splitlines()] if split else [data]
    assert sum(count(dedupe.take(part, NOW)) for part in parts) == 5
    assert (stream.appended, stream.synced) == (5, 0)


def test_known_lines_are_dropped_and_counted() -> None:
    dedupe, stream = numbered(3)
    taken = dedupe.take(b"".join(map(line, range(1, 6))), NOW)
    assert (count(taken), taken.duplicates, taken.gaps, stream.appended) == (2, 3, 0, 5)
    again = dedupe.take(line(5), NOW)
    assert (again.block, again.duplicates, again.rejected) == (None, 1, [])


def test_a_gap_is_taken_and_counted_and_a_jump_is_refused() -> None:
    dedupe, stream = numbered()
    taken = dedupe.take(line(1) + line(4), NOW)
    assert (count(taken), taken.gaps, stream.appended) == (2, 2, 4)
    far = dedupe.take(line(4 + MAX_JUMP + 1), NOW)
    assert (far.block, stream.appended) == (None, 4)
    assert [(reply.seq, reply.code) for reply in far.replies] == [(4 + MAX_JUMP + 1, "bad_message")]
    assert (far.rejected[0].client, far.rejected[0].seq) == ("", 0), "it is no part of the stream"
    assert count(dedupe.take(line(4 + MAX_JUMP), NOW)) == 1


def test_a_refused_line_moves_the_mark_and_names_its_stream() -> None:
    dedupe, stream = numbered()
    taken = dedupe.take(line(1) + line(2, value="x") + line(3), NOW)
    assert (count(taken), stream.appended) == (2, 3)
    [one] = taken.rejected
    assert (one.code, one.client, one.seq, one.peer, one.time) == ("bad_message", CLIENT, 2, "peer", NOW)
    assert one.line == line(2, value="x")[:-1]


def test_a_line_whose_number_can_not_be_read_is_the_next_one() -> None:
    dedupe, stream = numbered()
    taken = dedupe.take(line(1) + b"nonsense\n" + line(3), NOW)
    assert (count(taken), stream.appended, taken.gaps) == (2, 3, 0)
    assert [reply.seq for reply in taken.replies] == [2]
    dedupe.take(line(2), NOW)
    after = dedupe.take(b"nonsense\n", NOW)
    assert (after.replies, after.duplicates) == ([], 1), "the one after 2, which is known"


def test_a_connection_goes_on_from_what_is_durable() -> None:
    stream = Stream("", CLIENT, 5)
    stream.appended = 7
    dedupe = Deduplicator(Origin(client=CLIENT, numbered=True), stream, "peer")
    taken = dedupe.take(b"bad\n" * 3, NOW)
    assert taken.duplicates == 2
    assert [reply.seq for reply in taken.replies] == [8]


def test_a_line_of_another_client_moves_nothing() -> None:
    dedupe, stream = numbered()
    taken = dedupe.take(line(9, client="0" * 16) + line(1), NOW)
    assert (count(taken), stream.appended) == (1, 1)
    assert [(reply.seq, reply.code) for reply in taken.replies] == [(9, "bad_message")]
    assert (taken.rejected[0].client, taken.rejected[0].seq) == ("", 0)


def test_without_a_stream_nothing_is_a_duplicate() -> None:
    dedupe = Deduplicator(Origin(), None, "peer")
    same = line(1) * 2
    assert count(dedupe.take(same, NOW)) == 2
    taken = dedupe.take(same + b"bad\n", NOW)
    assert (count(taken), taken.duplicates, taken.gaps) == (2, 0, 0)
    assert [(reply.seq, reply.code) for reply in taken.replies] == [(None, "bad_json")]
    assert taken.rejected[0].client == ""


def test_a_block_is_left_after_so_many_refused_lines() -> None:
    dedupe, stream = numbered()
    data = b"x\n" * 250
    sizes = []
    while data:
        taken = dedupe.take(data, NOW)
        sizes.append(len(taken.rejected))
        assert taken.size == 2 * len(taken.rejected)
        data = data[taken.size :]
    assert sizes == [MAX_REFUSED, MAX_REFUSED, 50]
    assert stream.appended == 250


def test_what_is_missing_is_spliced_in() -> None:
    stream = Stream("", CLIENT, 0)
    dedupe = Deduplicator(Origin("svc", "h", 7, CLIENT, True), stream, "peer")
    taken = dedupe.take(b'{"type":"metric","name":"n","value":1,"client":"%s","seq":1}\n' % CLIENT.encode(), NOW)
    assert taken.block is not None
    assert json.loads(taken.block.raw) == {
        "service": "svc", "host": "h", "pid": 7, "ts": NOW, "type": "metric", "name": "n", "value": 1, "client": CLIENT, "seq": 1,
    }  # fmt: skip
    assert taken.block.raw.endswith(b"\n")


@pytest.mark.parametrize("code", ["bad_message", "unauthorized"])
def test_a_service_that_is_not_allowed_is_refused_line_by_line(code: str) -> None:
    dedupe, stream = numbered(principal=Principal("p", ("web-*", "cron"), code, "not yours"))
    taken = dedupe.take(line(1, service="web-1") + line(2, service="payments") + line(3, service="cron"), NOW)
    assert (count(taken), stream.appended) == (2, 3)
    assert [(reply.seq, reply.code, reply.detail) for reply in taken.replies] == [
        (2, code, "service: not yours: 'payments'")
    ]
    allowed = dedupe.take(line(4, service="web-2") + line(5, service="web-3"), NOW)
    assert (count(allowed), allowed.rejected) == (2, [])


def test_an_empty_list_of_services_allows_none() -> None:
    dedupe, _ = numbered(principal=Principal("p", ()))
    taken = dedupe.take(line(1), NOW)
    assert (taken.block, len(taken.rejected)) == (None, 1)


def test_a_line_that_was_never_read_is_refused_as_the_next_one() -> None:
    dedupe, stream = numbered()
    dedupe.take(line(1), NOW)
    taken = dedupe.refuse(b"x" * 10, LineError("line_too_long", "longer"), NOW)
    assert [(reply.seq, reply.code) for reply in taken.replies] == [(2, "line_too_long")]
    assert (stream.appended, taken.rejected[0].line) == (2, b"x" * 10)


pieces = st.sampled_from(
    [
        line(1), line(2), line(3), line(4), line(5), line(6), line(7, service="other"), line(8), line(9, value="x"), line(10), line(11),
        line(2, value="x"), line(3, client="0" * 16), line(6, value="x"), b"nonsense\n", b"\n", line(None), line(MAX_JUMP + 20),
        line(9, colour="blue"), line(12, service="other"), line(5, ts=None), line(6, ts=None), line(MAX_JUMP, value="x"),
    ]
)  # fmt: skip
runs = st.lists(st.integers(1, 12), min_size=1, max_size=12).map(lambda seqs: list(map(line, sorted(seqs))))


@given(
    st.lists(runs | st.lists(pieces, min_size=1, max_size=8), min_size=1, max_size=4), st.integers(0, 5), st.booleans()
)
def test_lines_are_settled_alike_at_once_and_one_by_one(blocks: list[list[bytes]], at: int, limited: bool) -> None:
    principal = Principal("p", ("s",)) if limited else Principal()
    (whole, stream), (each, other) = numbered(at, principal), numbered(at, principal)
    for lines in blocks:
        taken = whole.take(b"".join(lines), NOW)
        singles = [each.take(data, NOW) for data in lines]
        assert taken.size == sum(one.size for one in singles) == sum(map(len, lines))
        assert taken.duplicates == sum(one.duplicates for one in singles)
        assert taken.gaps == sum(one.gaps for one in singles)
        assert taken.rejected == [rejected for one in singles for rejected in one.rejected]
        assert taken.replies == [reply for one in singles for reply in one.replies]
        assert taken_lines(taken) == [data for one in singles for data in taken_lines(one)]
        assert stream.appended == other.appended


def taken_lines(taken: Taken) -> list[bytes]:
    return taken.block.lines if taken.block else []
