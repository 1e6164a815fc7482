"""Manual pages of every command, from what `--help` shows: ``python -m wafermon.cli.manual DIR`` writes DIR/man1."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from wafermon import __version__
from wafermon.cli import main

ENVIRONMENT = {
    "WAFERMON_URL": "where the sidecar takes messages",
    "WAFERMON_HTTP": "where the sidecar serves its API",
    "WAFERMON_HTTP_TOKEN": "the token of its API",
    "WAFERMON_TLS_CA": "a file of the authorities that its certificate may come from",
    "WAFERMON_TLS_CERT, WAFERMON_TLS_KEY": "files of the command's own certificate and its key",
}


def commands(group: click.Group, ctx: click.Context) -> Iterator[tuple[click.Context, click.Command]]:
    """A group's commands and those below them, each with its context."""
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        if command is None or command.hidden:
            continue
        inner = click.Context(command, info_name=name, parent=ctx, max_content_width=100)
        yield inner, command
        if isinstance(command, click.Group):
            yield from commands(command, inner)


def pages() -> dict[str, str]:
    """The name of a page's file -> its roff."""
    ctx = click.Context(main, info_name="wafermon")
    below = list(commands(main, ctx))
    found = {_file(ctx): _page(ctx, main, [inner for inner, _ in below])}
    for inner, command in below:
        siblings = [other for other, _ in below if other.parent is inner]
        found[_file(inner)] = _page(inner, command, siblings or [ctx])
    return found


def _file(ctx: click.Context) -> str:
    return f"{_name(ctx)}.1"


def _name(ctx: click.Context) -> str:
    return ctx.command_path.replace(" ", "-")


def _page(ctx: click.Context, command: click.Command, see: list[click.Context]) -> str:
    help_text = command.help or ""
    brief = command.get_short_help_str(limit=200).rstrip(".")
    lines = [
        f'.TH "{_name(ctx).upper()}" "1" "" "wafermon {__version__}" "wafermon"',
        ".SH NAME",
        f"{_escaped(_name(ctx))} \\- {_escaped(brief[:1].lower() + brief[1:])}",
        ".SH SYNOPSIS",
        f".B {_escaped(ctx.command_path)}",
        _escaped(" ".join(command.collect_usage_pieces(ctx))),
        ".SH DESCRIPTION",
        *_paragraphs(help_text),
    ]
    records = [record for parameter in command.get_params(ctx) if (record := parameter.get_help_record(ctx))]
    if records:
        lines.append(".SH OPTIONS")
        for names, text in records:
            lines += [".TP", f".B {_escaped(names)}", _escaped(text)]
    if isinstance(command, click.Group):
        lines.append(".SH COMMANDS")
        for inner in see:
            if inner.parent is ctx:
                lines += [
                    ".TP",
                    f".B {_escaped(str(inner.info_name))}",
                    _escaped(inner.command.get_short_help_str(200)),
                ]
    if any(parameter.name == "http" for parameter in command.params) or ctx.parent is None:
        lines.append(".SH ENVIRONMENT")
        for variable, text in ENVIRONMENT.items():
            lines += [".TP", f".B {_escaped(variable)}", _escaped(text)]
    lines += [
        ".SH EXIT STATUS",
        "0 done, 1 failed, 2 wrong usage, where the description says nothing else.",
        ".SH SEE ALSO",
    ]
    lines.append(", ".join(f"\\fB{_escaped(_name(other))}\\fR(1)" for other in see))
    return "\n".join(line for line in lines if line) + "\n"


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        yield ".PP"
        if paragraph.lstrip().startswith("\b"):
            yield ".nf"
            yield from (_escaped(line) for line in paragraph.replace("\b", "").strip("\n").splitlines())
            yield ".fi"
        else:
            yield _escaped(" ".join(paragraph.split()))


def _escaped(text: str) -> str:
    """Text that roff shows as it is. Between backquotes it is bold."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...")
    text = re.sub(r"`([^`]+)`", r"\\fB\1\\fR", text)
    return "\\&" + text if text[:1] in (".", "'") else text


def write(directory: Path) -> None:
    for name, text in pages().items():
        path = directory / f"man{name[-1]}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
