"""Options that several subcommands take, and the one way to say that something failed."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from wafermon.cli.address import Address
from wafermon.cli.ask import Access, Site, parse_site
from wafermon.cli.stream import parse_url

LEVELS = ("debug", "info", "warning", "error", "critical")
DEFAULT_URL = "tcp://127.0.0.1:7411"
DEFAULT_HTTP = "http://127.0.0.1:7412"
_Command = TypeVar("_Command", bound=Callable[..., Any])


def _address(ctx: click.Context, param: click.Parameter, url: str) -> Address:
    try:
        return parse_url(url)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def sidecar_options(command: _Command) -> _Command:
    """`--url` and `--token`, as the parameters `url` (an Address) and `token`."""
    url = click.option(
        "--url", callback=_address, envvar="WAFERMON_URL", default=DEFAULT_URL, show_default=True, show_envvar=True, metavar="URL",
        help="The sidecar: tcp://HOST:PORT, unix:///PATH or tls://HOST:PORT.",
    )  # fmt: skip
    token = click.option(
        "--token", envvar="WAFERMON_TOKEN", show_envvar=True, help="What the sidecar's listener asks for."
    )
    return url(token(command))


def service_option(text: str, *, required: bool = False) -> Callable[[_Command], _Command]:
    """`--service`, also from the environment."""
    names = ["WAFERMON_SERVICE", "OTEL_SERVICE_NAME"]
    return click.option("--service", envvar=names, required=required, show_envvar=True, metavar="NAME", help=text)


def _site(ctx: click.Context, param: click.Parameter, url: str) -> Site:
    try:
        return parse_site(url, Access.of(os.environ))
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def http_option(command: _Command) -> _Command:
    """`--http`, as the parameter `http`, a Site."""
    return click.option(
        "--http", callback=_site, envvar="WAFERMON_HTTP", default=DEFAULT_HTTP, show_default=True, show_envvar=True, metavar="URL",
        help="Where the sidecar serves its API: http://HOST:PORT, https://HOST:PORT or unix:///PATH. WAFERMON_HTTP_TOKEN is its token.",
    )(command)  # fmt: skip


def json_option(command: _Command) -> _Command:
    """`--json`, as the parameter `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="JSON, for programs.")(command)


def watch_option(command: _Command) -> _Command:
    """`--watch`, as the parameter `watch`."""
    return click.option("--watch", is_flag=True, help="Again every 2 s, until interrupted.")(command)
