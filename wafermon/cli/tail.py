"""``wafermon tail``: messages as they come."""

from __future__ import annotations

import json

import click

from wafermon.cli import render
from wafermon.cli.ask import Site, follow
from wafermon.cli.parameters import http_option, json_option
from wafermon.cli.past import columns


@click.command()
@click.option("--service", default="", metavar="GLOB", help="Only of these services.")
@click.option("--trace", default="", metavar="ID", help="Only of this trace or job; may be a glob too.")
@click.option("--level", default="", metavar="LEVEL", help="Only events of it; also a comparison, as '>=warning'.")
@json_option
@http_option
def command(http: Site, service: str, trace: str, level: str, as_json: bool) -> None:
    """Show messages as the sidecar takes them in, until interrupted.

    With --json each is printed as it is stored, a line each. What comes too fast to follow is left out; how much that was
    goes to standard error.

    \b
    Example:
      wafermon tail --service 'queue-*' --level '>=warning'
    """
    kind = "message"
    for line in follow(http, "/api/tail", service=service, trace=trace, level=level):
        if line.startswith(b"event: "):
            kind = line.removeprefix(b"event: ").decode()
        elif line.startswith(b"data: "):
            _show(kind, line.removeprefix(b"data: "), as_json)
        elif not line:
            kind = "message"
    raise click.ClickException(f"{http} ended the stream: the sidecar stopped")


def _show(kind: str, data: bytes, as_json: bool) -> None:
    if kind == "lost":
        click.echo(f"{json.loads(data)['count']} messages left out: too many to follow", err=True)
    elif as_json:
        click.echo(data)
    else:
        click.echo(render.cut([render.message(json.loads(data))], columns())[0])
