"""Asking for jobs, traces and events: a sidecar over HTTP, or, where none runs, a directory of history or a database.

The answers are the same, since the same code makes them.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast
from urllib.parse import quote

import click

from wafermon.cli import output
from wafermon.cli.ask import Site, ask
from wafermon.cli.parameters import http_option

MOST = 10_000
PAGES = {"trace": "traces", "events": "events/search"}
"""Questions whose page has another name."""
_Command = TypeVar("_Command", bound=Callable[..., Any])


class Place(NamedTuple):
    """Who is asked."""

    site: Site
    history: str = ""
    """A directory of history."""
    dsn: str = ""
    """A database."""
    schema: str = "public"
    source: str = ""
    """The backend that the sidecar is to ask."""


def place_options(command: _Command) -> _Command:
    """`--http`, `--history`, `--dsn`, `--schema` and `--source`, as one parameter `place`."""

    def run(*args: Any, http: Site, history: str, dsn: str, schema: str, source: str, **more: Any) -> Any:
        if history and dsn:
            raise click.UsageError("--history and --dsn are two places; name one of them")
        if source and (history or dsn):
            raise click.UsageError("--source names a backend of a sidecar; leave it out with --history and --dsn")
        return command(*args, place=Place(http, history, dsn, schema, source), **more)

    run.__doc__ = command.__doc__
    run.__name__ = command.__name__
    run.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    made: Any = run
    for option in (
        click.option(
            "--source", default="", metavar="BACKEND",
            help="The sidecar's backend to ask for what is stored; else the first that can be asked.",
        ),
        click.option("--schema", default="public", show_default=True, help="Of the database: where the tables are."),
        click.option(
            "--dsn", default="", metavar="DSN",
            help="Ask this database, not a sidecar: postgresql://USER@HOST/NAME. The password by PGPASSWORD or ~/.pgpass.",
        ),
        click.option(
            "--history", default="", metavar="DIR", help="Ask this directory of history, not a sidecar; one may run.",
        ),
        http_option,
    ):  # fmt: skip
        made = option(made)
    return cast(_Command, made)


def ask_past(
    place: Place, question: str, *, schedules: Mapping[str, Any] | None = None, **given: object
) -> dict[str, Any]:
    """The answer to one of `wafermon.query`'s questions. Raises click.ClickException where it can't be asked, or has nothing.
    `schedules`: those of a config, for a place without a sidecar."""
    wanted = {name: str(value) for name, value in given.items() if value not in (None, "")}
    if place.history or place.dsn:
        return _local(place, question, wanted, schedules or {})
    path = f"/api/{PAGES.get(question, question)}"
    if question == "trace":
        path += f"/{quote(wanted.pop('id'), safe='')}"
    found: dict[str, Any] = ask(place.site, path, **wanted, source=place.source)
    return found


def _local(place: Place, question: str, given: Mapping[str, str], schedules: Mapping[str, Any]) -> dict[str, Any]:
    from twisted.internet.defer import Deferred, succeed

    from wafermon.query import BadQuestion, NotThere, Query, Unavailable, answer

    store = _database(place) if place.dsn else _history(place.history)
    name = "the database" if place.dsn else place.history
    query = Query(lambda: None, lambda: {name: store}, lambda: time.time_ns() // 1000, succeed, lambda: schedules)
    results: list[dict[str, Any]] = []
    errors: list[BaseException] = []
    asked = Deferred.fromCoroutine(answer(query, question, given))
    asked.addCallbacks(results.append, lambda failure: errors.append(failure.value))
    if not errors:
        return results[0]
    if isinstance(errors[0], BadQuestion):
        raise click.UsageError(str(errors[0]))
    if isinstance(errors[0], (NotThere, Unavailable)):
        raise click.ClickException(str(errors[0]))
    raise errors[0]


def _history(directory: str) -> Any:
    from wafermon.backends.history.reading import Reader
    from wafermon.query.reading import Direct

    return Direct(Reader(Path(directory), patience=60.0))


def _database(place: Place) -> Any:
    try:
        from wafermon.backends.timescaledb import reading
    except ImportError:
        raise click.ClickException("--dsn needs psycopg2: pip install 'wafermon[timescaledb]'") from None
    from wafermon.query.reading import Direct

    return Direct(reading.Reader(place.dsn, place.schema))


# -- showing


def listing_options(what: str, limit: int) -> Callable[[_Command], _Command]:
    """`--since`, `--until`, `--limit` and `--after`."""

    def add(command: _Command) -> _Command:
        for option in (
            click.option("--after", default="", metavar="CURSOR", help="Go on where a list ended: it prints this."),
            click.option(
                "--limit", type=click.IntRange(1, MOST), default=limit, show_default=True, help=f"The most {what}."
            ),
            click.option("--until", default="", metavar="TIME", help="Before this time."),
            click.option(
                "--since", default="", metavar="TIME", help="From this time on: 2h ago, or 2026-11-28T10:15 (UTC)."
            ),
        ):
            command = option(command)
        return command

    return add


def show_list(
    get: Callable[[], dict[str, Any]],
    name: str,
    render: Callable[[dict[str, Any]], list[str]],
    *,
    shape: str,
    as_json: bool,
) -> None:
    """Print one answer of this `shape`, which holds the list `name`, and what it leaves out."""
    found = get()
    if as_json:
        click.echo(output.as_json(found, shape))
    else:
        for line in render(found):
            click.echo(line)
    tell_rest(found, name)


def tell_rest(found: Mapping[str, Any], name: str) -> None:
    """On stderr: what is not shown, how to see it, and what could not be asked."""
    for line in rest_of(found, name):
        click.echo(line, err=True)


def rest_of(found: Mapping[str, Any], name: str) -> Iterator[str]:
    if found.get("searched_to"):
        from wafermon.cli.render import moment

        yield f"only searched back to {moment(found['searched_to'])} UTC: --after {found['next']} searches on"
    elif found.get("left_out"):
        more = f": --after {found['next']} shows them, --limit N more at a time" if found.get("next") else ""
        yield f"{found['left_out']:,} more {name} left out{more}"
    elif found.get("more"):
        yield f"more {name} left out: --after {found['next']} shows them"
    for problem in found.get("problems", ()):
        yield f"not asked: {problem}"


def columns() -> int:
    """How wide a line may be: the terminal's width, or any where nobody looks at one."""
    return shutil.get_terminal_size((100, 25)).columns if sys.stdout.isatty() else 0
