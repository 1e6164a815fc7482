"""The sidecar of a config, asked by a command on the same machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import click

from wafermon.cli.ask import Access, Refused, Site, ask, parse_site
from wafermon.cli.parameters import DEFAULT_HTTP
from wafermon.config import Config
from wafermon.model.endpoints import place_of
from wafermon.model.settings import HttpListener


class Running(NamedTuple):
    """What a sidecar says; nothing where none answers."""

    status: dict[str, Any] | None = None
    process: dict[str, Any] | None = None
    problem: str = ""
    """Why one that answers does not tell."""


def running_sidecar(config: Config, environ: Mapping[str, str]) -> Running:
    """The one of this config, by the first of its ports that serves the API."""
    port = next((one for one in config.http if one.serves_api), None)
    site = site_of(port, environ) if port is not None else None
    if site is None:
        return Running()
    try:
        status = ask(site, "/api/status")
    except Refused as error:
        return Running(problem=error.message)
    except click.ClickException:
        return Running()
    if not isinstance(status, dict) or "ready" not in status:
        return Running()
    try:
        return Running(status, ask(site, "/api/process"))
    except click.ClickException:  # an older one
        return Running(status)


def default_sidecar(environ: Mapping[str, str]) -> str | None:
    """The config's file of the sidecar that commands ask by default; empty for the default config, None where none answers."""
    try:
        site = parse_site(environ.get("WAFERMON_HTTP") or DEFAULT_HTTP, Access.of(environ))
        return str(ask(site, "/api/process")["config"])
    except (ValueError, TypeError, KeyError, click.ClickException):
        return None


def site_of(port: HttpListener, environ: Mapping[str, str]) -> Site | None:
    """None where its address can't be told from the config. What the environment does not say is taken from the config's own files: a token
    of its `token_file`, and of its certificate that it is the one to trust."""
    place = place_of(port.endpoint)
    if place is None:
        return None
    if isinstance(place, str):
        site = Site("unix", place)
    else:
        interface, number = place
        here = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}
        site = Site("https" if port.tls else "http", here.get(interface, interface), number)
    try:
        given = Access.of(environ)
    except ValueError:
        given = Access()
    site.access = given._replace(
        token=given.token or _first_token(port),
        ca=given.ca or str(port.certificate or ""),
        check_name=bool(given.ca),
    )
    return site


def _first_token(port: HttpListener) -> str:
    """Empty where there is none, or where it can't be read."""
    if port.token_file is None:
        return ""
    try:
        lines = port.token_file.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return ""
    return next((line.split()[0] for line in lines if line.strip() and not line.lstrip().startswith("#")), "")
