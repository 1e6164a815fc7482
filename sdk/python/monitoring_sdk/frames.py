"""Compressed frames, where WAFERMON_COMPRESS asks for them and the sidecar grants them."""

from __future__ import annotations

import functools
import sys
from typing import Callable

_LEAST = 1 << 10  # bytes of lines that are worth a frame
_MOST = 256 << 10  # and that go into one


class Frames:
    """Packs lines."""

    def __init__(self, compress: Callable[[bytes], bytes]) -> None:
        self._compress = compress

    @classmethod
    def if_possible(cls, say: Callable[[str], None]) -> Frames | None:
        """None for a Python that was built without zlib."""
        try:
            import zlib
        except ImportError:
            say("this Python has no zlib: lines go uncompressed")
            return None
        return cls(functools.partial(zlib.compress, level=1) if sys.version_info >= (3, 11) else zlib.compress)

    def pack(self, lines: bytearray) -> bytes:
        """A frame of whole lines from the front, which are taken away; empty when they are not worth one."""
        if len(lines) < _LEAST:
            return b""
        end = lines.rfind(b"\n", 0, _MOST) + 1
        raw = bytes(lines[:end])
        del lines[:end]
        block = self._compress(raw)
        header = b'{"type":"frame","codec":"zlib","bytes":%d,"raw":%d,"lines":%d}\n'
        return header % (len(block), end, raw.count(b"\n")) + block
