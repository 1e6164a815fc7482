"""What several commands take."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])


def reaches_sidecar(function: _F) -> _F:
    """The options of a command that speaks to a sidecar: `url` and `token`."""
    help_url = "tcp://HOST:PORT, tls://HOST:PORT or unix:///PATH; else WAFERMON_URL, else tcp://127.0.0.1:7411."
    function = click.option("--token", help="What the listener asks for; else WAFERMON_TOKEN.")(function)
    return click.option("--url", help=help_url)(function)


def spill_dir(environ: Mapping[str, str]) -> Path:
    """Where an SDK of this user leaves what it could not deliver."""
    if given := environ.get("WAFERMON_SPILL_DIR"):
        return Path(given)
    spool = Path("/var/spool/wafermon")
    return spool if os.access(spool, os.W_OK | os.X_OK) else Path(f"/tmp/wafermon-{os.getuid()}")
