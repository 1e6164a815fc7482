"""``wafermon status``: how the running sidecar is doing."""

from __future__ import annotations

from typing import Any

import click

from wafermon.cli import render
from wafermon.cli.ask import Site, ask
from wafermon.cli.live import show
from wafermon.cli.parameters import http_option, json_option, watch_option
from wafermon.cli.past import columns


@click.command()
@watch_option
@json_option
@http_option
def command(http: Site, as_json: bool, watch: bool) -> None:
    """Show how the running sidecar is doing: its journal, its listeners, each backend with what is pending for it.

    Exit status: 0 ready, 1 not ready, or nobody answers.

    \b
    Example:
      wafermon status --json | jq .backends.files.lag_messages
    """
    last: dict[str, Any] = {}

    def lines(found: dict[str, Any]) -> list[str]:
        shown = render.status(found, last or None)
        last.update(found)
        return render.cut(shown, columns())

    def get() -> dict[str, Any]:
        found: dict[str, Any] = ask(http, "/api/status")
        if not found["ready"]:
            ready.clear()
        return found

    ready = [True]
    show(get, lines, shape="Status", as_json=as_json, watch=watch)
    if not ready:
        raise click.exceptions.Exit(1)
