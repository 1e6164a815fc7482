"""``wafermon doctor``: what would keep a sidecar from running well here, and what to do about it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wafermon.cli import output, render
from wafermon.cli.layout import Sentence
from wafermon.cli.parameters import json_option
from wafermon.cli.past import columns

if TYPE_CHECKING:
    from wafermon.cli.checks import Finding


@click.command()
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The sidecar's config; else that of the one that runs, else the default one.",
)
@json_option
def command(config: Path | None, as_json: bool) -> None:
    """Look at directories, permissions, the spill folder, sockets, the descriptor limit, the clock, the disk and each
    backend, and say what to do.

    Run it as the sidecar's user, in the directory that it is started in. A sidecar that runs is asked for its limits, its config and where
    it may write; nothing is changed.
    Exit status: 0 nothing is wrong, 1 something is.

    \b
    Example:
      sudo -u wafermon wafermon doctor --config /etc/wafermon/wafermon.yaml
    """
    findings = list(_findings(config))
    if as_json:
        click.echo(output.as_json([one._asdict() for one in findings]))
    else:
        for line in render.cut(_lines(findings), columns()):
            click.echo(line)
    if any(one.state == "error" for one in findings):
        raise click.exceptions.Exit(1)


def _lines(findings: Iterable[Finding]) -> Iterator[str]:
    for one in findings:
        yield Sentence(f"{render.colored(one.state.ljust(7), one.state)}  {render.plain(one.what)}", 9)
        if one.do:
            yield Sentence(f"         -> {render.plain(one.do)}", 12)


def _findings(path: Path | None) -> Iterator[Finding]:
    # They bring Twisted along, which the other commands can do without.
    from wafermon.alerts.channels import find_channels
    from wafermon.backends import find_plugins
    from wafermon.cli import checks, sandbox, spill_check
    from wafermon.cli.checks import Finding
    from wafermon.cli.own_sidecar import default_sidecar, running_sidecar
    from wafermon.config import advice, load
    from wafermon.model.errors import ConfigError

    plugins = find_plugins()
    for name, problem in plugins.broken.items():
        yield Finding("error", f"the backend plugin {name} can't be loaded: {problem}", "reinstall or remove it")
    path = path.absolute() if path is not None else None
    if path is None and (running := default_sidecar(os.environ)) is not None:
        path = Path(running) if running else None
    try:
        config = load(path, plugins=plugins.factories, environ=os.environ, channels=find_channels())
    except ConfigError as error:
        for fault in error.faults:
            yield Finding("error", str(fault), "fix the config; `wafermon check FILE` looks at it alone")
        return
    yield Finding("ok", f"the config {path or 'that is the default'} is good")
    for key, problem in advice(config):
        yield Finding("warning", f"{key}: {problem}")
    found = running_sidecar(config, os.environ)
    process = found.process
    checked: list[tuple[str, Callable[[], Iterator[Finding]]]] = []
    if found.problem:
        yield Finding(
            "error", f"a sidecar runs, but does not tell how it is: {found.problem}", 'see docs/security.md, "HTTP"'
        )
    elif found.status is None:
        yield Finding("ok", "no sidecar answers under this config's `http`: what follows is as if none runs")
        checked += [
            ("the listeners", lambda: checks.listeners(config)),
            ("the backends", lambda: checks.backends(config, plugins.factories)),
            ("the unit", lambda: sandbox.of_unit(config, path)),
        ]
    else:
        status = found.status
        checked.append(("the sidecar", lambda: _as_it_says(status)))
        checked.append(("the backends", lambda: checks.backends(config, plugins.factories, status["backends"])))
    if process is not None:
        yield from _of_its_own(path, process)
        checked.append(("what it may write to", lambda: sandbox.of_process(config, process)))
    for check in (checks.directories, spill_check.spill, checks.secrets):
        checked.append((check.__name__, partial(check, config)))
    checked.append(("descriptors", lambda: checks.descriptors(config, process)))
    for check in (checks.clock, checks.disk):
        checked.append((check.__name__, partial(check, config)))
    for name, each in checked:
        yield from _guarded(name, each)


def _guarded(name: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """What a check finds; where it can't look, that."""
    from wafermon.cli.checks import Finding

    try:
        yield from check()
    except OSError as error:
        yield Finding(
            "error",
            f"{name}: can't be looked at: {error}",
            "run this as the sidecar's user: sudo -u wafermon wafermon doctor",
        )
    except Exception as error:  # noqa: BLE001  # the other checks still have something to say
        yield Finding(
            "error",
            f"{name}: the check failed: {type(error).__name__}: {error}",
            "a sidecar of another version, or a fault of wafermon's",
        )


def _of_its_own(path: Path | None, process: dict[str, Any]) -> Iterator[Finding]:
    """Whether the config that is looked at is the sidecar's; from here on relative paths are as it has them."""
    from wafermon.cli.checks import Finding

    own = str(process["config"])
    if os.path.realpath(own or ".") != os.path.realpath(path or "."):
        what = f"the sidecar that runs has another config: {own or 'the default one'}"
        yield Finding("warning", what, f"wafermon doctor --config {own}" if own else "start it with --config")
    with suppress(OSError):
        os.chdir(process["directory"])


def _as_it_says(status: dict[str, Any]) -> Iterator[Finding]:
    from wafermon.cli.checks import Finding
    from wafermon.cli.spill_check import stuck

    yield Finding("ok", f"a sidecar {status['version']} runs, as `wafermon status` shows")
    for problem in status["problems"]:
        yield Finding("error", problem, 'see docs/operations.md, "What an alarm means"')
    if status["refused_config"]:
        faults = "; ".join(status["refused_config"]["faults"])
        yield Finding("error", f"it refused the last config: {faults}", "fix the config; it is read again by itself")
    yield from stuck(status)
    for name, backend in status["backends"].items():
        if backend["state"] != "failing":
            often = "each message once" if backend["exactly_once"] else "each message at least once"
            pending = f"{backend['lag_messages']} messages pending"
            yield Finding("ok", f"backend {name}: {backend['state']}, {pending}, stores {often}")
    for line in render.orphans(status["cursors_without_backend"]):
        what, _, do = line.partition(": ")
        yield Finding("warning", what, do)
