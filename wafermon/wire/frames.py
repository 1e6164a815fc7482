"""Frames: lines that a client sends compressed. Pure; every bound is checked before anything is decompressed.

A frame stands in place of lines: its head, which is a line, and then as many bytes as the head says.

    {"type":"frame","codec":"zlib","bytes":123,"raw":4567,"lines":20}

One that a sidecar forwards says besides for which stretch of its journal it stands, and may hold no lines at all; see `Stretch`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from wafermon.model.errors import ProtocolError
from wafermon.model.messages import dumps
from wafermon.wire.lines import read_object

OVERHEAD_BYTES = 1024
"""How many more bytes a block may have compressed than its lines have."""
WINDOW_BYTES = 8 << 20
"""The largest window of a zstd block: what every decoder has to take."""
INLINE_BYTES = 64 << 10
"""What gives no more than this is decompressed at once; what gives more, in a thread."""
PLAIN = "none"
"""The codec of what a sidecar forwards as it is."""
LEAST_BYTES, SHORT_LINES = 16, 16
"""Messages are longer, but for so many lines. Each that is none becomes a dead letter of what others forward, which is much more than its
line: a bound on these."""
NUMBER_MAX = (1 << 63) - 1
NOT_A_FRAME = "a sidecar that forwards sends frames, and nothing between them"
ZLIB_LEVEL, ZSTD_LEVEL = 1, 3
_WORD = b'"frame"'
Data = bytes | bytearray


class Stretch(NamedTuple):
    """Which part of a sidecar's journal a forwarded frame stands for, lines that routing left out included. Both ends are positions as
    numbers: see `model.position.Position.number`."""

    start: int
    end: int
    received: int = 0
    """When the first of its lines was received there, in microseconds since the epoch; 0 where there is none, or it is not said."""
    now: int = 0
    """What the date was there when it was sent, in microseconds since the epoch; 0 where it is not said."""


class Head(NamedTuple):
    """What a frame says of itself."""

    codec: str
    size: int
    """Compressed, in bytes."""
    raw: int
    """Its lines with their newlines, in bytes."""
    lines: int
    stretch: Stretch | None = None
    """Of a frame that is forwarded."""


class BadFrame(ProtocolError):
    """A frame that can't be taken. Nothing of it was."""

    def __init__(self, detail: str) -> None:
        super().__init__("bad_frame", detail)


def find_head(block: bytes, start: int = 0) -> tuple[int, int]:
    """Where in a block of whole lines the first line stands that is the head of a frame, and where it ends; the block's
    end twice where none is."""
    at = block.find(_WORD, start)
    while at >= 0:
        first = block.rfind(b"\n", 0, at) + 1
        end = block.index(b"\n", at) + 1
        if _is_head(block[first:end]):
            return first, end
        at = block.find(_WORD, end)
    return len(block), len(block)


def _is_head(line: bytes) -> bool:
    try:
        return bool(read_object(line).get("type") == "frame")
    except ProtocolError:
        return False


def read_head(line: bytes, codec: str, most: int, *, forwarded: bool = False) -> Head:
    """A head's line -> what it says. `codec` is the one that was granted, `most` the largest `raw`. What is `forwarded` says its
    stretch, and may also come as `none`; any other line is none of these. Raises BadFrame."""
    value = _read_forwarded(line) if forwarded else read_object(line)
    least = 0 if forwarded else 1
    for name in ("bytes", "raw", "lines"):
        if type(value.get(name)) is not int or value[name] < least:
            raise BadFrame(f"{name}: expected a whole number above 0")
    stretch = _read_stretch(value) if forwarded else None
    head = Head(str(value.get("codec")), value["bytes"], value["raw"], value["lines"], stretch)
    if forwarded and head.codec == PLAIN:
        if head.size != head.raw:
            raise BadFrame(f"bytes: {head.size} is not raw, {head.raw}, where nothing is compressed")
        if not head.lines and head.raw:
            raise BadFrame(f"lines: none, and {head.raw} bytes of them")
    elif not head.size or not head.lines:
        raise BadFrame("lines: none, which only a frame without a codec may say")
    elif head.codec != codec:
        raise BadFrame(f"codec: {head.codec[:16]!r} was not granted; the welcome named {codec!r}")
    if head.raw > most:
        raise BadFrame(f"raw: {head.raw} is more than max_frame, {most}")
    if head.size > head.raw + OVERHEAD_BYTES:
        raise BadFrame(f"bytes: {head.size} is more than raw, {head.raw}, and {OVERHEAD_BYTES}")
    if forwarded and head.lines > SHORT_LINES + head.raw // LEAST_BYTES:
        raise BadFrame(f"lines: {head.lines} messages have more than {head.raw} bytes")
    if head.lines > head.raw:
        raise BadFrame(f"lines: {head.lines} lines have more than {head.raw} bytes")
    return head


def _read_forwarded(line: bytes) -> Mapping[str, Any]:
    try:
        value = read_object(line)
    except ProtocolError:
        value = {}
    if value.get("type") != "frame":
        raise BadFrame(NOT_A_FRAME)
    return value


def _read_stretch(value: Mapping[str, Any]) -> Stretch:
    found = {name: value.get(name, 0) for name in Stretch._fields}
    for name, given in found.items():
        if type(given) is not int or not 0 <= given <= NUMBER_MAX or (name in ("start", "end") and name not in value):
            raise BadFrame(f"{name}: expected a whole number up to {NUMBER_MAX}")
    stretch = Stretch(**found)
    if stretch.end < stretch.start:
        raise BadFrame(f"end: {stretch.end} is less than start, {stretch.start}")
    return stretch


