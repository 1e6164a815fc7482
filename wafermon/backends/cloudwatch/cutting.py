"""Log events -> requests that CloudWatch Logs takes. Pure. The limits are those of AWS's page on PutLogEvents.

Events of one request are in the order of their times, are at most 10,000 and 1 MiB with 26 bytes for each, and lie within 24 hours; one
event alone is bounded by the request's size. (Too old or too new is for the service to say: it takes the others of the request.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import NamedTuple

REQUEST_BYTES = 1_048_576
REQUEST_EVENTS = 10_000
EVENT_OVERHEAD = 26
SPAN_MS = 24 * 3_600_000


class Entry(NamedTuple):
    """One log event."""

    number: int
    """The index of its message in the batch."""
    time: int
    """In milliseconds since the epoch."""
    line: bytes
    """UTF-8."""

    @property
    def size(self) -> int:
        """In bytes, as CloudWatch counts."""
        return len(self.line) + EVENT_OVERHEAD

    @property
    def fits(self) -> bool:
        """Whether any request can take it."""
        return self.size <= REQUEST_BYTES


def cuts(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Entries that fit, each in one request; those of one time in the order in which they came."""
    request: list[Entry] = []
    size = 0
    for entry in sorted(entries, key=attrgetter("time")):
        full = len(request) == REQUEST_EVENTS or size + entry.size > REQUEST_BYTES
        if request and (full or entry.time - request[0].time > SPAN_MS):
            yield request
            request, size = [], 0
        request.append(entry)
        size += entry.size
    if request:
        yield request
