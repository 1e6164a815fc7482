"""``wafermon receipt``: whether all of a job arrived, and what is missing."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import click

from wafermon.cli import output, render
from wafermon.cli.ask import Site, ask
from wafermon.cli.parameters import http_option, json_option
from wafermon.cli.past import columns
from wafermon.model.units import parse_duration

UNKNOWN = 2
AGAIN_SECONDS = 0.5
SHOWN = 10
"""So many gaps and clients are named."""


def _seconds(ctx: click.Context, param: click.Parameter, value: str) -> float:
    try:
        return parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


@click.command()
@click.argument("job")
@click.option(
    "--wait", default="0", callback=_seconds, metavar="TIME", help="Wait so long for it to be complete, such as 60s."
)
@json_option
@http_option
def command(job: str, wait: float, http: Site, as_json: bool) -> None:
    """Show whether everything that JOB said arrived and is stored, and if not, what is missing. JOB is a job or a trace.

    Exit status: 0 complete, 1 not (or nobody can know), 2 the job is not known or no sidecar answers.

    \b
    Example:
      wafermon receipt lot-4711 --wait 60s
    """
    deadline = time.monotonic() + wait
    while True:
        try:
            found, problem = ask(http, f"/api/traces/{quote(job, safe='')}/receipt"), None
        except click.ClickException as error:
            found, problem = None, error
        left = deadline - time.monotonic()
        if left <= 0 or (found is not None and (found["complete"] or is_final(found))):
            break
        time.sleep(min(AGAIN_SECONDS, left))
    if problem is not None:
        problem.show()
        sys.exit(UNKNOWN)
    shown = output.as_json(found, "Receipt") if as_json else "\n".join(render.cut(lines(found), columns()))
    click.echo(shown)
    sys.exit(0 if found["complete"] else 1)


def is_final(found: Mapping[str, Any]) -> bool:
    """Whether waiting changes nothing any more: something is lost for good."""
    lost = found["dropped"] or found["rejected"] or found["no_route"] or found["more_gaps"]
    return bool(lost or any(not gap["pending"] for gap in found["gaps"])) and not found["unclosed"]


def lines(found: Mapping[str, Any]) -> list[str]:
    """A receipt for a person."""
    said = {True: "complete", False: "NOT COMPLETE", None: "nobody can know"}[found["complete"]]
    color = {True: "done", False: "failed", None: "warning"}[found["complete"]]
    if found["sent"] is not None:
        came = f"{found['sent']:,} sent, {found['received']:,} received"
    elif found["unclosed"]:
        came = f"{found['received']:,} received"
    else:
        came = f"{found['received']:,} received of programs that served other jobs too"
    forwarded = found.get("forwarded", 0)
    clients = found["closed"] + len(found["unclosed"]) + found["more_unclosed"]
    shown: list[str] = [
        f"{render.plain(found['job'])}  {render.colored(said, color)}",
        f"{came}; {found['closed']:,} of {clients:,} programs have said that this is all",
    ]
    if forwarded:
        edges = found["edges"]
        shown.append(f"{_messages(forwarded)} came through {len(edges)} other sidecars that have told their receipt")
    shown += [render.problem(one) for one in missing(found)]
    rows = [
        [
            render.plain(name),
            f"{one['routed']:,}",
            "waiting" if one["stored"] is None else f"{one['stored']:,}",
            f"{one['dead']:,}",
            f"{one['skipped']:,}",
        ]
        for name, one in found["backends"].items()
    ]
    if rows:
        shown += ["", *render.table(["BACKEND", "ROUTED", "STORED", "DEAD LETTERS", "SKIPPED"], rows, right="-rrrr")]
    return shown


def missing(found: Mapping[str, Any]) -> Iterator[str]:
    """What keeps it from being complete, in sentences."""
    if found["running"]:
        yield "the job is not over"
    services = found["services"]
    if found["unclosed"]:
        yield f"{_named(found['unclosed'], services)}: not closed, so more may have been said than came"
    for gap in found["gaps"][:SHOWN]:
        count = gap["last"] - gap["first"] + 1
        whose = "of this job" if gap["job"] else "of this job or another"
        where = ", said to be in a spill file" if gap["pending"] else " never came"
        which = f"{gap['first']} to {gap['last']}" if count > 1 else f"{gap['first']}"
        yield f"{_named([gap['client']], services)}: {_messages(count)} ({which}) {whose}{where}"
    more = found["more_gaps"] + sum(gap["last"] - gap["first"] + 1 for gap in found["gaps"][SHOWN:])
    if more:
        yield f"{_messages(more)} more never came"
    if found["dropped"]:
        yield f"{_messages(found['dropped'])} dropped by the programs' SDKs since the job began"
    if found["rejected"]:
        yield f"{_messages(found['rejected'])} rejected: dead letters, `wafermon replay` sends them again"
    if found["no_route"]:
        yield f"{_messages(found['no_route'])} that no rule of `routes` takes: dead letters"
    if found["unnumbered"]:
        yield f"{_messages(found['unnumbered'])} without a number: nobody can say whether one is missing"
    if found["unjudged"]:
        yield f"{found['unjudged']:,} clients more than are kept of one trace: these are not judged"
    if found["begun_before"]:
        yield "it may have begun before the sidecar kept receipts"
    if found.get("edge_unknown"):
        yield f"edge unknown: {_messages(found['edge_unknown'])} came through sidecars that have not told their own receipt"
    came = found.get("forwarded", 0)
    sent_on = sum(edge["forwarded"] for edge in found.get("edges", {}).values())
    if sent_on > came:
        yield f"{_messages(sent_on - came)} that other sidecars forward are not here"
    for journal, edge in found.get("edges", {}).items():
        for key, words in (
            ("gaps", "never came"),
            ("dropped", "dropped by SDKs"),
            ("rejected", "rejected: dead letters there"),
        ):
            if edge[key]:
                yield f"at the sidecar {render.plain(journal)}: {_messages(edge[key])} {words}"
        if edge["unclosed"]:
            yield f"at the sidecar {render.plain(journal)}: {edge['unclosed']:,} programs have not said that this is all"
    for name, one in found["backends"].items():
        if one["skipped"]:
            perhaps = "up to " if one["stored"] is None else ""
            yield f"{render.plain(name)} passed {perhaps}{_messages(one['skipped'])} undelivered"
        elif one["stored"] is None:
            yield f"{render.plain(name)} does not have everything yet"
        if one["dead"]:
            yield f"{render.plain(name)} refused {_messages(one['dead'])}: dead letters"


def _messages(count: int) -> str:
    return f"{count:,} message{'s' if count != 1 else ''}"


def _named(clients: Sequence[str], services: Mapping[str, str]) -> str:
    named = [f"{services[one]} ({one})" if services.get(one) else one for one in clients[:SHOWN]]
    more = [f"{len(clients) - SHOWN:,} more"] if len(clients) > SHOWN else []
    return ", ".join([*map(render.plain, named), *more])
