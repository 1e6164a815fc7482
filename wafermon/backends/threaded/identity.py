"""The sidecar's own id, by which a service that keeps its position knows it: 16 hex digits in a file beside the journal."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

from wafermon.files import Files
from wafermon.interfaces import BackendContext, RetryableError

MARK = "sidecar"


def mark_of(context: BackendContext) -> Path:
    """The file that holds it. A journal that was renewed has one of its own, since the journal that it is a copy of goes on under the id of
    before."""
    return context.state_dir / (f"{MARK}-{context.journal}" if context.formerly else MARK)


def identity(files: Files, context: BackendContext) -> str:
    """Made at the first start, and on the disk before it is used: with another id everything that the journal still holds would be
    stored again. Blocks. Raises OSError, or RetryableError where the file holds something else."""
    path = mark_of(context)
    try:
        found = files.read_whole(path, 1000).decode("ascii", "replace").strip()
    except FileNotFoundError:
        found = secrets.token_hex(8)
        files.replace(path, f"{found}\n".encode())
    if not re.fullmatch(r"[0-9a-f]{16}", found):
        raise RetryableError(f"{path} holds no id; write the one that the service has for this sidecar, or remove it")
    return found
