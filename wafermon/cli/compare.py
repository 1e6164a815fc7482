"""``wafermon compare``: where the time went, step by step."""

from __future__ import annotations

import click

from wafermon.cli import output, render
from wafermon.cli.parameters import json_option
from wafermon.cli.past import Place, ask_past, columns, place_options


@click.command()
@click.argument("job")
@click.argument("other", default="")
@json_option
@place_options
def command(place: Place, job: str, other: str, as_json: bool) -> None:
    """Show where two runs of a job differ: what each step took, where time was lost and gained, the critical paths, counts
    and metrics.

    Without OTHER the run is shown beside the median of the last ten of its kind that are done. A metric is named where it
    differs by more than 20 % and by more than it does among those.

    \b
    Example:
      wafermon compare load-2026-11-28 load-2026-11-27
    """
    found = ask_past(place, "compare", run=job, other=other)
    if as_json:
        click.echo(output.as_json(found, "Comparison"))
        return
    for line in render.cut(render.comparison(found), columns()):
        click.echo(line)
