"""Faults of the system around a process: `fault.c` loaded into it, and the file by which it is told what to break."""

from __future__ import annotations

import errno
import mmap
import struct
import subprocess
from pathlib import Path

CALLS = ("create", "write", "sync", "cut", "rename", "remove", "send")
ACTIONS = ("pass", "kill before", "kill midst", "kill after", "fail once", "fail")
SOURCE = Path(__file__).with_name("fault.c")
_CONTROL = struct.Struct("qiiiii100s4x")
_CLOCK = struct.Struct("q")
_REST = struct.Struct("iiiii100s")


def build(directory: Path) -> Path:
    """Compile `fault.c`. Raises CalledProcessError where there is no C compiler."""
    library = directory / "fault.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(SOURCE), "-ldl"], check=True)
    return library


class Injected:
    """What is wrong with the system, for every process that is started with `environ`."""

    def __init__(self, directory: Path) -> None:
        library = build(directory)
        path = directory / "faults"
        path.write_bytes(bytes(_CONTROL.size))
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), _CONTROL.size)
        self.environ = {"LD_PRELOAD": str(library), "WAFERMON_FAULTS": str(path)}

    def arm(self, call: str, match: str, action: str, *, at: int = 1, error: int = errno.EIO) -> None:
        """At the `at`-th `call` from now on whose path (where it sends: whose bytes) contains `match`, do this. ``fail``
        goes on until it is disarmed. A sync that fails takes with it what it should have covered."""
        self.disarm()
        rest = (ACTIONS.index(action), error, at, 0, match.encode())
        _REST.pack_into(self._shared, _CLOCK.size, 0, *rest)
        struct.pack_into("i", self._shared, _CLOCK.size, CALLS.index(call) + 1)

    def disarm(self) -> None:
        struct.pack_into("i", self._shared, _CLOCK.size, 0)

    @property
    def happened(self) -> int:
        """How often what was armed last has happened."""
        return int(_REST.unpack_from(self._shared, _CLOCK.size)[4])

    def set_clock(self, seconds: int) -> None:
        """The wall clock is wrong by so many seconds, from now on."""
        _CLOCK.pack_into(self._shared, 0, seconds)
