"""Lines, hellos and journals that somebody has tampered with. Seconds here; minutes by `make fuzz`, which raises FUZZ_EXAMPLES.

What is made is nearly right, since noise ends at the first check: a good line of each type, in which parts are exchanged,
doubled, cut and spliced, and values put that are hard on one reader or another. What was found once stands in FOUND.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from wafermon.contract import one_of_each
from wafermon.interfaces import Position
from wafermon.journal.groups import Head, Mark, Rejected, Stamp, decode_group, encode_blocks, encode_commit, scan
from wafermon.model.blocks import Block
from wafermon.model.errors import ProtocolError
from wafermon.model.messages import decode_stored, kind_of
from wafermon.wire.hello import read_hello, stranger
from wafermon.wire.lines import LineError, LineReader, Origin
from wafermon.wire.reader import BlockReader
from wafermon.wire.scanned import reader

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "300"))
often = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
NOW = 1_795_500_000_000_000
CLIENT = "9f2c6b1d00e4a873"
CODES = {"bad_json", "bad_utf8", "bad_message", "unknown_type"}
ORIGINS = (Origin(), Origin(service="s", host="h", pid=1, client=CLIENT, numbered=True), Origin(service="s"))

GOOD = [
    *one_of_each(1),
    b'{"v":2,"type":"hello","client":"9f2c6b1d00e4a873","service":"s","host":"h","pid":1,"ack":true}',
]
ODD = [
    b"null", b"true", b"-0", b"0", b"01", b"1.", b".5", b"1e5", b"1E400", b"-1e-400", b"9007199254740993",
    b"18446744073709551616", b"1" * 400, b"NaN", b"-Infinity", b'""', b'"\\u0000"', b'"\\ud800"', b'"\\ud83d\\ude80"', b'"\\udc00\\ud800"',
    b'"\xff"', b'"\xc0\xaf"', b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"', b'"\x01"', b'"\xe2\x80\xa8"', b"{}", b"[]", b"[" * 40, b"{" * 40,
    b'{"a":' * 40 + b"1" + b"}" * 40, b"[" * 33 + b"]" * 33, b'"wafermon"', b'"a b"', b'"' + b"x" * 129 + b'"', b"\xef\xbb\xbf", b"\r",
    b"\t", b" ", b",", b":", b"/*x*/", b"'", b'"type":"event",', b'"client":"0000000000000000",', b'"seq":9007199254740992',
]  # fmt: skip
FOUND: list[bytes] = []
"""Lines that once broke what is demanded here."""


@st.composite
def tampered(draw: st.DrawFn) -> bytes:
    """A good line to which a few things were done."""
    line = draw(st.sampled_from(GOOD))[:4000]
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(line)))
        end = min(len(line), at + draw(st.integers(0, 12)))
        new = draw(st.sampled_from(ODD) | st.binary(max_size=6))
        values = [place for place in range(len(line)) if line[place : place + 1] == b":"]
        match draw(st.sampled_from(["value", "value", "replace", "insert", "cut", "double"])):
            case "value" if values:  # a whole value, up to the next comma or brace
                at = draw(st.sampled_from(values)) + 1
                ends = [place for place in (line.find(b",", at), line.find(b"}", at)) if place >= 0]
                line = line[:at] + new + line[min(ends, default=len(line)) :]
            case "replace":
                line = line[:at] + new + line[end:]
            case "insert":
                line = line[:at] + new + line[at:]
            case "cut":
                line = line[:at]
            case _:
                line = line[:end] + line[at:]
    return line.replace(b"\n", b" ")


def strictly(line: bytes) -> Any:
    """As a reader that takes what RFC 8259 allows and nothing else. Raises ValueError."""

    def refuse(word: str) -> None:
        raise ValueError(word)

    return json.loads(line.decode(), parse_constant=refuse)


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for pair in value.items() for one in pair for text in strings(one)]
    if isinstance(value, list):
        return [text for one in value for text in strings(one)]
    return [value] if isinstance(value, str) else []


@often
@given(st.lists(tampered(), min_size=1, max_size=6), st.sampled_from(ORIGINS))
def test_lines(lines: list[bytes], origin: Origin) -> None:
    """What is taken is JSON for everybody and says what was sent; what is not is refused by a code that is documented; and
    whole blocks are judged like their lines."""
    each: list[Any] = []
    for line in lines:
        try:
            stored, message = LineReader(origin).read_line(line, NOW)
        except LineError as error:
            assert error.code in CODES
            assert error.detail and "\n" not in error.detail
            each.append(None)
            continue
        sent, kept = strictly(line), strictly(stored)
        assert kept.items() >= sent.items()
        assert b"\n" not in stored
        assert not any("\0" in text or any("\ud800" <= c <= "\udfff" for c in text) for text in strings(kept))
        assert decode_stored(stored) == message
        each.append((stored, message))
    readers = [BlockReader(origin), reader(origin)]
    for one in readers:
        read = one.read(b"".join(line + b"\n" for line in lines), NOW)
        assert list(zip(read.block.lines, read.block.messages, strict=True)) == [one for one in each if one]
        assert list(read.refused) == [at for at, one in enumerate(each) if not one]
        assert list(read.block.each_kind()) == list(map(kind_of, read.block.messages))


for line in FOUND:
    test_lines = example([line], ORIGINS[0])(test_lines)


@often
@given(tampered())
def test_hellos(line: bytes) -> None:
    """One is taken whole, refused with a reason, or no hello at all."""
    assert isinstance(stranger(line), str)
    try:
        hello = read_hello(line)
    except ProtocolError as error:
        assert error.code == "bad_hello"
        assert error.detail and "\n" not in error.detail
        return
    if hello is not None:
        said = strictly(line)
        assert said["type"] == "hello" and said["v"] >= 2
        assert hello.origin.client == said.get("client", "")
        assert hello.ack == said.get("ack", True)


def test_jq_reads_what_is_taken() -> None:
    """A sample of it, all at once."""
    taken: list[bytes] = []

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(tampered())
    def collect(line: bytes) -> None:
        with contextlib.suppress(LineError):
            taken.append(LineReader(ORIGINS[2]).read_line(line, NOW)[0])

    collect()
    done = subprocess.run(["jq", "-c", ".type"], input=b"\n".join(taken) + b"\n", capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(taken)


def segment() -> tuple[bytes, list[bytes], list[bytes]]:
    """A segment with all that one may hold; its groups, and their messages' lines."""
    data, groups, lines = b"", [], []
    for number in range(5):
        many = [line for seq in range(number * 40 + 1, number * 40 + 3) for line in one_of_each(seq)[3:]]
        block = Block.parse(b"".join(line + b"\n" for line in many))
        head = Head("5af1c0de5af1c0de", 1, 0).encode('{"rules":[]}') if not number else b""
        refused = Rejected("bad_json", "no JSON", b"\xff{", "127.0.0.1", NOW, CLIENT, number + 1).encode()
        body = [head, encode_blocks([block]), block.raw, refused]
        groups.append(
            b"".join([*body, encode_commit(body, Stamp(NOW + number, number), [Mark("", CLIENT, number + 1)])])
        )
        lines += many
        data += groups[-1]
    return data, groups, lines


