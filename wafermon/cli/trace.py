"""``wafermon trace``: one trace from its first message to its last."""

from __future__ import annotations

import time
from urllib.parse import quote

import click

from wafermon.cli import render, stored
from wafermon.cli.ask import Site, ask
from wafermon.cli.live import show, width
from wafermon.cli.parameters import http_option, json_option, watch_option


@click.command()
@click.argument("id")
@watch_option
@json_option
@http_option
@stored.dsn_options
def command(id: str, http: Site, dsn: str | None, schema: str, as_json: bool, watch: bool) -> None:
    """Show the trace or job ID: its services and jobs, its spans as a waterfall, its latest events.

    The sidecar remembers the traces that it heard of last; a database (--dsn) what it holds. Exit status: 0 found, 1 not.
    """
    path = f"/api/traces/{quote(id, safe='')}"
    show(
        lambda: ask(http, path) if dsn is None else stored.trace(dsn, id, schema),
        lambda found: render.trace(found, time.time_ns() // 1000, width()),
        as_json=as_json,
        watch=watch,
    )
