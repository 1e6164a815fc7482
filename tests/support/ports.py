"""Ports for the servers of tests: each number is handed out once, to whichever test process asks."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from contextlib import suppress
from pathlib import Path

# Below the range from which the kernel takes ports for outgoing connections.
FIRST, LAST = 10_000, 32_000


def free_port() -> int:
    """The next port that nobody listens on. It comes again only after all others of the range did.

    Where to go on is in a file that all test processes of this user lock in turn: two calls never give the same number,
    in one process or in several at once.
    """
    place = Path(tempfile.gettempdir()) / f"wafermon-ports-{os.getuid()}"
    descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+") as kept:
        fcntl.flock(kept, fcntl.LOCK_EX)
        port = int(kept.read() or FIRST)
        for _ in range(LAST - FIRST):
            port = port + 1 if port + 1 < LAST else FIRST
            with socket.socket() as probe, suppress(OSError):
                probe.bind(("127.0.0.1", port))
                break
        else:
            raise OSError(f"no free port from {FIRST} to {LAST}")
        kept.seek(0)
        kept.truncate()
        kept.write(str(port))
        return port
