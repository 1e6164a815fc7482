"""The `wafermon` command: finds its subcommands by name and imports only the one that runs."""

from __future__ import annotations

from importlib import import_module

import click

from wafermon import __version__

COMMANDS = (
    "bench", "check", "clients", "compare", "doctor", "drain", "errors", "events", "jobs", "journal", "receipt", "replay", "run", "runs",
    "schedules", "send", "status", "tail", "top", "trace",
)  # fmt: skip


class Commands(click.Group):
    """Subcommands are `wafermon.cli.NAME.command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"wafermon.cli.{cmd_name}").command
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="wafermon")
def main() -> None:
    """Talk to the wafermon sidecar of this machine, and look after its files.

    The sidecar itself is `twistd wafermon`. Exit status: 0 done, 1 failed, 2 wrong usage.
    """


if __name__ == "__main__":
    main()
