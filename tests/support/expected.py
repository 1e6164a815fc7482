"""A clock, an engine with schedules, and what it says."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from wafermon.correlation import Derived, Engine, Settings, rules_of
from wafermon.correlation.schedules import said
from wafermon.journal import Presence
from wafermon.model.blocks import Block
from wafermon.model.checking import checked
from wafermon.model.cron import zone_of
from wafermon.model.messages import Message, decode_stored, dumps, encode_stored
from wafermon.model.schedules import Schedule

JOURNAL = "00000000000000aa"
S = 1_000_000
M, H, D = 60 * S, 3600 * S, 86_400 * S
Facts = tuple[str, ...]


def date(text: str, zone: str = "UTC") -> int:
    """``2026-11-27 02:30`` -> microseconds since the epoch."""
    return int(datetime.fromisoformat(text).replace(tzinfo=zone_of(zone)).timestamp()) * S


def rules(schedules: Mapping[str, Mapping[str, Any]], **settings: Any) -> Settings:
    """Settings with these schedules, as a config has them."""
    made = rules_of({name: checked(Schedule, given) for name, given in schedules.items()})
    return Settings(schedules=made, stalled_after=0, trace_idle=0, trace_max=0, **settings)


class World:
    """What happens, one thing after the other. Each event of a schedule is journalled at once, and comes back."""

    def __init__(
        self, schedules: Mapping[str, Mapping[str, Any]], begin: str = "2026-11-27 00:00", **settings: Any
    ) -> None:
        self.settings = rules(schedules, **settings)
        self.engine = Engine(self.settings, JOURNAL)
        self.now = date(begin)
        self.elapsed = 7 * D
        """On a time of its own, whose zero means nothing."""
        self.events: list[dict[str, Any]] = []
        self.others: list[dict[str, Any]] = []
        """The contexts of what else was derived."""
        self.started(0)
        self._take(self.engine.pending())

    # -- what happens

    def wait(self, microseconds: int, step: int = 0) -> None:
        """Time passes while nothing comes, in steps as in the sidecar."""
        left = microseconds
        while left > 0:
            some = min(step or left, left)
            self.now += some
            self.elapsed += some
            left -= some
            self._idle()

    def _idle(self) -> None:
        self._take(self.engine.advance(self.elapsed))
        while self.engine.behind:
            self._take(self.engine.advance(self.elapsed))

    def until(self, text: str, zone: str = "UTC") -> None:
        """Wait up to a date."""
        self.wait(date(text, zone) - self.now)

    def group(self, *bodies: dict[str, Any]) -> None:
        """Messages come."""
        messages = [decode_stored(dumps(body).encode()) for body in bodies]
        self._observe(messages)

    def reported(self, job: str, percent: float = 1, status: str = "", pid: int = 7) -> None:
        """Progress of a program that is connected."""
        self.progress(job, percent, status, client=f"c{pid}", pid=pid, host="fab1")

    def progress(self, job: str, percent: float = 1, status: str = "", **more: Any) -> None:
        body = {
            "type": "progress",
            "job_id": job,
            "trace_id": job,
            "percent": percent,
            "service": "etl",
            "ts": self.now,
        }
        self.group({**body, **({"status": status} if status else {}), **more})

    def run(self, job: str, took: int, status: str = "done") -> None:
        """A whole run."""
        self.progress(job, 0)
        self.wait(took)
        self.progress(job, 100, status)

    def started(self, away: int) -> None:
        """The sidecar begins, after it was away. The clocks are set by the caller."""
        self._observe([said.started(away, JOURNAL, self.now)])

    def away(self, microseconds: int, *, told: bool = True) -> None:
        """The sidecar is killed, and starts later. `told`: whether the start is journalled."""
        snapshot = self.engine.snapshot()
        self.now += microseconds
        self.elapsed += microseconds
        self.engine = Engine(self.settings, JOURNAL)
        self.engine.restore(snapshot)
        if told:
            self.started(microseconds)
        else:
            self.engine.observe_blocks([], self.now, self.elapsed)
        self._take(self.engine.pending())

    def connection(self, what: str, client: str, *, pid: int = 7) -> None:
        """A program came or went."""
        self.engine.follow([Presence(what, client, "etl", "fab1", pid)], self.elapsed)
        self._observe([])

    def ask(self, kind: str, schedule: str, until: int = 0) -> None:
        self._observe([said.asked(kind, schedule, until, "anna", JOURNAL, self.now)])

    def configure(self, schedules: Mapping[str, Mapping[str, Any]]) -> None:
        self.settings = rules(schedules)
        self.engine.configure(self.settings)
        self.wait(1)

    def _observe(self, messages: list[Message]) -> None:
        block = Block.of(b"", messages)
        self.engine.begin([block], self.now, self.elapsed)
        self._take(self.engine.observe_blocks([block], self.now, self.elapsed))

    def _take(self, derived: list[Derived]) -> None:
        if not derived:
            return
        back = [decode_stored(encode_stored(one.message)) for one in derived]
        for message in back:
            context: Any = getattr(message, "context", None) or {}
            if "schedule" not in context:
                self.others.append(context)
            else:
                self.events.append(
                    {"ts": message.ts, "level": message.level, "message": getattr(message, "message", ""), **context}
                )
        self._observe(back)
        assert self.engine.awaiting == 0

    # -- what is said

    def said(self) -> list[str]:
        """The states since it was asked last."""
        events, self.events = self.events, []
        return [event["kind"] for event in events]

    def told(self) -> list[dict[str, Any]]:
        """The alarms, and their ends, since it was asked last."""
        events, self.events = self.events, []
        return [event for event in events if event["level"] == "warning" or event["kind"] == "recovered"]

    def state(self, schedule: str, host: str = "") -> dict[str, Any]:
        found = [one for one in self.engine.schedules.records() if (one["schedule"], one["host"]) == (schedule, host)]
        assert len(found) == 1
        return found[0]
