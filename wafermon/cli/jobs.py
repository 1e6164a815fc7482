"""``wafermon jobs``: what runs, and what ended a while ago."""

from __future__ import annotations

import time
from fnmatch import fnmatchcase
from typing import Any

import click

from wafermon.cli import render, stored
from wafermon.cli.ask import Site, ask
from wafermon.cli.live import show
from wafermon.cli.parameters import http_option, json_option, watch_option

MOST = 10_000
OVER = ("done", "failed", "cancelled")


@click.command()
@click.option("--service", default="*", metavar="GLOB", help="Those whose progress this service reported last.")
@click.option("--running", is_flag=True, help="Only those that have not ended.")
@click.option("--limit", type=click.IntRange(1, MOST), default=50, show_default=True, help="The ones heard of last.")
@watch_option
@json_option
@http_option
@stored.dsn_options
def command(
    http: Site, dsn: str | None, schema: str, service: str, running: bool, limit: int, as_json: bool, watch: bool
) -> None:  # fmt: skip
    """Show the jobs that run and the ones that ended a while ago, the one heard of last first."""

    def get() -> list[dict[str, Any]]:
        if dsn is not None:
            found = stored.jobs(dsn, schema)
        else:
            found = ask(http, "/api/jobs", limit=MOST if running or service != "*" else limit)["jobs"]
        wanted = [
            job for job in found if fnmatchcase(job["service"], service) and not (running and job["status"] in OVER)
        ]
        return wanted[:limit]

    show(get, lambda jobs: render.jobs(jobs, time.time_ns() // 1000), as_json=as_json, watch=watch)
