"""Tells the journal how many messages of a trace a backend refused, so that receipts know: an event of the sidecar's own for each
trace, at most one in 10 s."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from wafermon.journal import Entry, Journal
from wafermon.model.blocks import Block
from wafermon.model.messages import OWN_SERVICE, Event, Message, encode_stored

EVERY_SECONDS = 10.0
KIND = "dead_letter"


class LetterCounts:
    """Those of one backend."""

    def __init__(self, backend: str, journal: Journal, reactor: Any) -> None:
        self._backend = backend
        self._journal = journal
        self._reactor = reactor
        self._told: dict[str, float] = {}
        """When each trace was last told of; what is longer ago than `EVERY_SECONDS` is forgotten."""
        self._untold = Counter[str]()
        self._timer: IDelayedCall | None = None

    def add(self, messages: Iterable[Message]) -> None:
        """These were refused, and are dead letters durably. The sidecar's own are not counted: an event about an event that was
        refused would be refused too."""
        for message in messages:
            if message.trace_id and message.service != OWN_SERVICE:
                self._untold[message.trace_id] += 1
        self._tell()

    def _tell(self) -> None:
        now = self._reactor.seconds()
        self._told = {trace_id: at for trace_id, at in self._told.items() if now - at < EVERY_SECONDS}
        self._append([trace_id for trace_id in self._untold if trace_id not in self._told])
        if self._untold and self._timer is None:
            next_at = min(self._told[trace_id] for trace_id in self._untold) + EVERY_SECONDS
            self._timer = self._reactor.callLater(max(0.0, next_at - now), self._tell_later)

    def _tell_later(self) -> None:
        self._timer = None
        self._tell()

    def flush(self) -> None:
        """Tell all of it now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._append(list(self._untold))

    def _append(self, traces: Iterable[str]) -> None:
        events: list[Message] = [self._event(trace_id, self._untold.pop(trace_id)) for trace_id in traces]
        if not events:
            return
        self._told |= dict.fromkeys((str(event.trace_id) for event in events), self._reactor.seconds())
        self._journal.append(Entry(Block.of(b"\n".join([*map(encode_stored, events), b""]), events)))

    def _event(self, trace_id: str, count: int) -> Event:
        plural = "s" if count > 1 else ""
        return Event(
            v=2,
            ts=self._journal.now(),
            service=OWN_SERVICE,
            client=self._journal.id,
            trace_id=trace_id,
            level="warning",
            message=f"{self._backend} refused {count} message{plural}, now dead letters",
            context={"kind": KIND, "backend": self._backend, "count": count},
        )
