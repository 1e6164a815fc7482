"""``wafermon events``: the past's messages."""

from __future__ import annotations

from collections.abc import Iterator

import click

from wafermon.cli import output, render
from wafermon.cli.parameters import LEVELS, json_option
from wafermon.cli.past import Place, ask_past, columns, listing_options, place_options, tell_rest


@click.command()
@click.argument("job", default="")
@click.option("--service", default="", metavar="GLOB", help="Those of these services.")
@click.option("--level", type=click.Choice(LEVELS), metavar="LEVEL", help="Those of at least this level.")
@click.option("--grep", "text", default="", metavar="TEXT", help="Those whose message has this in it, in any case.")
@click.option(
    "--context",
    multiple=True,
    metavar="KEY=VALUE",
    help="Those with this in their context; may be given several times. Fast for the keys that the history's `index` names.",
)
@listing_options("events, the latest", 100)
@json_option
@place_options
def command(
    place: Place, job: str, service: str, level: str | None, text: str, context: tuple[str, ...], since: str, until: str,
    limit: int, after: str, as_json: bool,
) -> None:  # fmt: skip
    """Show stored events, the latest ones in order of time: of all, or of the trace or job JOB.

    \b
    Example:
      wafermon events lot-4711 --level warning
      wafermon events --context wafer=W17 --since 1d
    """
    found = ask_past(
        place, "events", trace=job, service=service, level=level, text=text, context=",".join(context), since=since,
        until=until, limit=limit, after=after,
    )  # fmt: skip
    events = found["events"][::-1]
    if as_json:
        lines = [output.as_json(event, "EventFound") for event in events]
    else:
        lines = render.cut(_lines(events, job), columns())
    for line in lines:
        click.echo(line)
    if not events and not as_json:
        click.echo("no events")
    tell_rest(found, "events")


def _lines(events: list[dict[str, object]], job: str) -> Iterator[str]:
    """With a line where a day begins, and the trace where not all are of one."""
    day = ""
    for event in events:
        ts = event["ts"]
        assert isinstance(ts, int)
        if (today := render.moment(ts)[:10]) != day:
            day = today
            yield f"-- {day} UTC"
        trace = event.get("trace_id", "")
        yield render.message(event) + ("" if job or not trace else f"  [{render.plain(trace)}]")
