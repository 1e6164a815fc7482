"""Compressed frames: every bound is checked before anything is decompressed."""

from __future__ import annotations

import base64
import contextlib
import json
import random
import struct
import zlib
from typing import Any

import pytest
from daemon import ROOT
from hypothesis import given
from hypothesis import strategies as st

from wafermon.wire import frames
from wafermon.wire.frames import BadFrame, Head, choose, find_head, open_frame, read_head

VECTORS = json.loads((ROOT / "docs" / "protocol.frames.json").read_text())
MOST = VECTORS["max_frame"]
RAW = b'{"type":"resource","cpu":1}\n' * 1000


def taken(head: dict[str, Any], data: bytes) -> list[str]:
    """The lines of a frame, as a sidecar takes it."""
    read = read_head(json.dumps(head).encode(), "zlib", MOST)
    assert read.size == len(data)
    return open_frame(read, data).decode().splitlines()


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda vector: vector["name"])
def test_the_documented_vectors(vector: dict[str, Any]) -> None:
    data = base64.b64decode(vector["data"])
    if "lines" in vector:
        assert taken(vector["head"], data) == vector["lines"]
        return
    with pytest.raises(BadFrame) as caught:
        taken(vector["head"], data)
    assert caught.value.code == "bad_frame"
    assert caught.value.detail.startswith(vector["detail"])


def test_every_bound_of_a_head_is_where_it_is_said_to_be() -> None:
    def head(size: int, raw: int, lines: int) -> Head:
        return read_head(
            json.dumps({"type": "frame", "codec": "zlib", "bytes": size, "raw": raw, "lines": lines}).encode(),
            "zlib",
            100,
        )

    assert head(1124, 100, 100) == Head("zlib", 1124, 100, 100)
    for size, raw, lines in ((1125, 100, 1), (1, 101, 1), (1, 100, 101)):
        with pytest.raises(BadFrame):
            head(size, raw, lines)


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=40), min_size=1, max_size=50))
def test_what_was_compressed_comes_out(lines: list[str]) -> None:
    raw = "".join(line + "\n" for line in lines).encode()
    for codec in frames.CODECS:
        data = packed(codec, raw)
        assert open_frame(Head(codec, len(data), len(raw), len(lines)), bytearray(data)) == raw


def packed(codec: str, raw: bytes) -> bytes:
    if codec == "zlib":
        return zlib.compress(raw)
    zstandard = pytest.importorskip("zstandard")
    return zstandard.ZstdCompressor().compress(raw)  # type: ignore[no-any-return]


@pytest.mark.parametrize("codec", sorted(frames.CODECS))
def test_any_damage_is_a_refusal_or_the_same_size(codec: str) -> None:
    data = packed(codec, RAW)
    chance = random.Random(7)
    for _ in range(500):
        broken = bytearray(data)
        broken[chance.randrange(len(broken))] ^= 1 << chance.randrange(8)
        with contextlib.suppress(BadFrame):
            assert len(open_frame(Head(codec, len(broken), len(RAW), 1000), broken)) == len(RAW)


def test_a_zlib_bomb_gives_one_byte_too_many_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    make = zlib.decompressobj

    class Watched:
        def __init__(self) -> None:
            self._real = make()

        def decompress(self, data: bytes, most: int) -> bytes:
            asked.append(most)
            return self._real.decompress(data, most)

        eof = property(lambda self: self._real.eof)
        unused_data = property(lambda self: self._real.unused_data)

    monkeypatch.setattr(zlib, "decompressobj", Watched)
    bomb = zlib.compress(b"\n" * (64 << 20))
    with pytest.raises(BadFrame, match="raw: it does not give 100000 bytes"):
        open_frame(Head("zlib", len(bomb), 100_000, 10), bomb)
    assert asked == [100_001]


@pytest.fixture
def zstd() -> Any:
    return pytest.importorskip("zstandard")


def test_a_zstd_block_that_declares_no_size_is_refused(zstd: Any) -> None:
    data = zstd.ZstdCompressor(write_content_size=False).compress(RAW)
    with pytest.raises(BadFrame, match="declares"):
        open_frame(Head("zstd", len(data), len(RAW), 1000), data)


def test_a_zstd_block_that_declares_another_size_is_refused(zstd: Any) -> None:
    data = zstd.ZstdCompressor().compress(RAW + RAW)
    with pytest.raises(BadFrame, match=f"declares {2 * len(RAW)} bytes"):
        open_frame(Head("zstd", len(data), len(RAW), 1000), data)


def test_a_zstd_block_that_lies_about_its_size_gives_no_more_than_it_declares(zstd: Any) -> None:
    bomb = zstd.ZstdCompressor().compress(b"x" * 10_000_000)
    at = bomb.index(struct.pack("<I", 10_000_000))
    lie = bomb[:at] + struct.pack("<I", 8000) + bomb[at + 4 :]
    with pytest.raises(BadFrame, match="not one zstd block"):
        open_frame(Head("zstd", len(lie), 8000, 10), lie)


@pytest.mark.parametrize("end", [b"x", b"again"])
def test_nothing_may_follow_a_zstd_block(zstd: Any, end: bytes) -> None:
    data = zstd.ZstdCompressor().compress(RAW)
    data += data if end == b"again" else end
    with pytest.raises(BadFrame):
        open_frame(Head("zstd", len(data), len(RAW), 1000), data)


def test_a_zstd_window_is_bounded(zstd: Any) -> None:
    raw = random.Random(1).randbytes(9 << 20).replace(b"\n", b"x")[:-1] + b"\n"
    wide = zstd.ZstdCompressionParameters(window_log=24, write_content_size=True)
    maker = zstd.ZstdCompressor(compression_params=wide).compressobj(size=len(raw))
    data = maker.compress(raw) + maker.flush()
    assert zstd.get_frame_parameters(data).window_size > frames.WINDOW_BYTES
    with pytest.raises(BadFrame, match="window"):
        open_frame(Head("zstd", len(data), len(raw), 1), data)


def test_the_best_codec_that_both_sides_have_is_chosen() -> None:
    assert choose(["lz4", "zlib"]) == "zlib"
    assert choose(["none", "lz4"]) == ""
    assert choose([]) == ""
    assert choose(["zlib", "zstd"]) == "zlib"
    if "zstd" in frames.CODECS:
        assert choose(["zstd", "zlib"]) == "zstd"


def test_a_head_is_found_whatever_its_order_and_spaces_are() -> None:
    head = b'{ "lines": 1, "bytes": 5, "type" : "frame", "raw": 5, "codec": "zlib" }\n'
    before = b'{"type":"event","message":"a \\"frame\\" in a text"}\n"frame"\n{"x":"frame"}\n'
    block = before + head + head + b"rest\n"
    assert find_head(block) == (len(before), len(before) + len(head))
    assert find_head(before) == (len(before), len(before))
    assert find_head(b"") == (0, 0)
