"""The body of a request -> what it says, within bounds. Pure; takes up to seconds for what is large, so that it has its place in a thread."""

from __future__ import annotations

import zlib
from typing import Any

import msgspec

from wafermon.wire.otlp import protobuf
from wafermon.wire.otlp.shapes import REQUESTS, Request, Signal

JSON, PROTOBUF = "application/json", "application/x-protobuf"
BODY_BYTES = 20 << 20
"""As it comes, and again once it is unpacked: what senders keep below."""
VALUES_MOST = 1_000_000
"""Objects in JSON, messages in protobuf: in bytes a request may be small and still be many of them."""
SMALL = 2 * VALUES_MOST
"""What has no more bytes than this can't have more values: the least takes two."""
_decoders = {signal: msgspec.json.Decoder(request).decode for signal, request in REQUESTS.items()}


class Unreadable(Exception):
    """A request that can't be taken; `status` is that of its answer."""

    def __init__(self, status: int, why: str) -> None:
        self.status = status
        super().__init__(why)


def unpack(body: bytes, encoding: str) -> bytes:
    """By Content-Encoding. Raises Unreadable."""
    if encoding in ("", "identity"):
        return body
    if encoding != "gzip":
        raise Unreadable(415, f"Content-Encoding {encoding[:40]!r} is not known here; send gzip, or none")
    unpacked = bytearray()
    rest = body
    while rest or not unpacked:
        stream = zlib.decompressobj(31)
        try:
            unpacked += stream.decompress(rest, BODY_BYTES + 1 - len(unpacked))
        except zlib.error:
            raise Unreadable(400, "the body is no gzip") from None
        if len(unpacked) > BODY_BYTES:
            raise Unreadable(413, f"unpacked it is larger than {BODY_BYTES} bytes; send smaller requests")
        if not stream.eof:
            raise Unreadable(400, "the body is cut off: its gzip has no end")
        rest = stream.unused_data
        if not unpacked and not rest:
            break
    return bytes(unpacked)


def read(signal: Signal, media_type: str, body: bytes) -> Request:
    """Raises Unreadable."""
    if media_type == JSON:
        return _read_json(signal, body)
    try:
        if len(body) > SMALL:
            protobuf.check_count(signal, body, VALUES_MOST)
        return protobuf.decode(signal, body)
    except protobuf.TooMany as error:
        raise Unreadable(413, f"{error}; send smaller requests") from None
    except protobuf.Malformed as error:
        raise Unreadable(400, f"the body is no protobuf of this request: {error}") from None


def _read_json(signal: Signal, body: bytes) -> Request:
    if len(body) > SMALL and body.count(b"{") + body.count(b"[") > VALUES_MOST:
        raise Unreadable(413, f"more than {VALUES_MOST} values in one request; send smaller requests")
    try:
        return _decoders[signal](body)
    except msgspec.ValidationError:
        return _read_with_nulls(signal, body)
    except RecursionError:
        raise Unreadable(400, "the JSON is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unreadable(400, f"the body is no JSON: {error}") from None


def _read_with_nulls(signal: Signal, body: bytes) -> Request:
    """A field that is null is one that is not there."""
    try:
        return msgspec.convert(_without_nulls(msgspec.json.decode(body)), REQUESTS[signal])
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unreadable(400, f"the JSON is no such request: {error}") from None


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(one) for key, one in value.items() if one is not None}
    return [_without_nulls(one) for one in value] if isinstance(value, list) else value
