"""The sidecar's own id, by which brokers know its producer and its position: 16 hex digits in a file beside the journal."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

from wafermon.files import Files
from wafermon.interfaces import RetryableError


def identity(files: Files, directory: Path) -> str:
    """Made at the first start, and on the disk before it is used: with another id everything that the journal still holds would be
    stored again. Blocks. Raises OSError, or RetryableError where the file holds something else."""
    path = directory / "sidecar"
    try:
        found = files.read_whole(path, 1000).decode("ascii", "replace").strip()
    except FileNotFoundError:
        found = secrets.token_hex(8)
        files.replace(path, f"{found}\n".encode())
    if not re.fullmatch(r"[0-9a-f]{16}", found):
        raise RetryableError(
            f"{path} holds no id; write the one that the positions topic has for this sidecar, or remove it"
        )
    return found
