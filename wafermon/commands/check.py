"""``wafermon check``: whether a config is good, without starting anything."""

from __future__ import annotations

import os
from pathlib import Path

import click


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
def command(file: Path) -> None:
    """Check the config FILE, as the sidecar would at its start.

    Every fault goes to standard error as `file:line: path: what and what instead`; the exit status is 1 then.
    """
    from wafermon.backends import find_plugins
    from wafermon.config import load
    from wafermon.errors import ConfigError

    plugins = find_plugins()
    for name, problem in plugins.broken.items():
        click.echo(f"the backend plugin {name} can't be loaded: {problem}", err=True)
    try:
        config = load(file, plugins=plugins.factories, environ=os.environ)
    except ConfigError as error:
        click.echo(str(error), err=True)
        raise click.exceptions.Exit(1) from None
    count = len(config.listen)
    click.echo(f"{file}: good: {count} listener{'s'[: count != 1]}, backends {', '.join(config.backends)}")
