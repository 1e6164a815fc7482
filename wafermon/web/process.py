"""The process that the sidecar is: what it may open and where it may write. `wafermon doctor` asks for it, since its own shell has other
limits and another view of the file system."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

from wafermon.model.mounts import parse_mounts
from wafermon.web.view import View

MOUNTS_MAX = 1000
"""More are not listed."""
_KERNELS = ("/proc", "/sys", "/dev")


def process(view: View) -> dict[str, Any]:
    """``pid``, ``user`` (a number), ``directory`` (relative paths of the config start there), ``config`` (its file; empty for the default
    one), ``systemd`` (whether it is a unit of it), ``open_files``, ``open_files_max``, and ``mounts``: path -> whether read-only."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return {
        "pid": os.getpid(),
        "user": os.geteuid(),
        "directory": os.getcwd(),
        "config": view.config_file,
        "systemd": "INVOCATION_ID" in os.environ,
        "open_files": len(os.listdir("/proc/self/fd")),
        "open_files_max": soft,
        "mounts": _mounts(),
    }


def _mounts() -> dict[str, bool]:
    text = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    found = [mount for mount in parse_mounts(text) if not mount.path.startswith(_KERNELS)]
    return {os.fsencode(mount.path).decode(errors="replace"): mount.read_only for mount in found[:MOUNTS_MAX]}
