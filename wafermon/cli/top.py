"""``wafermon top``: one screen that lives."""

from __future__ import annotations

import sys
from typing import Any

import click

from wafermon.cli import render
from wafermon.cli.ask import Refused, Site, ask
from wafermon.cli.live import show
from wafermon.cli.parameters import http_option
from wafermon.cli.past import columns

JOBS = 15
ERRORS = 5


@click.command()
@click.option("--once", is_flag=True, help="Show it once, and end.")
@http_option
def command(http: Site, once: bool) -> None:
    """Show rates, backends, the jobs that run with their bars, and the errors of the last hour; again every 2 s, until
    interrupted. Where no terminal reads, once.

    \b
    Example:
      wafermon top
    """
    before: dict[str, Any] = {}

    def get() -> dict[str, Any]:
        try:
            failed = ask(http, "/api/errors", since="1h", limit=ERRORS)["errors"]
        except Refused:
            failed = []  # nothing is stored that could be asked
        running = ask(http, "/api/jobs", state="running,stalled", limit=JOBS)
        return {"status": ask(http, "/api/status"), "running": running, "failed": failed}

    def lines(found: dict[str, Any]) -> list[str]:
        shown = render.top(found["status"], before or None, found["running"], found["failed"])
        before.update(found["status"])
        return render.cut(shown, columns())

    show(get, lines, shape="", as_json=False, watch=not once and sys.stdout.isatty())
