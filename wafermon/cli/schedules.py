"""``wafermon schedules``: what is expected of jobs and services; pause, resume, and what a schedule would have said of the past."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from wafermon.cli import output, render
from wafermon.cli.ask import Site, ask, tell
from wafermon.cli.live import show
from wafermon.cli.parameters import http_option, json_option, watch_option
from wafermon.cli.past import MOST, Place, ask_past, columns, place_options, rest_of, tell_rest


@click.group(invoke_without_command=True)
@click.option("--name", default="", metavar="GLOB", help="Those of these names.")
@click.option("--state", default="", metavar="STATE,…", help="Those in one of these states.")
@click.option("--limit", type=click.IntRange(1, MOST), default=200, show_default=True, help="The most schedules.")
@watch_option
@json_option
@http_option
@click.pass_context
def command(ctx: click.Context, http: Site, name: str, state: str, limit: int, as_json: bool, watch: bool) -> None:
    """Show each schedule with its state, its last and its next time."""
    if ctx.invoked_subcommand is not None:
        return

    def lines(found: dict[str, Any]) -> list[str]:
        return render.cut(
            [*render.schedules(found["schedules"], found["now"]), *rest_of(found, "schedules")], columns()
        )

    show(
        lambda: ask(http, "/api/schedules", name=name, state=state, limit=limit),
        lines,
        shape="Schedules",
        as_json=as_json,
        watch=watch,
    )


@command.command()
@click.argument("name")
@click.option(
    "--until", default="", metavar="TIME", help="2h from now, or 2026-12-01T06:00 (UTC); else until it is resumed."
)
@http_option
def pause(http: Site, name: str, until: str) -> None:
    """No alarms of the schedule NAME. It goes on with the next time that is due after the pause.

    \b
    Example:
      wafermon schedules pause nightly-load --until 2h
    """
    found = tell(http, f"/api/schedules/{quote(name, safe='')}/pause", until=until)
    when = f"until {render.moment(found['until'])[:19]} UTC" if found["until"] else "until it is resumed"
    click.echo(f"{render.plain(name)} is paused {when}")


@command.command()
@click.argument("name")
@http_option
def resume(http: Site, name: str) -> None:
    """The schedule NAME is expected again, from now on.

    \b
    Example:
      wafermon schedules resume nightly-load
    """
    tell(http, f"/api/schedules/{quote(name, safe='')}/resume")
    click.echo(f"{render.plain(name)} is resumed")


@command.command()
@click.argument("name")
@click.option("--since", default="30d", show_default=True, metavar="TIME", help="From this time on.")
@click.option("--until", default="", metavar="TIME", help="Before this time.")
@click.option(
    "--config", "file", type=click.Path(path_type=Path), metavar="FILE",
    help="Judge by this config's schedule, and its history where no other place is named; else by the running sidecar's.",
)  # fmt: skip
@click.option("--all", "everything", is_flag=True, help="Also what is no alarm.")
@json_option
@place_options
def test(place: Place, name: str, since: str, until: str, file: Path | None, everything: bool, as_json: bool) -> None:
    """Judge the past by the schedule NAME, and print what it would have said.

    \b
    Example:
      wafermon schedules test nightly-load --since 30d
    """
    if file is not None:
        found = _by_config(place, file, name, since, until)
    elif place.history or place.dsn:
        raise click.UsageError("--history and --dsn know no schedules: name a config with --config")
    else:
        path = f"/api/schedules/{quote(name, safe='')}/test"
        found = ask(place.site, path, since=since, until=until, source=place.source)
    if as_json:
        click.echo(output.as_json(found, "Rehearsed"))
    else:
        for line in render.cut(render.rehearsal(found, everything=everything), columns()):
            click.echo(line)
    tell_rest(found, "transitions")


def _by_config(place: Place, file: Path, name: str, since: str, until: str) -> dict[str, Any]:
    from wafermon.backends import find_plugins
    from wafermon.config import load
    from wafermon.model.errors import ConfigError

    try:
        config = load(file, plugins=find_plugins().factories, environ=os.environ)
    except ConfigError as error:
        raise click.ClickException(str(error)) from None
    if not (place.history or place.dsn):
        kept = [backend.options.dir for backend in config.backends.values() if backend.plugin == "history"]
        if not kept:
            raise click.UsageError(
                f"{file} has no backend with `plugin: history`: name a place with --history or --dsn"
            )
        place = place._replace(history=str(kept[0]))
    return ask_past(place, "rehearsal", schedules=config.schedules, name=name, since=since, until=until)
