"""``wafermon drain``: wait until the backends have everything."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from wafermon.cli import output, render
from wafermon.cli.ask import Site, follow
from wafermon.cli.parameters import http_option, json_option


@click.command()
@click.option("--backend", default="", metavar="NAME", help="Wait for this one alone.")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="Give up after this time.")
@json_option
@http_option
def command(http: Site, backend: str, timeout: float | None, as_json: bool) -> None:
    """Wait until every backend has everything that the journal holds now.

    What comes meanwhile is not waited for. Exit status: 0 they have it, 1 not.

    \b
    Example:
      wafermon drain --backend db --timeout 60
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    shown = ""
    found: dict[str, Any] = {}
    for line in follow(http, "/api/drain", method="POST", backend=backend):
        found = json.loads(line)
        if found["drained"]:
            for orphan in render.orphans(found["cursors_without_backend"]):
                click.echo(f"not waited for: {orphan}", err=True)
            delivered = f"all is delivered: nothing is pending for {', '.join(found['backends'])}"
            click.echo(output.as_json(found, "Drained") if as_json else delivered)
            return
        now = "; ".join(_missing(name, one) for name, one in found["backends"].items())
        if now != shown:
            click.echo(now, err=True)
            shown = now
        if deadline is not None and time.monotonic() > deadline:
            raise click.ClickException(f"not drained within {timeout:g} s: {shown}")
    raise click.ClickException(f"{http} ended the stream before that: the sidecar stopped")


def _missing(name: str, one: dict[str, Any]) -> str:
    text = f"{name}: {one['lag_messages']:,} messages pending, {render.size(one['lag_bytes'])}"
    return text + (f", and fails: {render.plain(one['error'])}" if one["error"] else "")