DATA, GROUPS, LINES = segment()


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """The segment after a few accidents."""
    data = DATA
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        size = draw(st.sampled_from([1, 1, 2, 16, 512, 4096]))
        match draw(st.sampled_from(["flip", "cut", "zeros", "remove", "double", "exchange"])):
            case "flip" if at < len(data):
                data = data[:at] + bytes([data[at] ^ 1 << draw(st.integers(0, 7))]) + data[at + 1 :]
            case "cut":
                data = data[:at]
            case "zeros":
                data = data[:at] + bytes(min(size, len(data) - at)) + data[at + size :]
            case "remove":
                data = data[:at] + data[at + size :]
            case "double":
                data = data[: at + size] + data[at:]
            case _:
                data = data[:at] + data[at + size : at + 2 * size] + data[at : at + size] + data[at + 2 * size :]
    return data


@often
@given(damaged())
def test_journals(data: bytes) -> None:
    """What is read of a damaged segment was written: whole groups, and no line of any other; all of the rest is reported."""
    at = 0
    for span in scan(data):
        assert span.start == at < span.end
        at = span.end
        if span.commit is None:
            continue
        taken = data[span.start : span.end]
        group = decode_group(taken, span, "5af1c0de5af1c0de", 1, "")
        assert group.end == Position("5af1c0de5af1c0de", 1, span.end)
        assert [block.raw for _, block in group.blocks], taken
        assert {line for _, block in group.blocks for line in block.lines} <= set(LINES)
        assert taken[: taken.rindex(b"!commit ")] in [one[: one.rindex(b"!commit ")] for one in GROUPS]
        assert all(message.type for _, block in group.blocks for message in block.messages)
    if at < len(data):
        assert b"\n!commit " not in data[at:-1] or b"\n" not in data[data.rindex(b"\n!commit ") + 1 :]


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__, "-q", "-p", "no:cacheprovider"]))
