"""``wafermon jobs``: what runs, and what ended."""

from __future__ import annotations

from typing import Any

import click

from wafermon.cli import render
from wafermon.cli.live import show
from wafermon.cli.parameters import json_option, watch_option
from wafermon.cli.past import Place, ask_past, columns, listing_options, place_options, rest_of, tell_rest


@click.command()
@click.option("--name", default="", metavar="GLOB", help="Those whose ids match.")
@click.option("--kind", default="", metavar="KIND", help="Those of one kind, as `wafermon runs` names it.")
@click.option("--service", default="", metavar="GLOB", help="Those whose progress this service reported last.")
@click.option("--running", is_flag=True, help="Those that have not ended.")
@click.option("--failed", is_flag=True, help="Those that failed, or whose program is gone.")
@listing_options("jobs, the ones heard of last", 50)
@watch_option
@json_option
@place_options
def command(
    place: Place, name: str, kind: str, service: str, running: bool, failed: bool, since: str, until: str, limit: int,
    after: str, as_json: bool, watch: bool,
) -> None:  # fmt: skip
    """Show the jobs that run and the ones that ended, the one heard of last first.

    \b
    Example:
      wafermon jobs --failed --since 2d
    """
    states = [*(["running", "stalled"] if running else []), *(["failed", "gone"] if failed else [])]
    last: dict[str, Any] = {}

    def get() -> list[dict[str, Any]]:
        found = ask_past(
            place, "jobs", name=name, kind=kind, service=service, state=",".join(states), since=since, until=until,
            limit=limit, after=after,
        )  # fmt: skip
        last.update(found)
        if as_json:
            tell_rest(found, "jobs")
        jobs: list[dict[str, Any]] = found["jobs"]
        return jobs

    def lines(jobs: list[dict[str, Any]]) -> list[str]:
        return render.cut([*render.jobs(jobs, last["now"]), *rest_of(last, "jobs")], columns())

    show(get, lines, shape="Job", as_json=as_json, watch=watch)
