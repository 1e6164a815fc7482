"""``wafermon trace``: one trace from its first message to its last."""

from __future__ import annotations

import time
from urllib.parse import quote

import click

from wafermon.commands import render
from wafermon.commands.ask import Site, ask
from wafermon.commands.live import show, width
from wafermon.commands.options import http_option, json_option, watch_option


@click.command()
@click.argument("id")
@watch_option
@json_option
@http_option
def command(id: str, http: Site, as_json: bool, watch: bool) -> None:
    """Show the trace or job ID: its services and jobs, its spans as a waterfall, its latest events.

    The sidecar remembers the traces that it heard of last. Exit status: 0 found, 1 not.
    """
    path = f"/api/traces/{quote(id, safe='')}"
    show(
        lambda: ask(http, path),
        lambda found: render.trace(found, time.time_ns() // 1000, width()),
        as_json=as_json,
        watch=watch,
    )
