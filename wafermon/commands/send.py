"""``wafermon send``: one message from a shell script or a cron job, and certainty that it arrived."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from wafermon.commands.options import reaches_sidecar, spill_dir
from wafermon.monitoring_sdk import MonitoringSDK

LEVELS = ("debug", "info", "warning", "error", "critical")


def _pairs(given: Sequence[str], option: str) -> dict[str, Any]:
    """``k=text`` and ``k:=JSON`` as a mapping. Raises click.UsageError."""
    found: dict[str, Any] = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        if not equals or not key.rstrip(":"):
            raise click.UsageError(f"{option} takes KEY=TEXT or KEY:=JSON, not {pair!r}")
        try:
            found[key.removesuffix(":")] = json.loads(value) if key.endswith(":") else value
        except ValueError as error:
            raise click.UsageError(f"{option}: {value!r} is no JSON: {error}; for text write {key[:-1]}=…") from None
    return found


def _sends(function: Callable[..., None]) -> Callable[..., None]:
    """The options of every kind of message."""
    for option in (
        click.option("--timeout", default=5.0, show_default=True, help="Seconds to wait for the acknowledgement."),
        click.option("--trace", help="The trace or job that it belongs to; else WAFERMON_TRACE_ID, TRACEPARENT."),
        click.option("--service", help="Who is speaking; else WAFERMON_SERVICE, OTEL_SERVICE_NAME."),
    ):
        function = option(function)
    return reaches_sidecar(function)


def _deliver(call: Callable[[MonitoringSDK], None], **options: Any) -> None:
    """Make one call of the SDK and wait for the acknowledgement. Ends with 1 without it, with 2 for a bad argument."""
    timeout = options.pop("timeout")
    trace_id = options.pop("trace")
    directory = spill_dir(os.environ)
    try:
        sdk = MonitoringSDK(**options, trace_id=trace_id, spill_dir=str(directory))
        call(sdk)
    except (ValueError, TypeError) as error:
        raise click.UsageError(str(error)) from None
    sdk.flush(timeout)
    sdk.close()
    stats = sdk.get_stats()
    if stats["rejected"]:
        raise click.ClickException("the sidecar refused it; its dead letters say why")
    if stats["handed_over"] or stats["waiting"]:
        kept = _spilled(directory)
        what = f"it was not acknowledged within {timeout:g} s and stays in {kept}"
        raise click.ClickException(f"{what}: the sidecar takes it up from there, or `wafermon replay` sends it")
    if stats["dropped"] and os.environ.get("WAFERMON_DISABLED", "").lower() in ("", "0", "false", "no"):
        raise click.ClickException(f"it was not acknowledged, and no spill file could be written in {directory}: lost")


def _spilled(directory: Path) -> str:
    """The files that this process has left."""
    return ", ".join(map(str, sorted(directory.glob(f"*.{os.getpid()}.*.ldjson*")))) or str(directory)


@click.group()
def command() -> None:
    """Send one message and wait until the sidecar has it for good.

    Exit status 1 says that it has not: the message then stays in a spill file, and is not lost.
    """


@command.command()
@click.argument("message")
@click.option("--level", type=click.Choice(LEVELS), default="info", show_default=True)
@click.option("--context", metavar="KEY=TEXT", multiple=True, help="May be repeated; KEY:=JSON for other values.")
@_sends
def event(message: str, level: str, context: tuple[str, ...], **options: Any) -> None:
    """Something happened: `wafermon send event --service backup --level error --context host:=7 "disk full"`."""
    fields = _pairs(context, "--context")
    _deliver(lambda sdk: sdk.log_event(level, message, fields or None), **options)


@command.command(context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.argument("value")
@click.option("--unit", help="UCUM where there is one: s, By, Cel, 1.")
@click.option("--tag", metavar="KEY=TEXT", multiple=True, help="May be repeated; KEY:=NUMBER for a number.")
@click.option("--counter", is_flag=True, help="It only ever grows; else it is a gauge.")
@_sends
def metric(name: str, value: str, unit: str | None, tag: tuple[str, ...], counter: bool, **options: Any) -> None:
    """A measured number: `wafermon send metric --service furnace temperature 23.5 --unit Cel --tag zone=3`."""
    number = _number(value)
    tags = _pairs(tag, "--tag")
    kind = "counter" if counter else None
    _deliver(lambda sdk: sdk.log_metric(name, number, unit, tags or None, kind), **options)


@command.command()
@click.argument("job")
@click.argument("percent")
@click.option("--status", default="running", show_default=True, help="done, failed and cancelled end the job.")
@_sends
def progress(job: str, percent: str, status: str, **options: Any) -> None:
    """How far JOB is, in PERCENT: `wafermon send progress --service copy job-4711 40`."""
    number = _number(percent)
    _deliver(lambda sdk: sdk.log_progress(job, number, status), **options)


def _number(text: str) -> float:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise click.UsageError(f"not a number: {text!r}") from None
