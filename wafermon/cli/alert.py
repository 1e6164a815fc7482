"""``wafermon alert``: try the channels of the running sidecar."""

from __future__ import annotations

from urllib.parse import quote

import click

from wafermon.cli.ask import Site, tell
from wafermon.cli.parameters import http_option


@click.group()
def command() -> None:
    """Try the channels that are told of alarms."""


@command.command()
@click.argument("name")
@http_option
def test(name: str, http: Site) -> None:
    """Send a test through the channel NAME now, past its outbox and its quiet hours, and resolve it.

    Exit status: 0 it was taken, 1 not.

    \b
    Example:
      wafermon alert test pager
    """
    tell(http, f"/api/alerts/{quote(name, safe='')}/test")
    click.echo(f"{name} took the test")
