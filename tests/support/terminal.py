"""A command on a terminal of some width."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios

from commands import COMMAND, environment


def on_terminal(columns: int, *arguments: object, **variables: str) -> tuple[int, list[str]]:
    """Its exit status and the lines that it printed, where it and its errors go to a terminal."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    variables = {"TERM": "xterm-256color", "COLUMNS": "", "NO_COLOR": "", **variables}
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdin=its, stdout=its, stderr=its, env=environment(**variables)
    )
    os.close(its)
    printed = b""
    try:
        while piece := os.read(ours, 65536):
            printed += piece
    except OSError:  # how Linux says that nobody has the other end open
        pass
    finally:
        os.close(ours)
    return process.wait(60), printed.decode().replace("\r\n", "\n").splitlines()
