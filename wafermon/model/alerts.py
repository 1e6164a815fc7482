"""The `alerts` of a config: who is told of what, how often, and when not. The clock is handed in."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from wafermon.model.notable import KINDS
from wafermon.model.settings import Frequency, Kind, Section, Text
from wafermon.model.units import Rate

_QUIET = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])")
_NOT_BY_DEFAULT = {"span_abandoned"}


def _globs(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _on(value: tuple[str, ...]) -> tuple[str, ...]:
    for kind in value:
        if kind not in KINDS:
            raise ValueError(f"nothing is called {kind!r}; expected some of {', '.join(KINDS)}")
    if not value:
        raise ValueError(f"expected at least one of {', '.join(KINDS)}")
    return value


def _quiet(value: str) -> str:
    if value and (not _QUIET.fullmatch(value) or value[:5] == value[6:]):
        raise ValueError(f"expected two times of a day such as 22:00-06:00, got {value!r}")
    return value


Globs = Annotated[
    tuple[Text, ...], BeforeValidator(_globs), Kind("a glob in quotes or a list of such globs"), Field(strict=False)
]


class AlertMatch(Section):
    """Which alarms; all that is given must match."""

    schedule: Globs = Field(default=(), description="Names of schedules, as globs.")
    service: Globs = Field(default=(), description="Services that the alarm is about, as globs.")
    job: Globs = Field(default=(), description="Ids of jobs, as globs.")


class AlertKeys(Section):
    """What every channel takes; the other keys are its plugin's own."""

    plugin: Text = Field(
        description="Which kind of channel: `command`, `webhook`, `email`, or another installed plugin."
    )
    on: Annotated[tuple[str, ...], AfterValidator(_on), Kind("a list of kinds")] = Field(
        default=tuple(kind for kind in KINDS if kind not in _NOT_BY_DEFAULT),
        description="The kinds of alarm that it is told of.",
        strict=False,
    )
    match: AlertMatch = Field(default=AlertMatch(), description="Which of them. Without it all.")
    at_most: Frequency = Field(
        default=Rate(10, 3600.0),
        description="How many messages it gets; what is beyond that comes later as one digest. What resolves an alarm is not counted.",
    )
    quiet: Annotated[str, AfterValidator(_quiet), Kind("text")] = Field(
        default="",
        description="A time of the day, in the sidecar's time zone, such as `22:00-06:00`: what comes then waits for its end, and comes "
        "as one digest. What resolves an alarm does not wait.",
    )


class AlertConfig(AlertKeys):
    """One configured channel, checked."""

    name: str
    options: Any = None
    """What the plugin's `build` takes."""


def quiet_left(quiet: str, minute: float) -> float:
    """Minutes until the quiet hours end, at that minute of the day; 0 where it is not quiet."""
    found = _QUIET.fullmatch(quiet)
    if not found:
        return 0.0
    first, last = int(found[1]) * 60 + int(found[2]), int(found[3]) * 60 + int(found[4])
    length, since = (last - first) % 1440, (minute - first) % 1440
    return length - since if since < length else 0.0
