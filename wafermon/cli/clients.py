"""``wafermon clients``: the clients that are connected, and those that were."""

from __future__ import annotations

from typing import Any

import click

from wafermon.cli import render
from wafermon.cli.ask import Site, ask
from wafermon.cli.live import show
from wafermon.cli.parameters import http_option, json_option, watch_option
from wafermon.cli.past import MOST, columns, rest_of


@click.command()
@click.option("--service", default="", metavar="GLOB", help="Those of these services.")
@click.option("--connected", is_flag=True, help="Only those that are connected.")
@click.option("--limit", type=click.IntRange(1, MOST), default=50, show_default=True, help="The most clients.")
@watch_option
@json_option
@http_option
@click.option("--forwarders", is_flag=True, help="The sidecars that forward to this one, in place of clients.")
def command(
    http: Site, service: str, connected: bool, limit: int, as_json: bool, watch: bool, forwarders: bool
) -> None:
    """Show the clients that are connected or were, as far as the sidecar remembers: service, user, address, SDK, when it was heard of last, what
    it sent, dropped and spilled, and whether it said that this is all.

    \b
    Example:
      wafermon clients --connected --service 'queue-*'
    """

    def lines(found: dict[str, Any]) -> list[str]:
        shown = [*render.clients(found["clients"], found["now"]), *rest_of(found, "clients")]
        if many := found.get("forwarders_total"):
            shown.append(f"sidecars that forward to this one: {many:,}, see wafermon clients --forwarders")
        return render.cut(shown, columns())

    def forwarder_lines(found: dict[str, Any]) -> list[str]:
        rows = render.forwarders(found["forwarders"], found["now"])
        return render.cut([*rows, *rest_of(found, "forwarders")], columns())

    asked = {"connected": "true" if connected else "", "limit": limit}
    if forwarders:
        if service:
            raise click.UsageError("--service is not for --forwarders: a sidecar forwards what is of any service")
        show(
            lambda: ask(http, "/api/forwarders", **asked),
            forwarder_lines,
            shape="Forwarders",
            as_json=as_json,
            watch=watch,
        )
        return
    show(
        lambda: ask(http, "/api/clients", service=service, **asked),
        lines,
        shape="Clients",
        as_json=as_json,
        watch=watch,
    )
