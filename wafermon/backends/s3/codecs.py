"""How lines are packed into an object. Pure. An object of equal lines has equal bytes."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

GZIP_LEVEL = 6
ZSTD_LEVEL = 1
"""For lines like ours the next levels take more time and give no fewer bytes."""


class Codec(NamedTuple):
    """One way."""

    suffix: str
    """Of an object's name; readers know by it."""
    pack: Callable[[bytes], bytes]
    unpack: Callable[[bytes], bytes]
    """Raises ValueError, EOFError or OSError for what `pack` has not made."""


def _zstd() -> Any:
    """Python 3.14 has it; before that it is the extra `zstd`."""
    return import_module("compression.zstd" if _has("compression.zstd") else "zstandard")


def _has(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def zstd_is_there() -> bool:
    """Whether `compress: zstd` can be had."""
    return _has("compression.zstd") or _has("zstandard")


def _pack_zstd(data: bytes) -> bytes:
    packed: bytes = _zstd().compress(data, ZSTD_LEVEL)
    return packed


def _unpack_zstd(data: bytes) -> bytes:
    module = _zstd()
    try:
        unpacked: bytes = module.decompress(data)
    except module.ZstdError as error:
        raise ValueError(str(error)) from None
    return unpacked


CODECS: Mapping[str, Codec] = {
    "gzip": Codec(".ndjson.gz", lambda data: gzip.compress(data, GZIP_LEVEL, mtime=0), gzip.decompress),
    "zstd": Codec(".ndjson.zst", _pack_zstd, _unpack_zstd),
    "none": Codec(".ndjson", bytes, bytes),
}
"""By what `compress` says."""
