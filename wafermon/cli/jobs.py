"""``wafermon jobs``: what runs, and what ended a while ago."""

from __future__ import annotations

import time
from collections.abc import Sequence
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

    left_out = ""

    def get() -> list[dict[str, Any]]:
        nonlocal left_out
        filtered = running or service != "*"
        if dsn is not None:
            found = stored.jobs(dsn, schema)
            total = len(found)
        else:
            answer = ask(http, "/api/jobs", limit=MOST if filtered else limit)
            found, total = answer["jobs"], int(answer.get("total", 0))
        wanted = [
            job for job in found if fnmatchcase(job["service"], service) and not (running and job["status"] in OVER)
        ]
        left_out = _left_out(limit, len(wanted) if filtered else total, len(found) if filtered else total, total)
        if as_json and left_out:
            click.echo(left_out, err=True)
        return wanted[:limit]

    def lines(jobs: Sequence[dict[str, Any]]) -> list[str]:
        return [*render.jobs(jobs, time.time_ns() // 1000), *([left_out] if left_out else [])]

    show(get, lines, as_json=as_json, watch=watch)


def _left_out(limit: int, wanted: int, looked_at: int, total: int) -> str:
    """What is not shown of the jobs that are `wanted`, of those `looked_at`, of all; empty where nothing is."""
    said = []
    if wanted > limit:
        said.append(
            f"{limit:,} of {wanted:,} jobs are shown, those heard of last: --limit {min(MOST, wanted)} shows more"
        )
    if looked_at < total:
        said.append(f"only the {looked_at:,} of {total:,} jobs that were heard of last were looked at")
    return "; ".join(said)
