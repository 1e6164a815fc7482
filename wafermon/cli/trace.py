"""``wafermon trace``: one trace from its first message to its last."""

from __future__ import annotations

import time

import click

from wafermon.cli import render
from wafermon.cli.live import show, width
from wafermon.cli.parameters import json_option, watch_option
from wafermon.cli.past import Place, ask_past, columns, place_options


@click.command()
@click.argument("id")
@click.option(
    "--limit", type=click.IntRange(0, 10_000), default=200, show_default=True, help="The most messages of each type."
)
@watch_option
@json_option
@place_options
def command(id: str, place: Place, limit: int, as_json: bool, watch: bool) -> None:
    """Show the trace or job ID: its services and jobs, its spans as a waterfall, its metrics, its latest events.

    The beginning of an ID is enough where there is only one that begins so. Exit status: 0 found, 1 not.

    \b
    Example:
      wafermon trace lot-4711
    """
    show(
        lambda: ask_past(place, "trace", id=id, limit=limit),
        lambda found: render.cut(render.trace(found, time.time_ns() // 1000, width()), columns()),
        shape="Trace",
        as_json=as_json,
        watch=watch,
    )
