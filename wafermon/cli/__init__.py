"""The `wafermon` command: finds its subcommands by name and imports only the one that runs."""

from __future__ import annotations

import os
import signal
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click

from wafermon import __version__

COMMANDS = (
    "alert", "bench", "check", "clients", "compare", "completion", "config", "doctor", "drain", "errors", "events", "jobs", "journal", "receipt", "replay", "run", "runs",
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
        command.name = cmd_name
        if "_WAFERMON_COMPLETE" in os.environ:
            import_module("wafermon.cli.live_words").attach(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        word = args[0]
        if word not in COMMANDS and not word.startswith("-") and not ctx.resilient_parsing:
            close = get_close_matches(word, COMMANDS, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]!r}?" if close else "`wafermon --help` lists them"
            ctx.fail(f"there is no command {word!r}; {hint}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """An interrupt ends the program as it ends any other: silently, and so that a shell's loop ends too. Colors are for
        terminals that have them, and for people who want them (https://no-color.org)."""
        if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
            ctx.color = False
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
            raise


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="wafermon")
def main() -> None:
    """Talk to the wafermon sidecar of this machine, and manage its files.

    The sidecar itself is `twistd wafermon`. Exit status: 0 done, 1 failed, 2 wrong usage.
    """


if __name__ == "__main__":
    main()
