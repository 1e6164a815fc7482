"""The watchers of messages as they come: each gets what its globs let through, as far as it keeps up.

The sidecar never waits for one. What does not fit into a watcher's buffer, or is more than a person can follow, is left
out, counted and told. Without watchers nothing is done at all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from fnmatch import translate
from re import compile as pattern
from typing import Any

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from wafermon.journal import Group
from wafermon.model.blocks import Block
from wafermon.model.levels import levels_of
from wafermon.model.messages import Kind

BUFFER_BYTES = 1 << 20
"""What may wait for one watcher."""
PER_SECOND = 5_000
"""The most messages that one watcher gets in a second."""
_SERVICE, _LEVEL = map(Kind._fields.index, ("service", "level"))


class Filter:
    """Which kinds of messages a watcher wants; an empty glob wants all. Raises ValueError for a level that is none."""

    def __init__(self, service: str = "", trace: str = "", level: str = "") -> None:
        self._service = pattern(translate(service or "*")).match
        self._trace = pattern(translate(trace)).match if trace else None
        self._levels = levels_of(level) if level else None
        if level and not self._levels:
            raise ValueError(f"{level!r} is no level; expected one such as warning, or >=warning")

    def wants(self, kind: tuple[Any, ...]) -> bool:
        """Whether messages of this kind are wanted, as far as their kind decides."""
        return self._service(kind[_SERVICE]) is not None and (self._levels is None or kind[_LEVEL] in self._levels)

    def _wants_trace(self, trace_id: object) -> bool:
        return self._trace is None or (isinstance(trace_id, str) and self._trace(trace_id) is not None)

    def count(self, block: Block) -> int:
        """How many lines of a block are wanted."""
        if self._trace is None and all(map(self.wants, block.kinds)):
            return block.count
        return len(self.lines(block))

    def lines(self, block: Block) -> list[bytes]:
        """The lines of a block that are wanted."""
        wanted = {kind for kind in block.kinds if self.wants(kind)}
        if not wanted:
            return []
        if self._trace is None and len(wanted) == len(block.kinds):
            return block.lines
        places = block.places(wanted)
        if self._trace is not None:
            messages = zip(places, block.at(places), strict=True)
            places = [place for place, message in messages if self._wants_trace(message.trace_id)]
        lines = block.lines if places else []
        return [lines[place] for place in places]


@implementer(IPushProducer)
class Watcher:
    """One of them, as a stream of server-sent events: each message is the data of one, as it was stored; ``lost``
    events say in their ``count`` how many were left out just there."""

    def __init__(self, wanted: Filter, write: Callable[[bytes], Any], seconds: Callable[[], float]) -> None:
        self.lost = 0
        """Left out since it was last told."""
        self._wanted = wanted
        self._write = write
        self._seconds = seconds
        self._buffer: deque[bytes] = deque()
        self._bytes = 0
        self._paused = False
        self._second = 0
        self._shown = 0

    def see(self, group: Group) -> None:
        """A group was committed."""
        second = int(self._seconds())
        if second != self._second:
            self._second, self._shown = second, 0
        for _, block in group.blocks:
            if self._shown < PER_SECOND:
                self._show(self._wanted.lines(block))
            else:
                self.lost += self._wanted.count(block)

    def _show(self, lines: list[bytes]) -> None:
        shown = lines[: PER_SECOND - self._shown]
        self._shown += len(shown)
        taken = 0
        for line in shown:
            if self._bytes + len(line) > BUFFER_BYTES:
                break
            taken += 1
            self._put(b"data: " + line + b"\n\n")
        self.lost += len(lines) - taken
        self._flush()

    def _put(self, event: bytes) -> None:
        if self.lost:
            event = b'event: lost\ndata: {"count":%d}\n\n' % self.lost + event
            self.lost = 0
        self._buffer.append(event)
        self._bytes += len(event)

    def _flush(self) -> None:
        if self._buffer and not self._paused:
            data = b"".join(self._buffer)
            self._buffer.clear()
            self._bytes = 0
            self._write(data)

    def alive(self) -> None:
        """Say that the stream goes on; tell what was lost although nothing follows."""
        if self.lost and not self._buffer:
            self._put(b"")
        self._buffer.append(b": alive\n\n")
        self._flush()

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self._flush()

    def stopProducing(self) -> None:
        self._paused = True
