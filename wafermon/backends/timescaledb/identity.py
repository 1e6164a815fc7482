"""The sidecar's own id, by which its cursor is known in the database: 16 hex digits in a file beside the journal."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from wafermon.backends.timescaledb.failures import Unsuitable

MARK = "sidecar"


def identity(directory: Path) -> str:
    """Made at the first start, and on the disk before it is used: with another id everything that the journal still holds
    would be stored again. Blocks. Raises OSError, or Unsuitable where the file holds something else."""
    path = directory / MARK
    if not path.exists():
        made = path.with_suffix(".new")
        with made.open("w") as file:
            file.write(secrets.token_hex(8) + "\n")
            file.flush()
            os.fsync(file.fileno())
        made.rename(path)
        fd = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    found = path.read_text().strip()
    if not re.fullmatch(r"[0-9a-f]{16}", found):
        raise Unsuitable(f"{path} holds no id; write the one that `deliveries` has for this sidecar, or remove it")
    return found
