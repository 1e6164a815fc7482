"""Trace and span: the scope of a call, and what child processes inherit of it."""

from __future__ import annotations

import functools
import os
import re
import time
from typing import Any

from .checks import TRACE_ID
from .encoding import to_json

_W3C_TRACE = re.compile(r"(?!0{32})[0-9a-f]{32}")
_SPAN_ID = re.compile(r"[0-9a-f]{16}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}.*")


@functools.lru_cache(maxsize=256)
def _w3c_trace(trace_id: str) -> tuple[str, str]:
    """A job id as a W3C trace id, and the parent's id where no span is open."""
    import hashlib  # costs as much as half of this module, and not every program has jobs

    digest = hashlib.sha256(trace_id.encode()).hexdigest()
    return (trace_id if _W3C_TRACE.fullmatch(trace_id) else digest[:32]), digest[32:48]


class Scope:
    """Trace and span in which a call is made, also as the JSON that goes into its line."""

    over = False  # a span that has ended is the current one of nobody

    def __init__(self, trace_id: str | None, span_id: str | None, outer: Scope | None = None) -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.outer = outer
        self.span: Scope = outer.span if outer else self  # whose end is this scope's end
        given = {"trace_id": trace_id, "span_id": span_id}
        self.text = "".join([f',"{key}":{to_json(value)}' for key, value in given.items() if value])

    @classmethod
    def inherited(cls, trace_id: str | None) -> Scope:
        """That of the environment; a given trace id wins."""
        trace, span = os.environ.get("WAFERMON_TRACE_ID", ""), os.environ.get("WAFERMON_SPAN_ID", "")
        parent = _TRACEPARENT.fullmatch(os.environ.get("TRACEPARENT", ""))
        if parent and not trace and not span:
            trace, span = parent.groups()
        trace = trace_id or (trace if TRACE_ID.fullmatch(trace) else "")
        return cls(trace or None, span if _SPAN_ID.fullmatch(span) else None)

    def variables(self) -> dict[str, str]:
        """What lets a child process fall into the trace, under the span; an empty one counts as not set."""
        parent = ""
        if self.trace_id:
            trace, nobody = _w3c_trace(self.trace_id)
            parent = f"00-{trace}-{self.span_id or nobody}-01"
        found = {"WAFERMON_TRACE_ID": self.trace_id, "WAFERMON_SPAN_ID": self.span_id, "TRACEPARENT": parent}
        return {name: value or "" for name, value in found.items()}


class OpenSpan(Scope):
    """A span and what its end will say."""

    def __init__(self, trace_id: str, span_id: str, outer: Scope | None, name: str, parent: str | None, tags: Any):
        super().__init__(trace_id, span_id, outer)
        self.span = self
        self.name = name
        self.parent_id = parent
        self.tags = tags
        self.ts = time.time_ns()
        self.started = time.monotonic_ns()
        self.pid = os.getpid()


NOWHERE = Scope(None, None)
