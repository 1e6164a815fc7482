"""Where the sidecar of a config serves its API to a command on the same machine."""

from __future__ import annotations

from collections.abc import Mapping

from wafermon.cli.ask import Access, Site
from wafermon.model.endpoints import place_of
from wafermon.model.settings import HttpListener


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
