"""How chunks are compressed. What a chunk begins with tells how it was."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from importlib.util import find_spec

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
ZLIB_LEVEL = 1
ZSTD_LEVEL = 1
"""Higher levels take more time than all the rest of a batch, and gain little where lines are as alike as these."""


class CannotRead(ValueError):
    """A chunk is damaged, or compressed as nothing here can read it; the text says what to do."""


def has_zstd() -> bool:
    return find_spec("zstandard") is not None


def compressor(name: str) -> Callable[[bytes], bytes]:
    """`name`: ``zlib``, ``zstd``, or ``auto`` for the best that is installed."""
    if name == "zstd" or (name == "auto" and has_zstd()):
        import zstandard

        return zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress
    return lambda data: zlib.compress(data, ZLIB_LEVEL)


def decompress(data: bytes) -> bytes:
    """Raises CannotRead."""
    if not data.startswith(ZSTD_MAGIC):
        try:
            return zlib.decompress(data)
        except zlib.error as error:
            raise CannotRead(f"a chunk is damaged ({error})") from None
    if not has_zstd():
        raise CannotRead("its chunks are compressed by zstd: pip install 'wafermon[zstd]'")
    import zstandard

    try:
        return zstandard.ZstdDecompressor().decompress(data)
    except zstandard.ZstdError as error:
        raise CannotRead(f"a chunk is damaged ({error})") from None
