"""Showing something once, or again and again."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import click

from wafermon.cli import output

EVERY_SECONDS = 2.0


def width() -> int:
    """The terminal's columns; 100 where there is none."""
    return shutil.get_terminal_size((100, 25)).columns


def show(
    get: Callable[[], Any], render: Callable[[Any], Sequence[str]], *, shape: str, as_json: bool, watch: bool
) -> None:
    """Print what `get` answers: as JSON on one line, of this `shape`, or what `render` makes of it; with `watch` until interrupted. A
    terminal is cleared in between; while the sidecar does not answer then, that is said in place of the figures."""
    while True:
        try:
            value = get()
            text = output.as_json(value, shape) if as_json else "\n".join(render(value))
        except click.ClickException as error:
            if not watch:
                raise
            text = error.format_message()
        if watch and not as_json and sys.stdout.isatty():
            click.clear()
        click.echo(text)
        if not watch:
            return
        sys.stdout.flush()
        time.sleep(EVERY_SECONDS)
