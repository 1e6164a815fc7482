"""What the running sidecar knows, as completions of a shell: ids of jobs, kinds, services, backends, schedules, channels.

A shell waits for it at each press of a key, so that it asks for half a second at most, and says nothing of what fails.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping

import click
from click.shell_completion import CompletionItem

from wafermon.cli.ask import Access, Site, ask, parse_site
from wafermon.cli.parameters import DEFAULT_HTTP

PATIENCE = 0.5
MOST = 100
Words = Iterable[tuple[str, str]]
"""Words, each with what a shell may show beside it."""


def jobs(site: Site) -> Words:
    found = ask(site, "/api/jobs", limit=MOST)
    return [(job["job_id"], f"{job['state']}, {job['percent']:g} %, {job['service']}") for job in found["jobs"]]


def kinds(site: Site) -> Words:
    found = ask(site, "/api/runs")
    return [(kind["kind"], f"{kind['runs']} runs") for kind in found["kinds"]]


def services(site: Site) -> Words:
    found = ask(site, "/api/clients", limit=MOST)
    return [(name, "") for name in dict.fromkeys(client["service"] for client in found["clients"])]


def backends(site: Site) -> Words:
    found = ask(site, "/api/status")
    return [(name, one["state"]) for name, one in found["backends"].items()]


def cursors(site: Site) -> Words:
    found = ask(site, "/api/status")
    return [(name, "has no backend") for name in found["cursors_without_backend"]]


def schedules(site: Site) -> Words:
    found = ask(site, "/api/schedules", limit=MOST)
    return [(name, "") for name in dict.fromkeys(one["schedule"] for one in found["schedules"])]


def channels(site: Site) -> Words:
    found = ask(site, "/api/status")
    return [(name, one["plugin"]) for name, one in found["alerts"].items()]


SOURCES: Mapping[tuple[str, str], Callable[[Site], Words]] = {
    ("trace", "id"): jobs,
    ("receipt", "job"): jobs,
    ("compare", "job"): jobs,
    ("compare", "other"): jobs,
    ("events", "job"): jobs,
    ("send progress", "job"): jobs,
    ("tail", "trace"): jobs,
    ("jobs", "kind"): kinds,
    ("runs", "name"): kinds,
    ("clients", "service"): services,
    ("errors", "service"): services,
    ("events", "service"): services,
    ("jobs", "service"): services,
    ("tail", "service"): services,
    ("drain", "backend"): backends,
    ("journal forget", "name"): cursors,
    ("schedules pause", "name"): schedules,
    ("schedules resume", "name"): schedules,
    ("schedules test", "name"): schedules,
    ("alert test", "name"): channels,
}
"""(command, parameter) -> what its values may be."""


def attach(command: click.Command, above: str = "") -> None:
    """Let the parameters of a command, and of those below it, complete what the sidecar knows."""
    name = f"{above} {command.name}".strip()
    for below in command.commands.values() if isinstance(command, click.Group) else ():
        attach(below, name)
    for parameter in command.params:
        source = SOURCES.get((name, str(parameter.name)))
        if source is not None:
            parameter._custom_shell_complete = _completer(source)


def _completer(
    source: Callable[[Site], Words],
) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    def complete(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
        try:
            site = ctx.params.get("http") or parse_site(
                os.environ.get("WAFERMON_HTTP", DEFAULT_HTTP), Access.of(os.environ)
            )
            site.patience = PATIENCE
            words = list(source(site))
        except (click.ClickException, ValueError, KeyError, TypeError):
            return []
        # A word with a space or a control character would be taken apart by the shell, or do something to the terminal.
        return [
            CompletionItem(word, help=beside or None)
            for word, beside in words
            if word.startswith(begun) and word.isprintable() and " " not in word
        ]

    return complete
