"""A trace's id here <-> its id in OTLP, which is 16 bytes and not zero. Pure."""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import sha256

_TRACE = re.compile(r"[0-9a-f]{32}")
_SPAN = re.compile(r"[0-9a-f]{16}")
NO_TRACE, NO_SPAN = "0" * 32, "0" * 16


@lru_cache(20_000)
def trace_hex(trace_id: str) -> str:
    """As it is where OTLP could have it, else the first half of its SHA-256: with the id one finds the trace."""
    if _TRACE.fullmatch(trace_id) and trace_id != NO_TRACE:
        return trace_id
    return sha256(trace_id.encode()).hexdigest()[:32]


def span_hex(span_id: str) -> str:
    """Likewise, in 8 bytes."""
    if _SPAN.fullmatch(span_id) and span_id != NO_SPAN:
        return span_id
    return sha256(span_id.encode()).hexdigest()[:16]


@lru_cache(20_000)
def nobody_hex(trace_id: str) -> str:
    """The span that SDKs name in a TRACEPARENT where none is open: W3C has no such thing as no span. Nothing has it as its id."""
    return sha256(trace_id.encode()).hexdigest()[32:48]
