"""``wafermon send``: one message from a shell script, acknowledged before it returns."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from wafermon.cli.address import Address
from wafermon.cli.parameters import LEVELS, service_option, sidecar_options
from wafermon.cli.stream import IS_IT_THERE, cant_be_reached, nobody_there
from wafermon.monitoring_sdk import MonitoringSDK

AT_ONCE = 0.3
"""Seconds after which it is looked whether anybody listens there at all."""
_Command = TypeVar("_Command", bound=Callable[..., Any])


def sender_options(command: _Command) -> _Command:
    """What every kind of message takes."""
    for option in (
        click.option("--timeout", type=click.FloatRange(0, 3600), default=5.0, show_default=True, metavar="SECONDS",
                     help="How long to wait for the acknowledgement."),
        click.option("--trace", envvar="WAFERMON_TRACE_ID", show_envvar=True, metavar="ID",
                     help="The trace that it belongs to: a job id, or 32 hex."),
        sidecar_options,
        service_option("Who is speaking.", required=True),
    ):  # fmt: skip
        command = option(command)
    return command


@click.group()
def command() -> None:
    """Send one message, and wait until the sidecar has it.

    Where it can't be delivered it stays in a spill file, which the sidecar takes up later; the exit status is 1 then.
    """


@command.command()
@click.option("--level", type=click.Choice(LEVELS), default="info", show_default=True)
@click.option("--context", multiple=True, metavar="KEY=TEXT", help="A detail; KEY:=JSON for a number, true, a list...")
@click.argument("message")
@sender_options
def event(message: str, level: str, context: tuple[str, ...], **options: Any) -> None:
    """Something happened: MESSAGE.

    \b
    Example:
      wafermon send event --service backup --level error 'disk full'
    """
    fields = pairs(context, "--context")
    deliver(lambda sdk: sdk.log_event(level, message, fields), **options)


@command.command(context_settings={"ignore_unknown_options": True})
@click.option("--unit", metavar="UNIT", help="UCUM where there is one: s, By, Cel, %.")
@click.option("--tag", "tags", multiple=True, metavar="KEY=TEXT", help="KEY:=NUMBER for a number.")
@click.option("--kind", type=click.Choice(["gauge", "counter"]), default="gauge", show_default=True)
@click.argument("name")
@click.argument("value")
@sender_options
def metric(name: str, value: str, unit: str | None, tags: tuple[str, ...], kind: str, **options: Any) -> None:
    """A measured number: NAME and VALUE.

    \b
    Example:
      wafermon send metric --service furnace temperature -3.5 --unit Cel
    """
    measured, fields = number(value), pairs(tags, "--tag")
    deliver(lambda sdk: sdk.log_metric(name, measured, unit, fields, kind), **options)


@command.command()
@click.option("--status", default="running", show_default=True, help="done, failed and cancelled end the job.")
@click.argument("job")
@click.argument("percent", type=float)
@sender_options
def progress(job: str, percent: float, status: str, **options: Any) -> None:
    """How far a job is: its id JOB, and PERCENT from 0 to 100.

    \b
    Example:
      wafermon send progress --service copy job-4711 40 --status copying
    """
    deliver(lambda sdk: sdk.log_progress(job, percent, status), **options)


def number(text: str) -> float:
    """A whole number stays one. Raises UsageError."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise click.UsageError(f"VALUE: expected a number, got {text!r}")


def pairs(texts: Iterable[str], option: str) -> dict[str, Any] | None:
    """``key=text`` and ``key:=json`` -> a dict; None without any. Raises UsageError."""
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.rstrip(":"):
            raise click.UsageError(f"{option}: expected KEY=TEXT or KEY:=JSON, got {text!r}")
        if key.endswith(":"):
            try:
                found[key[:-1]] = json.loads(value)
            except ValueError:
                raise click.UsageError(
                    f"{option}: {value!r} in {text!r} is not JSON; KEY=TEXT takes any text"
                ) from None
        else:
            found[key] = value
    return found or None


def deliver(
    call: Callable[[MonitoringSDK], None], *, service: str, url: Address, token: str | None, trace: str | None,
    timeout: float,
) -> None:  # fmt: skip
    """Make the call, wait for its acknowledgement. Raises UsageError, ClickException."""
    try:
        sdk = MonitoringSDK(service, url=str(url), trace_id=trace, token=token)
        call(sdk)
    except (ValueError, TypeError) as error:
        raise click.UsageError(str(error)) from None
    if disabled():
        return
    sdk.flush(min(timeout, AT_ONCE))
    dead = "" if _settled(sdk) else nobody_there(url)
    if not dead:
        sdk.flush(max(0.0, timeout - AT_ONCE))
    sdk.close(0.0)
    stats = sdk.get_stats()
    if stats["rejected"]:
        raise click.ClickException(f"the sidecar at {url} refused the message; its dead letters say why")
    if not stats["acked"] and dead:
        raise click.ClickException(f"{cant_be_reached(url, dead)}; {left(service)}. {IS_IT_THERE}")
    if not stats["acked"]:
        raise click.ClickException(f"the sidecar at {url} did not acknowledge it within {timeout:g} s; {left(service)}")


def _settled(sdk: MonitoringSDK) -> bool:
    stats = sdk.get_stats()
    return bool(stats["acked"] or stats["rejected"])


def left(service: str) -> str:
    """What became of what this process could not deliver, for a person."""
    files = [str(path) for place in spill_dirs() for path in place.glob(f"{service}.{os.getpid()}.*.ldjson")]
    if not files:
        return f"it is lost, since no spill file could be written; make one of {', '.join(map(str, spill_dirs()))} writable"
    return f"it stays in {' '.join(files)}, where the sidecar takes it up once it runs; by hand: wafermon replay {files[0]}"


def spill_dirs() -> list[Path]:
    """Where an SDK of this user spills, the first that it can write to."""
    if given := os.environ.get("WAFERMON_SPILL_DIR"):
        return [Path(given)]
    return [Path("/var/spool/wafermon"), Path(f"/tmp/wafermon-{os.getuid()}")]


def disabled() -> bool:
    """Whether SDKs are told to send nothing."""
    return os.environ.get("WAFERMON_DISABLED", "").lower() not in ("", "0", "false", "no")
