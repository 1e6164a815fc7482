"""Ids of traces by their hashes: what a program of OpenTelemetry has for a job's id. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

from wafermon.wire.otlp.ids import trace_hex

LOOK_SECONDS = 0.2
"""How often it is asked at most which traces live, where they are more than FEW."""
FEW = 1000
KNOWN_MOST = 100_000


class TraceHashes:
    """Those of the traces that live, and of those that lived lately. `find` may be called from any thread."""

    def __init__(self, live: Callable[[], Iterable[str]], seconds: Callable[[], float]) -> None:
        self._live = live
        self._seconds = seconds
        self._look_at = 0.0
        self._seen: OrderedDict[str, str] = OrderedDict()
        """By id, its hash."""
        self._by_hash: dict[str, str] = {}

    def refresh(self) -> None:
        """Look which traces live; in the thread whose they are."""
        now = self._seconds()
        if now < self._look_at:
            return
        live = list(self._live())
        self._look_at = now + LOOK_SECONDS if len(live) > FEW else 0.0
        for trace_id in live:
            if trace_id in self._seen:
                self._seen.move_to_end(trace_id)
            elif (hashed := trace_hex(trace_id)) != trace_id:
                self._seen[trace_id] = hashed
                self._by_hash[hashed] = trace_id
        while len(self._seen) > KNOWN_MOST:
            _, hashed = self._seen.popitem(last=False)
            self._by_hash.pop(hashed, None)

    def find(self, hashed: str) -> str | None:
        """The id of the trace that has this hash."""
        return self._by_hash.get(hashed)
