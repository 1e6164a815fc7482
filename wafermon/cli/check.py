"""``wafermon check``: is this config good?"""

from __future__ import annotations

import os
from pathlib import Path

import click


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
def command(file: Path) -> None:
    """Check the config FILE: every fault with its line, on standard error. What is allowed but
    dangerous is a warning there, and so is a path that the systemd unit which names FILE may not write to.

    Nothing is opened but the file and that unit. Exit status: 0 good, 1 not.

    \b
    Example:
      wafermon check /etc/wafermon/wafermon.yaml
    """
    # They bring Twisted along, which the other commands can do without.
    from wafermon.alerts.channels import find_channels
    from wafermon.backends import find_plugins
    from wafermon.cli import sandbox
    from wafermon.config import advice, load
    from wafermon.model.errors import ConfigError

    plugins = find_plugins()
    for name, problem in plugins.broken.items():
        click.echo(f"the backend plugin {name} can't be loaded: {problem}", err=True)
    try:
        config = load(file, plugins=plugins.factories, environ=os.environ, channels=find_channels())
    except ConfigError as error:
        click.echo(str(error), err=True)
        raise SystemExit(1) from None
    for key, problem in advice(config):
        click.echo(f"{file}: {key}: warning: {problem}", err=True)
    for finding in sandbox.of_unit(config, file):
        click.echo(f"{file}: warning: {finding.what}; {finding.do}", err=True)
    count = len(config.listen)
    backends = ", ".join(f"{name} ({backend.plugin})" for name, backend in config.backends.items())
    click.echo(f"{file}: good: {count} listener{'s' * (count != 1)}, backends {backends}")
