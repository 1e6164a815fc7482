"""``wafermon runs``: the runs of one kind of job, one beside the other."""

from __future__ import annotations

import click

from wafermon.cli import render
from wafermon.cli.parameters import json_option
from wafermon.cli.past import Place, ask_past, columns, listing_options, place_options, show_list


@click.command()
@click.argument("name", default="")
@click.option("--failed", is_flag=True, help="Only those that failed.")
@listing_options("runs, the latest", 20)
@json_option
@place_options
def command(
    place: Place, name: str, failed: bool, since: str, until: str, limit: int, after: str, as_json: bool
) -> None:
    """Show the runs of one kind of job, the latest first; without NAME, the kinds that there are.

    NAME is a kind, such as load-*, or the id of one of its jobs, such as load-2026-11-28.

    \b
    Example:
      wafermon runs 'load-*' --failed
    """
    state = "failed,gone" if failed else ""
    show_list(
        lambda: ask_past(place, "runs", of=name, state=state, since=since, until=until, limit=limit, after=after),
        "runs" if name else "kinds",
        lambda found: render.cut(
            render.runs(found, found["now"]) if name else render.kinds(found["kinds"], found["now"]), columns()
        ),
        shape="Runs" if name else "Kinds",
        as_json=as_json,
    )
