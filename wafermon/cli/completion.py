"""``wafermon completion``: what makes a shell complete commands, options, and the ids of jobs that the sidecar knows."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_WAFERMON_COMPLETE"
"""What the script sets when it asks for completions."""


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print the script that completes commands for SHELL. It completes jobs, services, backends, schedules and channels too, as the sidecar
    that WAFERMON_HTTP names knows them; where none answers within half a second, none.

    \b
    Example:
      wafermon completion bash \\
          > ~/.local/share/bash-completion/completions/wafermon
      wafermon completion zsh > "${fpath[1]}/_wafermon"
      wafermon completion fish > ~/.config/fish/completions/wafermon.fish
    """
    from wafermon.cli import main

    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(main, {}, "wafermon", VARIABLE).source())
