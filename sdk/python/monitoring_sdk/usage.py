"""What the process itself uses: `log_resource()` without arguments."""

from __future__ import annotations

import os
import time
from contextlib import suppress


class Usage:
    """Measures since the last time."""

    def __init__(self) -> None:
        self._last = time.monotonic(), time.process_time()

    def measure(self) -> list[int | float | None]:
        """Percent of one core, resident bytes and disk bytes; Linux counts no network by process."""
        since, before = self._last
        self._last = time.monotonic(), time.process_time()
        wall = self._last[0] - since
        cpu = round(100.0 * (self._last[1] - before) / wall, 3) if wall else None
        mem = disk = None
        with suppress(OSError, ValueError, KeyError):  # not Linux, or a kernel that doesn't tell
            with open("/proc/self/statm", "rb") as statm, open("/proc/self/io", "rb") as io:
                mem = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
                found = dict(line.split(b": ") for line in io.read().splitlines())
                disk = int(found[b"read_bytes"]) + int(found[b"write_bytes"])
        return [cpu, mem, disk, None]
