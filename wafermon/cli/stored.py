"""Asking the database in place of a sidecar: what the backend's reader answers, with its errors in the commands' way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])


def dsn_options(command: _Command) -> _Command:
    """`--dsn` and `--schema`, as the parameters `dsn` (None where a sidecar is to be asked) and `schema`."""
    dsn = click.option(
        "--dsn", metavar="DSN",
        help="Ask this database, not a sidecar: postgresql://USER@HOST/NAME. The password by PGPASSWORD or ~/.pgpass.",
    )  # fmt: skip
    schema = click.option(
        "--schema", default="public", show_default=True, help="Of the database: where the tables are."
    )
    return dsn(schema(command))


def jobs(dsn: str, schema: str) -> list[dict[str, Any]]:
    """As `/api/jobs` has them. Raises click.ClickException."""
    found: list[dict[str, Any]] = _read("jobs", dsn, schema)
    return found


def trace(dsn: str, trace_id: str, schema: str) -> dict[str, Any]:
    """As `/api/traces/ID` has it. Raises click.ClickException, also where there is none."""
    found: dict[str, Any] | None = _read("trace", dsn, trace_id, schema)
    if found is None:
        raise click.ClickException(f"the database knows nothing of {trace_id!r}: it never came, or its rows are gone")
    return found


def _read(what: str, *arguments: str) -> Any:
    try:
        from wafermon.backends.timescaledb import reading
    except ImportError:
        raise click.ClickException("--dsn needs psycopg2: pip install 'wafermon[timescaledb]'") from None
    try:
        return getattr(reading, what)(*arguments)
    except reading.ReadError as error:
        raise click.ClickException(str(error)) from None
