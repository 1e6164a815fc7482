"""Those who look on while jobs change, and what they are told: which traces changed, and how their jobs are now.

A change is worked out and encoded once, however many look on, and at most every STEP_SECONDS. The sidecar never waits for a viewer: to
one that does not keep up nothing is written until it does, and it is told then that it has missed something.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from wafermon.journal import Group
from wafermon.model.messages import OWN_SERVICE, dumps
from wafermon.model.records import JobRecord

STEP_SECONDS = 0.5
"""How often changes are told."""
ALIVE_STEPS = 4
"""After so many steps without a change it is told that there is none."""
TRACES = 200
"""So many are named in one step; where more have changed, it says so."""
COLLECTED = 10_000
"""So many are remembered between two steps."""
SHOWN = ("job_id", "trace_id", "percent", "status", "state", "service", "services", "errors", "first", "last_progress")


class Changes:
    """Which traces messages came for since the last step. A message may come here before it is correlated, so that each trace is told in the
    step after, too."""

    def __init__(self) -> None:
        self._new: dict[str, None] = {}
        self._before: dict[str, None] = {}
        self._told: dict[str, bytes] = {}

    def see(self, group: Group) -> None:
        """A group was committed."""
        if len(self._new) > COLLECTED:
            return
        for _, block in group.blocks:
            for tally in block.tallies():
                if isinstance(tally.trace_id, str):
                    self._new[tally.trace_id] = None
            for message in block.of_service(OWN_SERVICE):
                if isinstance(message.trace_id, str):
                    self._new[message.trace_id] = None

    def step(self, now: int, jobs: Callable[[Iterable[str]], list[JobRecord]]) -> bytes:
        """The event for all viewers; empty where nothing changed. `now`: microseconds since the epoch."""
        traces = [*self._before, *(one for one in self._new if one not in self._before)]
        self._before, self._new = self._new, {}
        if not traces:
            return b""
        named = traces[-TRACES:]
        changed = []
        for job in jobs(named):
            shown = {name: job[name] for name in SHOWN}  # type: ignore[literal-required]
            shown["troubles"] = job.get("troubles", [])
            key, text = f"{job['trace_id']} {job['job_id']}", dumps(shown).encode()
            if self._told.get(key) != text:
                self._told[key] = text
                changed.append(text)
        if len(self._told) > COLLECTED:
            self._told.clear()
        head = dumps({"now": now, "traces": named, "more": len(traces) > len(named)}).encode()
        return event(b"changes", head[:-1] + b',"jobs":[' + b",".join(changed) + b"]}")


def event(name: bytes, data: bytes) -> bytes:
    """One server-sent event; `data` is one line."""
    return b"event: " + name + b"\ndata: " + data + b"\n\n"


@implementer(IPushProducer)
class Viewer:
    """One stream. What waits for a slow one is what its connection took before it said that it is full: one step's event, and what the kernel
    has."""

    def __init__(self, write: Callable[[bytes], Any]) -> None:
        self.missed = 0
        """Steps that it was not told, since the last one that it was."""
        self._write = write
        self._paused = False

    def tell(self, told: bytes) -> None:
        if self._paused:
            self.missed += 1
            return
        if self.missed:
            told = event(b"missed", b'{"steps":%d}' % self.missed) + told
            self.missed = 0
        self._write(told)

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False

    def stopProducing(self) -> None:
        self._paused = True
