"""Jobs that a schedule tells of: what else is notable of them is not told a second time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from wafermon.interfaces import Alarm
from wafermon.model.alerts import AlertConfig
from wafermon.model.matching import Matching
from wafermon.model.schedules import FAILED, PAST_SECONDS, SILENT, Schedule

STATES = {"job_failed": FAILED, "gone": FAILED, "job_stalled": SILENT}
"""What is told of any job -> the state of a schedule that says the same of a run."""


class Covered:
    """By the schedules of a config."""

    def __init__(self, schedules: Mapping[str, Schedule]) -> None:
        self._schedules = schedules
        self._matching = Matching({name: one.match for name, one in schedules.items()})

    def tells(self, alarm: Alarm, config: AlertConfig, received: int) -> bool:
        """Whether a schedule says the same to this channel. One that asks for nothing by `silent` does not of jobs that stall.
        `received`: when the journal got it, in microseconds since the Unix epoch."""
        state = STATES.get(alarm.kind)
        if state is None or state not in config.on:
            return False
        return any(
            name in self._schedules
            and (state != SILENT or self._schedules[name].silent > 0)
            and (not config.match.schedule or any(fnmatchcase(name, glob) for glob in config.match.schedule))
            for name in self._about(alarm, received)
        )

    def _about(self, alarm: Alarm, received: int) -> Iterable[str]:
        """The schedules that judge it. What the sidecar derives of a job names them."""
        event = alarm.event
        if alarm.kind == "job_failed":
            if event.get("replay_to") or alarm.ts < received - PAST_SECONDS * 1_000_000:
                return ()  # schedules leave it out
            host = str(event.get("host") or "")
            return self._matching.jobs(str(event.get("job_id")), str(event.get("service")), host)
        context: Mapping[str, Any] = event.get("context") or {}
        names = context.get("schedules")
        return map(str, names) if isinstance(names, list) else ()
