"""What is expected of jobs and services: the `schedules` of a config, and the states that are told of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator

from wafermon.model.cron import check_cron, zone_of
from wafermon.model.settings import Count, Duration, Kind, Section, Text

PAST_SECONDS = 86_400
"""What was sent so long before it came is about the past, and replayed: no run begins with it."""
NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
WAITING, RUNNING, DONE = "waiting", "running", "done"
NOT_STARTED, LATE, SILENT, TOO_LONG, TOO_FAST = "not_started", "late", "silent", "too_long", "too_fast"
FAILED, OVERLAPPING, RECOVERED = "failed", "overlapping", "recovered"
ALARMS = (NOT_STARTED, LATE, SILENT, TOO_LONG, TOO_FAST, OVERLAPPING, FAILED)
"""States that an operator should know of: events of level warning."""
TOLD = (*ALARMS, RECOVERED)
"""The same, and that all of them are over."""
PAUSED, RESUMED = "paused", "resumed"
STATES = (WAITING, RUNNING, DONE, *TOLD, PAUSED)


def _globs(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _cron(value: Any) -> Any:
    return check_cron(value) if isinstance(value, str) else value


def _zone(value: str) -> str:
    zone_of(value)
    return value


def _above_zero(value: float) -> float:
    if not value:
        raise ValueError("can't be 0 here; give a value above it")
    return value


Globs = Annotated[
    tuple[Text, ...], BeforeValidator(_globs), Kind("a glob in quotes or a list of such globs"), Field(strict=False)
]


class Match(Section):
    """Which jobs, or messages of which services, an expectation is about. All that is given must match."""

    job: Globs = Field(
        default=(),
        description="Ids of jobs, as globs. Without it the schedule is about all messages of `service` or `host`.",
    )
    service: Globs = Field(default=(), description="Services, as globs: of a job, those that report its progress.")
    host: Globs = Field(default=(), description="Hosts, as globs, likewise.")


class Schedule(Section):
    """Jobs that should start, go on and end in time, or a service that should be heard. See [schedules.md](schedules.md)."""

    match: Match = Field(description="What it is about.")
    cron: Annotated[str | None, BeforeValidator(_cron), Kind("a cron expression")] = Field(
        default=None,
        description="When a run is due: five fields (minute, hour, day of the month, month, day of the week), or `@hourly`, "
        "`@daily`, `@weekly`, `@monthly`, `@yearly`. Either this or `every`.",
    )
    every: Annotated[Duration, AfterValidator(_above_zero)] | None = Field(
        default=None,
        description="A run is due so long after the start of the one before; without `match.job`, a message so long after "
        "the one before.",
        validate_default=True,
    )
    timezone: Annotated[str, AfterValidator(_zone), Kind("a time zone")] = Field(
        default="UTC", description="The time zone of `cron`, such as `Europe/Berlin`."
    )
    start_grace: Duration = Field(
        default=300.0,
        description="So long after it is due a run may start, or a message come. It is `not_started` (a service `silent`) then, and "
        "`late` if it starts after that.",
    )
    early: Duration = Field(
        default=60.0, description="A run that starts so long before it is due by `cron` counts as the one that is due."
    )
    at_least: Duration = Field(
        default=0.0, description="A run that is done sooner is `too_fast`: it was too quick to be true."
    )
    at_most: Duration = Field(default=0.0, description="A run that takes longer is `too_long`.")
    silent: Duration = Field(
        default=0.0, description="A run without progress for so long is `silent`. Each progress message begins it anew."
    )
    runs: Count = Field(default=1, description="So many runs may be under way at once; one more is `overlapping`.")
    failures: Annotated[int, Field(ge=1), Kind("a whole number")] = Field(
        default=1, description="So many runs must fail one after the other before it is told as `failed`."
    )
    per_host: bool = Field(default=False, description="Each host is expected by itself, from when it was heard first.")

    @field_validator("match")
    @classmethod
    def _something(cls, value: Match) -> Match:
        if not (value.job or value.service or value.host):
            raise ValueError("expected at least one of job, service, host")
        return value

    @field_validator("cron", "early", "at_least", "at_most", "silent", "runs", "failures")
    @classmethod
    def _only_of_jobs(cls, value: Any, info: ValidationInfo) -> Any:
        match = info.data.get("match")
        if match is not None and not match.job and value is not None:
            raise ValueError("only jobs have this; give match.job, or leave it out and give every")
        return value

    @field_validator("every")
    @classmethod
    def _one_of_two(cls, value: float | None, info: ValidationInfo) -> float | None:
        if "cron" not in info.data:
            return value
        if value is not None and info.data["cron"] is not None:
            raise ValueError("can't stand beside cron; give one of the two")
        if value is None and info.data["cron"] is None:
            raise ValueError("missing; expected a time such as 1h, or cron")
        return value

    @field_validator("timezone", "early")
    @classmethod
    def _only_with_cron(cls, value: Any, info: ValidationInfo) -> Any:
        if info.data.get("every") is not None:
            raise ValueError("only cron takes this, not every")
        return value

    @field_validator("at_most")
    @classmethod
    def _above_least(cls, value: float, info: ValidationInfo) -> float:
        if 0 < value <= info.data.get("at_least", 0):
            raise ValueError("expected more than at_least")
        return value

    @property
    def of_jobs(self) -> bool:
        """Whether it is about jobs, and not about messages."""
        return bool(self.match.job)


Schedules = Mapping[str, Schedule]
"""By name."""