def encode_frame(codec: str, raw: bytes, lines: int, stretch: Stretch) -> bytes:
    """A frame as a sidecar forwards it; `raw` is its `lines` lines, each ended by a newline. What gets no smaller is not compressed."""
    data = PACKERS[codec](raw) if codec != PLAIN and raw else raw
    if len(data) >= len(raw):
        codec, data = PLAIN, raw
    head: dict[str, Any] = {"type": "frame", "codec": codec, "bytes": len(data), "raw": len(raw), "lines": lines}
    said = stretch._asdict()
    head |= {name: said[name] for name in said if said[name] or name in ("start", "end")}
    return dumps(head).encode() + b"\n" + data


def open_frame(head: Head, data: Data) -> bytes:
    """A frame's bytes -> its lines, each ended by a newline. Raises BadFrame. Only what was forwarded may have been let through as
    `none`."""
    if not head.lines:
        return b""
    raw = bytes(data) if head.codec == PLAIN else CODECS[head.codec](data, head.raw)
    if not raw.endswith(b"\n"):
        raise BadFrame("its last line has no newline")
    if (lines := raw.count(b"\n")) != head.lines:
        raise BadFrame(f"lines: it holds {lines}, and says {head.lines}")
    return raw


def choose(offered: Sequence[str]) -> str:
    """The codec to grant to a client that could send these, the best first; empty for none."""
    return next((codec for codec in offered if codec in CODECS), "")


def _zlib(data: Data, raw: int) -> bytes:
    reader = zlib.decompressobj()
    try:
        found = reader.decompress(data, raw + 1)
    except zlib.error as error:
        raise BadFrame(f"not zlib: {error}") from None
    if len(found) != raw or not reader.eof:
        raise BadFrame(f"raw: it does not give {raw} bytes")
    if reader.unused_data:
        raise BadFrame(f"bytes: {len(reader.unused_data)} follow the compressed block")
    return found


def _with_zstandard(package: Any) -> Callable[[Data, int], bytes]:
    def decompress(data: Data, raw: int) -> bytes:
        try:
            said = package.get_frame_parameters(data)
            _check_zstd(said.content_size, said.window_size, raw)
            # All at once, into as many bytes as the block declares. A streaming reader would go on beyond them.
            reader = package.ZstdDecompressor(max_window_size=WINDOW_BYTES)
            found: bytes = reader.decompress(data, allow_extra_data=False)
        except package.ZstdError as error:
            raise BadFrame(f"not one zstd block: {error}") from None
        if len(found) != raw:
            raise BadFrame(f"raw: it does not give {raw} bytes")
        return found

    return decompress


def _with_python(package: Any) -> Callable[[Data, int], bytes]:
    limit = {package.DecompressionParameter.window_log_max: WINDOW_BYTES.bit_length() - 1}

    def decompress(data: Data, raw: int) -> bytes:
        try:
            _check_zstd(package.get_frame_info(data).decompressed_size, 0, raw)
            reader = package.ZstdDecompressor(options=limit)
            found: bytes = reader.decompress(data, raw + 1)
        except package.ZstdError as error:
            raise BadFrame(f"not one zstd block: {error}") from None
        if len(found) != raw or not reader.eof:
            raise BadFrame(f"raw: it does not give {raw} bytes")
        if reader.unused_data:
            raise BadFrame(f"bytes: {len(reader.unused_data)} follow the compressed block")
        return found

    return decompress


def _check_zstd(declared: int | None, window: int, raw: int) -> None:
    """Libraries ignore their own limit of output where a block declares its size: what it declares is read first."""
    if declared != raw:
        raise BadFrame(f"raw: the zstd block declares {declared} bytes, and the head {raw}")
    if window > WINDOW_BYTES:
        raise BadFrame(f"the zstd block wants a window of {window} bytes, at most {WINDOW_BYTES} are given")


def _codecs() -> Mapping[str, Callable[[Data, int], bytes]]:
    """What can be read here: bytes and the size that they must give -> lines. Each raises BadFrame."""
    found: dict[str, Callable[[Data, int], bytes]] = {"zlib": _zlib}
    try:
        import zstandard  # type: ignore[import-not-found, unused-ignore]

        found["zstd"] = _with_zstandard(zstandard)
    except ImportError:
        try:
            from compression import zstd  # type: ignore[import-not-found, unused-ignore]  # Python 3.14

            found["zstd"] = _with_python(zstd)
        except ImportError:
            pass
    return found


CODECS = _codecs()


def _packers() -> Mapping[str, Callable[[bytes], bytes]]:
    """What can be written here: lines -> one compressed block, which declares its size."""
    found: dict[str, Callable[[bytes], bytes]] = {"zlib": lambda raw: zlib.compress(raw, ZLIB_LEVEL)}
    try:
        import zstandard

        # A compressor of its own each time: one can't be used by two threads.
        found["zstd"] = lambda raw: bytes(zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(raw))
    except ImportError:
        try:
            from compression import zstd

            found["zstd"] = lambda raw: bytes(zstd.compress(raw, level=ZSTD_LEVEL))
        except ImportError:
            pass
    return found


PACKERS = _packers()
