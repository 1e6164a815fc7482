"""Jobs that a schedule tells of: what else is notable of them is not told a second time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from wafermon.interfaces import Alarm
from wafermon.model.alerts import AlertConfig
from wafermon.model.matching import Matching
from wafermon.model.schedules import FAILED, SILENT, Schedule

STATES = {"job_failed": FAILED, "gone": FAILED, "job_stalled": SILENT}
"""What is told of any job -> the state of a schedule that says the same of a run."""


@dataclass(frozen=True)
class _AnyHost:
    """Whom a schedule is about, on whatever host."""

    job: tuple[str, ...]
    service: tuple[str, ...]
    host: tuple[str, ...] = ()


class Covered:
    """By the schedules of a config."""

    def __init__(self, schedules: Mapping[str, Schedule]) -> None:
        self._schedules = schedules
        self._matching = Matching({name: one.match for name, one in schedules.items()})
        self._on_any_host = Matching(
            {name: _AnyHost(one.match.job, one.match.service) for name, one in schedules.items()}
        )

    def tells(self, alarm: Alarm, config: AlertConfig) -> bool:
        """Whether a schedule says the same to this channel. One that asks for nothing by `silent` does not of jobs that stall. What
        the sidecar derives of a job does not name its host: any counts then."""
        state = STATES.get(alarm.kind)
        if state is None or state not in config.on:
            return False
        return any(
            (state != SILENT or self._schedules[name].silent > 0)
            and (not config.match.schedule or any(fnmatchcase(name, glob) for glob in config.match.schedule))
            for name in self._about(alarm)
        )

    def _about(self, alarm: Alarm) -> Iterable[str]:
        event = alarm.event
        if alarm.kind == "job_failed":
            host = str(event.get("host") or "")
            return self._matching.jobs(str(event.get("job_id")), str(event.get("service")), host)
        context: Mapping[str, Any] = event.get("context") or {}
        return self._on_any_host.jobs(str(context.get("job_id")), str(context.get("service")), "")
