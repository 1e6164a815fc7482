"""The first line of a connection: its fields are bounded like those of a line."""

from __future__ import annotations

import json
from typing import Any

import pytest

from wafermon.model.errors import ProtocolError
from wafermon.wire.hello import Hello, ack, error, read_hello, stranger, welcome
from wafermon.wire.lines import Origin

HELLO = {"v": 2, "type": "hello", "client": "9f2c6b1d00e4a873", "service": "s", "host": "fab1", "pid": 7, "sdk": "x/1"}


def read(**fields: Any) -> Hello | None:
    return read_hello(json.dumps({**HELLO, **fields}).encode())


def test_a_hello_says_what_its_lines_need_not() -> None:
    assert read(token="t", compress=["zstd", "zlib"]) == Hello(
        Origin("s", "fab1", 7, "9f2c6b1d00e4a873", True), True, "t", ("zstd", "zlib"), "x/1"
    )
    assert read(ack=False) == Hello(Origin("s", "fab1", 7, "9f2c6b1d00e4a873", False), False, "", (), "x/1")


@pytest.mark.parametrize(("fields", "problem"), [
    ({"host": "h" * 256}, "host: longer than 255 bytes"),
    ({"host": "ü" * 128}, "host: longer than 255 bytes"),
    ({"host": "a\0b"}, "host: holds a control character"),
    ({"host": "a\x7f"}, "host: holds a control character"),
    ({"host": "a\x9fb"}, "host: holds a control character"),
    ({"sdk": "s" * 65}, "sdk: longer than 64 characters"),
    ({"sdk": "a\n"}, "sdk: holds a control character"),
    ({"token": "t" * 513}, "token: longer than 512 characters"),
    ({"token": "\x1b"}, "token: holds a control character"),
    ({"pid": -1}, "pid: expected 0 to 2^53"),
    ({"pid": 2**53 + 1}, "pid: expected 0 to 2^53"),
    ({"pid": ""}, "pid: expected int, got str"),
    ({"pid": True}, "pid: expected int, got bool"),
    ({"client": ""}, "client: missing"),
    ({"client": "9F2C6B1D00E4A873"}, "client: expected 16"),
    ({"client": "9f2c6b1d00e4a873\n"}, "client: expected 16"),
    ({"service": "s" * 129}, "service: expected 1-128"),
    ({"service": "wafermon"}, "service: 'wafermon' is reserved"),
    ({"v": 1}, "v: 1 is not spoken"),
    ({"v": ""}, "v: expected int"),
    ({"ack": ""}, "ack: expected bool"),
    ({"compress": "zlib"}, "compress: expected list"),
    ({"compress": ["zlib", 1]}, "compress: expected a list of names"),
])  # fmt: skip
def test_a_bad_field_is_named(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        read(**fields)
    assert caught.value.code == "bad_hello"
    assert caught.value.detail.startswith(problem)


@pytest.mark.parametrize("fields", [
    {"host": "h" * 255}, {"sdk": "s" * 64}, {"token": "t" * 512}, {"pid": 0}, {"pid": 2**53}, {"service": "s" * 128}, {"v": 3},
    {"compress": []}, {"colour": "x" * 1000}, {"ack": False, "client": ""},
])  # fmt: skip
def test_what_is_at_the_bound_is_taken(fields: dict[str, Any]) -> None:
    assert read(**fields) is not None


def test_an_empty_field_counts_as_missing() -> None:
    hello = read(host="", service="", token="", sdk="")
    assert hello is not None
    assert (hello.origin.host, hello.origin.service, hello.token) == ("", "", "")


@pytest.mark.parametrize("line", [b"", b"nonsense", b"[]", b'{"type":"event"}', b"\xff"])
def test_another_first_line_is_no_hello(line: bytes) -> None:
    assert read_hello(line) is None


def test_a_hello_without_a_version_is_refused() -> None:
    with pytest.raises(ProtocolError, match="v: missing"):
        read_hello(b'{"type":"hello","client":"9f2c6b1d00e4a873"}')


@pytest.mark.parametrize(("start", "word"), [
    (b"GET / HTTP/1.1", "HTTP"), (b"POST /", "HTTP"), (b"\x16\x03\x01", "TLS"), (b"\x16", "TLS"), (b"\x16\x04", ""), (b"GETAWAY", ""), (b"{", ""), (b"", ""),
])  # fmt: skip
def test_strangers_are_told_where_they_are(start: bytes, word: str) -> None:
    assert (word in stranger(start)) is True
    assert bool(stranger(start)) is bool(word)


def test_what_the_sidecar_says() -> None:
    assert json.loads(welcome("id", 7, 65536)) == {
        "v": 2, "type": "welcome", "sidecar": "id", "acked": 7, "max_line": 65536, "features": ["stats"],
    }  # fmt: skip
    granted = json.loads(welcome("id", 7, 65536, "zlib", 100))
    assert (granted["compress"], granted["max_frame"]) == ("zlib", 100)
    assert ack(3) == b'{"type":"ack","seq":3}\n'
    assert json.loads(error("bad_json", "d")) == {"type": "error", "code": "bad_json", "detail": "d"}
    assert json.loads(error("bad_json", "d", 4))["seq"] == 4
