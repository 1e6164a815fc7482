"""The ``wafermon`` command. Its subcommands are modules that are imported when they run, since a shell script calls
``wafermon send`` often and should not wait for what the others need."""

from __future__ import annotations

from importlib import import_module

import click

from wafermon import __version__

COMMANDS = ("bench", "check", "journal", "replay", "run", "send")
"""Each is a module of `wafermon.commands`."""


class Commands(click.Group):
    """Finds a subcommand in the module of its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"wafermon.commands.{cmd_name}").command
        return command


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="wafermon")
def main() -> None:
    """Talk to a wafermon sidecar, and look after its files.

    Exit status: 0 it worked, 1 it did not, 2 the command was used wrongly. The sidecar itself runs by `twistd wafermon`.
    """


if __name__ == "__main__":
    main()
