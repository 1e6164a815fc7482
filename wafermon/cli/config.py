"""``wafermon config``: a config to begin with, what it says with its defaults, how two differ, and its schema for editors."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from wafermon.cli import output

INSTALLED_SCHEMA = Path("/usr/share/wafermon/config.schema.json")
SCHEMA_NAME = "wafermon.schema.json"
DEFAULTS = "(the defaults)"


@click.group()
def command() -> None:
    """Make a config, show it, and compare two."""


def _plugins() -> Mapping[str, Any]:
    from wafermon.backends import find_plugins  # brings Twisted along

    return find_plugins().factories


def _channels() -> Mapping[str, Any]:
    from wafermon.alerts.channels import find_channels

    return find_channels()


def _schema_text() -> str:
    from wafermon.config.schema import config_schema

    return json.dumps(config_schema(_plugins(), _channels()), indent=1, ensure_ascii=False) + "\n"


@command.command()
def schema() -> None:
    """Print the config's JSON Schema, with the options of every backend that is installed here. Editors check and complete a
    file by it whose first line is `# yaml-language-server: $schema=FILE`.

    \b
    Example:
      wafermon config schema > wafermon.schema.json
    """
    click.echo(_schema_text(), nl=False)


@command.command()
@click.argument("file", type=click.Path(path_type=Path))
def init(file: Path) -> None:
    """Write a config to begin with to FILE, with the defaults of every section and a first line by which editors find the
    schema. Where the system has none, the schema is written beside it. A file that is there is not replaced.

    \b
    Example:
      wafermon config init wafermon.yaml
    """
    from wafermon.config import default_text

    schema_file = INSTALLED_SCHEMA if INSTALLED_SCHEMA.exists() else file.with_name(SCHEMA_NAME)
    named = schema_file if schema_file is INSTALLED_SCHEMA else schema_file.name
    text = f"# yaml-language-server: $schema={named}\n{_opening(default_text())}"
    try:
        with file.open("x", encoding="utf-8") as made:
            made.write(text)
        if schema_file is not INSTALLED_SCHEMA:
            schema_file.write_text(_schema_text(), encoding="utf-8")
    except FileExistsError:
        raise click.ClickException(f"{file} is there already; name another file, or remove it first") from None
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from None
    click.echo(f"{file}: change it, then `wafermon check {file}`")


def _opening(text: str) -> str:
    """The default config without what its first lines say of the default."""
    lines = text.splitlines(keepends=True)
    first = next(at for at, line in enumerate(lines) if not line.startswith("#"))
    return "# docs/configuration.md has every key. A key that is left out has the value that it has here.\n" + "".join(
        lines[first:]
    )


def _read(file: Path | None) -> dict[str, Any]:
    """What a good config says. Ends the command with every fault of one that is not."""
    from wafermon.config import default_text, load
    from wafermon.config.effective import effective
    from wafermon.model.errors import ConfigError

    plugins = _plugins()
    try:
        load(file, plugins=plugins, environ=os.environ, channels=_channels())
        data = file.read_bytes() if file else default_text().encode()
    except ConfigError as error:
        click.echo(str(error), err=True)
        raise SystemExit(1) from None
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from None
    return effective(data, plugins)


@command.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--json", "as_json", is_flag=True, help="JSON, for programs.")
def show(file: Path | None, as_json: bool) -> None:
    """Show all that the config FILE says, with the defaults of what it leaves out; without FILE the default config. Variables
    stay as the file has them, and passwords are hidden.

    \b
    Example:
      wafermon config show /etc/wafermon/wafermon.yaml
    """
    import yaml

    found = _read(file)
    click.echo(
        output.as_json(found)
        if as_json
        else yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=100).rstrip()
    )


@command.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("other", type=click.Path(path_type=Path), required=False)
@click.option("--json", "as_json", is_flag=True, help="JSON, for programs.")
def diff(file: Path, other: Path | None, as_json: bool) -> None:
    """Show where the config FILE differs from OTHER, or from the default config: each key with both values. What one leaves
    out counts by its default.

    \b
    Example:
      wafermon config diff new.yaml /etc/wafermon/wafermon.yaml
    """
    from wafermon.config.effective import differences

    found = differences(_read(file), _read(other))
    if as_json:
        click.echo(output.as_json([{"path": path, "file": one, "other": two} for path, one, two in found]))
        return
    click.echo(f"{other or DEFAULTS} -> {file}: {len(found) or 'no'} difference{'s' * (len(found) != 1)}")
    for path, one, two in found:
        click.echo(f"{path}: {_short(two)} -> {_short(one)}")


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
