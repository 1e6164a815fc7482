"""``wafermon errors``: what went wrong, each kind once."""

from __future__ import annotations

import click

from wafermon.cli import render
from wafermon.cli.parameters import json_option
from wafermon.cli.past import Place, ask_past, columns, listing_options, place_options, show_list


@click.command()
@click.option("--service", default="", metavar="GLOB", help="Those of these services.")
@click.option(
    "--grep", "text", default="", metavar="TEXT", help="Those whose latest message has this in it, in any case."
)
@listing_options("kinds of errors, the latest", 50)
@json_option
@place_options
def command(
    place: Place, service: str, text: str, since: str, until: str, limit: int, after: str, as_json: bool
) -> None:
    """Show stored events of level error and critical: what differs in digits alone is one kind, shown once with its count.

    They are counted by the hour: --since and --until act on whole hours.

    \b
    Example:
      wafermon errors --since 7d --service 'queue-*'
    """
    show_list(
        lambda: ask_past(
            place, "errors", service=service, text=text, since=since, until=until, limit=limit, after=after
        ),
        "errors",
        lambda found: render.cut(render.errors(found["errors"], found["now"]), columns()),
        shape="Errors",
        as_json=as_json,
    )
