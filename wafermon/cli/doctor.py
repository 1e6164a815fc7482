"""``wafermon doctor``: what would keep a sidecar from running well here, and what to do about it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wafermon.cli import render
from wafermon.cli.ask import ask
from wafermon.cli.parameters import json_option

if TYPE_CHECKING:
    from wafermon.cli.checks import Finding
    from wafermon.config import Config


@click.command()
@click.option(
    "--config", type=click.Path(path_type=Path), metavar="FILE", help="The sidecar's config; else the default one."
)
@json_option
def command(config: Path | None, as_json: bool) -> None:
    """Look at directories, permissions, the spill folder, sockets, the descriptor limit, the clock, the disk and each
    backend, and say what to do.

    Run it as the sidecar's user, in the directory that it is started in. A sidecar that runs is asked; nothing is changed.
    Exit status: 0 nothing is wrong, 1 something is.
    """
    findings = list(_findings(config))
    if as_json:
        click.echo(json.dumps([one._asdict() for one in findings], ensure_ascii=False))
    else:
        for one in findings:
            click.echo(render.colored(one.state.ljust(7), one.state) + "  " + render.plain(one.what))
            if one.do:
                click.echo(f"         -> {render.plain(one.do)}")
    if any(one.state == "error" for one in findings):
        raise click.exceptions.Exit(1)


def _findings(path: Path | None) -> Iterator[Finding]:
    # They bring Twisted along, which the other commands can do without.
    from wafermon.backends import find_plugins
    from wafermon.cli import checks, spill_check
    from wafermon.cli.checks import Finding
    from wafermon.config import load
    from wafermon.model.errors import ConfigError

    plugins = find_plugins()
    for name, problem in plugins.broken.items():
        yield Finding("error", f"the backend plugin {name} can't be loaded: {problem}", "reinstall or remove it")
    try:
        config = load(path, plugins=plugins.factories, environ=os.environ)
    except ConfigError as error:
        for fault in error.faults:
            yield Finding("error", str(fault), "mend the config; `wafermon check FILE` looks at it alone")
        return
    yield Finding("ok", f"the config {path or 'that is the default'} is good")
    status = _running(config)
    if status is None:
        yield Finding("ok", "no sidecar answers under this config's `http`: what follows is as if none runs")
        yield from checks.listeners(config)
        yield from checks.backends(config, plugins.factories)
    else:
        yield from _as_it_says(status)
    for check in (checks.directories, spill_check.spill, checks.secrets, checks.descriptors, checks.clock, checks.disk):
        yield from check(config)


def _running(config: Config) -> dict[str, Any] | None:
    """What the sidecar of this config says, if one runs and answers."""
    from wafermon.cli.own_sidecar import site_of

    port = next((one for one in config.http if one.serves_api), None)
    site = site_of(port, os.environ) if port is not None else None
    if site is None:
        return None
    try:
        found = ask(site, "/api/status")
    except click.ClickException:
        return None
    return found if isinstance(found, dict) and "ready" in found else None


def _as_it_says(status: dict[str, Any]) -> Iterator[Finding]:
    from wafermon.cli.checks import Finding
    from wafermon.cli.spill_check import stuck

    yield Finding("ok", f"a sidecar {status['version']} runs, as `wafermon status` shows")
    for problem in status["problems"]:
        yield Finding("error", problem, 'see docs/operations.md, "What an alarm means"')
    if status["refused_config"]:
        faults = "; ".join(status["refused_config"]["faults"])
        yield Finding("error", f"it refused the last config: {faults}", "mend the config; it is read again by itself")
    yield from stuck(status)
    for name, backend in status["backends"].items():
        if backend["state"] != "failing":
            often = "each message once" if backend["exactly_once"] else "each message at least once"
            pending = f"{backend['lag_messages']} messages pending"
            yield Finding("ok", f"backend {name}: {backend['state']}, {pending}, stores {often}")
    for line in render.orphans(status["cursors_without_backend"]):
        what, _, do = line.partition(": ")
        yield Finding("warning", what, do)
